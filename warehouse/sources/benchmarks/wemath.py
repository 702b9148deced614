"""We-Math: problems of two or three steps, each step asked on its own as well.

Schema (dataset card of We-Math/We-Math, testmini): `ID` (one for a problem and all its steps, such
as `3steps_165`), `split`, `knowledge concept`, `question`, `option` (one text: `A. 5;B. 6; C. 7`),
`answer` (a letter), `image_path` (a name, or the image in Parquet), `key` (`2steps_1`,
`2steps_multi`, …), `question number`, `knowledge concept description`. 1,740 questions, 525
problems. VLMEvalKit's TSV has `image` in base64 and a column a letter.

Published metrics (the authors' four-dimensional metric; VLMEvalKit, vlmeval/dataset/utils/
wemath.py): of all problems, how many show insufficient knowledge (problem and a step wrong),
inadequate generalization (steps right, problem wrong), complete mastery (all right) or rote
memorization (problem right, a step wrong); strict score = mastery + half of inadequate
generalization. The loose one forgives all steps but one.
"""

from __future__ import annotations

import re

from warehouse.sources.published import Row, published
from warehouse.sources.reading.drafts import Draft, Unusable
from warehouse.sources.reading.options import read_options
from warehouse.sources.tasks import Task

_OPTION = re.compile(r"(?:^|;)\s*(?=[A-H]\s*[.:)])")
_KEY = re.compile(r"^([23])steps_(?:[1-3]|multi)$")


def _draft(row: Row) -> Draft:
    key, problem = row.text("key"), row.text("ID")
    if not _KEY.match(key):
        raise Unusable("key", f"it is such as 2steps_1 or 3steps_multi, not {key!r}")
    answer, found = row.answer(), row.options()
    if not found.places:
        parts = [part for part in _OPTION.split(row.text("option")) if part.strip()]
        found = read_options([part.strip().rstrip(";") for part in parts], "option")
    if len(found.choices) < 2:
        raise Unusable("option", f"there are no lettered options in {row.get('option')!r}")
    return row.draft(
        row.text("question"),
        [row.image("image_path", "image")],
        choices=found.choices,
        answers=(found.by_letter(answer),),
        family=key,
        part_of=problem,
    )


TASKS = (
    Task(
        "wemath",
        "We-Math: problems and their single steps (JSON with images, Parquet, or a TSV)",
        published(
            "We-Math", _draft, ("ID", "key", "question", "answer", "option|A", "image_path|image"),
            folders=("data", "image"), licence="CC-BY-NC-4.0",
        ),
        split="validation",
        metrics=("wemath",),
        counts_by=("family", "part_of"),
    ),
)  # fmt: skip
