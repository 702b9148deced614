"""BLINK: 14 tasks of visual perception, multiple choice, with up to four images each.

Schema (dataset card of BLINK-Benchmark/BLINK; github.com/zeyofu/BLINK_Benchmark, README and
eval/test_benchmark.py): a Parquet a subtask and split, with `idx, question, sub_task, image_1` to
`image_4` (null where there are fewer), `choices: list<string>`, `answer` such as `(B)`, `prompt`,
`explanation`. The answers of `test` are not published (`hidden`), so figures are of `val`: 1,901
questions. VLMEvalKit's TSV has `image` (base64, several as a list), a column a letter, `answer` as
a bare letter and `category` for the subtask.

Published metric: accuracy a subtask, and their mean.
"""

from __future__ import annotations

import re

from warehouse.sources.published import Row, choice_row, published
from warehouse.sources.reading.drafts import Draft, Unusable
from warehouse.sources.tasks import Task

SUBTASKS = (
    "Art_Style",
    "Counting",
    "Forensic_Detection",
    "Functional_Correspondence",
    "IQ_Test",
    "Jigsaw",
    "Multi-view_Reasoning",
    "Object_Localization",
    "Relative_Depth",
    "Relative_Reflectance",
    "Semantic_Correspondence",
    "Spatial_Relation",
    "Visual_Correspondence",
    "Visual_Similarity",
)


_CHOICES = re.compile(r"\s*Select from the following (?:choices|options)\b")


def _question(row: Row) -> str:
    """Return what a model is asked: the prompt of the authors' own evaluation without its choices,
    which says what is marked in the images; VLMEvalKit's TSV has the question alone."""
    prompt = row.optional("prompt")
    choices = _CHOICES.search(prompt)
    return prompt[: choices.start()] if choices and choices.start() else row.text("question")


def _draft(row: Row) -> Draft:
    choices, right = choice_row(row, "choices", hidden=("hidden",))
    subtask = row.text("sub_task", "category")
    if subtask not in SUBTASKS:
        raise Unusable("sub_task", f"BLINK has no subtask {subtask!r}")
    images = row.images("image", "image_1", "image_2", "image_3", "image_4")
    return row.draft(_question(row), images, choices=choices, answers=(right,), family=subtask)


TASKS = (
    Task(
        "blink",
        "BLINK: visual perception in 14 subtasks (Parquet, or VLMEvalKit's TSV)",
        published(
            "BLINK",
            _draft,
            ("question", "answer", "sub_task|category", "choices|A", "image_1|image"),
        ),
        split="validation",
        metrics=("by_family",),
        counts_by=("family",),
    ),
)
