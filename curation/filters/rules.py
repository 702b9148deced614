"""Filters that follow from the trace and its question alone.

    verdicts = apply_filters(trace, question, FILTERS)
    kept = all(verdict.keep for verdict in verdicts)

`curation.filters.grounding` has one more, which needs the boxes in the question's images. Change
what a filter decides and raise `VERSION`: verdicts are stored with it.
"""

from __future__ import annotations

import re
from itertools import product

from pydantic import Field

from curation.filters.base import Context, TraceFilter
from curation.filters.words import words_of
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Question, Step, Trace, Verdict
from mcts.parsing import points_outside, revisits, sentences
from mcts.places.decide import is_unread
from mcts.strict_yaml import shorten

VERSION = 4
MAKER = f"rules/{VERSION}"
REPEAT_RADIUS = 0.01
"""Two points closer than this share of the image's longer side are the same place."""


class RightAnswer(TraceFilter):
    """The grader gave the answer full marks."""

    name = "right_answer"
    maker = MAKER
    min_reward: float = Field(default=1.0, ge=0, le=1, description="the grader's score, 0 to 1")

    def apply(self, trace: Trace, question: Question, context: Context) -> Verdict:
        if trace.reward is None:
            return Verdict(self.name, False, "the answer was not graded")
        if trace.answer is None:
            return Verdict(self.name, False, "no answer was given", trace.reward)
        keep = trace.reward >= self.min_reward
        return Verdict(self.name, keep, "" if keep else "the answer is wrong", trace.reward)


# A control token, a tag or a call in the middle of words, and a place that ends halfway.
_BROKEN = re.compile(
    r"<\|\w+\|>|</?(?:think|answer|tool_\w+)>|\{\s*\"(?:coordinate|bbox_2d|arguments)"
    r"|\(\s*-?\d+(?:\.\d+)?\s*,\s*-?\d+(?:\.\d+)?\s+(?=[^\W\d])[^()]*(?:\(|$)"
)


_LONGEST_LOOP = 3  # sentences


class WellFormed(TraceFilter):
    """Every response that the trace was cut from followed the format; none broke off or ran in a
    loop."""

    name = "well_formed"
    maker = MAKER
    # `answer_forced`: the answer tag was opened for the model, and what it wrote is well formed. In
    # a trace that zooms it counts: nobody should learn to look until the limit.
    # The others have filters of their own.
    ignored_problems: tuple[str, ...] = Field(
        default=("answer_forced", "point_outside_image", "thought_without_point"),
        description="problems of the parser, one word each, that are let through",
    )
    min_steps: int = Field(default=1, ge=0, description="steps of the trace")

    def apply(self, trace: Trace, question: Question, context: Context) -> Verdict:
        ignored = set(self.ignored_problems) - ({"answer_forced"} if trace.zooms else set())
        bad = sorted(problem for problem in set(trace.problems) - ignored if not is_unread(problem))
        reason = f"the responses had: {', '.join(bad)}" if bad else ""
        if len(trace.steps) < self.min_steps:
            reason = f"it has {len(trace.steps)} steps" if trace.steps else "it has no thought"
        reason = reason or _broken_step(trace) or _loop(trace)
        return Verdict(self.name, not reason, reason, float(len(bad)))


def _broken_step(trace: Trace) -> str:
    """Say which step's thought holds what is no part of a thought; empty if none does."""
    for i, step in enumerate(trace.steps, 1):
        if found := _BROKEN.search(step.thought):
            return f"step {i} holds {shorten(found[0][:40])}"
    return ""


def _loop(trace: Trace) -> str:
    """Say what the trace says three times in a row, one sentence or a few; empty if nothing."""
    said = [sentence for step in trace.steps for sentence in sentences(step.thought)]
    folded = [sentence.casefold() for sentence in said]
    for i in range(len(said) - 2):
        for n in range(1, _LONGEST_LOOP + 1):
            once, twice, thrice = (folded[i + k * n : i + (k + 1) * n] for k in range(3))
            if once == twice == thrice:
                return f"it says {shorten(said[i][:40])} again and again"
    return ""


