"""Rows are read one after the other, whatever the file; boxes and options as they are written."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image as PILImage

from mcts.data import Box
from tests.support.benchmark_files import drawn
from tests.support.sat_files import picture
from warehouse.sources.reading import tabular
from warehouse.sources.reading.boxes import BoxFormat, gold_box, polygon_boxes
from warehouse.sources.reading.drafts import ImportProblem, OtherFile, Unusable
from warehouse.sources.reading.image_files import ImageFiles, image_size
from warehouse.sources.reading.options import cut_options, read_options
from warehouse.sources.reading.tabular import read_rows


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "keyed", "expected"),
    [
        ("[]", False, []),
        (' [ {"a": [1, "]"]} , {"b": 12.5e3} ] ', False, [{"a": [1, "]"]}, {"b": 12.5e3}]),
        ('{"a": {"b": 1}}', False, [{"a": {"b": 1}}]),
        ('{"a": 1}\n{"a": 2}', False, [{"a": 1}, {"a": 2}]),
        ('{"x": {"a": 1}, "y": {"a": 2}}', True, [{"a": 1, "_key": "x"}, {"a": 2, "_key": "y"}]),
        ("{}", True, []),
    ],
)
def test_json_is_read_in_any_of_its_forms_at_any_size_of_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, text: str, keyed: bool,
    expected: list[object],
) -> None:  # fmt: skip
    monkeypatch.setattr(tabular, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(text)
    assert list(tabular.read_json_objects(path, keyed=keyed)) == expected


@pytest.mark.parametrize("text", ['[{"a": 1}', '[{"a": 1},]', '[{"a": 1} {"b": 2}]', '[{"a": 1}] 2',
                                  "", "12", '{"a": 1} x', '[{"a'])  # fmt: skip
def test_json_that_is_damaged_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ImportProblem, match=r"a\.json"):
        list(read_rows(path, None))


def test_an_element_that_is_no_object_is_broken_and_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[1, {"a": 2}]')
    assert list(read_rows(path, None)) == [(1, "this is not a JSON object"), (2, {"a": 2})]


def test_a_json_file_without_any_of_the_columns_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"image": {"bytes": 1}, "b": 2}]')
    row = {"image": {"bytes": 1}, "b": 2}
    for columns in (["image.bytes", "text"], ["b"], None):
        assert list(read_rows(path, columns)) == [(1, row)]
    with pytest.raises(OtherFile, match=r"has no column bytes, c; it has: image, b$"):
        list(read_rows(path, ["bytes", "c"]))
    path.write_text("[]")
    assert list(read_rows(path, ["bytes"])) == []


def test_a_value_that_does_not_end_is_not_read_to_the_end_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    monkeypatch.setattr(tabular, "_LONGEST", 1 << 10)
    path.write_text(json.dumps([{"a": "x" * (1 << 11)}]))
    assert len(list(read_rows(path, None))) == 1, "what is read already is no matter"
    path.write_text(json.dumps([{"a": "x" * (1 << 21)}]))
    with pytest.raises(ImportProblem, match="a value that is too long for a row"):
        list(read_rows(path, None))


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_long_file_is_not_held_in_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with path.open("w") as handle:
        if suffix == ".json":
            handle.write("[")
        for i in range(400):
            handle.write(("," if i and suffix == ".json" else "") + json.dumps({"a": "x" * 50_000}))
            handle.write("\n")
        if suffix == ".json":
            handle.write("]")
    assert path.stat().st_size > 19 << 20
    tracemalloc.start()
    count = sum(1 for _ in read_rows(path, None))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 400
    assert peak < 9 << 20


def test_boxes_of_every_form_mean_the_same_place() -> None:
    size = (200, 100)
    assert gold_box([20, 10, 40, 30], BoxFormat.XYWH, size) == Box(20, 10, 60, 40)
    assert gold_box([20, 10, 60, 40], BoxFormat.XYXY, size) == Box(20, 10, 60, 40)
    assert gold_box([0.1, 0.1, 0.3, 0.4], BoxFormat.SHARES, size) == Box(20, 10, 60, 40)


@pytest.mark.parametrize(
    ("values", "form", "expected"),
    [
        ([-1, -2, 20, 10], BoxFormat.XYXY, (0, 0, 20, 10)),
        ([190, 90, 202, 101], BoxFormat.XYXY, (190, 90, 200, 100)),
        ([0.95, 0.5, 1.005, 1.0], BoxFormat.SHARES, (190, 50, 200, 100)),
    ],
)
def test_a_box_a_little_over_the_edge_is_cut_there(
    values: list[float], form: BoxFormat, expected: tuple[float, ...]
) -> None:
    box = gold_box(values, form, (200, 100))
    assert (box.x1, box.y1, box.x2, box.y2) == expected


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ([-3, 0, 20, 10], BoxFormat.XYXY),
        ([190, 90, 203, 100], BoxFormat.XYXY),
        ([20, 10, 20, 40], BoxFormat.XYXY),
        ([60, 40, 20, 10], BoxFormat.XYXY),
        ([0, 0, 1, 1], BoxFormat.XYXY),
        ([0, 0, 2, 1], BoxFormat.SHARES),
        ([1, 2, 3, float("nan")], BoxFormat.XYXY),
        ([1, 2, 3, None], BoxFormat.XYXY),
        ([True, 2, 3, 4], BoxFormat.XYXY),
    ],
)
def test_numbers_of_another_form_are_no_box(values: list[object], form: BoxFormat) -> None:
    with pytest.raises(Unusable):
        gold_box(values, form, (200, 100))


def test_a_polygon_is_covered_by_boxes_inside_it_also_where_it_is_hollow() -> None:
    square = polygon_boxes([(0.1, 0.2), (0.5, 0.2), (0.5, 0.6), (0.1, 0.6)], (200, 100), "answer")
    assert square == (Box(20.001, 20.001, 99.999, 59.999),)
    horns = [(0, 0), (0.2, 0.8), (0.4, 0.8), (0.6, 0), (0.6, 1), (0, 1)]
    boxes = polygon_boxes(horns, (100, 100), "answer")
    high = [box for box in boxes if box.y1 == 40]
    assert len(high) == 2
    assert high[0].x2 < 20 < 40 < high[1].x1


@pytest.mark.parametrize(
    ("text", "question", "choices"),
    [
        ("What?\n(A) red\n(B) blue", "What?", ("red", "blue")),
        ("What?\nA. red\nB. blue\nAnswer with the option's letter.", "What?", ("red", "blue")),
        ("What?\nA. red\nC. blue", "What?\nA. red\nC. blue", ()),
        ("What?\nPlease answer directly with a single word or number.", "What?", ()),
        ("A. red\nB. blue", "A. red\nB. blue", ()),
        ("Answer with a letter.", "Answer with a letter.", ()),
        ("Is it by A. Smith?", "Is it by A. Smith?", ()),
    ],
)
def test_options_are_cut_out_of_a_question_only_where_they_are_sure(
    text: str, question: str, choices: tuple[str, ...]
) -> None:
    found, options = cut_options(text)
    assert (found, options.choices) == (question, choices)


def test_letters_are_taken_off_options_only_where_all_have_their_own() -> None:
    assert read_options(["(A) left", "(B) right"]).choices == ("left", "right")
    assert read_options(["A. Smith", "C. Jones"]).choices == ("A. Smith", "C. Jones")


def test_an_image_is_measured_upright_from_its_head() -> None:
    assert image_size(drawn(1, (200, 100))[:200]) == (200, 100)  # of a PNG, the head is enough
    exif = PILImage.Exif()
    exif[0x0112] = 6
    assert image_size(picture(1, "JPEG", (80, 60), exif=exif)) == (60, 80)
    assert image_size(picture(1, "PNG", (80, 60), exif=exif)) == (60, 80)
    with pytest.raises(Unusable, match="can't be decoded"):
        image_size(b"no picture")


def test_a_named_image_is_found_in_the_first_folder_that_has_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "two" / "a.png").write_bytes(b"second")
    files = ImageFiles((tmp_path / "one", tmp_path / "two"))
    assert files.get("a.png") == b"second"
    (tmp_path / "one" / "a.png").write_bytes(b"first")
    assert files.get({"bytes": None, "path": "a.png"}) == b"first"
    (tmp_path / "two" / "e\u0301.png").write_bytes(b"accented")
    assert files.get("\u00e9.png") == b"accented"
    assert files.get("data:image/png;base64,AAEC") == b"\x00\x01\x02"
