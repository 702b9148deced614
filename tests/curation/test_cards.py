"""Cards look as they did: each is compared with its stored picture, half as large and in greys.

    python -m tests.curation.test_cards        # after a change on purpose: store them anew

Look at what changed before it is stored. Letters come from Pillow's own face and are the same
everywhere; a little is allowed for how a release of it smooths edges.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from curation.render.question_card import draw_question
from curation.render.trace_card import draw_points, draw_trace
from mcts.data import AnswerKind, Box, Observation, Point, Question, Step, Trace
from mcts.data import Image as StoredImage

FOLDER = Path(__file__).with_name("cards")
LEVELS = 40
"""Greys by which a pixel may differ."""
PIXELS = 12
"""How many may differ by more."""


def picture(width: int, height: int, colour: str = "#7a9e7e") -> bytes:
    image = Image.new("RGB", (width, height), colour)
    image.paste("#e8c39e", (width // 2, height // 2, width, height))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def asked(*images: bytes, kind: AnswerKind = AnswerKind.TEXT) -> Question:
    named = [
        StoredImage(hashlib.sha256(data).hexdigest(), *Image.open(io.BytesIO(data)).size)
        for data in images
    ]
    return Question(
        "sat2", "Is the small box left or right of the lamp?", tuple(named), kind,
        ("left", "right"), ("left",), family="side",
    )  # fmt: skip


def steps(*places: Point, more: str = "") -> tuple[Step, ...]:
    return tuple(
        Step(f"I see thing number {i} at ({p.x:g}, {p.y:g}).{more}", (p,))
        for i, p in enumerate(places, 1)
    )


def corrected() -> bytes:
    """A wrong attempt with two points outside, a crop with its number, and a turn back."""
    data = picture(320, 240)
    question = asked(data)
    thoughts = steps(
        Point(40, 60), Point(300, 200), Point(-30, 100), Point(60, 300), Point(150, 120),
        Point(160, 125), more=" It is smaller than what stands beside it, and further back.",
    )  # fmt: skip
    look = Observation(Box(100, 80, 200, 160), 400, 320, view=1)
    lost = Observation(None, 0, 0)
    thoughts = (
        thoughts[0], replace(thoughts[1], observation=look), thoughts[2],
        replace(thoughts[3], observation=lost), replace(thoughts[4], observation=look),
        *thoughts[5:], Step("So it is left."),
    )  # fmt: skip
    trace = Trace(question.question_id, thoughts, "left", 1.0, "corrected", wrong_from=1,
                  turns_back_at=4)  # fmt: skip
    return draw_trace(trace, question, [data])


def wide() -> bytes:
    """Two images, many steps, an answer outside, partly right."""
    images = picture(300, 150), picture(200, 260, "#9aa7c7")
    question = asked(*images, kind=AnswerKind.POINT)
    places = [Point(20 + 25 * i, 70 + 5 * i, i % 2) for i in range(10)]
    trace = Trace(question.question_id, steps(*places), "(500, 20)", 0.5, "direct")
    return draw_trace(trace, question, images)


def wrong() -> bytes:
    data = picture(100, 300)
    question = replace(asked(data), choices=(), family="")
    trace = Trace(
        question.question_id, steps(Point(50, 250), Point(52, 250)), "right", 0.0, "direct"
    )
    return draw_trace(trace, question, [data])


def ungraded() -> bytes:
    question = asked(picture(80, 60))
    return draw_trace(
        Trace(question.question_id, steps(), None, None, "direct"), question, [b"no image"]
    )


def gold() -> bytes:
    boxes = [Box(20, 30, 120, 90, label="the lamp"), Box(250, 200, 390, 260, label="a chair"),
             Box(20, 30, 60, 50, image=1)]  # fmt: skip
    points = [Point(200, 100), Point(-40, 220), Point(100, 100, 1)]
    return draw_question(
        "Which of these is nearest? " * 9, ("lamp", "chair"), ("lamp",), boxes, points,
        [picture(320, 240), picture(200, 200)], ["row 3", "a remark"], "the answer is no choice",
    )  # fmt: skip


def nothing() -> bytes:
    return draw_question("Which?", (), (), (), (), [])


def points() -> bytes:
    places = [Point(10, 10), Point(90, 20), Point(50, 45), Point(120, 30)]
    drawn = draw_points(Image.open(io.BytesIO(picture(100, 50))), places, side=360)
    file = io.BytesIO()
    drawn.save(file, "PNG")
    return file.getvalue()


CARDS: tuple[Callable[[], bytes], ...] = (corrected, wide, wrong, ungraded, gold, nothing, points)


def small(card: bytes) -> Image.Image:
    whole = Image.open(io.BytesIO(card)).convert("L")
    return whole.reduce(2)


@pytest.mark.parametrize("card", CARDS)
def test_a_card_looks_as_it_did(card: Callable[[], bytes]) -> None:
    drawn = small(card())
    stored = Image.open(FOLDER / f"{card.__name__}.png").convert("L")
    assert drawn.size == stored.size
    differs = sum(ImageChops.difference(drawn, stored).histogram()[LEVELS + 1 :])
    assert differs <= PIXELS, f"{differs} pixels differ"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for card in CARDS:
        small(card()).quantize(16).save(FOLDER / f"{card.__name__}.png", optimize=True)


@pytest.mark.parametrize("count", [7, 40])
def test_a_card_has_rows_of_images_where_there_are_many(count: int) -> None:
    colours = [f"#{40 + 5 * i:02x}{200 - 4 * i:02x}60" for i in range(count)]
    data = [picture(200, 150, colour) for colour in colours]
    question = asked(*data)
    trace = Trace(question.question_id, steps(Point(40, 60)), "left", 1.0, "direct")
    shown = {tuple(bytes.fromhex(colour[1:])) for colour in colours}
    for drawn in (
        draw_trace(trace, question, data),
        draw_question("Which?", (), ("left",), (), (), data),
    ):
        card = Image.open(io.BytesIO(drawn)).convert("RGB")
        seen = {colour for _, colour in card.getcolors(card.width * card.height) or []}
        assert shown <= seen, "every image is on it"
