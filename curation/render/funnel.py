"""What each filter kept and dropped, as a picture: one bar a filter.

    png = draw_funnel([Dropped("right_answer", 1040, 665, 410)], judged=1705, kept=1040)

Blue is kept. Orange is dropped: solid where no other filter dropped the trace, pale where another
one did as well, so that the solid part is what a change of this filter alone could bring back.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from curation.render.text_layout import BLUE, INK, LINE, MUTED, ORANGE, PAPER, drawable, font

_PALE = "#eebb9f"
_WIDTH, _PAD, _LEFT, _RIGHT = 1680, 60, 400, 470  # the card, its border, room for names and counts
_BAR, _ROW, _HEAD = 34, 62, 150


@dataclass(frozen=True, slots=True)
class Dropped:
    """What one filter did: a row of the view `verdict_funnel`."""

    filter: str
    kept: int
    dropped: int
    dropped_by_it_alone: int


def draw_funnel(rows: Sequence[Dropped], *, judged: int, kept: int) -> bytes:
    """The bars as PNG, in the order of `rows`.

    Args:
        judged: traces that were judged at all.
        kept: traces that every filter keeps.
    """
    card = Image.new("RGB", (_WIDTH, _HEAD + _ROW * len(rows) + _PAD), PAPER)
    draw = ImageDraw.Draw(card)
    title = f"{kept:,} of {judged:,} traces are kept by every filter"
    draw.text((_PAD, _PAD), title, INK, font(40), stroke_width=0.7)
    _legend(draw, _PAD + 68)
    room = _WIDTH - _LEFT - _RIGHT - _PAD
    for i, row in enumerate(rows):
        top = _PAD + _HEAD - 20 + i * _ROW
        middle = top + _BAR / 2
        name = drawable(row.filter)
        while font(24).getlength(name) > _LEFT - _PAD - 16:
            name = name[:-2] + "-"
        draw.text((_PAD, middle), name, INK, font(24), anchor="lm")
        x = float(_LEFT)
        draw.rectangle((x, top, x + room, top + _BAR), fill=LINE)
        for count, colour in _parts(row):
            wide = room * count / max(1, judged)
            if count:  # never so thin that it cannot be seen
                draw.rectangle((x, top, x + max(wide, 2), top + _BAR), fill=colour)
            x += wide
        told = f"{row.kept:,} kept, {row.dropped:,} dropped"
        if row.dropped:
            told += f" ({row.dropped_by_it_alone:,} by it alone)"
        draw.text((_LEFT + room + 24, middle), told, MUTED, font(21), anchor="lm")
    file = io.BytesIO()
    card.save(file, "PNG")
    return file.getvalue()


def _parts(row: Dropped) -> list[tuple[int, str]]:
    together = row.dropped - row.dropped_by_it_alone
    return [(row.kept, BLUE), (together, _PALE), (row.dropped_by_it_alone, ORANGE)]


def _legend(draw: ImageDraw.ImageDraw, top: float) -> None:
    x = float(_PAD)
    for colour, word in (
        (BLUE, "kept"), (_PALE, "dropped, by another filter too"), (ORANGE, "dropped by it alone"),
        (LINE, "not asked"),
    ):  # fmt: skip
        draw.rectangle((x, top, x + 22, top + 22), fill=colour)
        draw.text((x + 32, top + 11), word, MUTED, font(21), anchor="lm")
        x += 32 + font(21).getlength(word) + 40
