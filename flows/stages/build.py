"""Building traces, as a plain function: the same under a command and under Prefect.

    summary = await build(BuildSettings(task="sat2", limit=24))
    print(summary.sentence())

A shard of questions is committed and curated before the next one is, whose searches begin as soon
as there is room for them. What is committed or journaled is never asked again: killed anywhere and
started again with the same settings, a build goes on where it was. So does one that its budget
stopped. The stages themselves are in `flows.stages.search` and `flows.stages.curate`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from flows.settings import BuildSettings, Problem
from flows.stages.curate import Summary, curate_trees, summarize
from flows.stages.curate_corpus import judge_corpus
from flows.stages.progress import Progress, Quiet
from flows.stages.run_budget import Purse, spent_on, told_cost, told_stop
from flows.stages.search import (
    Search,
    Teaching,
    Turn,
    committed,
    name_searches,
    overlapping,
    renamed_failures,
    search_config,
    search_shard,
)
from flows.teachers.resolve import ChosenTeacher, choose_teacher, patient
from mcts.budget import Budget
from mcts.data import Question
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.teachers.checkpoints import find_checkpoint
from warehouse.sources import task_of
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import record_run
from warehouse.tables.rows import read_questions

Stage = Callable[..., Awaitable[Any]]


def plain(stage: Stage) -> Stage:
    """Run a stage as it is; a flow passes one that makes a Prefect task of it."""
    return stage


async def build(
    settings: BuildSettings,
    *,
    progress: Progress | None = None,
    step: Callable[[Stage], Stage] = plain,
) -> Summary:
    """Search a task's questions, curate the trees, and say what came of it."""
    progress = progress or Quiet()
    warehouse = Warehouse.at(settings.home)
    chosen = teacher_of(settings)
    config = search_config(settings, chosen)
    questions = by_picture(await step(find_questions)(warehouse, settings, progress))
    run_id = f"build-{uuid.uuid4().hex[:12]}"
    try:
        await chosen.teacher.open()
        record_run(warehouse, run_id, "build", task=settings.task, params=settings.model_dump())
        searches = name_searches(questions, config, settings.seed, chosen.teacher.identity)
        if settings.retry_failed:
            searches = renamed_failures(warehouse, searches)
        done = committed(warehouse, [s.tree_id for s in searches])
        progress.start(len(searches), len(done), chosen.teacher)
        asked = replayed = 0
        with Journal(warehouse.journal_dir) as journal:
            asking = JournaledTeacher(chosen.teacher, journal)
            teaching = Teaching(chosen.teacher.identity, asking, journal)
            purse = Purse(Budget(settings.run_tokens, settings.run_requests), settings.run_seconds)
            there: list[str] = []

            async def work(shard: list[Search], turn: Turn) -> None:
                names = [s.tree_id for s in shard]
                purse.open(names, done)
                missing = [s for s in shard if s.tree_id not in done]
                ids = [name for name in names if name in done]
                if missing and not purse.stopped_by:
                    ids += await step(search_shard)(
                        warehouse, run_id, missing, config, settings, teaching, purse, progress,
                        turn,
                    )  # fmt: skip
                await turn.before.wait()
                if ids:
                    await step(curate_trees)(warehouse, run_id, ids)
                there.extend(ids)
                purse.close(names)

            size = settings.shard
            shards = (searches[i : i + size] for i in range(0, len(searches), size))
            await overlapping(shards, work, settings.concurrency)
            asked, replayed = asking.asked, asking.replayed
        for path in journal.damage:
            progress.say(f"{path}: a broken line of the journal was skipped")
        await step(judge_corpus)(warehouse, run_id, settings.task)
        summary = await step(summarize)(warehouse, settings.task, there)
        spent = await asyncio.to_thread(spent_on, warehouse, there)
        extra = {"cost": told_cost(spent, summary.kept, settings.price_in, settings.price_out)}
        if find_checkpoint(settings.teacher) and (why := task_of(settings.task).plumbing):
            extra["remark"] = f"plumbing: these traces show that everything runs, no more ({why})"
        if vain := teaching.vain.requests:
            extra["ahead"] = (
                f"not counted above: {vain} requests were asked ahead of their turn and not needed "
                f"({teaching.vain.completion_tokens} tokens written)"
            )
        if reason := purse.stopped_by:
            limit = getattr(settings, f"run_{reason}")
            extra["stopped"] = told_stop(reason, limit, len(there), len(searches))
        return replace(summary, asked=asked, replayed=replayed, run_id=run_id, extra=extra)
    finally:
        progress.close()
        await chosen.teacher.close()


def by_picture(questions: Sequence[Question]) -> list[Question]:
    """Questions about one picture side by side: a server has it read and cached only so long."""
    return sorted(questions, key=lambda q: ([i.image_id for i in q.images], q.question_id))


def teacher_of(settings: BuildSettings) -> ChosenTeacher:
    """The teacher the settings name, not opened yet.

    Raises:
        Problem: it is not there, or its coordinates are not known.
    """
    chosen = choose_teacher(
        settings.teacher,
        model=settings.model,
        space=settings.space,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        revision=settings.revision,
        timeout_s=settings.timeout,
        concurrency=settings.concurrency,
        home=settings.home,
    )
    return patient(chosen, settings.teacher)


async def find_questions(
    warehouse: Warehouse, settings: BuildSettings, progress: Progress
) -> list[Question]:
    """The questions to search, in the order of their ids.

    A task that has none yet, but an embedded sample, is given the sample.

    Raises:
        Problem: there are none.
    """

    def read() -> list[Question]:
        found = read_questions(warehouse, settings.task, split=settings.split, limit=settings.limit)
        return list(found)

    questions = await asyncio.to_thread(read)
    if not questions:
        from warehouse.sources.samples import import_sample

        report = await asyncio.to_thread(import_sample, warehouse, settings.task)
        if report:
            progress.say(
                f"no {settings.task} questions were in the warehouse: the embedded sample was "
                f"imported ({report.added} questions)"
            )
            questions = await asyncio.to_thread(read)
    if not questions:
        raise Problem(
            f"there are no questions of task {settings.task!r}, split {settings.split!r}, in "
            f"{warehouse.root}; import some with `vigorl import {settings.task} PATH`"
        )
    return questions
