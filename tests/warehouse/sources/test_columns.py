"""Any table becomes questions by its columns, whatever file it is in; what can't is named."""

from __future__ import annotations

import base64
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as PILImage

from curation.grading.grade import grade
from mcts.data import AnswerKind, Box
from tests.support.sat_files import picture, rejects
from warehouse.sources.importing import ImportProblem, import_questions
from warehouse.sources.reading.columns import Columns
from warehouse.sources.reading.tabular import read_rows
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_questions

SHOT = picture(1, size=(200, 100))


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "home"))


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    (tmp_path / "shots").mkdir()
    (tmp_path / "shots" / "a.png").write_bytes(SHOT)
    (tmp_path / "outside.png").write_bytes(SHOT)
    return tmp_path / "shots"


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as the kind of file that the path's suffix says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as out:
            by = "\t" if path.suffix == ".tsv" else ","
            table = csv.DictWriter(out, list(rows[0]), delimiter=by)
            table.writeheader()
            table.writerows(rows)
    return path


def brought(warehouse: Warehouse, file: Path, columns: str, **how: Any) -> Any:
    boxes = how.pop("boxes", "xyxy")
    kind = how.pop("kind", AnswerKind.TEXT)
    read = Columns.parsed(columns, boxes, kind)
    return import_questions(warehouse, "mine", file, split="train", columns=read, **how)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl", ".csv", ".tsv"])
def test_the_same_rows_come_out_of_every_kind_of_file(
    suffix: str, warehouse: Warehouse, shots: Path
) -> None:
    rows = [
        {"q": "Which side,\nand why?", "img": "a.png", "gold": "left", "A": "left", "B": "right"},
        {"q": "Second", "img": "a.png", "gold": "B", "A": "left", "B": "right"},
    ]
    file = written(shots / f"table{suffix}", rows)
    report = brought(warehouse, file, "question=q, image=img, answer=gold, choices=A+B")
    assert (report.added, report.rejected) == (2, 0)
    found = {question.text: question for question in read_questions(warehouse, "mine")}
    assert {q.answers for q in found.values()} == {("left",), ("right",)}
    first = found["Which side,\nand why?"]
    assert (first.choices, first.answer_kind) == (("left", "right"), AnswerKind.TEXT)
    assert (first.images[0].width, first.images[0].height) == (200, 100)


