"""Asking a model about traces that are there: `vigorl judge`, as a plain function.

    judged = await judge(JudgeSettings(task="sat2", what="behaviors", judge="http://gpu:8000"))
    print(judged.sentence())

Answers are journaled before they are used, under what was asked and not under who asked, so a step
that a hundred traces share is asked about once, and a run that was stopped goes on where it was.
What is stored already, by the same method, is left alone. A server that goes away is waited for.
A request that fails for good becomes a row without a value that says why; `retry_failed` asks it
again and puts the new rows of its trace in the place of the old.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation.scores import judge_prompts as judging
from curation.scores import necessity
from flows.settings import JudgeSettings, Problem
from flows.stages.judgements import Asking, count_behaviors, look_at_points, vary_steps
from flows.teachers.resolve import choose_teacher, patient
from mcts.data import Question, Trace
from mcts.journal.journal import Journal, JournaledTeacher
from warehouse.maintenance.delete import delete_rows
from warehouse.query.catalog import query
from warehouse.query.read_back import read_traces
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new, record_run
from warehouse.tables.rows import read_questions

BATCH = 16  # traces judged and committed together

Row = dict[str, Any]
Judge = Callable[[Asking, Sequence[tuple[Trace, Question]]], Awaitable[list[Row]]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing a model can be asked for."""

    table: str
    version: int
    methods: tuple[str, ...]
    """First words of the methods its rows have."""
    traces: str
    """SQL over traces of a task that can be judged so; `{done}` are the ids of those that are."""
    judge: Judge


KINDS = {
    "grounding": Kind(
        "step_scores", judging.VERSION, ("region",),
        "SELECT DISTINCT trace_id FROM kept_traces JOIN steps USING (trace_id) "
        "WHERE task = {task} AND x IS NOT NULL AND grounded IS NULL AND trace_id NOT IN ({done})",
        look_at_points,
    ),
    "behaviors": Kind(
        "behaviors", judging.VERSION, ("judge",),
        "SELECT trace_id FROM latest_traces WHERE task = {task} AND trace_id NOT IN ({done})",
        count_behaviors,
    ),
    "necessity": Kind(
        "step_scores", necessity.VERSION, necessity.METHODS,
        "SELECT trace_id FROM kept_traces WHERE task = {task} AND kind = 'direct' "
        "AND trace_id NOT IN ({done})",
        vary_steps,
    ),
}  # fmt: skip


@dataclass(slots=True)
class Judged:
    """What a run of `judge` came to."""

    traces: int = 0
    rows: int = 0
    """Scores or counts stored."""
    values: list[float] = field(default_factory=list)
    """Those that have a value."""
    asked: int = 0
    replayed: int = 0

    def sentence(self) -> str:
        """The outcome in one sentence."""
        if not self.traces:
            return "there is nothing left to judge"
        mean = f", {sum(self.values) / len(self.values):.3f} on average" if self.values else ""
        return (
            f"{self.traces} traces judged: {self.rows} rows, {len(self.values)} with a value{mean}"
        )


