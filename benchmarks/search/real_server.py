"""A real server's throughput under a search, against the same requests sent all at once.

    python -m benchmarks.search --server http://gpu:8000 --space qwen2.5-vl
    python -m benchmarks.search --server vllm:./checkpoint       # starts a server of its own
    python -m benchmarks.search --server vllm-cpu:nano  # without a GPU: the embedded teacher

Questions of the embedded sample are searched (waves of four, 64 trees at once) and every request is
recorded. Then the same requests go to the same server concurrently, which is its own batched
generation behind the same interface. Requests contain their seeds, so the server generates about
the same tokens twice; tokens per second are compared. The second time its prefix cache is warm,
which favours batched generation. Each run has a seed of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from benchmarks.rows import Row
from flows.progress import Progress
from flows.settings import BuildSettings
from flows.stages.build import find_questions
from flows.stages.search import (
    OpenTeacher,
    TreeSlots,
    name_searches,
    search_config,
    search_one,
)
from flows.teachers.resolve import ResolvedTeacher, resolve
from mcts.concurrency import gather
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.teachers.base import Ledger, Reply, Request, Teacher, TeacherError
from warehouse.storage.home import Warehouse

AT_ONCE = 64


class RecordingTeacher:
    """A teacher that records another one's requests."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.requests: list[tuple[Request, Mapping[str, bytes]]] = []

    @property
    def identity(self) -> str:
        return self._teacher.identity

    @property
    def ledger(self) -> Ledger:
        return self._teacher.ledger

    async def open(self) -> None:
        await self._teacher.open()

    async def close(self) -> None: ...

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        self.requests.append((request, images))
        return await self._teacher.complete(request, images)


async def run_once(
    settings: BuildSettings, resolved: ResolvedTeacher
) -> tuple[float, float, float]:
    """Measure tokens per second of the search and of its requests at once, and cache hits.

    The teacher is open, and stays open.
    """
    warehouse = Warehouse.at(settings.home)
    recording = RecordingTeacher(resolved.teacher)
    questions = await find_questions(warehouse, settings, Progress())
    config = search_config(settings, resolved)
    searches = name_searches(warehouse, settings, questions, config, recording.identity)
    slots = TreeSlots(settings.concurrency)
    before = replace(recording.ledger)
    start = time.perf_counter()
    with Journal(warehouse.journal_dir) as journal:
        journaled = JournaledTeacher(recording, journal)
        opened = OpenTeacher(recording.identity, journaled, journal)

        async def one(i: int) -> None:
            async with slots:
                await search_one(warehouse, searches[i], config, opened, prefetch=slots.prefetch)

        await gather(one(i) for i in range(len(searches)))
    searched = time.perf_counter() - start
    between = replace(recording.ledger)
    start = time.perf_counter()
    await gather(_complete(resolved.teacher, *each) for each in list(recording.requests))
    batched = time.perf_counter() - start
    after = recording.ledger
    prompt = between.prompt_tokens - before.prompt_tokens
    return (
        (between.completion_tokens - before.completion_tokens) / searched,
        (after.completion_tokens - between.completion_tokens) / batched,
        (between.cached_tokens - before.cached_tokens) / max(1, prompt),
    )


async def _runs(
    url: str, space: str | None, model: str | None, limit: int, runs: int
) -> list[tuple[float, float, float]]:
    """Run in empty warehouses and with different seeds, all on one server."""
    with tempfile.TemporaryDirectory() as home:
        given = BuildSettings.checked(
            task="sat2", teacher=url, space=space, model=model, limit=limit, wave=4,
            concurrency=AT_ONCE, home=home,
        )  # fmt: skip
        resolved = resolve(given)
        found = []
        try:
            await resolved.teacher.open()
            for seed in range(runs):
                fresh = {"seed": seed, "home": f"{home}/{seed}"}
                found.append(await run_once(given.model_copy(update=fresh), resolved))
        finally:
            await resolved.teacher.close()
    return found


async def _complete(teacher: Teacher, request: Request, images: Mapping[str, bytes]) -> None:
    with suppress(TeacherError):  # in the search too it cost one branch only
        await teacher.complete(request, images)


def against_itself(
    url: str, space: str | None, model: str | None, limit: int, runs: int
) -> Iterator[Row]:
    """Yield the rows of the comparison, medians of `runs`."""
    found = asyncio.run(_runs(url, space, model, limit, runs))
    share = statistics.median(searched / max(batched, 1e-9) for searched, batched, _ in found)
    hits = statistics.median(hit for *_, hit in found)
    yield Row(f"of the server's own batched throughput (median of {runs})", share, at_least=0.85)
    yield Row("prompt tokens found in its prefix cache", hits, at_least=0.8)
