"""Control images: grey ones, or another question's, to see whether a model looks at all.

    images = control_images(questions, "shuffled", seed=0, read=lambda image_id: read_image(...))
    images(question)                    # the encoded images, in the question's order

Sizes stay, so a point means the same place as in the question's own images. Control images are made
for one request and stored nowhere: neither tables nor training sets ever hold them.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from PIL import Image

from mcts.data import Question
from mcts.image_io import decode, upright_size

CONTROLS = ("blank", "shuffled")

ImageSource = Callable[[Question], list[bytes]]


def control_images(
    questions: Sequence[Question], control: str | None, seed: int, read: Callable[[str], bytes]
) -> ImageSource:
    """Return a function from a question to the encoded images that are shown with it.

    Args:
        control: None for the question's own, `blank` for grey ones, `shuffled` for those of another
            of `questions` that has no image in common with it; grey where there is none.
        read: the stored bytes of an image id.
    """
    if control is None:
        return lambda question: [read(image.image_id) for image in question.images]
    if control == "blank":
        return lambda question: [_grey(image.width, image.height) for image in question.images]
    if control != "shuffled":
        raise ValueError(f"control: it is {' or '.join(CONTROLS)}, not {control!r}")
    donors = image_donors(questions, seed)

    def shuffled(question: Question) -> list[bytes]:
        donor = donors.get(question.question_id)
        if donor is None:
            return [_grey(image.width, image.height) for image in question.images]
        images = []
        for i, image in enumerate(question.images):
            other = donor.images[i % len(donor.images)]
            images.append(_resized(read(other.image_id), image.width, image.height))
        return images

    return shuffled


def image_donors(questions: Sequence[Question], seed: int) -> dict[str, Question]:
    """Return for each question another one whose images it gets; those without one are left out.

    One whose images are of the same sizes is preferred, so that nothing is stretched.
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


def with_images(question: Question, images: Sequence[bytes]) -> tuple[Question, dict[str, bytes]]:
    """Return the question with those images in place of its own, and their bytes by id."""
    ids = [hashlib.sha256(data).hexdigest() for data in images]
    replaced = tuple(
        replace(image, image_id=name) for image, name in zip(question.images, ids, strict=True)
    )
    return replace(question, images=replaced), dict(zip(ids, images, strict=True))


def _sizes(question: Question) -> list[tuple[int, int]]:
    return [(image.width, image.height) for image in question.images]


@cache
def _grey(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(out, "PNG")
    return out.getvalue()


def _resized(data: bytes, width: int, height: int) -> bytes:
    if upright_size(data) == (width, height):
        return data
    out = io.BytesIO()
    decode(data).resize((width, height)).save(out, "PNG")
    return out.getvalue()
