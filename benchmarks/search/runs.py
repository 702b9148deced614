"""The same searches, asked in our order and in the reference's, on the same virtual server.

    ours = search_all(questions(64), config(wave=4), at_once=64)
    theirs = reference(questions(64), config())
    theirs.seconds / ours.seconds, ours.right_per_mtok / theirs.right_per_mtok
    ours.fastest                              # seconds that no schedule of its requests beats

Time is virtual, so each is run once: it comes out the same every time.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.search import clock
from benchmarks.search.model_server import FRONT_S, ModelServer
from benchmarks.search.reference_order import ReferenceOrder
from curation.grading.grade import grade
from flows.stages.search import Room
from mcts.concurrency import gather
from mcts.config import SearchConfig, search_id
from mcts.coordinates import CoordinateSpace
from mcts.data import Question
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.policy import Policy
from mcts.prompts import load_prompt
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import Request, Teacher
from mcts.tree import Tree

REFERENCE_AT_ONCE = 10  # trees its script keeps in flight, one request each (method 2, Table A4)
ROOM = 32  # trees at once in a build, unless it is told otherwise (`BuildSettings.concurrency`)
SIMULATIONS = 20  # the paper's (Table A4); its script runs 8
ENCODE_S = 0.25  # a 1260 x 840 picture as PNG by Pillow: 0.27 to 0.41 s of one core, measured once

Wrap = Callable[[Policy, Question, SearchConfig], Policy]


def config(wave: int = 1, simulations: int = SIMULATIONS) -> SearchConfig:
    """The paper's search (Table A4) on Qwen2.5-VL; only the wave is ours.

    The reference's five steps of a rollout count the forced answer, so four of them think.
    """
    prompt = load_prompt("points")
    return SearchConfig(
        space=CoordinateSpace.qwen25_vl(),
        prompt_digest=prompt.digest,
        simulations=simulations,
        rollout_steps=4,
        wave=wave,
        bounded=True,
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run took, and what came of it."""

    seconds: float
    trees: int
    simulations: int
    asked: int
    """Requests."""
    written: int
    """Tokens the model wrote."""
    prompt: int
    """Prompt tokens sent."""
    cached: int
    """Of these, found in the prefix cache."""
    right: int
    """Distinct right lines of reasoning, all trees' (`Tree.right_lines`)."""
    fastest: float
    """Seconds that no schedule of the same requests beats."""
    requests: list[Request] = field(repr=False, default_factory=list)

    @property
    def right_per_mtok(self) -> float:
        """Right lines for a million tokens written."""
        return 1e6 * self.right / self.written

    @property
    def hit_rate(self) -> float:
        return self.cached / self.prompt


def _as_it_is(policy: Policy, question: Question, settings: SearchConfig) -> Policy:
    return policy


async def grow(
    asked: Sequence[Question],
    settings: SearchConfig,
    teacher: Teacher,
    folder: Path,
    at_once: int,
    wrap: Wrap = _as_it_is,
    picture: bytes = b"",
) -> list[Tree]:
    """The trees of these questions, `at_once` side by side, through a journal in `folder`.

    Fewer of them than that look ahead, as in a build; in another order than ours they do not.
    """
    slots = Room(at_once)
    ahead = slots.ahead if wrap is _as_it_is else lambda: 0
    with Journal(folder) as journal:
        asking = JournaledTeacher(teacher, journal)

        async def one(question: Question) -> Tree:
            name = search_id(question, settings, 0, teacher.identity)
            images = {image.image_id: picture for image in question.images}
            policy = TeacherPolicy(question, settings, name, asking, images)
            async with slots:
                asked = wrap(policy, question, settings)
                return await search(question, settings, asked, grade, name, prefetch=ahead)

        return await gather(one(question) for question in asked)


def search_all(
    asked: Sequence[Question],
    settings: SearchConfig,
    at_once: int,
    wrap: Wrap = _as_it_is,
    server: ModelServer | None = None,
) -> Measured:
    """Search these questions, `at_once` trees side by side, on a fresh server."""
    server = server or ModelServer()
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        trees, seconds = clock.run(grow(asked, settings, server, Path(folder), at_once, wrap))
    ledger = server.ledger
    return Measured(
        seconds,
        len(trees),
        sum(tree.simulations for tree in trees),
        ledger.requests,
        ledger.completion_tokens,
        ledger.prompt_tokens,
        ledger.cached_tokens,
        sum(tree.right_lines() for tree in trees),
        server.fastest(),
        server.requests,
    )


def reference(asked: Sequence[Question], settings: SearchConfig) -> Measured:
    """Search these questions in the reference's order, on the server that ours has."""
    return search_all(asked, _theirs(settings), REFERENCE_AT_ONCE, ReferenceOrder)


def released(asked: Sequence[Question], settings: SearchConfig) -> Measured:
    """The reference's order in its surroundings as released (method 5.8): no prefix cache, and
    the picture encoded anew for every call."""
    server = ModelServer(cache_tokens=0, front_s=FRONT_S + ENCODE_S)
    return search_all(asked, _theirs(settings), REFERENCE_AT_ONCE, ReferenceOrder, server)


def _theirs(settings: SearchConfig) -> SearchConfig:
    """The same search as the reference is told of it."""
    return replace(settings, wave=1, bounded=False, rollout_steps=settings.rollout_steps + 1)


def alone(
    run: Callable[[Sequence[Question]], Measured], asked: Sequence[Question]
) -> list[Measured]:
    """One tree at a time, each alone on a fresh server."""
    return [run([question]) for question in asked]


def added(every: Sequence[Measured]) -> Measured:
    """What several runs took together."""
    sums = {
        name: sum(getattr(each, name) for each in every)
        for name in ("seconds", "trees", "simulations", "asked", "written", "prompt", "cached",
                     "right", "fastest")
    }  # fmt: skip
    return Measured(**sums)


def right_share(ours: Sequence[Measured], theirs: Sequence[Measured]) -> tuple[float, float]:
    """Between what our right traces a token, relative to theirs, lie 19 times in 20.

    The same questions in both, drawn again with replacement.
    """
    draw, found = random.Random(0), []
    for _ in range(1000):
        drawn = draw.choices(range(len(ours)), k=len(ours))
        right = sum(ours[i].right for i in drawn) / sum(theirs[i].right for i in drawn)
        found.append(
            right * sum(theirs[i].written for i in drawn) / sum(ours[i].written for i in drawn)
        )
    found.sort()
    return found[25], found[-26]


def _memory() -> str | None:
    """A folder in memory where there is one: a journal's fsync is not what is measured here."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
