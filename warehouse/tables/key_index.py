"""Finds which keys are in a table already, without reading its key column again for every commit.

    known = existing_keys(warehouse, "traces", delta, [("3f…",), ("a0…",)])     # a subset of these

The files of a Delta table never change. So a process caches what it has read of one, as two hashes
a row, sixteen bytes; a commit reads the files that were added since, and then only those with a
matching hash, since different keys may share one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from warehouse.storage.home import Warehouse
from warehouse.tables.schema import TABLES

Key = tuple[Any, ...]
_Hashes = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class _Index:
    """Sorted hashes of the first key column of a table."""

    files: dict[str, _Hashes]
    all: _Hashes


_cache: dict[str, _Index] = {}  # by the table's address
_lock = threading.Lock()


def existing_keys(
    warehouse: Warehouse, name: str, delta: DeltaTable, keys: Collection[Key]
) -> set[Key]:
    """Return those of `keys` that a row of the table has."""
    files = [uri.rsplit("/", 1)[-1] for uri in delta.file_uris()]
    if not files or not keys:
        return set()
    columns, folder = list(TABLES[name].key), warehouse.arrow_filesystem(name)

    def read(file: str, wanted: list[str]) -> pa.Table:
        # Files that Delta Lake rewrote give views of strings, which compute functions do not take.
        types = pa.schema([TABLES[name].schema.field(column) for column in wanted])
        return pq.ParquetFile(file, filesystem=folder).read(wanted).select(wanted).cast(types)

    address = warehouse.table_uri(name)
    with _lock:
        index = _cache.get(address) or _Index({}, np.empty(0, np.int64))
    if set(index.files) != set(files):
        index = _updated(index, files, lambda file: read(file, columns[:1])[columns[0]])
        with _lock:
            _cache[address] = index
    firsts = pa.array({key[0] for key in keys}, TABLES[name].schema.field(columns[0]).type)
    wanted_hashes = _hashes(firsts)
    if not _contains(index.all, wanted_hashes):
        return set()
    found: set[Key] = set()
    for file, hashes in index.files.items():
        if _contains(hashes, wanted_hashes):
            rows = read(file, columns)
            rows = rows.filter(pc.is_in(rows[columns[0]], value_set=firsts))
            found |= set(zip(*(rows[column].to_pylist() for column in columns), strict=True))
    return found & set(keys)


def _updated(index: _Index, files: list[str], read: Callable[[str], pa.ChunkedArray]) -> _Index:
    """The index of these files; only the new ones are read."""
    known = {file: index.files[file] for file in files if file in index.files}
    new = {file: _hashes(read(file)) for file in files if file not in known}
    old = [index.all] if len(known) == len(index.files) else list(known.values())
    # Sorted runs one after the other: a stable sort only merges them.
    together = np.sort(np.concatenate([*old, *new.values()]), kind="stable")
    return _Index(known | new, together)


def _contains(hashes: _Hashes, wanted_hashes: _Hashes) -> bool:
    if not len(hashes):
        return False
    places = np.searchsorted(hashes, wanted_hashes).clip(max=len(hashes) - 1)
    return bool((hashes[places] == wanted_hashes).any())


def _hashes(values: pa.Array) -> _Hashes:
    """Sorted hashes, one a value."""
    return np.sort(np.fromiter(map(hash, values.to_pylist()), np.int64, len(values)))
