"""Writes the Parquet files of embedded samples: rows with an image, and the boxes of its objects.

write_rows(path, schema, groups)       # a row group for each list of rows
object_row("red ball", (x1, y1, x2, y2))
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_CORNERS = ("x1", "y1", "x2", "y2")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
OBJECTS = pa.list_(pa.struct([("label", pa.string()), *((c, pa.float64()) for c in _CORNERS)]))
"""Boxes in pixels of the image."""


def object_row(label: str, box: Sequence[float]) -> dict[str, Any]:
    """Make an entry of a column of type `OBJECTS`."""
    return {"label": label, **dict(zip(_CORNERS, box, strict=True))}


def write_rows(path: Path, schema: pa.Schema, groups: Iterable[list[dict[str, Any]]]) -> Path:
    """Write a file; it appears under its name only when it is whole."""
    part = path.with_name(path.name + ".part")
    # An image that several questions share is stored once: the dictionary holds them all.
    limits = {"dictionary_pagesize_limit": 64 << 20, "data_page_size": 64 << 20}
    with pq.ParquetWriter(part, schema, compression="zstd", **limits) as file:
        for rows in groups:
            table = pa.Table.from_pylist(rows, schema)
            file.write_table(table, row_group_size=len(table) or 1)
    os.replace(part, path)
    return path


def describe(path: Path) -> str:
    """Say in one line what a written file holds."""
    return f"{path}: {pq.read_metadata(path).num_rows} questions, {path.stat().st_size} bytes"
