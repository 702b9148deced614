"""Writes one file for any DuckDB client: `vigorl.duckdb` shows the warehouse as it is now.

    path = snapshot(warehouse)             # duckdb vigorl.duckdb -c "FROM accepted_cost"

Of a warehouse on disk it holds views that name the tables' files by absolute path: it is small, and
nothing is copied; `compact` may remove files it names, then make it anew. Of a warehouse on S3,
which a plain DuckDB can't read, it holds the rows themselves: tables under the same names, with the
same views over them. Either way it is replaced in one step: a client opens the old file or the
new one, never half of one.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import duckdb

from warehouse.query.dataset_files import VIEW as DATASET_ROWS
from warehouse.query.run_query import comment_on, connect, create_sql_views, create_views
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.objects import sync
from warehouse.tables.schema import TABLES

NAME = "vigorl.duckdb"


def snapshot(warehouse: Warehouse, out: Path | None = None) -> Path:
    """Write the file, by default `vigorl.duckdb` in the warehouse's folder, or here if it is on S3.

    Raises:
        WarehouseError: the folder to write into does not exist, or something else is there.
    """
    home = Path.cwd() if warehouse.is_s3 else Path(warehouse.root)
    out = (out or home / NAME).absolute()
    if not out.parent.is_dir():
        raise WarehouseError(f"{out}: its folder does not exist")
    if out.exists() and not _is_snapshot(out):
        raise WarehouseError(f"{out} is no snapshot, and would be overwritten; name another file")
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        with duckdb.connect(str(temporary)) as con:
            if warehouse.is_s3:
                _copy_rows(con, warehouse)
            else:
                create_views(con, warehouse, stored=True)
        sync(temporary)
        os.replace(temporary, out)
    finally:
        for leftover in (temporary, temporary.with_name(temporary.name + ".wal")):
            leftover.unlink(missing_ok=True)
    sync(out.parent)
    return out


def _is_snapshot(path: Path) -> bool:
    """Whether a file is a database of DuckDB with the warehouse's names and no other tables."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if file.read(12)[8:] != b"DUCK":
            return False
    try:
        with duckdb.connect(str(path), read_only=True) as con:
            found = con.execute(
                "SELECT table_name, true FROM duckdb_tables() UNION ALL "
                "SELECT view_name, false FROM duckdb_views() WHERE NOT internal"
            ).fetchall()
    except duckdb.Error:  # somebody has it open
        return True
    tables = {name for name, is_table in found if is_table}
    return "traces" in {name for name, _ in found} and tables <= {*TABLES, DATASET_ROWS}


def _copy_rows(con: duckdb.DuckDBPyConnection, warehouse: Warehouse) -> None:
    """Every table with its rows, of one state of the warehouse, and the views over them."""
    with connect(warehouse) as source:
        for table in TABLES.values():
            con.register("_rows", source.sql(f"FROM {table.name}").to_arrow_reader())
            con.execute(f"CREATE TABLE {table.name} AS FROM _rows")
            con.unregister("_rows")
            comment_on(con, table, "TABLE")
        con.register("_rows", source.sql(f"FROM {DATASET_ROWS}").to_arrow_reader())
        con.execute(f"CREATE TABLE {DATASET_ROWS} AS FROM _rows")
        con.unregister("_rows")
    create_sql_views(con, {}, None)
