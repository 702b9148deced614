"""Controls: other images or other crops than the true ones, to see whether a model looks at all.

    images = control_images(questions, "shuffled", seed=0, read=lambda image_id: read_image(...))
    images(question)                    # the encoded images, in the question's order
    shown, crops = with_crops(question, images(question), "noise")    # a zoom's crops are noise

Sizes stay, so a point means the same place as in the question's own images. What a control shows is
made for one request and stored nowhere: neither tables nor training sets ever hold it.
"""

from __future__ import annotations

import hashlib
import io
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

from PIL import Image

from mcts.data import Box, Observation, Question, ZoomCall
from mcts.image_io import decode, upright_size
from mcts.zoom.crops import CropImages
from mcts.zoom.lenses import span_around
from mcts.zoom.render import crop_id, render_crop

CONTROLS = ("blank", "shuffled")
CROP_CONTROLS = ("noise", "elsewhere", "gold")
_PLACES_TRIED = 64

ImageSource = Callable[[Question], list[bytes]]


def control_images(
    questions: Sequence[Question], control: str | None, seed: int, read: Callable[[str], bytes]
) -> ImageSource:
    """Return a function from a question to the encoded images that are shown with it.

    Args:
        control: None for the question's own, as under a control of crops; `blank` for grey ones,
            `shuffled` for those of another of `questions` that has no image in common with it;
            grey where there is none.
        read: the stored bytes of an image id.
    """
    if control is None or control in CROP_CONTROLS:
        return lambda question: [read(image.image_id) for image in question.images]
    if control == "blank":
        return lambda question: [_grey(image.width, image.height) for image in question.images]
    if control != "shuffled":
        known = ", ".join((*CONTROLS, *CROP_CONTROLS))
        raise ValueError(f"control: it is one of {known}, not {control!r}")
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


def with_images(
    question: Question, images: Sequence[bytes]
) -> tuple[Question, Mapping[str, bytes]]:
    """Return the question with those images in place of its own, and their bytes by id."""
    ids = [hashlib.sha256(data).hexdigest() for data in images]
    replaced = tuple(
        replace(image, image_id=name) for image, name in zip(question.images, ids, strict=True)
    )
    return replace(question, images=replaced), dict(zip(ids, images, strict=True))


def with_crops(
    question: Question, images: Sequence[bytes], control: str, asked: Sequence[Box] = ()
) -> tuple[Question, Mapping[str, bytes]]:
    """Return the question and its images such that every crop of them is a control's.

    The images have other ids, and so have their crops: no cache may take a control for the truth.

    Args:
        control: `noise`, `elsewhere` for another region of the same image, as large, or `gold`
            for the one around an object in question, wherever the model looks.
        asked: where the objects in question are; without any in an image its crops stay true.
    """
    ids = [hashlib.sha256(control.encode() + data).hexdigest() for data in images]
    replaced = tuple(
        replace(image, image_id=name) for image, name in zip(question.images, ids, strict=True)
    )
    named = dict(zip(ids, images, strict=True))
    render = partial(gold_crop, asked=asked) if control == "gold" else _RENDERERS[control]
    return replace(question, images=replaced), CropImages(named, render)


def noise_crop(data: bytes, observation: Observation, call: ZoomCall | None = None) -> bytes:
    """Make noise in place of a crop: the same for the same region of the same image."""
    size = (observation.width, observation.height)
    seed = crop_id(hashlib.sha256(data).hexdigest(), observation, call)
    pixels = random.Random(seed).randbytes(3 * size[0] * size[1])
    return _encoded(Image.frombytes("RGB", size, pixels))


def crop_elsewhere(data: bytes, observation: Observation, call: ZoomCall | None = None) -> bytes:
    """Show another region of the image in place of the one asked for, as large and without a mark.

    It overlaps that one as little as some regions drawn at random allow.
    """
    crop = observation.crop
    assert crop is not None
    width, height = upright_size(data)
    wide, tall = crop.x2 - crop.x1, crop.y2 - crop.y1
    draw = random.Random(crop_id(hashlib.sha256(data).hexdigest(), observation, call))
    corners = [
        (draw.uniform(0, width - wide), draw.uniform(0, height - tall))
        for _ in range(_PLACES_TRIED)
    ]
    others = [Box(x, y, x + wide, y + tall, crop.image) for x, y in corners]
    other = min(others, key=lambda box: _overlap(crop, box))
    return render_crop(data, replace(observation, crop=other, marked=False))


def gold_crop(
    data: bytes, observation: Observation, call: ZoomCall | None = None, *, asked: Sequence[Box]
) -> bytes:
    """Show the region around the object in question that is nearest to the one asked for.

    It is as large and without a mark, and moved inwards at an edge. What a model reads in such
    crops is what it would know if it always looked at the right place.
    """
    crop = observation.crop
    assert crop is not None
    objects = [box for box in asked if box.image == crop.image]
    if not objects:
        return render_crop(data, observation, call)
    middle = crop.middle
    goal = min(
        (box.middle for box in objects), key=lambda p: math.hypot(p.x - middle.x, p.y - middle.y)
    )
    width, height = upright_size(data)
    left, wide = span_around(goal.x, width, crop.x2 - crop.x1)
    top, tall = span_around(goal.y, height, crop.y2 - crop.y1)
    there = Box(left, top, left + wide, top + tall, crop.image)
    return render_crop(data, replace(observation, crop=there, marked=False))


_RENDERERS = {"noise": noise_crop, "elsewhere": crop_elsewhere}


def _overlap(a: Box, b: Box) -> float:
    wide, tall = min(a.x2, b.x2) - max(a.x1, b.x1), min(a.y2, b.y2) - max(a.y1, b.y1)
    return max(0.0, wide) * max(0.0, tall)


def _sizes(question: Question) -> list[tuple[int, int]]:
    return [(image.width, image.height) for image in question.images]


@cache
def _grey(width: int, height: int) -> bytes:
    return _encoded(Image.new("RGB", (width, height), (128, 128, 128)))


def _resized(data: bytes, width: int, height: int) -> bytes:
    if upright_size(data) == (width, height):
        return data
    return _encoded(decode(data).resize((width, height)))


def _encoded(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
