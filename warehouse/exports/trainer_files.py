"""What lies beside an export's data, so that its trainer sees what the numbers are about.

    notes = write_trainer_files(out, version, "llama-factory", "parquet", space, counts, sizes)

A trainer that shrinks images on its own, before the model's processor does, moves every point that
is written in pixels of the resized image, without a word. So the limits stand where each trainer
reads them: in `llama_factory.yaml` for LLaMA-Factory, in `easyr1.yaml` for EasyR1. Neither then
resizes anything, and the processor alone does, as the coordinate space says. `notes` are sentences
that a person must know; they stand in README.md and export.json and are printed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts.coordinates import CoordinateSpace, SpaceKind
from warehouse.storage.home import WarehouseError
from warehouse.versions.versions import Version

REWARDS = {"grpo": "trl_reward", "verl": "verl_reward", "easyr1": "easyr1_reward"}
"""The reward of each format of prompts, in `curation.grading.exported_gold`."""
_REWARD_NAMES = {"grpo": "trl_reward", "verl": "compute_score", "easyr1": "compute_score"}
_LLAMA_FACTORY_SIDE = 28
"""LLaMA-Factory enlarges a shorter side to so many pixels, whatever its settings."""
_QWEN_VL_UTILS = (3_136, 12_845_056)
"""Pixels that verl's reader of images, qwen-vl-utils, resizes to, whatever the data says."""

Sizes = Sequence[tuple[int, int]]


def check_format(to: str, files: str, space: CoordinateSpace, sizes: Sizes) -> None:
    """Raise WarehouseError if that trainer can't read those files or would see other images."""
    if to == "verl" and files == "jsonl":
        raise WarehouseError(
            "verl reads images out of Parquet files, and would find no image beside JSON lines: "
            "export with --files parquet"
        )
    shortest = min((min(size) for size in sizes), default=_LLAMA_FACTORY_SIDE)
    if (
        to == "llama-factory"
        and space.kind is SpaceKind.ABSOLUTE_RESIZED
        and shortest < _LLAMA_FACTORY_SIDE
    ):
        raise WarehouseError(
            f"an image has a side of {shortest} pixels, which LLaMA-Factory stretches to "
            f"{_LLAMA_FACTORY_SIDE}: points in pixels of the resized image would be wrong; publish "
            "a version without such images, or export to trl"
        )


def write_trainer_files(
    out: Path,
    version: Version,
    to: str,
    files: str,
    space: CoordinateSpace,
    counts: dict[str, int],
    sizes: Sizes,
) -> list[str]:
    """Write the files that a trainer reads beside the data; return what a person must know."""
    notes: list[str] = []
    if to == "llama-factory":
        write_json(out / "dataset_info.json", _dataset_info(version, counts))
        least, most = pixel_limits(space, sizes)
        lines = [
            "# Demanded by this export; add the model, its template and the rest. Paths are from",
            "# this folder. LLaMA-Factory resizes images outside the limits on its own.",
            "dataset_dir: .",
            f"dataset: {','.join(_dataset_info(version, counts))}",
            f"image_max_pixels: {most}",
            f"image_min_pixels: {least}",
        ]
        _write_lines(out / "llama_factory.yaml", lines)
        notes.append(
            f"LLaMA-Factory shrinks images to 589,824 pixels unless told otherwise: set "
            f"image_max_pixels: {most} and image_min_pixels: {least} in its training arguments, as "
            "in llama_factory.yaml" + _wrong_points(space)
        )
    elif to == "easyr1":
        notes += _easyr1(out, files, space, sizes, counts)
    elif to == "verl" and space.kind is SpaceKind.ABSOLUTE_RESIZED:
        if (space.min_pixels, space.max_pixels) != _QWEN_VL_UTILS:
            notes.append(
                f"verl resizes images to {_QWEN_VL_UTILS[0]:,} to {_QWEN_VL_UTILS[1]:,} pixels and "
                f"this export's numbers are of images of {space.min_pixels:,} to "
                f"{space.max_pixels:,}" + _wrong_points(space)
            )
    elif to == "prm":
        notes.append(
            "TRL 1.16 has no trainer for process rewards any more; the columns are those of its "
            "stepwise supervision, which the PRMTrainer of older versions reads"
        )
    if space.kind is SpaceKind.ABSOLUTE_RESIZED:
        notes.append(
            f"Points are in pixels of the resized image: the model's processor must have "
            f"min_pixels {space.min_pixels} and max_pixels {space.max_pixels}"
        )
    if to in REWARDS:
        _write_reward(out / "reward.py", to)
        notes.append(
            f"reward.py has the reward {_REWARD_NAMES[to]}, which grades as the search did; where "
            "several answers are right, the gold column holds a JSON list of them"
            + (", and where there are options an object with them" if to == "easyr1" else "")
        )
    return notes


def pixel_limits(space: CoordinateSpace, sizes: Sizes) -> tuple[int, int]:
    """Return the least and most pixels of an image for a trainer that resizes before the processor.

    The processor must do it alone: resizing twice rounds twice. So no image is outside the limits.
    """
    pixels = [width * height for width, height in sizes]
    most = max([space.max_pixels or 1, *pixels])
    least = min([space.min_pixels or most, *pixels])
    return least, most


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a value as indented JSON."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _wrong_points(space: CoordinateSpace) -> str:
    if space.kind is not SpaceKind.ABSOLUTE_RESIZED:
        return ""
    return ". Otherwise EVERY POINT IS WRONG: they are in pixels of the resized image"


def _easyr1(
    out: Path, files: str, space: CoordinateSpace, sizes: Sizes, counts: Mapping[str, int]
) -> list[str]:
    split = "train" if "train" in counts else max(sorted(counts), key=lambda name: counts[name])
    least, most = pixel_limits(space, sizes)
    lines = [
        "# Demanded by this export; merge it into EasyR1's configuration. The paths are relative",
        "# to this folder. EasyR1 resizes images outside the limits on its own.",
        "data:",
        f"  train_files: data/{split}",
        "  prompt_key: problem",
        "  answer_key: answer",
        "  image_key: images",
        *(["  image_dir: ."] if files == "jsonl" else []),
        f"  min_pixels: {least}",
        f"  max_pixels: {most}",
        "worker:",
        "  reward:",
        "    reward_function: reward.py:compute_score",
    ]
    _write_lines(out / "easyr1.yaml", lines)
    return [
        f"EasyR1 reads one split's folder: data.train_files is this folder's data/{split}",
        f"EasyR1 resizes images to 262,144 to 4,194,304 pixels unless told otherwise: set "
        f"data.min_pixels={least} data.max_pixels={most}, as in easyr1.yaml" + _wrong_points(space),
    ]


def _write_reward(path: Path, to: str) -> None:
    lines = [
        '"""The reward of this export; it needs the package vigorl where the trainer runs."""',
        "",
        f"from curation.grading.exported_gold import {REWARDS[to]} as {_REWARD_NAMES[to]}",
    ]
    if to == "easyr1":
        lines += ["", 'REWARD_NAME = "vigorl"', 'REWARD_TYPE = "batch"']
    _write_lines(path, [*lines, "", f'__all__ = ["{_REWARD_NAMES[to]}"]'])


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _dataset_info(version: Version, counts: dict[str, int]) -> dict[str, Any]:
    """What LLaMA-Factory reads to find a dataset: run it with `dataset_dir` at the folder."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user"}
    tags |= {"assistant_tag": "assistant", "system_tag": "system", "observation_tag": "tool"}
    return {
        version.name if split == "train" else f"{version.name}-{split}": {
            "file_name": f"data/{split}",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": tags,
        }
        for split in counts
    }
