"""What came in for a cycle, from questions to kept traces, and what it changes in the dataset.

    found = read_came_in(cycle)
    found.steps                     # {"new questions": 60, "searched": 60, …}
    dataset_changes(warehouse, published_by(decided_before(cycle)), published_by(cycle))

New is what was not there when the last cycle before it that came to a decision published. What is
there is read as it was when this one published, or until it ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.render.cycle_report import FamilyChange, FamilyCount
from flows.stages.retrain.cycle import Cycle, Tables, decided_before
from warehouse.query.run_query import connect_trusted, latest_verdicts_of
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row
from warehouse.versions.versions import ROWS, Version, open_version, resolve

_NAMES = ("questions", "trees", "runs", "latest_traces", "verdicts")
_NEW = """
CREATE TEMP TABLE new_questions AS
SELECT question_id, coalesce(family, '') AS family, source_file FROM questions
WHERE task = $task AND split = 'train' AND created_at <= to_timestamp($until)
AND question_id NOT IN (SELECT id FROM known WHERE kind = 'question');
CREATE TEMP TABLE new_trees AS
SELECT tree_id, question_id, coalesce(family, '') AS family, model, any_right,
       completion_tokens AS tokens
FROM trees JOIN (FROM questions WHERE task = $task AND split = 'train') USING (question_id)
WHERE trees.created_at <= to_timestamp($until)
AND tree_id NOT IN (SELECT id FROM known WHERE kind = 'tree');
CREATE TEMP TABLE new_cuts AS
SELECT trace_id, tree_id, family
FROM latest_traces JOIN (SELECT tree_id, family FROM new_trees) USING (tree_id);
CREATE TEMP TABLE judged AS {latest_verdicts};
CREATE TEMP TABLE new_traces AS
SELECT *, trace_id IN (SELECT trace_id FROM judged GROUP BY 1 HAVING bool_and(keep)) AS kept
FROM new_cuts;
"""
_FAMILIES = """
SELECT family, coalesce(questions, 0) AS questions, coalesce(searched, 0) AS searched,
       coalesce(solved, 0) AS solved, coalesce(kept, 0) AS kept
FROM (SELECT family, count(*) AS questions FROM new_questions GROUP BY 1)
FULL JOIN (
    SELECT family, count(DISTINCT question_id) AS searched,
           count(DISTINCT question_id) FILTER (any_right) AS solved
    FROM new_trees GROUP BY 1
) USING (family)
FULL JOIN (SELECT family, count(*) FILTER (kept) AS kept FROM new_traces GROUP BY 1) USING (family)
ORDER BY family
"""
_FUNNEL = """
WITH dropped AS (SELECT trace_id, count(*) AS drops FROM judged WHERE NOT keep GROUP BY 1)
SELECT filter, count(*) FILTER (keep) AS kept, count(*) FILTER (NOT keep) AS dropped,
       count(*) FILTER (NOT keep AND drops = 1) AS dropped_by_it_alone
