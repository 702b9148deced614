"""Import: what is good goes in once, what is bad is named, and nothing half is ever written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as PILImage

from mcts.data import AnswerKind
from tests.support.sat_files import SAT2, bomb, picture, rejects, row, sat2
from warehouse.query.run_query import query
from warehouse.sources import tasks
from warehouse.sources.find_files import split_in_name
from warehouse.sources.importing import ImportProblem, import_questions
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import image_key
from warehouse.tables.rows import read_image, read_questions


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "home"))


def test_good_rows_go_in_and_bad_rows_are_named(warehouse: Warehouse, tmp_path: Path) -> None:
    """The two bad rows of the project's own promise: a truncated image, an impossible answer."""
    rows = [row(seed) for seed in range(8)]
    rows[2] = row(2, picture(2)[:-30])
    rows[5] = row(5, correct_answer="behind")
    file = sat2(tmp_path / "train-00000-of-00001.parquet", rows)
    report = import_questions(warehouse, "sat2", file)
    assert (report.read, report.added, report.already_there, report.rejected) == (8, 6, 0, 2)
    truncated, impossible = rejects(report.rejects_path)
    assert truncated[:3] == (file.name, 3, "images")
    assert truncated[3].startswith("image 1 can't be decoded: ")
    assert impossible == (
        file.name, 6, "answer", "the answer 'behind' is none of the choices: left, right"
    )  # fmt: skip
    again = import_questions(warehouse, "sat2", file)
    assert (again.read, again.added, again.already_there, again.rejected) == (8, 0, 6, 2)
    assert again.rejects_path == report.rejects_path
    counts = "SELECT (SELECT count(*) FROM questions) q, (SELECT count(*) FROM images) i"
    assert query(warehouse, counts).to_pylist() == [{"q": 6, "i": 6}]
    assert len(warehouse.objects.keys("images")) == 6


def test_a_question_reads_back_as_it_was_published(warehouse: Warehouse, tmp_path: Path) -> None:
    first, second = picture(1), picture(2, "JPEG", (80, 60))
    two = row(0, first, second, question="<image><image>What moved?\nLook {closely}.")
    file = sat2(tmp_path / "SAT_val.parquet", [two])
    import_questions(warehouse, "sat2", file, source="SAT-v2", licence="MIT")
    (question,) = read_questions(warehouse, "sat2")
    assert question.text == "What moved?\nLook {closely}."
    assert question.answer_kind is AnswerKind.TEXT
    assert (question.choices, question.answers) == (("left", "right"), ("left",))
    assert (question.split, question.family) == ("validation", "left_right")
    assert (question.source, question.licence) == ("SAT-v2", "MIT")
    assert [(i.width, i.height) for i in question.images] == [(56, 42), (80, 60)]
    assert [read_image(warehouse, i.image_id) for i in question.images] == [first, second]
    (stored,) = query(warehouse, "FROM questions").to_pylist()
    assert (stored["source_file"], stored["source_row"]) == ("SAT_val.parquet", 1)
    runs = query(warehouse, "SELECT kind, task FROM runs WHERE run_id = "
                 f"'{stored['run_id']}'").to_pylist()  # fmt: skip
    assert runs == [{"kind": "import", "task": "sat2"}]


def test_an_image_on_its_side_is_measured_upright(warehouse: Warehouse, tmp_path: Path) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = 6
    sideways = picture(1, "JPEG", (80, 60), exif=exif)
    import_questions(warehouse, "sat2", sat2(tmp_path / "train.parquet", [row(0, sideways)]))
    stored = query(warehouse, "SELECT width, height, orientation, format FROM images").to_pylist()
    assert stored == [{"width": 60, "height": 80, "orientation": 6, "format": "JPEG"}]


def test_sat_v1_is_reported_apart_by_its_columns(warehouse: Warehouse, tmp_path: Path) -> None:
    schema = pa.schema([("image_bytes", pa.list_(pa.binary())), *list(SAT2)[1:]])
    rows = [{**row(), "image_bytes": [picture(1), picture(2)]}]
    for r in rows:
        del r["images"]
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "SAT_train_1.parquet")
    assert import_questions(warehouse, "sat2", tmp_path / "SAT_train_1.parquet").added == 1
    (question,) = read_questions(warehouse)
    assert (len(question.images), question.split) == (2, "train")


