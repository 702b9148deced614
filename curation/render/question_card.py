"""A question drawn with what counts as right: gold boxes and points on its images.

    png = draw_question(question, choices, answers, boxes, points, [data], remarks=["row 3"])

What is drawn is what the numbers say, in the pixels of the image: a box that lies beside the
image stands on a hatched margin beside it, so that a wrong coordinate frame is seen at once.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

from curation.render.marks import format_point
from curation.render.text_layout import BLUE, INK, LINE, MUTED, ORANGE, PAPER, font, wrap
from curation.render.trace_card import PER_ROW, in_rows, open_image
from mcts.data import Box, Point

_CARD, _PAD, _GAP = 1400, 40, 24
_TALLEST = 1000  # pixels of an image on the card
_BEYOND = 0.4  # of an image's longer side that is shown beside it, at most


def draw_question(
    text: str,
    choices: Sequence[str],
    answers: Sequence[str],
    boxes: Sequence[Box],
    points: Sequence[Point],
    images: Sequence[bytes],
    remarks: Sequence[str] = (),
    problem: str = "",
) -> bytes:
    """Draw a card as PNG; an image that can't be read is marked as unreadable.

    Args:
        remarks: more about the question, such as where it comes from.
        problem: why it can't be used, if so; written in another colour.
    """
    beside = min(len(images), PER_ROW)
    room = (_CARD - 2 * _PAD - _GAP * (beside - 1)) / max(1, beside)
    drawn = [
        _with_answer(
            open_image(data),
            [box for box in boxes if box.image == i],
            [point for point in points if point.image == i],
            room,
        )
        for i, data in enumerate(images)
    ]
    right = [*answers]
    right += [
        f"in box ({b.x1:.0f}, {b.y1:.0f}, {b.x2:.0f}, {b.y2:.0f}) {b.label}".strip() for b in boxes
    ]
    right += [f"at {format_point(p)}" for p in points]
    words = [(text, 30.0, INK)]
    words += [(" / ".join(choices), 22.0, MUTED)] if choices else []
    words += [(f"Right: {'; '.join(right) or 'nothing is'}", 24.0, BLUE)]
    words += [(problem, 22.0, ORANGE)] if problem else []
    words += [(" · ".join(remarks), 18.0, MUTED)] if remarks else []
    lines = [
        (line, size, colour)
        for text_, size, colour in words
        for line in wrap(text_, size, _CARD - 2 * _PAD)
    ]
    places, bottom = in_rows(drawn, _PAD, _GAP)
    below = sum(round(size * 1.4) for _, size, _ in lines)
    card = Image.new("RGB", (_CARD, bottom + _GAP + below + _PAD), PAPER)
    for image, corner in zip(drawn, places, strict=True):
        card.paste(image, corner)
    y, pen = bottom + _GAP, ImageDraw.Draw(card)
    for line, size, colour in lines:
        pen.text((_PAD, y), line, colour, font(size))
        y += round(size * 1.4)
    out = io.BytesIO()
    card.save(out, "PNG")
    return out.getvalue()


def _with_answer(
    image: Image.Image, boxes: Sequence[Box], points: Sequence[Point], room: float
) -> Image.Image:
    """Draw the image, as large as fits, on a margin as wide as its gold needs."""
    most = _BEYOND * max(image.size)
    xs = [0.0, image.width, *(x for b in boxes for x in (b.x1, b.x2)), *(p.x for p in points)]
    ys = [0.0, image.height, *(y for b in boxes for y in (b.y1, b.y2)), *(p.y for p in points)]
    left, top = max(min(xs), -most), max(min(ys), -most)
    across = min(max(xs), image.width + most) - left
    down = min(max(ys), image.height + most) - top
    scale = min(room / across, _TALLEST / down)
    ground = _hatched(max(1, round(across * scale)), max(1, round(down * scale)))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    resized = image.resize(size, Image.Resampling.LANCZOS)
    ground.paste(resized, (round(-left * scale), round(-top * scale)))
    pen = ImageDraw.Draw(ground)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            min(max((x - left) * scale, 1), ground.width - 2),
            min(max((y - top) * scale, 1), ground.height - 2),
        )

    for number, box in enumerate(boxes, start=1):
        (x1, x2), (y1, y2) = sorted((box.x1, box.x2)), sorted((box.y1, box.y2))
        a, b = at(x1, y1), at(x2, y2)
        # The line lies around the box, so that a small thing is not covered by it.
        for colour, out, width in (("white", 5, 5), (BLUE, 4, 3)):
            pen.rectangle(
                (a[0] - out, a[1] - out, b[0] + out, b[1] + out), outline=colour, width=width
            )
        if len(boxes) > 1:
            pen.text((a[0], max(a[1] - 10, 10)), str(number), BLUE, font(18), anchor="ls",
                     stroke_width=3, stroke_fill="white")  # fmt: skip
    for point in points:
        x, y = at(point.x, point.y)
        for colour, radius, width in (("white", 11, 5), (BLUE, 10, 3)):
            pen.ellipse(
                (x - radius, y - radius, x + radius, y + radius), outline=colour, width=width
            )
    return ground


def _hatched(width: int, height: int) -> Image.Image:
    """Make a ground that is seen to be no image."""
    ground = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(ground)
    for x in range(-height, width, 14):
        pen.line((x, height, x + height, 0), fill=LINE, width=2)
    return ground
