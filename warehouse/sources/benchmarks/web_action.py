"""Web actions: the next step in a browser, from a screenshot whose elements have numbers.

Read from ICAL's recorded steps (`warehouse.sources.benchmarks.ical`) and from the reference
implementation's JSON Lines, whose answers are actions such as `click [12]`; and from Parquet with
the columns of the embedded sample: `image`, `question`, `answer`, `action`, `episode` and
`objects`.
"""

from __future__ import annotations

from mcts.data import AnswerKind
from mcts.zoom.lenses import WEB_LENS
from warehouse.sources.benchmarks import ical, reference
from warehouse.sources.reading.columns import Columns
from warehouse.sources.tasks import SAMPLE, Sample, Task

_TABLE = Columns.parsed(
    "question=question,image=image,answer=answer,family=action,part_of=episode,objects=objects",
    kind=AnswerKind.ACTION,
)
TASKS = (
    Task(
        "web-action",
        "next browser actions on numbered screenshots (ICAL JSON, reference JSONL, or Parquet)",
        {**ical.FORMATS, ".jsonl": reference.read, ".parquet": _TABLE.read, ".arrow": _TABLE.read},
        kind=AnswerKind.ACTION,
        prompt="web-action",
        metrics=("actions",),
        lens=WEB_LENS,
        smoke_test_only="the embedded model knows rooms alone and has learnt no action",
        sample=Sample(
            {split: SAMPLE / f"steps-{split}.parquet" for split in ("train", "test")},
            "vigorl-steps",
            "MIT",
        ),
    ),
)
