"""Columns that older code wrote under another name or type, as today's views select them.

    MIGRATIONS = (Migration(1, "traces", "reward", was="score", sql="TRY_CAST({was} AS DOUBLE)"),)

    select_list(TABLES["traces"], {"trace_id", "score"})     # what a view selects from such files

No stored row is ever rewritten. A change is one line here, kept for good, in the order of their
numbers: a column that is renamed, or gets another type, gets a new name in the schema (one Delta
table can't hold two types under one name), and its line says what it was called and how an old
value reads today. So rows of both times are in one table, the tables that older dataset versions
were cut from are queried by today's names, and a statement written with those reads all of them. A
column, or a field of a struct, that was only added needs no line: older rows read as null in it.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import pyarrow as pa

from warehouse.tables.schema import Table


@dataclass(frozen=True, slots=True)
class Migration:
    """One column that has changed its name or its type."""

    number: int
    """Its place among all; never reused."""
    table: str
    column: str
    """Its name today."""
    was: str
    """Its name in older files."""
    sql: str = "{was}"
    """How an old value reads today, as DuckDB's SQL; `{was}` stands for it."""


MIGRATIONS: tuple[Migration, ...] = ()
"""All migrations. None yet: since the first tables, columns have only been added."""


def select_list(table: Table, stored: Set[str]) -> str:
    """The SELECT list of a table's view over files that have the columns `stored`."""
    return ", ".join(_expression(table.name, field, stored) for field in table.schema)


def _expression(table: str, field: pa.Field, stored: Set[str]) -> str:
    known = [f'"{field.name}"'] if field.name in stored else []
    # The newest name first: a row has its value under the name of its time.
    for change in sorted(MIGRATIONS, key=lambda change: -change.number):
        if (change.table, change.column) == (table, field.name) and change.was in stored:
            old = change.sql.replace("{was}", f'"{change.was}"')
            known.append(f"({old})::{duckdb_type(field.type)}")
    if known == [f'"{field.name}"']:
        if pa.types.is_struct(field.type):
            # Files of older code may lack a field, which reads as null.
            return f'"{field.name}"::{duckdb_type(field.type)} AS "{field.name}"'
        return known[0]
    if not known:
        return f'NULL::{duckdb_type(field.type)} AS "{field.name}"'
    return f'coalesce({", ".join(known)}) AS "{field.name}"'


def duckdb_type(kind: pa.DataType) -> str:
    """The name of an Arrow type in DuckDB's SQL."""
    if pa.types.is_list(kind):
        return f"{duckdb_type(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        fields = (f'"{field.name}" {duckdb_type(field.type)}' for field in kind)
        return f"STRUCT({', '.join(fields)})"
    names = {
        pa.string(): "VARCHAR",
        pa.int64(): "BIGINT",
        pa.int32(): "INTEGER",
        pa.float64(): "DOUBLE",
        pa.bool_(): "BOOLEAN",
        pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
    }
    return names[kind]
