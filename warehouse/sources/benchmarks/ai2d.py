"""AI2D: questions about the diagrams of school books, multiple choice.

Schema: lmms-lab/ai2d (dataset card; loader in lmms-eval, lmms_eval/tasks/ai2d) in Parquet:
`question`, `options: list<string>`, `answer` (the option's number as text, from 0), `image`.
VLMEvalKit's TSV (AI2D_TEST) has a column a letter and `answer` as a letter.

Published metric: accuracy.
"""

from __future__ import annotations

from warehouse.sources.published import Row, choice_row, published
from warehouse.sources.reading.drafts import Draft
from warehouse.sources.reading.options import numbered_option, options
from warehouse.sources.tasks import Task


def _draft(row: Row) -> Draft:
    if row.get("options") is not None:
        choices = options(row.items("options"), "options")
        right = numbered_option(row.text("answer"), choices)
    else:
        choices, right = choice_row(row, "options")
    return row.draft(row.text("question"), [row.image("image")], choices=choices, answers=(right,))


TASKS = (
    Task(
        "ai2d",
        "AI2D: diagrams of school books (Parquet, or VLMEvalKit's TSV)",
        published("AI2D", _draft, ("question", "answer", "image", "options|A")),
        split="test",
    ),
)
