"""How a search may grow its tree: steps of rollouts kept, where it stays, how far it explores."""

from collections import Counter
from dataclasses import replace

import pytest

from curation.traces.linearize import linearize
from mcts.coordinates import Frame
from mcts.selection.uct import uct
from mcts.tree import Node, flatten, rebuild
from tests.mcts.test_search import run, think
from tests.support.scripted import CONFIG, QUESTION, ScriptedPolicy, seeded_teacher
from tests.support.zoom_trees import ZOOM, grow_looks

ONE = replace(CONFIG, simulations=1, children=2, rollouts=3)
SCRIPT = {
    ("", "expand", 0): think(100, 100),
    ("", "expand", 1): think(200, 200),
    ("0", "rollout", 0): f"{think(300, 300)}\n{think(400, 400)}\n<answer>left</answer>",
    ("0", "rollout", 1): f"{think(300, 300)}\n<answer>right</answer>",
    ("0", "rollout", 2): f"{think(300, 300)}\n{think(100, 100)}\n<answer>left</answer>",
    **{("1", "rollout", i): "<answer>right</answer>" for i in range(3)},
}


def test_steps_of_rollouts_become_nodes_that_share_their_beginnings():
    policy, plain = ScriptedPolicy(SCRIPT), ScriptedPolicy(SCRIPT)
    kept = run(policy, replace(ONE, keep_rollouts=True))
    tree = run(plain, ONE)
    assert policy.log == plain.log, "it costs no request"
    first = kept.root.children[0]
    assert [node.step.thought for node in first.walk() if node.step] == [
        f"A thing at ({n}, {n})." for n in (100, 300, 400)
    ]
    (shared,) = first.children
    assert (shared.path, shared.response_id, shared.visits) == ("0.0", "0/rollout/0", 2)
    assert [(child.answer, child.reward) for child in shared.children] == [
        (None, None),
        ("right", 0),
    ]
    # One that goes back to a place stays a rollout: the search follows no such step.
    assert [rollout.sample for rollout in first.rollouts] == [2]
    for a, b in zip(kept.root.children, tree.root.children, strict=True):
        assert (a.visits, a.value) == (b.visits, b.value), "what it is worth stays the same"
    assert Counter(kept.outcomes()) == Counter(tree.outcomes())
    assert kept.right_lines() == tree.right_lines()


def test_a_step_is_expanded_before_those_that_its_rollouts_left_below_it():
    policy = ScriptedPolicy(SCRIPT, seeded_teacher)
    tree = run(policy, replace(ONE, simulations=12, keep_rollouts=True, exploration=0.5))
    asked = [node for node, purpose, *_ in policy.log if purpose == "expand"]
    assert asked[:2] == ["", "0"], "the better of the two, itself"
    assert {"0.0", "0.0.0"} & set(asked), "then also what a rollout left below it"
    assert len(asked) == len(set(asked)) == tree.simulations == 12
    assert tree.root.visits == sum(len(node.rewards) for node in tree.nodes)
    rows, texts = flatten(tree), {f"{n}/{p}/{i}": text for (n, p, i), text in SCRIPT.items()}
    again = rebuild("t", QUESTION, rows, texts, Frame.of(CONFIG.space, QUESTION))
    assert flatten(again) == rows


def test_chains_of_kept_rollouts_are_those_of_the_rollouts():
    def told(kind, **config):
        tree = run(ScriptedPolicy(SCRIPT, seeded_teacher), replace(ONE, **config))
        return Counter((t.steps, t.answer) for t in linearize(tree) if t.kind == kind)

    assert told("direct", keep_rollouts=True) == told("direct")
    # The wrong answer stands behind the shared step now, so nobody turns back to say it again.
    kept, plain = told("corrected", keep_rollouts=True), told("corrected")
    assert len(kept) == len(plain) == 2 and len(set(kept) & set(plain)) < 2


def test_looks_of_rollouts_are_kept_with_what_they_showed():
    plain, kept = grow_looks(), grow_looks(keep_rollouts=True)
    right = kept.root.children[1]
    *_, look, tells, answer = right.walk()
    assert (look.response_id, tells.response_id) == ("1/rollout/0", "1/turn/1")
    assert look.step.observation.crop is not None and answer.answer == "left"
    assert not kept.rollouts and Counter(kept.outcomes()) == Counter(plain.outcomes())
    assert kept.zoom == ZOOM


def test_an_answer_that_was_forced_stays_a_rollout():
    script = {**SCRIPT, ("0", "rollout", 0): (think(300, 300), "stop")}
    script |= {("0", "rollout", 1): "<answer>left</answer>", ("0", "finish", 0): "left</answer>"}
    tree = run(ScriptedPolicy(script), replace(ONE, keep_rollouts=True))
    first = tree.root.children[0]
    assert [r.sample for r in first.rollouts] == [0, 2]
    assert [child.answer for child in first.children] == ["left"]


MIXED = {
    **{("", "expand", i): think(100 * (i + 1), 50) for i in range(2)},
    **{("0", "rollout", i): f"<answer>{a}</answer>" for i, a in enumerate(("left", "right"))},
    **{("1", "rollout", i): "<answer>left</answer>" for i in range(2)},
}


@pytest.mark.parametrize("stay", [False, True])
def test_a_search_stays_where_some_answers_are_right_and_some_wrong(stay):
    def of(node, purpose, steps, i):
        if purpose == "expand":
            return think(10 + 37 * (7 * len(node) + i), 900 - 50 * len(node), f"At {node} {i}")
        wrong = node.startswith("1") and i == 1
        return f"<answer>{'right' if wrong else 'left'}</answer>"

    policy = ScriptedPolicy(MIXED, of)
    config = replace(CONFIG, children=2, rollouts=2, exploration=3.0, simulations=4, stay=stay)
    run(policy, config)
    asked = [node for node, purpose, *_ in policy.log if purpose == "expand"]
    # The root is mixed itself, so the second selection is the same; node 1 becomes mixed.
    assert asked[:2] == ["", "1"]
    assert asked[2].startswith("1.") is stay and (asked[2] == "0") is not stay


def test_exploration_shrinks_where_little_is_right():
    parent, child = Node(0, "", None), Node(1, "0", None)
    parent.visits, parent.total, child.visits, child.total = 4, 1.0, 1, 1.0
    width = uct(parent, child, 2.0) - 1
    assert uct(parent, child, 2.0, scaling=1.0) - 1 == pytest.approx(width / 4)
    assert uct(parent, child, 2.0, scaling=0.4) - 1 == pytest.approx(width * 0.7)
    parent.total = 4.0
    assert uct(parent, child, 2.0, scaling=1.0) == uct(parent, child, 2.0)


@pytest.mark.parametrize("wave", [1, 3])
def test_all_three_together_end_and_ask_nothing_twice(wave):
    policy = ScriptedPolicy(otherwise=seeded_teacher)
    config = replace(
        CONFIG, simulations=30, wave=wave, keep_rollouts=True, stay=True, scale_exploration=0.5
    )
    tree = run(policy, config)
    asked = Counter((node, purpose, first) for node, purpose, _, first in policy.log)
    assert max(asked.values()) == 1 and tree.simulations == 30
    assert flatten(tree) == flatten(run(ScriptedPolicy(otherwise=seeded_teacher), config))
