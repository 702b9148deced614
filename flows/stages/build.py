"""A build of traces, as a plain function: the same under a command and under Prefect.

    summary = await build(BuildSettings(task="sat2", limit=24))
    print(summary.sentence())

A shard of questions is committed and curated before the next one is, whose searches begin as soon
as there is room for them. What is committed or journaled is never asked again: killed anywhere and
started again with the same settings, a build goes on where it was. So does one that its budget
stopped. The stages themselves are in `flows.stages.search` and `flows.stages.curate`; a shard is
run by `flows.stages.shards.worker`, in this process or, with the setting `on`, in others.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from flows.progress import Progress
from flows.settings import BuildSettings
from flows.settings_base import Problem
from flows.stages.corpus.passes import filter_corpus
from flows.stages.curate import Summary, other_filters, read_filters, refilter, summarize
from flows.stages.failures import describe_failures
from flows.stages.run_budget import RunBudget, describe_cost, describe_stop, spent_on
from flows.stages.search import (
    Search,
    ShardTurn,
    committed,
    name_searches,
    overlapping,
    search_config,
)
from flows.stages.shards.elsewhere import cut_shards, run_elsewhere
from flows.stages.shards.shard import Shard, ShardOutcome
from flows.stages.shards.worker import ShardWorker
from flows.stages.unread_places import describe_unread
from flows.teachers.resolve import resolve
from flows.teachers.trained import name_once
from mcts.budget import Budget
from mcts.data import Question
from mcts.journal.journal import Journal
from mcts.teachers.checkpoints import find_checkpoint
from mcts.teachers.identities import members
from warehouse.query.run_query import connect_trusted
from warehouse.sources import task_of
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import record_run
from warehouse.tables.rows import read_questions

Stage = Callable[..., Awaitable[Any]]
Step = Callable[[Stage], Stage]


def plain(stage: Stage) -> Stage:
    """Run a stage as it is; a flow passes one that makes a Prefect task of it."""
    return stage


async def build(
    settings: BuildSettings,
    *,
    progress: Progress | None = None,
    step: Step = plain,
    question_ids: Sequence[str] | None = None,
) -> Summary:
    """Search a task's questions, curate the trees, and sum up the outcome.

    Args:
        question_ids: search these of them alone.
    """
    progress, settings = progress or Progress(), name_once(settings)
    filters = read_filters(settings.filters)
    warehouse = Warehouse.at(settings.home)
    resolved = resolve(settings, reconnect=True)
    config = search_config(settings, resolved)
    questions = by_image(await step(find_questions)(warehouse, settings, progress, question_ids))
    run_id = f"build-{uuid.uuid4().hex[:12]}"
    try:
        await resolved.teacher.open()
        record_run(warehouse, run_id, "build", task=settings.task, params=settings.params())
        identity = resolved.teacher.identity
        searches = name_searches(warehouse, settings, questions, config, identity)
        done = committed(warehouse, [s.tree_id for s in searches])
        shards = cut_shards(searches, settings, run_id, warehouse)
        if settings.on == "here":
            progress.start(len(searches), len(done), resolved.teacher)
            missing = len(searches) - len(done)
            with Journal(warehouse.journal_dir, store=warehouse.journal_store) as journal:
                worker = ShardWorker(
                    warehouse, settings, config, filters, resolved.teacher, journal, missing
                )
                outcome = await _run_here(worker, shards, searches, settings, progress, step)
            for path in journal.damage:
                progress.report(f"{path}: a broken line of the journal was skipped")
        else:
            progress.start(len(searches), len(done), None)
            outcome = await run_elsewhere(shards, settings, progress)
        there = outcome.tree_ids
        await refilter(warehouse, run_id, settings.task, filters, step)
        await step(filter_corpus)(warehouse, run_id, settings.task, filters)
        summary = await step(summarize)(warehouse, settings.task, there)
        spent = await asyncio.to_thread(spent_on, warehouse, there)
        extra = _remarks(settings, outcome, spent, summary.kept, bool(config.zoom))
        extra |= await asyncio.to_thread(_what_went_wrong, warehouse, there, settings.space)
        extra |= other_filters(warehouse, settings.task, run_id, settings.filters)
        extra |= _stop(settings, outcome.stopped_by, len(there), len(searches))
        requests, replayed = outcome.requested, outcome.replayed
        return replace(summary, requests=requests, replayed=replayed, run_id=run_id, extra=extra)
    finally:
        progress.close()
        await resolved.teacher.close()


async def _run_here(
    worker: ShardWorker,
    shards: Iterable[Shard],
    searches: Sequence[Search],
    settings: BuildSettings,
    progress: Progress,
    step: Step,
) -> ShardOutcome:
    """Run the shards in this process, two of them at once at most."""
    budget = RunBudget(Budget(settings.run_tokens, settings.run_requests), settings.run_seconds)
    outcome = ShardOutcome()
    by_name = {search.tree_id: search for search in searches}

    async def work(shard: Shard, turn: ShardTurn) -> None:
        mine = [by_name[name] for name in shard.tree_ids]
        outcome.tree_ids += await worker.run(shard, budget, progress, turn, step, mine)

    await overlapping(shards, work, settings.concurrency)
    worker.count(outcome)
    outcome.stopped_by = budget.stopped_by
    return outcome


def _what_went_wrong(
    warehouse: Warehouse, tree_ids: Sequence[str], space: str | None
) -> dict[str, str]:
    said = {
        "failures": describe_failures(warehouse, tree_ids),
        "unread": describe_unread(warehouse, tree_ids, space),
    }
    return {name: sentence for name, sentence in said.items() if sentence}


def _stop(
    settings: BuildSettings, reason: str | None, searched: int, wanted: int
) -> dict[str, str]:
    if not reason:
        return {}
    return {"stopped": describe_stop(reason, getattr(settings, f"run_{reason}"), searched, wanted)}


def _remarks(
    settings: BuildSettings,
    outcome: ShardOutcome,
    spent: dict[str, Any],
    kept: int,
    zooms: bool,
) -> dict[str, str]:
    prices = settings.price_in, settings.price_out
    remarks = {"cost": describe_cost(spent, kept, *prices, estimated=outcome.estimated)}
    why = "" if zooms else task_of(settings.task).smoke_test_only
    if why and any(find_checkpoint(name) for name in members(settings.teacher)):
        remarks["remark"] = f"smoke test only: these traces show that everything runs ({why})"
    if outcome.prefetched[0]:
        remarks["prefetch"] = (
            f"not counted above: {outcome.prefetched[0]} requests were prefetched and not used "
            f"({outcome.prefetched[1]} tokens written)"
        )
    return remarks


def searched_questions(warehouse: Warehouse, task: str) -> frozenset[str]:
    """Return the ids of a task's questions that have a tree, whoever made it."""
    with connect_trusted(warehouse, ["trees", "questions"]) as con:
        rows = con.sql(
            "SELECT DISTINCT question_id FROM trees JOIN questions USING (question_id) "
            "WHERE questions.task = $1",
            params=[task],
        ).fetchall()
    return frozenset(question_id for (question_id,) in rows)


