"""What is hashed is what is stored; what a benchmark counts by is part of a question's id."""

from __future__ import annotations

import itertools
import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.scores.benchmark_metrics import pope
from mcts.data import (
    AnswerKind,
    Box,
    Image,
    Observation,
    Origin,
    Point,
    Question,
    Step,
    Trace,
    Verdict,
    ZoomCall,
    content_id,
)
from tests.support import benchmark_files as files
from tests.support.project import Project, thinking
from warehouse.query.read_back import read_traces
from warehouse.sources import tasks
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new, scan
from warehouse.tables.rows import (
    image_from,
    image_row,
    question_from,
    question_row,
    read_questions,
    trace_from,
    trace_rows,
    verdict_from,
    verdict_row,
)
from warehouse.tables.schema import TABLES
from warehouse.versions.bundle import ROWS, question_of, trace_of

# ---- any value a noun can have ---------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = st.text(string.ascii_lowercase, min_size=1, max_size=6)
NUMBER = st.one_of(
    st.integers(-3, 9000), st.floats(-3, 9000), st.sampled_from([48, 48.0, 0, -0.0, 0.1 + 0.2])
)
PLACE = st.integers(0, 3)
POINT = st.builds(Point, NUMBER, NUMBER, PLACE)
BOX = st.builds(Box, NUMBER, NUMBER, NUMBER, NUMBER, PLACE, TEXT)
IMAGE = st.builds(
    Image, st.text("0123456789abcdef", min_size=64, max_size=64),
    st.integers(1, 9000), st.integers(1, 9000),
)  # fmt: skip
QUESTION = st.builds(
    Question,
    task=NAME,
    text=TEXT,
    images=st.lists(IMAGE, min_size=1, max_size=3, unique_by=lambda i: i.image_id).map(tuple),
    answer_kind=st.sampled_from(AnswerKind),
    choices=st.lists(TEXT, max_size=3).map(tuple),
    answers=st.lists(TEXT, max_size=3).map(tuple),
    boxes=st.lists(BOX, max_size=3).map(tuple),
    points=st.lists(POINT, max_size=3).map(tuple),
    tolerance=NUMBER.map(abs),
    split=NAME,
    family=TEXT,
    part_of=TEXT,
    source=TEXT,
    licence=TEXT,
    counted_as=TEXT,
)
CROP = st.builds(Box, NUMBER, NUMBER, NUMBER, NUMBER, PLACE)
SIDE = st.integers(0, 999)
SEEN = st.builds(
    Observation, st.none() | CROP, SIDE, SIDE, st.booleans(), st.none() | PLACE, TEXT, st.booleans()
)
CALL = st.builds(ZoomCall, st.none() | POINT, PLACE, st.none() | BOX, TEXT, TEXT)
STEP = st.builds(
    Step, TEXT, st.lists(POINT, max_size=3).map(tuple), st.none() | CALL, st.none() | SEEN
)
ORIGIN = st.builds(Origin, st.none() | PLACE, st.none() | PLACE, st.none() | NAME)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    steps = tuple(draw(st.lists(STEP, max_size=4)))
    origins = tuple(draw(ORIGIN) for _ in steps) if draw(st.booleans()) else ()
    if draw(st.booleans()):
        origins = tuple(Origin(None) for _ in steps)
    return Trace(
        question_id=draw(NAME),
        steps=steps,
        answer=draw(st.none() | TEXT),
        reward=draw(st.none() | st.sampled_from([0, 1, 0.5])),
        kind=draw(NAME),
        origin=draw(NAME),
        tree_id=draw(st.none() | NAME),
        origins=origins,
        wrong_from=draw(st.none() | PLACE),
        turns_back_at=draw(st.none() | PLACE),
        problems=tuple(draw(st.lists(NAME, max_size=2))),
        maker=draw(TEXT),
    )


