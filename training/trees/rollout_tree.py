"""A question's answers as a tree: chains from the question, and forks between their steps.

    tree = RolloutTree()
    leaf = tree.add(tree.root, tokens, entropies, step_ends(pieces), learned=True)
    for place in choose_forks(tree, tokens_left=300, most=4): ...      # sample on from each, add it
    grade_leaves(tree, rewards)
    step.advantage, leaf_masks(tree)

A node is a step: the tokens up to the end of a think block, or the answer; of a student that zooms
a turn, with what its call showed. A completion is the steps from the root to a leaf; siblings share
what is above them, token by token. Statistics are those of the search (`mcts.tree`): leaves'
rewards are backpropagated by the same function, and a node is named by the same path.

Where to fork: TreeRL (Hou et al. 2025, 2506.11902, section 3.1) forks at the tokens of the highest
entropy and finds more right answers a token than chains do. Here a fork is at a step's boundary, as
in Tree-GRPO (Ji et al. 2025, 2509.21240), by the mean entropy of the steps that follow; divided by
their number, so that a place that was forked before must be that much more uncertain.

What a step earns (TreeRL, section 3.2): V is the mean reward of the leaves beneath a node, and its
advantage the mean of two differences: V minus the root's V (global: between chains), and V minus
the V of the nearest fork above (local: within a chain's forks). Steps between two forks are one
node there, so they earn the same here. Without forks both differences are the reward minus the
group's mean: a tree without forks is GRPO's group.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

from mcts.selection.uct import backpropagate

END_OF_STEP = "</think>"


@dataclass(slots=True, eq=False)
class SampledStep:
    """A step as it was sampled, with its statistics (a `mcts.selection.uct.Counted`)."""

    path: str
    """Child numbers from the root, such as `0.2.1`; the root's is empty."""
    parent: SampledStep | None
    tokens: tuple[int, ...] = ()
    shown: int = 0
    """How many of these, its last, it was shown by its call: they cost nothing."""
    entropy: float = 0.0
    """Mean entropy of the tokens it wrote, in nats."""
    learned: bool = True
    """Of a leaf: whether its completion is learned from, and not masked since it hit a limit."""
    visits: int = 0
    """Graded leaves beneath it, itself included."""
    total: float = 0.0
    """Sum of their rewards."""
    pending: int = 0
    children: list[SampledStep] = field(default_factory=list)

    @property
    def value(self) -> float | None:
        """Mean reward of the leaves beneath it; None without graded ones."""
        return self.total / self.visits if self.visits else None

    @property
    def advantage(self) -> float:
        """Mean of its global and its local advantage; 0 where it has no value."""
        value, fork, root = self.value, self.fork.value, self.lineage()[0].value
        if value is None or fork is None or root is None:
            return 0.0
        return ((value - root) + (value - fork)) / 2

    @property
    def fork(self) -> SampledStep:
        """The nearest node above from which several samples go on; the root where none does."""
        above = self.parent or self
        return above if len(above.children) > 1 or above.parent is None else above.fork

    def lineage(self) -> list[SampledStep]:
        """Return the nodes from the root to this one."""
        above = self.parent.lineage() if self.parent else []
        return [*above, self]

    def walk(self) -> Iterator[SampledStep]:
        """Yield this node and all below it, parents first, siblings in order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def completion(self) -> list[int]:
        """Return all tokens from the root to the end of this step."""
        return [token for step in self.lineage() for token in step.tokens]

    @property
    def written(self) -> int:
        """Tokens that were sampled from the root to the end of this step."""
        return sum(len(step.tokens) - step.shown for step in self.lineage())


class RolloutTree:
    """The answers to one question."""

    def __init__(self) -> None:
        self.root = SampledStep("", None)
        self.leaves: list[SampledStep] = []
        """In the order in which they were sampled."""
        self.budget = math.inf
        """Tokens that may be sampled."""

    @property
    def tokens(self) -> int:
        """Tokens sampled: what leaves share is counted once."""
        return sum(len(step.tokens) - step.shown for step in self.root.walk())

    @property
    def chain_tokens(self) -> int:
        """Tokens that its leaves would have cost as chains of their own."""
        return sum(leaf.written for leaf in self.leaves)

    def add(
        self, place: SampledStep, tokens: Sequence[int], entropies: Sequence[float],
        ends: Sequence[int], learned: bool, shown: Sequence[int] = (),
    ) -> SampledStep:  # fmt: skip
        """Add a sample below `place`, a node a step; return its leaf.

        Args:
            entropies: of each token, in nats.
            ends: after how many tokens each step ends; the last one is their number.
            learned: whether the sample is learned from; one that was cut off is not.
            shown: how many of each step's last tokens it was shown; none when left out.
        """
        node = place
        for (begin, end), seen in zip(pairwise([0, *ends]), shown or [0] * len(ends), strict=True):
            path = child_path(node, len(node.children))
            entropy = fmean(entropies[begin : end - seen])
            step = SampledStep(path, node, tuple(tokens[begin:end]), seen, entropy)
            node.children.append(step)
            node = step
        node.learned = learned
        self.leaves.append(node)
        return node


def child_path(place: SampledStep, number: int) -> str:
    """Name a node's child, as the search does."""
    return f"{place.path}.{number}" if place.path else str(number)


