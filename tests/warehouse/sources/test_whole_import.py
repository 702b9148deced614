"""What the rows of an import say together: how answers are read, and the boxes of its images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.fixtures import unlike_rows, write_sat
from tests.support.sat_files import picture
from warehouse.query.run_query import query
from warehouse.sources.importing import ImportProblem, ImportReport, import_questions
from warehouse.sources.reading.columns import Columns
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_objects, read_questions

COLUMNS = "question=q,image=img,answer=a,choices=ch"


class Imports:
    """Rows that are written as JSON lines beside one image and imported."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.warehouse = folder, Warehouse(str(folder / "home"))
        (folder / "data").mkdir()
        (folder / "data" / "a.png").write_bytes(picture(1, size=(640, 480)))

    def add(self, *files: list[dict[str, Any]], columns: str = COLUMNS) -> ImportReport:
        for i, rows in enumerate(files):
            path = self.folder / "data" / f"train-{i:05}-of-{len(files):05}.jsonl"
            lines = [json.dumps({"img": "a.png", **row}) for row in rows]
            path.write_text("\n".join(lines))
        return import_questions(
            self.warehouse, "mine", self.folder / "data", split="train",
            columns=Columns.parsed(columns),
        )  # fmt: skip

    def answers(self) -> dict[str, str]:
        return {q.text: q.answers[0] for q in read_questions(self.warehouse)}

    def objects(self) -> Any:
        (boxes,) = query(self.warehouse, "SELECT objects FROM images")["objects"].to_pylist()
        return boxes


@pytest.fixture
def imports(tmp_path: Path) -> Imports:
    return Imports(tmp_path)


CUPS = {"q": "How many cups?", "a": "2", "ch": ["4", "2", "1", "3"]}
FORKS = {"q": "How many forks?", "a": "3", "ch": ["10", "20", "30", "40"]}
WHICH = {"q": "Which?", "a": "0", "ch": ["red", "blue"]}


def test_shards_are_read_as_one_file_is(imports: Imports, tmp_path: Path) -> None:
    """The forks say that answers are indexes, wherever they are."""
    imports.add([CUPS], [FORKS, WHICH])
    (tmp_path / "whole").mkdir()
    whole = Imports(tmp_path / "whole")
    whole.add([CUPS, FORKS, WHICH])
    assert imports.answers() == whole.answers()
    assert imports.answers()["How many cups?"] == "1"


def test_a_key_that_one_shard_lacks_is_null_there(imports: Imports) -> None:
    report = imports.add(
        [{"q": "Is it?", "a": "yes"}], [{"q": "Where?", "a": "left", "ch": ["left", "right"]}]
    )
    assert (report.added, report.rejected) == (2, 0)


def test_indexes_that_count_from_one_are_refused_and_no_answer_is_shifted(
    imports: Imports,
) -> None:
    colours = ["red", "green", "blue", "white"]
    rows = [{"q": f"Which {i}?", "a": i % 4 + 1, "ch": colours} for i in range(40)]
    rows[3]["a"] = 4
    with pytest.raises(ImportProblem, match=r"count choices from 1 .*: say count_from=1"):
        imports.add(rows)
    assert not list(read_questions(imports.warehouse))
    imports.add(rows, columns=f"{COLUMNS},count_from=1")
    assert imports.answers()["Which 0?"] == "red"


def test_indexes_from_zero_with_one_behind_the_last_cost_that_row_alone(imports: Imports) -> None:
    rows = [{"q": f"Which {i}?", "a": i % 3, "ch": ["x", "y", "z"]} for i in range(30)]
    rows[7]["a"] = 3
    report = imports.add(rows)
    assert (report.added, report.rejected) == (29, 1)
    assert imports.answers()["Which 0?"] == "x"


def seen(*boxes: list[float], label: str = "ball") -> list[dict[str, Any]]:
    return [{"label": label, "bbox": box} for box in boxes]


@pytest.mark.parametrize("box", [[300, 200, 100, 80], [10, 20, 90, 4000], [-50, 0, 10, 10]])
def test_a_box_that_is_not_in_its_image_is_refused(imports: Imports, box: list[float]) -> None:
    good = [{"q": f"Is it {i}?", "a": "yes", "o": seen([1, 2, 30, 40])} for i in range(20)]
    bad = {"q": "Is it there?", "a": "yes", "o": seen(box)}
    report = imports.add([*good, bad], columns="question=q,image=img,answer=a,objects=o")
    assert (report.added, report.rejected) == (20, 1)
    assert report.rejects_path is not None
    rejects = Path(imports.warehouse.root, report.rejects_path).read_text()
    assert "objects" in rejects and "of 'ball' is not in 640x480 pixels" in rejects
    assert [box["x1"] for box in imports.objects()] == [1]


