"""The search tree: nodes that hold one step each, their statistics, and their rows.

    tree.root.children[0].value                    # mean reward behind a first step
    rows = flatten(tree)                           # plain dicts, parent by number
    same = rebuild(tree_id, question, rows, texts, frame)   # texts: raw responses by id

A node is a thought, or a final answer (then it is terminal). A step that the search does not
follow (a repeated point, a copy of its sibling) stays in the tree as a discarded node with its
reason, so that no response disappears.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any

from mcts.budget import Usage
from mcts.coordinates import Frame
from mcts.data import Point, Question, Step
from mcts.parsing import fold_remark, parse
from mcts.selection.uct import backpropagate
from mcts.zoom.config import ZoomConfig
from mcts.zoom.episode import replay
from mcts.zoom.rows import call_from, observation_from, zoom_columns

# A node whose samples were all discarded is expanded once more, with new seeds, then given up.
EXPANSION_ATTEMPTS = 2
_FORMER_POINT = re.compile(
    r"\(\s*(-?\d{1,7}(?:\.\d{1,6})?)\s*,\s*(-?\d{1,7}(?:\.\d{1,6})?)\s*\)"
    r"(?:\s+in\s+image\s+(\d{1,3})\b)?",
    re.IGNORECASE,
)


@dataclass(slots=True, eq=False)
class Rollout:
    """A continuation from a node to an answer, sampled in one request."""

    steps: tuple[Step, ...]
    """Its steps beyond the node's own path."""
    answer: str | None
    reward: float | None
    """The grader's score; None when the rollout could not be sampled or graded."""
    reason: str
    """The grader's reason, or the failure's."""
    response_ids: tuple[str, ...]
    """The response it was sampled in, or one a turn; then the one that forced its answer, if one
    did."""
    sample: int
    problems: tuple[str, ...] = ()
    rollout_id: int = -1
    """Counted from 0 within the tree; assigned when it is recorded."""
    turn_steps: tuple[int, ...] = ()
    """How many of its steps each response has; known in the search, not stored."""


