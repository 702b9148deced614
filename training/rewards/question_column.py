"""A question as one column of a training set: what a reward needs to grade an answer to it.

    row["question"] = question_column(question, objects)     # when the rows are made
    asked = read_question(row["question"])                   # in a reward function
    asked.question, asked.objects

Trainers carry a row's columns to its rewards as plain values, so the question travels as JSON text:
the warehouse's row of it, with the sizes of its images and, where they are known, the boxes of what
each image shows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from curation.filters.grounding import Objects
from mcts.data import Box, Question
from warehouse.tables.rows import image_from, image_row, question_from, question_row


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question, and what can be seen in its images."""

    question: Question
    objects: Objects
    """Boxes in each image, in their order; None for an image of which nothing is known."""


def question_column(question: Question, objects: Objects | None = None) -> str:
    """`question` as JSON text; `objects` are the boxes in its images, where they are known."""
    row = question_row(question)
    row["images"] = [image_row(image) for image in question.images]
    if objects and any(seen is not None for seen in objects):
        row["objects"] = [
            None if seen is None else [[b.label, b.x1, b.y1, b.x2, b.y2] for b in seen]
            for seen in objects
        ]
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


@lru_cache(maxsize=4096)  # a group of completions asks for one question many times
def read_question(text: str) -> AskedQuestion:
    """The question in a `question` column.

    Raises:
        ValueError: it is not one; the sentence says what is wrong.
    """
    try:
        row = json.loads(text)
        images = [image_from(image) for image in row["images"]]
        question = question_from(row, {image.image_id: image for image in images})
        known = row.get("objects") or [None] * len(question.images)
        objects = [
            None
            if seen is None
            else tuple(Box(x1, y1, x2, y2, label=label) for label, x1, y1, x2, y2 in seen)
            for seen in known
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"column question: not as training.rewards.question_column writes it ({error!r})"
        ) from None
    return AskedQuestion(question, objects)
