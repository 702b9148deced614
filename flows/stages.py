"""The stages of building traces, as plain functions: the same under a command and under Prefect.

    summary = await build(BuildSettings(task="sat2", limit=24))
    print(summary.sentence())

A shard of questions is searched, committed and curated before the next one begins, and what is
committed or journaled is never asked again: killed anywhere and started again with the same
settings, a build goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from curation import filters, linearize
from curation.grading import grade
from flows.settings import BuildSettings, CurateSettings, Problem
from flows.teachers import ChosenTeacher, choose_teacher
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Question
from mcts.journal import Journal, JournaledTeacher
from mcts.parsing import render
from mcts.policy import TeacherPolicy
from mcts.prompts import load_prompt
from mcts.search import SearchConfig, search, search_id
from mcts.tree import Node, Tree
from warehouse.catalog import query
from warehouse.home import Warehouse
from warehouse.reading import read_trees
from warehouse.rows import read_image, read_questions, trace_rows, verdict_row
from warehouse.tables import commit_traces, commit_trees, insert_new, record_run
from warehouse.tree_rows import search_rows

CURATION_BATCH = 64  # trees held in memory at once while they are curated


class Progress(Protocol):
    """Who is told how far a build is."""

    def start(self, total: int, already: int, teacher: Any) -> None:
        """`total` questions to answer for, `already` of them in the warehouse."""

    def tree(self, right: bool, failed: bool) -> None:
        """One more tree is complete."""

    def say(self, sentence: str) -> None:
        """Something a person would want to know."""

    def close(self) -> None: ...


class Quiet:
    """Tells nobody."""

    def start(self, total: int, already: int, teacher: Any) -> None: ...
    def tree(self, right: bool, failed: bool) -> None: ...
    def say(self, sentence: str) -> None: ...
    def close(self) -> None: ...


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
        failed = f" ({self.failed} failed)" if self.failed else ""
        return (
            f"{self.questions} questions searched{failed}, {self.right} trees with a right answer, "
            f"{self.kept} traces kept of {self.traces}"
        )


@dataclass(frozen=True, slots=True)
class Search:
    """One question's search, named."""

    question: Question
    tree_id: str


@dataclass(frozen=True, slots=True)
class Teaching:
    """A teacher that is open, behind its journal."""

    identity: str
    asking: JournaledTeacher
    journal: Journal


Step = Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]


