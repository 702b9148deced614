"""Warns when the gold boxes of a dataset seem not to be in pixels of their images.

    units = BoxUnits()
    units.add(draft.boxes, sizes)        # for each question; sizes of its images, upright
    units.warnings()                     # sentences: what it looks like and what to do

A box in other units (shares of the sides, thousandths, a resized image, a corner with a size) is
still four numbers, mostly inside the image, so no check of a single box would notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mcts.data import Box
from warehouse.sources.reading.boxes import clip_box

FEW = 5
"""Fewest boxes that give a warning about all of them."""
LARGE = 1600
"""Pixels of the longer side from which some boxes must have a number over 1000."""
MANY = 20
"""Boxes on large images that stay below 1000 before that is more than chance."""


@dataclass(slots=True)
class BoxUnits:
    """Counts over the gold boxes of a dataset."""

    boxes: int = 0
    outside: int = 0
    """Boxes that reach over an edge of their image by more than is clipped there."""
    shares: int = 0
    """Boxes of which no number is over 1."""
    crossed: int = 0
    """Boxes whose second corner isn't right of and below the first."""
    on_large: int = 0
    """Boxes on images with a side of `LARGE` or more."""
    far: int = 0
    """Of these, boxes with a number over 1000."""
    whole: int = 0
    """Boxes that cover nearly all of their image."""

    def add(self, boxes: Sequence[Box], sizes: Sequence[tuple[int, int] | None]) -> None:
        """Count the boxes of one question; the size of an unreadable image is None."""
        for box in boxes:
            size = sizes[box.image] if 0 <= box.image < len(sizes) else None
            if size is None:
                continue
            numbers = (box.x1, box.y1, box.x2, box.y2)
            width, height = box.x2 - box.x1, box.y2 - box.y1
            self.boxes += 1
            clipped = clip_box(box, size)
            least = min(clipped.x1, clipped.y1, clipped.x2, clipped.y2)
            self.outside += least < 0 or clipped.x2 > size[0] or clipped.y2 > size[1]
            self.shares += max(numbers) <= 1 < max(size)
            self.crossed += width <= 0 or height <= 0
            self.whole += width * height > 0.9 * size[0] * size[1]
            if max(size) >= LARGE:
                self.on_large += 1
                self.far += max(numbers) > 1000

    def warnings(self) -> list[str]:
        """What looks wrong, most certain first."""
        if not self.boxes:
            return []
        found = []
        if self.shares * 2 > self.boxes:
            found.append(
                f"{self._of(self.shares)} have no number over 1: they look like shares of the "
                "sides, not pixels (with --columns: --boxes xyxy/1 or xywh/1)"
            )
        elif self.crossed and self.crossed * 20 > self.boxes:
            found.append(
                f"{self._of(self.crossed)} end left of or above where they begin: they look like a "
                "corner with width and height (with --columns: --boxes xywh)"
            )
        if self.outside and not self.shares * 2 > self.boxes:
            found.append(
                f"{self._of(self.outside)} lie outside their image: they may be in the pixels "
                "of an image of another size, in thousandths (--boxes xyxy/1000), or a corner "
                "with width and height (--boxes xywh)"
            )
        if self.on_large >= MANY and not self.far and not self.shares * 2 > self.boxes:
            found.append(
                f"none of {self.on_large} gold boxes on large images has a number over 1000: "
                "they look like thousandths of the sides (with --columns: --boxes xyxy/1000)"
            )
        if self.boxes >= FEW and self.whole * 2 > self.boxes:
            found.append(f"{self._of(self.whole)} cover nearly all of their image")
        return found

    def _of(self, count: int) -> str:
        return f"{count} of {self.boxes} gold boxes"
