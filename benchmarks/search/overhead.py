"""The engine's own cost: processor time per request, and memory over thousands of trees.

    cpu_per_request(64)              # milliseconds, all threads, without the scripted model's own
    cpu_over_http(64)                # with the client of a real server
    memory(10_000)                   # resident megabytes over the trees, and their slope

The clock is real here, so the first is repeated and the median taken. Counted is all that a build
does for a response except the connection: selection, prompts, keys, the journal with its fsync,
parsing, grading, backpropagation. The cost of generating the scripted answers is subtracted.
"""

from __future__ import annotations

import asyncio
import io
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.search import scripted_model, virtual_clock
from benchmarks.search.compare_orders import config, search_trees
from curation.grading.grade import grade
from mcts.config import search_id
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import Completion, Ledger, Reply, Request
from mcts.teachers.openai_client import OpenAITeacher

WAIT_S = 0.05


class InstantModel:
    """A `Teacher` that answers after WAIT_S and measures its own work."""

    identity = "scripted"

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.own_s = 0.0
        """Processor seconds of generating the answers."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        self.ledger.requests += 1
        start = time.thread_time()
        completions = tuple(
            Completion(text, "stop", scripted_model.tokens(text))
            for text in scripted_model.texts(request)
        )
        self.own_s += time.thread_time() - start
        await asyncio.sleep(WAIT_S)
        return Reply(completions, 100, 90, sum(c.tokens for c in completions), WAIT_S)


def cpu_per_request(at_once: int = 64, runs: int = 5, simulations: int = 8) -> list[float]:
    """Measure processor milliseconds per request, `at_once` trees in flight; one per run."""
    found = []
    for run in range(runs):
        model, settings = InstantModel(), config(simulations=simulations)
        questions = scripted_model.questions(at_once, first=run * at_once)
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            asyncio.run(search_trees(questions, settings, model, Path(folder), at_once))
            seconds = time.process_time() - start - model.own_s
        found.append(1000 * seconds / model.ledger.requests)
    return found


def cpu_over_http(at_once: int = 64, runs: int = 5, simulations: int = 8) -> list[float]:
    """Measure the same with the HTTP client, an image included, against a stub server.

    The stub writes short steps, so this adds the cost of a connection and little parsing.
    """
    found = []
    for run in range(runs):
        command = [sys.executable, "-m", "tests.support.stub_server", "--latency", str(WAIT_S)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stub:
            try:
                assert stub.stdout is not None
                url = stub.stdout.readline().strip()
                found.append(asyncio.run(_cpu_of(url, run, at_once, simulations)))
            finally:
                stub.kill()
    return found


async def _cpu_of(url: str, run: int, at_once: int, simulations: int) -> float:
    teacher = OpenAITeacher(url, concurrency=4 * at_once)
    questions = scripted_model.questions(at_once, first=run * at_once)
    try:
        await teacher.open()
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            settings = config(simulations=simulations)
            await search_trees(
                questions, settings, teacher, Path(folder), at_once, image=_photograph()
            )
            seconds = time.process_time() - start
    finally:
        await teacher.close()
    return 1000 * seconds / teacher.ledger.requests


def _photograph() -> bytes:
    """Make a JPEG of 1260 x 840 pixels as large as a photograph: about 200 KB."""
    noise = Image.effect_noise((1260, 840), 30).convert("RGB")
    data = io.BytesIO()
    noise.save(data, "JPEG", quality=50)
    return data.getvalue()


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory during a streaming run."""

    trees: int
    requests: int
    begin_mb: float
    """After the first tenth of the trees, when everything is loaded and pools are filled."""
    max_mb: float
    slope_mb: float
    """Megabytes per thousand trees, by least squares over all but the first tenth."""


def memory(trees: int = 10_000, at_once: int = 64, simulations: int = 2) -> Memory:
    """Search `trees` questions in a stream on a virtual clock, forgetting each finished tree."""
    model, settings = InstantModel(), config(simulations=simulations)
    samples: list[tuple[int, float]] = []

    async def stream(folder: Path) -> None:
        todo, done = iter(range(trees)), 0
        with Journal(folder) as journal:
            teacher = JournaledTeacher(model, journal)

            async def work() -> None:
                nonlocal done
                for i in todo:
                    (question,) = scripted_model.questions(1, first=i)
                    name = search_id(question, settings, 0, model.identity)
                    policy = TeacherPolicy(question, settings, name, teacher, {})
                    await search(question, settings, policy, grade, name)
                    list(journal.records(name))  # as a commit does
                    journal.forget(name)
                    done += 1
                    if done % max(1, trees // 100) == 0:
                        samples.append((done, resident_mb()))

            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(work())

    with tempfile.TemporaryDirectory() as folder:
        virtual_clock.run(stream(Path(folder)))
    late = [each for each in samples if each[0] > trees // 10] or samples
    slope = 0.0
    if len(late) > 1:
        slope = statistics.linear_regression([n for n, _ in late], [mb for _, mb in late]).slope
    return Memory(
        trees, model.ledger.requests, late[0][1], max(mb for _, mb in samples), 1000 * slope
    )


def resident_mb() -> float:
    """Return this process's resident megabytes; where unavailable, their maximum so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
