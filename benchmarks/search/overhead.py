"""What the engine itself costs: processor time a request, and memory over thousands of trees.

    cpu_per_request(64)              # milliseconds, all threads, without the scripted model's own
    cpu_over_http(64)                # with the client of a real server
    memory(10_000)                   # megabytes resident as trees go by, and their slope

The clock is real here, so the first is repeated and the median taken. Counted is all that a build
does for a response but for the connection: selecting, prompts, names, the journal with its fsync,
parsing, grading, backing up. The model only waits and speaks; what its speaking costs is measured
and taken off.
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

from benchmarks.search import clock, script
from benchmarks.search.runs import config, grow
from curation.grading.grade import grade
from mcts.config import search_id
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import Completion, Ledger, Reply, Request
from mcts.teachers.server import OpenAITeacher

WAITS_S = 0.05


class QuickModel:
    """A `Teacher` that answers after WAITS_S and knows what its own work cost."""

    identity = "scripted"

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.own_s = 0.0
        """Processor seconds spent on making up answers."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        self.ledger.requests += 1
        began = time.thread_time()
        said = tuple(
            Completion(text, "stop", script.tokens(text)) for text in script.texts(request)
        )
        self.own_s += time.thread_time() - began
        await asyncio.sleep(WAITS_S)
        return Reply(said, 100, 90, sum(each.tokens for each in said), WAITS_S)


def cpu_per_request(at_once: int = 64, runs: int = 5, simulations: int = 8) -> list[float]:
    """Milliseconds of processor time a request, with `at_once` trees in flight, one a run."""
    found = []
    for run in range(runs):
        model, settings = QuickModel(), config(simulations=simulations)
        questions = script.questions(at_once, first=run * at_once)
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            asyncio.run(grow(questions, settings, model, Path(folder), at_once))
            spent = time.process_time() - began - model.own_s
        found.append(1000 * spent / model.ledger.requests)
    return found


def cpu_over_http(at_once: int = 64, runs: int = 5, simulations: int = 8) -> list[float]:
    """The same with the client: real HTTP to a stub server in another process, a picture and all.

    The stub writes short steps, so this adds what a connection costs and shows little of parsing.
    """
    found = []
    for run in range(runs):
        command = [sys.executable, "-m", "tests.support.stub_server", "--latency", str(WAITS_S)]
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
    questions = script.questions(at_once, first=run * at_once)
    try:
        await teacher.open()
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            wanted = config(simulations=simulations)
            await grow(questions, wanted, teacher, Path(folder), at_once, picture=_picture())
            spent = time.process_time() - began
    finally:
        await teacher.close()
    return 1000 * spent / teacher.ledger.requests


def _picture() -> bytes:
    """A JPEG of 1260 x 840 pixels with a photograph's bytes: about 200 KB."""
    noise = Image.effect_noise((1260, 840), 30).convert("RGB")
    data = io.BytesIO()
    noise.save(data, "JPEG", quality=50)
    return data.getvalue()


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory over a streaming run."""

    trees: int
    requests: int
    begin_mb: float
    """After the first tenth of the trees: by then everything is loaded and pools are filled."""
    most_mb: float
    slope_mb: float
    """Megabytes a thousand trees, by least squares over all but the first tenth."""


def memory(trees: int = 10_000, at_once: int = 64, simulations: int = 2) -> Memory:
    """Search `trees` questions in a stream, each forgotten once it is whole, on a virtual clock."""
    model, settings = QuickModel(), config(simulations=simulations)
    seen: list[tuple[int, float]] = []

    async def stream(folder: Path) -> None:
        todo, done = iter(range(trees)), 0
        with Journal(folder) as journal:
            asking = JournaledTeacher(model, journal)

            async def work() -> None:
                nonlocal done
                for i in todo:
                    (question,) = script.questions(1, first=i)
                    name = search_id(question, settings, 0, model.identity)
                    policy = TeacherPolicy(question, settings, name, asking, {})
                    await search(question, settings, policy, grade, name)
                    list(journal.records(name))  # as a commit reads them
                    journal.forget(name)
                    done += 1
                    if done % max(1, trees // 100) == 0:
                        seen.append((done, resident_mb()))

            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(work())

    with tempfile.TemporaryDirectory() as folder:
        clock.run(stream(Path(folder)))
    late = [each for each in seen if each[0] > trees // 10] or seen
    slope = 0.0
    if len(late) > 1:
        slope = statistics.linear_regression([n for n, _ in late], [mb for _, mb in late]).slope
    return Memory(trees, model.ledger.requests, late[0][1], max(mb for _, mb in seen), 1000 * slope)


def resident_mb() -> float:
    """Megabytes of this process in memory now; where the system does not tell, the most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
