"""What is wrong in a benchmark's file is named by field and reason, a row at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import benchmark_files as files
from tests.support import visual_search_files as search
from tests.support.benchmark_files import b64, drawn, ical_example, image_file, stored
from warehouse.sources import Draft, ImportProblem, ReadContext, Reject, tasks
from warehouse.sources.reading.accept_drafts import Checker

GQA_IN_ONE = {"question": "Is it?", "answer": "no", "image": stored(1)}
SCREEN_IN_ONE = {"file_name": "a.png", "bbox": [0.1, 0.2, 0.3, 0.4], "instruction": "open it",
                 "data_type": "icon", "data_source": "ios", "image": stored(1)}  # fmt: skip
MATH_FREE = files.MATH_ROWS[1]
OPEN = files.MMMU_ROWS[1]
VWA_GOLD = {"eval_types": ["string_match"], "reference_answers": {"exact_match": "21"}}

# task, suffix, a good row, what is changed in it, the field and the reason of the reject
BAD: list[tuple[str, str, dict[str, Any], dict[str, Any], str, str]] = [
    ("blink", "parquet", files.BLINK_ROW, {"answer": "hidden"}, "answer", "it is not published"),
    ("blink", "parquet", files.BLINK_ROW, {"answer": "(C)"}, "answer", "the answer '(C)' is no"),
    ("blink", "parquet", files.BLINK_ROW, {"sub_task": "Cooking"}, "sub_task", "BLINK has no"),
    ("blink", "parquet", files.BLINK_ROW, {"choices": ["one"]}, "choices", "there are 1 options"),
    ("blink", "parquet", files.BLINK_ROW,
     {"image_1": {"bytes": b"", "path": None}}, "image_1", "there is no image"),
    ("blink", "parquet", files.BLINK_ROW,
     {"image_2": {"bytes": drawn(1)[:-30], "path": None}}, "images", "image 2 can't be decoded"),
    ("robospatial", "parquet", files.ROBOSPATIAL_ROWS[0], {"category": "x"}, "category", "it is"),
    ("robospatial", "parquet", files.ROBOSPATIAL_ROWS[0], {"answer": "maybe"}, "answer",
     "it should be a list, not 'maybe'"),
    ("robospatial", "parquet", files.ROBOSPATIAL_ROWS[1], {"answer": "[(0.1, 0.2), (0.5, 0.2)]"},
     "answer", "a polygon has at least three points"),
    ("robospatial", "parquet", files.ROBOSPATIAL_ROWS[1],
     {"answer": "[(12, 20), (50, 20), (50, 60)]"}, "answer", "(12, 20) should be shares"),
    ("robospatial", "parquet", files.ROBOSPATIAL_ROWS[1],
     {"answer": "[(0.1, 0.2), (0.5, 0.2), (0.3, 0.2)]"}, "answer", "the polygon covers no pixel"),
    ("vstar-bench", "jsonl", files.VSTAR_ROW, {"label": "F"}, "label", "the answer 'F' is no"),
    ("vstar-bench", "jsonl", files.VSTAR_ROW, {"category": "x"}, "category", "it is direct_attr"),
    ("vstar-bench", "jsonl", files.VSTAR_ROW, {"text": "What is it?"}, "options", "there are 0"),
    ("vstar-bench", "jsonl", files.VSTAR_ROW, {"image": "no.png"}, "image", "no.png: there is no"),
    ("vstar-bench", "jsonl", files.VSTAR_ROW, {"image": "../a.png"}, "image", "../a.png: the name"),
    ("vstar-bench", "jsonl", files.VSTAR_ROW, {"image": "https://a/b.png"}, "image", "https://a"),
    ("hr-bench-4k", "tsv", search.HR_ROW, {"answer": "E"}, "answer", "the answer 'E' is no"),
    ("hr-bench-4k", "tsv", search.HR_ROW, {"category": "both"}, "category", "it is single or"),
    ("hr-bench-4k", "parquet", search.HR_ROW, {"B": None}, "answer", "the answer 'B' names"),
    ("hr-bench-8k", "tsv", search.HR_ROW, {"cycle_category": ""}, "cycle_category", "there is no"),
    ("hr-bench-8k", "tsv", search.HR_ROW, {"image": "9"}, "image", "it refers to '9'"),
    ("hr-bench-8k", "parquet", search.HR_ROW, {"image": "no.jpg"}, "image", "no.jpg: there is no"),
    ("visual-probe", "json", search.PROBE_ROW, {"images": []}, "images", "a question has one"),
    ("visual-probe", "json", search.PROBE_ROW,
     {"images": ["VisualProbe_Hard/data/9.jpg"]}, "images", "data/9.jpg: there is no such file"),
    ("visual-probe", "json", search.PROBE_ROW,
     {"images": ["VisualProbe_Hard/../../a.png"]}, "images", "../../a.png: the name leads out"),
    ("visual-probe", "json", search.PROBE_ROW, {"problem": "<image>\n"}, "problem", "there is no"),
    ("visual-probe", "json", search.PROBE_ROW, {"solution": None}, "solution", "there is no"),
    ("visual-probe", "json", search.PROBE_ROW,
     {"data_source": "vstar_bench"}, "data_source", "it is visual_probe_easy"),
    ("tree-bench", "tsv", search.TREE_ROW, {"answer": "E"}, "answer", "the answer 'E' is no"),
    ("tree-bench", "tsv", search.TREE_ROW, {"category": "OCR"}, "category", "it is such as"),
    ("tree-bench", "tsv", search.TREE_ROW, {"target_instances": "[[44, 30, 20, 52]]"},
     "target_instances", "the box (44, 30, 20, 52)"),
    ("tree-bench", "tsv", search.TREE_ROW, {"target_instances": "[20, 30, 44, 52]"},
     "target_instances", "20 is not a box"),
    ("tree-bench", "tsv", search.TREE_ROW, {"target_instances": "[[0.1, 0.2, 0.3, 0.4]]"},
     "target_instances", "the box (0.1, 0.2, 0.3, 0.4) should be pixels"),
    ("tree-bench", "parquet", search.TREE_ROW, {"target_instances": "see above"},
     "target_instances", "it should be a list"),
    ("tree-bench", "parquet", {**search.TREE_ROW, "A": "", "B": "", "C": ""},
     {"multi-choice options": ""}, "multi-choice options", "there are 1 options"),
    ("screenspot", "json", files.SCREEN_ROW, {"bbox": [0.1, 0.2, 0.3, 0.4]}, "bbox",
     "the box (0.1, 0.2, 0.3, 0.4) should be pixels"),
    ("screenspot", "json", files.SCREEN_ROW, {"bbox": [150, 10, 60, 20]}, "bbox", "the box (150,"),
    ("screenspot", "json", files.SCREEN_ROW, {"bbox": [1, 2, 3]}, "bbox", "a box has four"),
    ("screenspot", "json", files.SCREEN_ROW, {"bbox": [1, 2, "x", 4]}, "bbox", "'x' in the box"),
    ("screenspot", "json", files.SCREEN_ROW, {"data_type": "img"}, "data_type", "it is text or"),
    ("screenspot", "json", files.SCREEN_ROW, {"data_source": "fridge"}, "data_source", "no plat"),
    ("screenspot", "json", files.SCREEN_ROW, {"instruction": " "}, "instruction", "there is no"),
    ("screenspot", "parquet", SCREEN_IN_ONE, {"bbox": [42.0, 10.0, 60.0, 20.0]}, "bbox",
     "the box (42, 10, 60, 20) should be shares"),
    ("screenspot-v2", "json", files.SCREEN_ROW, {"bbox": [42, 10, 0, 20]}, "bbox", "the box (42,"),
    ("screenspot-v2", "json", files.SCREEN_ROW, {"bbox": None}, "bbox", "a box has four numbers"),
    ("screenspot-v2", "json", files.SCREEN_ROW, {"img_filename": None}, "image", "there is no"),
    ("screenspot-pro", "json", files.PRO_ROW, {"bbox": [42, 10, 30, 20]}, "bbox", "the box (42,"),
    ("screenspot-pro", "json", files.PRO_ROW, {"img_size": [100, 100]}, "img_size", "the image"),
    ("screenspot-pro", "json", files.PRO_ROW, {"group": "Games"}, "group", "it is one of Dev"),
    ("screenspot-pro", "json", files.PRO_ROW, {"ui_type": None}, "data_type", "there is no data"),
    ("web-grounding", "json", files.ATLAS_ROWS[1], {"bbox": [10, 20, 30, 40]}, "bbox", "the box"),
    ("web-grounding", "json", files.ATLAS_ROWS[1], {"instruction": ""}, "instruction", "there is"),
    ("web-grounding", "json", files.ATLAS_ROWS[1], {"img_filename": "b.png"}, "img_filename", "b."),
    ("web-grounding", "json", files.ATLAS_ROWS[0], {"elements": []}, "elements", "the screen has"),
    ("web-grounding", "json", files.ATLAS_ROWS[0],
     {"elements": [{"instruction": "x", "bbox": [0.5, 0.5, 0.4, 0.6]}]}, "elements[1].bbox", "the"),
    ("web-action", "json", {"examples": [ical_example("fly away", "a/1.png")]}, {},
     "examples[1].thought", "it ends with no action"),
    ("web-action", "json", {"examples": [ical_example("click [1]", "images/z/9.png")]}, {},
     "examples[1].image", "z/9.png: there is no such file"),
    ("web-action", "json", {"examples": [["no objective", "```stop```", "a/1.png"]]}, {},
     "examples[1].shown", "there is no OBJECTIVE"),
    ("web-action", "json", {"examples": ["x"]}, {}, "examples[1].example", "it should be a list"),
    ("visualwebarena", "json", files.VWA_ROW, {"task_id": 12}, "screenshot", "12.png: there is"),
    ("visualwebarena", "json", files.VWA_ROW, {"eval": {**VWA_GOLD, "eval_types": ["url_match"]}},
     "eval.eval_types", "only string_match can be graded offline, not ['url_match']"),
    ("visualwebarena", "json", files.VWA_ROW,
     {"eval": {**VWA_GOLD, "reference_answers": {"must_include": ["a", "b"]}}},
     "eval.reference_answers", "no one exact answer can be read from must_include"),
    ("visualwebarena", "json", files.VWA_ROW, {"intent": None}, "intent", "there is no intent"),
    ("pope", "parquet", files.POPE_ROW, {"answer": "perhaps"}, "answer", "it is yes or no"),
    ("pope", "parquet", files.POPE_ROW, {"category": "rare"}, "category", "it is random, popular"),
    ("pope", "parquet", files.POPE_ROW, {"question": None}, "question", "there is no question"),
    ("pope", "tsv", {"index": "1", "question": "?", "answer": "no", "category": "random"},
     {"image": "0"}, "image", "it refers to '0', and no image of that name is there"),
    ("gqa", "parquet", GQA_IN_ONE, {"answer": ""}, "answer", "there is no answer"),
    ("gqa", "parquet", GQA_IN_ONE, {"question": "  "}, "question", "there is no question"),
    ("gqa", "parquet", GQA_IN_ONE, {"image": {"bytes": b"x", "path": ""}}, "images", "image 1"),
    ("ai2d", "parquet", files.AI2D_ROW, {"answer": "4"}, "answer", "the answer '4' is not a n"),
    ("ai2d", "parquet", files.AI2D_ROW, {"answer": "B"}, "answer", "the answer 'B' is not a n"),
    ("ai2d", "parquet", files.AI2D_ROW, {"options": ["a", " ", "c"]}, "answer", "the answer '1'"),
    ("ai2d", "parquet", files.AI2D_ROW, {"options": ["a", "a", "c"]}, "answer", "the answer"),
    ("realworldqa", "parquet", files.REAL_ROWS[0], {"answer": "D"}, "answer", "the answer"),
    ("realworldqa", "parquet", files.REAL_ROWS[0], {"answer": None}, "answer", "there is no"),
    ("realworldqa", "parquet", files.REAL_ROWS[0], {"image": None}, "image", "there is no image"),
    ("mathvision", "parquet", files.MATH_ROWS[0], {"answer": "E"}, "answer", "the answer 'E' is"),
    ("mathvision", "parquet", files.MATH_ROWS[0], {"answer": "3"}, "answer", "the answer"),
    ("mathvision", "parquet", MATH_FREE, {"answer": None}, "answer", "there is no"),
    ("wemath", "json", files.wemath_rows()[0], {"key": "4steps_1"}, "key", "it is such as 2steps"),
    ("wemath", "json", files.wemath_rows()[0], {"option": "5 or 6"}, "option", "there are no lett"),
    ("wemath", "json", files.wemath_rows()[0], {"answer": "E"}, "answer", "the answer 'E' is no"),
    ("wemath", "json", files.wemath_rows()[0], {"image_path": "no.png"}, "image_path", "no.png: "),
    ("mmmu", "parquet", files.MMMU_ROWS[0], {"answer": "?"}, "answer", "it is not published"),
    ("mmmu", "parquet", files.MMMU_ROWS[0], {"options": "['a'"}, "options", "it should be a list"),
    ("mmmu", "parquet", files.MMMU_ROWS[0], {"question": "<image 5>?"}, "question", "it speaks of"),
    ("mmmu", "parquet", OPEN, {"answer": "['a'"}, "answer", "it should be a list"),
]  # fmt: skip


def write(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"published.{suffix}"
    if suffix == "parquet":
        return files.parquet(path, rows, **{f"image_{n}": files.IMAGE for n in (2, 3, 4)})
    makers: dict[str, Callable[..., Path]] = {"json": files.write_json, "jsonl": files.lines,
                                              "tsv": files.tsv}  # fmt: skip
    return makers[suffix](path, rows[0] if "examples" in rows[0] else rows)


def rejected(task: str, path: Path) -> list[Reject]:
    """What comes of every row of the file: a reject, or nothing."""
    checker = Checker(task)
    drafts = tasks()[task].formats[path.suffix](path, ReadContext(task))
    found = [checker.check(one, "test") if isinstance(one, Draft) else one for one in drafts]
    return [one for one in found if isinstance(one, Reject)]


@pytest.mark.parametrize(("task", "suffix", "good", "change", "field", "reason"), BAD)
def test_a_bad_row_is_named(
    tmp_path: Path, task: str, suffix: str, good: dict[str, Any], change: dict[str, Any],
    field: str, reason: str,
) -> None:  # fmt: skip
    for i, name in enumerate(("web_1.png", "a/1.png", "a/2.png", "classifieds_10.png",
                              "direct_attributes/sa_4690.png", "2steps/image/1-1.png",
                              "blender_windows/screenshot_1.png",
                              "data/visual_probe_hard_0.png")):  # fmt: skip
        image_file(tmp_path, name, i)
    (found,) = rejected(task, write(tmp_path, suffix, [{**good, **change}]))
    assert (found.row, found.field) == (1, field)
    assert found.reason.startswith(reason), found.reason


def test_every_reader_is_given_at_least_three_bad_rows() -> None:
    counted = {task: sum(bad[0] == task for bad in BAD) for task in tasks()}
    elsewhere = {
        "sat2",
        "vstar",
    }  # tests/warehouse/sources/test_import.py and tests/warehouse/sources/test_import_reference.py
    assert not [task for task, n in counted.items() if n < 3 and task not in elsewhere]


@pytest.mark.parametrize(
    ("task", "name", "content", "reason"),
    [
        ("blink", "val.parquet", b"no", "can't be read as Parquet"),
        (
            "pope",
            "test.tsv",
            b"index\tcolour\n1\tred\n",
            "is not POPE: it has no column question o",
        ),
        (
            "ai2d",
            "test.json",
            b'[{"question": "?"}]',
            "is not AI2D: it has no column answer, image",
        ),
        ("screenspot", "a.json", b'[{"bbox": [1, 2', "is not whole JSON"),
        ("screenspot", "a.json", b"12", "is not an array of objects, or objects"),
        ("gqa", "q.json", b"[]", "is not an object of rows"),
        (
            "gqa",
            "q.json",
            b'{"1": {"question": "?", "answer": "a", "imageId": "1"}} x',
            "is damaged",
        ),
        ("wemath", "a.json", b'[{"ID": "1"}]', "is not We-Math: it has no column key, question"),
        ("mmmu", "dev.csv", b"\xff\xfe\x00", "can't be read"),
        ("vstar-bench", "a.jsonl", b'{"image": "a"}', "is not V*Bench: it has no column category"),
    ],
)
def test_a_file_of_another_kind_is_refused_whole(
    tmp_path: Path, task: str, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImportProblem) as problem:
        rejected(task, path)
    assert str(path) in str(problem.value)
    assert reason in str(problem.value)


def test_images_of_gqa_must_lie_beside_its_questions(tmp_path: Path) -> None:
    path = files.gqa(tmp_path) / "testdev_balanced_instructions" / "testdev-00000-of-00001.parquet"
    beside = tmp_path / "testdev_balanced_images" / "testdev-00000-of-00001.parquet"
    pq.write_table(pq.read_table(beside).slice(0, 1), beside)
    (found,) = rejected("gqa", path)
    assert (found.row, found.field) == (2, "imageId")
    table = pq.read_table(beside)
    lost = {"id": "lost", "image": {"bytes": None, "path": "lost.jpg"}}
    pq.write_table(pa.Table.from_pylist([*table.to_pylist(), lost], table.schema), beside)
    assert rejected("gqa", path) == [found], "an image that no question asks about costs none"
    beside.unlink()
    with pytest.raises(ImportProblem, match=r"holds no images.* say with --image-root"):
        rejected("gqa", path)


def test_a_broken_line_costs_only_itself(tmp_path: Path) -> None:
    image_file(tmp_path, "direct_attributes/sa_4690.png", 1)
    path = tmp_path / "test.jsonl"
    good = json.dumps(files.VSTAR_ROW)
    path.write_text(f"{good}\n{{oh\n[1]\n\n{good}\n")
    assert [(one.row, one.field) for one in rejected("vstar-bench", path)] == [
        (2, "line"), (3, "line")
    ]  # fmt: skip


def test_a_tsv_row_with_too_many_cells_costs_only_itself(tmp_path: Path) -> None:
    path = files.pope_tsv(tmp_path)
    with path.open("a") as handle:
        handle.write(f"2\t{b64(1)}\tIs it?\tYes\tpopular\tmore\n")
    (found,) = rejected("pope", path)
    assert (found.row, found.field) == (3, "line")


def test_a_parquet_with_a_column_of_another_type_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    pq.write_table(pa.table({**{name: [[1]] for name in ("question", "answer", "image")},
                             "options": ["a"]}), path)  # fmt: skip
    (found,) = rejected("ai2d", path)
    assert (found.row, found.field) == (1, "options")


JUNK: list[Any] = [
    None, "", 0, -1.5, True, [], [1], [None], {}, {"bytes": None}, "x", "[1", "(A)", "\0", 10**400,
    float("nan"), [[1, 2], [3]], [{}], "<image 1>", "data:image/png;base64,@@", "é" * 2000,
    "\ud800",
]  # fmt: skip
PICTURE = {"pope": {"image": "p.png"}}
GOOD: dict[str, dict[str, Any]] = {bad[0]: bad[2] for bad in BAD if "examples" not in bad[2]}


@pytest.mark.parametrize("task", sorted({**GOOD, "gqa": files.GQA_ROW}))
def test_whatever_a_cell_holds_a_row_is_read_or_named(tmp_path: Path, task: str) -> None:
    """No junk in any column of any reader ends in anything but a question or a reject."""
    image_file(tmp_path, "p.png", 1)
    row = {
        name: "p.png" if isinstance(value, dict) and "bytes" in value else value
        for name, value in {**PICTURE.get(task, {}), **GOOD.get(task, files.GQA_ROW)}.items()
    }
    suffix = "jsonl" if ".jsonl" in tasks()[task].formats else "json"
    if task in ("gqa", "visualwebarena", "web-grounding"):
        suffix = "json"
    rows = [{**row, name: junk} for name in row for junk in JUNK]
    path = tmp_path / f"published.{suffix}"
    texts = [json.dumps(r) for r in (row, *rows)]
    if task == "gqa":
        path.write_text("{" + ",".join(f'"{i}": {text}' for i, text in enumerate(texts)) + "}")
    else:
        path.write_text("\n".join(texts))
    image_file(tmp_path, str(row.get("img_filename") or row.get("image_path") or "q.png"), 1)
    assert {one.row for one in rejected(task, path)} <= set(range(1, len(rows) + 2))
