"""Curation: committed trees become traces with verdicts, and a summary says what came of it.

    summary = await curate(CurateSettings(task="sat2", filters="filters.yaml", publish="sat2-sft"))

Trees are read back from the warehouse, so a build and a later curation see the same. What the same
filters with the same values have judged already is left alone; the teacher is never asked.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from curation.filters import crops, grounding
from curation.filters.base import Context, Filter, FilterProblem, apply_filters
from curation.filters.config import DEFAULT_FILTERS, describe_change, load_filters, trace_filters
from curation.scores import behaviors
from curation.traces import linearize
from flows.settings import CurateSettings
from flows.settings_base import Problem
from flows.stages.corpus.passes import filter_corpus
from flows.stages.verdicts import Stored, Verdicts, as_row, changed_rows, stored_verdicts
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Trace
from mcts.parsing import render
from warehouse.query.read_back import read_trees
from warehouse.query.run_query import connect_trusted, named_in, query_trusted
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_traces, insert_new, record_run
from warehouse.tables.older_questions import add_lost_ids
from warehouse.tables.rows import behavior_rows, read_objects, trace_rows
from warehouse.tables.schema import Row

CURATION_BATCH = 64  # trees held in memory at once

Stage = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Summary:
    """Outcome of a build or of a curation."""

    task: str
    questions: int = 0
    """Questions requested."""
    trees: int = 0
    """Trees of these questions in the warehouse, now or before."""
    right: int = 0
    """Of these, trees that found a right answer."""
    failed: int = 0
    """Of these, trees in which the teacher gave nothing usable."""
    traces: int = 0
    kept: int = 0
    """Traces every filter keeps."""
    requests: int = 0
    """Requests sent to the teacher this time."""
    replayed: int = 0
    """Requests answered from the journal this time."""
    run_id: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def sentence(self) -> str:
        """Return the summary in one sentence."""
        failed = f" ({self.failed} failed: --retry-failed tries again)" if self.failed else ""
        return (
            f"{self.questions} questions searched{failed}, {self.right} trees with a right answer, "
            f"{self.kept} traces kept of {self.traces}"
        )


async def curate(
    settings: CurateSettings, *, step: Callable[[Stage], Stage] = lambda stage: stage
) -> Summary:
    """Cut and filter every tree of a task that has not been, by these filters and today's code."""
    filters = read_filters(settings.filters)
    warehouse = Warehouse.at(settings.home)
    run_id = f"curate-{uuid.uuid4().hex[:12]}"
    tree_ids = trees_of(warehouse, settings.task)
    record_run(warehouse, run_id, "curate", task=settings.task, params=settings.params())
    if _has_lost_questions(warehouse, settings.task):
        add_lost_ids(warehouse, settings.task)
    todo = find_uncurated(warehouse, tree_ids, filters)
    await curate_in_batches(warehouse, run_id, todo, filters, step)
    await step(filter_corpus)(warehouse, run_id, settings.task, filters)
    summary: Summary = await step(summarize)(warehouse, settings.task, tree_ids)
    extra: dict[str, Any] = dict(other_filters(warehouse, settings.task, run_id, settings.filters))
    if settings.publish:
        from warehouse.versions.selection import kept_statement
        from warehouse.versions.versions import publish

        version = await asyncio.to_thread(
            publish, warehouse, settings.publish, kept_statement(settings.task)
        )
        extra["dataset"] = version.ref
    return replace(summary, run_id=run_id, extra=extra)


def read_filters(path: str | None) -> tuple[Filter, ...]:
    """Read the filters of a file; the default ones without a file.

    Raises:
        Problem: the file, the entry and the field that is wrong.
    """
    try:
        return load_filters(path) if path else DEFAULT_FILTERS
    except FilterProblem as problem:
        raise Problem(str(problem)) from None


