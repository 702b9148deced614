"""What lies beside an export's data, so that its trainer sees what the numbers are about.

    longest = LongestRow(to, space, sizes)
    counts = write_rows(longest.measured(rows), …)
    notes = write_trainer_files(out, version, "llama-factory", "parquet", space, counts, …)

A trainer that shrinks images on its own, before the model's processor does, moves every point that
is written in pixels of the resized image, without a word. So the limits stand where each trainer
reads them: in `llama_factory.yaml` for LLaMA-Factory, in `easyr1.yaml` for EasyR1. Neither then
resizes anything, and the processor alone does, as the coordinate space says. Both cut or drop rows
that are longer than a default, so how many tokens the longest may have stands there too. `notes`
are sentences that a person must know; they stand in README.md and export.json and are printed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcts.coordinates import CoordinateSpace, SpaceKind, smart_resize
from warehouse.storage.home import WarehouseError
from warehouse.tables.schema import Row
from warehouse.versions.versions import Version

REWARDS = {"grpo": "trl_reward", "verl": "verl_reward", "easyr1": "easyr1_reward"}
"""The reward of each format of prompts, in `curation.grading.exported_gold`."""
_REWARD_NAMES = {"grpo": "trl_reward", "verl": "compute_score", "easyr1": "compute_score"}
_LLAMA_FACTORY_SIDE = 28
"""LLaMA-Factory enlarges a shorter side to so many pixels, whatever its settings."""
_WITHOUT_SMALL = (
    "WHERE question_id NOT IN (SELECT question_id FROM (SELECT question_id, unnest(image_ids) AS "
    "image_id FROM questions) JOIN images USING (image_id) "
    f"WHERE least(width, height) < {_LLAMA_FACTORY_SIDE})"
)
_QWEN_VL_UTILS = (3_136, 12_845_056)
"""Pixels that verl's reader of images, qwen-vl-utils, resizes to, whatever the data says."""

_LENGTHS_TOLD = ("llama-factory", "easyr1")
"""Formats of trainers that are told how long the longest row is."""
_OF_TRL = ("trl", "grpo", "dpo", "prm")
_IMAGE_MARKS, _TURN_MARKS, _OWN_TURN = 2, 8, 64
"""Tokens that a chat template writes around an image, around a turn, and as a turn of its own."""

_SFT_NOTE = (
    "TRL's SFTConfig cuts rows behind 1,024 tokens, images included, and learns the prompt too, "
    "unless told otherwise: set max_length=None and assistant_only_loss=True"
)

Size = tuple[int, int]
Sizes = Sequence[Size]


