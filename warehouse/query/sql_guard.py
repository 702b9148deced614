"""Checks user SQL: one query of the warehouse's tables, and nothing that has an effect.

    check(con, sql, tables)              # QueryError unless it is one harmless SELECT
    check_repeatable(con, sql)           # … and its rows depend on nothing but the tables' rows

DuckDB itself is locked down too (`run_query.connect`): this is the inner of two walls, and the one
that explains. It reads the parsed statement, not its text, and allows what it knows: an unknown
kind of node, table or table function is refused. The node types and fields of DuckDB's serialized
statements are private; `tests/warehouse/test_run_query.py` names those that a new DuckDB changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import duckdb


class QueryError(Exception):
    """Why a statement is refused or failed, in one sentence."""


def quoted(text: str) -> str:
    """A text as an SQL literal, for statements that are built in code."""
    return "'" + text.replace("'", "''") + "'"


def all_quoted(texts: Iterable[str]) -> str:
    """Texts as SQL literals with commas between."""
    return ", ".join(map(quoted, texts))


_HINTS = ("Candidate bindings", "Candidate functions", "Did you mean", "LINE ")
_LONGEST_HINT = 120


def explained(error: duckdb.Error) -> str:
    """Return what DuckDB says is wrong, on one line: with what it suggests and where it points."""
    first, *more = [line.strip() for line in str(error).strip().splitlines()] or [""]
    kind, _, message = first.rpartition(" Error: ")
    hints = (line[:_LONGEST_HINT] for line in more if line.startswith(_HINTS))
    return "; ".join((message or kind or type(error).__name__, *hints))


_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLE_FUNCTIONS = {
    "range", "generate_series", "unnest", "json_each", "json_tree", "repeat",
    "duckdb_columns", "duckdb_tables", "duckdb_views", "duckdb_functions", "duckdb_types",
    "duckdb_keywords",
}  # fmt: skip
_CATALOG_VIEWS = {"duckdb_columns", "duckdb_tables", "duckdb_views"}
_SCHEMAS = {"main", "information_schema"}
_SHOWS = {'"tables"', '"databases"', "__show_tables_expanded"}
# Functions that change something, wait, or reveal the process instead of the tables.
_FORBIDDEN_FUNCTIONS = {
    "getenv", "current_setting", "getvariable", "nextval", "currval", "setval", "setseed",
    "sleep_ms", "write_log", "query", "query_table", "which_secret", "current_query",
}  # fmt: skip
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:ANALYZE\s+)?(?=\w)", re.IGNORECASE)

# Names that mean the clock or the session: when no column has them, and as functions, of which
# DuckDB calls some constant.
_CLOCKS = {
    "current_timestamp", "current_date", "current_time", "localtime", "localtimestamp", "today",
    "current_user", "session_user", "user", "current_role", "current_catalog", "current_schema",
    "current_localtime", "current_localtimestamp", "pg_postmaster_start_time", "pg_conf_load_time",
}  # fmt: skip
# Aggregates whose result depends on the order of rows: among equals, or in their list.
_ORDER_DEPENDENT = {
    "first", "last", "any_value", "arbitrary", "arg_max", "arg_min", "max_by", "min_by",
    "arg_max_null", "arg_min_null", "arg_max_nulls_last", "arg_min_nulls_last", "argmax", "argmin",
    "mode", "list", "array_agg", "string_agg", "group_concat", "listagg", "json_group_array",
    "json_group_object", "json_group_structure", "reservoir_quantile", "approx_quantile", "lttb",
}  # fmt: skip
_HASHES = {"hash", "md5", "md5_number", "sha1", "sha256"}
"""Functions of trace_id that order as well as it does."""
_ORDER_DEPENDENT_WINDOWS = {
    "row_number", "ntile", "first_value", "last_value", "nth_value", "lag", "lead", "first", "last",
    "fill",
}  # fmt: skip


def check(con: duckdb.DuckDBPyConnection, sql: str, tables: Iterable[str]) -> set[str] | None:
    """Allow one SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE, VALUES or EXPLAIN of one.

    Returns:
        The names of the tables and views it reads; None if it lists which there are.

    Raises:
        QueryError: it is anything else, or names a table or function that is not allowed.
    """
    tree = _parse(con, sql)
    known = {name.lower() for name in tables} | _CATALOG_VIEWS
    parts = list(_walk(tree))
    for part in parts:
        entries = part.get("cte_map", {}).get("map", ())
        known |= {entry["key"].lower() for entry in entries if not _is_path(entry["key"])}
    for part in parts:
        kind = str(part.get("type", ""))
        if kind.endswith("_NODE") and kind not in _NODES:
            raise QueryError("only queries are allowed: this statement would change something")
        if kind == "BASE_TABLE":
            _check_table(part, known, tables)
        elif kind == "TABLE_FUNCTION":
            name = str(part["function"].get("function_name", "")).lower()
            if name not in _TABLE_FUNCTIONS:
                raise QueryError(
                    f"the function {name} can't be queried: only the warehouse's tables can"
                )
        elif kind == "SHOW_REF" and "query" not in part and part.get("table_name") not in _SHOWS:
            raise QueryError("SHOW can list TABLES or ALL TABLES, nothing else")
        if str(part.get("function_name", "")).lower() in _FORBIDDEN_FUNCTIONS:
            raise QueryError(f"the function {part['function_name']} can't be used here")
    return _names_in(parts)


def _names_in(parts: Iterable[dict[str, Any]]) -> set[str] | None:
    names = set()
    for part in parts:
        kind = part.get("type")
        if kind == "BASE_TABLE":
            *schema, name = (str(step).lower() for step in part["qualified_name"]["path"])
            if "information_schema" in schema or name in _CATALOG_VIEWS:
                return None
            names.add(name)
        elif kind == "TABLE_FUNCTION":
            if str(part["function"].get("function_name", "")).lower().startswith("duckdb_"):
                return None
        elif kind == "SHOW_REF" and "query" not in part:
            return None
    return names


def check_repeatable(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse what could give other rows at another time or place from the same tables.

    Raises:
        QueryError: a clock, chance, a sample, or a choice among rows that no total order decides.
    """
    volatile = {
        name
        for (name,) in con.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE stability IN ('VOLATILE', 'CONSISTENT_WITHIN_QUERY')"
        ).fetchall()
    }
    ordered = "add ORDER BY … trace_id, so that the rows alone decide"
    for part in _walk(_parse(con, sql)):
        name = str(part.get("function_name", "")).lower()
        if name in volatile or name in _CLOCKS:
            raise QueryError(f"{name}() can't be used in a dataset: its value changes by itself")
        if name == "age" and len(part.get("arguments", ())) == 1:
            raise QueryError("age() of one time can't be used in a dataset: it reads the clock")
        if part.get("ref_type") in ("POSITIONAL", "ASOF"):
            kind = part["ref_type"]
            raise QueryError(f"{kind} JOIN can't be used in a dataset: it leaves ties open")
        columns = part.get("column_names", [])
        if len(columns) == 1 and str(columns[0]).lower() in _CLOCKS:
            raise QueryError(f"{columns[0]} can't be used in a dataset: it changes by itself")
        if part.get("sample"):
            raise QueryError("a dataset can't be a random sample: order by a hash and LIMIT it")
        window = part.get("class") == "WINDOW"
        if window and name in _ORDER_DEPENDENT_WINDOWS and not _by_trace(part.get("orders", ())):
            raise QueryError(f"{name}() OVER leaves ties open: {ordered}")
        framed = "ROWS" in f"{part.get('start')} {part.get('end')}"
        if window and framed and not _by_trace(part.get("orders", ())):
            raise QueryError(f"a frame of ROWS takes whichever come first: {ordered}")
        aggregate_orders = part.get("order_bys", {}).get("orders", ())
        if not window and name in _ORDER_DEPENDENT and not _by_trace(aggregate_orders):
            raise QueryError(f"{name}() takes whichever row comes first: {ordered}")
        modifiers = {m.get("type"): m for m in part.get("modifiers", ())}
        by_trace = _by_trace(modifiers.get("ORDER_MODIFIER", {}).get("orders", ()))
        if any("LIMIT" in str(kind) for kind in modifiers) and not by_trace:
            raise QueryError(f"LIMIT leaves open which rows are taken: {ordered}")
        chosen = modifiers.get("DISTINCT_MODIFIER", {}).get("distinct_on_targets")
        if chosen and not by_trace:
            raise QueryError(f"DISTINCT ON leaves open which row is taken: {ordered}")


