"""HR-Bench: 200 questions about small things in pictures of 4K and of 8K, each in four orders.

Schema (dataset card of DreamMr/HR-Bench; loaders in VLMEvalKit, `HRBenchDataset`, and lmms-eval,
`hrbench`): `hr_bench_4k` and `hr_bench_8k`, each as TSV and as Parquet, have `index`, `question`, a
column a letter (A to D), `answer` (a letter), `category` (single: one thing is asked about; cross:
several), `cycle_category` (which of the four orders of the options it is) and `image` (base64). The
two are benchmarks of their own: the pictures of 4K are cut from those of 8K, at the same scale, so
one call shows the same of both. No boxes are published. VLMEvalKit unpacks a TSV so large into
`HRBench4K_local.tsv`, with `image_path` in place of `image`.

Published metric: accuracy of each order, averaged over the orders; also a category.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mcts.zoom.lenses import VISUAL_SEARCH_LENS
from warehouse.sources.published import Row, choice_row, published
from warehouse.sources.reading.drafts import (
    Draft,
    DraftImage,
    OtherSet,
    ReadContext,
    ReadFile,
    Reject,
    Unusable,
)
from warehouse.sources.tasks import Task

CATEGORIES = ("single", "cross")
_SIZE = re.compile(r"(?<![0-9])([48])k(?![a-z0-9])", re.IGNORECASE)


def _draft(row: Row) -> Draft:
    category = row.text("category").lower()
    if category not in CATEGORIES:
        raise Unusable("category", f"it is {' or '.join(CATEGORIES)}, not {category!r}")
    choices, right = choice_row(row, "options")
    order = row.text("cycle_category")
    unpacked = row.get("image_path") if row.get("image") is None else None
    image = DraftImage(row.files.get(unpacked, "image_path")) if unpacked else row.image("image")
    return row.draft(
        row.text("question"), [image], choices=choices, answers=(right,), family=category,
        part_of=f"order {order}",
    )  # fmt: skip


_ROWS = published(
    "HR-Bench",
    _draft,
    ("image|image_path", "question", "A", "B", "answer", "category", "cycle_category"),
)


def _read(size: str, read: ReadFile, file: Path, context: ReadContext) -> Iterator[Draft | Reject]:
    """Read a file of that size; refuse one whose name says the other, which lies beside it."""
    named = set(_SIZE.findall(file.name))
    if named and size not in named:
        raise OtherSet(f"{file} is HR-Bench {named.pop()}K, not {size}K")
    return read(file, context)


TASKS = tuple(
    Task(
        f"hr-bench-{size}k",
        f"HR-Bench {size}K: small things in large pictures, in four orders "
        "(Parquet, or VLMEvalKit's TSV)",
        {suffix: partial(_read, size, read) for suffix, read in _ROWS.items()},
        prompt="visual-search",
        split="test",
        metrics=("by_family", "orders"),
        counts_by=("part_of",),
        lens=VISUAL_SEARCH_LENS,
    )
    for size in ("4", "8")
)