@dataclass(slots=True, eq=False)
class Node:
    """One step of reasoning, or one final answer, with its statistics."""

    node_id: int
    """Counted from 0 (the root) in order of creation."""
    path: str
    """Child numbers from the root, such as `0.2.1`; the root's is empty."""
    parent: Node | None
    step: Step | None = None
    """The thought; None for the root and for terminal nodes."""
    answer: str | None = None
    """The final answer of a terminal node."""
    response_id: str | None = None
    sample: int | None = None
    discarded: str | None = None
    """Why the search does not follow it; None for a node it does."""
    problems: tuple[str, ...] = ()
    reward: float | None = None
    """Terminal nodes: the grader's score."""
    reason: str = ""
    visits: int = 0
    total: float = 0.0
    """Sum of the rewards backpropagated through it."""
    pending: int = 0
    """Simulations of the current wave that are in flight below it (virtual loss)."""
    prior: float | None = None
    """What a value model says of it (`mcts.selection.value_model`); not stored."""
    mean_logprob: float | None = None
    """Of the tokens of its response, in nats; None where unknown. Stored with the response."""
    policy_prior: float = 1.0
    """How likely the teacher says it, beside its siblings (`mcts.selection.policy_prior`)."""
    skipped: int = 0
    """Answers that were not sampled from it, since siblings have higher values; not stored."""
    kept: bool = False
    """Whether it is of a rollout whose steps were kept; known in the search, not stored."""
    attempts: int = 0
    """How often it was expanded."""
    children: list[Node] = field(default_factory=list)
    rollouts: list[Rollout] = field(default_factory=list)

    @property
    def terminal(self) -> bool:
        """Whether the node is a final answer."""
        return self.answer is not None

    @property
    def depth(self) -> int:
        """Steps from the root, which has depth 0."""
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def rewards(self) -> list[float]:
        """The node's own rewards: its answer's, or its rollouts'."""
        rewards = [self.reward] if self.terminal else [r.reward for r in self.rollouts]
        return [reward for reward in rewards if reward is not None]

    @property
    def value(self) -> float | None:
        """Mean reward backpropagated through the node; None before the first."""
        return self.total / self.visits if self.visits else None

    @property
    def unexpanded(self) -> bool:
        """Whether it was never expanded: what is below it, if anything, was kept of rollouts."""
        return not self.attempts and all(child.kept for child in self.children)

    @property
    def open(self) -> bool:
        """Whether another simulation could still learn something below this node."""
        if self.terminal or self.discarded:
            return False
        followed = [child for child in self.children if not child.discarded]
        if not followed or self.unexpanded:
            return self.attempts < EXPANSION_ATTEMPTS
        return any(child.open for child in followed)

    @property
    def free(self) -> bool:
        """Whether another simulation of the current wave could still start below this node."""
        if not self.open:
            return False
        followed = [child for child in self.children if not child.discarded]
        if not followed or self.unexpanded:
            return not self.pending
        return any(child.free for child in followed)

    def child_with(self, step: Step) -> Node | None:
        """Return the child that the search follows and that holds `step`; None if there is none."""
        same = (child for child in self.children if child.step == step and not child.discarded)
        return next(same, None)

    def lineage(self) -> list[Node]:
        """Return the nodes from the root to this one."""
        above = self.parent.lineage() if self.parent else []
        return [*above, self]

    def steps(self) -> tuple[Step, ...]:
        """Return the steps from the root to this node."""
        return tuple(node.step for node in self.lineage() if node.step is not None)

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, parents first, siblings in order."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(slots=True, eq=False)
class Tree:
    """The result of a search."""

    tree_id: str
    """The search id: hash of question, configuration, seed, prompt and teacher."""
    question: Question
    root: Node
    simulations: int = 0
    """Simulations completed; of a baseline, chains sampled; of `auto`, both."""
    errors: tuple[str, ...] = ()
    """Final failures of single requests, in order; each cost its own branch only."""
    stopped_by: str | None = None
    """Why it ended before its last simulation: `explored` (every branch ended), `enough` (right
    lines of reasoning), `sampled` (`auto` found a right chain), or the limit reached: `tokens`,
    `requests`, `seconds`."""
    usage: Usage = field(default_factory=Usage)
    """Cost of its requests; known during the search, not stored with the tree."""
    request_keys: set[tuple[str, str, int]] | None = None
    """Node path, purpose and first sample of every request it was made of; None if unknown."""
    unused_prefetch: Usage = field(default_factory=Usage)
    """Cost of prefetched answers that were not used; no part of `usage`, nor of the tree."""
    zoom: ZoomConfig | None = None
    """How its steps may look closer; None where they may not."""

    @property
    def nodes(self) -> list[Node]:
        """All nodes by `node_id`."""
        return sorted(self.root.walk(), key=lambda node: node.node_id)

    @property
    def rollouts(self) -> list[Rollout]:
        """All rollouts by `rollout_id`."""
        every = (rollout for node in self.root.walk() for rollout in node.rollouts)
        return sorted(every, key=lambda rollout: rollout.rollout_id)

    @property
    def failed(self) -> bool:
        """Whether no reward arrived at all."""
        return self.root.visits == 0

    def outcomes(self) -> list[tuple[str, float]]:
        """Return every graded (answer, reward): terminal nodes, then rollouts."""
        ends = [(node.answer, node.reward) for node in self.nodes if not node.discarded]
        ends += [(rollout.answer, rollout.reward) for rollout in self.rollouts]
        return [(a, r) for a, r in ends if a is not None and r is not None]

    def right_lines(self) -> int:
        """Count the distinct lines of reasoning that lead to a fully right answer.

        Two lines are the same when they give the same answer and cite, or call for, the same pixels
        in the same order, whatever their words; a line without points does not count. Corrected
        chains are made of these lines and are not counted.
        """
        lines = set()

        def add(steps: tuple[Step, ...], answer: str | None, reward: float | None) -> None:
            cited = [p for s in steps for p in (*s.points, *([s.call.point] if s.call else []))]
            points = tuple((p.image, round(p.x), round(p.y)) for p in cited if p is not None)
            if points and answer is not None and reward is not None and reward >= 1.0:
                lines.add((points, " ".join(answer.split()).casefold()))

        for node in self.root.walk():
            if not node.discarded:
                add(node.steps(), node.answer, node.reward)
            for rollout in node.rollouts:
                add(node.steps() + rollout.steps, rollout.answer, rollout.reward)
        return len(lines)


@dataclass(frozen=True, slots=True)
class TreeRows:
    """A tree as flat rows: what the warehouse's `nodes` and `rollouts` tables hold."""

    nodes: list[dict[str, Any]]
    rollouts: list[dict[str, Any]]


