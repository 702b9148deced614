"""Trees of completions: steps, forks, the budget, credit by hand, and what is learned from once."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from training.trees.comparison import SampledQuestion, comparison
from training.trees.rollout_tree import (
    RolloutTree,
    SampledStep,
    choose_forks,
    further_chains,
    grade_leaves,
    leaf_advantages,
    leaf_masks,
    step_ends,
)
from training.trees.tree_rollouts import TreeGroup, TreeTrainer

NAN = float("nan")


def grown(tree: RolloutTree, place: SampledStep, *steps: tuple[int, float], ended: bool = True):
    """Add a sample of steps, each of so many tokens of one entropy; tokens are all different."""
    first = 1000 * len(tree.leaves)
    tokens = range(first, first + sum(size for size, _ in steps))
    entropies = [nats for size, nats in steps for _ in range(size)]
    ends = [sum(size for size, _ in steps[:n]) for n in range(1, len(steps) + 1)]
    return tree.add(place, [*tokens], entropies, ends, ended)


def by_hand(*, cut_off: int | None = None) -> tuple[RolloutTree, dict[str, SampledStep]]:
    """Two chains; the first is forked behind its first and behind its second step.

    root - a1 - a2 - a3        0, in the order of sampling
         |    |    - d3        3
         |    - c2 - c3        2
         - b1 - b2             1
    """
    tree = RolloutTree()
    ended = [number != cut_off for number in range(4)]
    a3 = grown(tree, tree.root, (2, 0.1), (3, 0.9), (1, 0.2), ended=ended[0])
    a2, a1 = a3.parent, a3.parent.parent
    b2 = grown(tree, tree.root, (2, 0.1), (2, 0.3), ended=ended[1])
    c3 = grown(tree, a1, (2, 0.5), (1, 0.1), ended=ended[2])
    d3 = grown(tree, a2, (2, 0.4), ended=ended[3])
    return tree, {"a1": a1, "a2": a2, "a3": a3, "b1": b2.parent, "b2": b2, "c2": c3.parent,
                  "c3": c3, "d3": d3}  # fmt: skip


# ---- what a tree holds -----------------------------------------------------------------------


def test_a_step_ends_with_its_tag_however_that_is_tokenized() -> None:
    assert step_ends(["<think>", "a", "</think>", "\n", "<answer>", "b", "<eos>"]) == [3, 7]
    assert step_ends(["<th", "ink>a</", "think", ">\n<", "think>b</think>", "c"]) == [4, 5, 6]
    assert step_ends(["<think>", "a", "</think>"]) == [3], "cut off behind a step"
    assert step_ends(["no", " steps"]) == [2]


def test_siblings_share_what_is_above_them_and_it_is_counted_once() -> None:
    tree, at = by_hand()
    a, b, c, d = (leaf.completion() for leaf in tree.leaves)
    assert a[:2] == c[:2] and a[:5] == d[:5] and a[2] != c[2] and a[5] != d[5] and a[0] != b[0]
    assert tree.tokens == 6 + 4 + 3 + 2
    assert tree.chain_tokens == 6 + 4 + 5 + 7
    assert [at[n].path for n in ("a1", "b1", "a2", "c2", "d3")] == ["0", "1", "0.0", "0.1", "0.0.1"]


# ---- where it forks --------------------------------------------------------------------------


def two_chains(*entropies: float) -> RolloutTree:
    tree = RolloutTree()
    grown(tree, tree.root, (2, 3.0), (2, entropies[0]), (2, entropies[1]))
    grown(tree, tree.root, (2, 3.0), (2, entropies[2]), (2, entropies[3]))
    return tree


@pytest.mark.parametrize(
    ("entropies", "path"),
    [((0.2, 0.1, 0.9, 0.3), "1"), ((0.2, 0.8, 0.7, 0.3), "0.0"), ((0.5, 0.1, 0.1, 0.4), "0")],
)
def test_it_forks_before_the_most_uncertain_step(entropies: tuple[float, ...], path: str) -> None:
    (place,) = choose_forks(two_chains(*entropies), math.inf, 1)
    assert place.path == path, "never the question itself, whose steps are the most uncertain"


def test_a_place_is_forked_again_only_where_it_is_that_much_more_uncertain() -> None:
    tree = two_chains(0.9, 0.2, 0.4, 0.1)
    assert [p.path for p in choose_forks(tree, math.inf, 4)] == ["0", "0", "1", "0"]
    grown(tree, tree.root.children[0], (2, 0.9), (2, 0.1))
    assert [p.path for p in choose_forks(tree, math.inf, 2)] == ["0", "1"], "a sibling counts"


def test_no_fork_is_expected_to_write_more_than_is_left() -> None:
    tree = two_chains(0.9, 0.2, 0.4, 0.1)  # 4 tokens go on behind a first step, 2 behind a second
    assert choose_forks(tree, 1.9, 9) == []
    assert [p.path for p in choose_forks(tree, 2, 9)] == ["0.0"]
    assert [p.path for p in choose_forks(tree, 4, 9)] == ["0"]
    assert [p.path for p in choose_forks(tree, 6.5, 9)] == ["0", "0.0"]
    for left in range(40):
        sizes = [4 if place.parent is tree.root else 2 for place in choose_forks(tree, left, 9)]
        assert sum(sizes) <= left


def test_without_steps_or_doubt_there_is_nothing_to_fork() -> None:
    tree = RolloutTree()
    grown(tree, tree.root, (5, 2.0))
    assert choose_forks(tree, math.inf, 3) == []
    certain = two_chains(0, 0, 0, 0)
    assert choose_forks(certain, math.inf, 3) == []


def test_where_nothing_can_fork_further_chains_are_sampled_that_are_expected_to_fit() -> None:
    tree = RolloutTree()
    grown(tree, tree.root, (4, 2.0))
    grown(tree, tree.root, (6, 2.0))
    for left, most, count in ((4.9, 9, 0), (-1, 9, 0), (5, 9, 1), (20, 9, 4), (20, 3, 3)):
        assert further_chains(tree, left, most) == [tree.root] * count


# ---- what steps earn -------------------------------------------------------------------------


def test_advantages_are_those_computed_by_hand() -> None:
    tree, at = by_hand()
    grade_leaves(tree, [1, 0, 0, 1])
    values = {"a1": 2 / 3, "a2": 1, "a3": 1, "b1": 0, "b2": 0, "c2": 0, "c3": 0, "d3": 1}
    assert {name: step.value for name, step in at.items()} == pytest.approx(values)
    assert tree.root.value == 0.5
    expected = {
        "a1": ((2 / 3 - 1 / 2) + (2 / 3 - 1 / 2)) / 2,
        "a2": ((1 - 1 / 2) + (1 - 2 / 3)) / 2,
        "a3": ((1 - 1 / 2) + (1 - 1)) / 2,
        "b1": -1 / 2,
        "b2": -1 / 2,  # nothing forks between the two: they are one
        "c2": ((0 - 1 / 2) + (0 - 2 / 3)) / 2,
        "c3": ((0 - 1 / 2) + (0 - 2 / 3)) / 2,
        "d3": ((1 - 1 / 2) + (1 - 1)) / 2,
    }
    assert {name: step.advantage for name, step in at.items()} == pytest.approx(expected)
    a, b, c, d = leaf_advantages(tree)
    e = expected
    assert a == pytest.approx([e["a1"]] * 2 + [e["a2"]] * 3 + [e["a3"]])
    assert b == pytest.approx([e["b1"]] * 4)
    assert c == pytest.approx([e["a1"]] * 2 + [e["c2"]] * 3), "a shared step has one credit"
    assert d == pytest.approx([e["a1"]] * 2 + [e["a2"]] * 3 + [e["d3"]] * 2)


def test_without_forks_it_is_the_groups_mean_that_is_taken_off() -> None:
    tree = RolloutTree()
    for _ in range(4):
        grown(tree, tree.root, (2, 0.1), (3, 0.1), (1, 0.1))
    grade_leaves(tree, [1, 0.25, 0, 0.75])
    for reward, advantages in zip([1, 0.25, 0, 0.75], leaf_advantages(tree), strict=True):
        assert advantages == pytest.approx([reward - 0.5] * 6)


def test_a_leaf_without_a_reward_is_in_no_value() -> None:
    tree, at = by_hand()
    grade_leaves(tree, [1, NAN, 0, NAN])
    assert (tree.root.value, at["a1"].value, at["b1"].value) == (0.5, 0.5, None)
    assert at["b1"].advantage == at["d3"].advantage == 0
    assert at["c2"].advantage == pytest.approx(-0.5)


def test_one_leaf_teaches_nothing() -> None:
    tree = RolloutTree()
    leaf = grown(tree, tree.root, (3, 0.1))
    grade_leaves(tree, [1.0])
    assert leaf.advantage == 0 and leaf.fork is tree.root
    assert leaf_masks(tree) == [[1, 1, 1]]


# ---- what is learned from, once --------------------------------------------------------------


def test_each_sampled_token_is_learned_from_once() -> None:
    tree, _ = by_hand()
    assert leaf_masks(tree) == [[1] * 6, [1] * 4, [0] * 2 + [1] * 3, [0] * 5 + [1] * 2]
    assert sum(map(sum, leaf_masks(tree))) == tree.tokens


def test_a_shared_step_is_learned_from_where_a_completion_was_not_cut_off() -> None:
    tree, at = by_hand(cut_off=0)
    grade_leaves(tree, [0, 0, 0, 1])
    assert at["a1"].value == pytest.approx(1 / 3), "a completion that was cut off has its reward"
    assert leaf_masks(tree) == [[0] * 6, [1] * 4, [1] * 5, [0] * 2 + [1] * 5]


# ---- what is reported ------------------------------------------------------------------------


def test_the_comparison_says_what_either_way_gave() -> None:
    chains = [
        SampledQuestion([1, 1], [True, True], ["red", "red"], 10),
        SampledQuestion([0, 0], [False, False], ["blue", None], 20),
    ]
    trees = [
        SampledQuestion([1, 0, NAN], [True, False, False], ["red", " Blue", "blue"], 9),
        SampledQuestion([0, 0, 0], [False] * 3, ["a", "b", "c"], 21),
    ]
    figures, sentence = comparison(chains, trees)
    assert figures["comparison/chains/live"] == 0 and figures["comparison/trees/live"] == 0.5
    assert figures["comparison/chains/tokens"] == figures["comparison/trees/tokens"] == 15
    assert figures["comparison/chains/distinct"] == 1
    assert figures["comparison/trees/distinct"] == 2.5
    assert figures["comparison/trees/right"] == pytest.approx(1 / 6)
    assert figures["comparison/chains/solved"] == 0.5
    assert sentence.startswith("2 questions at equal tokens; trees: 3.0 completions of 15 tokens")
    short = [replace(question, tokens=7) for question in trees]
    _, sentence = comparison(chains, short)
    assert sentence.startswith("2 questions at 47% of the chains' tokens; trees:")


# ---- what a trainer makes of it --------------------------------------------------------------


def test_a_tree_forks_at_no_more_places_at_once_than_it_may() -> None:
    trainer: Any = TreeTrainer.__new__(TreeTrainer)
    tree = two_chains(0.9, 0.2, 0.4, 0.1)
    tree.budget = 100
    for forks, leaves, count in ((1, 9, 1), (3, 9, 3), (3, 4, 2)):
        trainer.__dict__ |= {"most_forks": forks, "most_leaves": leaves}
        assert len(trainer._forks(0, tree)) == count


@pytest.mark.parametrize(
    ("scaled", "spreads"),
    [("group", (0.5**0.5, 0.0)), ("batch", (0.5, 0.5)), ("none", (None, None))],
)
def test_advantages_are_divided_by_what_the_recipe_says(
    scaled: str, spreads: tuple[float | None, float | None]
) -> None:
    groups = []
    for rewards in ([1.0, 0.0], [1.0, 1.0]):
        tree = RolloutTree()
        for _ in rewards:
            grown(tree, tree.root, (2, 0.1))
        grade_leaves(tree, rewards)
        own = torch.tensor(rewards)
        generated = (None, [leaf.completion() for leaf in tree.leaves])
        groups.append(TreeGroup([{}] * 2, generated, own[:, None], own, tree.tokens, tree))
    trainer: Any = TreeTrainer.__new__(TreeTrainer)
    trainer.__dict__["scale_rewards"] = scaled
    found = trainer._advantages(groups, torch.zeros(4, 2, dtype=torch.long))
    scale = 1.0 if spreads[0] is None else spreads[0] + 1e-4
    assert found[:, 0].tolist() == pytest.approx([0.5 / scale, -0.5 / scale, 0, 0])