async def judge(
    settings: JudgeSettings, *, progress: Callable[[str], None] = lambda line: None
) -> Judged:
    """Put what the settings say to a model, for the traces of a task that have no answer yet.

    Raises:
        Problem: the task has no traces, or the model cannot be chosen.
        TeacherUnavailable: nobody answers; what was answered is kept.
    """
    warehouse = Warehouse.at(settings.home)
    kind = KINDS[settings.what]
    task = quoted(settings.task)
    if not query(warehouse, f"FROM traces WHERE task = {task} LIMIT 1").num_rows:
        raise Problem(f"there are no traces of task {settings.task!r} in {warehouse.root}")
    rolls = settings.what == "necessity"
    chosen = choose_teacher(
        settings.teacher if rolls else settings.judge or "",
        # A judge is told no coordinates and gives none, so any space will do.
        model=settings.model, space=settings.space if rolls else "original", home=settings.home,
        min_pixels=settings.min_pixels, max_pixels=settings.max_pixels,
        timeout_s=settings.timeout, concurrency=settings.concurrency,
    )  # fmt: skip
    chosen = patient(chosen, settings.teacher if rolls else settings.judge or "")
    run_id, judged = f"judge-{uuid.uuid4().hex[:12]}", Judged()
    try:
        await chosen.teacher.open()
        identity = chosen.teacher.identity
        methods = {name: f"{name}/{kind.version}:{identity}" for name in kind.methods}
        failed = _failed(warehouse, kind, methods.values()) if settings.retry_failed else set()
        trace_ids = _to_do(warehouse, kind, task, methods.values(), failed, settings.limit)
        if not trace_ids:
            return judged
        record_run(warehouse, run_id, "judge", task=settings.task, params=settings.model_dump())
        with Journal(warehouse.journal_dir / "judge") as journal:
            teacher = JournaledTeacher(chosen.teacher, journal)
            asking = Asking(warehouse, teacher, chosen, identity, methods, settings.samples,
                            asyncio.Semaphore(settings.concurrency), journal,
                            settings.retry_failed, time.time())  # fmt: skip
            for start in range(0, len(trace_ids), BATCH):
                some = trace_ids[start : start + BATCH]
                rows = await kind.judge(asking, await asyncio.to_thread(_read, warehouse, some))
                rows = [{**row, "run_id": run_id} for row in rows]
                if again := sorted(failed.intersection(some)):
                    where = (
                        f"{_listed('trace_id', again)} AND {_listed('method', methods.values())}"
                    )
                    await asyncio.to_thread(delete_rows, warehouse, kind.table, where)
                await asyncio.to_thread(insert_new, warehouse, kind.table, rows)
                judged.traces += len(some)
                judged.rows += len(rows)
                found = [row.get("count" if kind.table == "behaviors" else "value") for row in rows]
                judged.values += [float(value) for value in found if value is not None]
                judged.asked, judged.replayed = teacher.requested, teacher.replayed
                progress(f"{judged.traces} of {len(trace_ids)} traces, {teacher.requested} requests")
    finally:
        await chosen.teacher.close()
    return judged


def _failed(warehouse: Warehouse, kind: Kind, methods: Iterable[str]) -> set[str]:
    """Traces with a row by these methods that stands for a failed request."""
    where = f"error IS NOT NULL AND {_listed('method', methods)}"
    found = query(warehouse, f"SELECT DISTINCT trace_id FROM {kind.table} WHERE {where}")
    return set(found["trace_id"].to_pylist())


def _listed(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(map(quoted, values))})"


def _to_do(
    warehouse: Warehouse,
    kind: Kind,
    task: str,
    methods: Iterable[str],
    failed: Iterable[str],
    limit: int | None,
) -> list[str]:
    """Traces without a row by these methods, and the failed, in the order of their ids: a fair
    sample of all."""
    done = f"SELECT trace_id FROM {kind.table} WHERE {_listed('method', methods)}"
    if again := sorted(failed):
        done += f" AND NOT {_listed('trace_id', again)}"
    wanted = kind.traces.format(task=task, done=done)
    most = "" if limit is None else f"LIMIT {limit}"
    found = query(warehouse, f"SELECT trace_id FROM ({wanted}) ORDER BY trace_id {most}")
    return [str(trace_id) for trace_id in found["trace_id"].to_pylist()]


def _read(warehouse: Warehouse, trace_ids: Sequence[str]) -> list[tuple[Trace, Question]]:
    traces = [trace for trace, _ in read_traces(warehouse, trace_ids)]
    asked = read_questions(warehouse, question_ids=list({trace.question_id for trace in traces}))
    questions = {question.question_id: question for question in asked}
    return [(trace, questions[trace.question_id]) for trace in traces]
