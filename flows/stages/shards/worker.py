"""What a process needs to run shards, and the one way in which a shard is run, here or elsewhere.

    worker = ShardWorker(warehouse, settings, config, filters, teacher, journal, questions=64)
    outcome = await worker.run(shard, budget, progress)       # the build's own process

    process = WorkerProcess()                                 # any other, on any machine
    text = await process.run(shard.text())                    # a ShardOutcome as JSON
    await process.close()

A shard is searched under a lease, from what the journal has of it, whoever wrote that: so a shard
of a lost worker goes on from its last response, and of two workers on one shard the second finds
it done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from curation.filters.base import Filter
from flows.progress import Progress
from flows.settings import BuildSettings
from flows.settings_base import Problem
from flows.stages.curate import curate_trees, read_filters
from flows.stages.run_budget import RunBudget
from flows.stages.search import (
    OpenTeacher,
    Search,
    ShardTurn,
    committed,
    search_config,
    search_shard,
)
from flows.stages.shards.shard import Shard, ShardOutcome
from flows.teachers.resolve import resolve
from mcts.config import SearchConfig, search_id
from mcts.data import content_id
from mcts.journal.journal import Journal, JournaledTeacher, JournalError, JournalMismatch
from mcts.teachers.base import Teacher, TeacherUnavailable
from mcts.teachers.shared_refusal import SharedRefusal
from warehouse.storage.failures import describe
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.lease import LeaseHeld, take_lease
from warehouse.storage.objects import UnsafeStore
from warehouse.tables.rows import read_questions

TERM_S = 60.0
"""Seconds after which another machine takes over a shard whose worker is gone."""
_LOOK_S = 0.5
_MOST_RETRIES = 100  # of a failed search, each under a name of its own

Stage = Callable[..., Awaitable[Any]]


class ShardWorker:
    """Runs shards of one run with one teacher.

    Args:
        teacher: it is open.
        questions: how many are searched with it, for `SharedRefusal`.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        settings: BuildSettings,
        config: SearchConfig,
        filters: Sequence[Filter],
        teacher: Teacher,
        journal: Journal,
        questions: int,
    ) -> None:
        self._warehouse, self._settings, self._config = warehouse, settings, config
        self._filters, self._teacher = filters, teacher
        self._counted: tuple[int, ...] = (0, 0, 0, 0, 0)
        refusals = SharedRefusal(settings.refusals, questions)
        self.opened = OpenTeacher(
            teacher.identity, JournaledTeacher(teacher, journal, refusals=refusals), journal
        )

    async def run(
        self,
        shard: Shard,
        budget: RunBudget,
        progress: Progress,
        turn: ShardTurn | None = None,
        step: Callable[[Stage], Stage] = lambda stage: stage,
        searches: Sequence[Search] = (),
    ) -> list[str]:
        """Search, commit and curate a shard; return its trees that are in the warehouse.

        Args:
            turn: its place among shards that overlap in this process.
            searches: the shard's, where this process made them; read and checked when left out.

        Raises:
            Problem: this process would search otherwise than the one that made the shard.
        """
        warehouse, names = self._warehouse, list(shard.tree_ids)
        async with AsyncExitStack() as held:
            done = await asyncio.to_thread(committed, warehouse, names)
            if len(done) < len(names) and not budget.stopped_by:
                if await held.enter_async_context(_alone(warehouse, shard, progress)):
                    done = await asyncio.to_thread(committed, warehouse, names)
                await self.opened.journal.refresh()
            budget.begin(names, done)
            ids = [name for name in names if name in done]
            if len(done) < len(names) and not budget.stopped_by:
                searches = searches or await asyncio.to_thread(self._searches, shard)
                ids += await step(search_shard)(
                    warehouse, shard.run_id, [s for s in searches if s.tree_id not in done],
                    self._config, self._settings, self.opened, budget, progress, turn,
                )  # fmt: skip
            if turn:
                await turn.before.wait()
            if ids:
                await step(curate_trees)(warehouse, shard.run_id, ids, self._filters)
            budget.end(names)
        return ids

    def count(self, outcome: ShardOutcome) -> None:
        """Add what was asked since the last count."""
        asked, unused = self.opened.teacher, self.opened.unused_prefetch
        counts = (
            asked.requested, asked.replayed, self._teacher.ledger.estimated,
            unused.requests, unused.completion_tokens,
        )  # fmt: skip
        new = [now - before for now, before in zip(counts, self._counted, strict=True)]
        self._counted = counts
        outcome.requested, outcome.replayed, outcome.estimated = new[:3]
        outcome.prefetched = new[3], new[4]

    def _searches(self, shard: Shard) -> list[Search]:
        """Return the shard's searches; a question that is gone has none."""
        found = read_questions(self._warehouse, question_ids=shard.question_ids)
        questions = {question.question_id: question for question in found}
        searches = []
        for question_id, tree_id in zip(shard.question_ids, shard.tree_ids, strict=True):
            if question_id not in questions:
                continue
            question = questions[question_id]
            name = search_id(question, self._config, self._settings.seed, self.opened.identity)
            for _ in range(_MOST_RETRIES if self._settings.retry_failed else 0):
                if name == tree_id:
                    break
                name = content_id(name, "again")
            if name != tree_id:
                raise Problem(
                    f"a worker with the model {self.opened.identity} would search otherwise than "
                    "the process that began the run: model, prompt file and code must be the same "
                    "on every machine"
                )
            searches.append(Search(question, tree_id))
        return searches


