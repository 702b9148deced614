"""What a model is shown to see whether it looks: grey pictures, or those of another question.

    shown = shown_pictures(questions, "shuffled", seed=0, read=lambda image_id: read_image(...))
    shown[question.question_id]         # the pictures' bytes, in the question's order

Sizes stay, so a point means the same place as in the question's own pictures. These pictures are
made for the asking and kept nowhere: neither the tables nor a training set ever hold them.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from PIL import Image as Pictures

from mcts.data import Question

CONTROLS = ("blank", "shuffled")

Shown = Callable[[Question], list[bytes]]


def shown_pictures(
    questions: Sequence[Question], control: str | None, seed: int, read: Callable[[str], bytes]
) -> Shown:
    """What gives the encoded pictures shown with a question.

    Args:
        control: None for the question's own, `blank` for grey ones, `shuffled` for those of another
            of `questions` that has no picture in common with it; grey where there is none.
        read: the stored bytes of an image id.
    """
    if control is None:
        return lambda question: [read(image.image_id) for image in question.images]
    if control == "blank":
        return lambda question: [_grey(image.width, image.height) for image in question.images]
    if control != "shuffled":
        raise ValueError(f"control: it is {' or '.join(CONTROLS)}, not {control!r}")
    lent = lenders(questions, seed)

    def shown(question: Question) -> list[bytes]:
        lender = lent.get(question.question_id)
        if lender is None:
            return [_grey(image.width, image.height) for image in question.images]
        pictures = []
        for i, image in enumerate(question.images):
            other = lender.images[i % len(lender.images)]
            pictures.append(_resized(read(other.image_id), image.width, image.height))
        return pictures

    return shown


def lenders(questions: Sequence[Question], seed: int) -> dict[str, Question]:
    """For each question another one whose pictures it is shown; those without one are left out.

    One whose pictures are of the same sizes is preferred, so that nothing is stretched.
    """
    order = sorted(questions, key=lambda question: question.question_id)
    random.Random(seed).shuffle(order)
    found: dict[str, Question] = {}
    for i, question in enumerate(order):
        own = {image.image_id for image in question.images}
        sizes = _sizes(question)
        others = [
            other
            for other in (order[(i + step) % len(order)] for step in range(1, min(len(order), 200)))
            if own.isdisjoint(image.image_id for image in other.images)
        ]
        if others:
            alike = (other for other in others if _sizes(other) == sizes)
            found[question.question_id] = next(alike, others[0])
    return found


def asked_about(question: Question, pictures: Sequence[bytes]) -> tuple[Question, dict[str, bytes]]:
    """The question with the pictures that are shown in place of its own, and their bytes by id."""
    names = [hashlib.sha256(data).hexdigest() for data in pictures]
    images = tuple(
        replace(image, image_id=name) for image, name in zip(question.images, names, strict=True)
    )
    return replace(question, images=images), dict(zip(names, pictures, strict=True))


def _sizes(question: Question) -> list[tuple[int, int]]:
    return [(image.width, image.height) for image in question.images]


@cache
def _grey(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Pictures.new("RGB", (width, height), (128, 128, 128)).save(out, "PNG")
    return out.getvalue()


def _resized(data: bytes, width: int, height: int) -> bytes:
    with Pictures.open(io.BytesIO(data)) as picture:
        if picture.size == (width, height):
            return data
        out = io.BytesIO()
        picture.convert("RGB").resize((width, height)).save(out, "PNG")
    return out.getvalue()
