"""What SQL says of trees is what the code says: values, pairs, prompts and draws, row for row."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from curation.traces.preferences import preference_pairs
from curation.traces.step_values import step_values
from flows.stages.curate import curate_trees
from mcts.config import SearchConfig
from mcts.data import Question
from mcts.tree import Tree
from tests.support import trace_sampling as sampling
from tests.support.grown import COPIES, FORK, grow, think
from tests.support.pass_rate_bands import grpo_prompt
from tests.support.scripted import CONFIG, QUESTION, seeded_teacher
from warehouse.query.read_back import read_traces, read_trees
from warehouse.query.run_query import connect, query
from warehouse.query.sql_guard import check_repeatable
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees, insert_new
from warehouse.tables.rows import image_row, question_row
from warehouse.tables.tree_rows import search_rows

Row = dict[str, Any]
Stored = list[tuple[Tree, Row]]


def questions() -> list[Question]:
    return [
        replace(QUESTION, text=f"Is box {i} left or right?", family=("near", "far")[i % 2])
        for i in range(4)
    ]


def chains(node, purpose, steps, sample):  # type: ignore[no-untyped-def]
    if purpose == "chain":
        return f"{think(50 * sample + 7)}<answer>{('left', 'right')[sample % 3 == 0]}</answer>"
    return seeded_teacher(node, purpose, steps, sample)


def store(warehouse: Warehouse, question: Question, tree_id: str, model: str, **search) -> None:  # type: ignore[no-untyped-def]
    """Grow a tree and commit it with the responses it was grown from."""
    texts: dict[str, str] = {}
    script = search.pop("script", {})

    def teacher(node, purpose, steps, sample):  # type: ignore[no-untyped-def]
        text = script.get((node, purpose, sample)) or chains(node, purpose, steps, sample)
        texts[f"{node}/{purpose}/{sample}"] = text
        return text

    tree = grow({}, teacher, question=question, tree_id=tree_id, **search)
    config: SearchConfig = replace(CONFIG, **search)
    rows = search_rows(tree, config, [], model=model, seed=0)
    responses = [{"response_id": i, "tree_id": tree_id, "text": t} for i, t in texts.items()]
    commit_trees(warehouse, replace(rows, responses=responses), run_id="r")


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = Warehouse(str(tmp_path_factory.mktemp("home")))
    insert_new(warehouse, "images", [image_row(QUESTION.images[0])])
    insert_new(warehouse, "questions", [question_row(q) for q in questions()])
    one, two, three, four = questions()
    store(warehouse, one, "busy", "m", simulations=12)
    store(warehouse, one, "again", "m", simulations=3, wave=2)
    store(warehouse, one, "other-model", "n", simulations=2)
    store(warehouse, two, "fork", "m", simulations=1, children=2, script=FORK)
    store(warehouse, three, "chains", "m", strategy="best-of-n", samples=9)
    store(warehouse, four, "linear", "m", strategy="linear", samples=6)
    store(warehouse, four, "copies", "n", strategy="linear", samples=2, script=COPIES)
    ids = query(warehouse, "SELECT tree_id FROM trees")["tree_id"].to_pylist()
    assert asyncio.run(curate_trees(warehouse, "c", ids)) > 50
    return warehouse


@pytest.fixture(scope="module")
def stored(warehouse: Warehouse) -> Stored:
    """Every tree as it is read back, with its row."""
    ids = query(warehouse, "SELECT tree_id FROM trees")["tree_id"].to_pylist()
    return list(read_trees(warehouse, ids))


def same(rows: list[Row], others: list[Row]) -> None:
    """Equal rows, numbers to nine places."""
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, abs=1e-9, nan_ok=False)


def test_step_values_in_sql_are_those_of_the_code(warehouse: Warehouse, stored: Stored) -> None:
    columns = "node_id, parent_id, depth, visits, value, standard_error, advantage"
    from_sql = query(
        warehouse, f"SELECT tree_id, {columns}, thought FROM step_values ORDER BY tree_id, node_id"
    ).to_pylist()
    made = [
        {
            **{name: getattr(value, name) for name in ("tree_id", *columns.split(", "))},
            "thought": value.step.thought,
        }
        for tree, _ in stored
        for value in step_values(tree)
    ]
    assert len(from_sql) > 50
    same(from_sql, sorted(made, key=lambda row: (row["tree_id"], row["node_id"])))
    errors = [row["standard_error"] for row in from_sql]
    assert None in errors and any(errors), "both kinds are among them"


def test_pairs_in_sql_are_those_of_the_code(warehouse: Warehouse, stored: Stored) -> None:
    found = query(
        warehouse, "FROM preference_pairs ORDER BY tree_id, parent_id, rejected_node_id"
    ).to_pylist()
    made = []
    for tree, row in stored:
        for pair in preference_pairs(tree):
            sides = {"chosen": pair.chosen, "rejected": pair.rejected}
            made.append(
                {
                    "tree_id": pair.tree_id, "question_id": pair.question_id, "model": row["model"],
                    "parent_id": pair.parent_id, "margin": pair.margin,
                    "standard_error": pair.standard_error, "least_visits": pair.least_visits,
                    **{
                        f"{name}_{field}": getattr(side, field)
                        for name, side in sides.items()
                        for field in ("node_id", "visits", "value", "standard_error")
                    },
                }
            )  # fmt: skip
    made.sort(key=lambda row: (row["tree_id"], row["parent_id"], row["rejected_node_id"]))
    assert len({row["tree_id"] for row in made}) > 3
    same([{k: row[k] for k in made[0]} for row in found], made)
    assert all((row["chosen_thought"] is None) != (row["chosen_answer"] is None) for row in found)


def test_grpo_prompts_in_sql_are_those_of_the_code(warehouse: Warehouse, stored: Stored) -> None:
    found = query(warehouse, "FROM grpo_prompts ORDER BY question_id, model").to_pylist()
    groups: dict[tuple[str, str], list[Tree]] = {}
    for tree, row in stored:
        groups.setdefault((row["question_id"], row["model"]), []).append(tree)
    fields = [
        "question_id",
        "trees",
        "outcomes",
        "right_outcomes",
        "first_steps",
        "pass_rate",
        "band",
    ]
    made = []
    for (_, model), trees in sorted(groups.items()):
        prompt = grpo_prompt(trees)
        assert prompt is not None
        made.append({**{f: getattr(prompt, f) for f in fields}, "model": model})
    assert len(made) == 6
    same([{k: row[k] for k in made[0]} for row in found], made)
    assert {row["family"] for row in found} == {"near", "far"}


def test_draws_in_sql_are_those_of_the_code(warehouse: Warehouse, stored: Stored) -> None:
    found = query(warehouse, "FROM trace_draws ORDER BY trace_id").to_pylist()
    kept = query(warehouse, "SELECT trace_id FROM kept_traces")["trace_id"].to_pylist()
    assert sorted(kept) == [row["trace_id"] for row in found] and len(found) > 20
    trees = {tree.tree_id: tree for tree, _ in stored}
    traces = {trace.trace_id: trace for trace, _ in read_traces(warehouse, kept)}
    for row in found:
        trace = traces[row["trace_id"]]
        assert trace.tree_id is not None
        trust = sampling.trust(trace, trees[trace.tree_id])
        assert row["trust"] == pytest.approx(trust, abs=1e-12)
        assert row["draw"] == pytest.approx(sampling.draw(trace.trace_id, trust), rel=1e-9)
        assert row["band"] in ("hard", "medium", "easy", "solved")
    assert {row["kind"] for row in found} == {"direct", "corrected"}


def test_a_choice_by_draw_can_be_published_and_is_the_codes_own(warehouse: Warehouse) -> None:
    statement = (
        "SELECT trace_id FROM trace_draws "
        "QUALIFY row_number() OVER (PARTITION BY question_id ORDER BY draw, trace_id) <= 3"
    )
    chosen = sorted(query(warehouse, statement)["trace_id"].to_pylist())
    rows = query(warehouse, "FROM trace_draws").to_pylist()
    fields = ["trace_id", "question_id", "family", "band", "trust"]
    candidates = [sampling.Candidate(**{f: row[f] for f in fields}) for row in rows]
    assert chosen == sampling.select(candidates, per_question=3)
    with connect(warehouse) as con:
        check_repeatable(con, statement)  # QueryError if a version could not be cut with it
