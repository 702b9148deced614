"""DuckDB over the warehouse: a view for every table, and SQL that can only read them.

    query(warehouse, "SELECT kind, count(*) FROM traces GROUP BY kind")     # pyarrow.Table
    con = connect(warehouse)                       # the same views, for statements of others
    con = connect(warehouse, {"traces": 12})       # as they were at these versions
    con = connect_trusted(warehouse, ["traces"])   # these views, for statements of this package

The views name the exact files of one snapshot, so a query sees one state however long it runs,
and data is scanned from disk, never loaded. A query opens only the tables it names. Rows of
unfinished commits are not shown. Every column carries its sentence: SELECT table_name,
column_name, comment FROM duckdb_columns(). The files of `warehouse/query/sql/` become views of the
same name, described by their first line.
"""

from __future__ import annotations

import atexit
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import cache
from importlib import resources
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from warehouse.query.commit_visibility import commits_of, only_value, visible_files
from warehouse.query.dataset_files import DESCRIBED_IN, create_dataset_rows
from warehouse.query.file_columns import have_all_columns
from warehouse.query.limits import MOST_ROW_BYTES, Limits, limit_resources, limited
from warehouse.query.sql_guard import QueryError, all_quoted, check, explained, quoted
from warehouse.storage.home import Warehouse, first_line
from warehouse.tables.delta import dataset, open_table
from warehouse.tables.migrations import select_list
from warehouse.tables.schema import CHILDREN, TABLES, Table

# Parents before children: the children's snapshots, taken later, hold every commit that the
# parent's has. The other order could show a tree without its nodes.
ORDER = [*sorted(CHILDREN, reverse=True), *(name for name in TABLES if name not in CHILDREN)]

_MEMORY = 2 * 2**30  # bytes for our own statements, however large the tables: the rest is spilled

# Views that leave out replaced versions, by their tables and what tells versions apart: where there
# is one version, they are all rows, but for the mark of a stage without filters.
_NEWEST = {
    "latest_traces": ("traces", "linearizer", "FROM traces"),
    "latest_verdicts": ("verdicts", "version", "FROM verdicts WHERE filter <> '(none)'"),
}
# The same as `_filter_sets` where no verdict was replaced: one grouping instead of three.
_SETS = """
SELECT trace_id, bit_or(bit) AS judged, bit_or(CASE WHEN keep THEN 0 ELSE bit END) AS dropped
FROM verdicts
JOIN _filter_bits USING (filter)
GROUP BY trace_id
"""
# The same as `_filter_outcomes` where no trace was cut anew.
_OUTCOMES = """
SELECT judged, dropped, count(*) AS traces FROM _filter_sets GROUP BY judged, dropped
"""
SHORTCUTS = (*_NEWEST["latest_traces"], *_NEWEST["latest_verdicts"], _SETS, _OUTCOMES)
"""What stands for the statements of some views."""


def query(
    warehouse: Warehouse,
    sql: str,
    limits: Limits | None = None,
    versions: Mapping[str, int | None] | None = None,
) -> pa.Table:
    """Run one SELECT over the warehouse's tables.

    Args:
        limits: of time and memory; for statements that a person wrote.
        versions: as in `connect`.

    Raises:
        QueryError: the statement is not a query of them, DuckDB can't run it, or it reached a
            limit.
    """
    with _open() as con, limited(con, limits) if limits else nullcontext():
        names = check(con, sql, [*TABLES, *sql_views()])
        try:
            _fill(con, warehouse, names, versions or {}, limits)
            table = con.sql(sql).to_arrow_table()
        except (duckdb.InterruptException, duckdb.OutOfMemoryException):
            if limits:
                raise  # `limited` says why
            raise QueryError("the query was interrupted, or there is not enough memory") from None
        except duckdb.IOException as error:
            raise QueryError(
                f"a file can't be read or written: {first_line(error)}; `vigorl warehouse check` "
                "tells what the warehouse lacks"
            ) from None
        except duckdb.Error as error:
            raise QueryError(explained(error)) from None
        except pa.ArrowException as error:
            raise QueryError(f"the result can't be converted to a table: {error}") from None
    if limits and table.nbytes > MOST_ROW_BYTES * max(1, table.num_rows):
        size = table.nbytes / table.num_rows / 2**20
        raise QueryError(f"the result's rows have {size:.0f} MiB each: list less in one of them")
    return table


