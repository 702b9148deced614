"""Finds the files and rows of finished commits, from the Delta log where it can, not by reading.

    commits = commits_of(con, warehouse, "steps", delta)     # {file: the commit ids in it}
    visible = visible_files(uris, commits, finished, late)   # what a view of a child table reads
    value = only_value(delta, "version")                     # a column's value if all rows share it

A child's row is shown once its parent's commit is there. Checking that row by row costs a join in
every question. But a file written by one append holds one commit, and the log notes the smallest
and largest commit_id of each file: where they are equal, nothing has to be read. So a file of
finished commits is scanned as it is, a file of an unfinished one is left out, and only files that
hold both, which compaction can make, are filtered. Compaction also notes the commits of the files
it makes beside them (`note_commits`); without such a note the column is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from warehouse.query.sql_guard import all_quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import dataset, open_table
from warehouse.tables.schema import TABLES

_EXACT = 32  # characters: longer texts are cut off in the log's statistics

Commits = Mapping[str, frozenset[str | None]]
"""The commit ids in each file, by its address; None among them for rows that carry none."""


@dataclass(frozen=True, slots=True)
class Visible:
    """The visible rows of a child table: where they are, and how to select them."""

    files: list[str]
    """Addresses of the files that hold any."""
    condition: str | None
    """What a visible row of these files satisfies; None when all rows are visible."""


def visible_files(
    uris: Iterable[str],
    commits: Commits,
    finished: frozenset[str],
    late: bool,
    wanted: frozenset[str] | None = None,
) -> Visible:
    """Select what to read of a child table whose parent has the `finished` commits.

    Args:
        late: rows without a commit are visible too.
        wanted: files without rows of these commits, or late ones, are left out; none if left out.
    """
    visible = finished | {None} if late else finished
    sought = visible if wanted is None else visible & (wanted | {None})
    files = [uri for uri in uris if not sought.isdisjoint(commits[uri])]
    unfinished = frozenset().union(*(commits[uri] for uri in files)) - visible
    if not unfinished:
        return Visible(files, None)
    listed = all_quoted(sorted(filter(None, unfinished)))
    finished_rows = f"commit_id NOT IN ({listed})" if listed else "true"
    absent = "commit_id IS NULL OR" if late else "commit_id IS NOT NULL AND"
    return Visible(files, f"({absent} {finished_rows})")


def commits_of(
    con: duckdb.DuckDBPyConnection, warehouse: Warehouse, name: str, delta: DeltaTable
) -> Commits:
    """Find the commit ids in each of the table's files.

    On S3, where DuckDB can't read the files itself, ids that must be read are known only for all
    those files together.
    """
    uris = delta.file_uris()
    named = {uri.rsplit("/", 1)[-1]: uri for uri in uris}
    found: dict[str, frozenset[str | None]] = {}
    for path, rows, low, high, nulls in _statistics(delta, "commit_id"):
        uri = named[path.rsplit("/", 1)[-1]]
        if nulls is not None and rows is not None and nulls == rows:
            found[uri] = frozenset({None})
        elif nulls is not None and low is not None and low == high and len(low) <= _EXACT:
            found[uri] = frozenset({low, None} if nulls else {low})
        else:
            with suppress(KeyError):
                found[uri] = frozenset(json.loads(warehouse.objects.get(_note(name, uri))))
    unknown = [uri for uri in uris if uri not in found]
    if unknown and not warehouse.is_s3:
        listed = all_quoted(map(unquote, unknown))
        rows_read = con.execute(
            f"SELECT filename, list(DISTINCT commit_id) FILTER (commit_id IS NOT NULL), "
            f"bool_or(commit_id IS NULL) FROM read_parquet([{listed}], filename = true) GROUP BY 1"
        ).fetchall()
        for file, ids, nulls in rows_read:
            found[named[file.rsplit("/", 1)[-1]]] = frozenset(
                [*(ids or ()), *([None] if nulls else ())]
            )
    elif unknown:
        con.register("_commits", dataset(warehouse, name, delta))
        ids = con.execute("SELECT DISTINCT commit_id FROM _commits").fetchall()
        con.unregister("_commits")
        found.update(dict.fromkeys(unknown, frozenset(i for (i,) in ids)))
    return {uri: found.get(uri, frozenset()) for uri in uris} if unknown else found


def note_commits(warehouse: Warehouse, name: str) -> None:
    """Note the commits of files that hold several; delete the notes of files that are gone."""
    delta = open_table(warehouse, name)
    if delta is None or "commit_id" not in TABLES[name].schema.names:
        return
    if not warehouse.is_s3:
        with duckdb.connect() as con:
            for uri, ids in commits_of(con, warehouse, name, delta).items():
                if len(ids) > 1:
                    listed = json.dumps(sorted(ids, key=str))
                    warehouse.objects.put(_note(name, uri), listed.encode())
    files = {uri.rsplit("/", 1)[-1] for uri in delta.file_uris()}
    for key in warehouse.objects.keys(f"tables/{name}/_commits"):
        if key.rsplit("/", 1)[-1].removesuffix(".json") not in files:
            warehouse.objects.delete(key)


def _note(name: str, uri: str) -> str:
    return f"tables/{name}/_commits/{uri.rsplit('/', 1)[-1]}.json"


def only_value(delta: DeltaTable, column: str) -> Any:
    """The value that all rows have in a column; None if they differ or the log does not say."""
    values = set()
    for _, _, low, high, nulls in _statistics(delta, column):
        if nulls != 0 or low is None or low != high:
            return None
        if isinstance(low, str) and len(low) >= _EXACT:
            return None
        values.add(low)
    return values.pop() if len(values) == 1 else None


def _statistics(delta: DeltaTable, column: str) -> Iterator[tuple[Any, ...]]:
    """The log's statistics of a column, by file: its path, its rows, the column's least and
    largest value, and its nulls; null where there are none."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    nulls = pa.nulls(actions.num_rows)
    wanted = ("path", "num_records", *(f"{kind}.{column}" for kind in ("min", "max", "null_count")))
    columns = [actions[n] if n in actions.column_names else nulls for n in wanted]
    return zip(*(column.to_pylist() for column in columns), strict=True)
