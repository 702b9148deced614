"""Which tool the calls of a line of reasoning are for, and the same calls written for the other.

    calls_boxes(steps)                     # whether one of them asks for a box
    steps = for_tool(steps, BOX_TOOL)   # a call for a point as one for the box that it showed

A prompt offers one tool, and a model was free to call the other. Whoever learns from such a line
should see calls of the tool that its own prompt offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import hypot

from mcts.data import Box, Point, Step, ZoomCall
from mcts.tool_calls.calls import BOX_TOOL, POINT_TOOL
from mcts.zoom.lenses import VISUAL_SEARCH_LENS
from mcts.zoom.observe import ZoomProblem


class BoxesCalled(ValueError):
    """A call for a box can't be written for the tool that takes points."""


def calls_boxes(steps: Iterable[Step]) -> bool:
    """Return whether a call of these steps asks for a box."""
    return any(step.call is not None and step.call.box is not None for step in steps)


def for_tool(steps: Sequence[Step], tool: str) -> tuple[Step, ...]:
    """Write calls for `tool`: a box is the region that the call showed.

    A call that can't be read keeps its words.

    Raises:
        BoxesCalled: the tool takes points, and a call was for a box.
    """
    if tool == POINT_TOOL and calls_boxes(steps):
        raise BoxesCalled(f"asks for boxes, which {POINT_TOOL} can't")
    if tool != BOX_TOOL:
        return tuple(steps)
    crops = [s.observation.crop for s in steps if s.observation and s.observation.crop]
    widths = [max(crop.x2 - crop.x1, crop.y2 - crop.y1) for crop in crops]
    half = widths[0] / 2 if widths else VISUAL_SEARCH_LENS.half_width
    seen: list[Box] = []
    written: list[Step] = []
    for step in steps:
        written.append(_for_a_box(step, seen, half))
        if step.observation is not None and step.observation.crop is not None:
            seen.append(step.observation.crop)
    return tuple(written)


def _for_a_box(step: Step, seen: Sequence[Box], half: float) -> Step:
    """Write a step's call for a point as one for a box.

    Args:
        seen: the crops before it.
        half: half the side of a region where the call showed none.
    """
    call, shown = step.call, step.observation
    if call is None or call.point is None or call.box is not None or shown is None:
        return step
    if shown.crop is not None:
        # Without a mark, which a box has no place for.
        return replace(
            step, call=_of_region(call, shown.crop), observation=replace(shown, marked=False)
        )
    point = call.point
    if shown.problem == ZoomProblem.SHOWN_ALREADY and (near := _nearest(point, seen)) is not None:
        return replace(step, call=_of_region(call, near))
    # It lies outside what it was called in, and so must its box.
    box = Box(point.x - half, point.y - half, point.x + half, point.y + half, point.image)
    return replace(step, call=replace(call, box=box))


def _of_region(call: ZoomCall, region: Box) -> ZoomCall:
    # Of the whole image, since a region may reach beyond the crop in which it was called for.
    return replace(call, point=region.middle, box=region, view=region.image)


def _nearest(point: Point, crops: Sequence[Box]) -> Box | None:
    """Return the crop around a place that was shown already: the one whose middle is nearest."""
    own = [crop for crop in crops if crop.image == point.image]
    return min(own, key=lambda c: hypot(c.middle.x - point.x, c.middle.y - point.y), default=None)
