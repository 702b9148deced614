"""The coordinate contract: points are original pixels; a model's frame is converted at the edge.

Qwen2.5-VL writes absolute pixels of the image *as resized for it*, Qwen2-VL and Qwen3-VL write
0-1000 of width and height, others 0-1 or 0-100, people and gold boxes use original pixels. Mixing
them up is silent, so no function here takes a bare pair of numbers without the frame that gives it
its meaning.

    frame = Frame.of(CoordinateSpace.qwen25_vl(), question)
    point = frame.to_point(412, 630)              # model units -> original pixels
    x, y = frame.to_model(point)                  # original pixels -> model units, rounded

A round trip moves no point by more than half a model unit. A point outside the image stays
outside: nothing is clamped; `inside` detects it and the parser records it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mcts.data import AnswerKind, Image, Point, Question

# Points are rounded to a thousandth of a pixel: far below half a model unit for any real image, and
# short enough that a point written as text in original pixels parses back to the same point.
DECIMALS = 3


class SpaceKind(StrEnum):
    """What a model's numbers count."""

    ABSOLUTE_RESIZED = "absolute_resized"
    """Pixels of the image after the model's own resizing (Qwen2.5-VL)."""
    NORMALIZED_1000 = "normalized_1000"
    """Thousandths of the width and of the height (Qwen2-VL, Qwen3-VL)."""
    NORMALIZED_100 = "normalized_100"
    """Percents of the width and of the height (Molmo)."""
    NORMALIZED_1 = "normalized_1"
    """Shares of the width and of the height, 0 to 1."""
    ABSOLUTE_ORIGINAL = "absolute_original"
    """Pixels of the image as stored: used by people and gold boxes."""


_WHOLES = {
    SpaceKind.NORMALIZED_1: 1.0,
    SpaceKind.NORMALIZED_100: 100.0,
    SpaceKind.NORMALIZED_1000: 1000.0,
}
"""What width and height count in a space that is relative to them."""
_IN_WORDS = {
    SpaceKind.NORMALIZED_1000: "in thousandths of the image's width and height, "
    "from (0, 0) at the top left to (1000, 1000) at the bottom right",
    SpaceKind.NORMALIZED_100: "in percents of the image's width and height, "
    "from (0, 0) at the top left to (100, 100) at the bottom right",
    SpaceKind.NORMALIZED_1: "as shares of the image's width and height, "
    "from (0, 0) at the top left to (1, 1) at the bottom right",
    SpaceKind.ABSOLUTE_RESIZED: "in pixels of the image as you see it, from (0, 0) at the top left",
    SpaceKind.ABSOLUTE_ORIGINAL: "in pixels of the image, from (0, 0) at the top left",
}
_DIGITS = {SpaceKind.NORMALIZED_1: 4, SpaceKind.NORMALIZED_100: 2}
"""Decimals of a model's unit, where it is no whole number."""


class Dialect(StrEnum):
    """How a model writes a place, besides `(x, y)`, which is always read (`mcts.places`)."""

    PAIRS = "pairs"
    """Not at all."""
    BOXES = "boxes"
    """`[x1, y1, x2, y2]`, also in `<|box_start|>` or `<box>`; the middle is meant."""
    XML = "xml"
    """`<point>x y</point>`, `<point x= y= alt=>`, `<points x1= y1= …>`."""
    JSON = "json"
    """`"point_2d": [x, y]`, `"bbox_2d": [x1, y1, x2, y2]`, `"box_2d": [y1, x1, y2, x2]`."""


