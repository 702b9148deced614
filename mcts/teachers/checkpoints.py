"""What a checkpoint's folder says of its model: the coordinates it speaks, and how to ask it.

    space = checkpoint_space(folder)        # from config.json and the image processor's settings
    taught = checkpoint_manners(folder)     # Manners("nano", "ungrounded"), or None

A student trained here carries `vigorl.json`, so that whoever asks it later asks as it was taught.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mcts.coordinates import CoordinateSpace

SPACES = {
    "qwen2-vl": CoordinateSpace.qwen2_vl,
    "qwen2.5-vl": CoordinateSpace.qwen25_vl,
    "qwen3-vl": CoordinateSpace.qwen3_vl,
    "original": CoordinateSpace.original,
}
"""A model family's coordinates, by the name a person gives."""
MODEL_TYPES = {"qwen2_vl": "qwen2-vl", "qwen2_5_vl": "qwen2.5-vl", "qwen3_vl": "qwen3-vl"}
"""The same families by the `model_type` of their config.json."""
MANNERS_FILE = "vigorl.json"

PROMPTS: dict[str, dict[str, str | None]] = {
    "nano": {"grounded": "nano", "ungrounded": "nano-ungrounded", "answers": "nano-answer"},
    "general": {"grounded": None, "ungrounded": "thoughts", "answers": "answer"},
}
"""Which prompt file asks for which form of answer, by the manners a model was taught; None for each
task's own."""


@dataclass(frozen=True, slots=True)
class Manners:
    """How a student was asked while it learned."""

    manners: str
    """A key of `PROMPTS`: the embedded models' terse prompts, or the general ones."""
    form: str
    """What it was taught to answer with: grounded steps, ungrounded steps, or answers alone."""

    @property
    def prompt(self) -> str | None:
        """The prompt file that asks it for that form; None for each task's own."""
        return PROMPTS[self.manners][self.form]


def checkpoint_space(folder: Path) -> CoordinateSpace:
    """The coordinate space of a checkpoint, from its configuration and its image processor's.

    Raises:
        ValueError: the model's family is not known, or a file is no JSON.
    """
    kind = str(read_json(folder / "config.json").get("model_type"))
    if kind not in MODEL_TYPES:
        raise ValueError(f"{folder}: the coordinates of a {kind!r} model are not known")
    processor = read_json(folder / "preprocessor_config.json")
    if not processor:
        processor = read_json(folder / "processor_config.json").get("image_processor", {})
    size = processor.get("size") or {}
    least = processor.get("min_pixels") or size.get("shortest_edge")
    most = processor.get("max_pixels") or size.get("longest_edge")
    limits = {"min_pixels": least, "max_pixels": most}
    given = {key: int(value) for key, value in limits.items() if value}
    return SPACES[MODEL_TYPES[kind]](**given)


def checkpoint_manners(folder: Path) -> Manners | None:
    """How the model in a folder was taught to be asked; None where nobody said.

    Raises:
        ValueError: the file names manners or a form that there are not.
    """
    told = read_json(folder / MANNERS_FILE)
    if not told:
        return None
    found = Manners(str(told.get("manners")), str(told.get("form")))
    if found.form not in PROMPTS.get(found.manners, ()):
        raise ValueError(f"{folder / MANNERS_FILE}: there are no manners {told}")
    return found


def write_manners(folder: Path, manners: Manners) -> None:
    """Say in a model's folder how it was taught to be asked."""
    text = json.dumps(asdict(manners), indent=1) + "\n"
    (folder / MANNERS_FILE).write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty if there is no such file.

    Raises:
        ValueError: it can't be read as JSON.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from None
    return dict(found)
