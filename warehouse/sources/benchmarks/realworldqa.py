"""RealWorldQA: short questions about photos of streets and rooms.

Schema (dataset card of xai-org/RealworldQA): Parquet with `image`, `question`, `answer`. Where
there are options they are lettered lines of the question; its last line says how to answer. The
answer is a letter, a word or a number. lmms-lab/RealWorldQA has `image_path` as well; VLMEvalKit's
TSV has a column a letter where there are options.

Published metric: accuracy.
"""

from __future__ import annotations

from warehouse.sources.published import Row, choice_row, published
from warehouse.sources.reading.drafts import Draft
from warehouse.sources.reading.options import cut_options
from warehouse.sources.tasks import Task


def _draft(row: Row) -> Draft:
    text, found = cut_options(row.text("question"))
    right, choices = row.answer(), found.choices
    if choices:
        right = found.by_letter(right)
    elif row.get("A", "B") is not None:
        choices, right = choice_row(row, "choices")
    elif right.casefold() in ("yes", "no"):
        choices, right = ("yes", "no"), right.casefold()
    family = "options" if len(choices) > 2 or (choices and choices[0] != "yes") else "short"
    return row.draft(
        text, [row.image("image", "image_path")], choices=choices, answers=(right,), family=family
    )


TASKS = (
    Task(
        "realworldqa",
        "RealWorldQA: photos of streets and rooms (Parquet, or VLMEvalKit's TSV)",
        published("RealWorldQA", _draft, ("question", "answer", "image|image_path")),
        split="test",
    ),
)
