"""The contents of a warehouse, compared with those it should have.

    contents = read(home)            # {tree_id: rows}, without columns that differ between runs
    lost, differing = compare(contents, reference)
    seeds = journaled(home)          # of requests whose answers are journaled

The server logs the sampling seed of each request, which is a hash of its key.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mcts.data import content_id
from mcts.journal.records import decode, is_intact

# The writer and time of a row differ from run to run, and so do ids derived from them.
VOLATILE = {"run_id", "revision", "created_at", "commit_id", "seconds"}
TABLES = ("trees", "nodes", "rollouts", "responses", "traces")

Contents = dict[str, list[str]]


def read(home: Path | str) -> Contents:
    """Read every row of each tree, as a sorted list of hashes."""
    from warehouse.query.run_query import connect
    from warehouse.storage.home import Warehouse

    found: Contents = {}
    with connect(Warehouse(str(home)), names=TABLES) as con:
        for table in TABLES:
            for row in con.sql(f"SELECT * FROM {table}").to_arrow_table().to_pylist():
                kept = {k: v for k, v in row.items() if k not in VOLATILE}
                text = json.dumps([table, kept], sort_keys=True, default=str)
                name = hashlib.sha256(text.encode()).hexdigest()[:24]
                found.setdefault(row["tree_id"], []).append(f"{table} {name}")
    return {tree_id: sorted(rows) for tree_id, rows in found.items()}


def compare(contents: Contents, reference: Contents) -> tuple[int, int]:
    """Count the reference's trees that are missing, and the trees that differ from it."""
    lost = set(reference) - set(contents)
    return len(lost), sum(contents[tree] != reference.get(tree) for tree in contents)


def journaled(home: Path) -> set[int]:
    """Return the sampling seeds, which identify requests, of all journaled records."""
    lines = [
        line
        for path in (home / "journal").glob("*.jsonl")
        for line in path.read_bytes().splitlines(keepends=True)
        if is_intact(line)
    ]
    keys = [decode(line).key for line in lines]
    return {int(content_id(k.search_id, k.node, k.purpose, k.sample)[:15], 16) for k in keys}


def logged(log: Path) -> list[dict]:
    """Read the requests in a server's log."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
