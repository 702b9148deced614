"""A graph of what is made from what, in columns: sources left, what came of them right.

    drawing = lay_out(boxes, edges)           # boxes in the order they are to be listed
    drawing.png(below=[picture])              # bytes; Pillow pictures stand below the graph
    drawing.svg(below=[picture])              # text, the pictures inside it

An edge leads from a box in one column to a box further right. Within a column a box stands near the
middle of those it is joined to, so that few lines cross.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image, ImageDraw

from curation.render.text_layout import BLUE, INK, LINE, MUTED, ORANGE, PAPER, drawable, font, wrap

_WIDE, _HIGH, _ACROSS, _DOWN, _EDGE = 280, 92, 84, 22, 48
_LINES = 2  # of words in a box
_FINER = 2  # drawn this much larger and averaged down


@dataclass(frozen=True, slots=True)
class LayerBox:
    """One box of the graph."""

    key: str
    kind: str
    title: str
    words: str
    column: int
    """0 is the leftmost; edges go from lower to higher."""
    role: str = "plain"
    """`focus` for what was asked about, `bad` for what is revoked, else `plain`."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes with their places."""

    places: dict[str, tuple[int, int]]
    """Left and top of each box, in pixels."""
    boxes: tuple[LayerBox, ...]
    edges: tuple[tuple[str, str], ...]
    size: tuple[int, int]

    def png(self, below: Sequence[Image.Image] = ()) -> bytes:
        """The drawing as PNG, the pictures of `below` in a row under it."""
        width, height = self._whole(below)
        page = Image.new("RGB", (width * _FINER, self.size[1] * _FINER), PAPER)
        draw = ImageDraw.Draw(page)
        for ends in self.edges:
            points = [(x * _FINER, y * _FINER) for x, y in _curve(*self._ends(*ends), 24)]
            draw.line(points, fill=LINE, width=2 * _FINER, joint="curve")
        for box in self.boxes:
            self._box(draw, box)
        out = Image.new("RGB", (width, height), PAPER)
        out.paste(page.resize((width, self.size[1]), Image.Resampling.LANCZOS), (0, 0))
        for picture, x in self._row(below):
            out.paste(picture, (x, self.size[1]))
        file = io.BytesIO()
        out.save(file, "PNG")
        return file.getvalue()

    def svg(self, below: Sequence[Image.Image] = ()) -> str:
        """The drawing as SVG; its text can be searched, and nothing is fetched."""
        width, height = self._whole(below)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif">',
            f'<rect width="100%" height="100%" fill="{PAPER}"/>',
        ]
        for ends in self.edges:
            (ax, ay), (bx, by) = self._ends(*ends)
            bend = (ax + bx) / 2
            path = f"M{ax} {ay} C{bend:g} {ay} {bend:g} {by} {bx} {by}"
            parts.append(f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="2"/>')
        for box in self.boxes:
            x, y = self.places[box.key]
            line, fill, weight = _colours(box)
            parts.append(
                f"<g><title>{escape(box.kind)} {escape(box.key)}</title>"
                f'<rect x="{x}" y="{y}" width="{_WIDE}" height="{_HIGH}" rx="8" fill="{fill}" '
                f'stroke="{line}" stroke-width="{weight}"/>'
            )
            for text, size, colour, dx, dy in _written(box):
                parts.append(
                    f'<text x="{x + dx}" y="{y + dy + round(size * 0.8)}" font-size="{size}" '
                    f'fill="{colour}">{escape(text)}</text>'
                )
            parts.append("</g>")
        for picture, x in self._row(below):
            file = io.BytesIO()
            picture.save(file, "PNG")
            data = base64.b64encode(file.getvalue()).decode("ascii")
            parts.append(
                f'<image x="{x}" y="{self.size[1]}" width="{picture.width}" '
                f'height="{picture.height}" href="data:image/png;base64,{data}"/>'
            )
        return "\n".join([*parts, "</svg>\n"])

    def _whole(self, below: Sequence[Image.Image]) -> tuple[int, int]:
        """Width and height with the pictures below."""
        row = sum(p.width for p in below) + _EDGE * (len(below) + 1)
        tall = max((p.height for p in below), default=-_EDGE) + _EDGE
        return max(self.size[0], row if below else 0), self.size[1] + tall

    def _row(self, below: Sequence[Image.Image]) -> list[tuple[Image.Image, int]]:
        placed, x = [], _EDGE
        for picture in below:
            placed.append((picture, x))
            x += picture.width + _EDGE
        return placed

    def _ends(self, a: str, b: str) -> tuple[tuple[int, int], tuple[int, int]]:
        (ax, ay), (bx, by) = self.places[a], self.places[b]
        return (ax + _WIDE, ay + _HIGH // 2), (bx, by + _HIGH // 2)

    def _box(self, draw: ImageDraw.ImageDraw, box: LayerBox) -> None:
        x, y = (part * _FINER for part in self.places[box.key])
        line, fill, weight = _colours(box)
        corners = (x, y, x + _WIDE * _FINER, y + _HIGH * _FINER)
        draw.rounded_rectangle(corners, 8 * _FINER, fill, line, weight * _FINER)
        for text, size, colour, dx, dy in _written(box):
            at = (x + dx * _FINER, y + dy * _FINER)
            draw.text(at, text, colour, font(size * _FINER))


def lay_out(boxes: Sequence[LayerBox], edges: Sequence[tuple[str, str]]) -> Drawing:
    """Give every box its place.

    Args:
        edges: (from, to) by key; both must be among `boxes`.
    """
    columns: dict[int, list[LayerBox]] = {}
    for box in boxes:
        columns.setdefault(box.column, []).append(box)
    height = max(len(column) for column in columns.values()) * (_HIGH + _DOWN) - _DOWN
    middle: dict[str, float] = {}
    # Twice from left to right: the second time what a box leads to has its place as well.
    for _ in range(2):
        for column in sorted(columns):
            members = columns[column]
            wanted = {box.key: _pull(box.key, edges, middle) for box in members}
            members.sort(key=lambda box: wanted[box.key])
            top = (height - len(members) * (_HIGH + _DOWN) + _DOWN) / 2
            for number, box in enumerate(members):
                middle[box.key] = top + number * (_HIGH + _DOWN) + _HIGH / 2
    places = {
        box.key: (_EDGE + order * (_WIDE + _ACROSS), round(_EDGE + middle[box.key] - _HIGH / 2))
        for order, column in enumerate(sorted(columns))
        for box in columns[column]
    }
    wide = 2 * _EDGE + len(columns) * (_WIDE + _ACROSS) - _ACROSS
    return Drawing(places, tuple(boxes), tuple(edges), (wide, height + 2 * _EDGE))


def _pull(key: str, edges: Sequence[tuple[str, str]], middle: dict[str, float]) -> float:
    """Where a box wants to stand: at the mean of those it is joined to that have a place."""
    joined = [a if b == key else b for a, b in edges if key in (a, b)]
    known = [middle[other] for other in joined if other in middle and other != key]
    return sum(known) / len(known) if known else middle.get(key, 0.0)


def _colours(box: LayerBox) -> tuple[str, str, int]:
    """Outline, ground and outline's width."""
    if box.role == "focus":
        return BLUE, "#e8f0fb", 3
    return (ORANGE, "#fdf0e9", 2) if box.role == "bad" else (LINE, "#ffffff", 2)


def _written(box: LayerBox) -> list[tuple[str, int, str, int, int]]:
    """Every line of a box: text, size, colour, and where it begins."""
    room = _WIDE - 24
    lines = wrap(box.words, 13, room)
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], _cut(" ".join(lines[_LINES - 1 :]), 13, room)]
    title = _cut(drawable(box.title), 17, room)
    kind = ORANGE if box.role == "bad" else MUTED
    written = [(box.kind, 12, kind, 12, 8), (title, 17, INK, 12, 24)]
    return written + [(text, 13, MUTED, 12, 49 + 18 * n) for n, text in enumerate(lines)]


def _cut(text: str, size: float, width: float) -> str:
    face = font(size)
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _curve(a: tuple[int, int], b: tuple[int, int], pieces: int) -> list[tuple[float, float]]:
    """A line from `a` to `b` that leaves and arrives level, as points."""
    points = []
    for k in range(pieces + 1):
        t = k / pieces
        ease = t * t * (3 - 2 * t)
        points.append((a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * ease))
    return points
