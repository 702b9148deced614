"""A trace drawn on its images: numbered points in step order, and beside them the thoughts.

    drawn = draw_points(image, [Point(82, 40), Point(210, 133)])    # Pillow in, Pillow out
    png = draw_trace(trace, question, [image_bytes])                  # a whole card, as PNG

A marker is a ring exactly on its point and a numbered badge next to it, so that the number hides
nothing of what is pointed at. Steps of a wrong attempt have orange square badges, all others blue
round ones: shape and colour mean the same thing. A point outside its image is never moved in: its
badge stands hollow in an added margin, with an arrow that points away from the image.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

from curation.render.marks import (
    BADGE,
    NOMINAL,
    Mark,
    Region,
    arrange,
    marks_of,
    outward,
    regions_of,
)
from curation.render.text_layout import (
    LINE,
    MUTED,
    PAPER,
    colour_of,
    font,
    words_beside,
)
from mcts.data import Image as StoredImage
from mcts.data import Point, Question, Step, Trace
from mcts.image_io import UnreadableImage, as_rgb, decode
from mcts.zoom.render import render_crop

_FINER = 2  # overlays are drawn this much larger and averaged down: Pillow's shapes are jagged
_MARGIN = 46.0  # around an image with a point outside, at the nominal size
_CARD, _PAD, _GAP = 1680, 60, 56  # a card's width, its border, the space between its parts
PER_ROW = 6
"""Images side by side on a card."""


def draw_points(
    image: Image.Image, points: Sequence[Point], image_index: int = 0, *, side: int = 720
) -> Image.Image:
    """Number `points` in their order and draw those of image `image_index` on it."""
    image = as_rgb(image)
    sizes = [StoredImage("", *image.size)] * (image_index + 1)
    marks = [Mark(str(i + 1), point) for i, point in enumerate(points)]
    here = [mark for mark in marks if mark.point.image == image_index]
    return draw_marks(image, arrange(here, sizes), side=side)


def draw_marks(
    image: Image.Image, marks: Sequence[Mark], regions: Sequence[Region] = (), *, side: int = 720
) -> Image.Image:
    """Draw arranged `marks`, all of this image, joined in order by a thin line.

    Args:
        regions: what was looked at closer in this image, to be outlined.
        side: pixels of the longer side of the result, margin aside.
    """
    resized = as_rgb(image)
    scale = side / max(resized.size)
    resized = resized.resize(
        (max(1, round(resized.width * scale)), max(1, round(resized.height * scale))),
        Image.Resampling.LANCZOS,
        reducing_gap=3.0,
    )
    unit = side / NOMINAL
    margin = round(_MARGIN * unit) if any(mark.outside for mark in marks) else 0
    framed = ImageOps.expand(resized, margin, PAPER)
    layer = Image.new("RGBA", (framed.width * _FINER, framed.height * _FINER))
    pen = _Pen(ImageDraw.Draw(layer), unit * _FINER, scale * _FINER, margin * _FINER, resized.size)
    for region in regions:
        pen.region(region)
    pen.route(marks)
    for mark in marks:
        pen.mark(mark)
    layer = layer.reduce(_FINER)
    framed.paste(layer, mask=layer)
    return framed


class _Pen:
    """Draws marks on a layer over an image; sizes are given for the nominal image."""

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        unit: float,
        scale: float,
        margin: float,
        size: tuple[int, int],
    ) -> None:
        self.draw, self.unit, self.scale, self.margin = draw, unit, scale, margin
        self.width, self.height = size[0] * _FINER, size[1] * _FINER

    def at(self, point: Point) -> tuple[float, float]:
        """Return where a point is on the layer; one outside stands on the image's edge."""
        x = min(max(point.x * self.scale, 0), self.width)
        y = min(max(point.y * self.scale, 0), self.height)
        return x + self.margin, y + self.margin

    def badge(self, mark: Mark) -> tuple[float, float]:
        """Return the middle of a mark's badge on the layer."""
        x, y = self.at(mark.point)
        return x + mark.badge[0] * self.unit, y + mark.badge[1] * self.unit

    def region(self, region: Region) -> None:
        """Outline a region; a tab at its corner names the crop, above it where there is room."""
        box, colour, unit = region.box, colour_of(region.role), self.unit
        a, b = self.at(Point(box.x1, box.y1)), self.at(Point(box.x2, box.y2))
        for paint, width in (("white", 4), (colour, 1.6)):
            self.draw.rectangle((*a, *b), outline=paint, width=round(width * unit))
        if region.label:
            text, face = f"image {region.label}", font(11 * unit)
            width, height = face.getlength(text) + 9 * unit, 16 * unit
            top = a[1] - height if a[1] >= height else b[1]
            self.draw.rectangle((a[0], top, a[0] + width, top + height), fill=colour)
            middle = (a[0] + width / 2, top + height / 2)
            self.draw.text(middle, text, "white", face, anchor="mm", stroke_width=0.3 * unit)

    def route(self, marks: Sequence[Mark]) -> None:
        """Draw the thin line through the points, in order; into a wrong attempt it is dashed."""
        ends = [self.badge(m) if m.outside else self.at(m.point) for m in marks if m.label != "A"]
        for k in ("halo", "line"):
            for a, b, mark in zip(ends, ends[1:], marks[1:], strict=False):
                for start, end in _dashes(a, b, 7 * self.unit if mark.role == "wrong" else 0):
                    colour = (255, 255, 255, 210) if k == "halo" else colour_of(mark.role)
                    width = round((4.2 if k == "halo" else 1.8) * self.unit)
                    self.draw.line((start, end), fill=colour, width=width)

    def mark(self, mark: Mark) -> None:
        colour, unit = colour_of(mark.role), self.unit
        x, y = self.badge(mark)
        if mark.outside:
            dx, dy = outward(mark.point, self.width / self.scale, self.height / self.scale)
            tip, root = 24 * unit, 15 * unit
            arrow = [(x + dx * tip, y + dy * tip)]
            arrow += [
                (x + dx * root + s * dy * 6 * unit, y + dy * root - s * dx * 6 * unit)
                for s in (1, -1)
            ]
            self.draw.polygon(arrow, fill=colour)
        else:
            px, py = self.at(mark.point)
            for fill, width in (("white", 5), (colour, 1.8)):
                self.draw.line((px, py, x, y), fill=fill, width=round(width * unit))
            for fill, radius in (("white", 6.4), (colour, 4.9), ("white", 2.9)):
                self._round((px, py), radius * unit, fill)
            self._round((px, py), 1.5 * unit, colour)
        self._badge((x, y), mark.role, BADGE * unit, "white")
        self._badge((x, y), mark.role, (BADGE - 1.6) * unit, colour)
        if mark.outside:
            self._badge((x, y), mark.role, (BADGE - 3.2) * unit, "white")
        letter = colour if mark.outside else "white"
        size = (13 if len(mark.label) < 2 else 11) * unit
        self.draw.text(
            (x, y), mark.label, letter, font(size), anchor="mm", stroke_width=0.35 * unit
        )

    def _round(self, at: tuple[float, float], r: float, fill: str) -> None:
        self.draw.ellipse((at[0] - r, at[1] - r, at[0] + r, at[1] + r), fill=fill)

    def _badge(self, at: tuple[float, float], role: str, r: float, fill: str) -> None:
        if role != "wrong":
            self._round(at, r, fill)
            return
        corners = (at[0] - r, at[1] - r, at[0] + r, at[1] + r)
        self.draw.rounded_rectangle(corners, radius=r * 0.35, fill=fill)


