"""AI2D: questions about the diagrams of school books, multiple choice.

Schema: lmms-lab/ai2d (dataset card; loader in lmms-eval, lmms_eval/tasks/ai2d) in Parquet:
`question`, `options: list<string>`, `answer` (the option's number as text, from 0), `image`.
VLMEvalKit's TSV (AI2D_TEST) has a column a letter and `answer` as a letter.

Published metric: accuracy.
"""

from __future__ import annotations

from warehouse.sources.published import Row, published
from warehouse.sources.reading.drafts import Draft
from warehouse.sources.tasks import Task


def _draft(row: Row) -> Draft:
    found, answer = row.options("options"), row.answer(hidden=("-1", "?"))
    listed = row.get("options") is not None
    right = found.by_number(answer) if listed else found.by_letter(answer)
    return row.draft(
        row.text("question"), [row.image("image")], choices=found.choices, answers=(right,)
    )


TASKS = (
    Task(
        "ai2d",
        "AI2D: diagrams of school books (Parquet, or VLMEvalKit's TSV)",
        published("AI2D", _draft, ("question", "answer", "image", "options|A")),
        split="test",
    ),
)
