"""Web grounding: where on a screenshot is what an instruction names; the answer is a point.

Read from OS-Atlas's JSON (`warehouse.sources.benchmarks.os_atlas`) and from the reference
implementation's JSON Lines, whose answers are boxes in pixels; and from Parquet with the columns of
the embedded sample: `image`, `instruction`, `bbox`, `data_type` and `objects`.
"""

from __future__ import annotations

from mcts.data import AnswerKind
from mcts.zoom.lenses import WEB_LENS
from warehouse.sources.benchmarks import os_atlas, reference
from warehouse.sources.reading.columns import Columns
from warehouse.sources.tasks import SAMPLE, Sample, Task

_TABLE = Columns.parsed(
    "question=instruction,image=image,box=bbox,family=data_type,objects=objects"
)
TASKS = (
    Task(
        "web-grounding",
        "gold boxes on screens (OS-Atlas JSON, reference JSONL, or Parquet)",
        {
            **os_atlas.FORMATS,
            ".jsonl": reference.read,
            ".parquet": _TABLE.read,
            ".arrow": _TABLE.read,
        },
        kind=AnswerKind.BOX,
        prompt="web-grounding",
        metrics=("by_family",),
        lens=WEB_LENS,
        smoke_test_only=(
            "the embedded model knows rooms alone and answers with words, not with points"
        ),
        sample=Sample(
            {split: SAMPLE / f"screens-{split}.parquet" for split in ("train", "test")},
            "vigorl-screens",
            "MIT",
        ),
    ),
)