BAD_ROWS: list[tuple[dict[str, Any], str, str]] = [
    (row(0, b"not a picture"), "images", "image 1 can't be decoded"),
    (row(0, b""), "images", "image 1 has no bytes"),
    (row(0, picture(0, "JPEG")[:-40]), "images", "image 1 can't be decoded"),
    (row(0, picture(1), picture(0)[:200]), "images", "image 2 can't be decoded"),
    (row(0, bomb(60_000, 60_000)), "images", "image 1"),
    (row(0, bomb(9_000, 9_000)), "images", "image 1 is 9000x9000 pixels large"),
    (row(0, picture(0, size=(402, 2))), "images", "image 1 is 402x2 pixels: too narrow"),
    (row(0, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "images", "image 1 can't be"),
    (row(0, images=[]), "images", "there is no image"),
    (row(0, images=None), "images", "there is no image"),
    (row(0, question=" \n"), "question", "the question is empty"),
    (row(0, question=None), "question", "the question is empty"),
    (row(0, question="<image> "), "question", "the question is empty"),
    (row(0, correct_answer=None), "correct_answer", "there is no answer"),
    (row(0, correct_answer="  "), "correct_answer", "there is no answer"),
    (row(0, correct_answer="lef"), "answer", "the answer 'lef' is none of the choices"),
    (row(0, answers=["left", "left ", "up"]), "answer", "the answer 'left' is more than one of"),
]


@pytest.mark.parametrize(("bad", "field", "reason"), BAD_ROWS)
def test_a_bad_row_is_rejected_with_its_reason(
    warehouse: Warehouse, tmp_path: Path, bad: dict[str, Any], field: str, reason: str
) -> None:
    file = sat2(tmp_path / "train.parquet", [row(1), bad, row(2)])
    report = import_questions(warehouse, "sat2", file)
    assert (report.added, report.rejected) == (2, 1)
    ((name, number, found_field, found_reason),) = rejects(report.rejects_path)
    assert (name, number, found_field) == ("train.parquet", 2, field)
    assert found_reason.startswith(reason)
    assert "\n" not in found_reason


def test_too_many_rejects_write_nothing(warehouse: Warehouse, tmp_path: Path) -> None:
    rows = [row(s, correct_answer="left" if s % 3 else "up") for s in range(9)]
    file = sat2(tmp_path / "train.parquet", rows)
    with pytest.raises(ImportProblem, match=r"3 of \d rows can't be used, so nothing was imported"):
        import_questions(warehouse, "sat2", file, max_rejects=2)
    bad = sat2(tmp_path / "train-bad.parquet", [row(0, correct_answer="up")])
    with pytest.raises(ImportProblem, match=r"train-bad\.parquet row 1, answer: the answer 'up'"):
        import_questions(warehouse, "sat2", bad)
    many = sat2(tmp_path / "train-many.parquet", [row(s, correct_answer="up") for s in range(11)]
                + [row(s) for s in range(30)])  # fmt: skip
    with pytest.raises(ImportProblem, match="11 of 41 rows"):
        import_questions(warehouse, "sat2", many)
    assert not Path(warehouse.root).exists()
    assert import_questions(warehouse, "sat2", file, max_rejects=3).added == 6


def test_a_file_that_is_not_what_it_should_be_is_named(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    lacking = tmp_path / "train-lacking.parquet"
    pq.write_table(pa.table({"images": [[{"bytes": b""}]], "question": ["?"]}), lacking)
    broken = tmp_path / "train-broken.parquet"
    broken.write_bytes(b"PAR1 nothing")
    half = tmp_path / "train-half.parquet"
    half.write_bytes(
        sat2(tmp_path / "train.parquet", [row(s) for s in range(40)]).read_bytes()[:-9]
    )
    typed = tmp_path / "train-typed.parquet"
    pq.write_table(pa.table({**{n: ["x"] for n in SAT2.names}}), typed)
    unnamed = sat2(tmp_path / "questions.parquet", [row()])
    (tmp_path / "empty").mkdir()
    for path, message in [
        (lacking, "train-lacking.parquet is not SAT: it has no column answers, correct_answer, "),
        (broken, "train-broken.parquet can't be read as Parquet"),
        (half, "train-half.parquet can't be read as Parquet"),
        (typed, "train-typed.parquet: column images should be a list of images, not string"),
        (unnamed, "questions.parquet: its name has no split"),
        (tmp_path / "none.parquet", "none.parquet does not exist"),
        (tmp_path / "empty", "empty holds no .arrow, .jsonl, .parquet file"),
        (Path(__file__), "sat2 is read from .arrow, .jsonl, .parquet"),
    ]:
        with pytest.raises(ImportProblem, match=message.replace(".", r"\.")):
            import_questions(warehouse, "sat2", path)
    with pytest.raises(ImportProblem, match="no task named 'sat3'; there are: ai2d, blink, "):
        import_questions(warehouse, "sat3", lacking)
    assert not Path(warehouse.root).exists()


def test_a_folder_of_shards_is_read_by_split(warehouse: Warehouse, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    sat2(data / "train-00000-of-00002.parquet", [row(0), row(1)])
    sat2(data / "train-00001-of-00002.parquet", [row(2), row(0)])
    sat2(data / "test-00000-of-00001.parquet", [row(3)])
    report = import_questions(warehouse, "sat2", data, split="train")
    assert (report.read, report.added, report.already_there) == (4, 3, 1)
    import_questions(warehouse, "sat2", data)
    splits = query(warehouse, "SELECT split, count(*) n FROM questions GROUP BY 1 ORDER BY 1")
    assert splits.to_pylist() == [{"split": "test", "n": 1}, {"split": "train", "n": 3}]
    with pytest.raises(ImportProblem, match="holds no file of the split val"):
        import_questions(warehouse, "sat2", data, split="val")
    assert import_questions(warehouse, "sat2", data, limit=1).read == 1


def test_a_folder_is_read_whole_and_what_is_missing_is_told(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    (data / "a").mkdir(parents=True)
    (data / "b").mkdir()
    elsewhere.mkdir()
    sat2(data / "a" / "train-00000-of-00002.parquet", [row(0)])
    sat2(data / "b" / "train-00000-of-00001.parquet", [row(1), row(1, correct_answer="up")])
    sat2(elsewhere / "train.parquet", [row(2)])
    (data / "linked").symlink_to(elsewhere)
    (data / "again").symlink_to(data / "a")
    (elsewhere / "loop").symlink_to(data)
    (data / "train-lost.parquet").symlink_to(tmp_path / "nowhere")
    report = import_questions(warehouse, "sat2", data)
    assert (report.added, report.rejected) == (3, 1)
    assert rejects(report.rejects_path)[0][:2] == ("b/train-00000-of-00001.parquet", 2)
    found = query(warehouse, "SELECT source_file FROM questions ORDER BY 1")["source_file"]
    assert found.to_pylist() == [
        "a/train-00000-of-00002.parquet", "b/train-00000-of-00001.parquet", "linked/train.parquet",
    ]  # fmt: skip
    lost, missing = report.remarks
    assert lost.endswith("train-lost.parquet: it is a link to a file that is not there")
    assert missing == (
        f"1 of 2 files are there of a set in {data / 'a'}: missing are train-00001-of-00002.parquet"
    )


def test_a_warehouse_within_the_folder_is_no_data(tmp_path: Path) -> None:
    sat2(tmp_path / "train.parquet", [row(0)])
    warehouse = Warehouse(str(tmp_path / "vigorl-data"))
    assert import_questions(warehouse, "sat2", tmp_path).added == 1
    again = import_questions(warehouse, "sat2", tmp_path)
    assert (again.read, again.already_there, again.remarks) == (1, 1, ())


@pytest.mark.parametrize("name", ["train.parquet", "train.jsonl", "train.arrow"])
@pytest.mark.parametrize(
    ("data", "clause"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a git LFS pointer",
        ),
        (b"<!DOCTYPE html>\n<html>", "an HTML page"),
    ],
)
def test_what_was_downloaded_in_place_of_a_file_is_told(
    data: bytes, clause: str, name: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImportProblem, match=rf"{name} is {clause}"):
        import_questions(warehouse, "sat2", tmp_path, image_root=tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        pa.dictionary(pa.int32(), pa.string()),
        pa.string_view(),
        pa.large_string(),
    ],
)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_sat_is_read_in_every_type_that_holds_the_same(
    suffix: str, kind: pa.DataType, warehouse: Warehouse, tmp_path: Path
) -> None:
    table = pa.Table.from_pylist([row(0)], SAT2)
    for name in ("question", "correct_answer", "question_type"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table[name].cast(kind))
    at = table.schema.get_field_index("answers")
    table = table.set_column(at, "answers", table["answers"].cast(pa.list_(pa.string(), 2)))
    empty = pa.table({name: pa.array([], pa.null()) for name in SAT2.names})
    for number, shard in enumerate((table, empty)):
        file = tmp_path / f"train-{number:05}-of-00002{suffix}"
        if suffix == ".parquet":
            pq.write_table(shard, file)
        else:
            with pa.ipc.new_stream(file, shard.schema) as stream:
                stream.write_table(shard)
    assert import_questions(warehouse, "sat2", tmp_path).added == 1


@pytest.mark.parametrize("split", ["../../evil", "a/b", "held out", ".", "x\n"])
def test_a_split_is_a_name(warehouse: Warehouse, tmp_path: Path, split: str) -> None:
    file = sat2(tmp_path / "questions.parquet", [row(0)])
    with pytest.raises(ImportProblem, match="letters, digits and underscores"):
        import_questions(warehouse, "sat2", file, split=split)
    assert import_questions(warehouse, "sat2", file, split="held-out").added == 1


def test_a_split_that_is_nearly_train_is_remarked(warehouse: Warehouse, tmp_path: Path) -> None:
    file = sat2(tmp_path / "questions.parquet", [row(0)])
    (remark,) = import_questions(warehouse, "sat2", file, split="trian").remarks
    assert remark.startswith("trian is an evaluation set, as every split but train")
    for split in ("train", "test", "gate"):
        assert import_questions(warehouse, "sat2", file, split=split).remarks == ()


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00004.parquet", "train"),
        ("SAT_train_15.parquet", "train"),
        ("SAT_val.parquet", "validation"),
        ("rooms-test.parquet", "test"),
        ("validation.jsonl", "validation"),
        ("contest.parquet", None),
        ("train_test.parquet", None),
        ("static.parquet", None),
    ],
)
def test_the_split_is_read_from_the_name(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


def test_boxes_beside_a_parquet_become_the_images_objects(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    file = sat2(tmp_path / "rooms-train.parquet", [row(0), row(1)])
    boxes = [{"label": "cup", "x1": 1.0, "y1": 2.0, "x2": 30.5, "y2": 40.0}]
    beside = pa.table(
        {"image_sha256": [hashlib.sha256(picture(0)).hexdigest()], "objects": [boxes]}
    )
    pq.write_table(beside, tmp_path / "rooms-train.objects.parquet")
    import_questions(warehouse, "sat2", tmp_path)  # the file of boxes is not read as questions
    found = query(warehouse, "SELECT objects FROM images ORDER BY objects IS NULL").to_pylist()
    assert found == [{"objects": boxes}, {"objects": None}]
    assert file.exists()


def test_a_file_of_boxes_without_its_columns_is_refused_by_name(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    sat2(tmp_path / "rooms-train.parquet", [row(0)])
    pq.write_table(pa.table({"objects": [[]]}), tmp_path / "rooms-train.objects.parquet")
    with pytest.raises(ImportProblem, match=r"train\.objects\.parquet has no column image_sha256"):
        import_questions(warehouse, "sat2", tmp_path)


def test_an_interrupted_import_is_finished_by_the_next(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the pictures and before the rows, nothing is visible; the next run adds all."""
    from warehouse.sources import importing

    file = sat2(tmp_path / "train.parquet", [row(s) for s in range(5)])
    with monkeypatch.context() as broken:
        broken.setattr(importing, "insert_new", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            import_questions(warehouse, "sat2", file)
    assert query(warehouse, "FROM questions").num_rows == 0
    assert import_questions(warehouse, "sat2", file).added == 5
    for question in read_questions(warehouse):
        assert warehouse.objects.exists(image_key(question.images[0].image_id))


def test_progress_is_reported_and_repeated_rows_count_once(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    file = sat2(tmp_path / "train.parquet", [row(s % 7) for s in range(100)])
    reported: list[tuple[str, int]] = []
    report = import_questions(
        warehouse, "sat2", file, progress=lambda stage, done: reported.append((stage, done))
    )
    assert (report.added, report.already_there) == (7, 93)
    assert reported[0] == ("checking", 32)
    assert reported[-1] == ("storing", 100)


def test_every_task_says_what_it_reads() -> None:
    assert {"sat2", "vstar", "web-grounding", "web-action"} <= set(tasks())
    for name, task in tasks().items():
        assert task.name == name
        assert task.title
        assert all(suffix.startswith(".") for suffix in task.formats)
