"""VisualProbe: questions that want several looks at large pictures; easy, medium and hard.

Schema (dataset cards of Mini-o3/VisualProbe_Easy, _Medium, _Hard and _train; docs/mini_o3_demo.md
in Mini-o3/Mini-o3): each has `val.json` (or `train.json`), an array of rows with `images` (one
name, such as `VisualProbe_Hard/data/visual_probe_hard_0.jpg`, relative to the folder that holds all
of them), `problem` (`<image>` and the question), `solution` (a short text), `data_source` (such as
`visual_probe_hard`) and `doc_id`. No boxes are published.

Published metric: accuracy, a level of difficulty. The authors have a language model judge what is
not equal; here an answer is right where it is equal, so figures are lower.
"""

from __future__ import annotations

import re

from mcts.zoom.lenses import VISUAL_SEARCH_LENS
from warehouse.sources.published import Row, published
from warehouse.sources.reading.drafts import Draft, DraftImage, Unusable
from warehouse.sources.tasks import Task

_SOURCE = re.compile(r"visual_probe_(easy|medium|hard|train)")
_FOLDER = re.compile(r"VisualProbe_\w+/")


def _draft(row: Row) -> Draft:
    source = _SOURCE.fullmatch(row.text("data_source"))
    if source is None:
        raise Unusable("data_source", "it is visual_probe_easy, _medium, _hard or _train")
    answer, names = row.answer("solution"), row.items("images")
    if len(names) != 1:
        raise Unusable("images", f"a question has one image, this has {len(names)}")
    text = row.text("problem").removeprefix("<image>").strip()
    if not text:
        raise Unusable("problem", "there is no question")
    family = "" if source[1] == "train" else source[1]
    return row.draft(text, [_image(row, names[0])], answers=(answer,), family=family)


def _image(row: Row, name: object) -> DraftImage:
    """The image of that name, below the folder of all sets or, without its first part, of one."""
    if isinstance(name, str) and _FOLDER.match(name):
        try:
            return DraftImage(row.files.get(name, "images"))
        except Unusable:
            name = _FOLDER.sub("", name, count=1)
    return DraftImage(row.files.get(name, "images"))


TASKS = (
    Task(
        "visual-probe",
        "VisualProbe of Mini-o3: small things that want several looks (JSON)",
        published(
            "VisualProbe", _draft, ("images", "problem", "solution", "data_source"),
            folders=(".",),
        ),
        prompt="visual-search",
        split="validation",
        metrics=("by_family",),
        counts_by=("family",),
        lens=VISUAL_SEARCH_LENS,
    ),
)  # fmt: skip
