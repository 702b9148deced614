"""Which commits are in a table's files, told from the Delta log where it can be, so not by reading.

    commits = commits_of(con, warehouse, delta, uris)     # {file: the commit ids in it}
    only = only_value(delta, "version")                   # the one value a column has, if it is one

A child's row is shown once its parent's commit is there. Checking that row by row costs a join in
every question. But a file written by one append holds one commit, and the log notes the smallest
and largest commit_id of each file: where they are equal, nothing has to be read. So a file of
finished commits is scanned as it is, a file of an unfinished one is left out, and only files that
hold both, which compaction can make, are filtered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

_EXACT = 32  # characters: longer texts are cut off in the log's statistics

Commits = Mapping[str, frozenset[str | None]]
"""The commit ids in each file, by its address; None among them for rows that carry none."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How the rows of a child that may be seen are found."""

    files: list[str]
    """Addresses of the files that hold any."""
    condition: str | None
    """What a row of these files must satisfy; None when all of them may be seen."""


def shown(uris: Iterable[str], commits: Commits, finished: frozenset[str], late: bool) -> Shown:
    """What to read of a child whose parent knows the `finished` commits.

    Args:
        late: rows without a commit may be seen too.
    """
    visible = finished | {None} if late else finished
    files = [uri for uri in uris if commits[uri] & visible]
    strangers = frozenset().union(*(commits[uri] for uri in files)) - visible
    if not strangers:
        return Shown(files, None)
    listed = ", ".join(_quoted(name) for name in sorted(filter(None, strangers)))
    finished_rows = f"commit_id NOT IN ({listed})" if listed else "true"
    absent = "commit_id IS NULL OR" if late else "commit_id IS NOT NULL AND"
    return Shown(files, f"({absent} {finished_rows})")


def commits_of(
    con: duckdb.DuckDBPyConnection, delta: DeltaTable, uris: list[str], source: Any = None
) -> Commits:
    """The commit ids in each of the table's files.

    Args:
        source: the table as a pyarrow dataset, where DuckDB can't read the files itself; then what
            is found by reading is known for all such files together only.
    """
    named = {uri.rsplit("/", 1)[-1]: uri for uri in uris}
    found: dict[str, frozenset[str | None]] = {}
    for row in _statistics(delta, "commit_id"):
        low, rows, nulls = row["min"], row["num_records"], row["null_count"]
        uri = named[row["path"].rsplit("/", 1)[-1]]
        if nulls is not None and rows is not None and nulls == rows:
            found[uri] = frozenset({None})
        elif nulls is not None and low is not None and low == row["max"] and len(low) <= _EXACT:
            found[uri] = frozenset({low, None} if nulls else {low})
    unknown = [uri for uri in uris if uri not in found]
    if unknown and source is None:
        listed = ", ".join(map(_quoted, unknown))
        rows_read = con.execute(
            f"SELECT filename, list(DISTINCT commit_id) FILTER (commit_id IS NOT NULL), "
            f"bool_or(commit_id IS NULL) FROM read_parquet([{listed}], filename = true) GROUP BY 1"
        ).fetchall()
        for uri, ids, nulls in rows_read:
            found[uri] = frozenset([*(ids or ()), *([None] if nulls else ())])
    elif unknown:
        con.register("_commits", source)
        every = frozenset(
            i for (i,) in con.execute("SELECT DISTINCT commit_id FROM _commits").fetchall()
        )
        con.unregister("_commits")
        found.update(dict.fromkeys(unknown, every))
    return {uri: found.get(uri, frozenset()) for uri in uris}


def only_value(delta: DeltaTable, column: str) -> Any:
    """The value that all rows have in a column, by the log; None if they differ or it can't say."""
    values = set()
    for row in _statistics(delta, column):
        low = row["min"]
        if row["null_count"] != 0 or low is None or low != row["max"]:
            return None
        if isinstance(low, str) and len(low) >= _EXACT:
            return None
        values.add(low)
    return values.pop() if len(values) == 1 else None


def _statistics(delta: DeltaTable, column: str) -> list[dict[str, Any]]:
    """What the log says of a column, one row a file; null where it says nothing."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    there = set(actions.column_names)
    nothing = pa.nulls(actions.num_rows)
    wanted = {"path": "path", "num_records": "num_records"}
    wanted |= {kind: f"{kind}.{column}" for kind in ("min", "max", "null_count")}
    columns = {k: actions[v] if v in there else nothing for k, v in wanted.items()}
    return list(pa.table(columns).to_pylist())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
