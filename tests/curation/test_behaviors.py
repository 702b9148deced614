"""Behaviors are counted by rules a person can check, and summed up by views."""

import pytest

from curation.scores import behaviors
from curation.scores.behaviors import RULE_BEHAVIORS, count_behaviors
from curation.traces.linearize import TURNING_BACK
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Image, Question, Trace
from mcts.parsing import parse
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_traces, commit_trees, insert_new
from warehouse.tables.tree_rows import SearchRows

IMAGES = (Image("a" * 64, 1000, 600), Image("b" * 64, 1000, 600))
QUESTION = Question("sat2", "Where?", IMAGES, AnswerKind.TEXT, (), ("left",))
PIXELS = Frame(CoordinateSpace.original(), IMAGES)


def counts(*thoughts, grounded=(), **fields):
    steps = parse("".join(f"<think>{t}</think>" for t in thoughts), PIXELS).steps
    trace = Trace(QUESTION.question_id, steps, "left", 1.0, "direct", **fields)
    return count_behaviors(trace, QUESTION, grounded)


def test_every_behavior_is_counted_also_when_there_is_none():
    assert counts("Hm.") == dict.fromkeys(RULE_BEHAVIORS, 0)


def test_regions_are_distinct_places_and_a_return_is_a_revisit():
    found = counts(
        "A box (100, 100).",
        "A ball (149, 100).",  # within a twentieth of the longer side: the same region
        "A lamp (151, 100).",  # not within it of the point that opened the region
        "A box (100, 100) in image 2.",  # another image is another place
        "The box (101, 101).",
    )
    assert (found["regions"], found["revisits"]) == (3, 2)


@pytest.mark.parametrize(
    ("thought", "behavior"),
    [
        ("First, I need to find the lamp.", "subgoals"),
        ("Let me now locate the chair.", "subgoals"),
        ("Next, we compare the two.", "subgoals"),
        ("To answer this, the chair matters.", "subgoals"),
        ("I verify that the lamp is there at (5, 5).", "verification"),
        ("Looking again, I see the lamp at (5, 5).", "verification"),
        ("I double-check the lamp (5, 5).", "verification"),
        ("Actually, that is a vase.", "backtracking"),
        ("Wait, this isn't right.", "backtracking"),
        ("But wait, the lamp is lower (5, 5).", "backtracking"),
        ("Hmm wait, no: it is a vase.", "backtracking"),
        ("A lamp (5, 5). Wait. It is a vase.", "backtracking"),
        ("Hold on. It is a vase.", "backtracking"),
        ("No, that is not correct.", "backtracking"),
        ("That isn’t right.", "backtracking"),
        ("On second thought, it is a vase (5, 5).", "backtracking"),
        ("I was wrong about the lamp.", "backtracking"),
        ("My mistake: it is a vase.", "backtracking"),
        ("Something seems off.", "backtracking"),
        ("I should go back to the sofa (5, 5).", "backtracking"),
        ("So I check the shirt (5, 5).", "verification"),
        ("Checking the lamp (5, 5), it is lit.", "verification"),
        ("Let me just confirm this (5, 5).", "verification"),
        ("This confirms that the lamp is lit (5, 5).", "verification"),
        ("I look more closely at the sign (5, 5).", "verification"),
        ("Verifying the colour (5, 5).", "verification"),
        ("I’ll find the lamp.", "subgoals"),
        ("Now we look for the sign.", "subgoals"),
        *((sentence, "backtracking") for sentence in TURNING_BACK),
    ],
)
def test_a_step_is_counted_for_what_it_says(thought, behavior):
    found = counts(thought)
    assert {name for name in ("subgoals", "verification", "backtracking") if found[name]} == {
        behavior
    }
    assert found[behavior] == 1


@pytest.mark.parametrize(
    "thought",
    [
        "I see the red box at (5, 5).",
        "The table stands in front of the sofa (5, 5).",
        "I check the time.",  # a check that looks nowhere is not visual
        "The waiter wears a checkered shirt (5, 5).",
        "The box is first in the row (5, 5).",
        "I can see the lamp at (5, 5).",
        "We can see two cups (5, 5).",
        "Now I see the lamp (5, 5).",
        "Then I count three cups (5, 5).",
        "Two people wait at the stop (5, 5).",
        "They wait, bags in hand (5, 5).",
        "The sign says wait here (5, 5).",
        "A waiting room (5, 5).",
        "Passengers hold on to the rail (5, 5).",
        "He wears a check shirt (5, 5).",
        "The checked pattern of the cloth (5, 5).",
        "A check mark is next to it (5, 5).",
        "The Confirm button is at (5, 5).",
        "I want to confirm order 12.",
        "A verified account (5, 5).",
        "A verification code (5, 5).",
        "The two chairs look closer together than the lamps (5, 5).",
        "The lamp that is not right of the sofa is red (5, 5).",
        "This is not right next to the door (5, 5).",
        "The lamp seems off, the other is lit (5, 5).",
        "A box that does not fit on the shelf (5, 5).",
        "The lamp is actually red (5, 5).",
        "A path going back to the house (5, 5).",
        "The go back arrow is at (5, 5).",
    ],
)
def test_plain_looking_is_none_of_them(thought):
    found = counts(thought)
    assert (found["subgoals"], found["verification"], found["backtracking"]) == (0, 0, 0)


def test_the_turn_of_a_corrected_chain_counts_once_whatever_its_words():
    fields = {"wrong_from": 0, "turns_back_at": 1}
    assert counts("A (1, 1).", "So B (500, 500).", **fields)["backtracking"] == 1
    assert counts("A (1, 1).", "Wait. B (500, 500).", **fields)["backtracking"] == 1


