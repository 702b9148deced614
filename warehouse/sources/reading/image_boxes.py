"""The boxes that an image is stored with, where rows or earlier imports say others of it.

    boxes = ImageBoxes()
    boxes.add(image_id, picture.objects)                  # of every row, while files are checked
    boxes.of(image_id, picture.objects)                   # what is stored
    boxes.hold_against(warehouse, rows)                   # those of the table `images`
    boxes.remarks()                                       # a sentence on each kind of difference

An image has one list of boxes for all questions about it. Boxes without labels are those of what
one question asks about; where two questions have others of one image, nothing tells whose they are,
and none is stored. With labels the first row's that has any are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcts.data import Box
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import among, scan

Boxes = tuple[Box, ...] | None


@dataclass(slots=True)
class ImageBoxes:
    """Images whose boxes differ."""

    bare: dict[str, int] = field(default_factory=dict)
    """A hash of the boxes of every image that has some and no label on any."""
    unclear: set[str] = field(default_factory=set)
    """Images of which rows have different boxes, without labels."""
    first: dict[str, Boxes] = field(default_factory=dict)
    """The boxes of images of which an earlier row said nothing."""
    labelled: dict[str, int] = field(default_factory=dict)
    """A hash of the first boxes of every image that has some with labels."""
    differing: set[str] = field(default_factory=set)
    """Images of which rows have different boxes, with labels."""
    silent: set[int] = field(default_factory=set)
    """Hashes of the ids of images whose first row said nothing."""
    kept: set[str] = field(default_factory=set)
    """Images that are stored with other boxes, or with none."""

    def add(self, image_id: str, boxes: Boxes) -> None:
        """Take note of what a row says of an image."""
        if boxes is None:
            if image_id not in self.labelled and image_id not in self.bare:
                self.silent.add(hash(image_id))
            return
        if hash(image_id) in self.silent:
            self.first.setdefault(image_id, boxes)
        bare = boxes and not any(box.label.strip() for box in boxes)
        if not bare and self.labelled.setdefault(image_id, hash(boxes)) != hash(boxes):
            self.differing.add(image_id)
        if bare and self.bare.setdefault(image_id, hash(boxes)) != hash(boxes):
            self.unclear.add(image_id)

    def of(self, image_id: str, boxes: Boxes) -> Boxes:
        """Return the boxes to store; None where it is not clear whose they are."""
        if image_id in self.unclear:
            return None
        return boxes if boxes is not None else self.first.get(image_id)

    def hold_against(self, warehouse: Warehouse, rows: Collection[Mapping[str, Any]]) -> None:
        """Take note of those of these rows of `images` that are stored already, and otherwise."""
        new = {row["image_id"]: row["objects"] for row in rows if row["objects"] is not None}
        if new:
            where = among("image_id", new)
            stored = scan(warehouse, "images", ["image_id", "objects"], where).to_pylist()
            self.kept |= {r["image_id"] for r in stored if r["objects"] != new[r["image_id"]]}

    def remarks(self) -> Sequence[str]:
        """Say what was not stored, and why."""
        found = []
        if self.unclear:
            found.append(
                f"the boxes of {len(self.unclear)} images are left out: they have no labels, and "
                "questions about one image have different ones"
            )
        if self.differing:
            found.append(
                f"rows have different boxes of {len(self.differing)} images: the first row's are "
                "stored"
            )
        if self.kept:
            found.append(
                f"{len(self.kept)} images were stored before with other boxes or none, and keep "
                "what they have; import into a warehouse of its own (--home) to store these boxes"
            )
        return found
