"""Two writers that are killed at random and a reader, on one warehouse: lost and partial commits.

    for row in concurrent_writers(folder, seconds=60): print(row.line())

A writer commits shards of trees under its own names, and notes each shard in a synced file once its
commit has returned: those must exist at the end. From time to time one writer is killed by SIGKILL
and started again with the next shard. The reader queries all the time; each answer must contain
every tree with all its children, and no child without its tree.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import Row
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse

_NODES, _TREES = 3, 4
_WRITER = f"""
import os, sys
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees
from warehouse.tables.tree_rows import SearchRows

root, notes, writer, start = sys.argv[1:]
warehouse = Warehouse(root)
with open(notes, "a") as done:
    for number in range(int(start), 10**9):
        names = [f"{{writer}}-{{number}}-{{i}}" for i in range({_TREES})]
        rows = SearchRows(
            trees=[{{"tree_id": n, "question_id": "q", "task": "sat2"}} for n in names],
            nodes=[{{"tree_id": n, "node_id": i}} for n in names for i in range({_NODES})],
            responses=[
                {{"tree_id": n, "response_id": f"{{n}}-{{i}}"}} for n in names for i in range(2)
            ],
            rollouts=[{{"tree_id": n, "rollout_id": 0, "node_id": 1}} for n in names],
        )
        commit_trees(warehouse, rows, run_id=f"{{writer}}-{{number}}")
        done.write(f"{{number}}\\n")
        done.flush()
        os.fsync(done.fileno())
"""
# Trees that are incomplete, and children without their tree.
_PARTIAL = f"""
SELECT (SELECT count(*) FROM trees) AS trees,
    (SELECT count(*) FROM trees LEFT JOIN (
        SELECT tree_id, count(*) AS n FROM nodes GROUP BY 1
    ) USING (tree_id) WHERE n IS DISTINCT FROM {_NODES})
    + (SELECT count(*) FROM trees ANTI JOIN rollouts USING (tree_id))
    + (SELECT count(*) FROM trees LEFT JOIN (
        SELECT tree_id, count(*) AS n FROM responses GROUP BY 1
    ) USING (tree_id) WHERE n IS DISTINCT FROM 2)
    + (SELECT count(*) FROM nodes ANTI JOIN trees USING (tree_id)) AS half
"""


def concurrent_writers(folder: Path, seconds: float, seed: int = 7) -> Iterator[Row]:
    """Write, kill and read for `seconds`, then compare with what was noted."""
    folder.mkdir()
    warehouse, rng = Warehouse(str(folder / "warehouse")), random.Random(seed)
    writers = {name: _start(warehouse, folder, name, 0) for name in "ab"}
    starts = dict.fromkeys(writers, 0)
    kills = half = errors = reads = 0
    end, next_kill = time.monotonic() + seconds, time.monotonic() + 2
    try:
        while time.monotonic() < end:
            try:
                (seen,) = query(warehouse, _PARTIAL).to_pylist()
                half += seen["half"]
                reads += 1
            except Exception as error:
                errors += 1
                print(f"the reader failed: {error}", file=sys.stderr)
            if time.monotonic() > next_kill:
                name = rng.choice(sorted(writers))
                writers[name].send_signal(signal.SIGKILL)
                writers[name].wait()
                kills += 1
                # Sometimes its current shard is tried again, as in a build; sometimes not.
                starts[name] = _last_noted(folder, name) + rng.choice((1, 1, 2))
                writers[name] = _start(warehouse, folder, name, starts[name])
                next_kill = time.monotonic() + rng.uniform(0.5, 4)
    finally:
        for writer in writers.values():
            writer.send_signal(signal.SIGKILL)
            writer.wait()
    (seen,) = query(warehouse, _PARTIAL).to_pylist()
    stored = set(query(warehouse, "SELECT tree_id FROM trees")["tree_id"].to_pylist())
    promised = [
        f"{name}-{number}-{i}"
        for name in writers
        for number in map(int, _notes(folder, name).read_text().split())
        for i in range(_TREES)
    ]
    lost = sum(tree not in stored for tree in promised)
    yield Row(f"{seconds:.0f} s, 2 writers, {kills} kills: lost of {len(promised):,} trees", lost,
              "lost", at_most=0)  # fmt: skip
    yield Row("  half commits seen, then and at the end", half + seen["half"], "half", at_most=0)
    yield Row(f"  errors of the reader in {reads} queries", errors, "errors", at_most=0)


def _start(warehouse: Warehouse, folder: Path, name: str, start: int) -> subprocess.Popen[bytes]:
    arguments = [warehouse.root, str(_notes(folder, name)), name, str(start)]
    _notes(folder, name).touch()
    return subprocess.Popen([sys.executable, "-c", _WRITER, *arguments], env=os.environ)


def _notes(folder: Path, name: str) -> Path:
    return folder / f"committed-{name}"


def _last_noted(folder: Path, name: str) -> int:
    """Return the last shard that a writer noted as committed; -1 for none."""
    numbers = _notes(folder, name).read_text().split()
    return int(numbers[-1]) if numbers else -1
