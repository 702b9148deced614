"""Writes and reads the Delta tables: nothing twice, nothing half, also with several writers.

    append(warehouse, "behaviors", rows, app_id="count-regions:4711")   # repeating it adds nothing
    insert_new(warehouse, "questions", rows)           # rows whose key is there already are dropped
    commit_trees(warehouse, search_rows(tree, …), run_id=run)          # with all that is in them
    commit_tables(warehouse, "traces", traces, {"steps": …, "verdicts": …}, run_id=run)   # Arrow

Rows are plain dicts with the columns of `warehouse.tables.schema` as keys (missing ones are null;
`revision` and `created_at` are filled in), or an Arrow table or batch reader.

Delta commits one table at a time. So what belongs together is written children first, under a
`commit_id`, and the parent row last: readers show a child only when its `commit_id` is among the
parent's. A process killed in between leaves rows that no reader sees.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake import Field as DeltaField
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import StructType

from mcts.failpoints import reach
from warehouse.storage.failures import describe, no_panics
from warehouse.storage.home import Warehouse, WarehouseError, code_revision, first_line
from warehouse.tables.key_index import existing_keys
from warehouse.tables.schema import CHILDREN, TABLES, as_described
from warehouse.tables.tree_rows import SearchRows

Rows: TypeAlias = Iterable[Mapping[str, Any]] | pa.Table | pa.RecordBatchReader
Result = TypeVar("Result")

_INSERTS = "insert_new"  # the transaction that counts a table's inserts
_ATTEMPTS = 60  # conflicts are settled in milliseconds; this many in a row means something is wrong
WRITER = WriterProperties(compression="ZSTD", max_row_group_size=122_880)  # groups to pass over
# Old versions stay readable, so that a published statement can be run again on what it read.
_CONFIGURATION = {
    "delta.logRetentionDuration": "interval 3650 days",
    "delta.deletedFileRetentionDuration": "interval 3650 days",
}
_ALL_STATISTICS = {"delta.dataSkippingNumIndexedCols": "-1"}
"""Show what the log notes of every column. Delta's default is the first 32, with each field of a
struct counted: `commit_id` may come after them, and then every file has to be read to find it."""


def open_table(warehouse: Warehouse, name: str, version: int | None = None) -> DeltaTable | None:
    """The Delta table `name` at `version` (or the newest); None before its first row."""
    try:
        options = warehouse.storage_options
        return DeltaTable(warehouse.table_uri(name), version=version, storage_options=options)
    except TableNotFoundError:
        return None


def has_tables(warehouse: Warehouse) -> bool:
    """Return whether anything was ever stored; no log is read for it."""
    options = warehouse.storage_options
    tables = (warehouse.table_uri(name) for name in TABLES)
    return any(DeltaTable.is_deltatable(uri, storage_options=options) for uri in tables)


def rows_to_arrow(name: str, rows: Iterable[Mapping[str, Any]], **fill: Any) -> pa.Table:
    """Rows as an Arrow table in the schema of `name`; `fill` gives columns the rows lack.

    Raises:
        ValueError: a row has a column the table does not, or lacks its key.
    """
    table = TABLES[name]
    known = set(table.schema.names)
    fill = {"revision": code_revision(), "created_at": datetime.now(UTC), **fill}
    fill = {column: value for column, value in fill.items() if column in known}
    filled = []
    for row in rows:
        if unknown := set(row) - known:
            raise ValueError(f"{name} has no column {', '.join(sorted(unknown))}")
        row = {**fill, **row}
        if lacking := [column for column in table.key if row.get(column) is None]:
            raise ValueError(f"a row of {name} has no {lacking[0]}")
        filled.append(row)
    return pa.Table.from_pylist(filled, schema=table.schema)


def columns_to_arrow(name: str, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Columns of equal length as an Arrow table in the schema of `name`, filled as rows are."""
    schema = TABLES[name].schema
    n = len(next(iter(columns.values())))
    constant = {"revision": code_revision(), "created_at": datetime.now(UTC)}
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns
        else pa.repeat(pa.scalar(constant.get(field.name), field.type), n)
        for field in schema
    ]  # fmt: skip
    return pa.table(arrays, schema=schema)


