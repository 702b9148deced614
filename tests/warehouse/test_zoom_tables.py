"""Trees that look closer in the tables: calls, crops, the tool ledger, the way to the pixels."""

from __future__ import annotations

import asyncio

import pytest

from curation.traces.linearize import linearize
from curation.traces.preferences import preference_pairs
from curation.traces.step_values import step_values
from flows.stages.curate import curate_trees
from flows.stages.lineage_view import load_lineage
from mcts.tree import Tree, flatten
from mcts.zoom.crops import crop_of
from mcts.zoom.rows import call_row
from tests.support.scripted import IMAGE, QUESTION
from tests.support.zoom_trees import LOOKS, ZOOM, look
from tests.warehouse.test_tree_views import store
from warehouse.lineage.lineage import Entity
from warehouse.query.read_back import read_traces, read_trees
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import image_row, question_row

SEARCH = {"zoom": ZOOM, "simulations": 1, "children": 2, "rollouts": 1}
SAME_WORDS = {("", "expand", i): look(x, x, "I look at a sign.") for i, x in enumerate((99, 800))}
AGAIN = {  # a region that was shown already, then the answer
    ("1", "rollout", 0): look(800, 800, "I look again."),
    ("1", "turn", 1): "<think>The sign shows a 7.</think><answer>left</answer>",
}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = Warehouse(str(tmp_path_factory.mktemp("home")))
    sign = {"label": "box", "x1": 780.0, "y1": 780.0, "x2": 820.0, "y2": 820.0}
    insert_new(warehouse, "images", [{**image_row(IMAGE), "objects": [sign]}])
    insert_new(warehouse, "questions", [question_row(QUESTION)])
    store(warehouse, QUESTION, "looks", "m", script=LOOKS, **SEARCH)
    store(warehouse, QUESTION, "words", "m", script={**LOOKS, **SAME_WORDS}, **SEARCH)
    store(warehouse, QUESTION, "again", "n", script={**LOOKS, **AGAIN}, **SEARCH)
    store(warehouse, QUESTION, "plain", "n", simulations=2)
    ids = ["looks", "words", "again", "plain"]
    assert asyncio.run(curate_trees(warehouse, "c", ids)) > 6
    return warehouse


@pytest.fixture(scope="module")
def trees(warehouse: Warehouse) -> dict[str, Tree]:
    found = query(warehouse, "SELECT tree_id FROM trees")["tree_id"].to_pylist()
    return {tree.tree_id: tree for tree, _ in read_trees(warehouse, found)}


def test_a_tree_is_read_back_with_what_it_saw(trees: dict[str, Tree]) -> None:
    assert trees["looks"].zoom == ZOOM and trees["plain"].zoom is None
    _, second = trees["looks"].root.children
    assert second.step is not None and second.step.observation is not None
    assert second.step.observation.view == 1
    assert [s.observation and s.observation.view for s in second.rollouts[0].steps] == [2, None]
    assert linearize(trees["looks"])[-1].kind == "corrected"
    for tree in trees.values():
        assert flatten(tree).nodes[0]["call"] is None


def test_a_trace_is_read_back_with_its_calls_and_crops(
    warehouse: Warehouse, trees: dict[str, Tree]
) -> None:
    for trace in linearize(trees["looks"]):
        ((back, _),) = read_traces(warehouse, [trace.trace_id])
        assert back == trace


def test_from_a_kept_traces_crop_back_to_node_and_image(warehouse: Warehouse) -> None:
    way = """
    SELECT s.crop_id, n.node_id, images.image_id
    FROM kept_traces JOIN steps s USING (trace_id)
    JOIN nodes n ON n.tree_id = kept_traces.tree_id AND n.crop_id = s.crop_id
    JOIN questions USING (question_id)
    JOIN images ON images.image_id = questions.image_ids[s.observation.image + 1]
    WHERE kept_traces.tree_id = 'looks' AND kind = 'zoom'
    """
    (found,) = query(warehouse, way).to_pylist()
    (tree, _), *_ = read_trees(warehouse, ["looks"])
    step = tree.nodes[2].step
    assert step is not None
    assert found == {"crop_id": crop_of(QUESTION, step), "node_id": 2, "image_id": IMAGE.image_id}


def test_values_and_pairs_of_looks_in_sql_are_those_of_the_code(
    warehouse: Warehouse, trees: dict[str, Tree]
) -> None:
    values = query(warehouse, "FROM step_values ORDER BY tree_id, node_id").to_pylist()
    made = [value for name in sorted(trees) for value in step_values(trees[name])]
    assert [(v["tree_id"], v["node_id"], v["value"]) for v in values] == [
        (v.tree_id, v.node_id, v.value) for v in made
    ]
    assert [v["call"] for v in values] == [call_row(v.step.call) for v in made]
    pairs = query(warehouse, "FROM preference_pairs WHERE tree_id <> 'plain' ORDER BY tree_id")
    said = [pair for name in ("again", "looks", "words") for pair in preference_pairs(trees[name])]
    assert len(said) == 3, "also where both looks are told in the same words"
    assert [(p["chosen_call"], p["rejected_call"]) for p in pairs.to_pylist()] == [
        (call_row(p.chosen.steps[0].call), call_row(p.rejected.steps[0].call)) for p in said
    ]


def test_the_ledger_counts_calls_places_failures_and_crops_on_target(warehouse: Warehouse) -> None:
    rows = query(warehouse, "FROM zoom_calls").to_pylist()
    assert [row.pop("model") for row in rows] == ["m", "n"]
    several, once = rows
    assert (several["traces"], several["traces_with_calls"], several["calls"]) == (4, 4, 6)
    assert (several["places_per_trace"], several["failed_calls"]) == (1.5, 0)
    assert (several["known_crops"], several["on_asked"]) == (6, pytest.approx(4 / 6))
    assert once["traces_with_calls"] == 2 and once["traces"] > 2
    assert (once["calls"], once["failed_calls"], once["on_asked"]) == (3, 1, 0.5)


def test_a_failed_call_is_a_row_with_its_problem(warehouse: Warehouse) -> None:
    failed = query(
        warehouse,
        "SELECT call.x AS x, observation.problem AS problem, crop_id FROM steps "
        "WHERE observation IS NOT NULL AND observation.x1 IS NULL",
    ).to_pylist()
    assert {tuple(row.values()) for row in failed} == {(800.0, "shown_already", None)}


def test_lineage_leads_from_a_trace_through_its_crops_to_the_image(
    warehouse: Warehouse, trees: dict[str, Tree]
) -> None:
    (_, trace, _) = linearize(trees["looks"])
    step, closer, _ = trace.steps
    first, second = (crop_of(QUESTION, looked) for looked in (step, closer))
    view = load_lineage(warehouse, trace.trace_id)
    image, node = Entity("image", (IMAGE.image_id,)), Entity("node", ("looks/2",))
    edges = view.lineage.edges
    assert (image, Entity("crop", (first,))) in edges and (Entity("crop", (first,)), node) in edges
    assert (Entity("crop", (second,)), view.lineage.focus) in edges, "a rollout's step is no node"
    assert "[Image 2: the region around that place, enlarged. (crop " in view.text()
    assert "(750, 750) to (850, 850), shown at 100x100" in view.text()

    up = load_lineage(warehouse, f"crop:{first[:12]}")
    assert up.lineage.focus == Entity("crop", (first,))
    assert {e.kind for e in up.lineage.ancestors} >= {"image"}
    assert node in up.lineage.descendants
