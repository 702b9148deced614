"""What tables have gained since a pass saw them, so that the next pass reads only that.

    seen = mark(warehouse, versions)                       # plain values, to be stored as JSON
    if show_added(con, warehouse, "traces", seen, 41):     # later, with the table at version 41
        con.sql("FROM added_traces")                       # the rows since

Tables are appended to, and the files of an append are new. Merging files moves rows and adds none:
then the rows are compared with those of the older version, by key. After anything else, a deletion
or a version that is gone, there is no telling, and the pass must look at everything again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow.dataset as pads
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow.fs import FileType

from warehouse.storage.home import Warehouse
from warehouse.tables.delta import dataset, open_table
from warehouse.tables.migrations import select_list
from warehouse.tables.schema import TABLES

Seen = dict[str, list[Any] | None]
"""By table, its version and a digest of that version's files; None where there was no table."""

_MERGED = "OPTIMIZE"
_HARMLESS = frozenset({"WRITE", _MERGED, "VACUUM START", "VACUUM END"})


def mark(warehouse: Warehouse, versions: Mapping[str, int | None]) -> Seen:
    """Return what was seen by a pass that read the tables at these versions."""
    return _seen({name: _at(warehouse, name, version) for name, version in versions.items()})


def mark_now(warehouse: Warehouse, names: Sequence[str]) -> Seen:
    """Return what is seen of tables as they are now; a parent's name stands before its child's."""
    return _seen({name: open_table(warehouse, name) for name in names})


def _seen(tables: Mapping[str, DeltaTable | None]) -> Seen:
    return {
        name: [delta.version(), _digest(delta)] if delta else None for name, delta in tables.items()
    }


def show_added(
    con: duckdb.DuckDBPyConnection,
    warehouse: Warehouse,
    name: str,
    seen: Seen,
    version: int | None,
) -> bool:
    """Create the view `added_NAME` of the rows that a table at `version` has gained; False where it
    cannot be told."""
    now, known = _at(warehouse, name, version), seen.get(name)
    then = _at(warehouse, name, known[0]) if known else None
    if known and (now is None or then is None or _digest(then) != known[1]):
        return False
    new, lost = _files(now) - _files(then), _files(then) - _files(now)
    merged = False
    if now and then and now.version() != then.version():
        since = now.history(max(0, now.version() - then.version()))
        operations = {commit["operation"] for commit in since}
        merged = _MERGED in operations
        appended = len(since) == now.version() - then.version() and operations <= _HARMLESS
        if not appended or (lost and not merged):
            return False
        if merged and not _are_there(warehouse, name, lost):
            return False
    if now is None or not new:
        con.execute(f"CREATE TEMP VIEW added_{name} AS FROM {name} WHERE false")
        return True
    con.register(f"_added_{name}", _only(dataset(warehouse, name, now), new))
    columns = select_list(TABLES[name], {field.name for field in now.schema().fields})
    known_rows = ""
    if merged and then:
        con.register(f"_seen_{name}", dataset(warehouse, name, then))
        known_rows = f" ANTI JOIN _seen_{name} USING ({', '.join(TABLES[name].key)})"
    con.execute(f"CREATE TEMP VIEW added_{name} AS SELECT {columns} FROM _added_{name}{known_rows}")
    return True


def _at(warehouse: Warehouse, name: str, version: int | None) -> DeltaTable | None:
    """Open a table at a version; None where there is no such version."""
    try:
        return None if version is None else open_table(warehouse, name, version)
    except DeltaError:
        return None


def _files(delta: DeltaTable | None) -> set[str]:
    return {uri.rsplit("/", 1)[-1] for uri in delta.file_uris()} if delta else set()


def _are_there(warehouse: Warehouse, name: str, files: set[str]) -> bool:
    """Whether files that a merge replaced are still kept."""
    infos = warehouse.arrow_filesystem(name).get_file_info(sorted(files))
    return all(info.type is FileType.File for info in infos)


def _digest(delta: DeltaTable) -> str:
    """Return a digest of a version's files, whose names are random: of no other table."""
    return hashlib.sha256("\n".join(sorted(_files(delta))).encode()).hexdigest()[:32]


def _only(whole: pads.FileSystemDataset, files: set[str]) -> pads.Dataset:
    some = [part for part in whole.get_fragments() if part.path.rsplit("/", 1)[-1] in files]
    return pads.FileSystemDataset(some, whole.schema, whole.format, whole.filesystem)