def connect(
    warehouse: Warehouse,
    versions: Mapping[str, int | None] | None = None,
    names: Iterable[str] | None = None,
    limits: Limits | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB with the views, locked: only the tables' files, fixed settings.

    The views are of this connection: a cursor of it has no variables, and so none of their files.

    Args:
        versions: Delta versions by table (None: the table did not exist); tables left out are
            shown as they are now.
        names: the tables and views that will be queried; those they are made of come with them. By
            default all, with their comments.
        limits: those of memory and disk are set; `limited` sees to the time.
    """
    con = _open()
    _fill(con, warehouse, names, versions or {}, limits)
    return con


def connect_trusted(
    warehouse: Warehouse,
    names: Iterable[str],
    versions: Mapping[str, int | None] | None = None,
    commits: Mapping[str, frozenset[str]] | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open the views for statements of our own: nothing is locked, so none may hold a person's SQL.

    All such connections of a process are of one instance of DuckDB, since making one takes longer
    than most queries do. Views and what a statement creates are temporary: of this connection.

    Args:
        names, versions: as in `connect`.
        commits: by table, those of its rows whose children are sought: of the tables below it, some
            files that have none are left out.
    """
    with _LOCK:
        con = _instance(os.getpid()).cursor()
    create_views(con, warehouse, names, versions, commits, temporary=True)
    return con


def query_trusted(warehouse: Warehouse, sql: str) -> pa.Table:
    """Run one statement of our own; see `connect_trusted`."""
    with connect_trusted(warehouse, named_in(sql)) as con:
        return con.sql(sql).to_arrow_table()


_LOCK = threading.Lock()


@cache
def _instance(process: int) -> duckdb.DuckDBPyConnection:
    """The process's instance for `connect_trusted`."""
    con = _open()
    limit_resources(con, _MEMORY)
    con.execute(
        f"SET temp_directory = {quoted(str(_scratch(process)))};"
        "SET enable_external_file_cache = false;"  # or it would keep 2 GiB of what was read
        "SET python_enable_replacements = false"
    )
    atexit.register(_instance.cache_clear)  # or DuckDB tells it as leaked where a thread goes on
    atexit.register(con.close)  # which removes the temporary folder
    return con


def _scratch(name: int) -> Path:
    """Where big sorts spill to; DuckDB removes what it wrote when the instance closes."""
    return Path(tempfile.gettempdir()) / f"vigorl-duckdb-{name}"


def _open() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config={"autoinstall_known_extensions": False})
    con.execute("SET enable_progress_bar = false")  # it would mix with a slow query's output
    con.execute("SET TimeZone = 'UTC'")  # times are UTC: the machine's zone would choose other rows
    return con


def create_views(
    con: duckdb.DuckDBPyConnection,
    warehouse: Warehouse,
    names: Iterable[str] | None = None,
    versions: Mapping[str, int | None] | None = None,
    commits: Mapping[str, frozenset[str]] | None = None,
    *,
    temporary: bool = False,
    stored: bool = False,
) -> list[str]:
    """Create the views in `con`, see `connect_trusted`; return the files they read.

    Args:
        stored: in a database that other connections will open, which lack this one's variables.
    """
    versions, create = versions or {}, "CREATE TEMP VIEW" if temporary else "CREATE VIEW"
    wanted = None if names is None else _with_parts(names)
    files: list[str] = []
    opened: dict[str, DeltaTable] = {}
    finished: dict[str | None, frozenset[str]] = {None: frozenset()}
    for name in ORDER:
        children = CHILDREN.get(name, ())
        if wanted is None or name in wanted or wanted & set(children):
            absent = name in versions and versions[name] is None
            delta = None if absent else open_table(warehouse, name, versions.get(name))
            if delta:
                opened[name] = delta
        if children and (wanted is None or wanted & set(children)):
            finished[name] = _finished(con, warehouse, opened.get(name), name)
        if wanted is None or name in wanted:
            parent = TABLES[name].parent
            shown = finished[parent], (commits or {}).get(parent or "")
            _create_view(
                con, warehouse, TABLES[name], opened.get(name), shown, files, create, stored
            )
            if wanted is None:
                comment_on(con, TABLES[name])
    if wanted is None or "dataset_rows" in wanted:
        files += create_dataset_rows(con, warehouse, create, listing=wanted is None)
    create_sql_views(con, opened, wanted, create)
    return files


def _fill(
    con: duckdb.DuckDBPyConnection,
    warehouse: Warehouse,
    names: Iterable[str] | None,
    versions: Mapping[str, int | None],
    limits: Limits | None = None,
) -> None:
    """Create the views, then disable external access."""
    files = create_views(con, warehouse, names, versions)
    limit_resources(con, limits.memory if limits else _MEMORY)
    con.execute("SET VARIABLE _files = ?::VARCHAR[]", [files])
    con.execute(
        f"SET temp_directory = {quoted(str(_scratch(id(con))))};"
        "SET allowed_paths = getvariable('_files');"
        "SET enable_external_access = false;"
        "SET python_enable_replacements = false;"
        "SET lock_configuration = true"
    )