def other_filters(warehouse: Warehouse, task: str, run_id: str, path: str | None) -> dict[str, str]:
    """Remark that the run before chose other filters, whose verdicts this run has replaced."""
    runs = query_trusted(
        warehouse,
        "SELECT run_id, json_extract_string(params, '$.filters') AS path FROM runs "
        f"WHERE task = {quoted(task)} AND kind IN ('build', 'curate') ORDER BY created_at DESC",
    ).to_pylist()
    if all(run["path"] == path for run in runs):
        return {}  # as nearly always: the many verdicts need not be read
    wrote = set(
        query_trusted(warehouse, "SELECT DISTINCT run_id FROM verdicts")["run_id"].to_pylist()
    )
    earlier = (run["path"] for run in runs if run["run_id"] in wrote - {run_id})
    before = next(earlier, path)
    if run_id not in wrote or before == path:
        return {}
    known, used = (f"those of {name}" if name else "the default ones" for name in (before, path))
    again = f"; --filters {before} applies them again" if before else ""
    return {"filters": f"the filters were {used}; the run before applied {known}{again}"}


def trees_of(warehouse: Warehouse, task: str) -> list[str]:
    """List the ids of a task's trees.

    Raises:
        Problem: there are none.
    """
    rows = query_trusted(
        warehouse, f"SELECT tree_id FROM trees WHERE task = {quoted(task)} ORDER BY 1"
    )
    tree_ids: list[str] = rows["tree_id"].to_pylist()
    if not tree_ids:
        raise Problem(
            f"there are no trees of task {task!r} in {warehouse.root}; "
            f"make some with `vigorl build {task}`"
        )
    return tree_ids


def _has_lost_questions(warehouse: Warehouse, task: str) -> bool:
    """Whether a tree names a question by an id that no row has, as older code left them."""
    found = query_trusted(
        warehouse,
        "SELECT tree_id FROM trees ANTI JOIN questions USING (question_id) "
        f"WHERE task = {quoted(task)} LIMIT 1",
    )
    return bool(found.num_rows)


async def curate_trees(
    warehouse: Warehouse,
    run_id: str,
    tree_ids: Sequence[str],
    filters: Sequence[Filter] = DEFAULT_FILTERS,
) -> int:
    """Cut traces from committed trees, filter them, commit both; return how many are new."""
    return await asyncio.to_thread(_curate_trees, warehouse, run_id, tree_ids, filters)


async def curate_in_batches(
    warehouse: Warehouse,
    run_id: str,
    tree_ids: Sequence[str],
    filters: Sequence[Filter],
    step: Callable[[Stage], Stage] = lambda stage: stage,
) -> None:
    """Curate trees, `CURATION_BATCH` at a time, each batch a step."""
    for start in range(0, len(tree_ids), CURATION_BATCH):
        some = tree_ids[start : start + CURATION_BATCH]
        await step(curate_trees)(warehouse, run_id, some, filters)


@dataclass(slots=True)
class Cut:
    """Traces cut from trees, with all rows that belong to them."""

    traces: list[Trace] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    """Rows of `traces`, in the same order."""
    steps: list[Row] = field(default_factory=list)
    behaviors: list[Row] = field(default_factory=list)
    verdicts: Verdicts = field(default_factory=dict)


def _curate_trees(
    warehouse: Warehouse, run_id: str, tree_ids: Sequence[str], filters: Sequence[Filter]
) -> int:
    cut = cut_trees(warehouse, find_uncurated(warehouse, tree_ids, filters), filters)
    first = changed_rows(cut.verdicts, Stored(), None, run_id)
    commit = commit_traces(warehouse, cut.rows, steps=cut.steps, verdicts=first, run_id=run_id)
    # Traces the warehouse has are left out of the commit; new verdicts on them are not.
    ahead = 0
    while commit.already_there:
        stored = stored_verdicts(warehouse, None, trace_ids=list(cut.verdicts))
        rows = changed_rows(cut.verdicts, stored, None, run_id, ahead)
        if not rows or insert_new(warehouse, "verdicts", rows, whole=True):
            break
        ahead += 1  # another process was faster
    insert_new(warehouse, "behaviors", [{**b, "run_id": run_id} for b in cut.behaviors])
    return commit.added