def _parse(con: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """The parsed statement, without an EXPLAIN in front of it."""
    try:
        sql.encode()
        statements = con.extract_statements(sql)
    except UnicodeEncodeError:  # bytes of an argument or a pipe
        raise QueryError("the statement is no text in UTF-8") from None
    except duckdb.Error as error:
        raise QueryError(explained(error)) from None
    if len(statements) != 1:
        raise QueryError(f"run one statement at a time, not {len(statements)}")
    text = sql
    if statements[0].type == duckdb.StatementType.EXPLAIN:
        text = _EXPLAIN.sub("", sql, count=1)
    ((serialized,),) = con.execute(
        "SELECT json_serialize_sql(?::VARCHAR, skip_default := true, skip_null := true)", [text]
    ).fetchall()
    try:
        tree = json.loads(serialized)
    except RecursionError:
        raise QueryError("the statement is nested too deeply") from None
    if tree.get("error") or len(tree.get("statements", ())) != 1:
        raise QueryError(
            "only queries are allowed: one SELECT, WITH, FROM, DESCRIBE, SHOW or EXPLAIN"
        )
    return dict(tree["statements"][0])


def _walk(root: Any) -> Iterator[dict[str, Any]]:
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _check_table(part: dict[str, Any], known: set[str], tables: Iterable[str]) -> None:
    *schema, name = (str(step) for step in part["qualified_name"]["path"])
    if schema and schema[-1].lower() in _SCHEMAS and len(schema) == 1:
        if schema[0].lower() == "information_schema" and name.isidentifier():
            return
    elif schema:
        raise QueryError(f"there is no table {'.'.join([*schema, name])}")
    if _is_path(name):
        raise QueryError(f"files can't be queried, only tables: {name}")
    if name.lower() not in known:
        shown = sorted(table for table in tables if not table.startswith("_"))
        raise QueryError(f"there is no table {name}; there are: {', '.join(shown)}")


def _is_path(name: str) -> bool:
    return re.search(r"[./\\:*?]", name) is not None


def _by_trace(orders: Iterable[Any]) -> bool:
    """Whether an ORDER BY has the column trace_id, a hash of it, or is by ALL."""
    for order in orders:
        told = order.get("expression") or {}
        parts = [told]
        if str(told.get("function_name", "")).lower() in _HASHES:
            parts = list(_walk(told))
        if told.get("class") == "STAR":
            return True
        if any(str(p.get("column_names", [""])[-1]).lower() == "trace_id" for p in parts):
            return True
    return False