def test_a_subgoal_is_grounded_when_it_points_and_boxes_do_not_say_elsewhere():
    goals = ("Let me find the lamp (5, 5).", "Let me find the box (500, 5).", "Let me check it.")
    assert counts(*goals)["subgoals"] == 3
    assert counts(*goals)["grounded_subgoals"] == 2
    assert counts(*goals, grounded=(True, False, None))["grounded_subgoals"] == 1
    # Only what boxes show to be elsewhere is left out, and what is unknown is not.
    assert counts(*goals[:2], grounded=(None, None))["grounded_subgoals"] == 2
    assert counts(*goals[:2], grounded=(True, None))["grounded_subgoals"] == 2
    assert counts(*goals[:2], grounded=(False, False))["grounded_subgoals"] == 0


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    """Four traces of one model, two of them right, with counts by a rule and by a judge."""
    warehouse = Warehouse(str(tmp_path_factory.mktemp("home")))
    traces = [
        {"trace_id": f"t{i}", "question_id": "q", "task": "sat2", "kind": "direct",
         "origin": "search", "model": "m", "reward": reward}
        for i, reward in enumerate((1.0, 1.0, 0.0, 0.0))
    ]  # fmt: skip
    commit_traces(warehouse, traces, steps=[], verdicts=[], run_id="r")
    counted = {
        ("regions", behaviors.METHOD): (1, 2, 3, 3),
        ("regions", "judge:j"): (2, 3, 9, 3),
        ("subgoals", behaviors.METHOD): (0, 0, 0, 0),
        ("subgoals", "judge:j"): (0, 1, 0, 0),
    }
    rows = [
        {"trace_id": f"t{i}", "behavior": behavior, "method": method, "count": count}
        for (behavior, method), values in counted.items()
        for i, count in enumerate(values)
    ]
    insert_new(warehouse, "behaviors", rows)
    return warehouse


def test_table_five_is_a_view(warehouse):
    rows = query(
        warehouse,
        "SELECT answered_right, traces, mean_count, share_of_traces FROM behaviors_by_model "
        "WHERE behavior = 'regions' AND method = 'rule/2' AND model = 'm' ORDER BY ALL",
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [(False, 2, 3.0, 1.0), (True, 2, 1.5, 1.0)]


def test_agreement_is_spearmans_rank_correlation_and_the_share_of_equal_counts(warehouse):
    rows = query(warehouse, "FROM behavior_agreement ORDER BY behavior").to_pylist()
    regions, subgoals = rows
    assert (regions["method_a"], regions["method_b"]) == (behaviors.METHOD, "judge:j")
    assert (regions["traces"], regions["same_count"]) == (4, 0.25)
    # Ranks 1, 2, 3.5, 3.5 against 1, 2.5, 4, 2.5: their correlation by hand is 5/6.
    assert regions["spearman"] == pytest.approx(5 / 6)
    assert (subgoals["spearman"], subgoals["same_presence"]) == (None, 0.75)


def test_difficulty_tells_which_expansion_first_found_a_right_answer(tmp_path):
    warehouse = Warehouse(str(tmp_path))
    tree = {"question_id": "q", "task": "sat2", "status": "complete", "config": "{}"}
    trees = [{"tree_id": t, **tree} for t in ("late", "never", "ended", "chains")]
    trees[-1]["config"] = '{"strategy": "best-of-n"}'
    node = {"terminal": False}
    nodes = [
        *({"tree_id": t, "node_id": 0, **node} for t in ("late", "never", "ended", "chains")),
        # Three requests; the second thought twice in one sample, so it has a chain of two nodes.
        {"tree_id": "late", "node_id": 1, "parent_id": 0, "response_id": "A.0", **node},
        {"tree_id": "late", "node_id": 2, "parent_id": 0, "response_id": "A.1", **node},
        {"tree_id": "late", "node_id": 3, "parent_id": 1, "response_id": "B.0", **node},
        {"tree_id": "late", "node_id": 4, "parent_id": 3, "response_id": "B.0", **node},
        {"tree_id": "late", "node_id": 5, "parent_id": 2, "response_id": "C.0", **node},
        {"tree_id": "never", "node_id": 1, "parent_id": 0, "response_id": "A.0", **node},
        {"tree_id": "ended", "node_id": 1, "parent_id": 0, "response_id": "A.0", **node},
        {"tree_id": "ended", "node_id": 2, "parent_id": 1, "response_id": "B.0", "terminal": True,
         "reward": 1.0},
    ]  # fmt: skip
    rollouts = [
        {"tree_id": t, "rollout_id": i, "node_id": n, "reward": r}
        for t, i, n, r in (
            ("late", 0, 1, 0.0), ("late", 1, 4, 0.0), ("late", 2, 5, 1.0), ("never", 0, 1, 0.0),
            ("chains", 0, 0, 0.0), ("chains", 1, 0, None), ("chains", 2, 0, 1.0),
        )
    ]  # fmt: skip
    commit_trees(warehouse, SearchRows(trees, nodes, rollouts), run_id="r")
    rows = query(
        warehouse,
        "SELECT tree_id, strategy, expansions, expansions_to_success, chains_to_success "
        "FROM difficulty ORDER BY tree_id",
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("chains", "best-of-n", None, None, 3),
        ("ended", "mcts", 2, 2, None),
        ("late", "mcts", 3, 3, None),
        ("never", "mcts", 1, None, None),
    ]
