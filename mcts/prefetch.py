"""Asking ahead: what a search is sure to want is asked for before it is its turn.

    tree = await search(question, config, policy, grade, tree_id, ahead=lambda: 8)

One simulation must know what the one before has earned, so a textbook search asks for one leaf at a
time and a server idles. But with few simulations and a wide bound (UCT's c is 2) most leaves get
their turn sooner or later, whatever is earned. So before a wave with a leaf that nobody has asked
for yet, some futures are played through to the last simulation, with answers to come right or wrong
as coins fall. A leaf that is expanded in all of them is asked for now, with its rollouts, and so
are its children where all futures expand those.

Nothing of it decides the tree. A place in it is asked for under the same name, with the same seed,
whenever that is, and the search takes only what it asks for itself: the tree, and what it counts as
spent, are the same without. What was asked for in vain is journaled like any answer, and counted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mcts.budget import Spent
from mcts.data import Step
from mcts.engine import RunningSearch
from mcts.samples import Policy, Sample, together
from mcts.teachers.base import TeacherError
from mcts.tree import Node, mark_pending, select_wave, uct

if TYPE_CHECKING:
    from mcts.search import SearchConfig

FUTURES = 12
"""How many are played through. With more of them, less is asked in vain and less is asked ahead."""
FAR = 32
"""Simulations that a future goes on for at most."""

Place = tuple[str, str, int]
"""Node, purpose and first sample: what names a request within a search."""


class Lookahead:
    """A policy that another one answers, for some leaves ahead of their turn."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._answers: dict[Place, asyncio.Future[Sequence[Sample]]] = {}
        self._wanted: set[Place] = set()
        self._explorations: list[asyncio.Future[None]] = []
        self.explored: set[tuple[str, int]] = set()
        """Leaves that are or were asked for ahead, by path and attempt."""

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> Sequence[Sample]:
        """The other policy's answer, taken up where it was asked for already."""
        self._wanted.add((node, purpose, first))
        return await self.ask(node, purpose, steps, n, first)

    async def ask(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int
    ) -> Sequence[Sample]:
        """As `sample`, for nobody yet."""
        place = (node, purpose, first)

        def ended(answer: asyncio.Future[Sequence[Sample]]) -> None:
            if answer.cancelled() or isinstance(answer.exception(), TeacherError | None):
                return
            self._answers.pop(place, None)  # no answer, a failure of ours: to be asked again

        if place not in self._answers:
            answer = asyncio.ensure_future(self._policy.sample(node, purpose, steps, n, first))
            answer.add_done_callback(ended)
            self._answers[place] = answer
        return await asyncio.shield(self._answers[place])

    def look(self, search: RunningSearch, most: int) -> None:
        """Ask for up to `most` leaves that are sure to come, if the next wave wants one of them."""
        config, tree = search.config, search.tree
        left = min(FAR, search.simulations_left())
        wave = select_wave(tree.root, config.exploration, min(config.wave, left))
        for leaf in wave:
            mark_pending(leaf, -1)
        if all((leaf.path, leaf.attempts) in self.explored for leaf in wave):
            return
        draw = random.Random(f"{tree.tree_id} {tree.simulations}")
        sure = certain(tree.root, config, left, draw)
        here = {leaf.path: leaf for leaf in tree.root.walk()}
        aside = RunningSearch(tree.question, config, _Aside(self), search.grade, tree.tree_id)
        for path in sure[:most]:
            if path not in here:
                continue  # a child of one of the others
            copy = replace(here[path], children=list(here[path].children))
            if (copy.path, copy.attempts) not in self.explored:
                exploring = asyncio.ensure_future(
                    _explore(aside, copy, path, set(sure[:most]), self.explored)
                )
                exploring.add_done_callback(_seen)
                self._explorations.append(exploring)

    async def close(self) -> Spent:
        """Withdraw what is under way; what was answered in vain."""
        under_way: list[asyncio.Future[Any]] = [*self._explorations, *self._answers.values()]
        for each in under_way:
            each.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        vain = Spent()
        for place in self._answers.keys() - self._wanted:
            vain.requests += 1
            answer = self._answers[place]
            if not answer.cancelled() and not answer.exception():
                for sample in answer.result():
                    for cost in sample.costs:
                        vain.add(cost)
        return vain


