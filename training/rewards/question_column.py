"""The columns `question` and `zoom` of a GRPO training set: what a reward needs to grade an answer.

    row["question"] = question_column(question, objects)     # when the rows are made
    graded = read_question(row["question"])                  # in a reward function
    graded.question, graded.objects
    row["zoom"] = zoom_column(zoom)                          # of students that zoom
    zoom = read_zoom(row["zoom"])

Trainers pass a row's columns to its rewards as plain values, so the question travels as JSON text:
the warehouse's row of it, with the sizes of its images and, where they are known, the boxes of the
objects in each image. So does what a call shows, which is a task's, in the column `zoom`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache

from curation.filters.naming import Objects
from mcts.data import Box, Question
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens
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


def zoom_column(zoom: ZoomConfig) -> str:
    """Return how a question's calls are answered as JSON text."""
    return json.dumps(asdict(zoom), separators=(",", ":"))


@lru_cache(maxsize=256)  # most questions of a task share one
def read_zoom(text: str) -> ZoomConfig:
    """Read a `zoom` column.

    Raises:
        ValueError: it is not as `zoom_column` writes it.
    """
    try:
        row = json.loads(text)
        return ZoomConfig(Lens(**row.pop("lens")), **row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"column zoom: not as training.rewards.question_column writes it ({error!r})"
        ) from None
