"""What a warehouse holds, and how it differs from what it should hold.

    contents = read(home)            # {tree_id: rows}, without what may differ between two runs
    lost, differing = compare(contents, reference)
    seeds = journaled(home)          # of the requests whose answers are journaled

The server logs the sampling seed of each request, which is a hash of its place in its search.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mcts.data import content_id
from mcts.journal.records import decode, is_intact

# Who wrote a row and when differs from run to run, and so does what is named after it.
VOLATILE = {"run_id", "revision", "created_at", "commit_id", "seconds"}
TABLES = ("trees", "nodes", "rollouts", "responses", "traces")

Contents = dict[str, list[str]]


def read(home: Path) -> Contents:
    """Every row that belongs to a tree, as a sorted list of hashes, by tree."""
    from warehouse.query.catalog import connect
    from warehouse.storage.home import Warehouse

    found: Contents = {}
    with connect(Warehouse(str(home))) as con:
        for table in TABLES:
            for row in con.sql(f"SELECT * FROM {table}").to_arrow_table().to_pylist():
                kept = {k: v for k, v in row.items() if k not in VOLATILE}
                text = json.dumps([table, kept], sort_keys=True, default=str)
                name = hashlib.sha256(text.encode()).hexdigest()[:24]
                found.setdefault(row["tree_id"], []).append(f"{table} {name}")
    return {tree_id: sorted(rows) for tree_id, rows in found.items()}


def compare(contents: Contents, reference: Contents) -> tuple[int, int]:
    """How many trees of the reference are not there, and how many are there but not equal."""
    lost = set(reference) - set(contents)
    return len(lost), sum(contents[tree] != reference.get(tree) for tree in contents)


def journaled(home: Path) -> set[int]:
    """The sampling seeds, which name requests, of all that is journaled."""
    lines = [
        line
        for path in (home / "journal").glob("*.jsonl")
        for line in path.read_bytes().splitlines(keepends=True)
        if is_intact(line)
    ]
    keys = [decode(line).key for line in lines]
    return {int(content_id(k.search_id, k.node, k.purpose, k.sample)[:15], 16) for k in keys}


def logged(log: Path) -> list[dict]:
    """The requests in a server's log."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