UNREADABLE = (DeltaError, duckdb.Error, OSError)
"""What reading tables at earlier versions raises where a deletion took their files."""


def table_versions(warehouse: Warehouse) -> dict[str, int | None]:
    """The current version of every table; None for those that do not exist yet."""
    found = {name: open_table(warehouse, name) for name in ORDER}
    return {name: delta.version() if delta else None for name, delta in found.items()}


def view_names() -> list[str]:
    """The tables and views a user can query."""
    return [*TABLES, *(name for name in sql_views() if not name.startswith("_"))]


def _create_view(
    con: duckdb.DuckDBPyConnection,
    warehouse: Warehouse,
    table: Table,
    delta: DeltaTable | None,
    shown: tuple[frozenset[str], frozenset[str] | None],
    files: list[str],
    create: str,
    stored: bool,
) -> None:
    """Create the view of one table; add the files it reads to `files`.

    Thousands of names are parsed and bound at every use of a view that lists them, so it reads them
    from a variable of the connection.

    Args:
        shown: the finished commits of its parent, and those that are sought if not all.
        stored: as in `create_views`: the view lists the files itself.
    """
    finished, wanted = shown
    uris = delta.file_uris() if delta else []
    source = dataset(warehouse, table.name, delta) if delta and uris and warehouse.is_s3 else None
    condition = None
    if table.parent and delta and uris:
        commits = commits_of(con, warehouse, table.name, delta)
        late = table.name == "verdicts"  # some are added to traces that were committed before
        visible = visible_files(uris, commits, finished, late, None if source else wanted)
        condition = visible.condition
        if not source:
            uris = visible.files
        elif len(visible.files) < len(uris):  # a dataset has all files, so filter by commit
            everything = frozenset().union(*commits.values())
            condition = visible_files([""], {"": everything}, finished, late).condition or "false"
    if not delta or not uris:
        con.execute(f"{create} {table.name} AS SELECT {select_list(table, set())} WHERE false")
        return
    if source:
        # DuckDB's own S3 reader is an extension that needs a download, so pyarrow reads.
        rows = f"_stored_{table.name}"  # no other part registers names that begin so
        con.register(rows, source)
    else:
        uris = [unquote(uri) for uri in uris]  # a folder's name may hold a space
        files += uris
        union = "" if have_all_columns(delta) else ", union_by_name = true"
        named = f"[{all_quoted(uris)}]"
        if not stored:
            con.execute(f"SET VARIABLE _files_{table.name} = ?::VARCHAR[]", [uris])
            named = f"getvariable('_files_{table.name}')"
        rows = f"read_parquet({named}{union})"
    columns = {field.name for field in delta.schema().fields}
    where = f" WHERE {condition}" if condition else ""
    create = f"{create} {table.name} AS SELECT"
    try:
        con.execute(f"{create} {select_list(table, columns)} FROM {rows}{where}")
    except duckdb.BinderException:
        # A column was added by a commit that is not visible: the visible files do not have it.
        columns = {name for name, *_ in con.execute(f"DESCRIBE FROM {rows}").fetchall()}
        con.execute(f"{create} {select_list(table, columns)} FROM {rows}{where}")


def _finished(
    con: duckdb.DuckDBPyConnection, warehouse: Warehouse, parent: DeltaTable | None, name: str
) -> frozenset[str]:
    """The commits whose parent rows are stored."""
    if parent is None:
        return frozenset()
    commits = commits_of(con, warehouse, name, parent)
    return frozenset(i for ids in commits.values() for i in ids if i is not None)


def comment_on(con: duckdb.DuckDBPyConnection, table: Table, kind: str = "VIEW") -> None:
    """Describe a view (or a TABLE) and its columns in DuckDB's catalog."""
    comments = [f"COMMENT ON {kind} {table.name} IS {quoted(table.sentence)}"]
    for column in table.schema.names:
        sentence = quoted(table.describe(column))
        comments.append(f'COMMENT ON COLUMN {table.name}."{column}" IS {sentence}')
    con.execute(";".join(comments))


