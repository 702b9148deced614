"""Which coordinates a teacher speaks: given, read from a checkpoint, or from a model's name.

    space_by_name("qwen2.5-vl");  checkpoint_space(folder);  server_space(None, "Qwen/Qwen3-VL-8B")

The coordinate space decides where a teacher's points lie, so it is never guessed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from flows.settings_base import FieldProblem, Problem
from mcts.coordinates import CoordinateSpace
from mcts.teachers import checkpoints
from mcts.teachers.checkpoints import MODEL_TYPES, SPACES, named_space, read_json

_NAMED = re.compile(r"qwen[-_ ]?(2\.5|2|3)[-_ ]?vl", re.IGNORECASE)


def space_by_name(name: str) -> CoordinateSpace:
    """Return the coordinate space of a model family, with a dialect where the name has one.

    Raises:
        Problem: there is none of that name.
    """
    try:
        return named_space(name)
    except ValueError as error:
        raise FieldProblem("space", str(error)) from None


def limited_space(
    space: CoordinateSpace, min_pixels: int | None, max_pixels: int | None
) -> CoordinateSpace:
    """Return a space with other limits of its images' pixels, where they are given.

    Raises:
        Problem: the limits exclude each other.
    """
    try:
        return replace(
            space,
            min_pixels=min_pixels or space.min_pixels,
            max_pixels=max_pixels or space.max_pixels,
        )
    except ValueError as error:
        raise FieldProblem("max_pixels" if max_pixels else "min_pixels", str(error)) from None


def checkpoint_space(folder: Path) -> CoordinateSpace:
    """Read a checkpoint's coordinate space from its configuration and its image processor's.

    Raises:
        Problem: the files do not name it.
    """
    try:
        return checkpoints.checkpoint_space(folder)
    except ValueError as error:
        hint = "; give --space" if "not known" in str(error) else ""
        raise Problem(f"{error}{hint}") from None


def server_space(space: str | None, model: str | None) -> CoordinateSpace:
    """Return a served model's coordinate space: the one given, or the one its name implies.

    Raises:
        Problem: there is neither.
    """
    if space:
        return space_by_name(space)
    if match := _NAMED.search(model or ""):
        return space_by_name(f"qwen{match[1]}-vl")
    raise FieldProblem(
        "space",
        "a server does not name the coordinates of its model; give --space "
        f"({', '.join(SPACES)}) or --model with a name that implies it",
    )


def space_options(
    model: str, folder: Path | None, min_pixels: int | None, max_pixels: int | None
) -> str:
    """Format the options that give a build the coordinates of a served model."""
    limits = {"min-pixels": min_pixels, "max-pixels": max_pixels}
    option = f"--model {model}" if _NAMED.search(model) else f"--space {'|'.join(SPACES)}"
    config = read_json(folder / "config.json") if folder else {}
    kind = MODEL_TYPES.get(str(config.get("model_type")))
    if folder and kind:
        space = checkpoint_space(folder)
        option = f"--space {kind}"
        limits = {
            "min-pixels": min_pixels or space.min_pixels,
            "max-pixels": max_pixels or space.max_pixels,
        }
    return " ".join([option, *(f"--{key} {value}" for key, value in limits.items() if value)])