def test_a_folder_that_datasets_saved_is_read_by_its_splits(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    from datasets import Dataset, DatasetDict, Features, Image, Value

    features = Features({"image": Image(), "q": Value("string"), "a": Value("string")})
    shown = PILImage.new("RGB", (30, 20), "red")
    splits = {
        name: Dataset.from_list([{"image": shown, "q": f"{name}?", "a": "red"}], features=features)
        for name in ("train", "test")
    }
    DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    read = Columns.parsed("question=q,image=image,answer=a")
    assert import_questions(warehouse, "mine", tmp_path / "saved", columns=read).added == 2
    assert {q.split: q.text for q in read_questions(warehouse)} == {
        "train": "train?", "test": "test?",
    }  # fmt: skip
    splits["train"].to_parquet(str(tmp_path / "train.parquet"))
    report = import_questions(warehouse, "mine", tmp_path / "train.parquet", columns=read)
    assert (report.added, report.already_there) == (0, 1), "the same picture bytes, the same id"


def test_images_come_as_bytes_paths_base64_and_lists(warehouse: Warehouse, shots: Path) -> None:
    text = base64.b64encode(SHOT).decode()
    for i, value in enumerate(["a.png", text, f"data:image/png;base64,{text}", ["a.png", "a.png"]]):
        file = written(shots / f"t{i}.jsonl", [{"q": f"{i}", "i": value, "a": "x"}])
        assert brought(warehouse, file, "question=q,image=i,answer=a").added == 1
    two = written(shots / "two.csv", [{"q": "two", "b": "a.png", "c": "a.png", "a": "x"}])
    assert brought(warehouse, two, "question=q,image=b+c,answer=a").added == 1
    raw = written(shots / "raw.parquet", [{"q": "raw", "i": [{"bytes": SHOT, "path": "x.png"}],
                                           "a": 7}])  # fmt: skip
    assert brought(warehouse, raw, "question=q,image=i,answer=a").added == 1
    found = {question.text: question for question in read_questions(warehouse)}
    assert [len(found[t].images) for t in ("0", "1", "2", "3", "two", "raw")] == [1, 1, 1, 2, 2, 1]
    assert len({image.image_id for q in found.values() for image in q.images}) == 1
    assert found["raw"].answers == ("7",)


@pytest.mark.parametrize(
    ("value", "boxes"),
    [
        ([20, 10, 60, 40], "xyxy"),
        ("(20, 10, 60, 40)", "xyxy"),
        ("[[20, 10, 60, 40]]", "xyxy"),
        ({"y2": 40, "y1": 10, "x2": 60, "x1": 20}, "xyxy"),
        ([20, 10, 40, 30], "xywh"),
        ({"x": 20, "y": 10, "width": 40, "height": 30}, "xywh"),
        ([0.1, 0.1, 0.3, 0.4], "xyxy/1"),
        ([100, 100, 200, 300], "xywh/1000"),
        ("100,100,300,400", "xyxy/1000"),
    ],
)
def test_a_box_is_read_in_the_frame_that_was_named(
    value: Any, boxes: str, warehouse: Warehouse, shots: Path
) -> None:
    file = written(shots / "t.jsonl", [{"q": "where?", "i": "a.png", "b": value}])
    report = brought(warehouse, file, "question=q,image=i,box=b", boxes=boxes)
    assert report.added == 1
    (question,) = read_questions(warehouse)
    assert question.answer_kind is AnswerKind.BOX
    (box,) = question.boxes
    assert [box.x1, box.y1, box.x2, box.y2] == pytest.approx([20, 10, 60, 40])


def test_boxes_are_in_the_pixels_of_the_upright_image(warehouse: Warehouse, shots: Path) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = 6
    (shots / "lies.jpg").write_bytes(picture(1, "JPEG", (100, 200), exif=exif))
    file = written(shots / "t.jsonl", [{"q": "?", "i": "lies.jpg", "b": [0.5, 0.5, 1, 1]}])
    assert brought(warehouse, file, "question=q,image=i,box=b", boxes="xyxy/1").added == 1
    (question,) = read_questions(warehouse)
    assert question.boxes == (Box(100, 50, 200, 100),)


def test_a_task_whose_answers_are_boxes_or_actions_takes_them_from_the_answer(
    warehouse: Warehouse, shots: Path
) -> None:
    box = written(shots / "b.csv", [{"q": "where", "i": "a.png", "a": "(1, 2, 30, 40)"}])
    assert brought(warehouse, box, "question=q,image=i,answer=a", kind=AnswerKind.BOX).added == 1
    act = written(shots / "a.csv", [{"q": "do", "i": "a.png", "a": "type [3] [two words]"}])
    assert brought(warehouse, act, "question=q,image=i,answer=a", kind=AnswerKind.ACTION).added == 1
    found = {question.text: question for question in read_questions(warehouse)}
    assert found["where"].boxes == (Box(1, 2, 30, 40),)
    assert found["do"].answers == ("type [3] [two words]",)


@pytest.mark.parametrize(
    ("answer", "choices", "right"),
    [
        (1, ["cat", "dog"], "dog"),
        ("B", ["cat", "dog"], "dog"),
        ("(b)", ["cat", "dog"], "dog"),
        (2, ["1", "2"], "2"),  # the text comes before the index
        ("B", ["B", "A"], "B"),  # … and before the letter
        (True, ["yes", "no"], "yes"),
        (True, ["True", "False"], "True"),
        (3.0, None, "3"),
        (["two", "2"], None, "two"),
    ],
)
def test_an_answer_is_a_choice_by_text_then_index_then_letter(
    answer: Any, choices: list[str] | None, right: str, warehouse: Warehouse, shots: Path
) -> None:
    row = {"q": "?", "i": "a.png", "a": answer, "c": choices}
    columns = "question=q,image=i,answer=a" + (",choices=c" if choices else "")
    brought(warehouse, written(shots / "t.jsonl", [row]), columns)
    (question,) = read_questions(warehouse)
    assert question.answers[0] == right


INDEXES = [
    (["three", "two", "one", "four"], 1, "two"),
    (["4", "2", "1", "3"], 2, "1"),
    (["dog", "cat", "cow", "horse"], 2, "cow"),
]
LETTERS = [(["C", "A", "B"], "B", "A"), (["cat", "dog", "cow"], "C", "cow")]
TEXTS = [(["7", "2", "1", "3"], 2, "2"), (["5", "9", "7", "6"], 9, "9")]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
@pytest.mark.parametrize("rows", [INDEXES, LETTERS, TEXTS])
def test_a_column_of_answers_is_read_in_one_way(
    rows: list[tuple[list[str], Any, str]], suffix: str, warehouse: Warehouse, shots: Path
) -> None:
    table = [
        {"q": f"{i}?", "i": "a.png", "a": answer, "c": choices}
        for i, (choices, answer, _) in enumerate(rows)
    ]
    file = written(shots / f"t{suffix}", table)
    brought(warehouse, file, "question=q,image=i,answer=a,choices=c")
    found = {q.text: q.answers for q in read_questions(warehouse)}
    assert found == {f"{i}?": (right,) for i, (_, _, right) in enumerate(rows)}


def test_an_answer_that_may_be_a_text_or_an_index_is_refused_in_a_column_of_both(
    warehouse: Warehouse, shots: Path
) -> None:
    table = [
        {"q": f"{i}?", "i": "a.png", "a": answer, "c": choices}
        for i, (choices, answer, _) in enumerate([*INDEXES, *TEXTS])
    ]
    file = written(shots / "t.jsonl", table)
    columns = "question=q,image=i,answer=a,choices=c"
    report = brought(warehouse, file, columns, max_rejects=9)
    found = rejects(report.rejects_path)
    assert [row for _, row, _, _ in found] == [2, 4]
    assert found[0][3] == (
        "the answer '2' is the text of one choice and names another, '1'; other rows have answers "
        "of both kinds: say count_from if it is an index"
    )
    counted = brought(warehouse, file, f"{columns},count_from=1", max_rejects=9)
    assert counted.rejected == 0
    assert {q.text: q.answers for q in read_questions(warehouse)}["1?"] == ("2",)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("<think>The door (10, 20) is red.</think>\n<answer>no</answer>", "no"),
        ("<think><answer>yes</answer>?</think><answer> (B) no </answer>", "no"),
        ("<answer>yes</answer><answer>no</answer>", "has 2 answers, and no one gold answer"),
        ("<think>The door is red.</think> no", "this is a chain of reasoning, not a gold answer"),
        ("<image>Is it red?", "it holds <image>, as a question does"),
        ('{"bbox_2d": [1, 2, 3, 4]}', "this is a box as a model writes it, and nothing says in w"),
        ("<|box_start|>(1,2),(3,4)<|box_end|>", "this is a box as a model writes it, and nothing"),
        ('{"gold": ["no"], "choices": ["no", "yes"]}', "this is the gold answer of an export"),
    ],
)
def test_a_gold_answer_is_what_a_response_says_it_is(
    answer: str, right: str, warehouse: Warehouse, shots: Path
) -> None:
    rows = [
        {"q": "good", "i": "a.png", "a": "yes", "c": ["yes", "no"]},
        {"q": "?", "i": "a.png", "a": answer, "c": ["yes", "no"]},
    ]
    file = written(shots / "t.jsonl", rows)
    for columns in ("question=q,image=i,answer=a,choices=c", "question=q,image=i,answer=a"):
        report = brought(warehouse, file, columns)
        if right == "no":
            assert not report.rejected
        else:
            ((_, row, field, reason),) = rejects(report.rejects_path)
            assert (row, field) == (2, "answer") and right in reason


