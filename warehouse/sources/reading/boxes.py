"""Converts gold boxes, however a benchmark writes them, into boxes in original pixels.

    gold_box([42, 1102, 197, 70], BoxFormat.XYWH, size)       # left, top, width, height in pixels
    gold_box([0.1, 0.2, 0.3, 0.4], BoxFormat.SHARES, size)    # left, top, right, bottom, 0 to 1

A dataset's box format is known and never guessed from one row; what contradicts it is refused: a
share over 1, or a pixel box whose every number is at most 1, which is a share in the wrong place. A
box that reaches over the image's edge by at most `SLACK` pixels is clipped there (annotation tools
round, and ScreenSpot writes -1 for an edge), whichever reader it comes from; the points it holds
within the image are the same. Numbers are rounded to a thousandth of a pixel, as points are, so
that a point on an edge is on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import Enum
from itertools import pairwise
from typing import Any

import numpy as np

from mcts.coordinates import DECIMALS
from mcts.data import Box
from warehouse.sources.reading.drafts import Unusable
from warehouse.sources.reading.literals import read_float

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
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise Unusable(field, f"a box is four numbers, not {values!r:.60}")
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


def clip_box(box: Box, size: tuple[int, int]) -> Box:
    """Clip a box in pixels that reaches over an edge of its image by at most `SLACK`."""
    x1, x2 = _clipped(box.x1, size[0]), _clipped(box.x2, size[0])
    y1, y2 = _clipped(box.y1, size[1]), _clipped(box.y2, size[1])
    inside = (x1, y1, x2, y2) == (box.x1, box.y1, box.x2, box.y2)
    return box if inside else replace(box, x1=x1, y1=y1, x2=x2, y2=y2)


def _clipped(edge: float, side: int) -> float:
    if -SLACK <= edge < 0:
        return 0.0
    return float(side) if side < edge <= side + SLACK else edge


def _number(value: Any, field: str) -> float:
    number = read_float(value)
    if not math.isfinite(number):
        raise Unusable(field, f"{value!r:.60} in the box is not a number")
    return number


def polygon_boxes(points: Sequence[Any], size: tuple[int, int], field: str) -> tuple[Box, ...]:
    """Convert a polygon in shares of width and height into boxes that lie inside it.

    The boxes are rows of at most a pixel, cut short of every side of the polygon, so a point in one
    of them is inside by the even-odd rule however that treats the sides. What is lost is a strip
    along slanted sides, at most `_STRIP` pixels wide.

    Raises:
        Unusable: these are not at least three points of it, or it covers no pixel row.
    """
    if len(points) < 3:
        raise Unusable(field, f"a polygon has at least three points, this has {len(points)}")
    if len(points) > _MOST_POINTS:
        raise Unusable(field, f"the polygon has {len(points)} points, more than {_MOST_POINTS}")
    corners = []
    for point in points:
        if not isinstance(point, list | tuple) or len(point) != 2:
            raise Unusable(field, f"{point!r} is not a point of a polygon")
        shares = [_number(value, field) for value in point]
        if not all(0 <= share <= 1 for share in shares):
            raise Unusable(field, f"{point!r} should be shares of width and height, from 0 to 1")
        corners.append((shares[0] * size[0], shares[1] * size[1]))
    sides = np.array([(*a, *b) for a, b in zip(corners, [*corners[1:], corners[0]], strict=True)])
    boxes: list[Box] = []
    for top, bottom in _rows(sides):
        boxes.extend(Box(x1, top, x2, bottom) for x1, x2 in _inside(sides, top, bottom))
    if not boxes:
        raise Unusable(field, "the polygon covers no pixel")
    return tuple(_joined(boxes))


_MOST_POINTS = 1000
_UNIT = 10.0**-DECIMALS
_MARGIN = 0.6 * _UNIT
"""A point is rounded to `DECIMALS` places before it is held against a box; this is half a place and
a little."""
_STRIP = 1.0
_MOST_PARTS = 8  # of a pixel row, where a side is nearly level
_MOST_SIDES = 200  # of a polygon whose rows are divided


def _rows(sides: np.ndarray) -> Iterator[tuple[float, float]]:
    """Yield tops and bottoms, between whole numbers and corners; a corner has a thin row alone."""
    ys = sides[:, 1]
    cuts = {float(y) for y in range(math.floor(ys.min()), math.ceil(ys.max()) + 1)}
    for y in set(ys.tolist()):
        cuts |= {_floor(y - _MARGIN), _ceil(y + _MARGIN)}
    most = _MOST_PARTS if len(sides) <= _MOST_SIDES else 1
    cuts = {y for y in cuts if ys.min() <= y <= ys.max()}
    for top, bottom in pairwise(sorted(cuts)):
        left, right = _across(sides, top, bottom)
        wide = float((right - left).max(initial=0))
        parts = min(most, max(1, math.ceil(wide / _STRIP)), round((bottom - top) / _UNIT))
        edges = [round(top + (bottom - top) * i / parts, DECIMALS) for i in range(parts + 1)]
        yield from pairwise(edges)


def _across(sides: np.ndarray, top: float, bottom: float) -> tuple[np.ndarray, np.ndarray]:
    """Return from where to where each side that meets the row goes within it."""
    ax, ay, bx, by = sides.T
    met = (np.minimum(ay, by) <= bottom) & (np.maximum(ay, by) >= top)
    ax, ay, bx, by = (values[met] for values in (ax, ay, bx, by))
    level = ay == by
    slope = (bx - ax) / np.where(level, 1, by - ay)
    ends = [
        np.where(level, x, ax + slope * (np.clip(y, top, bottom) - ay))
        for x, y in ((ax, ay), (bx, by))
    ]
    return np.minimum(*ends), np.maximum(*ends)


def _inside(sides: np.ndarray, top: float, bottom: float) -> Iterator[tuple[float, float]]:
    """Yield the stretches of a row that no side touches, and that are inside."""
    left, right = _across(sides, top - _MARGIN, bottom + _MARGIN)
    order = np.argsort(left)
    middle = (top + bottom) / 2
    ax, ay, bx, by = sides.T
    cross = (ay > middle) != (by > middle)
    crossed = ax[cross] + (middle - ay[cross]) * (bx[cross] - ax[cross]) / (by[cross] - ay[cross])
    reached = np.maximum.accumulate(right[order])[:-1]
    for last, following in zip(reached.tolist(), left[order][1:].tolist(), strict=True):
        start, stop = _ceil(last + _MARGIN), _floor(following - _MARGIN)
        if stop > start and int((crossed > (start + stop) / 2).sum()) % 2:
            yield start, stop


def _joined(boxes: list[Box]) -> list[Box]:
    """Join boxes that stand on one another and are equally wide."""
    open_at: dict[tuple[float, float], int] = {}
    found: list[Box] = []
    for box in boxes:
        at = open_at.get((box.x1, box.x2))
        if at is not None and found[at].y2 == box.y1:
            found[at] = replace(found[at], y2=box.y2)
        else:
            open_at[box.x1, box.x2] = len(found)
            found.append(box)
    return found


def _floor(value: float) -> float:
    return round(math.floor(value / _UNIT) * _UNIT, DECIMALS)


def _ceil(value: float) -> float:
    return round(math.ceil(value / _UNIT) * _UNIT, DECIMALS)
