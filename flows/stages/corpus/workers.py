"""Filters the parts of a corpus in several processes.

    for table in filtered(parts, partial(filter_part, warehouse, filters, run_id)): …

A few parts are filtered in the process that asks: others take a second or two to start. What they
find is the same and comes in the same order.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future
from itertools import chain, islice

import pyarrow as pa
from loky import ProcessPoolExecutor, cpu_count
from loky.backend.reduction import dumps

from flows.stages.corpus.filter_part import CorpusPart

MOST_PROCESSES = 8
"""Reading the parts, which one process does, keeps no more busy."""
_HERE = 2
"""So many parts are filtered without other processes."""
_LOOK_S = 1.0
_OBJECTS = 100_000
"""More than there were when cycles were looked for, before they are looked for again."""


def filtered(
    parts: Iterable[CorpusPart],
    work: Callable[[CorpusPart], pa.Table],
    processes: int | None = None,
) -> Iterator[pa.Table]:
    """Yield what `work` returns for each part, in order.

    A part whose process was killed, for want of memory perhaps, is filtered here, as are those
    behind it; all are where another process can't be given a filter, since it holds what can't be
    pickled.

    Args:
        processes: by default as many as this one may use processors, at most `MOST_PROCESSES`.
    """
    waiting = iter(parts)
    first = list(islice(waiting, _HERE + 1))
    if processes is None:
        processes = min(cpu_count(), MOST_PROCESSES)
    if len(first) <= _HERE or processes < 2 or not _can_be_sent(work):
        yield from map(work, chain(first, waiting))
        return
    with ProcessPoolExecutor(processes, initializer=_begin) as pool:
        yield from _in_order(pool, chain(first, waiting), work, processes + 1)


def _in_order(
    pool: ProcessPoolExecutor,
    parts: Iterator[CorpusPart],
    work: Callable[[CorpusPart], pa.Table],
    most: int,
) -> Iterator[pa.Table]:
    """Keep `most` parts in the pool, which are held in memory."""
    asked: deque[tuple[CorpusPart, Future[pa.Table] | None]] = deque()
    while True:
        for part in islice(parts, most - len(asked)):
            asked.append((part, _submitted(pool, work, part)))
        if not asked:
            return
        part, future = asked.popleft()
        try:
            found = future.result() if future else None
        except BrokenExecutor:
            found = None
        yield work(part) if found is None else found


def _submitted(
    pool: ProcessPoolExecutor, work: Callable[[CorpusPart], pa.Table], part: CorpusPart
) -> Future[pa.Table] | None:
    try:
        return pool.submit(work, part)
    except BrokenExecutor:
        return None


def _can_be_sent(work: Callable[[CorpusPart], pa.Table]) -> bool:
    try:
        dumps(work)
    except Exception:  # what a filter of a package holds can raise anything
        return False
    return True


def _begin() -> None:
    """Leave Ctrl-C, which every process of the terminal gets, to the one that asks; end with it.

    Killed in the middle of a part, it would leave this one reading the rest for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(_OBJECTS)  # a part makes a million small ones, hardly one of them in a cycle
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)
