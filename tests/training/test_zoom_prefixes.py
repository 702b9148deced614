"""Beginnings of searches that zoom: measured, and written as turns to go on from."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mcts.coordinates import Frame
from mcts.data import Observation, Step, ZoomCall
from mcts.zoom.observe import ZoomProblem
from mcts.zoom.turns import read_turn
from tests.flows.test_cli import run
from training.examples import task_prompts
from training.grpo import zooming
from training.recipes import GrpoRecipe, load_recipe
from training.run_training import prepare_student
from training.students import open_student
from training.zoom_rows import DialogueProblem, Dialogues
from warehouse.query.read_back import PrefixStart, read_prefixes
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_questions


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A few trees of nano-zoom, which was measured on their questions and their beginnings."""
    home = tmp_path_factory.mktemp("prefixes")
    few = ("--limit", 10)
    searched = ("build", "vstar", "--teacher", "nano-zoom", "--simulations", 5, *few)
    assert run(*searched, home=home) == 0
    measured = ("evaluate", "nano-zoom", "vstar", "--pass-at", 2, *few)
    assert run(*measured, home=home) == 0
    assert run(*measured, "--prefixes", 3, home=home) == 0
    return Warehouse(str(home))


def prefixes_of(warehouse: Warehouse, condition: str) -> dict[str, list[PrefixStart]]:
    sql = "SELECT DISTINCT model, prompt FROM prefix_starts WHERE prompt = 'nano-zoom'"
    (by,) = query(warehouse, sql).to_pylist()
    ids = [question.question_id for question in read_questions(warehouse, "vstar", split="train")]
    return read_prefixes(warehouse, ids, by["model"], by["prompt"], condition)


@pytest.mark.slow
def test_a_student_that_zooms_is_measured_behind_crops_of_its_trees(made: Warehouse) -> None:
    assert prefixes_of(made, "NOT zooms") == {}
    found = prefixes_of(made, "zooms AND asked = 2")
    assert found and all(p.steps[-1].observation for some in found.values() for p in some)
    answers = query(
        made,
        "SELECT p.trace_id, prefix_tree, prefix_node, n_steps, depth FROM predictions p "
        "JOIN traces USING (trace_id) JOIN nodes n ON n.tree_id = prefix_tree "
        "AND node_id = prefix_node WHERE prefix_node IS NOT NULL",
    ).to_pylist()
    assert answers and all(row["n_steps"] >= row["depth"] for row in answers)
    for row in answers:
        begun = "SELECT thought FROM nodes n JOIN (SELECT path AS whole FROM nodes WHERE tree_id = "
        begun += f"'{row['prefix_tree']}' AND node_id = {row['prefix_node']}) ON starts_with("
        begun += f"whole || '.', path || '.') WHERE tree_id = '{row['prefix_tree']}' "
        begun += "AND thought IS NOT NULL ORDER BY depth"
        steps = f"SELECT thought FROM steps WHERE trace_id = '{row['trace_id']}' ORDER BY step"
        wanted, told = (query(made, sql)["thought"].to_pylist() for sql in (begun, steps))
        assert told[: len(wanted)] == wanted, "the answer begins with it"
    assert query(made, "FROM student_difficulty WHERE asked <> 2").num_rows == 0


@pytest.mark.slow
def test_its_turns_bring_the_crops_again_that_the_search_was_shown(made: Warehouse) -> None:
    questions = {q.question_id: q for q in read_questions(made, "vstar", split="train")}
    found = prefixes_of(made, "zooms")
    assert sum(map(len, found.values())) > 2
    with open_student(made, "nano-zoom") as student:
        dialogues = Dialogues(student, 1)
        zoom = student.zoom
        assert zoom is not None
        for question_id, prefixes in found.items():
            question = questions[question_id]
            frame = Frame.of(student.space, question)
            for prefix in prefixes:
                steps: tuple[Step, ...] = ()
                for text in dialogues.turns_before(question, prefix.steps):
                    steps = (*steps, *read_turn(text, frame, zoom, steps).steps)
                assert [step.thought for step in steps] == [step.thought for step in prefix.steps]
                shown = [step.observation and step.observation.crop for step in steps]
                assert shown == [
                    step.observation and step.observation.crop for step in prefix.steps
                ]
        with pytest.raises(DialogueProblem, match="end before a call"):
            dialogues.turns_before(question, (Step("I see a sign"),))
        (first, *_), *_ = found.values()
        begun = first.steps[-1]
        assert begun.observation is not None and begun.observation.crop is not None
        other = replace(begun.observation, crop=replace(begun.observation.crop, x1=0.0))
        with pytest.raises(DialogueProblem, match="other crops"):
            dialogues.turns_before(question, (replace(begun, observation=other),))


@pytest.mark.slow
def test_grpo_asks_behind_prefixes_where_the_student_was_right_sometimes(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = prefixes_of(made, "zooms")
    refused = Observation(None, 0, 0, problem=ZoomProblem.MALFORMED)
    given: list[str] = []

    def read(warehouse: Warehouse, ids: object, *asked: str) -> dict[str, list[PrefixStart]]:
        given.append(asked[-1])
        return {
            name: [
                replace(prefixes[0], solved=1, asked=2),
                replace(prefixes[0], solved=1, asked=2, steps=(
                    replace(prefixes[0].steps[-1], call=ZoomCall(None), observation=refused),
                )),
            ]
            for name, prefixes in found.items()
        }  # fmt: skip

    monkeypatch.setattr("warehouse.query.read_back.read_prefixes", read)
    recipe = load_recipe(
        "nano-zoom-grpo",
        ["prefixes=2", "pass_rates=student", "bands=[unsolved, hard, medium, easy, solved]"],
    )
    assert isinstance(recipe, GrpoRecipe)
    with open_student(made, "nano-zoom") as opened:
        student = zooming(prepare_student(opened, recipe), recipe, "vstar")
        prompts = task_prompts(made, "vstar", "train", student, recipe)
    assert given == ["zooms AND solved BETWEEN 1 AND asked - 1"]
    begun = [row for row in prompts.rows if row["prefix"]]
    assert {row["question_id"] for row in begun} == set(found)
    assert all(
        json.loads(row["prefix"])[-1].endswith("</tool_call>") and row["zoom"] for row in begun
    )
    assert prompts.left_out["prefixes in which a call showed nothing"] == len(found)
