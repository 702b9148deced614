"""Dialogues from trees that zoom, exported: turns, tools, and the pixels that the teacher saw."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from flows.stages.curate import curate_trees
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Box, Image, Observation, Point, ResponseStyle, Step, ZoomCall
from mcts.prompts import build_messages, load_prompt
from mcts.tool_calls.calls import read_call, write_call
from mcts.tool_calls.views import Views
from mcts.zoom.config import ZoomConfig
from mcts.zoom.crops import CropImages
from mcts.zoom.observe import observe
from tests.support.scripted import QUESTION
from tests.support.zoom_trees import LOOKS, ZOOM, look
from tests.warehouse.test_tree_views import store
from tests.warehouse.test_zoom_tables import SEARCH
from warehouse.exports import files
from warehouse.exports.dialogues import box_trees, called_with
from warehouse.exports.export import export, read_notes
from warehouse.query.read_back import read_trees
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.objects import image_key
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import image_row, question_row
from warehouse.versions.bundle import read_rows, trace_of
from warehouse.versions.versions import Version, open_version, publish, show

QWEN3, QWEN25 = CoordinateSpace.qwen3_vl(), CoordinateSpace.qwen25_vl()


def picture() -> bytes:
    """1000 x 1000 pixels, none like its neighbours."""
    gradient = PILImage.linear_gradient("L").resize((1000, 1000))
    file = io.BytesIO()
    PILImage.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(45))).save(file, "PNG")
    return file.getvalue()


DATA = picture()
IMAGE = Image(hashlib.sha256(DATA).hexdigest(), 1000, 1000)
ASKED = replace(QUESTION, images=(IMAGE,))


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = Warehouse(str(tmp_path_factory.mktemp("home")))
    warehouse.objects.put(image_key(IMAGE.image_id), DATA)
    insert_new(warehouse, "images", [image_row(IMAGE)])
    insert_new(warehouse, "questions", [question_row(ASKED)])
    store(warehouse, ASKED, "looks", "m", script=LOOKS, **SEARCH)
    assert asyncio.run(curate_trees(warehouse, "c", ["looks"])) == 3
    return warehouse


@pytest.fixture(scope="module")
def version(warehouse: Warehouse) -> Version:
    return publish(warehouse, "looks", "SELECT trace_id FROM traces WHERE reward = 1")


def exported(
    warehouse: Warehouse, version: Version, out: Path, to: str = "trl", **options: Any
) -> list[dict[str, Any]]:
    from datasets import load_dataset

    export(warehouse, version, to, out, **{"space": QWEN3, **options})
    return list(load_dataset(str(out), split="train", cache_dir=str(out.parent / "cache")))


def flat(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Roles and texts, `<image>` for each image."""

    def text(content: list[dict[str, Any]]) -> str:
        return "".join(
            "<image>" if block["type"] == "image" else block["text"] for block in content
        )

    return [(message["role"], text(message["content"])) for message in messages]


def test_the_turns_are_those_that_a_search_sends(
    warehouse: Warehouse, version: Version, tmp_path: Path
) -> None:
    rows = {row["trace_id"]: row for row in exported(warehouse, version, tmp_path / "out")}
    with open_version(warehouse, version) as folder:
        for source in read_rows(folder / "rows.parquet"):
            trace, turns = trace_of(source), flat(rows[source["trace_id"]]["messages"])
            seen = max(i for i, step in enumerate(trace.steps, 1) if step.observation)
            prompt, sent, k = load_prompt("zoom"), trace.steps[:seen], min(3, len(trace.steps))
            asked = build_messages(prompt, ASKED, QWEN3, k, sent, zoom=replace(ZOOM, role="user"))
            marked = [(m.role, "<image>" * (len(m.parts) - 1) + m.text) for m in asked]
            assert turns[: len(marked)] == marked
            assert [role for role, _ in turns[len(marked) :]] == ["assistant"]
            assert turns[-1][1].endswith("</think>\n<answer>left</answer>")
    assert {row["kind"] for row in rows.values()} == {"zoom", "corrected"}


def test_crops_have_the_pixels_that_the_teacher_saw(
    warehouse: Warehouse, version: Version, tmp_path: Path
) -> None:
    (tree, _), *_ = read_trees(warehouse, ["looks"])
    images = CropImages({IMAGE.image_id: DATA})
    node = tree.nodes[2]
    names = images.add(ASKED, (*node.steps(), *node.rollouts[0].steps))
    out = export(warehouse, version, "llama-factory", tmp_path / "out", space=QWEN3, files="jsonl")
    (file,) = out.glob("data/train/*.jsonl")
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    (row,) = [row for row in rows if row["kind"] == "zoom"]
    assert [(out / path).read_bytes() for path in row["images"]] == [
        DATA, *(images[name] for name in names),
    ]  # fmt: skip