def test_images_that_are_missing_are_left_out(warehouse: Warehouse, shots: Path) -> None:
    for i, missing in enumerate((None, "", {"bytes": None, "path": None})):
        rows = [
            {"q": f"{i}", "b": "a.png", "c": missing, "a": "x", "d": [1, 2, 3, 4]},
            {"q": f"{i}b", "b": missing, "c": "a.png", "a": "x", "d": [1, 2, 3, 4]},
        ]
        file = written(shots / f"{i}.jsonl", rows)
        assert brought(warehouse, file, "question=q,image=b+c,answer=a").added == 2
        report = brought(warehouse, file, "question=q,image=b+c,box=d")
        ((_, row, _, reason),) = rejects(report.rejects_path)
        assert (row, reason) == (2, "the first image, in which the places are, is missing")
    assert {len(question.images) for question in read_questions(warehouse)} == {1}


def test_a_key_that_a_row_of_json_may_lack_is_null(warehouse: Warehouse, shots: Path) -> None:
    rows = [
        {"q": "open", "i": "a.png", "a": "x"},
        {
            "q": "which",
            "i": "a.png",
            "a": "B",
            "c": ["x", "y"],
            "m": {"f": "kind"},
            "t": "[1,2,3,4]",
        },
    ]
    file = written(shots / "t.jsonl", rows)
    columns = "question=q,image=i,answer=a,choices=c,family=m.f,target=t"
    assert brought(warehouse, file, columns).added == 2
    found = {question.text: question for question in read_questions(warehouse)}
    assert (found["open"].choices, found["which"].family) == ((), "kind")
    with pytest.raises(ImportProblem, match="source: the row has no d; it has: q, i, a"):
        brought(warehouse, file, f"{columns},source=d")


