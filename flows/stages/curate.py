"""Curating: committed trees become traces with verdicts, and a summary says what came of it.

    summary = await curate(CurateSettings(task="sat2", publish="sat2-sft"))

Trees are read back from the warehouse, so a build and a later curation see the same. What the
code as it is now has judged already is left alone.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from curation.filters import grounding
from curation.filters import rules as filters
from curation.scores import behaviors
from curation.traces import linearize
from flows.settings import CurateSettings, Problem
from flows.stages.curate_corpus import judge_corpus
from mcts.coordinates import CoordinateSpace, Frame
from mcts.parsing import render
from warehouse.query.catalog import query
from warehouse.query.read_back import read_trees, rows_about
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_traces, insert_new, record_run
from warehouse.tables.rows import behavior_rows, read_objects, trace_rows, verdict_row

CURATION_BATCH = 64  # trees held in memory at once

Stage = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a build, or a curation, came to."""

    task: str
    questions: int = 0
    """Questions asked for."""
    trees: int = 0
    """Trees of these questions in the warehouse, now or before."""
    right: int = 0
    """Of these, trees that found a right answer."""
    failed: int = 0
    """Of these, trees in which the teacher gave nothing usable."""
    traces: int = 0
    kept: int = 0
    """Traces every filter keeps."""
    asked: int = 0
    """Requests sent to the teacher this time."""
    replayed: int = 0
    """Requests answered from the journal this time."""
    run_id: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def sentence(self) -> str:
        """The summary in one sentence."""
        failed = f" ({self.failed} failed: --retry-failed tries again)" if self.failed else ""
        return (
            f"{self.questions} questions searched{failed}, {self.right} trees with a right answer, "
            f"{self.kept} traces kept of {self.traces}"
        )


async def curate(
    settings: CurateSettings, *, step: Callable[[Stage], Stage] = lambda stage: stage
) -> Summary:
    """Linearize and judge every tree of a task that has not been, by the code as it is now."""
    warehouse = Warehouse.at(settings.home)
    run_id = f"curate-{uuid.uuid4().hex[:12]}"
    rows = query(
        warehouse,
        f"SELECT tree_id FROM trees WHERE task = {quoted(settings.task)} ORDER BY tree_id",
    )
    tree_ids = rows["tree_id"].to_pylist()
    if not tree_ids:
        raise Problem(
            f"there are no trees of task {settings.task!r} in {warehouse.root}; "
            f"make some with `vigorl build {settings.task}`"
        )
    record_run(warehouse, run_id, "curate", task=settings.task, params=settings.model_dump())
    for start in range(0, len(tree_ids), CURATION_BATCH):
        await step(curate_trees)(warehouse, run_id, tree_ids[start : start + CURATION_BATCH])
    await step(judge_corpus)(warehouse, run_id, settings.task)
    summary: Summary = await step(summarize)(warehouse, settings.task, tree_ids)
    if settings.publish:
        from warehouse.versions.versions import publish

        version = await asyncio.to_thread(
            publish, warehouse, settings.publish, kept_statement(settings.task)
        )
        summary = replace(summary, extra={"dataset": version.ref})
    return replace(summary, run_id=run_id)


def kept_statement(task: str) -> str:
    """The statement that chooses what every filter keeps: the plainest dataset of a task."""
    return (
        "SELECT trace_id FROM kept_traces JOIN questions USING (question_id) "
        f"WHERE kept_traces.task = {quoted(task)} AND origin = 'search' AND split = 'train'"
    )


async def curate_trees(warehouse: Warehouse, run_id: str, tree_ids: Sequence[str]) -> int:
    """Cut traces from committed trees, judge them, commit both; return how many traces are new."""
    return await asyncio.to_thread(_curate_trees, warehouse, run_id, tree_ids)


def _curate_trees(warehouse: Warehouse, run_id: str, tree_ids: Sequence[str]) -> int:
    version = filters.VERSION
    judged = rows_about(
        warehouse,
        tree_ids,
        f"SELECT DISTINCT tree_id FROM traces WHERE linearizer = '{linearize.MAKER}' "
        f"AND trace_id IN (SELECT trace_id FROM verdicts WHERE version = {version} "
        "AND stage IS NULL) "
        f"AND trace_id IN (SELECT trace_id FROM behaviors WHERE method = '{behaviors.METHOD}')",
    )
    todo = sorted(set(tree_ids) - {row["tree_id"] for row in judged})
    trees = list(read_trees(warehouse, todo))
    seen = read_objects(warehouse, [i.image_id for tree, _ in trees for i in tree.question.images])
    traces, steps, verdicts, counts = [], [], [], []
    for tree, row in trees:
        question = tree.question
        objects = [seen.get(image.image_id) for image in question.images]
        asked = (*filters.FILTERS, grounding.points_on_their_objects(objects))
        pixels = Frame.of(CoordinateSpace.original(), question)
        for trace in linearize.linearize(tree):
            text = render(trace.steps, trace.answer, pixels)
            grounded = [found.grounded for found in grounding.check(trace, objects)]
            trace_row, step_rows = trace_rows(
                trace, task=question.task, text=text, model=row["model"], grounded=grounded
            )
            traces.append(trace_row)
            steps += step_rows
            verdicts += [
                verdict_row(trace.trace_id, verdict, version)
                for verdict in filters.judge(trace, question, asked)
            ]
            counted = behaviors.count_behaviors(trace, question, grounded)
            counts += behavior_rows(trace.trace_id, counted, behaviors.METHOD)
    # Traces the warehouse has are left out of the commit; a newer filter's verdicts are not.
    commit = commit_traces(warehouse, traces, steps=steps, verdicts=verdicts, run_id=run_id)
    if commit.already_there:
        insert_new(warehouse, "verdicts", [{**v, "run_id": run_id} for v in verdicts])
    insert_new(warehouse, "behaviors", [{**b, "run_id": run_id} for b in counts])
    return commit.added


async def summarize(warehouse: Warehouse, task: str, tree_ids: Sequence[str]) -> Summary:
    """Count what the warehouse holds of these searches."""

    def count() -> Summary:
        trees = rows_about(warehouse, tree_ids, "SELECT tree_id, any_right, status FROM trees")
        traces = rows_about(warehouse, tree_ids, "SELECT tree_id, trace_id FROM latest_traces")
        kept = rows_about(warehouse, tree_ids, "SELECT tree_id, trace_id FROM kept_traces")
        return Summary(
            task=task,
            questions=len(tree_ids),
            trees=len(trees),
            right=sum(bool(row["any_right"]) for row in trees),
            failed=sum(row["status"] == "failed" for row in trees),
            traces=len(traces),
            kept=len(kept),
        )

    return await asyncio.to_thread(count)
