"""POPE: is an object in the image? Yes or no, with three ways to choose the absent objects.

Schema: lmms-lab/POPE (dataset card; loader in lmms-eval, lmms_eval/tasks/pope) in Parquet:
`question_id, question, answer` (yes or no), `image_source, image, category` (random, popular or
adversarial). The authors' files (github.com/AoiDragon/POPE, output/coco/coco_pope_random.json and
so on) are objects one behind the other: `question_id, image` (a COCO file name), `text`, `label`;
the category is in the file's name. VLMEvalKit's TSV: `image, question, answer, category`, with
the categories of one question joined (`adversarial,popular,random`): each counts it.

Published metrics: accuracy, precision, recall and F1 of *yes*, and the share of *yes*, a category
and all together.
"""

from __future__ import annotations

from collections.abc import Iterator

from warehouse.sources.published import Row, published
from warehouse.sources.reading.drafts import Draft, Unusable
from warehouse.sources.tasks import Task

CATEGORIES = ("random", "popular", "adversarial")


def _drafts(row: Row) -> Iterator[Draft | Unusable]:
    """One question a category: each counts it."""
    answer = row.answer("answer", "label").casefold()
    if answer not in ("yes", "no"):
        raise Unusable("answer", f"it is yes or no, not {answer!r}")
    text, image = row.text("question", "text"), row.image("image")
    named = [part.strip().casefold() for part in row.optional("category").split(",")]
    named = [part for part in named if part]
    for category in named or [next((c for c in CATEGORIES if c in row.file.name.casefold()), "")]:
        if category not in CATEGORIES:
            yield Unusable("category", f"it is {', '.join(CATEGORIES)}, not {category!r}")
            continue
        yield row.draft(text, [image], choices=("yes", "no"), answers=(answer,), family=category)


TASKS = (
    Task(
        "pope",
        "POPE: is an object there? (Parquet, the authors' JSON, or VLMEvalKit's TSV)",
        published(
            "POPE", _drafts, ("question|text", "answer|label", "image"), folders=("val2014",)
        ),
        split="test",
        metrics=("pope",),
        counts_by=("family",),
    ),
)
