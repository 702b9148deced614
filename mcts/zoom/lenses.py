"""How large a region one zoom call shows, and how large it is shown: crop geometry, a task's data.

    lens = task.lens or default_lens(question)       # Lens(182, 672): 364 px shown at 672 px
    crop, (width, height) = lens.region(point, image)

A region is moved into the image where it would reach over an edge, never squeezed: scale is the
same everywhere, and one side is shorter only where the image itself is. Of an image that is a mere
line a shorter piece is shown. ViGoRL's own crops are stretched and off centre there, and of three
sizes in its three stages.
"""

from __future__ import annotations

from dataclasses import dataclass

from mcts.data import Box, Image, Point, Question

HALF_WIDTH_SHARE = 1 / 6
"""Of an image's longer side, half the side of what is shown where a task has no lens of its own: a
ninth of the image, three times as large."""
NESTED = 0.5
"""A call made in a crop shows this share of the crop's longer side."""
LEAST_SIDE = 28.0
"""Pixels of a side that a call with a box shows at least: a patch of the models it was made for."""
MOST_NARROW = 8.0
"""Ratio of the sides of what a call with a box shows, at most."""
MOST_NARROW_IMAGE = 100.0
"""The same of any call. Models' processors refuse an image above 200:1, and whole pixels of what is
shown can come near to that."""


@dataclass(frozen=True, slots=True)
class Lens:
    """What one call shows."""

    half_width: float
    """Half the side of the region shown, in original pixels, or as a share (see `share`)."""
    shown_side: int
    """Longer side of the image the model is given, in pixels."""
    marked: bool = False
    """Whether the called point is drawn on it."""
    share: bool = False
    """Whether `half_width` is a share of the image's longer side."""

    def __post_init__(self) -> None:
        if self.half_width <= 0 or self.shown_side < 1:
            raise ValueError("a lens has a half width above 0 and shows at least one pixel")

    def region(
        self, point: Point, image: Image, box: Box | None = None, within: Box | None = None
    ) -> tuple[Box, tuple[int, int]]:
        """Return the region that a call shows, and the size in which it is shown.

        Args:
            point: its middle; in `image`.
            box: the region asked for, where the tool takes boxes.
            within: the crop in which the call was made, which shows a part of it.
        """
        if box is not None:
            width, height = _sides(box)
        else:
            side = 2 * self.half_width * (max(image.width, image.height) if self.share else 1)
            if within is not None:
                side = max(NESTED * max(within.x2 - within.x1, within.y2 - within.y1), LEAST_SIDE)
            width = height = side
        longest = MOST_NARROW_IMAGE * min(width, height, image.width, image.height)
        width, height = min(width, longest), min(height, longest)
        x1, width = span_around(point.x, image.width, width)
        y1, height = span_around(point.y, image.height, height)
        scale = self.shown_side / max(width, height)
        shown = (max(1, round(width * scale)), max(1, round(height * scale)))
        return Box(x1, y1, x1 + width, y1 + height, point.image), shown


VISUAL_SEARCH_LENS = Lens(182, 672)
WEB_LENS = Lens(100, 512, marked=True)


def default_lens(question: Question) -> Lens:
    """Make a lens for a task that has none: the same share of small images as of large."""
    longest = max(max(image.width, image.height) for image in question.images)
    return Lens(
        min(VISUAL_SEARCH_LENS.half_width, HALF_WIDTH_SHARE * longest),
        VISUAL_SEARCH_LENS.shown_side,
    )


def _sides(box: Box) -> tuple[float, float]:
    """Return the sides of what is shown of a box: neither tiny nor a mere line."""
    width, height = max(box.x2 - box.x1, LEAST_SIDE), max(box.y2 - box.y1, LEAST_SIDE)
    least = max(width, height) / MOST_NARROW
    return max(width, least), max(height, least)


def span_around(at: float, length: int, wanted: float) -> tuple[float, float]:
    """Return where a region begins along one side of `length` pixels, and how much of it is shown:
    `wanted` pixels around `at`, moved inwards at an edge."""
    shown = min(wanted, float(length))
    return min(max(at - shown / 2, 0.0), length - shown), shown