@pytest.mark.parametrize("to", ["trl", "llama-factory", "grpo", "verl", "easyr1"])
def test_trainers_are_told_the_tool_and_its_turn(
    warehouse: Warehouse, version: Version, tmp_path: Path, to: str
) -> None:
    row, *_ = exported(warehouse, version, tmp_path / "out", to)
    (tool,) = json.loads(row["tools"])
    assert tool["type"] == "function" and tool["function"]["name"] == "search_coordinate"
    posed = json.dumps([row.get(name) for name in ("messages", "prompt", "problem")])
    assert "Shows the region around a place enlarged." in posed
    assert any("column tools" in note for note in read_notes(tmp_path / "out"))
    if to == "llama-factory":
        tags = json.loads((tmp_path / "out" / "dataset_info.json").read_text())["looks"]["tags"]
        roles = [message["role"] for message in row["messages"]]
        assert tags["observation_tag"] in roles


def test_a_crop_comes_in_a_turn_that_the_trainer_and_the_model_know(
    warehouse: Warehouse, version: Version, tmp_path: Path
) -> None:
    cases = {
        ("llama-factory", QWEN3, None): "tool",
        ("llama-factory", QWEN25, None): "user",
        ("llama-factory", QWEN3, "user"): "user",
        ("trl", QWEN3, None): "user",
    }
    for number, ((to, space, asked), role) in enumerate(cases.items()):
        out = tmp_path / f"{number}"
        for row in exported(warehouse, version, out, to, space=space, observation_role=asked):
            behind_calls = [m["role"] for m in row["messages"]][3::2]
            assert set(behind_calls) == {role}
        assert json.loads((out / "export.json").read_text())["observation_role"] == role
    with pytest.raises(WarehouseError, match="TRL puts no image into a tool's turn"):
        export(warehouse, version, "trl", tmp_path / "x", space=QWEN3, observation_role="tool")
    assert not (tmp_path / "x").exists()


def test_trl_finds_a_place_for_every_crop(
    warehouse: Warehouse, version: Version, tmp_path: Path
) -> None:
    from trl.data_utils import prepare_multimodal_messages

    for row in exported(warehouse, version, tmp_path / "out"):
        filled = prepare_multimodal_messages(row["messages"], images=row["images"])
        blocks = [block for message in filled for block in message["content"]]
        assert [b["image"] for b in blocks if b["type"] == "image"] == row["images"]


def test_trainers_are_told_limits_that_crops_lie_within(
    warehouse: Warehouse, version: Version, tmp_path: Path
) -> None:
    free = replace(QWEN3, min_pixels=None, max_pixels=None)
    rows = exported(warehouse, version, tmp_path / "out", "llama-factory", space=free)
    sides = {image.size for row in rows for image in row["images"]}
    least = min(width * height for width, height in sides)
    assert least < 1000 * 1000, "crops are smaller than their image"
    told = (tmp_path / "out" / "llama_factory.yaml").read_text()
    assert f"image_min_pixels: {least}\n" in told and "image_max_pixels: 1000000\n" in told


def test_calls_can_be_written_with_the_box_tool(
    warehouse: Warehouse, version: Version, tmp_path: Path
) -> None:
    box = "image_zoom_in_tool"
    rows = exported(warehouse, version, tmp_path / "out", zoom_tool=box)
    (row,) = [row for row in rows if row["kind"] == "zoom"]
    turns = flat(row["messages"])
    calls = [json.loads(text.split("<tool_call>")[1].split("</tool_call>")[0]) for _, text in turns
             if text.endswith("</tool_call>")]  # fmt: skip
    assert [call["name"] for call in calls] == [box, box]
    assert [call["arguments"]["bbox_2d"] for call in calls] == [
        [750, 750, 850, 850], [775, 775, 825, 825],
    ]  # fmt: skip
    assert json.loads(row["tools"])[0]["function"]["name"] == box and box in turns[0][1]


def test_a_box_has_no_mark_and_is_one_of_the_whole_image() -> None:
    box = ZoomConfig(ZOOM.lens, tool="image_zoom_in_tool")
    shown = Observation(Box(700, 700, 1000, 1000), 96, 96, True, 3)
    step = Step("A.", (), ZoomCall(Point(850, 850), 2), shown)
    (written,) = called_with([step], box, "trace t")
    assert written.call == ZoomCall(Point(850, 850), 0, Box(700, 700, 1000, 1000))
    assert written.observation == replace(shown, marked=False)
    failed = Step("B.", (), ZoomCall(None, text="{"), Observation(None, 0, 0, problem="malformed"))
    assert called_with([failed], box, "trace t") == (failed,)