@pytest.mark.parametrize(
    ("value", "boxes", "box"),
    [
        ([0.5, 0.5, 0.50000001, 0.5], "xywh/1", (100, 50, 200, 100)),
        ([190, 10, 10.4, 50], "xywh", (190, 10, 200, 60)),
        ([-0.3, 0, 9, 9], "xyxy", (0, 0, 9, 9)),
    ],
)
def test_a_box_on_the_edge_of_its_image_is_clipped_there(
    value: list[float], boxes: str, box: tuple[float, ...], warehouse: Warehouse, shots: Path
) -> None:
    file = written(shots / "t.jsonl", [{"q": "?", "i": "a.png", "b": value}])
    report = brought(warehouse, file, "question=q,image=i,box=b", boxes=boxes)
    assert (report.added, report.warnings) == (1, ())
    (question,) = read_questions(warehouse)
    (found,) = question.boxes
    assert (found.x1, found.y1, found.x2, found.y2) == pytest.approx(box)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("kind", [pa.float32(), pa.float16()])
def test_a_narrow_float_is_the_number_that_was_meant(
    kind: pa.DataType, suffix: str, tmp_path: Path
) -> None:
    number = kind.to_pandas_dtype()
    struct = pa.struct([("x", kind)])
    columns = {
        "a": pa.array([number(3.14), None], kind),
        "b": pa.array([[number(0.1)], []], pa.list_(kind)),
        "c": pa.array([{"x": number(0.7)}, None], struct),
    }
    table = pa.table(columns)
    file = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, file)
    else:
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    first, second = (row for _, row in read_rows(file, None))
    assert first == {"a": 3.14, "b": [0.1], "c": {"x": 0.7}}
    assert second == {"a": None, "b": [], "c": None}


