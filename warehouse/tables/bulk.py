"""Committing by the hundred thousand: traces or trees as Arrow tables, whole or not at all.

    commit_tables(warehouse, "traces", traces, {"steps": steps, "verdicts": verdicts}, run_id=run)

`warehouse.tables.delta` does the same for shards of plain rows; this is for who has columns
already, such as an import from another warehouse. A commit is named by chance, not by its content,
whose hash would take as long as writing it; so one that was killed and is repeated leaves rows that
nobody sees, where a shard of plain rows finds them and goes on.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.delta import Commit, append, insert_new, open_table
from warehouse.tables.key_index import present
from warehouse.tables.schema import CHILDREN, TABLES

_ATTEMPTS = 10


def commit_tables(
    warehouse: Warehouse,
    parent: str,
    rows: pa.Table,
    children: Mapping[str, pa.Table],
    *,
    run_id: str,
) -> Commit:
    """Add the rows of `parent` that are new, with the children's rows that belong to them.

    Args:
        parent: trees or traces.
        rows: in the schema of the parent; `commit_id` and `run_id` are filled in.
        children: in their tables' schemas, every child table of the parent by name.

    Raises:
        WarehouseError: a child's row belongs to none of `rows`, or a key is there twice.
    """
    assert set(children) == set(CHILDREN[parent])
    (key,) = TABLES[parent].key
    if pc.count_distinct(rows[key]).as_py() < rows.num_rows:
        raise WarehouseError(f"two of the {parent} have one {key}, or one has none")
    for name, table in children.items():
        if not pc.all(pc.is_in(table[key], value_set=rows[key]), min_count=0).as_py():
            raise WarehouseError(f"rows of {name} belong to {parent} that are not in the commit")
    total = rows.num_rows
    for _ in range(_ATTEMPTS):
        if delta := open_table(warehouse, parent):
            keys = [(name,) for name in rows[key].to_pylist()]
            found = present(warehouse, parent, delta, keys)
            if found:
                there = pa.array([name for (name,) in found], rows.schema.field(key).type)
                rows = _without(rows, key, there)
                children = {n: _without(table, key, there) for n, table in children.items()}
        if not rows.num_rows:
            return Commit(0, total, None)
        commit_id = uuid.uuid4().hex
        filled = {"commit_id": commit_id, "run_id": run_id}
        with ThreadPoolExecutor(len(children)) as pool:
            ways = [
                pool.submit(append, warehouse, n, _filled(n, t, filled), f"{parent}:{commit_id}")
                for n, t in children.items()
            ]
        for way in ways:
            way.result()
        added = insert_new(warehouse, parent, _filled(parent, rows, filled), whole=True)
        if added:
            return Commit(added, total - added, commit_id)
    raise WarehouseError(f"table {parent} is too busy: every attempt to commit was overtaken")


def _without(table: pa.Table, key: str, there: Any) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table[key], value_set=there)))


def _filled(name: str, table: pa.Table, values: Mapping[str, str]) -> pa.Table:
    schema = TABLES[name].schema
    columns = [
        pa.repeat(values[field.name], table.num_rows) if field.name in values else table[field.name]
        for field in schema
    ]
    return pa.table(columns, schema=schema)
