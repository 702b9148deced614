"""A direct chain written as a dialogue that zooms: each place is requested, and then shown.

    dialogue = zoom_dialogue(trace, question)              # None if there is nothing to zoom into
    dialogue = zoom_dialogue(trace, question, lens=WEB_LENS, most_calls=4)

A step cites its point, calls for a closer look at it, and is shown the crop; the next thought
comes after that. So an observation never stands before the call that caused it, and the last
thought, which leads to the answer, is never cut away or replaced.

What such a dialogue is, and is not: its words were written without the crops (as those of the
reference implementation are). It teaches the form: when a call is made, what comes back, that
reasoning goes on behind it. It can't teach to use what only the crop shows. Dialogues whose words
were written with the crops in view come from trees that hold observations; `linearize` keeps them,
under the same kind `zoom`. They differ in `Trace.maker`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Box, Image, Observation, Point, Question, Step, Trace

VERSION = 1
MAKER = f"zoom_dialogues/{VERSION}"

SHOWN_RADIUS = 0.01
"""Share of the image's longer side: what was seen enlarged this near is not called for again."""


@dataclass(frozen=True, slots=True)
class Lens:
    """What one call shows."""

    half_width: float
    """Half the side of the region shown, in original pixels."""
    shown_side: int
    """Longer side of the image the model is given, in pixels."""
    marked: bool = False
    """Whether the called point is drawn on it."""


HALF_WIDTH_SHARE = 1 / 6
"""Of an image's longer side, half the side of what is shown where a task has no lens of its own: a
ninth of the image, three times as large."""
VISUAL_SEARCH_LENS = Lens(182, 672)
WEB_LENS = Lens(100, 512, marked=True)


def default_lens(question: Question) -> Lens:
    """Make a lens for a task that has none: the same share of small images as of large."""
    longest = max(max(image.width, image.height) for image in question.images)
    return Lens(
        min(VISUAL_SEARCH_LENS.half_width, HALF_WIDTH_SHARE * longest),
        VISUAL_SEARCH_LENS.shown_side,
    )


def zoom_dialogue(
    trace: Trace, question: Question, lens: Lens | None = None, most_calls: int = 4
) -> Trace | None:
    """The dialogue made of a direct chain, with at most `most_calls` calls; without a lens, with
    one that fits the images.

    Steps whose point was shown already, lies outside its image, or comes when the calls are used
    up are written without a call. The last step has none, so that a thought always leads to the
    answer. None if no step is left to call, or the trace is not a direct chain.
    """
    if trace.kind != "direct":
        return None
    lens = lens or default_lens(question)
    frame = Frame.of(CoordinateSpace.original(), question)
    seen: list[Point] = []
    steps: list[Step] = []
    for step in trace.steps[:-1]:
        point = step.point
        if (
            point is None
            or len(seen) == most_calls
            or not frame.inside(point)
            or any(frame.same_place(point, other, SHOWN_RADIUS) for other in seen)
        ):
            steps.append(step)
            continue
        seen.append(point)
        shown = observe(point, question.images[point.image], lens)
        steps.append(replace(step, call=point, observation=shown))
    if not seen:
        return None
    return replace(trace, steps=(*steps, trace.steps[-1]), kind="zoom", maker=MAKER)


def observe(point: Point, image: Image, lens: Lens) -> Observation:
    """Return what a call at `point`, which lies in `image`, shows.

    The region is moved into the image where it would reach over an edge, never squeezed: scale is
    the same everywhere, and one side is shorter only where the image itself is.
    """
    x1, width = _within(point.x, image.width, lens.half_width)
    y1, height = _within(point.y, image.height, lens.half_width)
    scale = lens.shown_side / max(width, height)
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    crop = Box(x1, y1, x1 + width, y1 + height, point.image)
    return Observation(crop, *shown, marked=lens.marked)


def _within(at: float, length: int, half_width: float) -> tuple[float, float]:
    """Where the region begins along one side of `length` pixels, and how much of it is shown."""
    shown = min(2 * half_width, float(length))
    return min(max(at - half_width, 0.0), length - shown), shown
