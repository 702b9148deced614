"""A value model in the search: selection sees it, outcomes stay what they are, defaults too."""

import asyncio
from dataclasses import replace

import pytest

from curation.grading.grade import grade
from mcts.config import search_id
from mcts.coordinates import Frame
from mcts.search import search
from mcts.selection.uct import uct
from mcts.tree import Node, flatten, rebuild
from tests.support.scripted import CONFIG, QUESTION, ScriptedPolicy, seeded_teacher

GUIDED = replace(CONFIG, value_model="judge@1", simulations=4)


class Favours:
    """Values lines by where their last step points: the further right, the better."""

    def __init__(self, sign=1.0):
        self.sign, self.asked = sign, []

    async def values(self, lines):
        self.asked.append([len(line) for line in lines])
        return [0.5 + self.sign * (line[-1].point.x / 1000 - 0.5) for line in lines]


def run(policy, config=GUIDED, valuer=None, prefetch=0):
    found = search(
        QUESTION, config, policy, grade, "t", prefetch=lambda: prefetch, valuer=valuer
    )  # fmt: skip
    return asyncio.run(found)


def wrong_teacher(node, purpose, steps, sample):
    """Never right, and never twice at one place: without values nothing tells its nodes apart."""
    if purpose in ("rollout", "answer", "finish"):
        return "<answer>right</answer>"
    return f"<think>A thing at ({100 + 300 * sample}, {50 * len(steps) + 17}).</think>"


@pytest.mark.parametrize(("sign", "best"), [(1.0, "2"), (-1.0, "0")])
def test_the_search_follows_the_values_before_any_answer_is_right(sign, best):
    policy, blind = (ScriptedPolicy(otherwise=wrong_teacher) for _ in range(2))
    run(policy, valuer=Favours(sign))
    run(blind, replace(GUIDED, value_model=""))
    expanded = [
        [node for node, purpose, *_ in asked.log if purpose == "expand"][:2]
        for asked in (policy, blind)
    ]
    assert expanded == [["", best], ["", "0"]]


def test_a_prior_counts_as_visits_in_selection_alone():
    parent, child = Node(0, "", None, visits=8), Node(1, "0", None, visits=2, total=1.0)
    plain = uct(parent, child, 0.0, 2.0)
    child.prior = 0.75
    assert (plain, uct(parent, child, 0.0, 2.0)) == (0.5, pytest.approx(2.5 / 4))
    assert uct(parent, child, 0.0) == 0.5, "without weight there is none"
    tree = run(ScriptedPolicy(otherwise=seeded_teacher), valuer=Favours())
    rows = flatten(tree)
    assert any(node.prior is not None for node in tree.nodes)
    texts = {}
    steps = [r for r in rows.rollouts if r["n_steps"]]
    assert steps, "rollouts are read again from their texts"
    policy = ScriptedPolicy(otherwise=seeded_teacher)
    for row in rows.rollouts:
        node = next(n for n in tree.nodes if n.node_id == row["node_id"])
        texts[row["response_ids"][0]] = policy.otherwise(
            node.path, "rollout", node.steps(), row["sample"]
        )
    same = rebuild("t", QUESTION, rows, texts, Frame.of(CONFIG.space, QUESTION))
    assert flatten(same) == rows, "statistics are those of outcomes"


def test_what_was_skipped_counts_as_visits_without_reward_until_there_is_one():
    parent, rolled, skipped = Node(0, "", None, visits=2), Node(1, "0", None), Node(2, "1", None)
    rolled.prior = skipped.prior = 0.5
    rolled.visits = skipped.skipped = 2
    assert uct(parent, skipped, 2.0, 2.0) == uct(parent, rolled, 2.0, 2.0)
    skipped.visits, skipped.total = 1, 1.0
    assert uct(parent, skipped, 0.0, 2.0) == pytest.approx(2 / 3), "V is of rewards"
    rolled.visits = 3
    bonus = [
        uct(parent, node, 2.0, 2.0) - uct(parent, node, 0.0, 2.0) for node in (skipped, rolled)
    ]
    assert bonus[0] == pytest.approx(bonus[1]), "the bonus is of visits, skipped ones too"


def test_answers_are_sampled_from_the_best_valued_steps_only():
    policy = ScriptedPolicy(otherwise=wrong_teacher)
    tree = run(policy, replace(GUIDED, value_rollouts=1), valuer=Favours())
    rolled = [node for node, purpose, *_ in policy.log if purpose == "rollout"]
    assert rolled == ["2", "2.2", "1.2", "0.2"]
    assert tree.root.visits == GUIDED.rollouts * GUIDED.simulations, "no visit is made up"
    every = ScriptedPolicy(otherwise=wrong_teacher)
    run(every, valuer=Favours())
    for asked in (policy, every):
        expanded = [node for node, purpose, *_ in asked.log if purpose == "expand"]
        assert expanded == ["", "2", "1", "0"], "the best-valued first"
    assert sum(purpose == "rollout" for _, purpose, *_ in every.log) == 3 * GUIDED.simulations


def test_each_simulation_of_a_wave_has_answers_of_its_own():
    policy, valuer = ScriptedPolicy(otherwise=wrong_teacher), Favours()
    run(policy, replace(GUIDED, value_rollouts=1, wave=4, simulations=8), valuer=valuer)
    rolled = [node for node, purpose, *_ in policy.log if purpose == "rollout"]
    assert rolled[:4] == ["2", "2.2", "1.2", "0.2"] and len(rolled) == 8
    assert valuer.asked[1] == [2] * 9, "a wave's steps are valued together"


@pytest.mark.parametrize(("values", "best"), [((0.4, None, 0.3), "1"), ((0.6, None, 0.3), "0")])
def test_a_value_that_cannot_be_told_ranks_in_the_middle(values, best):
    class Partly(Favours):
        async def values(self, lines):
            return values

    policy = ScriptedPolicy(otherwise=wrong_teacher)
    run(policy, replace(GUIDED, value_rollouts=1, simulations=1), valuer=Partly())
    assert [node for node, purpose, *_ in policy.log if purpose == "rollout"] == [best]


def test_the_same_values_make_the_same_tree_whatever_is_prefetched():
    trees = [
        flatten(run(ScriptedPolicy(otherwise=seeded_teacher), valuer=Favours(), prefetch=n))
        for n in (0, 9, 0)
    ]
    assert trees[0] == trees[1] == trees[2]


def test_a_value_that_cannot_be_told_leaves_the_search_as_it_is():
    class Silent(Favours):
        async def values(self, lines):
            return [None] * len(lines)

    told = run(ScriptedPolicy(otherwise=seeded_teacher), valuer=Silent())
    plain = run(ScriptedPolicy(otherwise=seeded_teacher), replace(GUIDED, value_model=""))
    assert flatten(told) == flatten(plain)


def test_a_search_without_a_value_model_keeps_its_id_and_with_one_has_another():
    plain = search_id(QUESTION, CONFIG, 0, "m")
    assert plain == search_id(QUESTION, replace(CONFIG, value_model=""), 0, "m")
    others = [replace(CONFIG, value_model=name) for name in ("a@1", "a@2")]
    others.append(replace(others[0], value_rollouts=1))
    others.append(replace(others[0], value_weight=1.0))
    assert len({plain, *(search_id(QUESTION, other, 0, "m") for other in others)}) == 5


def test_a_guided_search_without_its_model_is_refused():
    with pytest.raises(ValueError, match="guided by judge@1, which is not here"):
        run(ScriptedPolicy(otherwise=seeded_teacher))