class LongestRow:
    """The most tokens that a row can have, of the rows that passed through.

    A byte of text is at most one token; what an image takes is known of spaces with a patch factor.
    """

    def __init__(self, to: str, space: CoordinateSpace, sizes: Mapping[str, Size]) -> None:
        self.counts = to in _LENGTHS_TOLD and bool(space.factor)
        self.space = space
        self.sizes = sizes
        self._most: dict[int, int] = {}  # of a row without its crops, by how many it has

    def measured(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows, a conversation or a problem each."""
        for row in rows:
            if self.counts:
                self._add(row)
            yield row

    def _add(self, row: Row) -> None:
        messages = row["messages"] if "messages" in row else [{"content": row["problem"]}]
        tokens = _OWN_TURN + sum(len(m["content"].encode()) + _TURN_MARKS for m in messages)
        tokens += sum(self._image(self.sizes[i]) for i in row["images"] if i in self.sizes)
        crops = sum(i not in self.sizes for i in row["images"])
        self._most[crops] = max(tokens, self._most.get(crops, 0))

    def tokens(self, crop_sizes: Iterable[Size]) -> int | None:
        """Return the most tokens of a row, in whole 256s; None where an image's are not known, or
        the trainer is not told."""
        if not self.counts:
            return None
        crop = max(map(self._image, crop_sizes), default=0)
        most = max(base + crops * crop for crops, base in self._most.items())
        return -(-most // 256) * 256

    def _image(self, size: Size) -> int:
        width, height = size
        factor, most = self.space.factor, self.space.max_pixels or width * height
        if not factor:
            return 0
        try:
            pixels = math.prod(
                smart_resize(height, width, factor, self.space.min_pixels or 1, most)
            )
        except ValueError:  # too narrow for the model's processor, which refuses it then
            pixels = most
        return pixels // factor**2 + _IMAGE_MARKS


def check_format(to: str, files: str, space: CoordinateSpace, sizes: Mapping[str, Size]) -> None:
    """Raise WarehouseError if that trainer can't read those files or would see other images."""
    if to == "verl" and files == "jsonl":
        raise WarehouseError(
            "verl reads images out of Parquet files, and would find no image beside JSON lines: "
            "export with --files parquet"
        )
    if to != "llama-factory" or space.kind is not SpaceKind.ABSOLUTE_RESIZED:
        return
    small = [name for name, size in sizes.items() if min(size) < _LLAMA_FACTORY_SIDE]
    if small:
        first, others = min(small), len(small) - 1
        raise WarehouseError(
            f"image {first}{f' (and {others} more)' if others else ''} has a side of "
            f"{min(sizes[first])} pixels, which LLaMA-Factory stretches to {_LLAMA_FACTORY_SIDE}: "
            "points in pixels of the resized image would be wrong; export to trl, or publish a "
            f"version whose statement says: {_WITHOUT_SMALL}"
        )


def write_trainer_files(
    out: Path,
    version: Version,
    to: str,
    files: str,
    space: CoordinateSpace,
    counts: dict[str, int],
    sizes: Sizes,
    longest: int | None = None,
) -> list[str]:
    """Write the files that a trainer reads beside the data; return what a person must know.

    Args:
        longest: the most tokens of a row, where they are known.
    """
    notes: list[str] = []
    if to == "llama-factory":
        notes += _llama_factory(out, version, space, sizes, counts, longest)
    elif to == "easyr1":
        notes += _easyr1(out, files, space, sizes, counts, longest)
    elif to == "verl" and space.kind is SpaceKind.ABSOLUTE_RESIZED:
        if (space.min_pixels, space.max_pixels) != _QWEN_VL_UTILS:
            notes.append(
                f"verl resizes images to {_QWEN_VL_UTILS[0]:,} to {_QWEN_VL_UTILS[1]:,} pixels and "
                f"this export's numbers are of images of {space.min_pixels:,} to "
                f"{space.max_pixels:,}" + _wrong_points(space)
            )
    elif to == "trl":
        notes.append(_SFT_NOTE)
    elif to == "prm":
        notes.append(
            "TRL 1.16 has no trainer for process rewards any more; the columns are those of its "
            "stepwise supervision, which the PRMTrainer of older versions reads"
        )
    if files == "jsonl" and to in _OF_TRL:
        notes.append(
            "The images of JSON lines are paths from this folder: run the trainer in it, or export "
            "with --files parquet, which has the images inside"
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


def _trained_split(counts: Mapping[str, int]) -> str:
    """Return the split to train on: `train`, or the largest where there is none."""
    return "train" if "train" in counts else max(sorted(counts), key=lambda name: counts[name])


def _length_line(setting: str, longest: int | None) -> str:
    if longest is None:
        return (
            f"# {setting}: … what the longest row takes; how many tokens an image has isn't known"
        )
    return f"{setting}: {longest}"


def _llama_factory(
    out: Path,
    version: Version,
    space: CoordinateSpace,
    sizes: Sizes,
    counts: Mapping[str, int],
    longest: int | None,
) -> list[str]:
    write_json(out / "dataset_info.json", _dataset_info(version, counts))
    least, most = pixel_limits(space, sizes)
    split = _trained_split(counts)
    others = [_name(version, other) for other in counts if other != split]
    lines = [
        "# Demanded by this export; add the model, its template and the rest. Paths are from",
        "# this folder. LLaMA-Factory resizes images outside the limits on its own, and cuts rows",
        "# behind cutoff_len.",
        "dataset_dir: .",
        f"dataset: {_name(version, split)}",
        *([f"eval_dataset: {','.join(others)}"] if others else []),
        f"image_max_pixels: {most}",
        f"image_min_pixels: {least}",
        _length_line("cutoff_len", longest),
    ]
    _write_lines(out / "llama_factory.yaml", lines)
    cuts = "the tokens of the longest row" if longest is None else f"{longest}, as there"
    return [
        *([f"There is no split train: llama_factory.yaml trains on {split}"] * (split != "train")),
        f"LLaMA-Factory shrinks images to 589,824 pixels unless told otherwise: set "
        f"image_max_pixels: {most} and image_min_pixels: {least} in its training arguments, as "
        "in llama_factory.yaml" + _wrong_points(space),
        f"LLaMA-Factory cuts rows behind 2,048 tokens unless told otherwise: set cutoff_len to "
        f"{cuts}",
    ]


def _easyr1(
    out: Path,
    files: str,
    space: CoordinateSpace,
    sizes: Sizes,
    counts: Mapping[str, int],
    longest: int | None,
) -> list[str]:
    split = _trained_split(counts)
    loads = {name: _loads_as(out / "data" / name, files) for name in counts}
    held = [name for name in counts if name != split and loads[name] == "validation"]
    train, validation = (f"data/{n}@{loads[n]}" for n in (split, held[0] if held else split))
    least, most = pixel_limits(space, sizes)
    lines = [
        "# Demanded by this export; merge it into EasyR1's configuration. The paths are relative",
        "# to this folder. EasyR1 resizes images outside the limits on its own, drops questions",
        "# longer than max_prompt_length, and its examples' prompt would ask for \\boxed{}.",
        "data:",
        f"  train_files: {train}",
        f"  val_files: {validation}",
        "  prompt_key: problem",
        "  answer_key: answer",
        "  image_key: images",
        *(["  image_dir: ."] if files == "jsonl" else []),
        "  format_prompt: null",
        f"  min_pixels: {least}",
        f"  max_pixels: {most}",
        "  " + _length_line("max_prompt_length", longest),
        "worker:",
        "  reward:",
        "    reward_function: reward.py:compute_score",
    ]
    if not held:  # EasyR1 must load something
        lines += ["trainer:", "  val_freq: -1", "  val_before_train: false"]
    _write_lines(out / "easyr1.yaml", lines)
    drops = "what the longest question takes" if longest is None else f"{longest}, as there"
    return [
        f"EasyR1 reads one split's folder: data.train_files is this folder's {train}"
        + ("" if held else "; there is no split validation, and easyr1.yaml has it not validate"),
        "EasyR1 resizes images to 262,144 to 4,194,304 pixels unless told otherwise: set "
        f"data.min_pixels={least} data.max_pixels={most}, as in easyr1.yaml" + _wrong_points(space),
        "EasyR1's example configuration asks for \\boxed{} and drops questions of over 2,048 "
        "tokens: set data.format_prompt=null, as in easyr1.yaml, and data.max_prompt_length to "
        f"{drops}",
    ]


def _loads_as(folder: Path, files: str) -> str:
    """Return under which name `datasets` finds the split in a folder: it knows a few words."""
    from datasets import get_dataset_split_names

    kind = "json" if files == "jsonl" else files
    return str(get_dataset_split_names(kind, data_dir=str(folder))[0])


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


def _name(version: Version, split: str) -> str:
    return version.name if split == "train" else f"{version.name}-{split}"


def _dataset_info(version: Version, counts: Mapping[str, int]) -> dict[str, Any]:
    """What LLaMA-Factory reads to find a dataset: run it with `dataset_dir` at the folder."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user"}
    tags |= {"assistant_tag": "assistant", "system_tag": "system", "observation_tag": "tool"}
    return {
        _name(version, split): {
            "file_name": f"data/{split}",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": tags,
        }
        for split in counts
    }
