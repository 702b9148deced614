"""Converts gold boxes, however a benchmark writes them, into boxes in original pixels.

    gold_box([42, 1102, 197, 70], BoxFormat.XYWH, size)       # left, top, width, height in pixels
    gold_box([0.1, 0.2, 0.3, 0.4], BoxFormat.SHARES, size)    # left, top, right, bottom, 0 to 1

A dataset's box format is known and never guessed from one row; what contradicts it is refused: a
share over 1, or a pixel box whose every number is at most 1, which is a share in the wrong place. A
box that reaches over the image's edge by at most `SLACK` pixels is clipped there (annotation tools
round, and ScreenSpot writes -1 for an edge); the points it holds within the image are the same.
Numbers are rounded to a thousandth of a pixel, as points are, so that a point on an edge is on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Any

from mcts.coordinates import DECIMALS
from mcts.data import Box
from warehouse.sources.reading.drafts import Unusable

SLACK = 2.0
"""Pixels by which a gold box may reach over the edge of its image."""


class BoxFormat(Enum):
    """What the four numbers of a box mean."""

    XYXY = "left, top, right, bottom in pixels"
    XYWH = "left, top, width, height in pixels"
    SHARES = "left, top, right, bottom as shares of width and height, from 0 to 1"


def gold_box(
    values: Sequence[Any],
    box_format: BoxFormat,
    size: tuple[int, int],
    field: str = "bbox",
    label: str = "",
) -> Box:
    """Convert four numbers into a box in original pixels.

    Args:
        size: width and height of the image.

    Raises:
        Unusable: these are not four numbers in that format, or the box lies outside the image.
    """
    numbers = [_number(value, field) for value in values]
    if len(numbers) != 4:
        raise Unusable(field, f"a box has four numbers, this has {len(numbers)}")
    shown = ", ".join(f"{number:g}" for number in numbers)
    width, height = size
    if box_format is BoxFormat.SHARES:
        if any(abs(number) > 1.01 for number in numbers):
            raise Unusable(
                field, f"the box ({shown}) should be shares from 0 to 1: are they pixels?"
            )
        numbers = [n * side for n, side in zip(numbers, (width, height) * 2, strict=True)]
    elif all(0 <= number <= 1 for number in numbers):
        raise Unusable(field, f"the box ({shown}) should be pixels: are they shares from 0 to 1?")
    x1, y1, x2, y2 = numbers
    if box_format is BoxFormat.XYWH:
        x2, y2 = x1 + x2, y1 + y2
    x1, x2 = _clipped(x1, width), _clipped(x2, width)
    y1, y2 = _clipped(y1, height), _clipped(y2, height)
    inside = 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    if not inside:
        meant = f"the box ({shown}), {box_format.value}"
        raise Unusable(field, f"{meant}, is not in {width}x{height} pixels")
    x1, y1, x2, y2 = (round(edge, DECIMALS) for edge in (x1, y1, x2, y2))
    return Box(x1, y1, x2, y2, label=label.encode("utf-8", "replace").decode("utf-8"))


def _clipped(edge: float, side: int) -> float:
    if -SLACK <= edge < 0:
        return 0.0
    return float(side) if side < edge <= side + SLACK else edge


def _number(value: Any, field: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise Unusable(field, f"{value!r} in the box is not a number")
    return number


def polygon_boxes(points: Sequence[Any], size: tuple[int, int], field: str) -> tuple[Box, ...]:
    """Convert a polygon in shares of width and height into boxes: one a pixel row and stretch.

    Raises:
        Unusable: these are not at least three points of it, or it covers no pixel row.
    """
    if not 3 <= len(points) <= 10_000:
        raise Unusable(field, f"a polygon has at least three points, this has {len(points)}")
    corners = []
    for point in points:
        if not isinstance(point, list | tuple) or len(point) != 2:
            raise Unusable(field, f"{point!r} is not a point of a polygon")
        shares = [_number(value, field) for value in point]
        if not all(0 <= share <= 1 for share in shares):
            raise Unusable(field, f"{point!r} should be shares of width and height, from 0 to 1")
        corners.append((shares[0] * size[0], shares[1] * size[1]))
    sides = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    boxes: list[Box] = []
    top, bottom = (f(y for _, y in corners) for f in (min, max))
    for line in range(math.floor(top), math.ceil(bottom)):
        y = line + 0.5
        crossed = sorted(
            ax + (y - ay) * (bx - ax) / (by - ay)
            for (ax, ay), (bx, by) in sides
            if (ay > y) != (by > y)
        )
        for left, right in zip(crossed[::2], crossed[1::2], strict=True):
            if right > left:
                x1, x2 = round(left, DECIMALS), round(right, DECIMALS)
                boxes.append(Box(x1, line, x2, min(line + 1, size[1])))
    if not boxes:
        raise Unusable(field, "the polygon covers no pixel")
    return tuple(boxes)