def test_boxes_that_a_later_row_knows_are_stored(imports: Imports) -> None:
    columns = "question=q,image=img,answer=a,objects=o"
    silent = {"q": "Is the ball red?", "a": "yes", "o": None}
    cup = {"q": "Is the cup red?", "a": "yes", "o": seen([10, 20, 90, 90], label="cup")}
    ball = {"q": "Is it large?", "a": "yes", "o": seen([1, 2, 30, 40])}
    report = imports.add([silent, cup, ball], columns=columns)
    assert [box["label"] for box in imports.objects()] == ["cup"]
    assert any("different boxes of 1 images: the first row's" in line for line in report.remarks)


def sat_with(tmp_path: Path, objects: Any) -> Path:
    rows = unlike_rows(2)
    file = write_sat(tmp_path / "SAT_train.parquet", rows)
    data = rows[0]["images"][0]
    data = data["bytes"] if isinstance(data, dict) else data
    beside = [{"image_sha256": hashlib.sha256(data).hexdigest(), "objects": objects}]
    pq.write_table(pa.Table.from_pylist(beside), tmp_path / "SAT_train.objects.parquet")
    return file


BOX = {"label": "cat", "x1": 1.0, "y1": 2.0, "x2": 30.0, "y2": 40.0}


@pytest.mark.parametrize(
    "objects", [[{**BOX, "x1": None}], [None, BOX], [{"label": "cat", "bbox": [1, 2, 3, 4]}]]
)
def test_odd_objects_of_sat_are_one_sentence_with_their_row(tmp_path: Path, objects: Any) -> None:
    warehouse = Warehouse(str(tmp_path / "home"))
    with pytest.raises(ImportProblem, match=r"SAT_train\.objects\.parquet row 1: objects: each"):
        import_questions(warehouse, "sat2", sat_with(tmp_path, objects), split="train")


@pytest.mark.parametrize("odd", [{"x2": 5000.0}, {"y1": float("nan")}])
def test_objects_of_sat_outside_their_image_cost_the_row(tmp_path: Path, odd: Any) -> None:
    warehouse = Warehouse(str(tmp_path / "home"))
    report = import_questions(
        warehouse, "sat2", sat_with(tmp_path, [{**BOX, **odd}]), split="train"
    )
    assert (report.added, report.rejected) == (1, 1)
    ids = [image.image_id for q in read_questions(warehouse) for image in q.images]
    assert set(read_objects(warehouse, ids).values()) == {None}


def test_a_row_of_sat_without_options_is_no_question(tmp_path: Path) -> None:
    rows = unlike_rows(3)
    rows[1] = {**rows[1], "answers": []}
    warehouse = Warehouse(str(tmp_path / "home"))
    file = write_sat(tmp_path / "SAT_train.parquet", rows)
    report = import_questions(warehouse, "sat2", file, split="train")
    assert (report.added, report.rejected) == (2, 1)
    assert report.rejects_path is not None
    assert "there are 0 options" in Path(warehouse.root, report.rejects_path).read_text()


def test_details_that_are_stored_otherwise_are_told(imports: Imports) -> None:
    columns = "question=q,image=img,answer=a,target=t,licence=l"
    row = {"q": "Is it?", "a": "yes", "t": [10, 10, 20, 20], "l": ""}
    assert not imports.add([row], columns=columns).remarks
    assert not imports.add([row], columns=columns).remarks, "the same again says nothing"
    corrected = {**row, "t": [300, 300, 400, 400], "l": "CC-BY-4.0"}
    report = imports.add([corrected], columns=columns)
    assert report.added == 0
    assert [line.partition(" and keep")[0] for line in report.remarks] == [
        "1 questions are stored with another licence", "1 questions are stored with another target",
    ]  # fmt: skip
    (question,) = read_questions(imports.warehouse)
    assert question.boxes[0].x1 == 10 and question.licence == ""


def test_a_screenshot_without_its_sites_name_is_of_one_site(tmp_path: Path) -> None:
    """Each site counts its tasks from 0, and would be shown another's page."""
    gold = {"eval_types": ["string_match"], "reference_answers": {"exact_match": "7"}}
    task = {"task_id": 0, "intent": "How many?", "eval": gold}
    rows = [{**task, "sites": [site]} for site in ("classifieds", "reddit", "shopping")]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    for name in ("0.png", "shopping_0.png"):
        (tmp_path / name).write_bytes(picture(len(name), size=(640, 480)))
    warehouse = Warehouse(str(tmp_path / "home"))
    report = import_questions(
        warehouse, "visualwebarena", tmp_path / "test.json", split="test", image_root=tmp_path
    )
    assert (report.added, report.rejected) == (2, 1)
    assert report.rejects_path is not None
    rejects = Path(warehouse.root, report.rejects_path).read_text()
    assert "0.png is taken by task 0 of classifieds; name this one reddit_0.png" in rejects
