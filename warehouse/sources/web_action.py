"""Web actions: the next step in a browser, from a screenshot whose elements have numbers."""

from __future__ import annotations

from curation.zoom_dialogues import WEB
from mcts.data import AnswerKind
from warehouse.sources import reference
from warehouse.sources.tasks import Task

TASKS = (
    Task(
        "web-action",
        "next browser actions on numbered screenshots (reference JSONL)",
        {".jsonl": reference.read},
        kind=AnswerKind.ACTION,
        prompt="web-action",
        lens=WEB,
    ),
)
