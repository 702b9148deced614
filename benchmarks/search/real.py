"""A real server's share: searching it, against handing it the very same requests all at once.

    python -m benchmarks.search --server http://gpu:8000 --space qwen2.5-vl
    python -m benchmarks.search --server vllm:./checkpoint       # a server of its own, for as long
    python -m benchmarks.search --server vllm-cpu:nano  # without a GPU: the embedded teacher

Questions of the embedded sample are searched (waves of four, 64 trees at once) and every request is
recorded. Then the same requests go to the same server with no waiting of one for another, which is
its own batched generation behind the same door. Requests name their seeds, so the server writes
about the same tokens twice; what is compared is tokens a second. The second time its prefix cache
is warm, which favours batched generation. Each run has a seed of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from benchmarks.search.lines import Row
from flows.settings import BuildSettings
from flows.stages.build import find_questions, teacher_of
from flows.progress import Quiet
from flows.stages.search import Room, Teaching, name_searches, search_config, search_one
from flows.teachers.resolve import ChosenTeacher
from mcts.concurrency import gather
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.teachers.base import Ledger, Reply, Request, Teacher, TeacherError
from warehouse.storage.home import Warehouse

AT_ONCE = 64


class Recording:
    """A teacher that remembers what another one was asked."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.asked: list[tuple[Request, Mapping[str, bytes]]] = []

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
        self.asked.append((request, images))
        return await self._teacher.complete(request, images)


async def run_once(settings: BuildSettings, chosen: ChosenTeacher) -> tuple[float, float, float]:
    """Tokens a second of the search, then of its requests at once; the search's cache hit rate.

    The teacher is open, and stays so.
    """
    warehouse = Warehouse.at(settings.home)
    recording = Recording(chosen.teacher)
    questions = await find_questions(warehouse, settings, Quiet())
    wanted = search_config(settings, chosen)
    searches = name_searches(questions, wanted, settings.seed, recording.identity)
    room = Room(settings.concurrency)
    began = replace(recording.ledger)
    clock = time.perf_counter()
    with Journal(warehouse.journal_dir) as journal:
        asking = JournaledTeacher(recording, journal)
        teaching = Teaching(recording.identity, asking, journal)

        async def one(i: int) -> None:
            async with room:
                await search_one(warehouse, searches[i], wanted, teaching, prefetch=room.ahead)

        await gather(one(i) for i in range(len(searches)))
    searched = time.perf_counter() - clock
    between = replace(recording.ledger)
    clock = time.perf_counter()
    await gather(_asked(chosen.teacher, *each) for each in list(recording.asked))
    batched = time.perf_counter() - clock
    ended = recording.ledger
    prompt = between.prompt_tokens - began.prompt_tokens
    return (
        (between.completion_tokens - began.completion_tokens) / searched,
        (ended.completion_tokens - between.completion_tokens) / batched,
        (between.cached_tokens - began.cached_tokens) / max(1, prompt),
    )


async def _runs(
    url: str, space: str | None, model: str | None, limit: int, runs: int
) -> list[tuple[float, float, float]]:
    """Each run in an empty warehouse and with a seed of its own, all on one server."""
    with tempfile.TemporaryDirectory() as home:
        given = BuildSettings.checked(
            task="sat2", teacher=url, space=space, model=model, limit=limit, wave=4,
            concurrency=AT_ONCE, home=home,
        )  # fmt: skip
        chosen = teacher_of(given)
        found = []
        try:
            await chosen.teacher.open()
            for seed in range(runs):
                fresh = {"seed": seed, "home": f"{home}/{seed}"}
                found.append(await run_once(given.model_copy(update=fresh), chosen))
        finally:
            await chosen.teacher.close()
    return found


async def _asked(teacher: Teacher, request: Request, images: Mapping[str, bytes]) -> None:
    with suppress(TeacherError):  # it cost the search one branch as well
        await teacher.complete(request, images)


def against_itself(
    url: str, space: str | None, model: str | None, limit: int, runs: int
) -> Iterator[Row]:
    """Rows of the comparison, medians of `runs`."""
    found = asyncio.run(_runs(url, space, model, limit, runs))
    share = statistics.median(searched / max(batched, 1e-9) for searched, batched, _ in found)
    hits = statistics.median(hit for *_, hit in found)
    yield Row(f"of the server's own batched pace (median of {runs})", share, at_least=0.85)
    yield Row("prompt tokens found in its prefix cache", hits, at_least=0.8)
