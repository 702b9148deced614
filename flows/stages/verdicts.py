"""Compares new verdicts with those stored, and makes rows of what has changed.

    stored = stored_verdicts(warehouse, None, trace_ids=ids)     # of one stage, the newest ones
    rows = changed_rows(verdicts, stored, None, run_id)          # insert them whole, or look again

A stage's verdicts on a trace have one version and are replaced together: when any of them changed,
the trace is given a new version of all (`latest_verdicts`). What decided is in the column `method`,
which is null for the rules of `rules.VERSION` with their default values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation.filters import rules
from curation.filters.base import CORPUS
from mcts.data import Verdict
from warehouse.query.read_back import reading_among
from warehouse.query.run_query import latest_verdicts_of, query_trusted
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import columns_to_arrow
from warehouse.tables.rows import verdict_row
from warehouse.tables.schema import Row

Verdicts = dict[str, dict[str, Row]]
"""By trace and filter: keep, reason, score, method and other."""

NO_FILTER = "(none)"
"""The filter of a row which says that no filter of the stage runs any more; views hide it."""

_COLUMNS = "trace_id, filter, version, keep, reason, score, method, other"


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest verdicts of one stage."""

    verdicts: Verdicts = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    """The newest version by trace, where there is one."""


def as_row(verdict: Verdict, method: str, other: str | None = None) -> Row:
    """Make a row of a verdict as it is compared with stored ones."""
    kept = {"keep": verdict.keep, "reason": verdict.reason, "score": verdict.score}
    return {**kept, "method": method, "other": other}


def stored_verdicts(
    warehouse: Warehouse,
    stage: str | None,
    *,
    task: str | None = None,
    trace_ids: Sequence[str] = (),
) -> Stored:
    """Read the newest verdicts of a stage: of all traces of a task, or of these."""
    of_stage = f"stage IS NOT DISTINCT FROM {quoted(stage) if stage else 'NULL'}"
    of_task = f"(SELECT trace_id FROM traces WHERE task = {quoted(task or '')})"
    some = "_wanted" if task is None else of_task
    newest = f"SELECT {_COLUMNS} FROM ({latest_verdicts_of(some)}) WHERE {of_stage}"
    versions = (
        f"SELECT trace_id, max(version) AS newest FROM verdicts SEMI JOIN {some} USING (trace_id) "
        f"WHERE {of_stage} GROUP BY trace_id"
    )

    statements = (f"({newest})", f"({versions})")
    if task is None:
        with reading_among(warehouse, statements, "trace_id", trace_ids) as rows_of:
            rows, numbers = map(rows_of, statements)
    else:
        rows, numbers = (query_trusted(warehouse, sql).to_pylist() for sql in (newest, versions))
    stored = as_stored(rows, stage)
    stored.versions.update((row["trace_id"], row["newest"]) for row in numbers)
    return stored


def as_stored(rows: Iterable[Row], stage: str | None = CORPUS) -> Stored:
    """Arrange the newest rows of `verdicts` of one stage."""
    stored = Stored()
    for row in map(dict, rows):
        trace_id, name, version = row.pop("trace_id"), row.pop("filter"), row.pop("version")
        stored.versions[trace_id] = version
        if stage is None and row["method"] is None:
            row["method"] = f"rules/{version}"
        if name != NO_FILTER:
            stored.verdicts.setdefault(trace_id, {})[name] = row
    return stored


def changed_rows(
    verdicts: Verdicts, stored: Stored, stage: str | None, run_id: str, ahead: int = 0
) -> list[Row]:
    """Make rows of the verdicts whose trace has others stored, or of other filters.

    Of the first stage, whose verdicts follow from trace and question, only the methods are
    compared.

    Args:
        ahead: how many versions to pass over, where another process has taken them.
    """

    rows: list[Row] = []
    for trace_id, version, given in _changed(verdicts, stored, stage, ahead):
        for name, row in given.items():
            verdict = Verdict(name, row["keep"], row["reason"], row["score"])
            made = {**verdict_row(trace_id, verdict, version), "run_id": run_id}
            if stage == CORPUS:
                made |= {"stage": stage, "method": row["method"], "other": row["other"]}
            elif (row["method"], version) != (rules.MAKER, rules.VERSION):
                made["method"] = row["method"]
            rows.append(made)
    return rows


def changed_table(verdicts: Verdicts, stored: Stored, run_id: str) -> pa.Table:
    """Make a table of the `changed_rows` of the corpus stage, of which there are millions."""
    of_row = ("keep", "reason", "score", "method", "other")
    columns: dict[str, list[Any]] = {
        name: [] for name in ("trace_id", "filter", "version", *of_row)
    }
    for trace_id, version, given in _changed(verdicts, stored, CORPUS, 0):
        columns["trace_id"] += [trace_id] * len(given)
        columns["version"] += [version] * len(given)
        columns["filter"] += given
        for name in of_row:
            columns[name] += [row[name] for row in given.values()]
    n = len(columns["trace_id"])
    shared = {"stage": [CORPUS] * n, "run_id": [run_id] * n}
    return columns_to_arrow("verdicts", columns | shared)


def _changed(
    verdicts: Verdicts, stored: Stored, stage: str | None, ahead: int
) -> Iterator[tuple[str, int, dict[str, Row]]]:
    """Yield the traces with other verdicts than those stored, their new version, and all of it."""

    def compared(of_trace: Mapping[str, Row]) -> object:
        return of_trace if stage else {name: row["method"] for name, row in of_trace.items()}

    nothing = {NO_FILTER: as_row(Verdict(NO_FILTER, True, ""), NO_FILTER)}
    for trace_id, given in verdicts.items():
        if compared(given) == compared(stored.verdicts.get(trace_id, {})):
            continue
        version = stored.versions.get(trace_id, 0) + 1 + ahead
        if stage is None:
            version = max(version, rules.VERSION)
        yield trace_id, version, given or nothing
