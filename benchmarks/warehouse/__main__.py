"""`make bench-warehouse`: the warehouse at scale, beside plain tools on the same rows.

    python -m benchmarks.warehouse                # 10 million steps in 1 million traces
    python -m benchmarks.warehouse --quick        # a hundredth of it
    python -m benchmarks.warehouse --folder DIR   # working folder; 4 GB, removed afterwards

Times are medians of at least five runs, both sides in turns, each with a new connection. The exit
status is 0 whether or not targets are met.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.warehouse.concurrent_writers import concurrent_writers
from benchmarks.warehouse.publishing import publishing
from benchmarks.warehouse.sql_questions import sql_questions
from benchmarks.warehouse.stores import Plain, fill
from warehouse.maintenance.compact import compact
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse

_QUICK_S = 2.0
_LEGEND = """\
Ratios: each question of docs/sql.md, seconds in the warehouse over seconds of the same SQL, views
included, in plain DuckDB over one hand-written, well-sorted Parquet file a table.
"""


def table(folder: Path, traces: int, runs: int, seconds: float) -> Iterator[Row]:
    """Yield the rows of the benchmark, each as soon as it is measured."""
    commits = min(20, max(2, traces // 2500))
    warehouse, plain, ingest = fill(folder, traces, commits)
    yield Row(f"ingest of {ingest.rows:,} rows, {commits} commits: speed of plain pyarrow",
              ingest.plain_s / ingest.warehouse_s, at_least=0.5)  # fmt: skip
    start = time.perf_counter()
    compact(warehouse)
    yield Row("compaction", time.perf_counter() - start, "s")
    yield Row("disk: the warehouse", _megabytes(folder / "warehouse"), "MB")
    yield Row("disk: by hand", _megabytes(folder / "plain"), "MB")
    yield from questions(warehouse, plain, runs)
    yield from publishing(warehouse)
    yield from concurrent_writers(folder / "concurrent", seconds)


def questions(warehouse: Warehouse, plain: Plain, runs: int) -> Iterator[Row]:
    """Time each question of docs/sql.md, on both sides in turns."""
    for question in sql_questions():
        if "duckdb_columns" in question.sql:
            continue  # it reads no data
        sides: list[Callable[[], object]] = [
            partial(query, warehouse, question.sql),
            partial(plain.query, question.sql),
        ]
        ours, theirs = in_turns(sides, runs)
        name = f"{question.number}. {question.title[:45]} ({ours:.2f} s, {theirs:.2f} s)"
        yield Row(name, ours / theirs, at_most=1.3)


def in_turns(sides: list[Callable[[], object]], runs: int) -> list[float]:
    """Return the median seconds of each side, after one run each to warm the disk's cache.

    Quick questions are run more often, up to five times, while all their runs take under
    `_QUICK_S`.
    """
    times: list[list[float]] = [[] for _ in sides]
    for run in range(5 * runs + 1):
        for side, seconds in zip(sides, times, strict=True):
            start = time.perf_counter()
            side()
            if run:
                seconds.append(time.perf_counter() - start)
        if run >= runs and sum(map(sum, times)) > _QUICK_S:
            break
    return [statistics.median(seconds) for seconds in times]


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.warehouse", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="a hundredth of the size")
    parser.add_argument(
        "--folder", type=Path, help="folder to work in; a new one inside is removed"
    )
    parser.add_argument("--traces", type=int, help="number of traces, ten steps each")
    parser.add_argument("--runs", type=int, default=5, help="runs of each question")
    parser.add_argument("--seconds", type=float, help="duration of the concurrent writers")
    arguments = parser.parse_args(argv)
    quick = arguments.quick
    traces = arguments.traces or (10_000 if quick else 1_000_000)
    seconds = arguments.seconds or (10.0 if quick else 60.0)
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-warehouse-", dir=arguments.folder))
    print(_LEGEND)
    try:
        for row in table(folder, traces, arguments.runs, seconds):
            print(row.line(), flush=True)
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