def test_dots_lead_into_structs_and_lists(warehouse: Warehouse, shots: Path) -> None:
    turns = [{"value": "Is it?"}, {"value": "yes"}]
    row = {"talk": turns, "meta": {"image": "a.png", "kind": "exists"}, "a.b": "yes"}
    for suffix in (".jsonl", ".parquet"):
        file = written(shots / f"t{suffix}", [row])
        brought(
            warehouse, file, "question=talk.0.value,image=meta.image,answer=a.b,family=meta.kind"
        )
    (question,) = read_questions(warehouse)
    assert (question.text, question.answers, question.family) == ("Is it?", ("yes",), "exists")


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"i": "https://example.org/a.png"}, "image", "https://example.org/a.png: addresses are not f"),
    ({"i": "../outside.png"}, "image", "../outside.png: the name leads out of the image root"),
    ({"i": "/etc/hostname"}, "image", "/etc/hostname: the name leads out of the image root"),
    ({"i": "b.png"}, "image", "b.png: there is no such file below the image root"),
    ({"i": ""}, "image", "there is no image"),
    ({"i": []}, "image", "there is no image"),
    ({"i": "?" * 2000}, "image", "this is neither a file's name nor base64: ??"),
    ({"b": [1, 2, 3]}, "box", "a box is four numbers, not '[1, 2, 3]'"),
    ({"b": "nowhere"}, "box", "a box is four numbers, not 'nowhere'"),
    ({"b": None}, "box", "there is no box"),
    ({"b": [1, 2, float("nan"), 4]}, "box", "a box is four numbers"),
    ({"b": {"x": 1, "y": 2, "w": 3, "h": 4}}, "box", "a struct of x, y, w, h is not xyxy"),
    ({"b": [1, 2, 300, 4]}, "answer", "the gold box (1, 2, 300, 4) is not in 200x100 pixels"),
    ({"b": [30, 20, 10, 40]}, "answer", "the gold box (30, 20, 10, 40) is not in 200x100 pixels"),
    ({"q": None}, "question", "the question is empty"),
]


@pytest.mark.parametrize(("changed", "field", "reason"), BAD)
def test_a_row_that_cannot_be_read_is_rejected_with_its_reason(
    changed: dict[str, Any], field: str, reason: str, warehouse: Warehouse, shots: Path
) -> None:
    good = {"q": "where?", "i": "a.png", "b": [1, 2, 30, 40]}
    file = written(shots / "t.jsonl", [good, {**good, **changed}])
    report = brought(warehouse, file, "question=q,image=i,box=b")
    assert (report.added, report.rejected) == (1, 1)
    ((name, row, found, message),) = rejects(report.rejects_path)
    assert (name, row, found) == ("t.jsonl", 2, field)
    assert message.startswith(reason)


def test_lines_and_rows_that_are_broken_are_rejected(warehouse: Warehouse, shots: Path) -> None:
    good = json.dumps({"q": "?", "i": "a.png", "a": "x"})
    (shots / "t.jsonl").write_text(f'{good}\n{{"q": 1\n[1]\n{{"q": "?", "a": "x"}}\n')
    report = brought(warehouse, shots / "t.jsonl", "question=q,image=i,answer=a")
    assert [found[1:] for found in rejects(report.rejects_path)][1:] == [
        (3, "row", "this is not a JSON object"),
        (4, "image", "the row has no i; it has: q, a"),
    ]
    (shots / "t.csv").write_text("q,i,a\n?,a.png,x\n?,a.png,x,more\n")
    report = brought(warehouse, shots / "t.csv", "question=q,image=i,answer=a")
    assert rejects(report.rejects_path)[0][1:] == (
        2, "row", "the row has more cells than the header",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "boxes", "message"),
    [
        ("question=q,image=i", "xyxy", "say which column is the answer, or the box"),
        ("question=q,answer=a", "xyxy", "say which column is the image"),
        ("question=q,image=i,answer", "xyxy", "'answer' is not ROLE=COLUMN"),
        ("question=q,image=i,gold=a", "xyxy", "no role 'gold'; there are: question, image, "),
        ("question=q,image=i,answer=a+b", "xyxy", r"answer is one column, not a\+b"),
        ("question=q,image=i,image=j,answer=a", "xyxy", "image is given twice"),
        ("question=q,image=i,box=b", "cxcywh", "it is xyxy or xywh, or such as xywh/1000, not"),
        ("question=q,image=i,box=b", "xyxy/0", "it is xyxy or xywh"),
    ],
)
def test_columns_that_say_nothing_are_named(columns: str, boxes: str, message: str) -> None:
    with pytest.raises(ImportProblem, match=message):
        Columns.parsed(columns, boxes)