def through(table: str, rows: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Rows written in a table's schema and read again."""
    schema = TABLES[table].schema
    path = folder / f"{table}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return list(pq.read_table(path).to_pylist())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@given(st.lists(QUESTION, min_size=1, max_size=4))
def test_a_question_is_read_back_as_it_was_written(folder: Path, questions: list[Question]) -> None:
    images = {image.image_id: image for q in questions for image in q.images}
    stored = through("images", [image_row(image) for image in images.values()], folder)
    read = {row["image_id"]: image_from(row) for row in stored}
    assert read == images
    rows = through("questions", [question_row(q) for q in questions], folder)
    for question, row in zip(questions, rows, strict=True):
        assert question_from(row, images) == question
        assert question_from(row, images).question_id == question.question_id == row["question_id"]


@given(traces())
def test_a_trace_and_its_steps_are_read_back_as_they_were_written(
    folder: Path, trace: Trace
) -> None:
    row, steps = trace_rows(trace, task="t", text="x")
    (row,) = through("traces", [row], folder)
    read = trace_from(row, through("steps", steps, folder) if steps else [])
    assert read.trace_id == trace.trace_id == row["trace_id"]
    assert read == trace


@given(st.builds(Verdict, NAME, st.booleans(), TEXT, st.none() | NUMBER))
def test_a_verdict_is_read_back_as_it_was_written(folder: Path, verdict: Verdict) -> None:
    (row,) = through("verdicts", [verdict_row("t", verdict, 1)], folder)
    assert verdict_from(row) == verdict


@given(QUESTION, traces())
def test_a_dataset_version_holds_the_question_and_the_steps_as_they_were(
    folder: Path, question: Question, trace: Trace
) -> None:
    stored, steps = question_row(question), trace_rows(trace, task="t", text="x")[1]
    row = {
        **dict.fromkeys(ROWS.names),
        **{name: stored[name] for name in ROWS.names if name in stored},
        "question": stored["text"],
        **{f"gold_{name}": stored[name] for name in ("answers", "boxes", "points")},
        "image_sizes": [{"width": i.width, "height": i.height} for i in question.images],
        "steps": [{k: s[k] for k in ("thought", "points", "call", "observation")} for s in steps],
        "answer": trace.answer, "kind": trace.kind, "origin": trace.origin,
    }  # fmt: skip
    path = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([row], ROWS), path)
    (read,) = pq.read_table(path).to_pylist()
    assert question_of(read) == question
    assert question_of(read).question_id == question.question_id
    assert (trace_of(read).steps, trace_of(read).answer) == (trace.steps, trace.answer)


@given(NUMBER, NUMBER, NUMBER, NUMBER)
def test_f1_a_whole_number_is_the_same_place_however_it_is_written(
    x1: float, y1: float, x2: float, y2: float
) -> None:
    image = Image("0" * 64, 9, 9)
    ints = [int(n) for n in (x1, y1, x2, y2)]
    question = Question("t", "?", (image,), AnswerKind.BOX, boxes=(Box(*ints),))
    assert question.question_id == replace(question, boxes=(Box(*map(float, ints)),)).question_id
    assert type(Point(ints[0], ints[1]).x) is type(Box(*ints).y2) is float


def test_ids_of_questions_that_were_right_have_not_changed() -> None:
    image = Image("ab" * 32, 64, 48)
    words = Question("sat2", "Is it?", (image,), AnswerKind.TEXT, ("yes", "no"), ("yes",))
    box = Question("web", "It?", (image,), AnswerKind.BOX, boxes=(Box(1.0, 2.5, 3.0, 4.0),))
    assert words.question_id == content_id(
        "sat2", "train", "Is it?", ["ab" * 32], "text", ["yes", "no"], [["yes"], [], [], 0.0]
    )
    assert box.question_id == content_id(
        "web", "train", "It?", ["ab" * 32], "point_in_box", [],
        [[], [[1.0, 2.5, 3.0, 4.0, 0]], [], 0.0],
    )  # fmt: skip
    assert replace(words, family="x", part_of="y").question_id == words.question_id


# ---- F1: a build of polygons, and a warehouse that older code has filled ----------------------

