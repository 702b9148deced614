"""What a trainer's own files say beside an export, and what it is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from mcts.coordinates import CoordinateSpace
from tests.support.sat_files import picture, row, sat2
from warehouse.exports.trainer_files import (
    LongestRow,
    check_format,
    pixel_limits,
    write_trainer_files,
)
from warehouse.query.run_query import query
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse, WarehouseError

QWEN3 = CoordinateSpace.qwen3_vl()
RESIZED = replace(CoordinateSpace.qwen25_vl(), min_pixels=3_136, max_pixels=1_003_520)
VERSION: Any = SimpleNamespace(ref="all@v1", name="all", number=1)


def notes(tmp_path: Path, to: str, space: CoordinateSpace, sizes: Any = ((56, 56),)) -> list[str]:
    data = tmp_path / "data" / "train"
    data.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"problem": ["?"]}), data / "train-00000-of-00001.parquet")
    return write_trainer_files(tmp_path, VERSION, to, "parquet", space, {"train": 3}, sizes)


def test_a_side_that_llama_factory_stretches_is_refused_where_points_would_move() -> None:
    for to, space, side in (
        ("llama-factory", RESIZED, 28), ("llama-factory", QWEN3, 27), ("trl", RESIZED, 27),
    ):  # fmt: skip
        check_format(to, "parquet", space, {"a": (200, side), "b": (56, 56)})
    check_format("llama-factory", "parquet", RESIZED, {})


def test_the_refusal_of_a_narrow_image_names_it_and_the_sql_that_leaves_it_out(
    tmp_path: Path,
) -> None:
    sizes = {"c": (20, 200), "b": (27, 200), "a": (56, 56)}
    with pytest.raises(WarehouseError) as refused:
        check_format("llama-factory", "parquet", RESIZED, sizes)
    said, _, condition = str(refused.value).partition("whose statement says: ")
    assert said.startswith(
        "image b (and 1 more) has a side of 27 pixels, which LLaMA-Factory stretches to 28"
    )
    warehouse = Warehouse(str(tmp_path / "home"))
    file = sat2(tmp_path / "train.parquet", [row(0, picture(0)), row(1, picture(1, size=(20, 90)))])
    import_questions(warehouse, "sat2", file, licence="MIT", run_id="r")
    statement = f"SELECT image_ids[1] AS image_id FROM questions {condition}"
    (kept,) = query(warehouse, statement).to_pylist()
    small = query(warehouse, "SELECT image_id FROM images WHERE width = 20").to_pylist()
    assert small and kept not in small


def test_verl_finds_images_in_parquet_only() -> None:
    check_format("verl", "parquet", QWEN3, {})
    check_format("trl", "jsonl", QWEN3, {})
    with pytest.raises(WarehouseError, match="verl reads images out of Parquet"):
        check_format("verl", "jsonl", QWEN3, {})


def test_no_image_is_outside_the_limits_that_a_trainer_is_told() -> None:
    assert pixel_limits(RESIZED, [(50, 50), (2_000, 1_000)]) == (2_500, 2_000_000)
    assert pixel_limits(RESIZED, [(100, 100)]) == (3_136, 1_003_520)
    free = replace(QWEN3, min_pixels=None, max_pixels=None)
    assert pixel_limits(free, [(50, 50), (60, 60)]) == (2_500, 3_600)


def test_the_processor_of_pixels_of_the_resized_image_is_named(tmp_path: Path) -> None:
    assert notes(tmp_path, "dpo", QWEN3) == []
    (said,) = notes(tmp_path, "dpo", RESIZED)
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
    shrinks, cuts = notes(tmp_path, "llama-factory", QWEN3, [(56, 56), (5_000, 4_000)])
    limits = dict(
        line.split(": ") for line in (tmp_path / "llama_factory.yaml").read_text().splitlines()
        if not line.startswith("#")
    )  # fmt: skip
    least, most = pixel_limits(QWEN3, [(56, 56), (5_000, 4_000)])
    assert (limits["image_min_pixels"], limits["image_max_pixels"]) == (str(least), str(most))
    assert f"image_max_pixels: {most} and image_min_pixels: {least}" in shrinks
    assert "cutoff_len" not in limits and cuts.endswith(
        "set cutoff_len to the tokens of the longest row"
    )
    told = json.loads((tmp_path / "dataset_info.json").read_text())
    assert limits["dataset"] == ",".join(told) and limits["dataset_dir"] == "."


@pytest.mark.parametrize(
    ("counts", "trained", "others"),
    [
        ({"test": 2, "train": 1, "validation": 1}, "all", "all-test,all-validation"),
        ({"train": 1}, "all", None),
        ({"test": 2, "validation": 1}, "all-test", "all-validation"),
    ],
)
def test_llama_factory_trains_on_one_split(
    tmp_path: Path, counts: dict[str, int], trained: str, others: str | None
) -> None:
    said = write_trainer_files(
        tmp_path, VERSION, "llama-factory", "parquet", QWEN3, counts, [(56, 56)], 5_120
    )
    told = yaml.safe_load((tmp_path / "llama_factory.yaml").read_text())
    assert (told["dataset"], told.get("eval_dataset")) == (trained, others)
    assert told["cutoff_len"] == 5_120
    assert any(line.endswith("set cutoff_len to 5120, as there") for line in said)
    warned = any(line.startswith("There is no split train") for line in said)
    assert warned == ("train" not in counts)


@pytest.mark.parametrize("files", ["parquet", "jsonl"])
@pytest.mark.parametrize(
    ("counts", "train", "validation"),
    [
        ({"test": 3, "train": 1, "validation": 2}, "train@train", "validation@validation"),
        ({"train": 1, "val": 1}, "train@train", "val@validation"),
        ({"validation": 2, "test": 3}, "test@test", "validation@validation"),
        ({"validation": 2}, "validation@validation", None),
        ({"held_out": 2, "test": 1}, "held_out@train", None),
    ],
)
def test_easyr1_is_told_splits_that_load(
    tmp_path: Path, files: str, counts: dict[str, int], train: str, validation: str | None
) -> None:
    from datasets import load_dataset

    for split in counts:
        path = tmp_path / "data" / split / f"{split}-00000-of-00001.{files}"
        path.parent.mkdir(parents=True)
        if files == "parquet":
            pq.write_table(pa.table({"problem": [split]}), path)
        else:
            path.write_text(json.dumps({"problem": split}) + "\n")
    write_trainer_files(tmp_path, VERSION, "easyr1", files, QWEN3, counts, [(56, 56)], 5_120)
    told = yaml.safe_load((tmp_path / "easyr1.yaml").read_text())
    data = told["data"]
    assert (data["format_prompt"], data["max_prompt_length"]) == (None, 5_120)
    assert data["train_files"] == f"data/{train}"
    assert data["val_files"] == f"data/{validation or train}"
    off = {"val_freq": -1, "val_before_train": False}
    assert told.get("trainer") == (None if validation else off)
    for named in (data["train_files"], data["val_files"]):  # as EasyR1 loads them
        folder, _, split = named.partition("@")
        kind = {"jsonl": "json"}.get(files, files)
        (loaded,) = load_dataset(
            kind, data_dir=str(tmp_path / folder), split=split, cache_dir=str(tmp_path / "cache")
        )
        assert loaded["problem"] == Path(folder).name


def test_the_longest_row_counts_bytes_of_text_and_patches_of_images() -> None:
    sizes = {"small": (56, 56), "large": (2_800, 2_800)}
    few = {"messages": [{"role": "user", "content": "<image>é" * 10}], "images": ["small"]}
    crops = {**few, "images": ["small", "crop", "crop"]}
    longest = LongestRow("llama-factory", RESIZED, sizes)
    assert list(longest.measured([few, crops])) == [few, crops]
    text = 64 + 8 + 90 + 4 + 2
    assert longest.tokens([]) == -(-text // 256) * 256
    assert longest.tokens([(672, 672)]) == -(-(text + 2 * (24 * 24 + 2)) // 256) * 256
    asked = LongestRow("easyr1", RESIZED, sizes)
    list(asked.measured([{"problem": "a", "images": ["large"]}]))
    assert asked.tokens([]) == 1_536, "not 10,000 patches: the processor has 1,280 at most"
    unknown = LongestRow("llama-factory", CoordinateSpace.original(), sizes)
    assert list(unknown.measured([few])) == [few] and unknown.tokens([]) is None


def test_trl_is_told_what_its_defaults_cut_and_where_images_are(tmp_path: Path) -> None:
    from trl import SFTConfig

    told = "set max_length=None and assistant_only_loss=True"
    assert [line.endswith(told) for line in notes(tmp_path, "trl", QWEN3)] == [True]
    defaults = SFTConfig(str(tmp_path), use_cpu=True, bf16=False)
    assert (defaults.max_length, defaults.assistant_only_loss) == (1_024, False)
    for to in ("trl", "grpo", "dpo", "easyr1"):
        (tmp_path / "data" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "train" / "train-00000-of-00001.jsonl").write_text('{"a": 1}\n')
        said = write_trainer_files(tmp_path, VERSION, to, "jsonl", QWEN3, {"train": 1}, [(56, 56)])
        paths = any("paths from this folder: run the trainer in it" in line for line in said)
        assert paths == (to != "easyr1")


def test_process_rewards_have_no_trainer_any_more(tmp_path: Path) -> None:
    (said,) = notes(tmp_path, "prm", QWEN3)
    assert "stepwise supervision" in said