def test_a_file_that_cannot_be_read_is_named(warehouse: Warehouse, shots: Path) -> None:
    for name, data in [
        ("a.parquet", b"PAR1 no"), ("a.arrow", b"ARROW1 no"), ("a.csv", b"q,i,a\n\xff\xfe,\n"),
    ]:  # fmt: skip
        (shots / name).write_bytes(data)
        with pytest.raises(ImportProblem, match=rf"{name} can't be read"):
            brought(warehouse, shots / name, "question=q,image=i,answer=a")
    file = written(shots / "b.csv", [{"q": "?", "i": "a.png"}])
    with pytest.raises(ImportProblem, match=r"b\.csv has no column a; it has: q, i"):
        brought(warehouse, file, "question=q,image=i,answer=a")
    assert not Path(warehouse.root).exists()


def test_a_table_far_larger_than_what_is_held_streams(tmp_path: Path) -> None:
    """120 MB of pictures in one row group, read by a process that may hold half of that more."""
    rows = 120
    schema = pa.schema([("q", pa.string()), ("i", pa.binary()), ("a", pa.string())])
    with pq.ParquetWriter(tmp_path / "t.parquet", schema, compression="none",
                          data_page_size=1 << 20) as out:  # fmt: skip
        table = [{"q": str(i), "i": os.urandom(1 << 20), "a": "x"} for i in range(rows)]
        out.write_table(pa.Table.from_pylist(table, schema), row_group_size=rows)
    size = (tmp_path / "t.parquet").stat().st_size
    assert size > 115 << 20
    del table
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from warehouse.sources.reading.columns import Columns\n"
        "from warehouse.sources.reading.drafts import ReadContext\n"
        "base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "read = Columns.parsed('question=q,image=i,answer=a').read\n"
        "n = sum(len(d.images[0].data) for d in read(Path(sys.argv[1]), ReadContext('mine')))\n"
        "print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "t.parquet")],
                          capture_output=True, text=True, check=True)  # fmt: skip
    read, grown = map(int, done.stdout.split())
    assert read > 0.95 * size
    assert grown * 1024 < size / 2, f"{grown / 1024:.0f} MB more were held"


def test_a_target_says_where_what_is_asked_about_can_be_seen(
    warehouse: Warehouse, tmp_path: Path, shots: Path
) -> None:
    rows = [
        {"q": "Which is it?", "img": "a.png", "gold": "left", "at": "[[10, 20, 30, 40]]"},
        {"q": "And then?", "img": "a.png", "gold": "right", "at": ""},
        {"q": "Where to?", "img": "a.png", "gold": "up", "at": "[[10, 20, 300, 40]]"},
    ]
    file = written(shots / "a.csv", rows)
    columns = "question=q,image=img,answer=gold"
    report = brought(warehouse, file, f"{columns},target=at", max_rejects=3)
    ((_, row, field, reason),) = rejects(report.rejects_path)
    assert (row, field) == (3, "target")
    assert reason == "the target box (10, 20, 300, 40) is not in 200x100 pixels"
    found = {question.text: question for question in read_questions(warehouse, "mine")}
    assert found["Which is it?"].boxes == (Box(10, 20, 30, 40),) and not found["And then?"].boxes
    assert grade(found["Which is it?"], "left").score == 1
    assert found["Which is it?"].answer_kind is AnswerKind.TEXT
    again = brought(warehouse, file, columns)
    assert (again.added, again.already_there) == (1, 2), "a target makes no other question"


def test_a_target_is_not_for_answers_that_are_boxes() -> None:
    with pytest.raises(ImportProblem, match="target is not for answers that are boxes"):
        Columns.parsed("question=q,image=i,box=b,target=t")
    with pytest.raises(ImportProblem, match="target is not for answers that are boxes"):
        Columns.parsed("question=q,image=i,answer=b,target=t", kind=AnswerKind.BOX)
