"""Search trees become traces: straight lines of reasoning, and lines that turn back.

    traces = linearize(tree)

A *direct* chain is the path to one answer, right or wrong; filters decide later, with reasons. A
*corrected* chain walks a wrong attempt, says that it was wrong, and goes on with a right one
(ViGoRL, section 3.2). The two attempts part at some node of the tree, so the wrong one may be the
same node's other rollout, a sibling, or a branch that left much earlier; what they share is
written once. An attempt whose answer only misses the form is none to turn back from: the student
would learn to doubt what is right. Steps come out canonical: rendering a trace and parsing it gives
the same steps.

Trees that zoom give dialogues, whose words were written with the crops in view. A corrected one
looks in the wrong place first: behind the turn back its crops have other numbers, and it is made
only where each call would show the same in the joined dialogue, within the search's own limits.
What a thought tells of the crop before it is left out where another crop stands there now.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from curation.grading.grade import is_wrong_in_content
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Origin, Step, Trace
from mcts.parsing import THOUGHT_BREAK, points_in, split_steps
from mcts.tree import Node, Rollout, Tree
from mcts.zoom.observe import observe

# Raise one with every change of what it makes: curation makes the traces of old trees anew then.
MAKER = "linearize/3"
ZOOM_MAKER = "linearize/7"
"""Of trees that zoom: thoughts that tell what a crop shows stay apart, as the model wrote them;
behind a wrong attempt numbers of crops are raised, not of what one shows, and no thought tells of a
crop that is not the last one shown. Of all trees: what both attempts begin with is told once, and
no answer that only misses the form is turned back from."""

# How a chain says that its attempt was wrong; one is chosen by the chain's own content.
TURNING_BACK = (
    "Wait, that does not fit what I see. Let me look again.",
    "Something is off here. Let me go back and check again.",
    "Actually, this seems wrong. I will look again from there.",
    "Hold on, I should check this again.",
)
# "In this image 3 cups are visible" counts cups.
_NUMBERED = re.compile(
    r"(?P<one>\b(?:this|that|the|each|every|my|our|its|one|an?)\s+)?"
    r"\b(?P<noun>image|picture|crop|view)\s+(?P<number>\d{1,3})\b",
    re.IGNORECASE,
)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")

Piece = tuple[Step, Origin]
"""A step with where it came from."""
Pieces = Sequence[Piece]


@dataclass(frozen=True, slots=True)
class End:
    """One place where the tree reached an answer: a terminal node or a rollout."""

    node: Node
    """The terminal node, or the one the rollout started from."""
    rollout: Rollout | None
    answer: str | None
    reward: float | None
    problems: tuple[str, ...]

    @property
    def path(self) -> list[Node]:
        return self.node.lineage()

    def after(self, node: Node) -> list[Piece]:
        """Return the steps below `node`, which is on this end's path, with their origins."""
        below = self.path[self.path.index(node) + 1 :]
        steps = [
            (n.step, Origin(n.node_id, None, n.response_id)) for n in below if n.step is not None
        ]
        if self.rollout is not None:
            turn, responses = 0, self.rollout.response_ids
            for step in self.rollout.steps:
                made = Origin(self.node.node_id, self.rollout.rollout_id, responses[turn])
                steps.append((step, made))
                # What an observation answers ends a response.
                turn = min(turn + (step.observation is not None), len(responses) - 1)
        return steps


def linearize(tree: Tree, right: float = 1.0) -> list[Trace]:
    """Cut every direct chain of a tree, and for each right one at most one corrected chain.

    Args:
        right: the least reward that counts as a right answer.

    Order follows node and rollout numbers, so the same tree gives the same list.
    """
    ends = ends_of(tree)
    traces = [direct_trace(tree, end) for end in ends]
    wrong = [
        (end, end.after(tree.root))
        for end in ends
        if end.reward is not None
        and end.reward < right
        and is_wrong_in_content(tree.question, end.answer)
    ]
    for end in ends:
        if end.reward is not None and end.reward >= right:
            corrected = _corrected(tree, end, wrong)
            if corrected is not None:
                traces.append(corrected)
    # Two rollouts that answer at once are the same line of reasoning: one trace.
    return list({trace.trace_id: trace for trace in reversed(traces)}.values())[::-1]