def flatten(tree: Tree) -> TreeRows:
    """Convert a tree to rows: nodes and rollouts in order of their ids, parents by number."""
    nodes: list[dict[str, Any]] = []
    rollouts: list[dict[str, Any]] = []
    for node in tree.nodes:
        point = node.step.point if node.step else None
        nodes.append(
            {
                "tree_id": tree.tree_id,
                "node_id": node.node_id,
                "parent_id": node.parent.node_id if node.parent else None,
                "path": node.path,
                "depth": node.depth,
                "thought": node.step.thought if node.step else None,
                "x": point.x if point else None,
                "y": point.y if point else None,
                "image": point.image if point else None,
                "points": [asdict(p) for p in node.step.points] if node.step else None,
                "visits": node.visits,
                "value": node.value,
                "terminal": node.terminal,
                "answer": node.answer,
                "reward": node.reward,
                "grade_reason": node.reason,
                "discarded": node.discarded,
                "problems": list(node.problems),
                "attempts": node.attempts,
                "response_id": node.response_id,
                "sample": node.sample,
                **zoom_columns(node.step, tree.question),
            }
        )
        rollouts.extend(
            {
                "tree_id": tree.tree_id,
                "node_id": node.node_id,
                "rollout_id": rollout.rollout_id,
                "answer": rollout.answer,
                "reward": rollout.reward,
                "grade_reason": rollout.reason,
                "n_steps": len(rollout.steps),
                "response_ids": list(rollout.response_ids),
                "sample": rollout.sample,
                "problems": list(rollout.problems),
            }
            for rollout in node.rollouts
        )
    rollouts.sort(key=lambda row: row["rollout_id"])
    return TreeRows(nodes, rollouts)


def rebuild(
    tree_id: str,
    question: Question,
    rows: TreeRows,
    texts: Mapping[str, str],
    frame: Frame,
    simulations: int = 0,
    errors: Sequence[str] = (),
    zoom: ZoomConfig | None = None,
    cut_off: Set[str] = frozenset(),
) -> Tree:
    """Rebuild the tree from `flatten`'s rows; statistics are recomputed from the rewards.

    Args:
        texts: raw response texts by response id; rollouts only refer to them.
        frame: the teacher's coordinate space and the question's images, to parse those texts.
        zoom: the search's, by which what the calls of rollouts showed is found again.
        cut_off: ids of responses that their token limit ended; matters with `zoom` only.

    Raises:
        KeyError: a rollout's response is not among `texts`.
    """
    nodes: dict[int, Node] = {}
    for row in sorted(rows.nodes, key=lambda row: row["node_id"]):
        parent = nodes[row["parent_id"]] if row["parent_id"] is not None else None
        node = Node(
            node_id=row["node_id"],
            path=row["path"],
            parent=parent,
            step=_step_of(row) if row["thought"] is not None else None,
            answer=row["answer"],
            response_id=row["response_id"],
            sample=row["sample"],
            discarded=row["discarded"],
            problems=tuple(row["problems"] or ()),
            reward=row["reward"],
            reason=row["grade_reason"] or "",
            attempts=row["attempts"],
        )
        nodes[node.node_id] = node
        if parent is not None:
            parent.children.append(node)
    for row in sorted(rows.rollouts, key=lambda row: row["rollout_id"]):
        node = nodes[row["node_id"]]
        steps = _rollout_steps(row, node, texts, frame, zoom, cut_off)
        node.rollouts.append(_rebuild_rollout(row, steps))
    for node in nodes.values():
        for reward in node.rewards:
            backpropagate(node, reward)
    return Tree(tree_id, question, nodes[0], simulations, tuple(errors), zoom=zoom)


def _step_of(row: Mapping[str, Any]) -> Step:
    call, observation = call_from(row.get("call")), observation_from(row.get("observation"))
    return Step(row["thought"], _points_of(row), call, observation)


def _points_of(row: Mapping[str, Any]) -> tuple[Point, ...]:
    stored = row.get("points")
    if stored is None:  # rows of older code have none: it took every pair for a point
        return tuple(
            Point(float(found[1]), float(found[2]), int(found[3] or 1) - 1)
            for found in _FORMER_POINT.finditer(row["thought"])
        )
    return tuple(Point(**point) for point in stored)


def _rollout_steps(
    row: Mapping[str, Any], node: Node, texts: Mapping[str, str], frame: Frame,
    zoom: ZoomConfig | None, cut_off: Set[str],
) -> tuple[Step, ...]:  # fmt: skip
    """Read a rollout's steps again from what was written in them."""
    ids = tuple(row["response_ids"] or ())
    if not row["n_steps"]:
        return ()
    if zoom is None:
        parsed = parse(texts[ids[0]], frame)
        steps = fold_remark(parsed.steps) if parsed.answer is not None else parsed.steps
    else:
        said = [(texts[name], "length" if name in cut_off else "stop") for name in ids]
        steps = replay(said, frame, zoom, node.steps())
    return steps[: row["n_steps"]]


def _rebuild_rollout(row: Mapping[str, Any], steps: tuple[Step, ...]) -> Rollout:
    return Rollout(
        rollout_id=row["rollout_id"],
        steps=steps,
        answer=row["answer"],
        reward=row["reward"],
        reason=row["grade_reason"] or "",
        response_ids=tuple(row["response_ids"] or ()),
        sample=row["sample"],
        problems=tuple(row["problems"] or ()),
    )
