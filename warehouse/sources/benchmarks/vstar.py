"""Visual search: small things in large images.

Read are the reference implementation's JSONL, and Parquet with the columns of the embedded sample:
`image`, `question`, `options`, `answer`, `category`, `objects`, and perhaps `target`: boxes, in
pixels, of what is asked about.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mcts.zoom.lenses import VISUAL_SEARCH_LENS
from warehouse.sources.benchmarks import reference
from warehouse.sources.reading.columns import Columns
from warehouse.sources.reading.drafts import Draft, ReadContext, Reject
from warehouse.sources.reading.tabular import column_types
from warehouse.sources.tasks import SAMPLE, Sample, Task

_COLUMNS = (
    "question=question,image=image,answer=answer,choices=options,family=category,objects=objects"
)
_TABLE, _WITH_TARGETS = Columns.parsed(_COLUMNS), Columns.parsed(f"{_COLUMNS},target=target")


def _read(file: Path, context: ReadContext) -> Iterator[Draft | Reject]:
    """Read a table, with targets where the file has them."""
    table = _WITH_TARGETS if "target" in column_types(file).names else _TABLE
    return table.read(file, context)


TASKS = (
    Task(
        "vstar",
        "visual search: small things in large images (reference JSONL, or Parquet)",
        {".jsonl": reference.read, ".parquet": _read, ".arrow": _read},
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