FROM judged LEFT JOIN dropped USING (trace_id)
GROUP BY filter ORDER BY dropped DESC, filter
"""
_IMPORTS = """
SELECT params FROM runs WHERE kind = 'import' AND task = $task
AND created_at > to_timestamp($since) AND created_at <= to_timestamp($until) ORDER BY created_at
"""


@dataclass(frozen=True, slots=True)
class CameIn:
    """What is new in a cycle."""

    steps: dict[str, int]
    """Counts from new questions to kept traces."""
    sources: dict[str, int]
    """New questions by file."""
    teachers: dict[str, int]
    """Trees by the model that searched."""
    families: tuple[FamilyCount, ...]
    funnel: tuple[Row, ...]
    rejects: tuple[str, ...]
    """Imports that left out rows, and files that were refused: a sentence each."""
    tokens: int
    """Tokens that the searches wrote."""


def published_by(cycle: Cycle | None) -> Version | None:
    """Return the dataset version that a cycle published; None if it did not."""
    outcome = cycle.outcome("publish") if cycle is not None else None
    dataset = outcome.get("dataset") if outcome else None
    return resolve(cycle.warehouse, dataset) if cycle and dataset else None


def read_came_in(cycle: Cycle) -> CameIn:
    """Count what is new in a cycle."""
    before = decided_before(cycle)
    known = before.as_published(partial(_known, cycle.warehouse)) if before else _NONE
    since, until = _end(before) or 0.0, _end(cycle) or time.time()

    def read(versions: Tables | None, _: float | None) -> CameIn:
        with connect_trusted(cycle.warehouse, _NAMES, versions) as con:
            con.register("known", known)
            return _count(con, {"task": cycle.task, "since": since, "until": until})

    found = cycle.as_published(read)
    refused = _refused_files(cycle, since, until)
    return replace(found, rejects=(*found.rejects, *refused))


def _refused_files(cycle: Cycle, since: float, until: float) -> list[str]:
    """Say which files of the watched folder were refused meanwhile."""
    objects = cycle.warehouse.objects
    keys = objects.keys(f"retrain/{cycle.task}/inbox")
    notes = [json.loads(objects.get(key)) for key in keys if key.endswith(".refused.json")]
    meanwhile = (note for note in notes if since < note["at"] <= until)
    return [f"{note['file']}: {note['sentence']}" for note in meanwhile]


_NONE = pa.schema([("kind", pa.string()), ("id", pa.string())]).empty_table()


def _known(warehouse: Warehouse, versions: Tables | None, until: float | None) -> pa.Table:
    """Return the ids of questions and trees at those table versions, or made by `until`; none
    without either."""
    if versions is None and until is None:
        return _NONE
    with connect_trusted(warehouse, ("questions", "trees"), versions) as con:
        then = "WHERE $1 IS NULL OR created_at <= to_timestamp($1)"
        return con.sql(
            f"SELECT 'question' AS kind, question_id AS id FROM questions {then} "
            f"UNION ALL SELECT 'tree', tree_id FROM trees {then}",
            params=[until],
        ).to_arrow_table()


def _end(cycle: Cycle | None) -> float | None:
    """Return when a cycle had its data: when it published, else when it ended."""
    if cycle is None:
        return None
    outcome = cycle.outcome("publish") or cycle.done
    return float(outcome["at"]) if outcome else None


def _rejected(params: Row) -> str:
    """Say what an import left out; empty if nothing, or if it is of old and kept no count."""
    if not params.get("rejected"):
        return ""
    return f"{params['rejected']} rows of {params['path']}: {params['rejects']} says why"


def _count(con: Any, given: Mapping[str, Any]) -> CameIn:
    """Count over an open connection, in which `known` has what is not new."""
    new = _NEW.format(latest_verdicts=latest_verdicts_of("new_cuts"))
    for statement in filter(str.strip, new.split(";")):
        used = {name: value for name, value in given.items() if f"${name}" in statement}
        con.execute(statement, used)

    def counts(column: str, table: str) -> dict[str, int]:
        found = con.sql(f"SELECT {column}, count(*) FROM {table} GROUP BY 1 ORDER BY 2 DESC, 1")
        return {name or "unnamed": n for name, n in found.fetchall()}

    families = [FamilyCount(**row) for row in con.sql(_FAMILIES).to_arrow_table().to_pylist()]
    traces, kept, tokens = con.sql(
        "SELECT count(*), count(*) FILTER (kept), (SELECT sum(tokens) FROM new_trees) "
        "FROM new_traces"
    ).fetchall()[0]
    imports = con.execute(_IMPORTS, dict(given)).fetchall()
    return CameIn(
        steps={
            "new questions": sum(f.questions for f in families),
            "questions searched": sum(f.searched for f in families),
            "with a right answer": sum(f.solved for f in families),
            "traces cut": traces,
            "kept by every filter": kept,
        },
        sources=counts("source_file", "new_questions"),
        teachers=counts("model", "new_trees"),
        families=tuple(families),
        funnel=tuple(con.sql(_FUNNEL).to_arrow_table().to_pylist()),
        rejects=tuple(filter(None, (_rejected(json.loads(params)) for (params,) in imports))),
        tokens=int(tokens or 0),
    )  # fmt: skip


def dataset_changes(
    warehouse: Warehouse, before: Version | None, now: Version
) -> list[FamilyChange]:
    """Compare two versions by family; all is gained where there was none before."""
    old, new = (_rows(warehouse, version) for version in (before, now))
    families = sorted({family for rows in (old, new) for family, _, _ in rows})

    def lost(a: set[_Id], b: set[_Id], family: str, column: int) -> int:
        kept = {row[column] for row in b}
        return len({row[column] for row in a if row[0] == family and row[column] not in kept})

    return [
        FamilyChange(
            family,
            questions_gained=lost(new, old, family, 1),
            questions_lost=lost(old, new, family, 1),
            traces_gained=lost(new, old, family, 2),
            traces_lost=lost(old, new, family, 2),
            traces=sum(row[0] == family for row in new),
        )
        for family in families
    ]


_Id = tuple[str, str, str]
"""Family, question and trace."""


def _rows(warehouse: Warehouse, version: Version | None) -> set[_Id]:
    if version is None:
        return set()
    columns = ["family", "question_id", "trace_id"]
    with open_version(warehouse, version, ROWS) as folder:
        table = pq.read_table(folder / "rows.parquet", columns=columns)
    family, question, trace = (table[name].to_pylist() for name in columns)
    return {(f or "", q, t) for f, q, t in zip(family, question, trace, strict=True)}