def find_uncurated(
    warehouse: Warehouse, tree_ids: Sequence[str], filters: Sequence[Filter]
) -> list[str]:
    """List trees with a trace that this code and these filters have not cut or judged."""
    wanted = {one.name: one.method for one in trace_filters(filters, None)}
    curated = _asked_of(
        warehouse,
        tree_ids,
        f"""
        WITH cut AS (
            SELECT tree_id, trace_id FROM traces SEMI JOIN _asked USING (tree_id)
            JOIN trees USING (tree_id)
            WHERE linearizer = CASE WHEN trees.crops IS NULL THEN {quoted(linearize.MAKER)}
                ELSE {quoted(linearize.ZOOM_MAKER)} END
        ),
        judged AS ({_judged_by(wanted.items(), len(wanted))}),
        counted AS (
            SELECT DISTINCT trace_id, true AS counted FROM behaviors SEMI JOIN cut USING (trace_id)
            WHERE method = {quoted(behaviors.METHOD)}
        )
        SELECT tree_id FROM cut
        LEFT JOIN judged USING (trace_id)
        LEFT JOIN counted USING (trace_id)
        GROUP BY tree_id HAVING bool_and(coalesce(same AND counted, false))
        """,
    )
    return sorted(set(tree_ids).difference(tree_id for (tree_id,) in curated))


async def refilter(
    warehouse: Warehouse,
    run_id: str,
    task: str,
    filters: Sequence[Filter],
    step: Callable[[Stage], Stage] = lambda stage: stage,
) -> None:
    """Judge a task's traces anew that other filters judged: what is kept follows from one set.

    A build applies its filters to its own trees, and those of the second stage to all of the task.
    Other values make a filter another one; newer code does not: that is for `curate`.
    """
    left = await asyncio.to_thread(_trees_judged_otherwise, warehouse, task, filters)
    await curate_in_batches(warehouse, run_id, left, filters, step)


def _trees_judged_otherwise(
    warehouse: Warehouse, task: str, filters: Sequence[Filter]
) -> list[str]:
    """List a task's trees with a trace whose newest verdicts are not those of these filters."""
    wanted = {one.name: one.method for one in trace_filters(filters, None)}
    stored = _first_stage(warehouse)
    alike = {
        (name, method)
        for name, method, _ in stored
        if name in wanted and not describe_change(name, method, wanted[name])
    }
    counts = Counter(dict.fromkeys(wanted, 0))
    for name, _, judged in stored:
        counts[name] += judged
    # Nearly always each filter has judged as many traces as each other, with these values.
    if len(alike) == len(stored) and len(set(counts.values())) <= 1:
        return []
    found = query_trusted(
        warehouse,
        f"""
        WITH cut AS (
            SELECT tree_id, trace_id FROM latest_traces
            WHERE task = {quoted(task)} AND tree_id IS NOT NULL
        )
        SELECT DISTINCT tree_id FROM ({_judged_by(sorted(alike), len(wanted))})
        JOIN cut USING (trace_id) WHERE NOT same ORDER BY 1
        """,
    )
    return [str(tree_id) for tree_id in found["tree_id"].to_pylist()]


_METHOD = "coalesce(method, 'rules/' || version)"


def _first_stage(warehouse: Warehouse) -> list[tuple[str, str, int]]:
    """Return each filter of the first stage with each of its methods, and its verdicts by it."""
    with connect_trusted(warehouse, ["verdicts"]) as con:
        return con.execute(
            f"SELECT filter, {_METHOD}, count(*) FROM verdicts WHERE stage IS NULL AND "
            "filter <> '(none)' GROUP BY 1, 2"
        ).fetchall()


def _judged_by(methods: Iterable[tuple[str, str]], filters: int) -> str:
    """Return the statement that tells of each trace of the table `cut` whether its newest verdicts
    of the first stage are by that many filters, each with one of these methods (`same`).

    Grouped, not sorted as in latest_verdicts: that spills to disk.
    """
    same = " OR ".join(
        f"(filter = {quoted(name)} AND {_METHOD} = {quoted(method)})" for name, method in methods
    )
    return f"""
        SELECT trace_id, max_by(same AND n = {max(1, filters)}, version) AS same FROM (
            SELECT
                trace_id, version, bool_and({same or "filter = '(none)'"}) AS same, count(*) AS n
            FROM verdicts SEMI JOIN cut USING (trace_id)
            WHERE stage IS NULL GROUP BY trace_id, version
        ) GROUP BY trace_id
    """