POLYGON = {"category": "context", "question": "Point at free space.", "img": "a.png",
           "answer": "[(0.1,0.1),(0.3,0.1),(0.3,0.3)]"}  # fmt: skip


def test_f1_trees_of_polygon_rows_find_their_question(project: Project) -> None:
    project.image("a.png")
    path = project.write("a.json", json.dumps([POLYGON]))
    assert project.run("import", "robospatial", path).status == 0
    answer = thinking("<think>The floor is at {p}.</think>", end="(250, 150)")
    ran, asked = project.build(answer, "--split", "test", task="robospatial")
    assert ran.status == 0, ran.text
    again, more = project.build(answer, "--split", "test", task="robospatial")
    assert (again.status, more) == (0, []), again.text
    assert project.run("curate", "robospatial").status == 0
    assert asked
    assert project.sql(
        "SELECT count(*) AS n FROM trees ANTI JOIN questions USING (question_id)"
    ) == [{"n": 0}]
    assert project.run("gallery", "--out", project.folder / "g").status == 0


def test_f1_ids_of_older_code_still_lead_to_their_question(tmp_path: Path) -> None:
    """Older code stored the hash of integers, and asked under the hash of what it read back."""
    warehouse = Warehouse(str(tmp_path))
    image = Image("0" * 64, 640, 480)
    question = Question("robospatial", "?", (image,), AnswerKind.BOX, split="test",
                        boxes=(Box(1.5, 48, 2.5, 49),))  # fmt: skip
    old_id = content_id("robospatial", "test", "?", ["0" * 64], "point_in_box", [],
                        [[], [[1.5, 48, 2.5, 49, 0]], [], 0.0])  # fmt: skip
    assert old_id != question.question_id
    insert_new(warehouse, "images", [{**image_row(image), "run_id": "r"}])
    old = {**question_row(question), "question_id": old_id, "run_id": "r"}
    insert_new(warehouse, "questions", [old])
    for asked in ([question.question_id], [old_id], None):
        assert list(read_questions(warehouse, question_ids=asked)) == [question]
    assert list(read_questions(warehouse, question_ids=["none"])) == []
    # Imported again, the question is there under both ids, and is one question.
    insert_new(warehouse, "questions", [{**question_row(question), "run_id": "r"}])
    assert list(read_questions(warehouse, "robospatial")) == [question]
    assert list(read_questions(warehouse, question_ids=[question.question_id])) == [question]


def test_f1_a_polygon_of_older_code_is_imported_once(tmp_path: Path) -> None:
    """Its boxes were a pixel row each; imported again it is that question, with the id it has."""
    files.image_file(tmp_path, "a.png", 1)
    row = {"category": "context", "question": "Point at free space.", "img": "a.png"}
    row["answer"] = "[(0.1, 0.1), (0.8, 0.1), (0.8, 0.8)]"
    path = files.lines(tmp_path / "a.jsonl", [row])
    new, old = Warehouse(str(tmp_path / "new")), Warehouse(str(tmp_path / "old"))
    assert import_questions(new, "robospatial", path).added == 1
    (question,) = read_questions(new, "robospatial")
    stored = replace(question, boxes=tuple(Box(6, y, 7 + y, y + 1) for y in range(6, 30)))
    assert stored.question_id != question.question_id
    images = scan(new, "images").drop_columns(["created_at"])
    insert_new(old, "images", images.to_pylist())
    insert_new(old, "questions", [{**question_row(stored), "question_id": "0" * 32, "run_id": "r"}])
    for _ in range(2):
        report = import_questions(old, "robospatial", path)
        assert (report.added, report.already_there) == (0, 1)
        assert list(read_questions(old, "robospatial")) == [stored]
        ids = set(scan(old, "questions")["question_id"].to_pylist())
        assert ids == {"0" * 32, stored.question_id}
    # Another question about that image is another question.
    path = files.lines(tmp_path / "b.jsonl", [{**row, "question": "Point at the floor."}])
    assert import_questions(old, "robospatial", path).added == 1


# ---- F3: what a benchmark counts by ----------------------------------------------------------

