"""What is new since the last cycle: questions without a tree, and traces not trained on.

    look = look_for_new(warehouse, "sat2")
    look["questions"], look["traces"]

The warehouse is asked, never the event that set a cycle off: events are doubled and lost. New is
what was not there when the last finished cycle published; the versions of the tables that a
dataset's card names say what was. A cycle that ended without a decision counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from flows.stages.retrain.cycle import Cycle, cycles
from warehouse.query.run_query import UNREADABLE, connect
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.schema import Row

GONE = (*UNREADABLE, WarehouseError)
"""What reading what a cycle published from raises where a deletion took it."""


def look_for_new(warehouse: Warehouse, task: str) -> Row:
    """Count what a cycle would find to do."""
    return {
        "questions": len(questions_without_tree(warehouse, task)),
        "traces": len(new_traces(warehouse, task)),
    }


def questions_without_tree(warehouse: Warehouse, task: str) -> list[str]:
    """Return the ids of training questions that nobody has searched."""
    with connect(warehouse, names=["questions", "trees"]) as con:
        rows = con.sql(
            "SELECT question_id FROM questions WHERE task = $1 AND split = 'train' "
            "AND question_id NOT IN (SELECT question_id FROM trees) ORDER BY 1",
            params=[task],
        )
        return rows.to_arrow_table()["question_id"].to_pylist()


def uncounted_trees(warehouse: Warehouse, task: str) -> list[str]:
    """Return the ids of trees that are not curated: none of their traces has its behaviors, which
    are written last."""
    with connect(warehouse, names=["trees", "traces", "behaviors"]) as con:
        rows = con.sql(
            "SELECT tree_id FROM trees WHERE task = $1 AND tree_id NOT IN (SELECT tree_id FROM "
            "traces JOIN behaviors USING (trace_id) WHERE tree_id IS NOT NULL) ORDER BY 1",
            params=[task],
        )
        return rows.to_arrow_table()["tree_id"].to_pylist()


def new_traces(warehouse: Warehouse, task: str) -> list[str]:
    """Return the ids of kept training traces that no finished cycle could be trained on."""
    last = last_decided(warehouse, task)
    known: set[str] = set()
    if last is not None and (published := last.outcome("publish")):
        try:
            known = set(kept_traces(warehouse, task, last.tables()))
        except GONE:
            known = set(kept_traces(warehouse, task, until=published["at"]))
    return [name for name in kept_traces(warehouse, task) if name not in known]


def kept_traces(
    warehouse: Warehouse,
    task: str,
    versions: Mapping[str, int | None] | None = None,
    until: float | None = None,
) -> list[str]:
    """Return the ids of all kept training traces of a task that were not revoked.

    Args:
        versions: of the tables; those of now, if left out.
        until: Unix time; only traces made by then.
    """
    names = ["kept_traces", "questions", "revoked_traces"]
    with connect(warehouse, versions, names=names) as con:
        rows = con.sql(
            "SELECT trace_id FROM kept_traces JOIN questions USING (question_id) "
            "WHERE origin = 'search' AND questions.task = $1 AND split = 'train' "
            "AND trace_id NOT IN (SELECT trace_id FROM revoked_traces) "
            "AND ($2 IS NULL OR kept_traces.created_at <= to_timestamp($2)) ORDER BY 1",
            params=[task, until],
        )
        return rows.to_arrow_table()["trace_id"].to_pylist()


def last_decided(warehouse: Warehouse, task: str) -> Cycle | None:
    """Return the newest cycle that ended with a decision; None before the first."""
    decided = (c for c in reversed(cycles(warehouse, task)) if c.done and c.outcome("gate"))
    return next(decided, None)
