"""From the name a user gives a teacher to a teacher, and to what must be known about it.

    chosen = choose_teacher("nano")                              # the embedded model
    chosen = choose_teacher("./checkpoints/qwen3-vl-4b")         # a checkpoint, in this process
    chosen = choose_teacher("http://gpu:8000", space="qwen2.5-vl")   # a server such as vLLM
    await chosen.teacher.open()

A teacher's coordinate space decides where its points lie, so it is never guessed: a checkpoint's is
read from its configuration, a server's is given, or follows from a model name that says it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.settings import Problem
from mcts.coordinates import CoordinateSpace
from mcts.teacher import Teacher

NANO = Path(__file__).resolve().parent.parent / "training" / "nano" / "weights"

_SPACES = {
    "qwen2-vl": CoordinateSpace.qwen2_vl,
    "qwen2.5-vl": CoordinateSpace.qwen25_vl,
    "qwen3-vl": CoordinateSpace.qwen3_vl,
    "original": CoordinateSpace.original,
}
_MODEL_TYPES = {"qwen2_vl": "qwen2-vl", "qwen2_5_vl": "qwen2.5-vl", "qwen3_vl": "qwen3-vl"}
_NAMED = re.compile(r"qwen[-_ ]?(2\.5|2|3)[-_ ]?vl", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ChosenTeacher:
    """A teacher with what a search must know about it."""

    teacher: Teacher
    space: CoordinateSpace
    prompt: str
    step_tokens: int


def choose_teacher(
    name: str,
    *,
    model: str | None = None,
    space: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    revision: str | None = None,
    timeout_s: float = 600.0,
    concurrency: int = 32,
) -> ChosenTeacher:
    """The teacher that `name` means; it is not opened yet.

    Raises:
        Problem: there is no such folder, or its coordinate space is not known.
    """
    if re.match(r"https?://", name):
        from mcts.openai_teacher import OpenAITeacher

        # Every tree asks for several things at once; the server queues what it cannot batch.
        client = OpenAITeacher(
            name,
            model,
            concurrency=4 * concurrency,
            timeout_s=timeout_s,
            revision=revision or "",
        )
        found = _server_space(space, model)
        found = replace(
            found,
            min_pixels=min_pixels or found.min_pixels,
            max_pixels=max_pixels or found.max_pixels,
        )
        return ChosenTeacher(client, found, "points", 512)
    folder = NANO if name == "nano" else Path(name)
    if not (folder / "config.json").is_file():
        raise Problem(
            f"teacher {name!r} is neither `nano`, nor a URL, nor a folder with a config.json"
        )
    from mcts.local import LocalTeacher

    found = space_by_name(space) if space else checkpoint_space(folder)
    if name == "nano":
        return ChosenTeacher(LocalTeacher(folder), found, "nano", 48)
    return ChosenTeacher(LocalTeacher(folder), found, "points", 512)


def space_by_name(name: str) -> CoordinateSpace:
    """The coordinate space of a model family."""
    try:
        return _SPACES[name.lower()]()
    except KeyError:
        raise Problem(
            f"space: there is no coordinate space {name!r}; there are {', '.join(_SPACES)}"
        ) from None


def checkpoint_space(folder: Path) -> CoordinateSpace:
    """The coordinate space of a checkpoint, from its configuration and its image processor's."""
    kind = str(_read(folder / "config.json").get("model_type"))
    if kind not in _MODEL_TYPES:
        raise Problem(f"{folder}: the coordinates of a {kind!r} model are not known; give --space")
    processor = _read(folder / "preprocessor_config.json")
    if not processor:
        processor = _read(folder / "processor_config.json").get("image_processor", {})
    size = processor.get("size") or {}
    least = processor.get("min_pixels") or size.get("shortest_edge")
    most = processor.get("max_pixels") or size.get("longest_edge")
    limits = {"min_pixels": least, "max_pixels": most}
    given = {key: int(value) for key, value in limits.items() if value}
    return _SPACES[_MODEL_TYPES[kind]](**given)


def _server_space(space: str | None, model: str | None) -> CoordinateSpace:
    if space:
        return space_by_name(space)
    if match := _NAMED.search(model or ""):
        return space_by_name(f"qwen{match[1]}-vl")
    raise Problem(
        "space: a server does not say which coordinates its model speaks; give --space "
        f"({', '.join(_SPACES)}) or --model with a name that says it"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Problem(f"{path}: not readable as JSON ({error})") from None
    return dict(found)
