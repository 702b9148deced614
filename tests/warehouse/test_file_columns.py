"""Files of one time are read as they are, and those of several by the names of their columns."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from warehouse.query.file_columns import have_all_columns
from warehouse.query.run_query import create_views
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import append

FIRST = pa.schema(
    {
        "key": pa.string(),
        "names": pa.list_(pa.string()),
        "box": pa.struct({"x": pa.float64(), "on": pa.list_(pa.int64()), "y": pa.float64()}),
        "at": pa.timestamp("us", "UTC"),
    }
)
ON = pa.list_(pa.int64())
BOX = {"x": pa.float64(), "on": ON, "y": pa.float64(), "z": pa.float64()}
FURTHER = {"x": pa.float64(), "more": ON, "on": ON, "y": pa.float64()}


def rows(schema: pa.Schema) -> pa.Table:
    """Two rows without a value but their key."""
    return pa.Table.from_pylist([{"key": "a"}, {"key": "b"}], schema=schema)


@pytest.fixture
def table(tmp_path: Path) -> DeltaTable:
    kept = {"delta.dataSkippingNumIndexedCols": "-1"}
    made = DeltaTable.create(tmp_path / "table", FIRST, configuration=kept)
    for _ in range(3):
        write_deltalake(made, rows(FIRST), mode="append")
    return DeltaTable(tmp_path / "table")


def test_files_of_one_schema_are_alike(table: DeltaTable) -> None:
    assert have_all_columns(table)


@pytest.mark.parametrize(
    "grown",
    [
        FIRST.append(pa.field("more", pa.int64())),
        FIRST.append(pa.field("more", pa.list_(pa.int64()))),
        FIRST.insert(1, pa.field("more", pa.list_(pa.int64()))),
        FIRST.set(2, pa.field("box", pa.struct(BOX))),
        FIRST.set(2, pa.field("box", pa.struct(FURTHER))),
    ],
    ids=["column", "list", "list among others", "field of a struct", "list in a struct"],
)
def test_a_table_that_grew_is_told(table: DeltaTable, grown: pa.Schema) -> None:
    write_deltalake(table, rows(grown), mode="append", schema_mode="merge")
    table.update_incremental()
    assert not have_all_columns(table)


def test_files_are_read_by_name_only_where_they_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = Warehouse(str(tmp_path))
    run = {"run_id": "r1", "kind": "build", "task": "sat2"}
    append(warehouse, "runs", [run], "one")
    append(warehouse, "runs", [run | {"run_id": "r2"}], "two")

    def view() -> tuple[str, int]:
        with duckdb.connect() as con:
            create_views(con, warehouse, ["runs"])
            found = con.execute("SELECT sql FROM duckdb_views() WHERE view_name = 'runs'")
            (sql,) = found.fetchone() or ("",)
            (count,) = con.execute("SELECT count(run_id) FROM runs").fetchone() or (0,)
            return str(sql), int(count)

    sql, count = view()
    assert "union_by_name" not in sql and count == 2
    monkeypatch.setattr("warehouse.query.run_query.have_all_columns", lambda delta: False)
    sql, count = view()
    assert "union_by_name" in sql and count == 2
