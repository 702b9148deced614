"""UCT: what a node's statistics are, and which node the next simulation expands.

    bound = partial(uct, exploration=2.0)
    leaf = select(tree.root, bound)
    backpropagate(leaf, reward=1.0)

Nodes are those of a tree (`mcts.tree.Node`), of a future that may come (`mcts.prefetch`), or of a
tree that training samples (`training.trees.rollout_tree`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, Self, TypeVar


class Counted(Protocol):
    """The part of a node that backpropagation uses."""

    visits: int
    total: float
    pending: int

    @property
    def parent(self) -> Self | None: ...


class SearchNode(Counted, Protocol):
    """The part of a node that selection uses."""

    @property
    def prior(self) -> float | None: ...
    @property
    def skipped(self) -> int: ...
    @property
    def policy_prior(self) -> float: ...
    @property
    def children(self) -> Sequence[Self]: ...
    @property
    def free(self) -> bool: ...


class Expandable(SearchNode, Protocol):
    """A node that `select` may return."""

    @property
    def unexpanded(self) -> bool: ...


LEAST_PRIOR = 1e-6
"""What no sibling says is as unlikely as this: a power below 0 has a bound."""

N = TypeVar("N", bound=Expandable)
Bound = Callable[[SearchNode, SearchNode], float]
"""How promising a child of a node is: `uct`, with its parameters."""


def uct(
    parent: SearchNode,
    child: SearchNode,
    exploration: float,
    value_weight: float = 0.0,
    scaling: float = 0.0,
    policy_weight: float = 0.0,
) -> float:
    """Compute the upper confidence bound of `child`: V + c * sqrt(ln(N + 1) / (n + 1)).

    Simulations in flight count as visits without reward (virtual loss), so that those of one wave
    spread over the tree instead of queueing on one branch. A prior counts as `value_weight` visits
    in V. Answers that were skipped count as visits in n, and in V as visits without reward until
    there is a first reward: a child that was passed over for its value never gets the bonus of one
    that nobody looked at.

    With `scaling` s, c is 1 - s (1 - V of the parent) times as large: where much is right other
    ways are sought, where little is right what is right is followed (FastMCTS, 2502.11476).

    With `policy_weight` w, c is P**w times as large for a child whose policy prior is P: of
    siblings that are worth as much, the likelier one is tried first and more often (PUCT: Rosin
    2011; Silver et al. 2017), or with w below 0 the less likely one.
    """
    if scaling and parent.visits:
        exploration *= 1 - scaling * (1 - parent.total / parent.visits)
    parent_visits = parent.visits + parent.pending
    visits = child.visits + child.pending
    seen = visits if child.visits else visits + child.skipped
    mean = child.total / seen if seen else 0.0
    if child.prior is not None and value_weight:
        mean = (child.total + value_weight * child.prior) / (seen + value_weight)
    width = math.sqrt(math.log(parent_visits + 1) / (visits + child.skipped + 1))
    if policy_weight:
        width *= max(child.policy_prior, LEAST_PRIOR) ** policy_weight
    return mean + exploration * width


def select(
    root: N,
    bound: Bound,
    widens: Callable[[N], bool] | None = None,
    taken: Sequence[N] = (),
) -> N:
    """Return the node that the next simulation expands: descend by `bound`, first of equals.

    Nodes with nothing left to learn (answers, discarded steps, exhausted branches) are passed over,
    so no simulation is spent on seeing the same answer twice; so are leaves that a simulation of
    the same wave is already expanding. A node that was never expanded is, whatever rollouts left
    below it. `root` must be free, or be widened.

    Args:
        widens: whether a node is to be given further children before any below it is expanded.
        taken: nodes that the same wave expands already; they are not widened.
    """
    node = root
    while not node.unexpanded and (followed := [child for child in node.children if child.free]):
        if widens and widens(node) and all(node is not other for other in taken):
            break
        node = max(followed, key=partial(bound, node))
    return node


def select_wave(
    root: N, bound: Bound, width: int, widens: Callable[[N], bool] | None = None
) -> list[N]:
    """Select up to `width` leaves in turn; each is marked as pending before the next."""
    leaves: list[N] = []
    while len(leaves) < width and root.free:
        leaves.append(select(root, bound, widens, leaves))
        mark_pending(leaves[-1], +1)
    return leaves


def backpropagate(node: Counted | None, reward: float, visits: int = 1) -> None:
    """Add `visits` with the sum of their rewards to `node` and to every node above it."""
    while node is not None:
        node.visits += visits
        node.total += reward
        node = node.parent


def mark_pending(node: Counted | None, change: int) -> None:
    """Add (+1) or remove (-1) the virtual loss of one simulation at `node` and above it."""
    while node is not None:
        node.pending += change
        node = node.parent
