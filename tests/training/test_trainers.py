"""The door to TRL: its private names are all listed, all there, and used nowhere else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import training
from training.trainers import PRIVATE_NAMES, offline


@pytest.mark.parametrize("trainer", PRIVATE_NAMES)
def test_the_installed_trl_has_every_private_name_that_is_used(trainer: str) -> None:
    offline()
    import trl

    found = getattr(trl, trainer)
    own = [c for c in found.__mro__ if c.__module__.startswith(("trl.", "transformers."))]
    assigned = set(
        re.findall(r"self\.(_\w+)(?:\s*:[^=\n]+)?\s*=", "\n".join(map(inspect.getsource, own)))
    )
    missing = [n for n in PRIVATE_NAMES[trainer] if not hasattr(found, n) and n not in assigned]
    assert not missing, f"trl {trl.__version__}'s {trainer} has no {', '.join(missing)} any more"


def test_private_names_are_listed_and_used_behind_the_door_only() -> None:
    from training.rollouts import PromptEncoder, RolloutTrainer
    from training.zoom_rollouts import ZoomTrainer

    listed = {name for names in PRIVATE_NAMES.values() for name in names}
    files = Path(str(training.__file__)).parent.rglob("*.py")
    texts = {file.name: file.read_text("utf-8") for file in files}
    of_a_trainer = {name: set(re.findall(r"trainer\.(_\w+)", text)) for name, text in texts.items()}
    both = texts["rollouts.py"] + texts["zoom_rollouts.py"]
    overridden = set(re.findall(r"(?:self|super\(\))\.(_\w+)", both))
    overridden |= listed & {*vars(RolloutTrainer), *vars(ZoomTrainer)}
    own = {*vars(RolloutTrainer), *vars(ZoomTrainer), *ZoomTrainer.__annotations__}
    own |= {*vars(PromptEncoder), *PromptEncoder.__annotations__}
    overridden -= own - listed
    assert [name for name, used in of_a_trainer.items() if used] == ["trainers.py"]
    assert of_a_trainer["trainers.py"] | overridden == listed
