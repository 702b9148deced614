"""Web grounding: where on a screenshot is what an instruction names; the answer is a point.

Read from OS-Atlas's JSON (`warehouse.sources.os_atlas`) and from the reference implementation's
JSON Lines, whose answers are boxes in pixels.
"""

from __future__ import annotations

from curation.zoom_dialogues import WEB
from mcts.data import AnswerKind
from warehouse.sources import os_atlas, reference
from warehouse.sources.tasks import Task

TASKS = (
    Task(
        "web-grounding",
        "gold boxes on screens (OS-Atlas JSON, or reference JSONL)",
        {**os_atlas.FORMATS, ".jsonl": reference.read},
        kind=AnswerKind.BOX,
        prompt="web-grounding",
        metrics=("by_family",),
        lens=WEB,
    ),
)
