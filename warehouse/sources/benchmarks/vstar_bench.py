"""V*Bench: 191 questions about small things in large photos.

Schema (dataset card of craigwu/vstar_bench; github.com/penghao-wu/vstar, vstar_bench_eval.py):
`test_questions.jsonl` has `image` (a name such as `direct_attributes/sa_4690.jpg`), `text` (the
question, lettered options a line each, and how to answer), `category` (direct_attributes or
relative_position), `label` (a letter), `question_id`. Beside each image lies a JSON of its name
with `target_object` and `bbox` ([left, top, width, height] in pixels): where it is found, the boxes
of what is asked about become the image's objects. lmms-lab/vstar-bench has the same columns in
Parquet; VLMEvalKit's TSV has a column a letter, `question` and `answer`.

Published metric: accuracy, also a category.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from mcts.data import Box
from mcts.zoom.lenses import VISUAL_SEARCH_LENS
from warehouse.sources.published import Row, published
from warehouse.sources.reading.boxes import BoxFormat, gold_box
from warehouse.sources.reading.drafts import Draft, DraftImage, Unusable
from warehouse.sources.reading.image_files import image_size
from warehouse.sources.reading.options import cut_options
from warehouse.sources.tasks import Task

CATEGORIES = ("direct_attributes", "relative_position")


def _draft(row: Row) -> Draft:
    category = row.text("category")
    if category not in CATEGORIES:
        raise Unusable("category", f"it is {' or '.join(CATEGORIES)}, not {category!r}")
    text, found = cut_options(row.text("text", "question"))
    answer = row.answer("label", "answer")
    found = found if found.places else row.options("options")
    if len(found.choices) < 2:
        raise Unusable("options", f"there are {len(found.choices)} options")
    right = found.by_letter(answer, "label")
    image = row.image("image")
    image = DraftImage(image.data, _targets(row, image.data))
    return row.draft(text, [image], choices=found.choices, answers=(right,), family=category)


def _targets(row: Row, data: bytes) -> tuple[Box, ...] | None:
    """The boxes of what is asked about, where the JSON beside the image has them."""
    name = row.get("image")
    if not isinstance(name, str) or len(name) > 255 or row.spool is not None:
        return None
    try:
        found: Any = json.loads(row.files.read_named(str(PurePosixPath(name).with_suffix(".json"))))
    except (Unusable, ValueError):
        return None
    if not isinstance(found, dict):
        raise Unusable("image", f"the JSON beside {name} is not an object")
    labels, boxes = (found.get(key) for key in ("target_object", "bbox"))
    if not isinstance(labels, list) or not isinstance(boxes, list) or len(labels) != len(boxes):
        raise Unusable("image", f"the JSON beside {name} names not one box for each target_object")
    size = image_size(data)
    return tuple(
        gold_box(box, BoxFormat.XYWH, size, "image", label=str(label))
        for label, box in zip(labels, boxes, strict=True)
    )


TASKS = (
    Task(
        "vstar-bench",
        "V*Bench: small things in large photos (JSON Lines, Parquet, or VLMEvalKit's TSV)",
        published(
            "V*Bench", _draft, ("image", "category", "text|question", "label|answer"),
            suffixes=(".jsonl", ".parquet", ".arrow", ".tsv"),
        ),
        prompt="visual-search",
        split="test",
        metrics=("by_family",),
        counts_by=("family",),
        lens=VISUAL_SEARCH_LENS,
    ),
)  # fmt: skip