def _asked_of(warehouse: Warehouse, tree_ids: Sequence[str], sql: str) -> list[tuple[Any, ...]]:
    """Run a statement that finds these trees in the table `_asked`."""
    with connect_trusted(warehouse, named_in(sql)) as con:
        con.register("_asked", pa.table({"tree_id": pa.array(tree_ids, pa.string())}))
        return list(con.execute(sql).fetchall())


def cut_trees(warehouse: Warehouse, tree_ids: Sequence[str], filters: Sequence[Filter]) -> Cut:
    """Cut the traces of these trees, with the verdicts of the first stage; nothing is written."""
    cut = Cut()
    trees = list(read_trees(warehouse, tree_ids))
    seen = read_objects(warehouse, [i.image_id for tree, _ in trees for i in tree.question.images])
    applied = trace_filters(filters, None)
    for tree, row in trees:
        question = tree.question
        objects = [seen.get(image.image_id) for image in question.images]
        pixels = Frame.of(CoordinateSpace.original(), question)
        for trace in linearize.linearize(tree):
            text = render(trace.steps, trace.answer, pixels)
            grounded = [found.grounded for found in grounding.check(trace, objects)]
            asked = crops.asked_boxes(question, objects)
            trace_row, step_rows = trace_rows(
                trace,
                task=question.task,
                text=text,
                model=row["model"],
                grounded=grounded,
                question=question,
                shows_asked=[crops.shows_asked(step.observation, asked) for step in trace.steps],
            )
            cut.traces.append(trace)
            cut.rows.append(trace_row)
            cut.steps += step_rows
            verdicts = apply_filters(trace, question, applied, Context(objects))
            methods = {one.name: one.method for one in applied}
            cut.verdicts[trace.trace_id] = {
                v.filter: as_row(v, methods[v.filter]) for v in verdicts
            }
            counts = behaviors.count_behaviors(trace, question, grounded)
            cut.behaviors += behavior_rows(trace.trace_id, counts, behaviors.METHOD)
    return cut


async def summarize(warehouse: Warehouse, task: str, tree_ids: Sequence[str]) -> Summary:
    """Count what the warehouse holds of these searches."""

    def count() -> Summary:
        ((trees, right, failed, traces, kept),) = _asked_of(
            warehouse,
            tree_ids,
            "FROM (SELECT count(*), count(*) FILTER (any_right), "
            "count(*) FILTER (status = 'failed') FROM trees SEMI JOIN _asked USING (tree_id)) "
            f"CROSS JOIN ({_COUNT_KEPT})",
        )
        return Summary(
            task=task,
            questions=len(tree_ids),
            trees=trees,
            right=right,
            failed=failed,
            traces=traces,
            kept=kept,
        )

    return await asyncio.to_thread(count)


# As in the views latest_traces and kept_traces, of the traces of some trees alone.
_COUNT_KEPT = """
WITH newest AS (
    SELECT trace_id FROM (
        SELECT trace_id, tree_id, linearizer FROM traces SEMI JOIN _asked USING (tree_id)
    )
    QUALIFY linearizer IS NOT DISTINCT FROM max_by(
        linearizer, try_cast(split_part(linearizer, '/', 2) AS INT)
    ) OVER (PARTITION BY tree_id)
),
stages AS (
    SELECT trace_id, max_by(dropped, version) AS dropped, max_by(n, version) AS n FROM (
        SELECT
            trace_id, stage, version, count(*) FILTER (filter <> '(none)') AS n,
            count(*) FILTER (filter <> '(none)' AND NOT keep) AS dropped
        FROM verdicts SEMI JOIN newest USING (trace_id) GROUP BY trace_id, stage, version
    ) GROUP BY trace_id, stage
)
SELECT (SELECT count(*) FROM newest), count(*) FROM (
    SELECT trace_id FROM stages GROUP BY trace_id HAVING sum(dropped) = 0 AND sum(n) > 0
)
"""
