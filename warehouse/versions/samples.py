"""Some of a version's traces drawn, for its card: what is in it, seen before it is trained on.

    samples = write_samples(folder)        # beside rows.parquet and images.parquet: sample-1.png, …

Which traces are drawn follows from their ids alone, one of each kind and family before a second of
any. The pictures are beside the content, not part of it: no hash covers them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from curation.render.trace_card import draw_trace
from warehouse.versions.bundle import question_of, trace_of

MOST = 3
"""Pictures a version is given."""


def write_samples(folder: Path) -> list[dict[str, str]]:
    """Draw a few traces of a prepared version into its folder; their files and trace ids."""
    chosen = _chosen(folder / "rows.parquet")
    samples = []
    for number, row in enumerate(chosen, 1):
        question, trace = question_of(row), trace_of(row)
        pictures = tuple(_picture(folder / "images.parquet", i) for i in row["image_ids"])
        name = f"sample-{number}.png"
        (folder / name).write_bytes(draw_trace(trace, question, pictures))
        samples.append({"file": name, "trace_id": row["trace_id"]})
    return samples


def _chosen(path: Path) -> list[dict[str, Any]]:
    """The rows to draw. An id is a hash, so the first ids are a fair sample."""
    with duckdb.connect() as con:
        found = con.execute(
            "SELECT trace_id, row_number() OVER (PARTITION BY kind, family ORDER BY trace_id) "
            "AS nth FROM read_parquet(?) ORDER BY nth, trace_id LIMIT ?",
            [str(path), MOST],
        ).fetchall()
    ids = [trace_id for trace_id, _ in found]
    rows = pq.read_table(path, filters=[("trace_id", "in", ids)]).to_pylist()
    return sorted(rows, key=lambda row: ids.index(row["trace_id"]))


def _picture(path: Path, image_id: str) -> bytes:
    wanted = [("image_id", "=", image_id)]
    (row,) = pq.read_table(path, columns=["bytes"], filters=wanted).to_pylist()
    return bytes(row["bytes"])
