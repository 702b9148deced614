"""The two sides of the comparison: a warehouse, and Parquet written by hand for plain DuckDB.

    warehouse, plain, ingest = fill(folder, traces=1_000_000, batches=100)
    plain.ask(sql)                         # over one well-sorted file a table
    warehouse_asks(warehouse, sql)

Both hold the same rows. By hand: one Parquet file a table, sorted, zstd, row groups of DuckDB's own
size. The warehouse gets its rows as builds bring them, shard by shard, in no order of trees, with
keys checked and commits made; then it is compacted once, as its user would.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.warehouse import made_up
from warehouse.query.catalog import connect, sql_views
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import put_images
from warehouse.tables.delta import append, commit_tables, rows_to_arrow
from warehouse.tables.schema import TABLES

ROWS_A_GROUP = 122_880
INGESTED = ("traces", "steps", "verdicts")


@dataclass
class Plain:
    """Parquet files in a folder, asked with DuckDB and nothing else."""

    folder: Path
    views: dict[str, str] = field(default_factory=dict)
    """Statements of the views that the warehouse starts people with."""

    def ask(self, sql: str) -> pa.Table:
        """The answer, from a new connection, as the warehouse's questions are."""
        asked = self._named(sql)
        with duckdb.connect() as con:
            for name in TABLES:
                if name in asked:
                    file = self.folder / f"{name}.parquet"
                    con.execute(f"CREATE VIEW {name} AS FROM read_parquet('{file}')")
            for name, statement in self.views.items():
                if name in asked:
                    con.execute(f"CREATE VIEW {name} AS {statement}")
            return con.sql(sql).to_arrow_table()

    def _named(self, sql: str) -> set[str]:
        """The tables and views a statement names, and those they name in turn."""
        named = set(re.findall(r"\w+", sql)) & {*TABLES, *self.views}
        for view in named & set(self.views):
            named |= self._named(self.views[view])
        return named


@dataclass
class Ingest:
    """Seconds of writing the same tables, batch by batch in turns."""

    plain_s: float = 0.0
    warehouse_s: float = 0.0
    rows: int = 0


def fill(folder: Path, traces: int, batches: int) -> tuple[Warehouse, Plain, Ingest]:
    """Make up the rows and write them on both sides, in turns."""
    warehouse, plain, spent = (
        Warehouse(str(folder / "warehouse")),
        Plain(folder / "plain"),
        Ingest(),
    )
    plain.folder.mkdir()
    put_images(warehouse.objects, made_up.pictures())
    append(warehouse, "images", made_up.images(), "images")
    writers: dict[str, pq.ParquetWriter] = {}
    for name in TABLES:
        file = plain.folder / f"{name}.parquet"
        writers[name] = pq.ParquetWriter(file, TABLES[name].schema, compression="zstd")
    writers["images"].write_table(made_up.images())
    for number, batch in enumerate(made_up.batches(traces, batches)):
        for name, table in batch.items():
            began = time.perf_counter()
            writers[name].write_table(table, row_group_size=ROWS_A_GROUP)
            if name in INGESTED:
                spent.plain_s += time.perf_counter() - began
                spent.rows += table.num_rows
        _commit(warehouse, made_up.shuffled(batch, number), number, spent)
    for writer in writers.values():
        writer.close()
    with connect(warehouse) as con:
        # What the warehouse makes of its views now: the same statements on both sides.
        found = con.execute(
            "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal"
        ).fetchall()
    statements = {name: sql.partition(" AS ")[2] for name, sql in found}
    plain.views = {name: statements[name] for name in sql_views()}
    return warehouse, plain, spent


def _commit(warehouse: Warehouse, batch: made_up.Batch, number: int, spent: Ingest) -> None:
    append(warehouse, "questions", batch["questions"], f"questions {number}")
    append(warehouse, "behaviors", batch["behaviors"], f"behaviors {number}")
    found = {"nodes": batch["nodes"], "responses": batch["responses"]}
    children = {**found, "rollouts": rows_to_arrow("rollouts", [])}
    commit_tables(warehouse, "trees", batch["trees"], children, run_id="made-up")
    began = time.perf_counter()
    children = {name: batch[name] for name in ("steps", "verdicts")}
    commit_tables(warehouse, "traces", batch["traces"], children, run_id="made-up")
    spent.warehouse_s += time.perf_counter() - began
