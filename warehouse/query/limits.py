"""Limits of a person's query: time, memory, and disk for what does not fit into it.

    with limited(con, Limits(seconds=600)):
        con.sql(statement).to_arrow_table()          # QueryError once a limit is reached

DuckDB holds itself to `memory_limit`, but neither to a time nor in what it hands over as Arrow, so
a thread looks at both and interrupts it. A single function over one row cannot be interrupted:
where a process does nothing but this query, `last_resort` ends it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from warehouse.query.sql_guard import QueryError

SECONDS = 600.0
"""Seconds a query may take where nothing else is said."""
MEMORY_SHARE = 0.5
"""Share of the memory that is free when it begins."""
DISK_SHARE = 0.5
"""Share of the free disk under the temporary folder, for sorts and joins that do not fit."""
MOST_ROW_BYTES = 64 * 2**20
"""Bytes a row of a result may have, on average: printing takes many times as much."""
_LOOK_S = 0.05
_PATIENCE_S = 5.0  # after an interrupt, before the last resort
_LEAST_MEMORY = 256 * 2**20


@dataclass(frozen=True)
class Limits:
    """What a query may take."""

    seconds: float | None = None
    """None: no limit."""
    memory: int | None = None
    """Bytes; by default a share of what is free."""
    last_resort: Callable[[str], None] | None = None
    """Called with the sentence where the query does not heed its interruption; ends the process."""


def free_memory() -> int:
    """Return the bytes of memory that are free for this process, at least some hundred million."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
        bound = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        free = min(free, int(bound) - used)
    except (OSError, ValueError):
        pass  # not Linux, or no bound
    return max(_LEAST_MEMORY, free)


def used_memory() -> int:
    """Return the bytes of memory that this process holds."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    return pages * os.sysconf("SC_PAGE_SIZE")


def limit_resources(con: duckdb.DuckDBPyConnection, memory: int | None = None) -> None:
    """Limit what DuckDB takes of memory and disk; before its settings are locked."""
    memory = memory or int(free_memory() * MEMORY_SHARE)
    disk = int(shutil.disk_usage(tempfile.gettempdir()).free * DISK_SHARE)
    con.execute(
        f"SET memory_limit = '{max(memory, _LEAST_MEMORY) // 2**20}MiB';"
        f"SET max_temp_directory_size = '{max(disk // 2**20, 1)}MiB'"
    )


@contextmanager
def limited(con: duckdb.DuckDBPyConnection, limits: Limits) -> Iterator[None]:
    """Interrupt the connection's queries meanwhile once they reach a limit.

    Raises:
        QueryError: they reached one; its sentence says which, and what to do.
    """
    memory = limits.memory or int(free_memory() * MEMORY_SHARE)
    watch = _Watch(con, limits, used_memory() + 2 * memory if limits.memory is None else memory)
    watch.start()
    try:
        yield
    except duckdb.InterruptException:
        if watch.reason:
            raise QueryError(watch.reason) from None
        raise
    except duckdb.OutOfMemoryException:
        raise QueryError(memory_reason(memory)) from None
    except MemoryError:
        raise QueryError(memory_reason(memory)) from None
    finally:
        watch.done.set()
        watch.join()


def memory_reason(memory: int) -> str:
    """Return the sentence about a query that needs too much memory."""
    return (
        f"the query needs more than the {memory / 2**30:.1f} GiB of memory it may take: ask for "
        "less at once (a WHERE, a LIMIT, fewer columns, no list of everything)"
    )


class _Watch(threading.Thread):
    """Looks at the clock and at the memory until `done`."""

    def __init__(self, con: duckdb.DuckDBPyConnection, limits: Limits, memory: int) -> None:
        super().__init__(daemon=True, name="query-limits")
        self.done, self.reason = threading.Event(), ""
        self._con, self._limits, self._memory = con, limits, memory

    def run(self) -> None:
        """Interrupt once, and again while it does not heed."""
        seconds = self._limits.seconds
        end = None if seconds is None else time.monotonic() + seconds
        late = 0.0
        while not self.done.wait(_LOOK_S):
            if not self.reason:
                if end is not None and time.monotonic() >= end:
                    self.reason = (
                        f"the query took longer than {seconds:g} s: ask for less, or give it more "
                        "time with --timeout"
                    )
                elif used_memory() > self._memory:
                    self.reason = memory_reason(self._memory)
                else:
                    continue
                late = time.monotonic() + _PATIENCE_S
            self._con.interrupt()
            if time.monotonic() > late and self._limits.last_resort:
                self._limits.last_resort(self.reason)