def append(warehouse: Warehouse, name: str, rows: Rows, app_id: str) -> bool:
    """Append rows in one atomic commit named `app_id`; whether they were added.

    A second append under the same `app_id` adds nothing, also when two processes race.
    """
    data = rows if isinstance(rows, pa.Table | pa.RecordBatchReader) else rows_to_arrow(name, rows)
    if isinstance(data, pa.Table) and not data.num_rows:
        return False
    for attempt in range(_ATTEMPTS):
        delta = _open_or_create(warehouse, name)
        if delta.transaction_version(app_id) is not None:
            return False
        try:
            _write(delta, data, Transaction(app_id, 1))
            return True
        except CommitFailedError:
            if isinstance(data, pa.RecordBatchReader):
                raise  # a stream cannot be read twice
            _wait(attempt)
    raise WarehouseError(f"table {name} is too busy: {_ATTEMPTS} commits in a row were overtaken")


def insert_new(
    warehouse: Warehouse,
    name: str,
    rows: Iterable[Mapping[str, Any]] | pa.Table,
    *,
    whole: bool = False,
) -> int:
    """Append the rows whose key is not in the table yet, in one atomic commit; return how many.

    Two writers never both add a key: every insert into a table carries one shared, counted
    transaction, so of two that read the same state one fails to commit, and looks again.

    Args:
        whole: all or nothing: if any of the keys is there already, add no row and return 0.
    """
    data = rows if isinstance(rows, pa.Table) else rows_to_arrow(name, rows)
    keys = _keys(data, TABLES[name].key)
    first = {k: i for i, k in reversed(list(enumerate(keys)))}
    for attempt in range(_ATTEMPTS):
        if not first:
            return 0
        delta = _open_or_create(warehouse, name)
        known = existing_keys(warehouse, name, delta, first)
        new = sorted(i for k, i in first.items() if k not in known)
        if not new or (whole and len(new) < len(first)):
            return 0
        counted = Transaction(_INSERTS, (delta.transaction_version(_INSERTS) or 0) + 1)
        try:
            _write(delta, data.take(new), counted)
            return len(new)
        except CommitFailedError:
            _wait(attempt)
    raise WarehouseError(f"table {name} is too busy: {_ATTEMPTS} commits in a row were overtaken")


def count_inserts(warehouse: Warehouse, name: str, version: int | None = None) -> int:
    """Count the commits of `insert_new` and `insert_unless_overtaken` to a table at a version."""
    delta = open_table(warehouse, name, version)
    return (delta.transaction_version(_INSERTS) or 0) if delta else 0