CATEGORIES = ("random", "popular", "adversarial")
LINES = [
    {"question_id": 1, "image": "a.png", "text": "Is there a dog in the image?", "label": "yes"},
    {"question_id": 2, "image": "a.png", "text": "Is there a cat in the image?", "label": "no"},
]


def pope_files(folder: Path) -> dict[str, Path]:
    files.image_file(folder, "a.png", 1)
    return {name: files.lines(folder / f"coco_pope_{name}.json", LINES) for name in CATEGORIES}


@pytest.mark.parametrize("order", list(itertools.permutations(CATEGORIES)), ids="-".join)
def test_f3_each_category_counts_its_positives_in_any_order_of_imports(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    warehouse, paths = Warehouse(str(tmp_path / "home")), pope_files(tmp_path)
    for name in order:
        assert import_questions(warehouse, "pope", paths[name]).added == 2
        assert import_questions(warehouse, "pope", paths[name]).added == 0
    questions = list(read_questions(warehouse, "pope"))
    counted = sorted((q.family, q.answers[0]) for q in questions)
    assert counted == sorted((name, label) for name in CATEGORIES for label in ("no", "yes"))
    figures = pope(questions, ["yes"] * len(questions))
    assert figures["f1"] == pytest.approx(2 / 3)


def test_f3_in_a_warehouse_of_older_code_nothing_counts_twice(tmp_path: Path) -> None:
    """Its rows keep their ids, which traces and predictions name; only what it lost is added."""
    warehouse, paths = Warehouse(str(tmp_path / "home")), pope_files(tmp_path)
    new = Warehouse(str(tmp_path / "new"))
    for name in CATEGORIES:
        import_questions(new, "pope", paths[name])
    old_ids: dict[str, dict[str, Any]] = {}
    for name in CATEGORIES:  # as it was imported then: the first of equal ones stays
        for question in read_questions(new, "pope", family=name):
            old = replace(question, counted_as="")
            old_ids.setdefault(old.question_id, {**question_row(old), "run_id": "r"})
    images = scan(new, "images").to_pylist()
    insert_new(
        warehouse, "images", [{k: v for k, v in row.items() if k != "created_at"} for row in images]
    )
    insert_new(warehouse, "questions", list(old_ids.values()))
    added = [import_questions(warehouse, "pope", paths[name]).added for name in CATEGORIES]
    assert added == [0, 2, 2]
    questions = list(read_questions(warehouse, "pope"))
    assert len(questions) == 6
    assert set(old_ids) <= {q.question_id for q in questions}
    assert [import_questions(warehouse, "pope", paths[name]).added for name in CATEGORIES] == [
        0
    ] * 3


def test_we_math_counts_a_step_in_each_problem_that_has_it(tmp_path: Path) -> None:
    rows = [
        {**row, "question": "Same?", "image_path": "i.png"}
        for problem in ("2steps_1", "2steps_2")
        for row in files.wemath_rows(problem)
    ]
    files.image_file(tmp_path, "i.png", 1)
    warehouse = Warehouse(str(tmp_path / "home"))
    report = import_questions(warehouse, "wemath", files.write_json(tmp_path / "w.json", rows))
    assert report.added == 6


@pytest.mark.parametrize("name", ["blink", "mmmu", "mathvision", "screenspot", "vstar-bench"])
def test_what_counts_by_family_counts_equal_questions_in_each(name: str) -> None:
    task = tasks()[name]
    assert set(task.metrics) & {"by_family", "by_halves"}
    assert task.counts_by == ("family",)


def test_training_sources_keep_their_ids() -> None:
    for name in ("sat2", "vstar", "web-grounding", "web-action"):
        assert tasks()[name].counts_by == ()


def test_read_traces_gives_equal_values(project: Project) -> None:
    project.ask([{}], thinking("<think>The cup is at {p}.</think>"))
    warehouse = Warehouse(str(project.home))
    ids = [row["trace_id"] for row in project.sql("SELECT trace_id FROM traces")]
    found = read_traces(warehouse, ids)
    assert [trace.trace_id for trace, _ in found] == ids
    assert found
