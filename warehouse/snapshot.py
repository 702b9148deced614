"""One file for any DuckDB client: `vigorl.duckdb` holds views over the warehouse as it is now.

    path = snapshot(warehouse)             # duckdb vigorl.duckdb -c "FROM accepted_cost"

The views name the tables' files by absolute path, so the file is small and nothing is copied; it
shows the warehouse as it was when it was made, until `compact` removes files it names: then make it
anew. It appears in one step, so that a client opens the old one or the new one, never half of one.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import duckdb

from warehouse.catalog import create_views
from warehouse.home import Warehouse, WarehouseError
from warehouse.objects import sync

NAME = "vigorl.duckdb"


def snapshot(warehouse: Warehouse, out: Path | None = None) -> Path:
    """Write the file of views, by default `vigorl.duckdb` in the warehouse's folder.

    Raises:
        WarehouseError: the warehouse is on S3, where DuckDB needs an extension to read.
    """
    if warehouse.is_s3:
        raise WarehouseError(
            "a snapshot names files on disk, and this warehouse is on S3: ask it with `vigorl sql`"
        )
    out = (out or Path(warehouse.root) / NAME).absolute()
    if not out.parent.is_dir():
        raise WarehouseError(f"{out}: its folder is not there")
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        with duckdb.connect(str(temporary)) as con:
            create_views(con, warehouse)
        sync(temporary)
        os.replace(temporary, out)
    finally:
        for leftover in (temporary, temporary.with_name(temporary.name + ".wal")):
            leftover.unlink(missing_ok=True)
    sync(out.parent)
    return out
