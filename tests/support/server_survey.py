"""A small search with a composed server, and what became of every answer that it gave.

.venv/bin/python -m tests.support.server_survey 2000        # seeds 0 to 1999, some minutes
"""

from __future__ import annotations

import asyncio
import io
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from PIL import Image as PILImage

from curation.grading.grade import grade
from mcts.config import SearchConfig, search_id
from mcts.coordinates import CoordinateSpace
from mcts.data import AnswerKind, Image, Question
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.openai_client import OpenAITeacher
from mcts.tree import Tree
from tests.support.server_differences import DifferentServer, composed

CONFIG = SearchConfig(
    CoordinateSpace.qwen3_vl(), simulations=2, children=2, rollouts=2, max_depth=5, bounded=True
)


@cache
def picture() -> tuple[Image, bytes]:
    """Return an image of 56 pixels and its file."""
    file = io.BytesIO()
    PILImage.new("RGB", (56, 56), "red").save(file, "PNG")
    return Image("a" * 64, 56, 56), file.getvalue()


@dataclass(slots=True)
class Survey:
    """What went wrong, by the seed of the server."""

    servers: int = 0
    requests: int = 0
    refusals: int = 0
    answers: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    fruitless: list[str] = field(default_factory=list)
    """Servers whose answers can all be used, and that made no tree all the same."""
    many_refusals: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """Sum up."""
        return (
            f"{self.servers} servers, {self.requests} requests, {self.refusals} refusals, "
            f"{self.answers} answers: {len(self.lost)} lost, {len(self.twice)} asked twice, "
            f"{len(self.tracebacks)} tracebacks, {len(self.fruitless)} without a tree, "
            f"{len(self.many_refusals)} refused again and again"
        )


def survey(seeds: Iterable[int]) -> Survey:
    """Search a question with a server a seed, twice over the same journal."""
    found = Survey()
    for seed in seeds:
        server = DifferentServer(composed(random.Random(seed)), seed)
        named = f"{seed}: {', '.join(sorted(server.names))}"
        found.servers += 1
        try:
            with tempfile.TemporaryDirectory() as folder:
                tree, journaled, failed = asyncio.run(build(server, folder))
                requests = len(server.requests)
                again, _, _ = asyncio.run(build(server, folder))
        except Exception:
            found.tracebacks.append(f"{named}\n{traceback.format_exc()}")
            continue
        found.requests += requests
        found.refusals += server.refusals
        found.answers += server.usable
        if server.exact:
            if journaled != server.usable:
                found.lost.append(f"{named}: {server.usable} given, {journaled} journaled")
            if failed or not any(rollout.steps for rollout in tree.rollouts):
                found.fruitless.append(f"{named}: {tree.errors}")
        if server.answered_twice() or len(server.requests) > requests:
            found.twice.append(f"{named}: {len(server.requests) - requests} when resumed")
        if [n.step for n in again.nodes] != [n.step for n in tree.nodes]:
            found.lost.append(f"{named}: the tree is another one when resumed")
        if server.refusals > 2 * len(server.refused) + 6:
            found.many_refusals.append(f"{named}: {server.refusals} refusals")
    return found


async def build(server: DifferentServer, folder: str) -> tuple[Tree, int, int]:
    """Search; return the tree, and how many samples and failures its journal holds."""
    image, data = picture()
    text = "Is the lamp left of the chair?"
    question = Question("sat2", text, (image,), AnswerKind.TEXT, ("yes", "no"), ("yes",))
    teacher = OpenAITeacher("http://different", backoff_s=0.0, retries=9, can=server.declared)
    with server.connected(), Journal(folder) as journal:
        await teacher.open()
        name = search_id(question, CONFIG, 0, teacher.identity)
        policy = TeacherPolicy(
            question, CONFIG, name, JournaledTeacher(teacher, journal), {image.image_id: data}
        )
        tree = await search(question, CONFIG, policy, grade, name)
        records = list(journal.records(name))
        await teacher.close()
    failed = sum(record.failure is not None for record in records)
    return tree, sum(len(record.completions) for record in records), failed


def main() -> None:
    first, count = int((sys.argv[2:] or ["0"])[0]), int(sys.argv[1])
    started = time.monotonic()
    found = survey(range(first, first + count))
    for name in ("lost", "twice", "tracebacks", "fruitless", "many_refusals"):
        for line in getattr(found, name)[:8]:
            print(f"{name}: {line}\n")
    print(found.sentence(), f"in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