def plain(stage: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Run a stage as it is; a flow passes one that makes a Prefect task of it."""
    return stage


async def build(
    settings: BuildSettings, *, progress: Progress | None = None, step: Step = plain
) -> Summary:
    """Search a task's questions, curate the trees, and say what came of it."""
    progress = progress or Quiet()
    warehouse = Warehouse(settings.home) if settings.home else Warehouse()
    chosen = choose_teacher(
        settings.teacher,
        model=settings.model,
        space=settings.space,
        concurrency=settings.concurrency,
    )
    config = search_config(settings, chosen)
    questions = await step(find_questions)(warehouse, settings, progress)
    run_id = f"build-{uuid.uuid4().hex[:12]}"
    try:
        await chosen.teacher.open()
        record_run(warehouse, run_id, "build", task=settings.task, params=settings.model_dump())
        searches = name_searches(questions, config, settings.seed, chosen.teacher.identity)
        done = committed(warehouse, [s.tree_id for s in searches])
        progress.start(len(searches), len(done), chosen.teacher)
        asked = replayed = 0
        with Journal(warehouse.journal_dir) as journal:
            asking = JournaledTeacher(chosen.teacher, journal)
            teaching = Teaching(chosen.teacher.identity, asking, journal)
            for start in range(0, len(searches), settings.shard):
                shard = searches[start : start + settings.shard]
                missing = [s for s in shard if s.tree_id not in done]
                if missing:
                    await step(search_shard)(
                        warehouse, run_id, missing, config, settings, teaching, progress
                    )
                await step(curate_trees)(warehouse, run_id, [s.tree_id for s in shard])
            asked, replayed = asking.asked, asking.replayed
        for path in journal.damage:
            progress.say(f"{path}: a broken line of the journal was skipped")
        summary = await step(summarize)(warehouse, settings.task, [s.tree_id for s in searches])
        return replace(summary, asked=asked, replayed=replayed, run_id=run_id)
    finally:
        progress.close()
        await chosen.teacher.close()


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
        from warehouse.sources.embedded import import_sample

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


def search_config(settings: BuildSettings, chosen: ChosenTeacher) -> SearchConfig:
    """The part of the settings that decides a search's outcome, and so its name."""
    try:
        prompt = load_prompt(settings.prompt or chosen.prompt)
    except ValueError as error:
        raise Problem(f"prompt: {error}") from None
    return SearchConfig(
        space=chosen.space,
        prompt=prompt.name,
        prompt_digest=prompt.digest,
        simulations=settings.simulations,
        children=settings.children,
        rollouts=settings.rollouts,
        max_depth=settings.max_depth,
        exploration=settings.exploration,
        wave=settings.wave,
        temperature=settings.temperature,
        top_p=settings.top_p,
        step_tokens=settings.step_tokens or chosen.step_tokens,
    )


def name_searches(
    questions: Sequence[Question], config: SearchConfig, seed: int, teacher: str
) -> list[Search]:
    """Each question with the name of its search."""
    return [Search(q, search_id(q, config, seed, teacher)) for q in questions]


def committed(warehouse: Warehouse, tree_ids: Sequence[str]) -> set[str]:
    """Those of `tree_ids` that are in the warehouse already."""
    return {row["tree_id"] for row in _rows_of(warehouse, "SELECT tree_id FROM trees", tree_ids)}


async def search_shard(
    warehouse: Warehouse,
    run_id: str,
    searches: Sequence[Search],
    config: SearchConfig,
    settings: BuildSettings,
    teaching: Teaching,
    progress: Progress,
) -> int:
    """Search some questions side by side and commit their trees together; return how many."""
    slots = asyncio.Semaphore(settings.concurrency)

    async def one(wanted: Search) -> Tree:
        async with slots:
            tree = await search_one(warehouse, wanted, config, teaching)
        progress.tree(any(reward >= 1.0 for _, reward in tree.outcomes()), tree.failed)
        return tree

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(wanted)) for wanted in searches]
    except BaseExceptionGroup as several:
        # One tree met what concerns them all (no server, full disk); the rest were cancelled.
        raise several.exceptions[0] from None
    rows = [
        search_rows(
            task.result(),
            config,
            teaching.journal.records(wanted.tree_id),
            model=teaching.identity,
            seed=settings.seed,
        )
        for wanted, task in zip(searches, tasks, strict=True)
    ]
    commit = await asyncio.to_thread(
        commit_trees,
        warehouse,
        [r.tree for r in rows],
        responses=[row for r in rows for row in r.responses],
        nodes=[row for r in rows for row in r.nodes],
        rollouts=[row for r in rows for row in r.rollouts],
        run_id=run_id,
    )
    for wanted in searches:
        teaching.journal.forget(wanted.tree_id)
    return commit.added


async def search_one(
    warehouse: Warehouse, wanted: Search, config: SearchConfig, teaching: Teaching
) -> Tree:
    """Search one question; one whose picture is lost makes a failed tree that says so."""
    question = wanted.question
    try:
        images = {i.image_id: read_image(warehouse, i.image_id) for i in question.images}
    except KeyError as lost:
        reason = f"image {lost.args[0]} is not among the warehouse's objects"
        return Tree(wanted.tree_id, question, Node(0, "", None), errors=(reason,))
    policy = TeacherPolicy(question, config, wanted.tree_id, teaching.asking, images)
    return await search(question, config, policy, grade, wanted.tree_id)


