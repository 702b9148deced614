"""Numbers a trace's points and places their badges, for images and pages alike.

    marks = marks_of(trace, question)
    format_point(Point(82.4, 40.6))                     # "(82, 41)"
    in_whole_pixels("A cup (82.4, 40.6) in image 2.")   # "A cup (82, 41) in image 2."

Images and pages both draw these, so a number means the same step everywhere. A marker is a ring
exactly on its point and a badge beside it; `arrange` chooses the side on which the badge covers the
least. A point outside its image is reported (`Mark.outside`), never moved in. People read points in
whole pixels; what is stored stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mcts.data import AnswerKind, Box, Image, Observation, Point, Question, Trace
from mcts.parsing import answer_points, move_points
from mcts.places.decide import is_share
from mcts.zoom.observe import observation_text

_OPENED, _CLOSED = "<observation>", "</observation>"
NOMINAL = 480.0
"""Longer side, in pixels, of the image on which badges are laid out; others scale from it."""
BADGE = 11.0
"""Half the width of a badge at the nominal size."""
REACH = 20.0
"""From a point to the middle of its badge at the nominal size."""
# Where a badge may stand seen from its point, best first: up right, up left, down right, …
_PLACES = tuple(
    (
        round(REACH * math.sin(turn * math.pi / 4), 2),
        round(-REACH * math.cos(turn * math.pi / 4), 2),
    )
    for turn in (1, 7, 3, 5, 0, 2, 6, 4)
)


@dataclass(frozen=True, slots=True)
class Mark:
    """One point as it is shown: with its number, its part in the trace and its badge's place."""

    label: str
    """The step's number from 1, or `A` for a point given as the answer."""
    point: Point
    role: str = "step"
    """What the step does in its trace, as `role_of` says."""
    badge: tuple[float, float] = (0.0, 0.0)
    """From the point to the middle of its badge, in pixels of the nominal image; when the point
    is outside, from the place on the image's edge that is nearest to it."""
    outside: str = ""
    """Why the point cannot be shown in its image; empty when it can."""


@dataclass(frozen=True, slots=True)
class Region:
    """What a step looked at closer, as it is shown: outlined, with the crop's number."""

    box: Box
    label: str
    """The number by which the model calls the crop, from 1; empty where it has none."""
    step: str
    """The step's number from 1."""
    role: str = "step"
    """What the step does in its trace, as `role_of` says."""


def regions_of(trace: Trace) -> list[Region]:
    """Make a region for every crop that a trace was shown."""
    seen = [(i, step.observation) for i, step in enumerate(trace.steps)]
    return [region_of(o, i + 1, role_of(trace, i)) for i, o in seen if o is not None and o.crop]


def region_of(observation: Observation, step: int, role: str = "step") -> Region:
    """Make the region of an observation that shows one."""
    assert observation.crop is not None
    label = "" if observation.view is None else str(observation.view + 1)
    return Region(observation.crop, label, str(step), role)


def told_of(observation: Observation) -> str:
    """Return what an observation says to the model, without its tags."""
    return observation_text(observation).removeprefix(_OPENED).removesuffix(_CLOSED)


def role_of(trace: Trace, i: int) -> str:
    """Return what step `i` is: `shared` by both attempts, `wrong`, a `turn` back, or a `step`."""
    if trace.wrong_from is None or (trace.turns_back_at or i) < i:
        return "step"
    if i < trace.wrong_from:
        return "shared"
    return "turn" if i == trace.turns_back_at else "wrong"


def marks_of(trace: Trace, question: Question) -> list[Mark]:
    """Make a mark for every point a trace cites, then for the points of its answer."""
    marks = [
        Mark(str(i + 1), point, role_of(trace, i))
        for i, step in enumerate(trace.steps)
        for point in step.points
    ]
    marks += [Mark("A", point) for point in answer_places(trace.answer, question)]
    return arrange(marks, question.images)


def arrange(
    marks: Sequence[Mark], images: Sequence[Image], before: Sequence[Mark] = ()
) -> list[Mark]:
    """Choose each badge's place so that it covers no point and no other badge where it can.

    Args:
        before: arranged marks that will be shown with these and stay where they are.
    """
    arranged: list[Mark] = []
    for mark in marks:
        outside = where_outside(mark.point, images)
        if not 0 <= mark.point.image < len(images):
            arranged.append(replace(mark, outside=outside))
            continue
        image = images[mark.point.image]
        scale = NOMINAL / max(image.width, image.height)
        size = (image.width * scale, image.height * scale)
        here = [m for m in (*before, *arranged) if m.point.image == mark.point.image]
        taken = [_middle(m, scale, size) for m in here]
        places = _PLACES
        if outside:
            places = _places_on_margin(mark, scale, size)
        else:  # a margin is empty but for badges; in the image the points themselves count
            shown = [m.point for m in (*here, *marks) if m.point.image == mark.point.image]
            taken += [(point.x * scale, point.y * scale) for point in shown]
        tried = [replace(mark, outside=outside, badge=place) for place in places]
        arranged.append(
            min(tried, key=lambda m: _crowding(_middle(m, scale, size), taken, size, bool(outside)))
        )
    return arranged