@dataclass(frozen=True, slots=True)
class CoordinateSpace:
    """The frame of one model's coordinates; recorded with every tree and every exported dataset."""

    kind: SpaceKind
    min_pixels: int | None = None
    """Fewest pixels the model's processor resizes to; decides the frame of ABSOLUTE_RESIZED."""
    max_pixels: int | None = None
    """Most pixels the model's processor resizes to; decides the frame of ABSOLUTE_RESIZED."""
    factor: int | None = None
    """Patch side times merge size: both sides of the resized image are multiples of it."""
    dialect: Dialect = Dialect.PAIRS
    """How the model writes places besides `(x, y)`."""

    def __post_init__(self) -> None:
        if self.kind is SpaceKind.ABSOLUTE_RESIZED:
            if not (self.min_pixels and self.max_pixels and self.factor):
                raise ValueError("absolute_resized needs min_pixels, max_pixels and factor")
            if self.min_pixels > self.max_pixels:
                raise ValueError(f"min_pixels {self.min_pixels} > max_pixels {self.max_pixels}")

    @classmethod
    def qwen25_vl(cls, min_pixels: int = 3136, max_pixels: int = 12845056) -> CoordinateSpace:
        """Qwen2.5-VL: pixels after smart-resize with 14-px patches merged two by two."""
        return cls(SpaceKind.ABSOLUTE_RESIZED, min_pixels, max_pixels, 28)

    @classmethod
    def qwen2_vl(cls, min_pixels: int = 3136, max_pixels: int = 12845056) -> CoordinateSpace:
        """Qwen2-VL: thousandths; 14-px patches merged two by two."""
        return cls(SpaceKind.NORMALIZED_1000, min_pixels, max_pixels, 28)

    @classmethod
    def qwen3_vl(cls, min_pixels: int = 65536, max_pixels: int = 16777216) -> CoordinateSpace:
        """Qwen3-VL: thousandths; 16-px patches merged two by two."""
        return cls(SpaceKind.NORMALIZED_1000, min_pixels, max_pixels, 32)

    @classmethod
    def original(cls) -> CoordinateSpace:
        """Original pixels: what people write and the warehouse stores."""
        return cls(SpaceKind.ABSOLUTE_ORIGINAL)

    @classmethod
    def shares(cls) -> CoordinateSpace:
        """Shares of width and height, 0 to 1."""
        return cls(SpaceKind.NORMALIZED_1)

    @classmethod
    def thousandths(cls) -> CoordinateSpace:
        """Thousandths of width and height, of a model that is no Qwen."""
        return cls(SpaceKind.NORMALIZED_1000)

    @classmethod
    def molmo(cls) -> CoordinateSpace:
        """Molmo: percents of width and height, in `<point>` tags."""
        return cls(SpaceKind.NORMALIZED_100, dialect=Dialect.XML)

    @property
    def decimals(self) -> int:
        """Decimals that its numbers are rounded to; those of original pixels are `DECIMALS`."""
        return DECIMALS if self.kind is SpaceKind.ABSOLUTE_ORIGINAL else _DIGITS.get(self.kind, 0)

    @property
    def in_words(self) -> str:
        """What its numbers count, as a prompt says it."""
        return _IN_WORDS[self.kind]

    @property
    def counts_units(self) -> bool:
        """Whether it counts thousandths or pixels of a resized image, of which a fraction of one
        can't be meant."""
        return self.kind in (SpaceKind.NORMALIZED_1000, SpaceKind.ABSOLUTE_RESIZED)

    def size(self, image: Image) -> tuple[float, float]:
        """Return width and height of `image` in this space's units."""
        if self.kind in _WHOLES:
            return _WHOLES[self.kind], _WHOLES[self.kind]
        if self.kind is SpaceKind.ABSOLUTE_ORIGINAL:
            return float(image.width), float(image.height)
        assert self.factor and self.min_pixels and self.max_pixels  # held by __post_init__
        height, width = smart_resize(
            image.height, image.width, self.factor, self.min_pixels, self.max_pixels
        )
        return float(width), float(height)


def format_number(value: float, decimals: int = DECIMALS) -> int | float:
    """Drop needless decimals: 82.0 -> 82, 81.9200001 -> 81.92."""
    rounded = round(value, decimals)
    return int(rounded) if rounded == int(rounded) else rounded


def smart_resize(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Compute the size (height, width) to which a Qwen-VL processor resizes an image.

    Both sides become multiples of `factor`, the area falls within [min_pixels, max_pixels], and
    the aspect ratio is kept as nearly as that allows. The processors apply the same rule
    (transformers, `Qwen2VLImageProcessor`), and a test compares the two.

    Raises:
        ValueError: the sides differ by more than a factor of 200, which the processors refuse.
    """
    if max(height, width) > 200 * min(height, width):
        raise ValueError(f"an image of {width}x{height} pixels is too narrow (over 200:1)")
    new_height = round(height / factor) * factor
    new_width = round(width / factor) * factor
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


@dataclass(frozen=True, slots=True)
class Frame:
    """A coordinate space with the images it applies to: all that a conversion needs."""

    space: CoordinateSpace
    images: Sequence[Image]
    answers_point: bool = True
    """Whether answers are points; in other answers `(1, 2)` is text and is not converted."""

    @classmethod
    def of(cls, space: CoordinateSpace, question: Question) -> Frame:
        """Return the frame of texts about `question` by a model whose coordinates are `space`."""
        pointing = question.answer_kind in (AnswerKind.BOX, AnswerKind.POINT)
        return cls(space, question.images, pointing)

    def to_point(self, x: float, y: float, image: int = 0) -> Point:
        """Convert a model's `x`, `y` to a point in original pixels.

        Raises:
            IndexError: there is no such image.
        """
        shown = self.images[image]
        width, height = self.space.size(shown)
        return Point(
            round(x * shown.width / width, DECIMALS),
            round(y * shown.height / height, DECIMALS),
            image,
        )

    def to_model(self, point: Point) -> tuple[float, float]:
        """Convert `point` to the model's units, rounded to them, or to exact original pixels."""
        shown = self.images[point.image]
        if self.space.kind is SpaceKind.ABSOLUTE_ORIGINAL:
            return point.x, point.y
        width, height = self.space.size(shown)
        x, y = point.x * width / shown.width, point.y * height / shown.height
        digits = self.space.decimals
        return (round(x, digits), round(y, digits)) if digits else (round(x), round(y))

    def inside(self, point: Point) -> bool:
        """Return whether `point` lies in its image, edges included."""
        if not 0 <= point.image < len(self.images):
            return False
        shown = self.images[point.image]
        return 0 <= point.x <= shown.width and 0 <= point.y <= shown.height

    def same_place(self, a: Point, b: Point, share: float) -> bool:
        """Return whether two points are closer than `share` of their image's longer side."""
        if a.image != b.image or not 0 <= a.image < len(self.images):
            return False
        shown = self.images[a.image]
        return math.hypot(a.x - b.x, a.y - b.y) < share * max(shown.width, shown.height)
