"""Visual search: small things in large pictures, as the reference implementation publishes it."""

from __future__ import annotations

from curation.zoom_dialogues import VISUAL_SEARCH
from warehouse.sources import reference
from warehouse.sources.tasks import Task

TASKS = (
    Task(
        "vstar",
        "visual search: small things in large pictures (reference JSONL)",
        {".jsonl": reference.read},
        prompt="visual-search",
        lens=VISUAL_SEARCH,
    ),
)