def create_sql_views(
    con: duckdb.DuckDBPyConnection,
    opened: Mapping[str, DeltaTable],
    wanted: set[str] | None,
    create: str = "CREATE VIEW",
) -> None:
    """Create the views of `sql/` in `con`, which has the tables; see `create_views`."""
    for name, sql in sql_views().items():
        if wanted is not None and name not in wanted:
            continue
        table, column, rows = _NEWEST.get(name, ("", "", ""))
        if table in opened and _one_version(only_value(opened[table], column)):
            sql = f"{sql.partition(chr(10))[0]}\n{rows}"
        elif name == "_filter_sets" and "verdicts" in opened and _none_replaced(con):
            sql = sql.partition("\n")[0] + _SETS
        elif name == "_filter_outcomes" and _cut_once(opened):
            sql = sql.partition("\n")[0] + _OUTCOMES
        con.execute(f"{create} {name} AS {sql}")
        if wanted is None:
            sentence = sql.partition("\n")[0].removeprefix("--").strip()
            con.execute(f"COMMENT ON VIEW {name} IS {quoted(sentence)}")
            _comment_on_columns(con, name)


def _comment_on_columns(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Describe the columns of a view that a table it reads, however far below, has too."""
    below = (*_tables_below(name), *(DESCRIBED_IN if name == "dataset_rows" else ()))
    read = [TABLES[table] for table in below]
    for column, *_ in con.execute(f"DESCRIBE {name}").fetchall():
        said = (table.describe(column) for table in read if column in table.schema.names)
        if sentence := next(said, None):
            con.execute(f'COMMENT ON COLUMN {name}."{column}" IS {quoted(sentence)}')


@cache
def _tables_below(name: str) -> tuple[str, ...]:
    """The tables that a view reads, in the order in which it names them or views of them."""
    found: dict[str, None] = {}
    for word in re.findall(r"\w+", _statement(sql_views()[name]).lower()):
        if word in TABLES:
            found[word] = None
        elif word in sql_views() and word != name:
            found |= dict.fromkeys(_tables_below(word))
    return tuple(found)


def _cut_once(opened: Mapping[str, DeltaTable]) -> bool:
    """Whether all traces are by one version of the linearizer."""
    return "traces" in opened and _one_version(only_value(opened["traces"], "linearizer"))


def _none_replaced(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether each stage of filters has verdicts of one version only."""
    versions = con.execute("SELECT DISTINCT stage, version FROM verdicts").fetchall()
    return len(versions) == len({stage for stage, _ in versions})


def _one_version(value: object) -> bool:
    """Whether a column's only value is a version: a number, or a name that ends in one."""
    return isinstance(value, int) or re.fullmatch(r"[^/]+/\d+", str(value)) is not None


@cache
def sql_views() -> dict[str, str]:
    """The statements of `warehouse/query/sql/`, each after those it reads."""
    folder = resources.files("warehouse.query") / "sql"
    waiting = {
        path.name.removesuffix(".sql"): path.read_text(encoding="utf-8")
        for path in folder.iterdir()
        if path.name.endswith(".sql")
    }
    ordered: dict[str, str] = {}
    while waiting:
        ready = [
            n for n, sql in waiting.items() if not (_words(_statement(sql)) - {n}) & set(waiting)
        ]
        if not ready:
            raise AssertionError(f"views that read each other: {sorted(waiting)}")
        ordered |= {name: waiting.pop(name) for name in sorted(ready)}
    return ordered


def latest_verdicts_of(traces: str) -> str:
    """Return the statement of `latest_verdicts` for the trace_ids of a table alone.

    The view itself looks for what is newest among all verdicts, whatever its rows are joined with.
    """
    statement = _statement(sql_views()["latest_verdicts"])
    assert statement.count("FROM verdicts") == 1, "the view reads something else"
    some = f"FROM (FROM verdicts SEMI JOIN {traces} USING (trace_id))"
    return statement.replace("FROM verdicts", some)


def _with_parts(names: Iterable[str]) -> set[str]:
    """The tables and views named, with those they read."""
    wanted, waiting = set(), {name.lower() for name in names}
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        waiting |= named_in(_statement(sql_views().get(name, ""))) - wanted
    return wanted


def named_in(sql: str) -> set[str]:
    """The tables and views whose names occur in a statement of our own: what it reads, or more."""
    return _words(sql) & {*TABLES, *sql_views()}


def _words(sql: str) -> set[str]:
    return set(re.findall(r"\w+", sql.lower()))


def _statement(view: str) -> str:
    """A view's statement without the first line, its description."""
    return view.partition("\n")[2]


def duckdb_texts(column: pa.Array | pa.ChunkedArray) -> list[str | None]:
    """Return a column's values as DuckDB writes them."""
    with duckdb.connect() as con:
        con.register("_column", pa.table({"v": column}))
        return [text for (text,) in con.sql("SELECT v::VARCHAR FROM _column").fetchall()]
