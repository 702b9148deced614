"""Shards of a build in other processes: on a Ray cluster, or as runs of a Prefect work pool.

    shards = cut_shards(searches, settings, run_id, warehouse)
    outcome = await run_elsewhere(shards, settings, progress)

At most `workers` shards are searched at once, and each worker gets its part of the run's
concurrency, so that there are no more workers than shards, or than trees that may be searched at
once. A run's budget is handed out in shares: a shard may spend what is left, divided by the
questions that have none yet; what it does not need is free again. Shards that their share did not
reach are run again at the end, one after another, each with all that is left. So a run spends no
more than in one process, up to the last tree of each worker.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol

from flows.progress import Progress
from flows.server_options import without_secrets
from flows.settings import BuildSettings
from flows.settings_base import Problem
from flows.stages.search import Search, committed
from flows.stages.shards.shard import Shard, ShardOutcome, Share
from mcts.budget import Usage
from warehouse.storage.home import Warehouse


class RemoteWorker(Protocol):
    """Runs one shard after another, somewhere."""

    async def ready(self) -> None:
        """Return when there is room for it; it must not be given a shard before."""

    async def run(self, shard: Shard) -> ShardOutcome:
        """Run a shard, on another machine if one is lost."""


def cut_shards(
    searches: Sequence[Search], settings: BuildSettings, run_id: str, warehouse: Warehouse
) -> list[Shard]:
    """Cut a run's searches into shards, each with what a worker must know."""
    values = settings.model_dump(mode="json")
    values |= {"home": warehouse.root, "on": "here"}
    shards = []
    for start in range(0, len(searches), settings.shard):
        some = searches[start : start + settings.shard]
        questions = tuple(s.question.question_id for s in some)
        shards.append(Shard(run_id, values, questions, tuple(s.tree_id for s in some)))
    return shards


async def run_elsewhere(
    shards: Sequence[Shard], settings: BuildSettings, progress: Progress
) -> ShardOutcome:
    """Run shards as `settings.on` says, and sum up what came of them.

    Raises:
        Problem, OSError: a worker met what ends a run, or there are no workers.
    """
    if shards and without_secrets(shards[0].settings) != shards[0].settings:
        raise Problem(
            "on: a password in a URL would be seen by everybody who sees the run: put the key into "
            "an environment variable of the workers (--api-key-env)"
        )
    count = max(1, min(settings.workers, settings.concurrency, len(shards)))
    async with _workers(settings, progress, count) as workers:
        run = _Run(shards, settings, progress, await asyncio.to_thread(_paid, shards, settings))
        await run.all_on(workers)
    return run.total


def _paid(shards: Sequence[Shard], settings: BuildSettings) -> dict[str, Usage]:
    """Return what the trees that are there already cost, where a budget counts it."""
    if settings.run_requests is None and settings.run_tokens is None:
        return {}
    names = [name for shard in shards for name in shard.tree_ids]
    return committed(Warehouse.at(settings.home), names)


def _workers(
    settings: BuildSettings, progress: Progress, count: int
) -> AbstractAsyncContextManager[Sequence[RemoteWorker]]:
    where, _, name = settings.on.partition(":")
    if where == "ray":
        from flows.stages.shards.ray_workers import ray_workers

        return ray_workers(name or None, count)
    from flows.stages.shards.pool_workers import pool_workers

    return pool_workers(name, count, settings, progress)


