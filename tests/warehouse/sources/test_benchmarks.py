"""Every benchmark in every form it is published in: imported, graded, searched and measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.filters.decontaminate import BENCHMARKS
from curation.grading.grade import grade
from curation.scores.benchmark_metrics import published_metrics
from flows.cli.interrupts import run
from flows.settings import BuildSettings, EvaluateSettings
from flows.stages import build as stages
from flows.stages.evaluate import evaluate
from mcts.data import AnswerKind, Question
from tests.support import benchmark_files
from tests.support.benchmark_files import Example
from tests.support.stub_server import StubServer
from tests.support.visual_search_files import SEARCH_EXAMPLES
from warehouse.query.run_query import query
from warehouse.sources import Draft, Reject, tasks
from warehouse.sources.find_files import find_readers
from warehouse.sources.importing import import_questions
from warehouse.sources.reading.accept_drafts import Accepted, Checker
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_questions

EXAMPLES = (*benchmark_files.EXAMPLES, *SEARCH_EXAMPLES)
LEAVES_ARROW = {"gqa", "hr-bench-4k", "hr-bench-8k"}
"""Tasks whose files are several, or are known by their names."""
IDS = [f"{one.task}-{one.write.__name__}" for one in EXAMPLES]


def read(example: Example, folder: Path) -> tuple[list[Question], list[Reject]]:
    """What import makes of a published file, without a warehouse."""
    task = tasks()[example.task]
    checker = Checker(task.name)
    # A training source's file says no split; evaluation sets have their own.
    found = find_readers(task.name, example.write(folder), None if task.split else "train")
    outcomes = [
        checker.check(draft, split) if isinstance(draft, Draft) else draft
        for read_file, split in found
        for draft in read_file()
    ]
    good = [one.question for one in outcomes if isinstance(one, Accepted)]
    return good, [one for one in outcomes if isinstance(one, Reject)]


@pytest.fixture(autouse=True)
def published(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_a_published_file_becomes_questions_that_grade(example: Example, tmp_path: Path) -> None:
    questions, rejected = read(example, tmp_path / "published")
    assert (len(questions), rejected) == (example.count, [])
    question = next(q for q in questions if q.text.startswith(example.text))
    assert (question.split, question.family) == (example.split, example.family)
    assert (question.choices, question.boxes) == (example.choices, example.boxes)
    assert len(question.images) == example.n_images
    assert grade(question, example.gold).score == 1
    assert grade(question, example.wrong).score == 0


def test_what_is_published_as_parquet_is_read_as_datasets_saves_it(tmp_path: Path) -> None:
    read_so = set()
    for number, example in enumerate(EXAMPLES):
        (tmp_path / f"{number}").mkdir()
        source = example.write(tmp_path / f"{number}")
        if source.suffix != ".parquet" or example.task in LEAVES_ARROW:
            continue
        saved = tmp_path / f"{number}-saved" / source.with_suffix(".arrow").name
        saved.parent.mkdir()
        table = pq.read_table(source)
        with pa.ipc.new_stream(saved, table.schema) as stream:
            stream.write_table(table)
        (saved.parent / "state.json").write_text('{"_data_files": []}')

        def with_arrow(_: Path, folder: Path = saved.parent) -> Path:
            return folder

        questions, rejected = read(replace(example, write=with_arrow), tmp_path)
        assert (len(questions), rejected) == (example.count, []), example.task
        assert example.boxes in {question.boxes for question in questions}, example.task
        read_so.add(example.task)
    assert read_so >= {"ai2d", "pope", "robospatial", "screenspot", "vstar-bench"}


@pytest.mark.parametrize("task", ["sat2", "vstar", "web-grounding", "web-action"])
def test_a_training_source_is_read_as_datasets_saves_it(task: str, tmp_path: Path) -> None:
    sample = tasks()[task].sample
    assert sample is not None
    table = pq.read_table(sample.files["train"]).slice(0, 2)
    with pa.ipc.new_stream(tmp_path / "train.arrow", table.schema) as stream:
        stream.write_table(table)
    ((read_file, split),) = find_readers(task, tmp_path)
    drafts = list(read_file())
    assert split == "train" and len(drafts) == 2
    assert all(isinstance(Checker(task).check(one, split), Accepted) for one in drafts)  # type: ignore[arg-type]


def test_what_is_made_to_measure_with_trains_nobody_whatever_its_files_call_it() -> None:
    measures = {name for name, task in tasks().items() if task.split not in ("", "train")}
    assert measures - BENCHMARKS == {"gqa", "visual-probe"}, "which have training sets as well"
    assert measures >= BENCHMARKS


def test_every_task_has_a_published_file_here() -> None:
    reference = {
        "sat2",
        "vstar",
    }  # tests/warehouse/sources/test_import.py and tests/warehouse/sources/test_import_reference.py
    own = {name for name, task in tasks().items() if task.formats}
    assert own - reference == {example.task for example in EXAMPLES}


@pytest.mark.parametrize("task", sorted({example.task for example in EXAMPLES}))
def test_every_benchmark_is_imported_searched_and_measured(task: str, tmp_path: Path) -> None:
    example = next(one for one in EXAMPLES if one.task == task)
    warehouse = Warehouse(str(tmp_path / "home"))
    split = None if tasks()[task].split else "train"
    path = example.write(tmp_path / "published")
    report = import_questions(warehouse, task, path, split=split)
    assert (report.added, report.rejected) == (example.count, 0)
    questions = list(read_questions(warehouse, task))
    assert {question.split for question in questions} == {example.split}
    with StubServer() as server:
        settings = BuildSettings.checked(
            task=task, split=example.split, teacher=server.url, space="qwen3-vl", limit=1,
            simulations=1, home=warehouse.root,
        )  # fmt: skip
        run(stages.build(settings))
        if example.split != "train":
            arguments = {"model": server.url, "benchmark": task, "space": "qwen3-vl"}
            outcome = run(evaluate(EvaluateSettings.checked(**arguments, home=warehouse.root)))
            assert outcome.report.benchmark == f"{task}/{example.split}"
            assert outcome.report.figures["all"]["accuracy"].n == len(questions)
            assert ("accuracy" in outcome.report.metrics) is bool(tasks()[task].metrics)
    (tree,) = query(warehouse, "SELECT status, n_rollouts FROM trees").to_pylist()
    assert tree["status"] == "complete"
    (graded,) = query(warehouse, "SELECT count(reward) AS n FROM rollouts").to_pylist()
    assert graded["n"] == tree["n_rollouts"] > 0
    # The stub knows no answer, so the metrics are computed from gold answers, and from none.
    figures = published_metrics(tasks()[task].metrics, questions, [golden(q) for q in questions])
    assert figures["accuracy"] == 1
    assert published_metrics((), questions, [None] * len(questions))["accuracy"] == 0


def golden(question: Question) -> str:
    """A right answer, of any kind."""
    if question.answer_kind is AnswerKind.BOX:
        box = question.boxes[0]
        return f"({(box.x1 + box.x2) / 2}, {(box.y1 + box.y2) / 2})"
    return question.answers[0]


def test_realworldqa_tells_questions_of_yes_or_no_from_those_with_options(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path / "home"))
    import_questions(warehouse, "realworldqa", benchmark_files.realworldqa(tmp_path))
    families = {q.choices: q.family for q in read_questions(warehouse, "realworldqa")}
    assert families[("yes", "no")] == families[()] == "short"
    assert set(families.values()) == {"short", "options"}
