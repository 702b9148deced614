"""The pictures a model has seen by now, and where in the question's images they lie.

    views = Views.of(frame, steps)              # the question's images, then the crops shown
    point = views.to_point(412, 630, view=2)    # a model's numbers in a crop -> original pixels
    x, y = views.to_model(point, view=2)

A call may name a crop by its number, as it names one of several images. Its place is counted in the
crop as the model sees it, and means a place of the original image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcts.coordinates import DECIMALS, Frame, SpaceKind
from mcts.data import Box, Image, Observation, Point, Step


@dataclass(frozen=True, slots=True)
class Views:
    """A model's frame, and the crops it was shown."""

    frame: Frame
    crops: tuple[Observation, ...] = ()
    """In the order shown; each has a `crop`."""

    @classmethod
    def of(cls, frame: Frame, steps: Sequence[Step]) -> Views:
        """Return what a model has seen when it goes on behind `steps`."""
        shown = (step.observation for step in steps)
        return cls(frame, tuple(o for o in shown if o is not None and o.crop is not None))

    def __len__(self) -> int:
        return len(self.frame.images) + len(self.crops)

    def crop(self, view: int) -> Box | None:
        """Return the region that a view shows; None for a whole image.

        Raises:
            IndexError: there is no such view.
        """
        own = len(self.frame.images)
        if not 0 <= view < len(self):
            raise IndexError(view)
        return self.crops[view - own].crop if view >= own else None

    def to_point(self, x: float, y: float, view: int) -> Point:
        """Convert a model's `x`, `y` in a view to a point in original pixels.

        Raises:
            IndexError: there is no such view.
        """
        crop = self.crop(view)
        if crop is None:
            return self.frame.to_point(x, y, view)
        width, height = self._size(view)
        return Point(
            round(crop.x1 + x * (crop.x2 - crop.x1) / width, DECIMALS),
            round(crop.y1 + y * (crop.y2 - crop.y1) / height, DECIMALS),
            crop.image,
        )

    def to_model(self, point: Point, view: int) -> tuple[float, float]:
        """Convert `point` to a model's numbers in a view, rounded to its units."""
        crop = self.crop(view)
        if crop is None:
            return self.frame.to_model(point)
        width, height = self._size(view)
        x = (point.x - crop.x1) * width / (crop.x2 - crop.x1)
        y = (point.y - crop.y1) * height / (crop.y2 - crop.y1)
        digits = self.frame.space.decimals
        return (round(x, digits), round(y, digits)) if digits else (round(x), round(y))

    def inside(self, point: Point, view: int) -> bool:
        """Return whether `point` lies in what the view shows, edges included."""
        crop = self.crop(view)
        if crop is None:
            return point.image == view and self.frame.inside(point)
        # A thousandth of a pixel is lost where a place of a crop's edge was rounded.
        edge = 10**-DECIMALS
        return (
            crop.x1 - edge <= point.x <= crop.x2 + edge
            and crop.y1 - edge <= point.y <= crop.y2 + edge
        )

    def _size(self, view: int) -> tuple[float, float]:
        """Return a crop's width and height in the model's units; its own pixels count as such."""
        shown = self.crops[view - len(self.frame.images)]
        if self.frame.space.kind is SpaceKind.ABSOLUTE_ORIGINAL:
            return float(shown.width), float(shown.height)
        return self.frame.space.size(Image("", shown.width, shown.height))
