"""What a trainer's own files say beside an export, and what it is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mcts.coordinates import CoordinateSpace
from warehouse.exports.trainer_files import check_format, pixel_limits, write_trainer_files
from warehouse.storage.home import WarehouseError

QWEN3 = CoordinateSpace.qwen3_vl()
RESIZED = replace(CoordinateSpace.qwen25_vl(), min_pixels=3_136, max_pixels=1_003_520)
VERSION: Any = SimpleNamespace(ref="all@v1", name="all", number=1)


def notes(tmp_path: Path, to: str, space: CoordinateSpace, sizes: Any = ((56, 56),)) -> list[str]:
    return write_trainer_files(tmp_path, VERSION, to, "parquet", space, {"train": 3}, sizes)


def test_a_side_that_llama_factory_stretches_is_refused_where_points_would_move() -> None:
    for to, space, side in (
        ("llama-factory", RESIZED, 28), ("llama-factory", QWEN3, 27), ("trl", RESIZED, 27),
    ):  # fmt: skip
        check_format(to, "parquet", space, [(200, side), (56, 56)])
    with pytest.raises(WarehouseError, match="a side of 27 pixels, which LLaMA-Factory stretches"):
        check_format("llama-factory", "parquet", RESIZED, [(27, 200), (56, 56)])
    check_format("llama-factory", "parquet", RESIZED, [])


def test_verl_finds_images_in_parquet_only() -> None:
    check_format("verl", "parquet", QWEN3, [])
    check_format("trl", "jsonl", QWEN3, [])
    with pytest.raises(WarehouseError, match="verl reads images out of Parquet"):
        check_format("verl", "jsonl", QWEN3, [])


def test_no_image_is_outside_the_limits_that_a_trainer_is_told() -> None:
    assert pixel_limits(RESIZED, [(50, 50), (2_000, 1_000)]) == (2_500, 2_000_000)
    assert pixel_limits(RESIZED, [(100, 100)]) == (3_136, 1_003_520)
    free = replace(QWEN3, min_pixels=None, max_pixels=None)
    assert pixel_limits(free, [(50, 50), (60, 60)]) == (2_500, 3_600)


def test_the_processor_of_pixels_of_the_resized_image_is_named(tmp_path: Path) -> None:
    assert notes(tmp_path, "trl", QWEN3) == []
    (said,) = notes(tmp_path, "trl", RESIZED)
    assert "min_pixels 3136 and max_pixels 1003520" in said


def test_verl_is_warned_of_where_it_resizes_otherwise(tmp_path: Path) -> None:
    def resizing(space: CoordinateSpace) -> bool:
        return any(
            line.startswith("verl resizes images") for line in notes(tmp_path, "verl", space)
        )

    assert resizing(RESIZED) and not resizing(QWEN3)
    assert not resizing(replace(RESIZED, min_pixels=3_136, max_pixels=12_845_056))
    assert resizing(replace(RESIZED, min_pixels=3_137, max_pixels=12_845_056))


@pytest.mark.parametrize(
    ("to", "reward"),
    [("trl", ""), ("grpo", "trl_reward"), ("verl", "compute_score"), ("easyr1", "compute_score")],
)
def test_a_reward_is_written_for_those_who_take_one(tmp_path: Path, to: str, reward: str) -> None:
    said = [line for line in notes(tmp_path, to, QWEN3) if line.startswith("reward.py")]
    assert (tmp_path / "reward.py").exists() == bool(reward) == bool(said)
    if reward:
        assert f"has the reward {reward}," in said[0]
        assert f" as {reward}\n" in (tmp_path / "reward.py").read_text()
        assert ("an object with them" in said[0]) == (to == "easyr1")


def test_llama_factory_is_told_its_data_and_its_pixels(tmp_path: Path) -> None:
    (shrinks,) = notes(tmp_path, "llama-factory", QWEN3, [(56, 56), (5_000, 4_000)])
    limits = dict(
        line.split(": ") for line in (tmp_path / "llama_factory.yaml").read_text().splitlines()
        if not line.startswith("#")
    )  # fmt: skip
    least, most = pixel_limits(QWEN3, [(56, 56), (5_000, 4_000)])
    assert (limits["image_min_pixels"], limits["image_max_pixels"]) == (str(least), str(most))
    assert f"image_max_pixels: {most} and image_min_pixels: {least}" in shrinks
    told = json.loads((tmp_path / "dataset_info.json").read_text())
    assert limits["dataset"] == ",".join(told) and limits["dataset_dir"] == "."


@pytest.mark.parametrize(
    ("counts", "split"),
    [({"train": 1, "test": 3}, "train"), ({"validation": 2, "test": 3}, "test")],
)
def test_easyr1_is_told_a_folder_that_is_there(
    tmp_path: Path, counts: dict[str, int], split: str
) -> None:
    said = write_trainer_files(tmp_path, VERSION, "easyr1", "parquet", QWEN3, counts, [(56, 56)])
    assert f"  train_files: data/{split}\n" in (tmp_path / "easyr1.yaml").read_text()
    assert any(f"this folder's data/{split}" in line for line in said)


def test_process_rewards_have_no_trainer_any_more(tmp_path: Path) -> None:
    (said,) = notes(tmp_path, "prm", QWEN3)
    assert "stepwise supervision" in said