def by_image(questions: Sequence[Question]) -> list[Question]:
    """Sort questions by image: a server keeps what it has read of one cached only so long."""
    return sorted(questions, key=lambda q: ([i.image_id for i in q.images], q.question_id))


async def find_questions(
    warehouse: Warehouse,
    settings: BuildSettings,
    progress: Progress,
    question_ids: Sequence[str] | None = None,
) -> list[Question]:
    """Return the questions to search, in the order of their ids.

    A task that has none yet, but an embedded sample, is given the sample.

    Raises:
        Problem: there are none.
    """

    def read() -> list[Question]:
        limit = None if settings.only_new else settings.limit
        found = list(
            read_questions(
                warehouse, settings.task, split=settings.split, limit=limit,
                question_ids=question_ids,
            )
        )  # fmt: skip
        if settings.only_new:
            searched = searched_questions(warehouse, settings.task)
            found = [q for q in found if q.question_id not in searched][: settings.limit]
        return found

    questions = await asyncio.to_thread(read)
    if not questions:
        from warehouse.sources.importing import import_sample

        report = await asyncio.to_thread(import_sample, warehouse, settings.task)
        if report:
            progress.report(
                f"no {settings.task} questions were in the warehouse: the embedded sample was "
                f"imported ({report.added} questions)"
            )
            questions = await asyncio.to_thread(read)
    if not questions:
        every = read_questions(warehouse, settings.task)
        others = {question.split for question in every} - {settings.split}
        there = f"there are those of {' and '.join(sorted(others))} (--split)" if others else ""
        raise Problem(
            f"there are no questions of task {settings.task!r}, split {settings.split!r}, in "
            f"{warehouse.root}; "
            + (there or f"import some with `vigorl import {settings.task} PATH`")
        )
    return questions
