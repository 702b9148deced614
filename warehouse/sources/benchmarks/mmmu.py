"""MMMU, and sets in its form: college subjects, up to seven images, options or an open answer.

Schema (dataset card of MMMU/MMMU; loader in lmms-eval, lmms_eval/tasks/mmmu): Parquet a subject
with `id` (such as `validation_Accounting_1`), `question` and `options` (a list *written as text*),
both with `<image 1>` where an image stands, `image_1` to `image_7`, `answer` (a letter; of an open
question a text, or several as a list written as text), `question_type` (multiple-choice or open),
`topic_difficulty`, `subfield`. The answers of `test` are not published (`?`). MMMU-Pro's standard
sets have the same columns. VLMEvalKit's TSV has `image` (base64, several as a list), a column a
letter and `category` for the subject.

Published metric: accuracy, also a subject.
"""

from __future__ import annotations

import re

from warehouse.sources.published import Row, choice_row, published
from warehouse.sources.reading.drafts import Draft, DraftImage, Unusable
from warehouse.sources.tasks import Task

_MARK = re.compile(r"<image\s?(\d+)>")
_SUBJECT = re.compile(r"^[a-z]+_(.+)_\d+$")
_MOST = 7


def _draft(row: Row) -> Draft:
    answer = row.answer(hidden=("?",))
    images, places = _images(row)

    def with_image_numbers(text: str) -> str:
        """Replace marks by `image 2`, numbered as the images are shown."""

        def place(match: re.Match[str]) -> str:
            if int(match[1]) not in places:
                raise Unusable("question", f"it speaks of {match[0]}, which is not there")
            return f"(image {places[int(match[1])]})"

        return _MARK.sub(place, text)

    choices: tuple[str, ...] = ()
    if row.optional("question_type") == "open":
        listed = answer.startswith("[")
        answers = tuple(str(one) for one in row.items("answer")) if listed else (answer,)
    else:
        choices, right = choice_row(row, "options", hidden=("?",))
        choices = tuple(with_image_numbers(choice) for choice in choices)
        answers = (with_image_numbers(right),)
    subject = _SUBJECT.match(row.optional("id"))
    return row.draft(
        with_image_numbers(row.text("question")),
        images,
        choices=choices,
        answers=answers,
        family=subject[1] if subject else row.optional("category", "subject"),
    )


def _images(row: Row) -> tuple[tuple[DraftImage, ...], dict[int, int]]:
    """The images of a row, and the place of each published image number."""
    if row.get("image") is not None:
        images = row.images("image")
        return images, {n: n for n in range(1, len(images) + 1)}
    numbers = [n for n in range(1, _MOST + 1) if row.get(f"image_{n}") is not None]
    images = row.images(*(f"image_{n}" for n in numbers or [1]))
    return images, {n: place for place, n in enumerate(numbers, start=1)}


TASKS = (
    Task(
        "mmmu",
        "MMMU and sets in its form: college subjects (Parquet, or VLMEvalKit's TSV)",
        published("MMMU", _draft, ("question", "answer", "options|A", "image_1|image")),
        split="validation",
        metrics=("by_family",),
        counts_by=("family",),
    ),
)
