"""What is new since the last cycle: questions without a tree, and traces not trained on.

    look = look_for_new(warehouse, "sat2")
    look["questions"], look["traces"]

The warehouse is asked, never the event that set a cycle off: events are doubled and lost. New is
what was not there when the last finished cycle published; the versions of the tables that a
dataset's card names say what was. A cycle that ended without a decision counts for nothing.
"""

from __future__ import annotations

from functools import partial

from flows.stages.retrain.cycle import Tables, last_decided
from warehouse.query.run_query import connect_trusted
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row
from warehouse.versions.selection import kept_statement


def look_for_new(warehouse: Warehouse, task: str) -> Row:
    """Count what a cycle would find to do."""
    return {
        "questions": len(questions_without_tree(warehouse, task)),
        "traces": len(new_traces(warehouse, task)),
    }


def questions_without_tree(warehouse: Warehouse, task: str) -> list[str]:
    """Return the ids of training questions that nobody has searched."""
    with connect_trusted(warehouse, ["questions", "trees"]) as con:
        rows = con.sql(
            "SELECT question_id FROM questions WHERE task = $1 AND split = 'train' "
            "AND question_id NOT IN (SELECT question_id FROM trees) ORDER BY 1",
            params=[task],
        )
        return rows.to_arrow_table()["question_id"].to_pylist()


def uncounted_trees(warehouse: Warehouse, task: str) -> list[str]:
    """Return the ids of trees that are not curated: none of their traces has its behaviors, which
    are written last."""
    with connect_trusted(warehouse, ["trees", "traces", "behaviors"]) as con:
        rows = con.sql(
            "SELECT tree_id FROM trees WHERE task = $1 AND status <> 'failed' "
            "AND tree_id NOT IN (SELECT tree_id FROM traces JOIN behaviors USING (trace_id) "
            "WHERE tree_id IS NOT NULL) ORDER BY 1",
            params=[task],
        )
        return rows.to_arrow_table()["tree_id"].to_pylist()


def new_traces(warehouse: Warehouse, task: str) -> list[str]:
    """Return the ids of kept training traces that no finished cycle could be trained on."""
    last = last_decided(warehouse, task)
    known: set[str] = set()
    if last is not None and last.outcome("publish"):
        known = set(last.as_published(partial(kept_traces, warehouse, task)))
    return [name for name in kept_traces(warehouse, task) if name not in known]


def kept_traces(
    warehouse: Warehouse,
    task: str,
    versions: Tables | None = None,
    until: float | None = None,
) -> list[str]:
    """Return the ids of all kept training traces of a task that were not revoked.

    Args:
        versions: of the tables; those of now, if left out.
        until: Unix time; only traces made by then.
    """
    names = ["kept_traces", "questions", "revoked_traces"]
    with connect_trusted(warehouse, names, versions) as con:
        rows = con.sql(
            f"{unrevoked_statement(task)} "
            "AND ($1 IS NULL OR kept_traces.created_at <= to_timestamp($1)) ORDER BY 1",
            params=[until],
        )
        return rows.to_arrow_table()["trace_id"].to_pylist()


def unrevoked_statement(task: str) -> str:
    """Return the SQL that chooses all kept training traces of a task that were not revoked; more
    conditions may follow."""
    left = "AND trace_id NOT IN (SELECT trace_id FROM revoked_traces)"
    return f"{kept_statement(task)} {left}"