def _dashes(
    a: tuple[float, float], b: tuple[float, float], dash: float
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The line from `a` to `b` in pieces of `dash` with gaps between; whole when `dash` is 0."""
    count = max(1, int(math.dist(a, b) / dash)) if dash else 1
    along = [
        (a[0] + (b[0] - a[0]) * k / count, a[1] + (b[1] - a[1]) * k / count)
        for k in range(count + 1)
    ]
    return list(zip(along[::2], along[1::2], strict=False))


def draw_trace(trace: Trace, question: Question, images: Sequence[bytes]) -> bytes:
    """Draw a card for one trace, as PNG: its numbered images, its question, steps and answer.

    Args:
        images: the question's encoded images, in order. One that cannot be read is marked
            as unreadable on the card; it is no error.
    """
    marks = marks_of(trace, question)
    raw = [open_image(data) for data in images]
    crops = {i: crop for i, step in enumerate(trace.steps) if (crop := _crop(step, images))}
    single = len(raw) == 1 and raw[0].width <= 1.6 * raw[0].height
    inner = _CARD - 2 * _PAD
    beside = min(len(raw), PER_ROW)
    room = 0.5 * inner if single else (inner - _GAP * (beside - 1)) / max(1, beside)
    drawn = [
        _drawn(image, i, trace, marks, (room, 900.0 if single else 760.0))
        for i, image in enumerate(raw)
    ]
    left = _PAD + (drawn[0].width + _GAP if single else 0)
    places, bottom = in_rows(drawn, _PAD, _GAP)
    top = _PAD if single or not drawn else bottom + _GAP
    # Measured on a scrap first: how tall the words are decides how tall the card is.
    scrap = Image.new("RGB", (1, 1))
    width = _CARD - _PAD - left
    tall = words_beside(scrap, (left, top), width, trace, question, marks, crops)
    tall = max(tall, bottom)
    card = Image.new("RGB", (_CARD, round(tall) + _PAD), PAPER)
    draw = ImageDraw.Draw(card)
    for shown, (x, y) in zip(drawn, places, strict=True):
        card.paste(shown, (x, y))
        edge = (x - 1, y - 1, x + shown.width, y + shown.height)
        draw.rectangle(edge, outline=LINE, width=1)
    words_beside(card, (left, top), width, trace, question, marks, crops)
    file = io.BytesIO()
    card.save(file, "PNG", compress_level=3)  # a little larger than with 6, and sooner
    return file.getvalue()


def in_rows(
    drawn: Sequence[Image.Image], border: int, gap: int
) -> tuple[list[tuple[int, int]], int]:
    """Return the corner of each image on a card, and where the last of their rows ends."""
    places, y = [], border
    for start in range(0, len(drawn), PER_ROW):
        row, x = drawn[start : start + PER_ROW], border
        y += gap if start else 0
        for shown in row:
            places.append((x, y))
            x += shown.width + gap
        y += max(shown.height for shown in row)
    return places, y


def _crop(step: Step, images: Sequence[bytes]) -> Image.Image | None:
    """Open the crop that a step was shown, as the model saw it; None if there is none to see."""
    shown = step.observation
    if shown is None or shown.crop is None or not 0 <= shown.crop.image < len(images):
        return None
    try:
        return decode(render_crop(images[shown.crop.image], shown, step.call))
    except (UnreadableImage, ValueError):  # it can't be read, or is smaller than it was
        return None


def open_image(data: bytes) -> Image.Image:
    """Open the image in `data`, or make one that says that it cannot be read."""
    try:
        return decode(data)
    except UnreadableImage:
        blank = Image.new("RGB", (480, 360), LINE)
        text = "this image cannot be read"
        ImageDraw.Draw(blank).text((240, 180), text, MUTED, font(22), anchor="mm")
        return blank


def _drawn(
    image: Image.Image,
    index: int,
    trace: Trace,
    marks: Sequence[Mark],
    room: tuple[float, float],
) -> Image.Image:
    """Image `index` with its marks and crops, as large as fits in `room`, margin included."""
    here = [mark for mark in marks if mark.point.image == index]
    regions = [region for region in regions_of(trace) if region.box.image == index]
    grown = 1 + 2 * _MARGIN / NOMINAL if any(mark.outside for mark in here) else 1
    longer = max(image.size)
    side = min(room[0] / image.width, room[1] / image.height) * longer / grown
    return draw_marks(image, here, regions, side=round(side))