class _Run:
    """The shards of a run, and what is left of its budget."""

    def __init__(
        self,
        shards: Sequence[Shard],
        settings: BuildSettings,
        progress: Progress,
        paid: Mapping[str, Usage] | None = None,
    ) -> None:
        self._waiting, self._open = deque(shards), len(shards)
        self._unshared = sum(len(shard.tree_ids) for shard in shards)
        self._limits = settings.run_requests, settings.run_tokens
        self._ends = settings.run_seconds and time.monotonic() + settings.run_seconds
        self._paid = {shard.name: _cost(shard, paid or {}) for shard in shards}
        """Requests and tokens of the trees that were there before."""
        self._held = dict(self._paid)
        """Requests and tokens that a shard may spend or, at its end, has spent."""
        self._stopped: dict[str, tuple[Shard, str]] = {}
        """Shards whose share was too small, and which part of it."""
        self._there: dict[str, list[str]] = {shard.name: [] for shard in shards}
        self._concurrency = settings.concurrency
        self._progress, self._told = progress, set[str]()
        self.total = ShardOutcome()

    async def all_on(self, workers: Sequence[RemoteWorker]) -> None:
        """Run every shard once, and again those whose share was too small."""
        finished = asyncio.Event()

        async def pull(worker: RemoteWorker, part: int) -> None:
            await worker.ready()
            while self._waiting:
                await self._one(worker, _at(part, self._waiting.popleft()))
                self._open -= 1
                if not self._open:
                    await self._again(worker, part)
                    finished.set()

        if not self._waiting:
            return
        try:
            async with asyncio.TaskGroup() as group:
                parts = _parts(self._concurrency, len(workers))
                pulling = [
                    group.create_task(pull(worker, part))
                    for worker, part in zip(workers, parts, strict=True)
                ]
                await finished.wait()
                for task in pulling:  # those for which there was no room
                    task.cancel()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        self.total.tree_ids = [name for ids in self._there.values() for name in ids]
        self.total.stopped_by = next((why for _, why in self._stopped.values()), None)

    async def _again(self, worker: RemoteWorker, part: int) -> None:
        for shard, why in list(self._stopped.values()):
            if why != "seconds":
                await self._one(worker, _at(part, shard), again=True)

    async def _one(self, worker: RemoteWorker, shard: Shard, again: bool = False) -> None:
        share = self._share(shard, again)
        parts, spent = (share.requests, share.tokens), self._held[shard.name]
        if again and any(p is not None and p <= s for p, s in zip(parts, spent, strict=True)):
            return  # nothing is left for it
        self._held[shard.name] = share.requests or 0, share.tokens or 0
        outcome = await worker.run(replace(shard, share=share, handed_out_at=time.time()))
        for sentence in outcome.reports:
            if sentence not in self._told:
                self._progress.report(sentence)
            self._told.add(sentence)
        if outcome.problem:
            raise (Problem if outcome.status == 2 else OSError)(outcome.problem)
        for tree in outcome.found:
            self._progress.tree(*tree)
        self._held[shard.name], self._there[shard.name] = outcome.spent, outcome.tree_ids
        self._stopped.pop(shard.name, None)
        if outcome.stopped_by:
            self._stopped[shard.name] = shard, outcome.stopped_by
        self._add(outcome)

    def _share(self, shard: Shard, again: bool) -> Share:
        """Hand out a part of what is left: all of it `again`, where nothing else runs."""
        size, others = len(shard.tree_ids), [h for n, h in self._held.items() if n != shard.name]
        parts: list[int | None] = []
        for i, limit in enumerate(self._limits):
            left = None if limit is None else max(0, limit - sum(held[i] for held in others))
            if left is not None and not again:
                left = max(self._paid[shard.name][i], left * size // self._unshared)
            parts.append(left)
        self._unshared -= 0 if again else size
        seconds = None if self._ends is None else max(0.0, self._ends - time.monotonic())
        return Share(requests=parts[0], tokens=parts[1], seconds=seconds)

    def _add(self, outcome: ShardOutcome) -> None:
        total = self.total
        total.requested += outcome.requested
        total.replayed += outcome.replayed
        total.estimated += outcome.estimated
        total.prefetched = (
            total.prefetched[0] + outcome.prefetched[0],
            total.prefetched[1] + outcome.prefetched[1],
        )


def _parts(whole: int, count: int) -> list[int]:
    """Cut a number into parts that differ by one at most; none is 0."""
    return [max(1, whole // count + (i < whole % count)) for i in range(count)]


def _at(concurrency: int, shard: Shard) -> Shard:
    return replace(shard, settings={**shard.settings, "concurrency": concurrency})


def _cost(shard: Shard, paid: Mapping[str, Usage]) -> tuple[int, int]:
    """Return the requests and tokens of those of a shard's trees that are there."""
    known = [paid[name] for name in shard.tree_ids if name in paid]
    return sum(one.requests for one in known), sum(one.completion_tokens for one in known)
