"""What each filter kept and dropped, counted once for each state of the tables.

    for row in funnel_rows(warehouse): …         # those of the view verdict_funnel, and two totals

A count groups every verdict, which takes seconds from a million traces on. So it is stored beside
the verdicts, and stands while both tables have the same files and the views say the same.
"""

from __future__ import annotations

import hashlib

from warehouse.query.additions import mark_now
from warehouse.query.run_query import SHORTCUTS, query, sql_views
from warehouse.storage.failures import describe
from warehouse.storage.home import Warehouse
from warehouse.storage.notes import read_note, write_note
from warehouse.tables.schema import Row

_KEY = "tables/verdicts/_counts/funnel.json"
_TABLES = ("traces", "verdicts")  # in this order: see `mark_now`
# The view, and how many traces there are in all: what both count is grouped once.
_FUNNEL = """
WITH _filter_outcomes AS MATERIALIZED (FROM main._filter_outcomes)
SELECT
    *,
    (SELECT sum(traces)::BIGINT FROM _filter_outcomes) AS traces_judged,
    (SELECT coalesce(sum(traces) FILTER (dropped = 0), 0)::BIGINT FROM _filter_outcomes)
        AS traces_kept
FROM ({verdict_funnel})
"""


def funnel_rows(warehouse: Warehouse) -> list[Row]:
    """Return the rows of `verdict_funnel`, each with how many traces were judged and kept in all.

    Where the warehouse can't be written they are counted each time.

    Raises:
        QueryError: the tables cannot be read.
    """
    seen = mark_now(warehouse, _TABLES)
    said = "".join([_FUNNEL, *sql_views().values(), *SHORTCUTS])
    state = {"statement": hashlib.sha256(said.encode()).hexdigest(), "seen": seen}
    stored = read_note(warehouse, _KEY)
    if {name: stored.get(name) for name in state} == state:
        return list(stored["rows"])
    versions = {name: at[0] if at else None for name, at in seen.items()}
    rows = query(warehouse, _FUNNEL.format(**sql_views()), versions=versions).to_pylist()
    try:
        if rows:
            write_note(warehouse, _KEY, {**state, "rows": rows})
    except Exception as error:  # each kind of store has its own
        if describe(error) is None:
            raise
    return rows
