"""Which training questions must not be asked in training, and that a training leaves them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.test_cli import run
from tests.support.fixtures import unlike_rows, write_sat
from tests.support.trained import grpo
from training.examples import Examples, task_prompts
from training.run_training import prepare_student
from training.students import open_student
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import read_questions
from warehouse.versions.revocations import revoke
from warehouse.versions.unfit_questions import KNOWN, REVOKED, unfit_questions

ALL = "bands=[unsolved, hard, medium, easy, solved]"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Five training questions about images of their own; the first is in a test set as well."""
    rows, home = unlike_rows(5), tmp_path / "home"
    for name, some, split in (("train", rows, "train"), ("val", rows[:1], "test")):
        file = write_sat(tmp_path / f"SAT_{name}.parquet", some)
        assert run("import", "sat2", file, "--split", split, home=home) == 0
    return home


def asked(home: Path) -> Examples:
    recipe, warehouse = grpo("trackers=[]", ALL), Warehouse(str(home))
    with open_student(warehouse, "nano-base") as found:
        student = prepare_student(found, recipe)
        return task_prompts(warehouse, "sat2", "train", student, recipe)


def test_what_an_evaluation_set_knows_or_was_revoked_is_told(home: Path) -> None:
    warehouse = Warehouse(str(home))
    ids = {q.question_id: q for q in read_questions(warehouse, "sat2", split="train")}
    assert len(ids) == 5
    (known,) = unfit_questions(warehouse, ids)
    assert unfit_questions(warehouse, ids) == {known: KNOWN}
    by_question, by_image, *fit = (name for name in sorted(ids) if name != known)
    revoke(warehouse, "question", by_question, "wrong")
    revoke(warehouse, "image", ids[by_image].images[0].image_id, "not ours")
    found = unfit_questions(warehouse, ids)
    assert found == {known: KNOWN, by_question: REVOKED, by_image: REVOKED}
    assert unfit_questions(warehouse, fit) == {} and len(fit) == 2
    prompts = asked(home)
    assert sorted(row["question_id"] for row in prompts.rows) == sorted(fit)
    assert prompts.left_out == {KNOWN: 1, REVOKED: 2}


def test_a_revoked_source_or_run_takes_its_questions_along(home: Path) -> None:
    warehouse = Warehouse(str(home))
    ids = [q.question_id for q in read_questions(warehouse, "sat2", split="train")]
    sql = "SELECT DISTINCT run_id FROM questions WHERE split = 'train'"
    (run_id,) = query(warehouse, sql)["run_id"].to_pylist()
    revoke(warehouse, "run", run_id, "mistaken")
    assert set(unfit_questions(warehouse, ids).values()) == {REVOKED}
    assert len(unfit_questions(warehouse, ids)) == 5


def test_an_image_of_a_revoked_source_takes_others_questions_along(home: Path) -> None:
    """As it takes their traces out of versions."""
    warehouse = Warehouse(str(home))
    (question, *_) = read_questions(warehouse, "sat2", split="test")
    (known,) = (
        q.question_id for q in read_questions(warehouse, "sat2", split="train")
        if q.images == question.images
    )  # fmt: skip
    columns = "source, image_ids, task, split, text, answer_kind, answers"
    (row, *_) = query(warehouse, f"SELECT {columns} FROM questions").to_pylist()
    images = [image.image_id for image in question.images]
    other = {**row, "question_id": "other", "source": "mine", "image_ids": images, "split": "train"}
    insert_new(warehouse, "questions", [other])
    (source,) = {q.source for q in read_questions(warehouse, "sat2", split="test")}
    revoke(warehouse, "source", source, "not ours")
    assert unfit_questions(warehouse, ["other", known]) == {"other": REVOKED, known: REVOKED}
