"""What a zoom call shows: a crop, or a sentence that says why there is none.

    observation = observe(frame, steps, call, zoom)
    observation_text(observation)            # "<observation>Image 2: the region …</observation>"

An observation is a function of the question, the steps before and the call, so search, replay,
training and evaluation show the same. A call that shows nothing is no error of the dialogue: the
model is told what was wrong and goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from mcts.coordinates import Frame
from mcts.data import Box, Observation, Step, ZoomCall
from mcts.teachers.image_tokens import ImageSize, image_tokens
from mcts.tool_calls.views import Views
from mcts.zoom.config import ZoomConfig

SAME_PLACE = 0.01
"""Share of the image's longer side within which the middles of two regions that show the same lie.
"""
SAME_OVERLAP = 0.64
"""Intersection over union of such regions, at least: that of a square and one around its middle
with sides a quarter longer."""
_ROUNDING = 1e-6
"""What edges in thousandths of a pixel lose of it."""


class ZoomProblem(StrEnum):
    """Why a call shows nothing."""

    MALFORMED = "malformed"
    NO_SUCH_IMAGE = "no_such_image"
    OUTSIDE = "point_outside_image"
    SHOWN_ALREADY = "shown_already"


_SENTENCES = {
    ZoomProblem.MALFORMED: "The call can't be read, so nothing is shown.",
    ZoomProblem.NO_SUCH_IMAGE: "There is no image of that number, so nothing is shown.",
    ZoomProblem.OUTSIDE: "That place lies outside the image, so nothing is shown.",
    ZoomProblem.SHOWN_ALREADY: "That region was shown already.",
}
ASKS_FOR_ANSWER = "Now give your answer."


def observe(frame: Frame, steps: Sequence[Step], call: ZoomCall, zoom: ZoomConfig) -> Observation:
    """Return what `call`, made behind `steps`, shows."""
    views = Views.of(frame, steps)
    turns = sum(step.observation is not None for step in steps) + 1
    crop, shown = _region(frame, views, call, zoom)
    problem = _problem(views, call, crop)
    if problem is not None or crop is None:
        return Observation(
            None, 0, 0, problem=problem or ZoomProblem.MALFORMED, last=turns >= zoom.max_turns
        )
    sizes = [*(ImageSize(o.width, o.height) for o in views.crops), ImageSize(*shown)]
    last = (
        turns >= zoom.max_turns
        or len(sizes) >= zoom.max_calls
        or 0 < zoom.crop_tokens < image_tokens(frame.space, [*sizes, _largest(zoom)])
    )
    marked = zoom.lens.marked and call.box is None
    return Observation(crop, *shown, marked=marked, view=len(views), last=last)


def _largest(zoom: ZoomConfig) -> ImageSize:
    """Return the largest size in which a crop is shown."""
    return ImageSize(zoom.lens.shown_side, zoom.lens.shown_side)


def _region(
    frame: Frame, views: Views, call: ZoomCall, zoom: ZoomConfig
) -> tuple[Box | None, tuple[int, int]]:
    if call.point is None or not views.inside(call.point, call.view):
        return None, (0, 0)
    image = frame.images[call.point.image]
    return zoom.lens.region(call.point, image, call.box, views.crop(call.view))


def _problem(views: Views, call: ZoomCall, crop: Box | None) -> ZoomProblem | None:
    if call.point is None:
        known = 0 <= call.view < len(views)
        return ZoomProblem.MALFORMED if known else ZoomProblem.NO_SUCH_IMAGE
    if crop is None:
        return ZoomProblem.OUTSIDE
    seen = any(same_region(views.frame, crop, o.crop) for o in views.crops if o.crop)
    return ZoomProblem.SHOWN_ALREADY if seen else None


def same_region(frame: Frame, a: Box, b: Box) -> bool:
    """Return whether two crops show about the same: their middles are near, and hardly anything of
    either is missing in the other."""
    if a.image != b.image:
        return False
    image = frame.images[a.image]
    apart = math.hypot(a.x1 + a.x2 - b.x1 - b.x2, a.y1 + a.y2 - b.y1 - b.y2) / 2
    near = apart < SAME_PLACE * max(image.width, image.height)
    both = max(0.0, min(a.x2, b.x2) - max(a.x1, b.x1)) * max(0.0, min(a.y2, b.y2) - max(a.y1, b.y1))
    either = (a.x2 - a.x1) * (a.y2 - a.y1) + (b.x2 - b.x1) * (b.y2 - b.y1) - both
    return near and both >= (SAME_OVERLAP - _ROUNDING) * either


def observation_text(observation: Observation) -> str:
    """Return the text that accompanies a crop, or stands in its place."""
    if observation.problem:
        said = _SENTENCES[ZoomProblem(observation.problem)]
    else:
        number = "" if observation.view is None else f"Image {observation.view + 1}: "
        here = "the region" if number else "Here is the region"
        dot = " A red dot marks that place." if observation.marked else ""
        said = f"{number}{here} around that place, enlarged.{dot}"
    if observation.last:
        said = f"{said} {ASKS_FOR_ANSWER}"
    return f"<observation>{said}</observation>"
