"""RoboSpatial-Home: what is where in homes, asked for robots.

Schema (dataset card of chanhee-luke/RoboSpatial-Home; github.com/chanhee-luke/RoboSpatial-Eval,
evaluation.py): `category` (configuration, compatibility or context), `question`, `answer`, `img`
(the image, or its name in the JSON form), `depth_image`, `mask`. The answer is yes or no; of
`context` it is a polygon, a list of at least three points as shares of width and height, and a
point in it is right. A polygon becomes one gold box a pixel row of it. What `context` questions say
of how to write the answer is cut away: here points are written as every task's are.

Published metric: accuracy a category. ViGoRL's 228 questions are configuration and compatibility
together, reported as `yes_no`.
"""

from __future__ import annotations

import re

from mcts.data import AnswerKind
from warehouse.sources.published import Row, published
from warehouse.sources.reading.boxes import polygon_boxes
from warehouse.sources.reading.drafts import Draft, Unusable
from warehouse.sources.reading.image_files import image_size
from warehouse.sources.tasks import Task

CATEGORIES = ("configuration", "compatibility", "context")
_HOW = re.compile(r"\s*Your answer should be formatted as .*$", re.DOTALL)


def _draft(row: Row) -> Draft:
    category = row.text("category")
    if category not in CATEGORIES:
        raise Unusable("category", f"it is {', '.join(CATEGORIES)}, not {category!r}")
    image = row.image("img")
    text = _HOW.sub("", row.text("question"))
    answer = row.answer()
    if answer.casefold() in ("yes", "no"):
        return row.draft(
            text, [image], choices=("yes", "no"), answers=(answer.casefold(),), family=category
        )
    boxes = polygon_boxes(row.items("answer"), image_size(image.data, "img"), "answer")
    return row.draft(text, [image], answer_kind=AnswerKind.BOX, boxes=boxes, family=category)


TASKS = (
    Task(
        "robospatial",
        "RoboSpatial-Home: spatial relations and free space (Parquet or JSON)",
        published(
            "RoboSpatial-Home", _draft, ("category", "question", "answer", "img"),
            suffixes=(".parquet", ".arrow", ".json", ".jsonl"),
        ),
        split="test",
        metrics=("robospatial",),
        counts_by=("family",),
    ),
)  # fmt: skip