class PointInEveryStep(TraceFilter):
    """Every thought cites a point; only a remark behind the last one that does may go without.

    In a trace that zooms, the point of a call counts as well, and what stands behind a crop is
    about the crop.
    """

    name = "point_in_every_step"
    maker = MAKER
    min_share: float = Field(
        default=1.0, ge=0, le=1, description="share of the steps that cite a point, 0 to 1"
    )

    def apply(self, trace: Trace, question: Question, context: Context) -> Verdict:
        steps = trace.steps
        if len(steps) > 1 and steps[-1].point is None:
            steps = steps[:-1]
        without = [
            i
            for i, step in enumerate(steps)
            if step.point is None
            and step.observation is None
            and not (i and steps[i - 1].observation)
        ]
        share = 1 - len(without) / len(steps) if steps else None
        reason = ""
        if share is None:
            reason = "it has no thought"
        elif share < self.min_share:
            reason = f"step {without[0] + 1} cites no point{_why_unread(trace)}"
        # A step ends with its point, so a thought without one was read as part of the next step.
        elif self.min_share == 1 and "thought_without_point" in trace.problems and not trace.zooms:
            reason = "a thought cites no point"
        return Verdict(self.name, not reason, reason, share)


def _why_unread(trace: Trace) -> str:
    """Why something that looks like a place was none, where the parser said so."""
    why = sorted({problem for problem in trace.problems if is_unread(problem)})
    return f" ({', '.join(why)})" if why else ""


class InsideImage(TraceFilter):
    """Every point lies in its image."""

    name = "inside_image"
    maker = MAKER
    max_outside: int = Field(default=0, ge=0, description="points of the trace outside their image")

    def apply(self, trace: Trace, question: Question, context: Context) -> Verdict:
        frame = Frame.of(CoordinateSpace.original(), question)
        outside = points_outside(trace.points, frame)
        reason = ""
        if len(outside) > self.max_outside:
            point = outside[0]
            reason = f"({point.x:g}, {point.y:g}) is outside image {point.image + 1}"
        return Verdict(self.name, not reason, reason, float(len(outside)))


class NoRepeatedPoint(TraceFilter):
    """No step of a branch goes back to a place an earlier one cited, unless it says so; a third
    time in the same words it may not.

    The wrong attempt of a corrected chain and the right one are two branches; what they share
    belongs to both. A step may call for a place that was cited, and tell what a crop of it shows.
    """

    name = "no_repeated_point"
    maker = MAKER
    min_distance: float = Field(
        default=REPEAT_RADIUS,
        ge=0,
        le=1,
        description="share of the image's longer side; points closer than that are one place",
    )
    max_repeats: int = Field(default=0, ge=0, description="steps that go back to an earlier place")

    def apply(self, trace: Trace, question: Question, context: Context) -> Verdict:
        frame = Frame.of(CoordinateSpace.original(), question)
        repeats = 0
        reason = ""
        for i, step in enumerate(trace.steps):
            if step.point is None or _tells_of_a_crop(trace, i):
                continue
            there = [j for j in _before(trace, i) if self._same_place(frame, trace, i, j)]
            if there and revisits(step.thought):
                said = _words(step)
                same = [j for j in there if _words(trace.steps[j]) == said]
                there = same[1:]
            if there:
                repeats += 1
                reason = reason or f"step {i + 1} cites the place of step {there[0] + 1} again"
        keep = repeats <= self.max_repeats
        return Verdict(self.name, keep, "" if keep else reason, float(repeats))

    def _same_place(self, frame: Frame, trace: Trace, i: int, j: int) -> bool:
        """Return whether two steps of a trace cite one place."""
        pairs = product(trace.steps[i].points, trace.steps[j].points)
        return any(frame.same_place(a, b, self.min_distance) for a, b in pairs)


def _words(step: Step) -> list[str]:
    """Return the words of a step, without numbers."""
    return [word for word in words_of(step.thought) if not any(map(str.isdigit, word))]


def _tells_of_a_crop(trace: Trace, i: int) -> bool:
    """Return whether step `i` is shown a crop, or cites a place that a crop before it shows."""
    step, before = trace.steps[i], [trace.steps[j].observation for j in _before(trace, i)]
    if step.observation is not None:
        return step.observation.crop is not None
    crops = [seen.crop for seen in before if seen is not None and seen.crop is not None]
    return step.point is not None and any(crop.contains(step.point) for crop in crops)


def _before(trace: Trace, i: int) -> list[int]:
    """Return the steps before step `i` on its own branch."""
    wrong, turn = trace.wrong_from, trace.turns_back_at
    if wrong is None or turn is None or i < turn:
        return list(range(i))
    return [*range(wrong), *range(turn, i)]


FILTERS = (RightAnswer(), WellFormed(), PointInEveryStep(), InsideImage(), NoRepeatedPoint())
"""The rules with their default values."""