def ends_of(tree: Tree) -> list[End]:
    """Find where the tree reached answers, by node and rollout number, without discarded nodes."""
    ends = []
    for node in tree.nodes:
        if node.terminal and not node.discarded:
            problems = tuple(p for n in node.lineage() for p in n.problems)
            ends.append(End(node, None, node.answer, node.reward, problems))
        for rollout in node.rollouts:
            problems = tuple(p for n in node.lineage() for p in n.problems) + rollout.problems
            ends.append(End(node, rollout, rollout.answer, rollout.reward, problems))
    return ends


def direct_trace(tree: Tree, end: End) -> Trace:
    """Cut the direct chain from the question to an end."""
    steps, origins, _ = canonical(end.after(tree.root), frozenset())
    return Trace(
        question_id=tree.question.question_id,
        steps=steps,
        answer=end.answer,
        reward=end.reward,
        # A line that never looks is a dialogue too, where it might have looked.
        kind="zoom" if zooms(tree) else "direct",
        tree_id=tree.tree_id,
        origins=origins,
        problems=end.problems,
        maker=maker_of(tree),
    )


def _corrected(tree: Tree, end: End, wrong: Sequence[tuple[End, Pieces]]) -> Trace | None:
    """Return the right `end` behind a wrong attempt that parted from it as late as possible.

    Latest first, because a mistake seen near where it was made teaches the most; among equals the
    tree's content decides, so that the choice is neither always the first nor a matter of chance.
    Attempts part where their steps differ, whether the tree holds what they share once or twice.
    """
    line = end.after(tree.root)
    candidates = []
    for other, attempt in wrong:
        same = takewhile(lambda pair: pair[0][0] == pair[1][0], zip(line, attempt, strict=False))
        n = sum(1 for _ in same)
        if _points(line[n:]) and _points(attempt[n:]):
            candidates.append((n, other, attempt[n:]))
    candidates.sort(key=lambda found: (-found[0], draw(tree, end, found[1])))
    for n, other, attempt in candidates:
        sentence = TURNING_BACK[draw(tree, end, other) % len(TURNING_BACK)]
        shared, good = line[:n], line[n:]
        told = _shown_anew(tree, shared, attempt, good)
        if told is None:
            continue
        first, made = told[len(shared) + len(attempt)]
        if _shown_last(shared) and any(step.observation for step, _ in attempt):
            told_of = _without_telling(first)
            if told_of is None:
                continue
            first = told_of
        turned = replace(first, thought=f"{sentence} {first.thought}".rstrip())
        told[len(shared) + len(attempt)] = (turned, made)
        marks = frozenset({len(shared), len(shared) + len(attempt)})
        steps, origins, moved = canonical(told, marks)
        problems = other.problems
        if zooms(tree):  # the wrong attempt's answer, forced or not, is not told
            problems = tuple(problem for problem in problems if problem != "answer_forced")
        return Trace(
            question_id=tree.question.question_id,
            steps=steps,
            answer=end.answer,
            reward=end.reward,
            kind="corrected",
            tree_id=tree.tree_id,
            origins=origins,
            wrong_from=moved[len(shared)],
            turns_back_at=moved[len(shared) + len(attempt)],
            problems=tuple(dict.fromkeys((*problems, *end.problems))),
            maker=maker_of(tree),
        )
    return None


def maker_of(tree: Tree) -> str:
    """Return what cuts a tree's traces, and in which version."""
    return ZOOM_MAKER if zooms(tree) else MAKER


def zooms(tree: Tree) -> bool:
    """Return whether a tree's steps may look closer."""
    return tree.zoom is not None


