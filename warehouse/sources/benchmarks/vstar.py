"""Visual search: small things in large images.

Read are the reference implementation's JSONL, and Parquet with the columns of the embedded sample:
`image`, `question`, `options`, `answer`, `category` and `objects`.
"""

from __future__ import annotations

from mcts.zoom.lenses import VISUAL_SEARCH_LENS
from warehouse.sources.benchmarks import reference
from warehouse.sources.reading.columns import Columns
from warehouse.sources.tasks import SAMPLE, Sample, Task

_TABLE = Columns.parsed(
    "question=question,image=image,answer=answer,choices=options,family=category,objects=objects"
)
TASKS = (
    Task(
        "vstar",
        "visual search: small things in large images (reference JSONL, or Parquet)",
        {".jsonl": reference.read, ".parquet": _TABLE.read},
        prompt="visual-search",
        lens=VISUAL_SEARCH_LENS,
        smoke_test_only="the embedded model sees 196 pixels a side, too few for small things",
        sample=Sample(
            {split: SAMPLE / f"signs-{split}.parquet" for split in ("train", "test")},
            "vigorl-signs",
            "Apache-2.0",
        ),
    ),
)
