"""Prefetching: request what a search is certain to need before it asks for it.

    tree = await search(question, config, policy, grade, tree_id, prefetch=lambda: 8)

One simulation must know what the one before it earned, so a textbook search requests one leaf at a
time and the server idles. But with few simulations and a wide bound (UCT's c is 2) most leaves get
their turn sooner or later, whatever the rewards. So before a wave with a leaf that was not yet
requested, some futures are simulated to the last simulation, with random rewards. A leaf that all
of them expand is requested now, with its rollouts, and so are its children where all futures expand
those. This is speculative execution: the tree does not depend on it. A request has the same name
and seed whenever it is made, and the search uses only what it asks for itself, so the tree and its
`usage` stay the same. Unused answers are journaled like any other, and counted separately.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mcts.budget import Usage
from mcts.concurrency import gather
from mcts.config import SearchConfig
from mcts.data import Step
from mcts.engine import SearchRun, bound_of
from mcts.policy import Continuation, Policy, RequestKey
from mcts.selection.uct import backpropagate, mark_pending, select_wave
from mcts.teachers.base import TeacherError
from mcts.tree import Node

FUTURES = 12
"""Futures simulated. More of them waste fewer requests, and find fewer to prefetch."""
MAX_SIMULATIONS = 32
"""Simulations of a future at most."""


class Prefetcher:
    """A policy that sends some of another policy's requests before their turn."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._answers: dict[RequestKey, asyncio.Future[Sequence[Continuation]]] = {}
        self._used: set[RequestKey] = set()
        self._explorations: list[asyncio.Future[None]] = []
        self.explored: set[tuple[str, int]] = set()
        """Leaves that were requested before their turn, by path and attempt."""

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> Sequence[Continuation]:
        """Return the other policy's samples, from the request already sent where there is one."""
        self._used.add((node, purpose, first))
        return await self.request(node, purpose, steps, n, first)

    async def request(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> Sequence[Continuation]:
        """Send the request speculatively; `sample` reuses the answer."""
        key = (node, purpose, first)

        def forget_failure(answer: asyncio.Future[Sequence[Continuation]]) -> None:
            if answer.cancelled() or isinstance(answer.exception(), TeacherError | None):
                return
            self._answers.pop(key, None)  # our own failure is no answer: request again

        if key not in self._answers:
            answer = asyncio.ensure_future(self._policy.sample(node, purpose, steps, n, first))
            answer.add_done_callback(forget_failure)
            self._answers[key] = answer
        return await asyncio.shield(self._answers[key])

    def prefetch(self, run: SearchRun, limit: int) -> None:
        """Request up to `limit` leaves certain to be expanded, if the next wave needs a new one."""
        config, tree = run.config, run.tree
        if config.widening or config.value_model or config.policy_prior:
            return  # what is expanded depends on rewards, on values, or on what is likely
        if config.keep_rollouts or config.stay:
            return  # or on what rollouts say
        left = min(MAX_SIMULATIONS, run.simulations_left())
        wave = select_wave(tree.root, run.bound, min(config.wave, left))
        for leaf in wave:
            mark_pending(leaf, -1)
        if all((leaf.path, leaf.attempts) in self.explored for leaf in wave):
            return
        rng = random.Random(f"{tree.tree_id} {tree.simulations}")
        paths = certain_leaves(tree.root, config, left, rng)[:limit]
        nodes = {node.path: node for node in tree.root.walk()}
        speculative = SearchRun(tree.question, config, _Speculative(self), run.grade, tree.tree_id)
        for path in paths:
            if path not in nodes:
                continue  # a child of another of these leaves
            leaf = replace(nodes[path], children=list(nodes[path].children))
            if (leaf.path, leaf.attempts) not in self.explored:
                exploration = asyncio.ensure_future(
                    _explore(speculative, leaf, path, set(paths), self.explored)
                )
                exploration.add_done_callback(_retrieve_exception)
                self._explorations.append(exploration)

    async def close(self) -> Usage:
        """Cancel what is in flight; return the usage of answers that were not used."""
        in_flight: list[asyncio.Future[Any]] = [*self._explorations, *self._answers.values()]
        for future in in_flight:
            future.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)
        unused = Usage()
        for key in self._answers.keys() - self._used:
            unused.requests += 1
            answer = self._answers[key]
            if not answer.cancelled() and not answer.exception():
                for sample in answer.result():
                    for cost in sample.costs:
                        unused.add(cost)
        return unused


