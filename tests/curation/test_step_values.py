"""What a tree says beside its chains: step values, preference pairs, prompts by pass rate."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from curation.traces.preferences import preference_pairs
from curation.traces.step_values import standard_error, step_paths, step_values
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Grade, Point, Step
from mcts.parsing import parse, render
from mcts.selection.uct import backpropagate
from mcts.tree import Node, Rollout, Tree
from tests.support.grown import COPIES, FORK, fork, grow, think, xs
from tests.support.pass_rate_bands import band_of, grpo_prompt
from tests.support.scripted import QUESTION, seeded_teacher

PIXELS = Frame(CoordinateSpace.original(), QUESTION.images)
BUSY = {"simulations": 16, "children": 3}


def busy(**config):
    return grow({}, seeded_teacher, **{**BUSY, **config})


def test_a_step_is_worth_the_mean_of_the_answers_behind_it():
    first, second = step_values(fork())
    assert (first.value, first.visits, first.advantage) == (0.5, 2, -0.25)
    assert (second.value, second.visits, second.advantage) == (1.0, 2, 0.25)
    assert first.standard_error == pytest.approx(0.5)  # sqrt(0.5 / 2), from n - 1
    assert second.standard_error == 0
    assert (first.parent_id, first.depth, first.step.point.x) == (0, 1, 100)


@pytest.mark.parametrize(
    ("rewards", "error"),
    [([], None), ([1.0], None), ([1.0, 0.0], 0.5), ([1, 1, 0, 0], math.sqrt(1 / 3 / 4))],
)
def test_a_standard_error_needs_two_visits_and_divides_by_one_less(rewards, error):
    assert standard_error(rewards) == (error if error is None else pytest.approx(error))


def test_rewards_count_for_every_step_above_them():
    tree = busy()
    rows = {row.node_id: row for row in step_values(tree)}
    deep = [row for row in rows.values() if row.depth > 1 and row.parent_id in rows]
    assert len(deep) > 10
    for row in deep:
        assert row.visits <= rows[row.parent_id].visits
        assert row.advantage == pytest.approx(row.value - rows[row.parent_id].value)
    assert not any(tree.nodes[i].discarded or tree.nodes[i].terminal for i in rows)


def test_paths_hold_every_valued_step_in_order_and_end_where_values_end():
    tree = busy()
    paths = list(step_paths(tree))
    assert {row.node_id for path in paths for row in path} == {
        row.node_id for row in step_values(tree)
    }
    for path in paths:
        assert [row.depth for row in path] == list(range(1, len(path) + 1))
        assert all(b.parent_id == a.node_id for a, b in pairwise(path))
    ends = [path[-1].node_id for path in paths]
    assert len(set(ends)) == len(ends)


def test_the_better_sibling_is_preferred_to_the_worse_one_with_how_sure_that_is():
    (pair,) = preference_pairs(fork())
    assert (pair.parent_id, pair.prefix) == (0, ())
    assert (pair.chosen.node_id, pair.rejected.node_id) == (2, 1)
    assert (pair.chosen.value, pair.rejected.value, pair.margin) == (1.0, 0.5, 0.5)
    assert pair.standard_error == pytest.approx(0.5)
    assert pair.least_visits == 2
    assert (xs(pair.rejected.steps), pair.rejected.answer) == ([100, 110], "right")
    assert xs(pair.chosen.steps) in ([200, 210], [200, 220]) and pair.chosen.answer == "left"


def test_both_continuations_follow_one_prefix_and_run_on_to_their_answers():
    found = preference_pairs(busy())
    assert len(found) > 5 and any(pair.prefix for pair in found)
    for pair in found:
        assert pair.margin > 0 and pair.chosen.reward > pair.rejected.reward
        assert pair.chosen.answer is not None and pair.rejected.answer is not None
        assert (pair.chosen.steps, pair.chosen.answer) != (
            pair.rejected.steps,
            pair.rejected.answer,
        )
        for side in (pair.chosen, pair.rejected):
            text = render((*pair.prefix, *side.steps), side.answer, PIXELS)
            said = parse(text, PIXELS)
            assert (said.steps, said.answer) == ((*pair.prefix, *side.steps), side.answer)
    assert found == preference_pairs(busy())


def test_each_worse_sibling_is_rejected_once_and_equals_never_meet():
    answers = ["left", "right", "right", "left"]
    script = {("", "expand", i): f"<answer>{a}</answer>" for i, a in enumerate(answers)}
    (pair,) = preference_pairs(grow(script, simulations=1, children=4))
    assert (pair.chosen.answer, pair.rejected.answer) == ("left", "right")
    assert pair.chosen.steps == () and pair.standard_error is None, "one visit says nothing of it"
    tied = {**FORK, ("0", "rollout", 0): think(110) + "<answer>left</answer>"}
    assert preference_pairs(grow(tied, simulations=1, children=2)) == []


def test_of_equally_good_siblings_the_better_known_is_chosen():
    root = Node(0, "", None)
    rewards = {1: [1.0], 2: [1.0, 1.0, 1.0], 3: [0.0]}  # the second is as good, and known better
    for i, earned in rewards.items():
        node = Node(i, str(i - 1), root, Step(f"A ({i}, {i}).", (Point(i, i),)))
        root.children.append(node)
        for j, reward in enumerate(earned):
            said = "left" if reward else "right"
            node.rollouts.append(Rollout((), said, reward, "", ("r",), j, rollout_id=10 * i + j))
            backpropagate(node, reward)
    (pair,) = preference_pairs(Tree("t", QUESTION, root))
    assert (pair.chosen.node_id, pair.rejected.node_id, pair.least_visits) == (2, 3, 1)


def test_what_says_the_same_is_no_pair_whatever_became_of_it():
    tree = grow(COPIES, strategy="linear", samples=2)
    assert [child.value for child in tree.root.children] == [1.0, 0.0]
    assert preference_pairs(tree) == []


def test_a_question_is_rated_by_its_first_steps_not_by_where_the_search_went():
    # Behind 200 the search went on, so that it saw three times as many right answers there.
    more = {
        ("1", "expand", 0): think(300),
        ("1", "expand", 1): think(400),
        **{(f"1.{i}", "rollout", j): "<answer>left</answer>" for i in (0, 1) for j in (0, 1)},
    }
    once, twice = fork(), grow({**FORK, **more}, simulations=2, children=2)
    first, second = grpo_prompt([once]), grpo_prompt([twice])
    assert (first.outcomes, first.right_outcomes, first.pass_rate) == (4, 3, 0.75)
    assert (second.outcomes, second.right_outcomes, second.pass_rate) == (8, 7, 0.75)
    assert first.first_steps == second.first_steps == 2 and first.band == "easy"


def test_trees_of_one_question_are_rated_together_and_plain_chains_count_as_they_are():
    def said(answer):
        return lambda *_: f"{think(5)}<answer>{answer}</answer>"

    chains = {"strategy": "best-of-n", "samples": 3}
    wrong = grow({}, said("right"), tree_id="u", **chains)
    assert grpo_prompt([wrong]).band == "unsolved"
    assert grpo_prompt([grow({}, said("left"), **chains)]).band == "solved"
    both = grpo_prompt([wrong, fork()])
    assert (both.trees, both.first_steps, both.outcomes) == (2, 5, 7)
    assert both.pass_rate == pytest.approx((3 * 0 + 0.5 + 1) / 5) and both.band == "medium"
    other = grow(FORK, simulations=1, children=2, question=replace(QUESTION, text="Another?"))
    with pytest.raises(ValueError, match="trees of 2 questions"):
        grpo_prompt([fork(), other])


def test_what_nobody_graded_has_no_value_no_pair_and_no_band():
    tree = fork()
    for node in tree.nodes:
        node.visits, node.total = 0, 0.0
        for rollout in node.rollouts:
            rollout.reward = Grade(None, "").score
    assert step_values(tree) == [] and preference_pairs(tree) == [] and grpo_prompt([tree]) is None


@pytest.mark.parametrize(
    ("right", "of", "rate", "band"),
    [
        (0, 9, 0.0, "unsolved"), (1, 9, 0.2, "hard"), (1, 9, 0.25, "medium"),
        (8, 9, 0.75, "easy"), (9, 9, 1.0, "solved"), (8, 9, 1.0, "easy"),
    ],
)  # fmt: skip
def test_bands_leave_the_ends_to_what_was_never_seen_otherwise(right, of, rate, band):
    assert band_of(right, of, rate) == band
