"""Which keys are in a table already, without reading its key column again for every commit.

    there = present(warehouse, "traces", delta, [("3f…",), ("a0…",)])     # a subset of these

The files of a Delta table never change. So what a process has read of one it remembers, as one hash
a row, eight bytes; a commit reads the files that were added since, and then only those files where
a hash was met, since different keys may share one.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from warehouse.home import Warehouse
from warehouse.schema import TABLES

Key = tuple[Any, ...]
_Hashes = np.ndarray[Any, np.dtype[np.int64]]

_remembered: dict[str, dict[str, _Hashes]] = {}  # table's address: file: hashes of its first keys
_lock = threading.Lock()


def present(warehouse: Warehouse, name: str, delta: DeltaTable, keys: Collection[Key]) -> set[Key]:
    """Those of `keys` that a row of the table has."""
    files = [uri.rsplit("/", 1)[-1] for uri in delta.file_uris()]
    if not files or not keys:
        return set()
    columns, folder = list(TABLES[name].key), warehouse.arrow_filesystem(name)

    def read(file: str, wanted: list[str]) -> pa.Table:
        return pq.ParquetFile(file, filesystem=folder).read(wanted)

    with _lock:
        known = _remembered.get(warehouse.table_uri(name), {})
    known = {
        file: known[file] if file in known else _hashes(read(file, columns[:1])[columns[0]])
        for file in files
    }
    with _lock:
        _remembered[warehouse.table_uri(name)] = known
    firsts = pa.array({key[0] for key in keys}, TABLES[name].schema.field(columns[0]).type)
    sought = _hashes(firsts)
    found: set[Key] = set()
    for file, hashes in known.items():
        places = np.searchsorted(hashes, sought).clip(max=max(len(hashes) - 1, 0))
        if len(hashes) and (hashes[places] == sought).any():
            rows = read(file, columns)
            rows = rows.filter(pc.is_in(rows[columns[0]], value_set=firsts))
            found |= set(zip(*(rows[column].to_pylist() for column in columns), strict=True))
    return found & set(keys)


def _hashes(values: pa.Array) -> _Hashes:
    """One hash a value, in order of size."""
    return np.sort(np.fromiter(map(hash, values.to_pylist()), np.int64, len(values)))
