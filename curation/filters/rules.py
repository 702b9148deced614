"""Filters say of each trace whether to keep it, and why; rejects are kept with their reasons.

    verdicts = judge(trace, question, FILTERS)
    kept = all(verdict.keep for verdict in verdicts)

A filter is a function of a trace and its question that returns a `Verdict`. One more, which is made
from the boxes in the question's images, is in `curation.filters.grounding`. Every filter sees every
trace, so that a reject's reasons are complete. Change what a filter decides and raise `VERSION`:
verdicts are stored with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Question, Trace, Verdict
from mcts.parsing import points_outside, revisits

VERSION = 2

Filter = Callable[[Trace, Question], Verdict]

# Two points closer than this share of the image's longer side are the same place.
SAME_PLACE = 0.01
# Problems that spoil a text as training material. `answer_forced` is not one: the answer tag was
# opened for the model, and what it wrote is well formed. The others have filters of their own.
_HARMLESS = frozenset({"answer_forced", "point_outside_image", "thought_without_point"})


def judge(trace: Trace, question: Question, filters: Sequence[Filter]) -> list[Verdict]:
    """What each of `filters` says of `trace`, in their order."""
    return [apply(trace, question) for apply in filters]


def right_answer(trace: Trace, question: Question) -> Verdict:
    """The grader gave the answer full marks."""
    name = "right_answer"
    if trace.reward is None:
        return Verdict(name, False, "the answer was not graded")
    if trace.answer is None:
        return Verdict(name, False, "no answer was given", trace.reward)
    keep = trace.reward >= 1.0
    return Verdict(name, keep, "" if keep else "the answer is wrong", trace.reward)


def well_formed(trace: Trace, question: Question) -> Verdict:
    """Every response it was cut from followed the format."""
    bad = sorted(set(trace.problems) - _HARMLESS)
    reason = f"the responses had: {', '.join(bad)}" if bad else ""
    if not trace.steps:
        reason = "it has no thought"
    return Verdict("well_formed", not reason, reason, float(len(bad)))


def point_in_every_step(trace: Trace, question: Question) -> Verdict:
    """Every thought cites a point; only a remark within a thought that does may go without."""
    steps = trace.steps
    if len(steps) > 1 and steps[-1].point is None:
        steps = steps[:-1]
    without = [i for i, step in enumerate(steps) if step.point is None]
    share = 1 - len(without) / len(steps) if steps else 0.0
    reason = ""
    if not steps:
        reason = "it has no thought"
    elif without:
        reason = f"step {without[0] + 1} cites no point"
    # A step ends with its point, so a thought without one was read as part of the next step.
    elif "thought_without_point" in trace.problems:
        reason = "a thought cites no point"
    return Verdict("point_in_every_step", not reason, reason, share)


def inside_image(trace: Trace, question: Question) -> Verdict:
    """Every point lies in its image."""
    frame = Frame.of(CoordinateSpace.original(), question)
    outside = points_outside(trace.points, frame)
    reason = ""
    if outside:
        point = outside[0]
        reason = f"({point.x:g}, {point.y:g}) is outside image {point.image + 1}"
    return Verdict("inside_image", not reason, reason, float(len(outside)))


def no_repeated_point(trace: Trace, question: Question) -> Verdict:
    """No step of a branch goes back to a place an earlier one cited, unless it says so.

    The wrong attempt of a corrected chain and the right one are two branches; what they share
    belongs to both.
    """
    frame = Frame.of(CoordinateSpace.original(), question)
    repeats = 0
    reason = ""
    for i, step in enumerate(trace.steps):
        if step.point is None or revisits(step.thought):
            continue
        for j in _before(trace, i):
            earlier = trace.steps[j].points
            if any(frame.same_place(a, b, SAME_PLACE) for a in step.points for b in earlier):
                repeats += 1
                reason = reason or f"step {i + 1} cites the place of step {j + 1} again"
                break
    return Verdict("no_repeated_point", not reason, reason, float(repeats))


def _before(trace: Trace, i: int) -> list[int]:
    """The steps before step `i` on its own branch."""
    wrong, turn = trace.wrong_from, trace.turns_back_at
    if wrong is None or turn is None or i < turn:
        return list(range(i))
    return [*range(wrong), *range(turn, i)]


FILTERS: tuple[Filter, ...] = (
    right_answer,
    well_formed,
    point_in_every_step,
    inside_image,
    no_repeated_point,
)