def _shown_anew(tree: Tree, shared: Pieces, attempt: Pieces, good: Pieces) -> list[Piece] | None:
    """Join two attempts; None if a call would not show the same behind what was joined.

    Crops of the second attempt get the numbers that follow those of the first, in its calls and in
    its words too.
    """
    if tree.zoom is None:
        return [*shared, *attempt, *good]
    frame = Frame.of(CoordinateSpace.original(), tree.question)
    first = len(frame.images) + _crops(shared)
    shift = _crops(attempt)
    told: list[Piece] = []
    for i, (step, made) in enumerate((*shared, *attempt, *good)):
        if i >= len(shared) + len(attempt):
            seen = good[: i - len(shared) - len(attempt)]
            step = _renumbered(step, first, shift, first + _crops(seen))
        if step.call is not None and step.observation is not None:
            before = [earlier for earlier, _ in told]
            shown = observe(frame, before, step.call, tree.zoom)
            asked = any(earlier.observation and earlier.observation.last for earlier in before)
            if asked or (shown.crop, shown.problem) != (
                step.observation.crop, step.observation.problem,
            ):  # fmt: skip
                return None
            step = replace(step, observation=shown)
        told.append((step, made))
    return told


def _shown_last(pieces: Pieces) -> bool:
    """Return whether an observation is what stands last."""
    return bool(pieces) and pieces[-1][0].observation is not None


def _without_telling(step: Step) -> Step | None:
    """Return a step without what it tells of the crop before it: all before the sentence that
    points, or before its call; None if it neither points nor calls, or does so from its beginning.
    """
    *telling, rest = step.thought.split(THOUGHT_BREAK)
    if not telling:
        sentences = _SENTENCE_END.split(step.thought)
        at = next((i for i, one in enumerate(sentences) if points_in(one)), len(sentences))
        telling, rest = sentences[:at], " ".join(sentences[at:])
    if not telling or any(map(points_in, telling)) or not (step.call or points_in(rest)):
        return None
    return replace(step, thought=rest)


def _crops(pieces: Pieces) -> int:
    return sum(
        step.observation is not None and step.observation.crop is not None for step, _ in pieces
    )


def _renumbered(step: Step, first: int, shift: int, known: int) -> Step:
    """Raise the numbers of a step's crops, which begin behind `first`, by `shift`.

    Args:
        known: how many images and crops it was shown, so that a larger number is none of theirs.
    """

    def moved(found: re.Match[str]) -> str:
        number = int(found["number"])
        if found["one"] or not first < number <= known:
            return found[0]
        return f"{found['noun']} {number + shift}"

    call = step.call
    if call is not None and call.view >= first:
        call = replace(call, view=call.view + shift)
    return replace(step, thought=_NUMBERED.sub(moved, step.thought), call=call)


def _points(pieces: Pieces) -> bool:
    """Return whether any of these steps points; an attempt that never looked teaches nothing."""
    return any(
        step.point is not None or (step.call is not None and step.observation is not None)
        for step, _ in pieces
    )


def draw(tree: Tree, *ends: End) -> int:
    """Return a number that depends only on which ends of which tree are meant."""
    names = [(e.node.node_id, e.rollout.rollout_id if e.rollout else None) for e in ends]
    digest = hashlib.blake2b(repr((tree.tree_id, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def canonical(
    pieces: Pieces, marks: frozenset[int]
) -> tuple[tuple[Step, ...], tuple[Origin, ...], dict[int, int]]:
    """Cut and join thoughts so that each step ends with the sentence of its point.

    A remark behind a point belongs to the next step, as the parser would read it, but stays where
    it is before a call that was answered: what comes next was written with the crop in view. A
    call that nothing answered is left out. Returns the steps, their origins, and where the pieces
    numbered in `marks` went.
    """
    steps: list[Step] = []
    origins: list[Origin] = []
    moved: dict[int, int] = {}
    remark = ""
    for i, (step, origin) in enumerate(pieces):
        if i in marks:
            moved[i] = len(steps)
        tells = bool(steps) and steps[-1].observation is not None
        between = THOUGHT_BREAK if tells else "\n"
        thought = f"{remark}{between}{step.thought}" if remark else step.thought
        for part in split_steps(thought, step.points):
            remark = ""
            if part.point is None:
                remark = part.thought
            else:
                steps.append(part)
                origins.append(origin)
        if step.call is not None and step.observation is not None:
            # A turn may hold a call alone, behind another's observation.
            if remark or not steps or steps[-1].observation is not None:
                steps.append(Step(remark))
                origins.append(origin)
                remark = ""
            steps[-1] = replace(steps[-1], call=step.call, observation=step.observation)
    if remark:
        steps.append(Step(remark))
        origins.append(pieces[-1][1])
    return tuple(steps), tuple(origins), moved
