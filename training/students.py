"""Finds the model that a user names: its folder, its coordinates, how to prompt it.

    with open_student(warehouse, name) as student:   # or a folder, or a name on a hub
        student.folder, student.model_id, student.space, student.prompt_style.prompt
        model, processor = load_model(student)
    with with_text_tags(student, ("think",)) as student:     # `<think>` is three tokens of text

A checkpoint's `vigorl.json` says how it is prompted (`mcts.teachers.checkpoints`).

Some tokenizers have a tag as one added token that the model has never seen in training: Qwen3-VL
Instruct has `<think>` from the models that reason. A student is given such a tag in pieces that it
knows, and the tokenizer that writes them is kept with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mcts.coordinates import CoordinateSpace
from mcts.data import ResponseStyle
from mcts.teachers.checkpoints import (
    STYLE_FILE,
    PromptStyle,
    checkpoint_space,
    find_checkpoint,
    prompt_style,
    registered_checkpoints,
)
from mcts.teachers.control_tokens import control_tokens
from mcts.teachers.local.teacher import checkpoint_identity
from mcts.zoom.config import ZoomConfig
from mcts.zoom.recorded import recorded_zoom
from training.errors import TrainingError
from warehouse.models import find_model, open_model
from warehouse.storage.home import Warehouse
from warehouse.versions.response_styles import PROMPTS

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_IMAGE_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Student:
    """A checkpoint with what must be known to prompt or to train it."""

    folder: Path
    model_id: str
    """Its identity: name and hash of its weights."""
    space: CoordinateSpace
    prompt_style: PromptStyle
    zoom: ZoomConfig | None = None
    """What its zoom calls show; None where it doesn't zoom, or nothing is recorded."""

    @property
    def taught_here(self) -> bool:
        """Whether it has learned a response style, and so the tags as its tokenizer has them."""
        return (self.folder / STYLE_FILE).is_file()

    def with_response_style(self, style: ResponseStyle) -> Student:
        """Return the same checkpoint, prompted for another response style.

        Any can be taught to zoom: where it has no prompt of its own for that, with the general one.

        Raises:
            TrainingError: it has no prompt for that style.
        """
        own = self.prompt_style
        if style is ResponseStyle.ZOOM and style not in own.prompts:
            own = replace(own, prompts={**own.prompts, style: PROMPTS[style]})
        try:
            return replace(self, prompt_style=own.with_response_style(style))
        except ValueError as error:
            raise TrainingError(f"model {self.model_id}: {error}") from None


@contextmanager
def open_student(warehouse: Warehouse, name: str) -> Iterator[Student]:
    """Yield the model called `name`; its folder may be gone afterwards.

    Raises:
        TrainingError: there is none, or its coordinates are not known.
        WarehouseError: the name fits several trained models.
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
        names = ", ".join(registered_checkpoints()) or "registered"
        raise TrainingError(
            f"model {name!r} is neither {names}, nor a model of this warehouse, nor a folder "
            "with a config.json, nor a name on a hub such as Qwen/Qwen2.5-VL-3B-Instruct"
        )
    yield _student(_from_hub(name), None)


def _student(folder: Path, model_id: str | None) -> Student:
    try:
        space = checkpoint_space(folder)
        style = prompt_style(folder)
        zoom = recorded_zoom(folder)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    return Student(folder, model_id or checkpoint_identity(folder), space, style, zoom)


def _from_hub(name: str) -> Path:
    """Return the folder of a hub's model, from the local cache unless the hub may be contacted."""
    from transformers.utils.hub import snapshot_download

    wanted = ["*.safetensors", "*.json", "*.jinja", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"model {name!r} is not here: fetch it once, with HF_HUB_OFFLINE=0, or name its folder "
            f"({str(error).splitlines()[0]})"
        ) from None


def read_control_tokens(student: Student) -> tuple[str, ...]:
    """Return the texts that the student's tokenizer makes control tokens of, wherever they stand.

    Empty where it has no tokenizer that can be read: `load_model` says so.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            student.folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError):
        return ()
    return control_tokens(tokenizer)


@contextmanager
def with_text_tags(student: Student, tags: Sequence[str]) -> Iterator[Student]:
    """Yield the student in a folder whose tokenizer writes `<tag>` and `</tag>` as pieces of text.

    Their tokens get names that no text has, so that all others keep their ids. A student that was
    taught here stays as it is.

    Raises:
        TrainingError: the tokenizer makes one token of such a tag by other means.
    """
    if not tags or student.taught_here:
        yield student
        return
    names = {f"<{end}{tag}>": f"<|{end}{tag} as text|>" for tag in tags for end in ("", "/")}
    with _rewritten(student, _TOKENIZER_FILES, lambda config: _renamed(config, names)) as found:
        _check_text_tags(student, found, list(names))
        yield found


@contextmanager
def with_pixel_limit(student: Student) -> Iterator[Student]:
    """Yield the student in a folder whose image processor resizes as the student's space says."""
    most = student.space.max_pixels

    def limited(config: dict[str, Any]) -> dict[str, Any]:
        images = config.get("image_processor", config)
        if "size" in images:
            images["size"]["longest_edge"] = most
        if "max_pixels" in images:
            images["max_pixels"] = most
        return config

    with _rewritten(student, _IMAGE_PROCESSOR_FILES, limited) as found:
        yield found


@contextmanager
def _rewritten(
    student: Student, names: Sequence[str], rewrite: Callable[[Any], Any]
) -> Iterator[Student]:
    """Yield the student in a folder of its own, with the JSON files of these names rewritten."""
    with TemporaryDirectory(prefix="vigorl-student-") as made:
        folder = Path(made)
        for file in student.folder.iterdir():
            if file.name in names:
                written = rewrite(json.loads(file.read_text("utf-8")))
                text = json.dumps(written, ensure_ascii=False)
                (folder / file.name).write_text(text, encoding="utf-8")
            else:
                (folder / file.name).symlink_to(file.resolve())
        yield replace(student, folder=folder)


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """Return JSON with texts that are exactly one of `names`, keys too, in their new words."""
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def _check_text_tags(before: Student, after: Student, tags: Sequence[str]) -> None:
    from transformers import AutoTokenizer

    old, new = (
        AutoTokenizer.from_pretrained(s.folder, local_files_only=True, trust_remote_code=False)
        for s in (before, after)
    )
    whole = [tag for tag in tags if len(new.encode(tag, add_special_tokens=False)) < 2]
    ids, kept = old.get_added_vocab(), new.get_added_vocab()
    moved = [text for text, number in ids.items() if text not in tags and kept.get(text) != number]
    if whole or moved:
        how = "as text" if whole else "as before"
        raise TrainingError(
            f"text_tags: the tokenizer of {before.model_id} can't write "
            f"{', '.join(whole or moved)} {how}; leave the tag out of the recipe"
        )


def load_model(student: Student, *, dtype: str = "float32") -> tuple[Any, Any]:
    """Load the model and its processor; only safetensors are read, no code of the folder is run."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    from mcts.teachers.local.checkpoint import LOADING_ERRORS

    logging.disable_progress_bar()
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            student.folder, dtype=getattr(torch, dtype), use_safetensors=True, **local
        )
        processor = AutoProcessor.from_pretrained(student.folder, **local)
    except LOADING_ERRORS as error:
        raise TrainingError(f"cannot load the model in {student.folder}: {error}") from error
    return model, processor
