"""Preference pairs: two ways to go on from one place in a tree, of which one did better.

    for pair in preference_pairs(tree): …
    sure = [p for p in preference_pairs(tree) if p.margin >= 0.5 and p.least_visits >= 4]

At each node the child with the highest value is preferred to every child with a lower one, so that
each worse step is rejected once and pairs grow with the children, not with their square. Both
continuations share the prefix and differ from their first step on. A continuation runs on to an
answer, so that a trainer sees whole turns: the best one reached through the preferred child, the
worst through the other. The value is a statement about the first step alone; for step-level DPO
(arXiv 2406.18629) cut both after it.

The view `preference_pairs` of the warehouse holds the same pairs with their first steps only, and a
test keeps the two equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from curation.traces.linearize import End, canonical, direct_trace, draw, ends_of
from curation.traces.step_values import rewards_below, standard_error
from mcts.data import Origin, Step, ZoomCall
from mcts.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class PreferenceSide:
    """One child of the place where the pair parts, and what came of it."""

    node_id: int
    """The child: its step begins the continuation, or its answer is all of it."""
    visits: int
    """Graded answers reached through the child."""
    value: float
    """Their mean reward, 0 to 1."""
    standard_error: float | None
    """Of the value; None below 2 visits."""
    steps: tuple[Step, ...]
    """From behind the prefix to the answer; empty where the child answers at once."""
    answer: str | None
    reward: float
    """Of the answer it runs on to."""
    trace_id: str
    """Of the direct trace that ends there, from the question on."""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A preferred and a rejected continuation of one prefix."""

    tree_id: str
    question_id: str
    parent_id: int
    """node_id of the node where they part; 0 is the question itself."""
    prefix: tuple[Step, ...]
    """What was thought before they part."""
    chosen: PreferenceSide
    rejected: PreferenceSide

    @property
    def margin(self) -> float:
        """By how much the chosen one's value is higher; above 0."""
        return self.chosen.value - self.rejected.value

    @property
    def standard_error(self) -> float | None:
        """Of the margin; None where either value has none."""
        a, b = self.chosen.standard_error, self.rejected.standard_error
        return None if a is None or b is None else math.hypot(a, b)

    @property
    def least_visits(self) -> int:
        """Visits of the side that has fewer: what the margin stands on."""
        return min(self.chosen.visits, self.rejected.visits)


def preference_pairs(tree: Tree) -> list[PreferencePair]:
    """Find every pair of a tree, by the node where they part, then by the rejected child.

    The chosen child is the one of highest value, then of most visits, then the first. A child that
    says and looks at the same as the chosen one, or as one rejected before, is passed over. Chains
    of best-of-n are rollouts of the root, not children, and make no pairs.
    """
    ends = [end for end in ends_of(tree) if end.reward is not None]
    found: list[PreferencePair] = []
    for parent in tree.nodes:
        children = [c for c in parent.children if c.visits and not c.discarded]
        if len({child.value for child in children}) < 2:
            continue
        best = min(children, key=lambda c: (-(c.value or 0), -c.visits, c.node_id))
        chosen = _continuation(tree, parent, best, ends, +1)
        prefix, _, _ = canonical([(step, Origin(None)) for step in parent.steps()], frozenset())
        seen = {_words(best)}
        for child in children:
            if child.value == best.value or _words(child) in seen:
                continue
            seen.add(_words(child))
            rejected = _continuation(tree, parent, child, ends, -1)
            place = (tree.tree_id, tree.question.question_id, parent.node_id)
            found.append(PreferencePair(*place, prefix, chosen, rejected))
    return found


def _words(child: Node) -> tuple[str | None, ZoomCall | None, str | None]:
    step = child.step
    return step.thought if step else None, step.call if step else None, child.answer


def _continuation(
    tree: Tree, parent: Node, child: Node, ends: Sequence[End], sign: int
) -> PreferenceSide:
    """`child` with the best (+1) or the worst (-1) of the ends below it; content breaks ties."""
    end = min(
        (end for end in ends if any(node is child for node in end.path)),
        key=lambda end: (-sign * (end.reward or 0.0), draw(tree, end)),
    )
    steps, _, _ = canonical(end.after(parent), frozenset())
    assert child.value is not None and end.reward is not None  # only graded ends, visited children
    error = standard_error(rewards_below(child))
    return PreferenceSide(
        child.node_id, child.visits, child.value, error, steps, end.answer, end.reward,
        direct_trace(tree, end).trace_id,
    )  # fmt: skip