async def curate(
    settings: CurateSettings, *, progress: Progress | None = None, step: Step = plain
) -> Summary:
    """Linearize and judge every tree of a task that has not been, by the code as it is now."""
    progress = progress or Quiet()
    warehouse = Warehouse(settings.home) if settings.home else Warehouse()
    run_id = f"curate-{uuid.uuid4().hex[:12]}"
    record_run(warehouse, run_id, "curate", task=settings.task, params=settings.model_dump())
    rows = query(
        warehouse,
        f"SELECT tree_id FROM trees WHERE task = {_quoted(settings.task)} ORDER BY tree_id",
    )
    tree_ids = rows["tree_id"].to_pylist()
    if not tree_ids:
        raise Problem(
            f"there are no trees of task {settings.task!r} in {warehouse.root}; "
            f"make some with `vigorl build {settings.task}`"
        )
    for start in range(0, len(tree_ids), CURATION_BATCH):
        await step(curate_trees)(warehouse, run_id, tree_ids[start : start + CURATION_BATCH])
    summary: Summary = await step(summarize)(warehouse, settings.task, tree_ids)
    if settings.publish:
        from warehouse.versions import publish

        version = await asyncio.to_thread(
            publish, warehouse, settings.publish, kept_statement(settings.task)
        )
        summary = replace(summary, extra={"dataset": version.ref})
    return replace(summary, run_id=run_id)


def kept_statement(task: str) -> str:
    """The statement that chooses what every filter keeps: the plainest dataset of a task."""
    return (
        "SELECT trace_id FROM kept_traces JOIN questions USING (question_id) "
        f"WHERE kept_traces.task = {_quoted(task)} AND origin = 'search' AND split = 'train'"
    )


async def curate_trees(warehouse: Warehouse, run_id: str, tree_ids: Sequence[str]) -> int:
    """Cut traces from committed trees, judge them, commit both; return how many traces are new."""
    return await asyncio.to_thread(_curate_trees, warehouse, run_id, tree_ids)


def _curate_trees(warehouse: Warehouse, run_id: str, tree_ids: Sequence[str]) -> int:
    linearizer = f"linearize/{linearize.VERSION}"
    version = filters.VERSION
    judged = _rows_of(
        warehouse,
        "SELECT DISTINCT tree_id FROM traces JOIN verdicts USING (trace_id) "
        f"WHERE linearizer = '{linearizer}' AND version = '{version}'",
        tree_ids,
    )
    todo = sorted(set(tree_ids) - {row["tree_id"] for row in judged})
    traces, steps, verdicts = [], [], []
    for tree, row in read_trees(warehouse, todo):
        question = tree.question
        pixels = Frame(CoordinateSpace.original(), question.images)
        for trace in linearize.linearize(tree):
            text = render(trace.steps, trace.answer, pixels)
            trace_row, step_rows = trace_rows(
                trace, task=question.task, text=text, model=row["model"], linearizer=linearizer
            )
            traces.append(trace_row)
            steps += step_rows
            verdicts += [
                verdict_row(trace.trace_id, verdict, version)
                for verdict in filters.judge(trace, question, filters.FILTERS)
            ]
    # Traces the warehouse has are left out of the commit; a newer filter's verdicts are not.
    commit = commit_traces(warehouse, traces, steps=steps, verdicts=verdicts, run_id=run_id)
    if commit.already_there:
        insert_new(warehouse, "verdicts", [{**v, "run_id": run_id} for v in verdicts])
    return commit.added


async def summarize(warehouse: Warehouse, task: str, tree_ids: Sequence[str]) -> Summary:
    """Count what the warehouse holds of these searches."""

    def count() -> Summary:
        trees = _rows_of(warehouse, "SELECT tree_id, any_right, status FROM trees", tree_ids)
        traces = _rows_of(warehouse, "SELECT tree_id, trace_id FROM traces", tree_ids)
        kept = _rows_of(warehouse, "SELECT tree_id, trace_id FROM kept_traces", tree_ids)
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


def _rows_of(warehouse: Warehouse, sql: str, tree_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a statement whose `tree_id` is among `tree_ids`."""
    listed = ", ".join(_quoted(tree_id) for tree_id in tree_ids) or "NULL"
    found = query(warehouse, f"SELECT * FROM ({sql}) WHERE tree_id IN ({listed})")
    return list(found.to_pylist())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def as_json(summary: Summary) -> str:
    """A summary for machines."""
    from dataclasses import asdict

    return json.dumps(asdict(summary), sort_keys=True)
