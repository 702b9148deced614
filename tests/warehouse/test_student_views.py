"""What SQL says of questions to a student: rates, their intervals, what each is good for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mcts.data import Question
from tests.mutants.__main__ import wilson
from tests.support.grown import grow, think
from tests.support.scripted import CONFIG, QUESTION
from warehouse.query.read_back import (
    read_prefixes,
    read_student_rates,
    read_usable_prefixes,
)
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees, insert_new
from warehouse.tables.rows import image_row, question_row
from warehouse.tables.tree_rows import search_rows

QUESTIONS = [replace(QUESTION, text=f"Is box {i} left or right?", split="train") for i in range(5)]
"""The student never solves the first, though searches do; sometimes the second; always the third,
as searches do not. The fourth it was not asked, the fifth nobody solves."""
IDS = [question.question_id for question in QUESTIONS]


def evaluation(name: str, model: str = "s@1", **changed: Any) -> dict[str, Any]:
    row = {"evaluation_id": name, "model_id": model, "benchmark": "sat2/train", "prompt": "nano"}
    return {**row, "temperature": 1.0, "samples": 4, "control": None, **changed}


def answers(name: str, *right: int, of: int = 4) -> list[dict[str, Any]]:
    """So many right answers to each question in order; none of those left out."""
    return [
        {
            "evaluation_id": name,
            "question_id": q,
            "sample": i,
            "score": float(i < n),
            "trace_id": "t",
        }
        for q, n in zip(IDS, right, strict=False)
        for i in range(of)
        if n >= 0
    ]


def forked(made: Warehouse, question: Question, wrong: int) -> None:
    """Search a question: of two answers behind each of two first steps so many are wrong."""
    ends = [("left", "right")[n < wrong] for n in range(4)]
    script = {("", "expand", i): think(100 * (i + 1)) for i in range(2)}
    for n, end in enumerate(ends):
        script[(str(n // 2), "rollout", n % 2)] = f"{think(300 + 9 * n)}<answer>{end}</answer>"
    tree_id = f"fork-{question.question_id[:8]}"
    tree = grow(script, question=question, tree_id=tree_id, simulations=1, children=2)
    commit_trees(made, search_rows(tree, CONFIG, [], model="teacher", seed=0), run_id="r")


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    made = Warehouse(str(tmp_path_factory.mktemp("home")))
    insert_new(made, "images", [image_row(QUESTION.images[0])])
    insert_new(made, "questions", [question_row(question) for question in QUESTIONS])
    for question, wrong in zip(QUESTIONS, (1, 1, 1, 1, 4), strict=True):

        def teacher(node: str, purpose: str, steps: Any, sample: int, wrong: int = wrong) -> str:
            answer = ("left", "right")[sample < wrong]
            return f"{think(50 * sample + 7)}<answer>{answer}</answer>"

        tree = grow(
            {}, teacher, question=question, tree_id=question.question_id[:8],
            strategy="best-of-n", samples=4,
        )  # fmt: skip
        config = replace(CONFIG, strategy="best-of-n", samples=4)
        commit_trees(made, search_rows(tree, config, [], model="teacher", seed=0), run_id="r")
    for question, wrong in ((QUESTIONS[0], 1), (QUESTIONS[2], 3)):
        forked(made, question, wrong)
    evaluations = {
        "old": (evaluation("old"), answers("old", 4, 4, 4)),
        "greedy": (evaluation("greedy", temperature=0.0), answers("greedy", 1, 1, 1, 1, of=1)),
        "blank": (evaluation("blank", control="blank"), answers("blank", 4, 4, 4, 4)),
        "other": (evaluation("other", "s@1", prompt="zoom"), answers("other", 4, 0, 0)),
        "new": (evaluation("new"), answers("new", 0, 1, 4, -1, 0)),
        "single": (evaluation("single", samples=1), answers("single", 1, 1, 0, -1, 1, of=1)),
        "only one": (
            evaluation("only one", prompt="ask", samples=1), answers("only one", 1, of=1),
        ),
    }  # fmt: skip
    for row, predictions in evaluations.values():
        insert_new(made, "predictions", predictions)
        insert_new(made, "evaluations", [row])
    return made


def test_a_student_is_measured_by_its_newest_samples_with_their_interval(
    warehouse: Warehouse,
) -> None:
    sql = "FROM student_difficulty WHERE prompt = 'nano'"
    found = {row["question_id"]: row for row in query(warehouse, sql).to_pylist()}
    assert set(found) == {IDS[0], IDS[1], IDS[2], IDS[4]}
    assert [found[IDS[i]]["solved"] for i in (0, 1, 2, 4)] == [0, 1, 4, 0]
    assert {row["evaluation_id"] for row in found.values()} == {"new"}
    assert [found[IDS[i]]["band"] for i in (0, 1, 2)] == ["unsolved", "medium", "solved"]
    for row in found.values():
        assert (row["low"], row["high"]) == pytest.approx(
            wilson(row["solved"], row["asked"]), abs=1e-4
        )
        assert row["measured_at"] is not None and row["asked"] == 4
    single = query(warehouse, "FROM student_difficulty WHERE prompt = 'ask'").to_pylist()
    assert [(row["question_id"], row["asked"]) for row in single] == [(IDS[0], 1)]


def test_a_question_says_whose_rate_it_has_and_what_it_is_for(warehouse: Warehouse) -> None:
    sql = "FROM student_prompts WHERE prompt = 'nano' ORDER BY question_id"
    found = {row["question_id"]: row for row in query(warehouse, sql).to_pylist()}
    shown = [
        tuple(found[i][k] for k in ("measured_by", "band", "pass_rate", "good_for")) for i in IDS
    ]
    assert shown == [
        ("model", "unsolved", 0.0, "right prefixes"),
        ("model", "medium", 0.25, "groups"),
        ("model", "solved", 1.0, "wrong prefixes"),
        ("search", "easy", 0.75, "groups"),
        ("model", "unsolved", 0.0, "nothing"),
    ]
    rates = read_student_rates(warehouse, IDS[1:4], "s@1", "nano")
    assert [at is not None for *_, at in rates.values()] == [
        by == "model" for _, _, by, _ in rates.values()
    ]
    assert {name: rate[:3] for name, rate in rates.items()} == {
        IDS[1]: (0.25, "medium", "model"), IDS[2]: (1.0, "solved", "model"),
        IDS[3]: (0.75, "easy", "search"),
    }  # fmt: skip
    assert read_student_rates(warehouse, IDS, "never measured", "nano") == {}


def behind(name: str, tree: str, node: int, right: int) -> list[dict[str, Any]]:
    return [
        {**row, "question_id": IDS[0], "prefix_tree": tree, "prefix_node": node}
        for row in answers(name, right)
    ]


def test_prefixes_are_right_where_the_student_fails_and_wrong_where_it_does_not(
    warehouse: Warehouse,
) -> None:
    first, second = (f"fork-{IDS[i][:8]}" for i in (0, 2))
    insert_new(warehouse, "predictions", behind("behind", first, 1, 3))
    insert_new(warehouse, "evaluations", [evaluation("behind", control="prefixes")])
    sql = "FROM prefix_starts WHERE prompt = 'nano' ORDER BY kind, place"
    found = query(warehouse, sql).to_pylist()
    shown = [
        tuple(row[k] for k in ("tree_id", "node_id", "kind", "value", "solved", "asked"))
        for row in found
    ]
    assert shown == [
        (first, 1, "right", 0.5, 3, 4),
        (first, 2, "right", 1.0, None, None),
        (second, 1, "wrong", 0.0, None, None),
    ]
    by_question = read_prefixes(warehouse, IDS, "s@1", "nano", "solved IS NOT NULL")
    assert list(by_question) == [IDS[0]]
    (prefix,) = by_question[IDS[0]]
    assert (prefix.tree_id, prefix.node_id, prefix.solved, prefix.asked) == (first, 1, 3, 4)
    assert [step.point and step.point.x for step in prefix.steps] == [100.0]
    usable = read_usable_prefixes(warehouse, IDS, "s@1", "nano", zooms=False)
    assert usable == by_question, "three of four were right"
    assert read_usable_prefixes(warehouse, IDS[1:], "s@1", "nano", zooms=False) == {}
    assert read_usable_prefixes(warehouse, IDS, "s@1", "nano", zooms=True) == {}
    assert read_usable_prefixes(warehouse, IDS, "s@1", "other", zooms=False) == {}
    rates = query(warehouse, "FROM student_difficulty WHERE evaluation_id = 'behind'")
    assert rates.num_rows == 0, "from a prefix on is not the question"


def test_only_what_is_right_often_enough_and_measured_last_by_samples_is_begun_with(
    warehouse: Warehouse,
) -> None:
    tree = f"fork-{IDS[2][:8]}"  # never right behind its first step, sometimes behind the second
    for name, model, right in (("never", "n@1", 0), ("mostly", "e@1", 3)):
        insert_new(warehouse, "predictions", answers(name, -1, -1, right))
        insert_new(warehouse, "evaluations", [evaluation(name, model)])
    measured = (("a", 3, 1.0), ("b", 1, 1.0), ("c", 4, 0.0))
    for name, right, temperature in measured:
        found = [{**row, "question_id": IDS[2]} for row in behind(name, tree, 2, right)]
        insert_new(warehouse, "predictions", found)
        row = evaluation(name, "n@1", control="prefixes", temperature=temperature)
        insert_new(warehouse, "evaluations", [row])
    sql = "FROM prefix_starts WHERE model IN ('n@1', 'e@1') ORDER BY model DESC, node_id"
    rows = query(warehouse, sql).to_pylist()
    shown = [tuple(row[k] for k in ("model", "node_id", "kind", "value", "solved")) for row in rows]
    assert shown == [("n@1", 2, "right", 0.5, 1), ("e@1", 1, "wrong", 0.0, None)]


def test_a_rate_is_in_the_last_band_that_it_reaches(warehouse: Warehouse) -> None:
    rates = "(VALUES (0.0), (0.01), (0.24), (0.25), (0.74), (0.75), (0.99), (1.0)) AS rates (rate)"
    found = query(
        warehouse,
        f"SELECT band FROM {rates} ASOF JOIN pass_rate_bands ON rate >= at_least ORDER BY rate",
    )
    assert found["band"].to_pylist() == [
        "unsolved", "hard", "hard", "medium", "medium", "easy", "easy", "solved",
    ]  # fmt: skip
