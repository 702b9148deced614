"""DuckDB over the warehouse: a view for every table, and SQL that can only read them.

    query(warehouse, "SELECT kind, count(*) FROM traces GROUP BY kind")     # pyarrow.Table
    con = connect(warehouse)                       # the same views, for code in this room
    con = connect(warehouse, {"traces": 12})       # as they were at stated versions

The views name the exact files of one snapshot, so a query sees one state however long it runs,
and data is scanned from disk, never loaded. Rows of unfinished commits are not shown. Every column
carries its sentence: SELECT table_name, column_name, comment FROM duckdb_columns(). The files of
`warehouse/sql/` become views of the same name, described by their first line.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pyarrow as pa

from warehouse.guard import QueryError, check
from warehouse.home import Warehouse
from warehouse.schema import CHILDREN, TABLES, Table
from warehouse.tables import dataset, open_table

__all__ = ["QueryError", "connect", "query", "table_versions"]

# Parents before children: whatever commit the parent's snapshot knows, the children's, taken later,
# holds. The other order could show a tree without its nodes.
_ORDER = [*sorted(CHILDREN, reverse=True), *(name for name in TABLES if name not in CHILDREN)]


def query(warehouse: Warehouse, sql: str) -> pa.Table:
    """The answer to one question in SQL about the warehouse's tables.

    Raises:
        QueryError: the statement is not a question about them, or DuckDB can't answer it.
    """
    with connect(warehouse) as con:
        check(con, sql, view_names(con))
        try:
            return con.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            kind, _, message = str(error).strip().splitlines()[0].rpartition(" Error: ")
            raise QueryError(message or kind) from None
        except pa.ArrowException as error:
            raise QueryError(f"the answer can't be given as a table: {error}") from None


def connect(
    warehouse: Warehouse, versions: Mapping[str, int | None] | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the views, locked: no file but the tables' own, no settings.

    Args:
        versions: Delta versions by table (None: the table did not exist); tables left out are
            shown as they are now.
    """
    con = duckdb.connect(config={"autoinstall_known_extensions": False})
    files: list[str] = []
    for name in _ORDER:
        _create_view(con, warehouse, TABLES[name], files, versions or {})
    _create_sql_views(con)
    # Big sorts spill here; DuckDB removes what it wrote when the connection closes.
    scratch = Path(tempfile.gettempdir()) / f"vigorl-duckdb-{id(con)}"
    con.execute(f"SET temp_directory = {_quoted(str(scratch))}")
    con.execute(f"SET allowed_paths = [{', '.join(map(_quoted, files))}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET python_enable_replacements = false")
    con.execute("SET lock_configuration = true")
    return con


def table_versions(warehouse: Warehouse) -> dict[str, int | None]:
    """The version every table is at now; None for those that do not exist yet."""
    found = {name: open_table(warehouse, name) for name in _ORDER}
    return {name: delta.version() if delta else None for name, delta in found.items()}


def view_names(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The views a user can ask."""
    found = con.execute("SELECT view_name FROM duckdb_views() WHERE schema_name = 'main'")
    return [name for (name,) in found.fetchall() if name in TABLES or not name.startswith("_")]


def _create_view(
    con: duckdb.DuckDBPyConnection,
    warehouse: Warehouse,
    table: Table,
    files: list[str],
    versions: Mapping[str, int | None],
) -> None:
    absent = table.name in versions and versions[table.name] is None
    delta = None if absent else open_table(warehouse, table.name, versions.get(table.name))
    uris = delta.file_uris() if delta else []
    there = {field.name for field in delta.schema().fields} if delta and uris else set()
    columns = [
        f'"{field.name}"'
        if field.name in there
        else f'NULL::{_duckdb_type(field.type)} AS "{field.name}"'
        for field in table.schema
    ]
    sql = f"CREATE VIEW {table.name} AS SELECT {', '.join(columns)}"
    if not delta or not uris:
        sql += " WHERE false"
    elif warehouse.is_s3:
        # DuckDB's own S3 reader is an extension that needs a download; pyarrow reads just as well.
        con.register(f"_{table.name}", dataset(warehouse, table.name, delta))
        sql += f" FROM _{table.name}"
    else:
        uris = [unquote(uri) for uri in uris]  # a folder's name may hold a space
        files += uris
        sql += f" FROM read_parquet([{', '.join(map(_quoted, uris))}], union_by_name = true)"
    if table.parent:
        seen = f"commit_id IN (SELECT commit_id FROM {table.parent})"
        # A verdict may also be given to a trace that was committed before.
        late = "commit_id IS NULL OR " if table.name == "verdicts" else ""
        sql += f" {'AND' if not uris else 'WHERE'} ({late}{seen})"
    con.execute(sql)
    comments = [f"COMMENT ON VIEW {table.name} IS {_quoted(table.sentence)}"]
    for column in table.schema.names:
        sentence = _quoted(table.describe(column))
        comments.append(f'COMMENT ON COLUMN {table.name}."{column}" IS {sentence}')
    con.execute(";".join(comments))


def _create_sql_views(con: duckdb.DuckDBPyConnection) -> None:
    folder = resources.files("warehouse") / "sql"
    waiting = {
        path.name.removesuffix(".sql"): path.read_text(encoding="utf-8")
        for path in folder.iterdir()
        if path.name.endswith(".sql")
    }
    while waiting:
        for name, sql in sorted(waiting.items()):
            if any(other in sql for other in waiting if other != name):
                continue  # it asks a view that is not there yet
            con.execute(f"CREATE VIEW {name} AS {sql}")
            sentence = sql.partition("\n")[0].removeprefix("--").strip()
            con.execute(f"COMMENT ON VIEW {name} IS {_quoted(sentence)}")
            del waiting[name]
            break
        else:
            raise AssertionError(f"views that ask each other: {sorted(waiting)}")


def _duckdb_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_duckdb_type(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        fields = (f'"{field.name}" {_duckdb_type(field.type)}' for field in kind)
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


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