def insert_unless_overtaken(
    warehouse: Warehouse, name: str, rows: pa.Table, inserts: int
) -> int | None:
    """Append rows in one atomic commit; return the table's version then, None if overtaken.

    For rows that follow from those of the table, whose keys are then known to be new: no key is
    looked up, however many there are.

    Args:
        inserts: how many inserts (`count_inserts`) the table had when they were made. If it has
            more by now, nothing is added.
    """
    for attempt in range(_ATTEMPTS):
        delta = _open_or_create(warehouse, name)
        if (delta.transaction_version(_INSERTS) or 0) != inserts:
            return None
        try:
            _write(delta, rows, Transaction(_INSERTS, inserts + 1))
            return int(delta.version())
        except CommitFailedError:
            _wait(attempt)
    raise WarehouseError(f"table {name} is too busy: {_ATTEMPTS} commits in a row were overtaken")


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit of trees or traces did."""

    added: int
    """Trees or traces that this commit added."""
    already_there: int
    """Those left out, with all that belongs to them, because they were there."""
    commit_id: str | None
    """None when nothing was added."""


def commit_trees(warehouse: Warehouse, rows: SearchRows, *, run_id: str) -> Commit:
    """Add trees with everything in them, whole or not at all.

    Rows hold the columns of their tables (`warehouse/tables/columns/`) but `commit_id`;
    every row has a `tree_id`. Trees that are there already are left out, so a repeated or doubled
    commit adds nothing.
    """
    children = {"responses": rows.responses, "nodes": rows.nodes, "rollouts": rows.rollouts}
    return _commit_rows(warehouse, "trees", rows.trees, children, run_id)


def commit_traces(
    warehouse: Warehouse,
    traces: Sequence[Mapping[str, Any]],
    *,
    steps: Sequence[Mapping[str, Any]],
    verdicts: Sequence[Mapping[str, Any]],
    run_id: str,
) -> Commit:
    """Add traces with their steps and first verdicts, whole or not at all.

    Rows hold the columns of their tables (`warehouse/tables/columns/`) but `commit_id`;
    every row has a `trace_id`. Traces that are there already are left out, with their verdicts: a
    later verdict on a known trace goes in with `insert_new(warehouse, "verdicts", rows)`.
    """
    children = {"steps": steps, "verdicts": verdicts}
    return _commit_rows(warehouse, "traces", traces, children, run_id)


def _commit_rows(
    warehouse: Warehouse,
    parent: str,
    rows: Sequence[Mapping[str, Any]],
    children: Mapping[str, Sequence[Mapping[str, Any]]],
    run_id: str,
) -> Commit:
    """Commit plain rows under a hash of their content, so that repeating a killed commit finds and
    completes what it left."""
    (key,) = TABLES[parent].key

    def content_id(new: Collection[str]) -> str:
        kept = {n: [r for r in members if r[key] in new] for n, members in children.items()}
        return _content_hash([[row for row in rows if row[key] in new], kept, run_id])

    tables = {name: rows_to_arrow(name, members) for name, members in children.items()}
    return commit_tables(
        warehouse, parent, rows_to_arrow(parent, rows), tables, run_id=run_id, name=content_id
    )


def commit_tables(
    warehouse: Warehouse,
    parent: str,
    rows: pa.Table,
    children: Mapping[str, pa.Table],
    *,
    run_id: str,
    name: Callable[[Collection[str]], str] = lambda keys: uuid.uuid4().hex,
) -> Commit:
    """Add the rows of `parent` that are new, with the children's rows that belong to them.

    Args:
        parent: trees or traces.
        rows: in the schema of the parent; `commit_id` and `run_id` are filled in.
        children: in their tables' schemas, every child table of the parent by name.
        name: the commit id for the keys that are new; by default random, which is quick for
            hundreds of thousands of rows, but a killed commit that is repeated leaves hidden rows.

    Raises:
        ValueError: a child's row belongs to none of `rows`, or a key is there twice.
    """
    assert set(children) == set(CHILDREN[parent])
    (key,) = TABLES[parent].key
    if pc.count_distinct(rows[key]).as_py() < rows.num_rows:
        raise ValueError(f"two of the {parent} have one {key}")
    for child, table in children.items():
        outside = table[key].filter(pc.invert(pc.is_in(table[key], value_set=rows[key])))
        if len(outside):
            examples = sorted(set(outside.to_pylist()))[:3]
            raise ValueError(f"{child} of {parent} that are not in the commit: {examples}")
    total = rows.num_rows
    for _ in range(_ATTEMPTS):
        delta = open_table(warehouse, parent)
        known = existing_keys(warehouse, parent, delta, _keys(rows, (key,))) if delta else set()
        if known:
            known_ids = pa.array([i for (i,) in known], rows.schema.field(key).type)
            rows = _without(rows, key, known_ids)
            children = {n: _without(table, key, known_ids) for n, table in children.items()}
        if not rows.num_rows:
            return Commit(0, total, None)
        commit_id = name(set(rows[key].to_pylist()))
        fill = {"commit_id": commit_id, "run_id": run_id}
        reach("before_commit")
        for child, table in children.items():
            append(warehouse, child, _filled(table, fill), app_id=f"{parent}:{commit_id}")
            reach("between_tables")
        # All or nothing: were some of them added by another writer meanwhile, a commit_id would
        # name rows of which only some are shown. Then the shard is cut again instead.
        added = insert_new(warehouse, parent, _filled(rows, fill), whole=True)
        if added:
            reach("after_commit")
            return Commit(added, total - added, commit_id)
    raise WarehouseError(f"table {parent} is too busy: every attempt to commit was overtaken")


def _without(table: pa.Table, key: str, known: pa.Array) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table[key], value_set=known)))


def _filled(table: pa.Table, values: Mapping[str, str]) -> pa.Table:
    """The table with these columns set to one value each."""
    columns = [
        pa.repeat(values[field.name], table.num_rows) if field.name in values else table[field.name]
        for field in table.schema
    ]
    return pa.table(columns, schema=table.schema)


def _keys(table: pa.Table, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[column].to_pylist() for column in columns), strict=True))


def rewrite(
    warehouse: Warehouse, name: str, change: Callable[[DeltaTable], Result]
) -> Result | None:
    """Apply a change that rewrites files of a table, again after a conflict; None without a table.

    Raises:
        WarehouseError: other writers overtook every attempt.
    """
    warehouse.ensure_writable()
    for attempt in range(10):
        delta = open_table(warehouse, name)
        if delta is None:
            return None
        try:
            with no_panics():
                return change(delta)
        except CommitFailedError:
            time.sleep(0.1 * 2**attempt)
    raise WarehouseError(f"table {name} is too busy: stop what writes, then repeat this")


def record_run(
    warehouse: Warehouse, run_id: str, kind: str, *, task: str | None = None, params: object = None
) -> None:
    """Note that a run has started; repeating it changes nothing."""
    row = {"run_id": run_id, "kind": kind, "task": task, "host": socket.gethostname()}
    row["params"] = json.dumps(params, sort_keys=True, default=str)
    insert_new(warehouse, "runs", [row])


def try_record_run(warehouse: Warehouse, run_id: str, kind: str, params: object) -> str | None:
    """Note a run of which nothing depends on the note; return why it could not be, if so."""
    try:
        record_run(warehouse, run_id, kind, params=params)
    except Exception as error:  # each kind of store has its own
        sentence = describe(error)
        if sentence is None and not isinstance(error, DeltaError):
            raise
        return sentence or first_line(error)
    return None


def scan(
    warehouse: Warehouse, name: str, columns: Sequence[str] | None = None, where: Any = None
) -> pa.Table:
    """Read rows of a table into memory; empty for a table that does not exist yet.

    Shows every row, also those of unfinished commits; `warehouse.query.run_query` shows what users
    may see.
    """
    schema = TABLES[name].schema
    columns = list(columns or schema.names)
    delta = open_table(warehouse, name)
    if delta is None:
        return pa.table({c: pa.array([], schema.field(c).type) for c in columns})
    stored = dataset(warehouse, name, delta)
    there = [column for column in columns if column in stored.schema.names]
    try:
        found = stored.to_table(columns=there, filter=where)
    except pa.ArrowNotImplementedError:  # a deletion of before wrote texts as views: read all
        found = stored.to_table().filter(where).select(there)
    for column in columns:  # older rows read as null in a column that came later
        if column not in found.column_names:
            nulls = pa.nulls(found.num_rows, schema.field(column).type)
            found = found.append_column(schema.field(column).name, nulls)
    return found.select(columns)


def among(column: str, texts: Iterable[str]) -> Any:
    """Return the condition, for `scan`, that a column's text is one of these; of none it is false.

    Arrow takes an empty list for one of nulls, which it does not compare with texts.
    """
    return pc.field(column).isin(pa.array(list(dict.fromkeys(texts)), pa.string()))


def dataset(warehouse: Warehouse, name: str, delta: DeltaTable) -> pa.dataset.Dataset:
    """The exact files of `delta`, the table `name`, as a dataset that is read lazily."""
    return delta.to_pyarrow_dataset(filesystem=warehouse.arrow_filesystem(name))


def _open_or_create(warehouse: Warehouse, name: str) -> DeltaTable:
    warehouse.ensure_writable()
    for attempt in range(_ATTEMPTS):
        if (delta := open_table(warehouse, name)) is not None:
            if not _ALL_STATISTICS.keys() <= delta.metadata().configuration.keys():
                with suppress(CommitFailedError):  # another writer's does as well
                    delta.alter.set_table_properties(_ALL_STATISTICS)
            return delta
        try:
            return DeltaTable.create(
                warehouse.table_uri(name),
                TABLES[name].schema,
                mode="ignore",
                description=TABLES[name].sentence,
                configuration=_CONFIGURATION | _ALL_STATISTICS,
                storage_options=warehouse.storage_options,
            )
        except DeltaError:
            if attempt > 5:  # not another writer's creation, then: say what it is
                raise
            _wait(attempt)
    raise WarehouseError(f"table {name} can't be created")


def _write(delta: DeltaTable, data: pa.Table | pa.RecordBatchReader, mark: Transaction) -> None:
    fields = {field.name: field for field in delta.schema().fields}
    more = any(_grows(field, fields.get(field.name)) for field in data.schema)
    data = as_described(data, {name: field.metadata for name, field in fields.items()})
    with no_panics():
        write_deltalake(
            delta,
            data,
            mode="append",
            # A column, or a field of one, that this code knows and the table does not yet: older
            # rows read as null there.
            schema_mode="merge" if more else None,
            writer_properties=WRITER,
            commit_properties=CommitProperties(app_transactions=[mark]),
        )


def _grows(field: pa.Field, stored: DeltaField | None) -> bool:
    """Return whether a table lacks this column, or a field of this struct."""
    if stored is None:
        return True
    return isinstance(stored.type, StructType) and len(stored.type.fields) < field.type.num_fields


def _wait(attempt: int) -> None:
    time.sleep(random.uniform(0, min(1.0, 0.01 * 2**attempt)))


def _content_hash(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