def test_a_call_that_showed_nothing_is_written_for_the_box_tool_too() -> None:
    """And would still show nothing, for the same reason."""
    zoom, frame = ZoomConfig(ZOOM.lens, max_calls=4), Frame.of(QWEN3, ASKED)
    steps: tuple[Step, ...] = ()
    inside, near, outside = Point(20, 500), Point(23, 502), Point(1400, 500)
    beside = ZoomCall(Point(500, 500), 1)  # in the image, and not in the crop it is called in
    for call in (ZoomCall(inside), ZoomCall(near), ZoomCall(outside), beside):
        steps = (*steps, Step("A.", (), call, observe(frame, steps, call, zoom)))
    problems = ["", "shown_already", "point_outside_image", "point_outside_image"]
    assert [step.observation.problem for step in steps if step.observation] == problems
    box = replace(zoom, tool="image_zoom_in_tool")
    again: tuple[Step, ...] = ()
    for step in called_with(steps, box, "trace t"):
        views = Views.of(frame, again)
        assert step.call is not None and step.call.box is not None
        written = write_call(step.call, views, box.tool)
        assert "image_zoom_in_tool" in written
        call = read_call(written, views)
        again = (*again, Step("A.", (), call, observe(frame, again, call, box)))
    assert [step.observation.problem for step in again if step.observation] == problems
    alone = called_with([replace(steps[2])], box, "trace t")[0].call
    assert alone is not None and alone.box is not None and alone.box.middle == outside


def test_all_dialogues_of_a_search_have_its_tool(warehouse: Warehouse, tmp_path: Path) -> None:
    called = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [10, 10, 90, 90]}}
    script = {
        ("", "expand", 0): f"<think>A sign.</think><tool_call>{json.dumps(called)}</tool_call>",
        ("0", "rollout", 0): "<think>Image 2 shows a 3.</think><answer>right</answer>",
        ("", "expand", 1): "<think>The sign at (800, 800) shows a 7.</think><answer>left</answer>",
    }
    searched = {**SEARCH, "zoom": replace(ZOOM, tool="image_zoom_in_tool")}
    store(warehouse, ASKED, "at-once", "m", script=script, **searched)
    asyncio.run(curate_trees(warehouse, "c", ["at-once"]))
    chosen = "SELECT trace_id FROM traces WHERE tree_id = 'at-once' AND kind = 'zoom'"
    version = publish(warehouse, "at-once", chosen)
    for to in ("trl", "grpo", "dpo", "prm"):
        rows = exported(warehouse, version, tmp_path / to, to)
        assert rows
        for row in rows:
            (tool,) = json.loads(row["tools"])
            assert tool["function"]["name"] == "image_zoom_in_tool"
            assert "search_coordinate" not in json.dumps({**row, "images": []})
    elsewhere = Warehouse(str(tmp_path / "elsewhere"))
    with open_version(warehouse, version) as folder:
        assert box_trees(elsewhere, folder / "rows.parquet") == {"at-once"}, "by the other dialogue"
    silent = publish(warehouse, "silent", f"{chosen} AND reward = 1")
    with open_version(warehouse, silent) as folder:
        assert box_trees(warehouse, folder / "rows.parquet") == {"at-once"}
        assert box_trees(elsewhere, folder / "rows.parquet") == set()