def step_ends(pieces: Sequence[str]) -> list[int]:
    """Return after how many tokens each step of a sample ends, all of them for the last one.

    Args:
        pieces: the text of each token; a tag may be one token, several, or part of one.
    """
    text, ends, seen = "", [], 0
    for number, piece in enumerate(pieces, 1):
        text += piece
        if (at := text.find(END_OF_STEP, seen)) >= 0:
            seen = at + len(END_OF_STEP)
            ends.append(number)
    return ends if ends and ends[-1] == len(pieces) else [*ends, len(pieces)]


def choose_forks(tree: RolloutTree, tokens_left: float, most: int) -> list[SampledStep]:
    """Choose up to `most` places to sample on from, the most uncertain first.

    A place is a step that was not the last one; it may be chosen twice. It is passed over where
    going on from it is expected to write more than is left: as much as behind it on average.
    """
    chosen: list[SampledStep] = []
    places = [step for step in tree.root.walk() if step.parent is not None and step.children]
    beneath = {place: _tokens_beneath(tree, place) for place in places}
    entropies = {place: fmean(child.entropy for child in place.children) for place in places}
    times: Counter[SampledStep] = Counter({place: len(place.children) for place in places})
    while len(chosen) < most:
        places = [p for p in places if beneath[p] <= tokens_left and entropies[p] > 0]
        if not places:
            break
        place = max(places, key=lambda p: entropies[p] / times[p])
        chosen.append(place)
        times[place] += 1
        tokens_left -= beneath[place]
    return chosen


def further_chains(tree: RolloutTree, tokens_left: float, most: int) -> list[SampledStep]:
    """Return the root once for each further chain, `most` at most, that is expected to fit.

    They spend what forks can't: an answer of one step has no place between steps.
    """
    length = fmean(leaf.written for leaf in tree.leaves)
    fit = max(0.0, tokens_left) / max(1.0, length)
    return [tree.root] * int(min(most, fit))


def _tokens_beneath(tree: RolloutTree, place: SampledStep) -> float:
    """Return how many tokens a completion writes behind a place, on average."""
    behind = [leaf for leaf in tree.leaves if place in leaf.lineage()]
    return fmean(leaf.written - place.written for leaf in behind)


def grade_leaves(tree: RolloutTree, rewards: Sequence[float]) -> None:
    """Backpropagate the leaves' rewards; NaN is none."""
    for leaf, reward in zip(tree.leaves, rewards, strict=True):
        if not math.isnan(reward):
            backpropagate(leaf, reward)


def leaf_masks(tree: RolloutTree) -> list[list[int]]:
    """Return for each leaf which of its completion's tokens are learned from: 1 or 0 a token.

    A step is learned from once, in the first completion through it that is: one cut off at a limit
    is masked as a whole. What a step was shown is masked in all. For a loss that averages tokens
    that is the same as learning from a step in each of its k leaves with a weight of 1/k, since its
    tokens have the same probabilities and the same advantage in all of them, and the KL term and
    the number of tokens that the loss is divided by come out right as well. TreeRL divides by
    sqrt(k), because there a prefix is repeated in each leaf's sequence.
    """
    learned: set[SampledStep] = set()
    masks = []
    for leaf in tree.leaves:
        new = {step for step in leaf.lineage() if leaf.learned} - learned
        learned |= new
        masks.append(
            [
                int(step in new and number < len(step.tokens) - step.shown)
                for step in leaf.lineage()
                for number in range(len(step.tokens))
            ]
        )
    return masks


def leaf_advantages(tree: RolloutTree) -> list[list[float]]:
    """Return for each leaf the advantage of each token of its completion, in units of reward."""
    return [
        [step.advantage for step in leaf.lineage() for _ in step.tokens] for leaf in tree.leaves
    ]
