"""What opening a warehouse of many commits costs, beside plain DuckDB over the same files.

    python -m benchmarks.warehouse.opening                       # 5,000 commits, one question each
    python -m benchmarks.warehouse.opening --commits 200 --folder DIR     # kept, and gone on with

Nothing is compacted: every commit is a file of its own in each table. Both sides count the rows of
one table, each with a new connection, in turns; plain DuckDB is given the list of files.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path

import duckdb

from benchmarks.rows import Row
from benchmarks.warehouse import synthetic
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_tables, open_table
from warehouse.tables.schema import CHILDREN

_TRACES = synthetic.TRACES_PER_TREE * synthetic.TREES_PER_QUESTION
TABLES = ("traces", "steps")


def fill(warehouse: Warehouse, commits: int) -> None:
    """Commit one question's traces after another, until there are as many commits."""
    traces = open_table(warehouse, "traces")
    there = len(traces.file_uris()) if traces else 0
    batches = enumerate(synthetic.batches(commits * _TRACES, commits))
    for number, batch in islice(batches, there, None):
        children = {name: batch[name] for name in CHILDREN["traces"]}

        def name_of(keys: Collection[str], number: int = number) -> str:
            return f"opening-{number}"  # so that a commit that was killed is completed

        commit_tables(
            warehouse, "traces", batch["traces"], children, run_id="opening", name=name_of
        )


def opening(warehouse: Warehouse, runs: int) -> Iterator[Row]:
    """Yield, for each table, what a count costs more than in plain DuckDB."""
    for name in TABLES:
        delta = open_table(warehouse, name)
        assert delta is not None
        files = delta.file_uris()

        def plain(files: list[str] = files) -> int:
            with duckdb.connect() as con:
                return int(con.read_parquet(files).count("*").fetchall()[0][0])

        def ours(name: str = name) -> int:
            rows = query(warehouse, f"SELECT count(*) AS n FROM {name}").to_pylist()
            return int(rows[0]["n"])

        assert plain() == ours()
        (wall, processor), (plain_wall, plain_processor) = _medians([ours, plain], runs)
        what = f"{name}, {len(files):,} files: more than plain DuckDB's {plain_wall:.2f} s"
        yield Row(what, 1000 * (wall - plain_wall), "ms", at_most=300)
        what = f"{name}: the same, of processors ({plain_processor:.2f} s)"
        yield Row(what, 1000 * (processor - plain_processor), "ms")


def _medians(sides: list[Callable[[], int]], runs: int) -> list[tuple[float, float]]:
    """Return each side's median seconds, passed and of processors; all in turns."""
    found: list[list[tuple[float, float]]] = [[] for _ in sides]
    for _ in range(runs):
        for side, times in zip(sides, found, strict=True):
            start, busy = time.perf_counter(), time.process_time()
            side()
            times.append((time.perf_counter() - start, time.process_time() - busy))
    return [
        (statistics.median(wall for wall, _ in times), statistics.median(cpu for _, cpu in times))
        for times in found
    ]


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.warehouse.opening", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--commits", type=int, default=5000, help="commits of each table")
    parser.add_argument("--runs", type=int, default=5, help="runs of each side")
    parser.add_argument("--folder", type=Path, help="where the warehouse is kept")
    arguments = parser.parse_args(argv)
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bench-opening-"))
    try:
        warehouse = Warehouse(str(folder))
        fill(warehouse, arguments.commits)
        for row in opening(warehouse, arguments.runs):
            print(row.line(), flush=True)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
