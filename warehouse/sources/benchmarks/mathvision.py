r"""MathVision: problems of mathematical competitions that need their image.

Schema (dataset card of MathLLMs/MathVision; loader in lmms-eval, lmms_eval/tasks/mathvision):
`id`, `question` with `<image1>` where the image stands, `options` (empty for a free answer),
`image` (a name such as `images/1.jpg`), `decoded_image`, `answer` (a letter, or a text such as `3`
or `\frac{1}{2}`), `solution`, `level` (1 to 5), `subject`. Splits `test` and `testmini`.
VLMEvalKit's TSV has `choices` as text and `category`.

Published metric: accuracy, also a subject. Options and numbers are graded as everywhere here:
exactly, a fraction equal to its decimal.
"""

from __future__ import annotations

import re

from warehouse.sources.published import Row, published
from warehouse.sources.reading.drafts import Draft
from warehouse.sources.reading.image_marks import MARK, place_images
from warehouse.sources.tasks import Task

_MARK = re.compile(r"<image\s?1?>")


def _draft(row: Row) -> Draft:
    # It has one image: every mark of the first is where it stands, or a word for it.
    text = place_images(_MARK.sub(MARK, row.text("question")), 1).replace(MARK, "(image 1)")
    right, found = row.answer(), row.options("options", "choices")
    if found.choices:
        right = found.by_letter(right)
    return row.draft(
        text,
        [row.image("decoded_image", "image")],
        choices=found.choices,
        answers=(right,),
        family=row.optional("subject", "category"),
    )


TASKS = (
    Task(
        "mathvision",
        "MathVision: competition mathematics with images (Parquet, JSON Lines, or a TSV)",
        published(
            "MathVision", _draft, ("question", "answer", "options|choices", "decoded_image|image")
        ),
        split="test",
        metrics=("by_family",),
        counts_by=("family",),
    ),
)