def test_a_version_of_corrected_dialogues_is_one_of_dialogues(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    chosen = "SELECT trace_id FROM traces WHERE kind = 'corrected' AND tree_id = 'looks'"
    (row,) = exported(warehouse, publish(warehouse, "again", chosen), tmp_path / "out")
    assert [role for role, _ in flat(row["messages"])][2:] == ["assistant", "user"] * 3 + [
        "assistant"
    ]
    assert len(row["images"]) == 4 and row["tools"]


def test_boxes_are_not_passed_off_as_points(warehouse: Warehouse, tmp_path: Path) -> None:
    call = (
        '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [10, 10, 90, 90], "label": "x"}}'
    )
    first = {("", "expand", 1): f"<think>A (50, 50).</think><tool_call>{call}</tool_call>"}
    store(warehouse, ASKED, "boxes", "m", script={**LOOKS, **first}, **SEARCH)
    asyncio.run(curate_trees(warehouse, "c", ["boxes"]))
    chosen = "SELECT trace_id FROM traces WHERE tree_id = 'boxes' AND kind = 'zoom' AND reward = 1"
    version = publish(warehouse, "boxes", chosen)
    (row,) = exported(warehouse, version, tmp_path / "own")
    assert json.loads(row["tools"])[0]["function"]["name"] == "image_zoom_in_tool"
    with pytest.raises(WarehouseError, match="asks for boxes, which search_coordinate can't"):
        export(
            warehouse, version, "trl", tmp_path / "x", space=QWEN3, zoom_tool="search_coordinate"
        )
    (pair,) = exported(warehouse, version, tmp_path / "pairs", "dpo")
    for side in ("chosen", "rejected"):
        assert '"name": "image_zoom_in_tool"' in flat(pair[side])[0][1]


def test_a_pair_of_looks_shares_its_crops_and_ends_with_the_look(
    warehouse: Warehouse, version: Version, tmp_path: Path
) -> None:
    from trl.data_utils import prepare_multimodal_messages

    (row,) = exported(warehouse, version, tmp_path / "out", "dpo")
    assert [m["role"] for m in row["prompt"]] == ["system", "user"] and len(row["images"]) == 1
    for side, x in (("chosen", 800), ("rejected", 100)):
        ((role, text),) = flat(row[side])
        assert role == "assistant" and text.endswith("</tool_call>") and f"[{x}, {x}]" in text
    filled = prepare_multimodal_messages(row["prompt"], images=row["images"])
    assert [b["type"] for b in filled[1]["content"]] == ["image", "text"]


def test_a_pair_behind_a_shared_look_has_its_crop_in_the_prompt(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    script = {
        ("", "expand", 0): look(100, 100),
        ("0", "rollout", 0): "<think>Image 2 shows a 3.</think><answer>right</answer>",
        ("0", "expand", 0): look(500, 500, "Too small.", image=2),
        ("0", "expand", 1): look(800, 800, "Image 2 shows nothing. I look at ({x}, {y})."),
        ("0.0", "rollout", 0): "<think>A 3.</think><answer>right</answer>",
        ("0.1", "rollout", 0): "<think>A 7.</think><answer>left</answer>",
    }
    zoom = {**SEARCH, "simulations": 2}
    script[("", "expand", 1)] = "<answer>right</answer>"
    store(warehouse, ASKED, "deep", "m", script=script, **zoom)
    asyncio.run(curate_trees(warehouse, "c", ["deep"]))
    version = publish(warehouse, "deep", "SELECT trace_id FROM traces WHERE tree_id = 'deep'")
    rows = exported(warehouse, version, tmp_path / "out", "dpo")
    (row,) = [row for row in rows if len(row["images"]) == 2]
    assert [m["role"] for m in row["prompt"]] == ["system", "user", "assistant", "user"]
    assert "[800, 800]" in flat(row["chosen"])[0][1]
    assert '[500, 500], "image": 2}' in flat(row["rejected"])[0][1]


def test_a_line_of_valued_looks_has_its_crops(
    warehouse: Warehouse, version: Version, tmp_path: Path
) -> None:
    rows = exported(warehouse, version, tmp_path / "out", "prm")
    assert [row["values"] for row in rows] == [[0], [1]]
    assert all("<observation>Image 2: " in row["completions"][0] for row in rows)
    assert [len(row["images"]) for row in rows] == [2, 2]


def test_a_card_says_how_many_zoom(warehouse: Warehouse, version: Version) -> None:
    assert (version.card["dialogues"], version.card["crops"]) == (2, 5)
    assert "2 of them zoom; 5 crops are shown." in show(warehouse, "looks")


def test_dialogues_have_no_style_without_their_crops(
    warehouse: Warehouse, version: Version, tmp_path: Path
) -> None:
    for style in (ResponseStyle.GROUNDED, ResponseStyle.UNGROUNDED):
        with pytest.raises(WarehouseError, match="no row of this version"):
            export(warehouse, version, "trl", tmp_path / "x", space=QWEN3, response_style=style)
    plain = exported(warehouse, version, tmp_path / "as searched")
    assert plain == exported(
        warehouse, version, tmp_path / "zoom", response_style=ResponseStyle.ZOOM
    )


def test_a_crop_that_is_named_again_is_dropped_last(
    warehouse: Warehouse, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MAX_NAMED_CROPS", 3)
    with (
        open_version(warehouse, version) as folder,
        files.BundleImages(folder / "images.parquet") as images,
    ):

        def named(place: int) -> str:
            box = Box(place, place, place + 90, place + 90)
            return images.crop(IMAGE.image_id, Observation(box, 90, 90), ZoomCall(None))

        first, second, _ = (named(place) for place in (1, 2, 3))
        assert named(1) == first
        named(4)
        assert images[first], "it was named again behind the second"
        with pytest.raises(KeyError):
            images[second]
