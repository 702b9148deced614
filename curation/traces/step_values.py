"""What each step of a tree is worth: process supervision from the search's own outcomes.

    for row in step_values(tree): …          # StepValue: value, visits, standard error, advantage
    for path in step_paths(tree): …          # the same, as lines from the question to a leaf

A step's value is the mean reward of all answers reached through it, its visits are how many there
were (ViGoRL, section 3.2; the soft labels of Math-Shepherd, arXiv 2312.08935). Steps that only a
rollout took are no nodes and have no value of their own. The view `step_values` of the warehouse
holds the same rows, and a test keeps the two equal.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mcts.data import Step
from mcts.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class StepValue:
    """One step of a tree with what became of it."""

    tree_id: str
    question_id: str
    node_id: int
    parent_id: int
    """node_id of the step before; 0 is the question itself."""
    depth: int
    """Its position in the reasoning, from 1."""
    step: Step
    visits: int
    """Graded answers reached through it, at least 1."""
    value: float
    """Their mean reward, 0 to 1."""
    standard_error: float | None
    """Of the value; None below 2 visits. It is 0 where all rewards were equal, which says little
    when the visits are few: ask for visits as well."""
    advantage: float
    """Its value less that of the step before: what taking it changed."""


def step_values(tree: Tree) -> list[StepValue]:
    """List every step with at least one graded answer behind it, in order of node_id."""
    return [_valued(tree, node) for node in tree.nodes if _counts(node)]


def step_paths(tree: Tree) -> Iterator[tuple[StepValue, ...]]:
    """Yield lines of valued steps, from the first to one that no other valued step follows.

    Every step is in at least one line; steps that several lines share are in each.
    """
    for node in tree.nodes:
        if _counts(node) and not any(_counts(child) for child in node.children):
            yield tuple(_valued(tree, above) for above in node.lineage()[1:])


def standard_error(rewards: Sequence[float]) -> float | None:
    """Compute the standard error of their mean, from n - 1; None for fewer than 2."""
    if len(rewards) < 2:
        return None
    return statistics.stdev(rewards) / math.sqrt(len(rewards))


def rewards_below(node: Node) -> list[float]:
    """Collect every reward backed up through `node`: its own and those of all nodes below it."""
    return [reward for below in node.walk() for reward in below.rewards]


def _counts(node: Node) -> bool:
    return node.step is not None and not node.discarded and node.visits > 0


def _valued(tree: Tree, node: Node) -> StepValue:
    parent = node.parent
    assert parent is not None and node.step is not None  # `_counts` let it through
    assert node.value is not None and parent.value is not None
    return StepValue(
        tree_id=tree.tree_id,
        question_id=tree.question.question_id,
        node_id=node.node_id,
        parent_id=parent.node_id,
        depth=node.depth,
        step=node.step,
        visits=node.visits,
        value=node.value,
        standard_error=standard_error(rewards_below(node)),
        advantage=node.value - parent.value,
    )