class _Aside:
    """A policy for exploring ahead: nobody wants its answers yet."""

    def __init__(self, lookahead: Lookahead) -> None:
        self._lookahead = lookahead

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> Sequence[Sample]:
        return await self._lookahead.ask(node, purpose, steps, n, first)


def _seen(exploring: asyncio.Future[None]) -> None:
    """A failure of ours meets whoever asks next as well; here nobody waits for it."""
    if not exploring.cancelled():
        exploring.exception()


async def _explore(
    search: RunningSearch,
    leaf: Node,
    path: str,
    sure: set[str],
    explored: set[tuple[str, int]],
) -> None:
    """Ask for all that a simulation at `leaf` asks for, and at those of its children in `sure`.

    `leaf` is a copy, and `search` nobody's: what becomes of them is thrown away.
    """
    explored.add((leaf.path, leaf.attempts))
    n = search.config.children
    new = search.expand(leaf, await search.propose(leaf, n, leaf.attempts * n))
    base = f"{path}." if path else ""
    below = [(node, f"{base}{i}") for i, node in enumerate(new) if not node.terminal]
    further = [_explore(search, node, name, sure, explored) for node, name in below if name in sure]
    await together([*(_finish(search, node) for node, _ in below), *further])


async def _finish(search: RunningSearch, node: Node) -> None:
    await search.roll_out(node)


def certain(root: Node, config: SearchConfig, left: int, draw: random.Random) -> list[str]:
    """Paths of the leaves that the last `left` simulations expand whatever they earn, next first.

    A child that is not there yet goes by its number among those that will be followed.
    """
    first = _future(root, config, left, draw)
    sure = set(first)
    for _ in range(FUTURES - 1):
        sure &= set(_future(root, config, left, draw)) if sure else sure
    return [path for path in first if path in sure]


def _future(root: Node, config: SearchConfig, left: int, draw: random.Random) -> list[str]:
    """Paths of the leaves in the order in which one imagined future expands them.

    It goes as `mcts.search.simulate` does, but each new child is either right in all its rollouts
    or wrong in all of them, as a coin falls: no real child differs more from its siblings.
    """
    imagined = _Imagined.of(root, None)
    expanded: list[str] = []
    while left > 0 and imagined.free:
        wave: list[_Imagined] = []
        while len(wave) < min(config.wave, left) and imagined.free:
            wave.append(imagined.select(config.exploration))
            wave[-1].pend(+1)
        for leaf in wave:
            leaf.pend(-1)
            leaf.expand(config.children, config.rollouts, draw)
            expanded.append(leaf.path)
        left -= len(wave)
    return expanded


class _Imagined:
    """What of a node decides where a simulation goes; made by the thousand, so it is no `Node`."""

    __slots__ = ("children", "open", "parent", "path", "pending", "total", "visits")

    def __init__(self, path: str, parent: _Imagined | None, open: bool = True) -> None:
        self.path, self.parent, self.open = path, parent, open
        self.visits = self.pending = 0
        self.total = 0.0
        self.children: list[_Imagined] = []

    @classmethod
    def of(cls, node: Node, parent: _Imagined | None) -> _Imagined:
        """A real node with all below it, but for what no simulation enters."""
        found = cls(node.path, parent, node.open)
        found.visits, found.total = node.visits, node.total
        followed = [child for child in node.children if not child.discarded]
        found.children = [cls.of(child, found) for child in followed]
        return found

    @property
    def free(self) -> bool:
        """As `Node.free`."""
        if not self.open:
            return False
        return any(child.free for child in self.children) if self.children else not self.pending

    def select(self, exploration: float) -> _Imagined:
        """As `mcts.tree.select`."""
        node = self
        while node.children:
            free = [child for child in node.children if child.free]
            node = max(free, key=partial(uct, node, exploration=exploration))
        return node

    def pend(self, change: int) -> None:
        node: _Imagined | None = self
        while node is not None:
            node.pending += change
            node = node.parent

    def expand(self, children: int, rollouts: int, draw: random.Random) -> None:
        """Hang new children here, and back up what their rollouts earn."""
        base = f"{self.path}." if self.path else ""
        for i in range(children):
            child = _Imagined(f"{base}{i}", self)
            self.children.append(child)
            earned = rollouts * (draw.random() < 0.5)
            node: _Imagined | None = child
            while node is not None:
                node.visits += rollouts
                node.total += earned
                node = node.parent
