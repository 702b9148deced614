"""TreeBench: 405 questions about small things in crowded photos, with the boxes of what is asked.

Schema (dataset card of HaochenWang/TreeBench; inference_treebench.py in Haochen-Wang409/TreeVGR;
`TreeBench` in VLMEvalKit): `TreeBench.tsv`, and the hub's Parquet of it, have `index`, `image`
(base64), `question`, `multi-choice options` (lettered lines in one text) and a column a letter,
`answer` (a letter), `category` (such as `Perception/OCR` or `Reasoning/Ordering`) and
`target_instances` (boxes as left, top, right, bottom in pixels, a list written as text): they
become the image's objects. Questions on text in pictures may list their options themselves.

Published metrics: accuracy, also a category; and mIoU of the boxes that a model writes between
`<box>` tags, which is not measured here: models cite points.
"""

from __future__ import annotations

from mcts.data import Box
from mcts.zoom.lenses import VISUAL_SEARCH_LENS
from warehouse.sources.published import Row, published
from warehouse.sources.reading.boxes import BoxFormat, gold_box
from warehouse.sources.reading.drafts import Draft, DraftImage, Unusable
from warehouse.sources.reading.image_files import image_size
from warehouse.sources.reading.options import cut_options
from warehouse.sources.tasks import Task

HALVES = ("Perception", "Reasoning")


def _draft(row: Row) -> Draft:
    category = row.text("category")
    if category.partition("/")[0] not in HALVES or not category.partition("/")[2]:
        raise Unusable("category", f"it is such as Perception/OCR, not {category!r}")
    text, within = cut_options(row.text("question"))
    found = row.options("multi-choice options")
    found = found if found.places else within
    if len(found.choices) < 2:
        raise Unusable("multi-choice options", f"there are {len(found.choices)} options")
    right = found.by_letter(row.answer())
    image = row.image("image")
    image = DraftImage(image.data, _targets(row, image.data))
    return row.draft(text, [image], choices=found.choices, answers=(right,), family=category)


def _targets(row: Row, data: bytes) -> tuple[Box, ...] | None:
    """The boxes of what is asked about; None where there are none."""
    boxes = row.items("target_instances")
    if not boxes:
        return None
    size = image_size(data)
    for box in boxes:
        if not isinstance(box, list | tuple):
            raise Unusable("target_instances", f"{box!r} is not a box")
    return tuple(gold_box(box, BoxFormat.XYXY, size, "target_instances") for box in boxes)


TASKS = (
    Task(
        "tree-bench",
        "TreeBench: small things in crowded photos, with boxes (VLMEvalKit's TSV, or Parquet)",
        published(
            "TreeBench", _draft, ("image", "question", "answer", "category", "target_instances"),
        ),
        prompt="visual-search",
        split="test",
        metrics=("by_family", "by_halves"),
        counts_by=("family",),
        lens=VISUAL_SEARCH_LENS,
    ),
)  # fmt: skip
