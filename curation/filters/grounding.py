"""Decides from ground-truth boxes whether a step points at what it names.

    found = check(trace, objects)               # one `Grounding` a step
    found[1].grounded                           # True, False, or None: nothing is known
    PointsOnTheirObjects().apply(trace, question, Context(objects))          # as a filter

The rule, all of it:

- A step *names* an object when the object's label stands in its text as whole words, in singular or
  plural (in a script without spaces, where the two or more signs of the label stand); of labels
  that overlap, the longest counts (`red box`, not `box`). Labels of all of the question's images
  are known names. The sentences that hold the points are read first; only where they name nothing,
  as in "I look at the red box. It is at (3, 4).", the rest of the step is.
- The step is *grounded* when each point it cites lies in the visible box of an object it names, in
  the image that the point is in. Edges belong to the box (`Box.contains`), and there is no
  tolerance beyond them. Of several named objects, or several of one label, any will do: a text
  does not say which of them it points at.
- It is *not grounded* when a point lies in none of them; also when its image shows none of them.
- It is *unknown*, and counts against no trace, when it cites no point, when it names no label that
  one of the images has (boxes need not be around everything), or when nothing is known about the
  image that it points into.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from curation.filters.base import Context, TraceFilter
from curation.filters.crops import asked_boxes, shows_asked
from curation.filters.naming import Objects, labels_in
from curation.filters.rules import MAKER
from mcts.data import AnswerKind, Box, Point, Question, Step, Trace, Verdict


@dataclass(frozen=True, slots=True)
class Grounding:
    """What the boxes say of one step."""

    grounded: bool | None
    """None when nothing is known."""
    reason: str
    """What is wrong, as the end of a sentence about the step; empty unless `grounded` is False."""


_UNKNOWN = Grounding(None, "")


def check(trace: Trace, objects: Objects) -> list[Grounding]:
    """Hold every step of `trace` against the boxes in its question's images."""
    labels = sorted({box.label for seen in objects for box in seen or () if box.label.strip()})
    return [_check(step, objects, labels) for step in trace.steps]


class PointsOnTheirObjects(TraceFilter):
    """No step points at something else than it names; a trace about which nothing is known is kept.

    The wrong attempt of a corrected chain is left out: the chain itself says that it was wrong.
    What the crops of a trace that zooms show is checked, too, where it is known what the question
    is about: enough of that, and a wrong attempt did look somewhere else.
    """

    name = "points_on_their_objects"
    maker = MAKER
    min_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of the steps that can be checked and are right, 0 to 1",
    )
    min_crops: int = Field(
        default=1,
        ge=0,
        description="crops that show an object in question, where a trace zooms; 0: not checked",
    )
    min_asked: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of the objects that a question's source says it is about which crops "
        "show, where a trace zooms and answers in words; 0: not checked",
    )
    doubts_right_looks: bool = Field(
        default=False,
        description="whether a corrected trace may turn back from looks that all showed an object "
        "in question",
    )

    def apply(self, trace: Trace, question: Question, context: Context) -> Verdict:
        wrong = wrong_attempt(trace)
        checked = enumerate(check(trace, context.objects), 1)
        known = [(i, g) for i, g in checked if g.grounded is not None and i - 1 not in wrong]
        bad = [(i, g) for i, g in known if not g.grounded]
        share = 1 - len(bad) / len(known) if known else None
        reason = self._crops_wrong(trace, question, context, wrong)
        if share is not None and share < self.min_share:
            reason = f"step {bad[0][0]} {bad[0][1].reason}"
        return Verdict(self.name, not reason, reason, share)

    def _crops_wrong(self, trace: Trace, question: Question, context: Context, wrong: range) -> str:
        """Say what is wrong with what was looked at closer; empty where nothing is known to be."""
        looks = [step.observation for step in trace.steps]
        if not any(looks):
            return ""
        asked = asked_boxes(question, context.objects)
        shown = [shows_asked(look, asked) for look in looks]
        told = [right for i, right in enumerate(shown) if i not in wrong and right is not None]
        if told and sum(told) < self.min_crops:
            return f"{sum(told)} of its {len(told)} crops show what the question is about"
        doubted = [shown[i] for i in wrong if shown[i] is not None]
        if doubted and all(doubted) and not self.doubts_right_looks:
            return "it turns back from crops that show what the question is about"
        if told and question.boxes and question.answer_kind is AnswerKind.TEXT:
            boxes = question.boxes
            seen = sum(any(shows_asked(look, [box]) for look in looks) for box in boxes)
            if seen < self.min_asked * len(boxes):
                return f"its crops show {seen} of {len(boxes)} objects that the question is about"
        return ""


def wrong_attempt(trace: Trace) -> range:
    """Return the steps of a corrected chain's wrong attempt; none of any other's."""
    if trace.wrong_from is None or trace.turns_back_at is None:
        return range(0)
    return range(trace.wrong_from, trace.turns_back_at)


def share_of_named_objects(trace: Trace, question: Question, objects: Objects) -> float | None:
    """Share of the objects that a question names, choices included, with a point of `trace` on it.

    None where it names nothing that one of its images is known to show.
    """
    labels = sorted({box.label for seen in objects for box in seen or () if box.label.strip()})
    wanted = labels_in(". ".join((question.text, *question.choices)), labels)
    if not wanted:
        return None
    points = trace.points
    found = [
        any(
            box.label == label and _holds(box, point)
            for point in points
            if 0 <= point.image < len(objects)
            for box in objects[point.image] or ()
        )
        for label in wanted
    ]
    return sum(found) / len(found)


def _check(step: Step, objects: Objects, labels: Sequence[str]) -> Grounding:
    things = labels_in(step.thought, labels)
    if not step.points or not things:
        return _UNKNOWN
    wanted = {thing.casefold() for thing in things}
    nothing_known = False
    for point in step.points:
        seen = objects[point.image] if 0 <= point.image < len(objects) else None
        if seen is None:
            nothing_known = True
        elif not any(box.label.casefold() in wanted and _holds(box, point) for box in seen):
            return Grounding(False, _wrong(things, point, seen))
    return _UNKNOWN if nothing_known else Grounding(True, "")


def _holds(box: Box, point: Point) -> bool:
    # An image's objects do not say which image of a question it is; here they are the point's.
    return replace(box, image=point.image).contains(point)


def _wrong(things: Sequence[str], point: Point, seen: Sequence[Box]) -> str:
    """What a point is on instead: the smallest object there, since larger ones may be behind it."""
    there = [box for box in seen if _holds(box, point)]
    smallest = min(there, key=lambda box: (box.x2 - box.x1) * (box.y2 - box.y1), default=None)
    what = f"the {smallest.label}" if smallest and smallest.label else "none of the known objects"
    return f"names {' and '.join(f'the {thing}' for thing in things)} and points at {what}"