@asynccontextmanager
async def _alone(warehouse: Warehouse, shard: Shard, progress: Progress) -> AsyncIterator[bool]:
    """Hold the shard's lease; yield whether another worker had it, and was waited for."""
    waited = False
    while True:
        lease = take_lease(warehouse, f"shards/{shard.name}", TERM_S, once=True)
        try:
            lease.__enter__()
            break
        except LeaseHeld as held:
            if not waited:
                progress.report(f"waiting: {held}")
            waited = True
            await asyncio.sleep(_LOOK_S)
    try:
        yield waited
    except BaseException as error:
        lease.__exit__(type(error), error, error.__traceback__)
        raise
    lease.__exit__(None, None, None)


# ---- another process -----------------------------------------------------------------------------


class _Gathered(Progress):
    """Progress to be told by the process that waits for the outcome."""

    def __init__(self) -> None:
        self.outcome = ShardOutcome()

    def tree(self, name: str, right: bool, failed: bool) -> None:
        self.outcome.found.append((name, right, failed))

    def report(self, sentence: str) -> None:
        self.outcome.reports.append(sentence)


class WorkerProcess:
    """Runs shards as they come, and keeps a teacher open from one to the next of the same run."""

    def __init__(self) -> None:
        self._run: str | None = None
        self._worker: ShardWorker | None = None
        self._opened = AsyncExitStack()

    async def run(self, text: str) -> str:
        """Run a shard; return its outcome. A failure that a person can end is in it."""
        shard, progress = Shard.of(text), _Gathered()
        outcome = progress.outcome
        try:
            await self._run_one(shard, progress)
        except Exception as error:
            status = 2 if isinstance(error, _CORRECTED) else 1
            sentence = describe(error)
            if sentence is None and not isinstance(error, (*_CORRECTED, *_ENDED)):
                raise
            outcome.problem, outcome.status = sentence or str(error), status
            await self.close()
        return outcome.text()

    async def _run_one(self, shard: Shard, progress: _Gathered) -> None:
        worker, outcome = await self._open(shard), progress.outcome
        budget = RunBudget(shard.share.budget, shard.seconds_left())
        outcome.tree_ids = await worker.run(shard, budget, progress)
        outcome.stopped_by, spent = budget.stopped_by, budget.spent
        outcome.spent = spent.requests, spent.completion_tokens
        worker.count(outcome)

    async def _open(self, shard: Shard) -> ShardWorker:
        if self._worker is not None and self._run == shard.run_id:
            return self._worker
        await self.close()
        settings = BuildSettings.checked(**shard.settings)
        warehouse, resolved = Warehouse.at(settings.home), resolve(settings, reconnect=True)
        config, filters = search_config(settings, resolved), read_filters(settings.filters)
        self._opened.push_async_callback(resolved.teacher.close)
        await resolved.teacher.open()
        store = warehouse.journal_store
        journal = self._opened.enter_context(Journal(warehouse.journal_dir, store=store))
        self._run = shard.run_id
        self._worker = ShardWorker(
            warehouse, settings, config, filters, resolved.teacher, journal, len(shard.tree_ids)
        )
        return self._worker

    async def close(self) -> None:
        """Close teacher and journal; the next shard opens them again."""
        self._worker = None
        await self._opened.aclose()


_CORRECTED = (Problem, WarehouseError, UnsafeStore, JournalMismatch)
_ENDED = (OSError, TeacherUnavailable, JournalError)
