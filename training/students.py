"""From the name a user gives a model to the model: its folder, its coordinates, how to ask it.

    with student(warehouse, "nano-base") as found:   # or a trained model's name, a folder, a hub id
        found.folder, found.model_id, found.space, found.prompt_style.prompt

A trained student says in its folder how it was taught to be asked; the embedded models speak their
own terse prompts; any other checkpoint gets the general ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcts.coordinates import CoordinateSpace
from mcts.teachers.checkpoints import (
    PromptStyle,
    checkpoint_space,
    find_checkpoint,
    prompt_style,
    registered_checkpoints,
)
from mcts.teachers.local.teacher import checkpoint_identity
from training.errors import TrainingError
from warehouse.models import find_model, open_model
from warehouse.storage.home import Warehouse

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Student:
    """A checkpoint with what must be known to ask or to train it."""

    folder: Path
    model_id: str
    """Its identity: name and hash of its weights."""
    space: CoordinateSpace
    prompt_style: PromptStyle

    def with_response_style(self, style: str) -> Student:
        """The same checkpoint, asked for another response style."""
        return replace(self, prompt_style=self.prompt_style.with_response_style(style))


@contextmanager
def student(warehouse: Warehouse, name: str) -> Iterator[Student]:
    """The model that `name` means; its folder may be gone afterwards.

    Raises:
        TrainingError: there is none, or its coordinates are not known.
        WarehouseError: several trained models could be meant.
    """
    if registered := find_checkpoint(name):
        yield _student(registered, None)
        return
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        yield _student(folder.resolve(), None)
        return
    row = find_model(warehouse, name)
    if row is not None:
        with open_model(warehouse, row) as opened:
            yield _student(opened, row["model_id"])
        return
    if folder.exists() or not _HUB_NAME.fullmatch(name):
        raise TrainingError(
            f"model {name!r} is neither {', '.join(registered_checkpoints())}, nor a model "
            "of this warehouse, nor a folder with a config.json, nor a name on a hub such as "
            "Qwen/Qwen2.5-VL-3B-Instruct"
        )
    yield _student(_from_hub(name), None)


def _student(folder: Path, model_id: str | None) -> Student:
    try:
        space = checkpoint_space(folder)
        style = prompt_style(folder)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    return Student(folder, model_id or checkpoint_identity(folder), space, style)


def _from_hub(name: str) -> Path:
    """The folder of a model of a hub, from the local cache unless the hub may be asked."""
    from transformers.utils.hub import snapshot_download

    wanted = ["*.safetensors", "*.json", "*.jinja", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"model {name!r} is not here: fetch it once, with HF_HUB_OFFLINE=0, or name its folder "
            f"({str(error).splitlines()[0]})"
        ) from None


def load(found: Student, *, dtype: str = "float32") -> tuple[Any, Any]:
    """The model and its processor; only safetensors are read, and no code of the folder is run."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    logging.disable_progress_bar()
    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            found.folder, dtype=getattr(torch, dtype), use_safetensors=True, **here
        )
        processor = AutoProcessor.from_pretrained(found.folder, **here)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise TrainingError(f"cannot load the model in {found.folder}: {error}") from error
    return model, processor
