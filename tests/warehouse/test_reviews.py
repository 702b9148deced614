"""People's reviews: the newest counts, the majority decides, and nothing is lost or told twice."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from curation.filters.review import Review
from tests.mutants.__main__ import wilson
from warehouse.query.run_query import query
from warehouse.reviews import complete_verdicts, review_queue, reviews_by, store_review
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_traces, insert_new

TRACES = [f"t{i}" for i in range(6)]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """Six traces of three questions; a filter keeps all but the last, another all of them."""
    made = Warehouse(str(tmp_path))
    traces = [
        {"trace_id": name, "question_id": f"q{i // 2}", "tree_id": f"tree{i}", "task": "sat2",
         "kind": "direct", "origin": "search", "linearizer": "linearize/1"}
        for i, name in enumerate(TRACES)
    ]  # fmt: skip
    verdicts = [
        {"trace_id": name, "filter": one, "version": 3, "keep": (name, one) != ("t5", "strict")}
        for name in TRACES
        for one in ("strict", "lax")
    ]
    commit_traces(made, traces, steps=[], verdicts=verdicts, run_id="r")
    return made


def say(warehouse: Warehouse, trace_id: str, reviewer: str, verdict: str, **more) -> bool:
    number = query(warehouse, "SELECT count(*) AS n FROM reviews")["n"][0].as_py()
    review = Review(trace_id, reviewer, verdict, **more)  # type: ignore[arg-type]
    return store_review(warehouse, review, f"review{number}", "run")


def column(warehouse: Warehouse, sql: str) -> list:
    return query(warehouse, sql).column(0).to_pylist()


def kept(warehouse: Warehouse) -> list[str]:
    return column(warehouse, "SELECT trace_id FROM kept_traces ORDER BY 1")


def test_a_trace_that_more_find_wrong_is_no_longer_kept(warehouse):
    say(warehouse, "t0", "ada", "wrong", comment="points at the other ball")
    say(warehouse, "t1", "ada", "right")
    assert kept(warehouse) == ["t1", "t2", "t3", "t4"]
    say(warehouse, "t0", "ben", "right")
    assert kept(warehouse) == ["t0", "t1", "t2", "t3", "t4"]
    say(warehouse, "t0", "cy", "wrong")
    assert kept(warehouse) == ["t1", "t2", "t3", "t4"]


def test_the_newest_review_of_a_person_counts_alone(warehouse):
    for verdict in ("wrong", "wrong", "right"):
        say(warehouse, "t0", "ada", verdict)
    assert kept(warehouse)[0] == "t0"
    assert column(warehouse, "SELECT majority FROM reviewed_traces") == ["right"]
    assert column(warehouse, "SELECT say_wrong FROM reviewed_traces") == [0]
    assert column(warehouse, "SELECT count(*) FROM reviews") == [3]


def test_what_people_drop_is_a_filter_of_the_funnel(warehouse):
    say(warehouse, "t0", "ada", "wrong")
    say(warehouse, "t1", "ada", "right")
    rows = query(warehouse, "FROM verdict_funnel").to_pylist()
    assert rows == [
        {"filter": "review", "kept": 1, "dropped": 1, "dropped_by_it_alone": 1},
        {"filter": "strict", "kept": 5, "dropped": 1, "dropped_by_it_alone": 1},
        {"filter": "lax", "kept": 6, "dropped": 0, "dropped_by_it_alone": 0},
    ]


def test_a_review_of_a_step_drops_nothing(warehouse):
    say(warehouse, "t0", "ada", "wrong", step=1)
    assert "t0" in kept(warehouse)
    assert column(warehouse, "SELECT count(*) FROM reviewed_traces") == [0]
    assert reviews_by(warehouse, "ada", TRACES) == [
        {"trace_id": "t0", "step": 1, "verdict": "wrong", "comment": ""}
    ]


def test_a_review_that_is_sent_twice_is_stored_once(warehouse):
    review = Review("t0", "ada", "wrong")
    assert store_review(warehouse, review, "same", "run")
    assert not store_review(warehouse, review, "same", "run")
    assert column(warehouse, "SELECT version FROM verdicts WHERE filter = 'review'") == [1]


def test_a_verdict_that_a_killed_process_left_out_is_completed(warehouse):
    row = {"review_id": "r0", "trace_id": "t0", "reviewer": "ada", "verdict": "wrong"}
    insert_new(warehouse, "reviews", [row])  # and killed here, before the verdict
    assert "t0" in kept(warehouse)
    assert complete_verdicts(warehouse, "run") == 1
    assert "t0" not in kept(warehouse)
    assert complete_verdicts(warehouse, "run") == 0


def test_people_who_review_one_trace_at_once_lose_nothing(warehouse):
    people = [f"p{i}" for i in range(5)]

    def one(name: str) -> bool:
        return store_review(warehouse, Review("t0", name, "wrong"), f"review of {name}", "run")

    with ThreadPoolExecutor(len(people)) as pool:
        assert all(pool.map(one, people))
    complete_verdicts(warehouse, "run")
    newest = "SELECT reason FROM latest_verdicts WHERE filter = 'review'"
    assert column(warehouse, newest) == ["wrong, says p0; p1; p2; p3; p4"]


def queue(warehouse: Warehouse, reviewer: str = "ada", **changed) -> Sequence[str]:
    asked = {"task": "sat2", "order": "doubt", "limit": 99, **changed}
    return review_queue(warehouse, reviewer, **asked)


def test_the_most_doubtful_trace_of_each_question_comes_first(warehouse):
    trees = [{"tree_id": f"tree{i}", "root_value": v} for i, v in enumerate((0.9, 0.5, 1, 0.7, 0))]
    insert_new(warehouse, "trees", trees)
    steps = [("t2", True), ("t2", False), ("t3", True), ("t3", None)]
    rows = [
        {"trace_id": name, "step": i, "grounded": value} for i, (name, value) in enumerate(steps)
    ]
    scores = {"trace_id": "t4", "step": 0, "score": "grounding", "method": "m", "value": 0.75}
    insert_new(warehouse, "step_scores", [scores])
    insert_new(warehouse, "steps", [row | {"commit_id": commit_of(warehouse)} for row in rows])
    doubts = query(warehouse, "SELECT trace_id, doubt FROM review_queue ORDER BY 1").to_pylist()
    expected = {"t0": 0.36, "t1": 1.0, "t2": 0.5, "t3": 0.84, "t4": 0.25}
    assert {row["trace_id"]: pytest.approx(row["doubt"]) for row in doubts} == expected
    assert queue(warehouse) == ["t1", "t3", "t4", "t2", "t0"]
    assert queue(warehouse, limit=2) == ["t1", "t3"]
    assert queue(warehouse, task="another") == []


def commit_of(warehouse: Warehouse) -> str:
    return column(warehouse, "SELECT DISTINCT commit_id FROM traces")[0]


def test_nobody_is_asked_again_what_they_reviewed(warehouse):
    say(warehouse, "t1", "ada", "unsure")
    say(warehouse, "t2", "ada", "wrong", step=0)
    assert sorted(queue(warehouse)) == ["t0", "t2", "t3", "t4"]
    assert sorted(queue(warehouse, "ben")) == ["t0", "t1", "t2", "t3", "t4"]
    assert queue(warehouse, order="random") == queue(warehouse, order="random")
    assert sorted(queue(warehouse, order="random", task=None)) == ["t0", "t2", "t3", "t4"]


def test_agreement_is_told_with_what_chance_alone_gives(warehouse):
    for name, ada, ben in (
        ("t0", "right", "right"),
        ("t1", "right", "wrong"),
        ("t2", "wrong", "wrong"),
        ("t3", "right", "right"),
    ):
        say(warehouse, name, "ada", ada)
        say(warehouse, name, "ben", ben)
    say(warehouse, "t4", "ada", "right")
    (row,) = query(warehouse, "FROM reviewer_agreement").to_pylist()
    # Right by both 3/4 and 2/4, wrong 1/4 and 2/4: a half agrees by chance.
    assert row == {
        "reviewer_a": "ada", "reviewer_b": "ben", "traces": 4, "agreement": 0.75, "kappa": 0.5,
    }  # fmt: skip


def test_two_who_always_say_the_same_one_thing_have_no_kappa(warehouse):
    for name in ("ada", "ben"):
        say(warehouse, "t0", name, "right")
    assert column(warehouse, "SELECT kappa FROM reviewer_agreement") == [None]


def test_a_filter_is_as_precise_as_people_agree_with_it(warehouse):
    for name, verdict in zip(TRACES, ("right", "right", "wrong", "unsure"), strict=False):
        say(warehouse, name, "ada", verdict)
    say(warehouse, "t5", "ada", "wrong")
    rows = query(warehouse, "FROM filter_precision").to_pylist()
    told = {(row["filter"], row["keep"]): row for row in rows}
    assert {name: (row["agreed"], row["reviewed"]) for name, row in told.items()} == {
        ("lax", True): (2, 4),
        ("strict", True): (2, 3),
        ("strict", False): (1, 1),
    }
    strict = told["strict", True]
    assert strict["share"] == pytest.approx(2 / 3)
    assert (strict["low"], strict["high"]) == pytest.approx(wilson(2, 3, 1.959964))