class _Speculative:
    """The policy of a speculative exploration: its answers do not count as used."""

    def __init__(self, prefetcher: Prefetcher) -> None:
        self.sample = prefetcher.request


def _retrieve_exception(exploration: asyncio.Future[None]) -> None:
    """Mark a failure as seen: the search meets the same one when it makes the request itself."""
    if not exploration.cancelled():
        exploration.exception()


async def _explore(
    run: SearchRun, leaf: Node, path: str, certain: set[str], explored: set[tuple[str, int]]
) -> None:
    """Request what a simulation at `leaf` needs, and below it at the children in `certain`.

    `leaf` is a copy and `run` a run of its own; what they become is thrown away.
    """
    explored.add((leaf.path, leaf.attempts))
    n = run.config.children
    new = run.expand(leaf, await run.propose(leaf, n, leaf.attempts * n))
    prefix = f"{path}." if path else ""
    children = [(node, f"{prefix}{i}") for i, node in enumerate(new) if not node.terminal]
    deeper = [
        _explore(run, node, name, certain, explored) for node, name in children if name in certain
    ]
    await gather([*(_rollout(run, node) for node, _ in children), *deeper])


async def _rollout(run: SearchRun, node: Node) -> None:
    await run.rollout(node)


def certain_leaves(root: Node, config: SearchConfig, left: int, rng: random.Random) -> list[str]:
    """Return the paths that the last `left` simulations expand in every future, the next first.

    A child that does not exist yet has its number among the children that will be followed.
    """
    first = _simulate_future(root, config, left, rng)
    certain = set(first)
    for _ in range(FUTURES - 1):
        if certain:
            certain &= set(_simulate_future(root, config, left, rng))
    return [path for path in first if path in certain]


def _simulate_future(root: Node, config: SearchConfig, left: int, rng: random.Random) -> list[str]:
    """Return the paths of the leaves in the order in which one random future expands them.

    It proceeds as `mcts.search.simulate`, but all rollouts of a new child are right, or all are
    wrong, with equal probability: no real child differs more from its siblings.
    """
    future, bound = _FutureNode.copy(root, None), bound_of(config)
    expanded: list[str] = []
    while len(expanded) < left and future.free:
        width = min(config.wave, left - len(expanded))
        for leaf in select_wave(future, bound, width):
            mark_pending(leaf, -1)
            prefix = f"{leaf.path}." if leaf.path else ""
            for i in range(config.children):
                child = _FutureNode(f"{prefix}{i}", leaf)
                leaf.children.append(child)
                backpropagate(child, config.rollouts * (rng.random() < 0.5), config.rollouts)
            expanded.append(leaf.path)
    return expanded


class _FutureNode:
    """A `mcts.selection.uct.SearchNode`; created by the thousand, so smaller than a `Node`."""

    __slots__ = ("children", "open", "parent", "path", "pending", "total", "visits")

    def __init__(self, path: str, parent: _FutureNode | None, open: bool = True) -> None:
        self.path, self.parent, self.open = path, parent, open
        self.visits = self.pending = 0
        self.total = 0.0
        self.children: list[_FutureNode] = []

    @classmethod
    def copy(cls, node: Node, parent: _FutureNode | None) -> _FutureNode:
        """Copy a real node and all below it, without discarded nodes."""
        future = cls(node.path, parent, node.open)
        future.visits, future.total = node.visits, node.total
        followed = [child for child in node.children if not child.discarded]
        future.children = [cls.copy(child, future) for child in followed]
        return future

    @property
    def prior(self) -> None:
        """None: searches with a value model prefetch nothing."""

    @property
    def skipped(self) -> int:
        """0, for the same reason."""
        return 0

    @property
    def policy_prior(self) -> float:
        """1; searches with policy priors prefetch nothing."""
        return 1.0

    @property
    def unexpanded(self) -> bool:
        """As `Node.unexpanded`; searches that keep the steps of rollouts prefetch nothing."""
        return not self.children

    @property
    def free(self) -> bool:
        """As `Node.free`."""
        if not self.open:
            return False
        return any(child.free for child in self.children) if self.children else not self.pending
