"""Which keys are in a table already, without reading its key column again for every commit.

    there = present(warehouse, "traces", delta, [("3f…",), ("a0…",)])     # a subset of these

The files of a Delta table never change. So what a process has read of one it remembers, as two
hashes a row, sixteen bytes; a commit reads the files that were added since, and then only those
where a hash was met, since different keys may share one.
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
class _Memory:
    """Hashes of the first key column of a table, in order of size."""

    files: dict[str, _Hashes]
    all: _Hashes


_remembered: dict[str, _Memory] = {}  # by the table's address
_lock = threading.Lock()


def present(warehouse: Warehouse, name: str, delta: DeltaTable, keys: Collection[Key]) -> set[Key]:
    """Those of `keys` that a row of the table has."""
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
        memory = _remembered.get(address) or _Memory({}, np.empty(0, np.int64))
    if set(memory.files) != set(files):
        memory = _brought_up(memory, files, lambda file: read(file, columns[:1])[columns[0]])
        with _lock:
            _remembered[address] = memory
    firsts = pa.array({key[0] for key in keys}, TABLES[name].schema.field(columns[0]).type)
    sought = _hashes(firsts)
    if not _met(memory.all, sought):
        return set()
    found: set[Key] = set()
    for file, hashes in memory.files.items():
        if _met(hashes, sought):
            rows = read(file, columns)
            rows = rows.filter(pc.is_in(rows[columns[0]], value_set=firsts))
            found |= set(zip(*(rows[column].to_pylist() for column in columns), strict=True))
    return found & set(keys)


def _brought_up(
    memory: _Memory, files: list[str], read: Callable[[str], pa.ChunkedArray]
) -> _Memory:
    """The memory of these files, of which only the new ones are read."""
    known = {file: memory.files[file] for file in files if file in memory.files}
    new = {file: _hashes(read(file)) for file in files if file not in known}
    old = [memory.all] if len(known) == len(memory.files) else list(known.values())
    # Sorted runs one after the other: a stable sort only merges them.
    together = np.sort(np.concatenate([*old, *new.values()]), kind="stable")
    return _Memory(known | new, together)


def _met(hashes: _Hashes, sought: _Hashes) -> bool:
    if not len(hashes):
        return False
    places = np.searchsorted(hashes, sought).clip(max=len(hashes) - 1)
    return bool((hashes[places] == sought).any())


def _hashes(values: pa.Array) -> _Hashes:
    """One hash a value, in order of size."""
    return np.sort(np.fromiter(map(hash, values.to_pylist()), np.int64, len(values)))
