"""Web actions: the next step in a browser, from a screenshot whose elements have numbers.

Read from ICAL's recorded steps (`warehouse.sources.ical`) and from the reference implementation's
JSON Lines, whose answers are actions such as `click [12]`.
"""

from __future__ import annotations

from curation.zoom_dialogues import WEB
from mcts.data import AnswerKind
from warehouse.sources import ical, reference
from warehouse.sources.tasks import Task

TASKS = (
    Task(
        "web-action",
        "next browser actions on numbered screenshots (ICAL JSON, or reference JSONL)",
        {**ical.FORMATS, ".jsonl": reference.read},
        kind=AnswerKind.ACTION,
        prompt="web-action",
        metrics=("actions",),
        lens=WEB,
    ),
)
