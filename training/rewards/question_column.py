"""The column `question` of a GRPO training set: what a reward needs to grade an answer.

    row["question"] = question_column(question, objects)     # when the rows are made
    graded = read_question(row["question"])                  # in a reward function
    graded.question, graded.objects

Trainers pass a row's columns to its rewards as plain values, so the question travels as JSON text:
the warehouse's row of it, with the sizes of its images and, where they are known, the boxes of the
objects in each image.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from curation.filters.grounding import Objects
from mcts.data import Box, Question
from warehouse.tables.rows import image_from, image_row, question_from, question_row


@dataclass(frozen=True, slots=True)
class GradedQuestion:
    """A question, and the objects in its images."""

    question: Question
    objects: Objects
    """Boxes in each image, in the images' order; None for an image without known boxes."""


def question_column(question: Question, objects: Objects | None = None) -> str:
    """Return `question` as JSON text; `objects` are the boxes in its images, where known."""
    row = question_row(question)
    row["images"] = [image_row(image) for image in question.images]
    if objects and any(boxes is not None for boxes in objects):
        row["objects"] = [
            None if boxes is None else [[b.label, b.x1, b.y1, b.x2, b.y2] for b in boxes]
            for boxes in objects
        ]
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


@lru_cache(maxsize=4096)  # a group of completions is about one question
def read_question(text: str) -> GradedQuestion:
    """Read the question in a `question` column.

    Raises:
        ValueError: it is not as `question_column` writes it.
    """
    try:
        row = json.loads(text)
        images = [image_from(image) for image in row["images"]]
        question = question_from(row, {image.image_id: image for image in images})
        known = row.get("objects") or [None] * len(question.images)
        objects = [
            None
            if boxes is None
            else tuple(Box(x1, y1, x2, y2, label=label) for label, x1, y1, x2, y2 in boxes)
            for boxes in known
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"column question: not as training.rewards.question_column writes it ({error!r})"
        ) from None
    return GradedQuestion(question, objects)
