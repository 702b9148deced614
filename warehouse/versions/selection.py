"""Selects the traces of a dataset version: one SELECT over the warehouse's views.

con = connect(warehouse, names=names_for(sql))
choose(con, "SELECT trace_id FROM kept_traces")     # the temp table `chosen` of a connection
"""

from __future__ import annotations

import duckdb

from warehouse.query.run_query import named_in, view_names
from warehouse.query.sql_guard import QueryError, check, check_repeatable, quoted
from warehouse.storage.home import WarehouseError, first_line

TABLES_READ = (
    "images", "latest_traces", "latest_verdicts", "questions", "revocations", "revoked_traces",
    "steps", "traces", "trees", "verdicts",
)  # fmt: skip
"""What is read of the traces chosen: their rows, images and card, and how two versions differ."""


def names_for(*statements: str) -> set[str]:
    """The tables and views to open for these statements, and for what is read of their traces.

    A connection to all views takes several times as long to open.
    """
    return {*TABLES_READ}.union(*map(named_in, statements))


class NothingChosen(WarehouseError):
    """A statement that is fine chose no trace."""


def choose(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Run the statement and store its trace ids in the temp table `chosen`.

    Raises:
        QueryError: the statement is refused, fails, or gives no trace_id.
        NothingChosen: it chose no trace.
        WarehouseError: it chose an unknown one, or one made by an evaluation.
    """
    check(con, sql, view_names())
    check_repeatable(con, sql)
    statement = sql.strip().rstrip(";")
    try:
        # On its own lines, so that a comment at the statement's end ends there.
        columns = [c[0] for c in con.execute(f"DESCRIBE (\n{statement}\n)").fetchall()]
        if "trace_id" not in columns:
            raise QueryError(f"the statement gives no trace_id; it gives: {', '.join(columns)}")
        con.execute(
            "CREATE TEMP TABLE chosen AS "
            f"SELECT DISTINCT trace_id::VARCHAR AS trace_id FROM (\n{statement}\n) "
            "WHERE trace_id IS NOT NULL"
        )
    except (duckdb.InterruptException, duckdb.OutOfMemoryException):
        raise  # a limit, of which `warehouse.query.limits` says which
    except duckdb.Error as error:
        raise QueryError(first_line(error)) from None
    ((n,),) = con.execute("SELECT count(*) FROM chosen").fetchall()
    if not n:
        raise NothingChosen("the statement chose no trace, so nothing was published")
    unknown = con.execute("FROM chosen ANTI JOIN traces USING (trace_id) LIMIT 1").fetchall()
    if unknown:
        raise WarehouseError(f"the statement chose {unknown[0][0]!r}, which is not a trace's id")
    ((measured,),) = con.execute(
        "SELECT count(*) FROM traces SEMI JOIN chosen USING (trace_id) WHERE origin = 'evaluation'"
    ).fetchall()
    if measured:
        raise WarehouseError(
            f"{measured} of the traces chosen are answers of an evaluation, which must not be "
            "trained on; add: WHERE origin = 'search'"
        )


def kept_statement(task: str) -> str:
    """Return the statement that chooses what every filter keeps: the plainest dataset."""
    return (
        "SELECT trace_id FROM kept_traces JOIN questions USING (question_id) "
        f"WHERE kept_traces.task = {quoted(task)} AND origin = 'search' AND split = 'train'"
    )