def where_outside(point: Point, images: Sequence[Image]) -> str:
    """Return why `point` is not in its image, in words; empty when it is."""
    if not 0 <= point.image < len(images):
        return f"{_xy(point)} is in image {point.image + 1}, which is not there"
    image = images[point.image]
    beyond = outward(point, image.width, image.height)
    if beyond == (0.0, 0.0):
        return ""
    size = f"{image.width} by {image.height} pixels"
    # Away from the edge: rounded, a point just outside may read like one inside.
    return f"{_xy(point, beyond)} lies outside image {point.image + 1} ({size})"


def format_point(point: Point) -> str:
    """Format a point for people: whole pixels, and its image where that is not the first."""
    return f"{_xy(point)} in image {point.image + 1}" if point.image else _xy(point)


def in_whole_pixels(text: str, points: Sequence[Point] | None = None) -> str:
    """Round the coordinates in a text to whole pixels.

    Args:
        points: those of the step whose thought it is; read from the text when left out.
    """

    def rounded(point: Point) -> Point:
        return replace(point, x=float(f"{point.x:.0f}"), y=float(f"{point.y:.0f}"))

    return move_points(text, rounded, points)


def answer_places(answer: str | None, question: Question) -> list[Point]:
    """Return the points of an answer, where the question asks for one; in others `(1, 2)` is text,
    and so are shares that were left unread."""
    if answer is None or question.answer_kind not in (AnswerKind.BOX, AnswerKind.POINT):
        return []
    points = answer_points(answer, len(question.images))
    return [point for point in points if not is_share(point.x, point.y)]


def shown_answer(answer: str | None, question: Question) -> str:
    """Round the points of an answer to whole pixels; empty where there is no answer."""
    return in_whole_pixels(answer, answer_places(answer, question)) if answer else ""


def _xy(point: Point, towards: tuple[float, float] = (0.0, 0.0)) -> str:
    """Format coordinates in whole pixels, rounded `towards` a direction where there is one."""
    half = [math.copysign(0.499, sign) if sign else 0.0 for sign in towards]
    x, y = (f"{v + h:.0f}" for v, h in zip((point.x, point.y), half, strict=True))
    return f"({x}, {y})".replace("(-0,", "(0,").replace(" -0)", " 0)")


def _middle(mark: Mark, scale: float, size: tuple[float, float]) -> tuple[float, float]:
    """Return the middle of a placed badge on the nominal image."""
    x = min(max(mark.point.x * scale, 0), size[0]) + mark.badge[0]
    return x, min(max(mark.point.y * scale, 0), size[1]) + mark.badge[1]


def _places_on_margin(
    mark: Mark, scale: float, size: tuple[float, float]
) -> tuple[tuple[float, float], ...]:
    """Places beside the edge the point is beyond, the nearest first, then along the edge."""
    dx, dy = outward(mark.point, size[0] / scale, size[1] / scale)
    along = 0 if abs(dy) > abs(dx) else 1  # the axis the edge runs along
    here = (mark.point.x, mark.point.y)[along] * scale
    inward = 1 if here < size[along] / 2 else -1
    slides = [inward * k * (2 * BADGE + 4) for k in range(8)]
    if along == 0:
        return tuple((slide, math.copysign(REACH, dy)) for slide in slides)
    return tuple((math.copysign(REACH, dx), slide) for slide in slides)


def _crowding(
    at: tuple[float, float],
    taken: Sequence[tuple[float, float]],
    size: tuple[float, float],
    on_margin: bool,
) -> float:
    """Return how much a badge at `at` would cover of what is there, or stick out of the image."""
    x, y = at
    covered = sum(max(0.0, 2 * BADGE + 3 - math.dist(at, other)) for other in taken)
    room = 0.0 if on_margin else min(x, y, size[0] - x, size[1] - y) - BADGE - 2
    return round(covered + 4 * max(0.0, -room), 1)


def outward(point: Point, width: float, height: float) -> tuple[float, float]:
    """Return the unit vector towards a point outside an image; (0, 0) for one inside."""
    far = 1e9  # a text may say any number; the direction of an infinite one is still needed
    dx = max(min(point.x, 0), -far) + min(max(point.x - width, 0), far)
    dy = max(min(point.y, 0), -far) + min(max(point.y - height, 0), far)
    length = math.hypot(dx, dy)
    return (dx / length, dy / length) if length else (0.0, 0.0)
