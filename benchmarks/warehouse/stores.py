"""The two sides of the comparison: a warehouse, and Parquet written by hand for plain DuckDB.

    warehouse, plain, ingest = fill(folder, traces=1_000_000, batches=100)
    plain.query(sql)                       # over one well-sorted file per table

Both hold the same rows. By hand: one Parquet file per table, sorted, zstd, row groups of DuckDB's
own size. The warehouse receives its rows as from builds, shard by shard, trees in no order, with
key checks and commits; then it is compacted once, as a user would.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.warehouse import synthetic
from warehouse.query.run_query import connect, sql_views
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import put_images
from warehouse.tables.delta import append, commit_tables, rows_to_arrow
from warehouse.tables.schema import TABLES

ROWS_PER_GROUP = 122_880
INGESTED = ("traces", "steps", "verdicts")


@dataclass
class Plain:
    """Parquet files in a folder, queried with DuckDB alone."""

    folder: Path
    views: dict[str, str] = field(default_factory=dict)
    """Statements of the warehouse's views, by name."""

    def query(self, sql: str) -> pa.Table:
        """Run a statement on a new connection, as the warehouse does."""
        used = self._names_in(sql)
        with duckdb.connect() as con:
            for name in TABLES:
                if name in used:
                    file = self.folder / f"{name}.parquet"
                    con.execute(f"CREATE VIEW {name} AS FROM read_parquet('{file}')")
            for name, statement in self.views.items():
                if name in used:
                    con.execute(f"CREATE VIEW {name} AS {statement}")
            return con.sql(sql).to_arrow_table()

    def _names_in(self, sql: str) -> set[str]:
        """Return the tables and views that a statement uses, directly or through views."""
        names = set(re.findall(r"\w+", sql)) & {*TABLES, *self.views}
        for view in names & set(self.views):
            names |= self._names_in(self.views[view])
        return names


@dataclass
class Ingest:
    """Seconds of writing the same tables, batch by batch in turns."""

    plain_s: float = 0.0
    warehouse_s: float = 0.0
    rows: int = 0


def fill(folder: Path, traces: int, batches: int) -> tuple[Warehouse, Plain, Ingest]:
    """Generate the rows and write them on both sides, in turns."""
    warehouse, plain = Warehouse(str(folder / "warehouse")), Plain(folder / "plain")
    ingest = Ingest()
    plain.folder.mkdir()
    put_images(warehouse.objects, synthetic.image_bytes())
    append(warehouse, "images", synthetic.images(), "images")
    writers: dict[str, pq.ParquetWriter] = {}
    for name in TABLES:
        file = plain.folder / f"{name}.parquet"
        writers[name] = pq.ParquetWriter(file, TABLES[name].schema, compression="zstd")
    writers["images"].write_table(synthetic.images())
    for number, batch in enumerate(synthetic.batches(traces, batches)):
        for name, table in batch.items():
            start = time.perf_counter()
            writers[name].write_table(table, row_group_size=ROWS_PER_GROUP)
            if name in INGESTED:
                ingest.plain_s += time.perf_counter() - start
                ingest.rows += table.num_rows
        _commit(warehouse, synthetic.shuffled(batch, number), number, ingest)
    for writer in writers.values():
        writer.close()
    with connect(warehouse) as con:
        # The views as the warehouse defines them: the same statements on both sides.
        views = con.execute(
            "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal"
        ).fetchall()
    statements = {name: sql.partition(" AS ")[2] for name, sql in views}
    plain.views = {name: statements[name] for name in sql_views()}
    return warehouse, plain, ingest


def _commit(warehouse: Warehouse, batch: synthetic.Batch, number: int, ingest: Ingest) -> None:
    append(warehouse, "questions", batch["questions"], f"questions {number}")
    append(warehouse, "behaviors", batch["behaviors"], f"behaviors {number}")
    children = {"nodes": batch["nodes"], "responses": batch["responses"]}
    children["rollouts"] = rows_to_arrow("rollouts", [])
    commit_tables(warehouse, "trees", batch["trees"], children, run_id="synthetic")
    start = time.perf_counter()
    children = {name: batch[name] for name in ("steps", "verdicts")}
    commit_tables(warehouse, "traces", batch["traces"], children, run_id="synthetic")
    ingest.warehouse_s += time.perf_counter() - start
