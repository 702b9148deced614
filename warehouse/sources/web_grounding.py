"""Web grounding: where on a screenshot is what an instruction names; the answer is a point."""

from __future__ import annotations

from curation.zoom_dialogues import WEB
from mcts.data import AnswerKind
from warehouse.sources import reference
from warehouse.sources.tasks import Task

TASKS = (
    Task(
        "web-grounding",
        "gold boxes on screens (reference JSONL)",
        {".jsonl": reference.read},
        kind=AnswerKind.BOX,
        prompt="web-grounding",
        lens=WEB,
    ),
)
