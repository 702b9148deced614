"""The same searches with our order of requests and the reference's, on one virtual server.

    ours = search_all(questions(64), config(wave=4), at_once=64)
    theirs = reference(questions(64), config())
    theirs.seconds / ours.seconds, ours.right_per_mtok / theirs.right_per_mtok
    ours.fastest                              # lower bound of any schedule of its requests

Time is virtual, so each is run once: the result is always the same.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.search import virtual_clock
from benchmarks.search.model_server import FRONT_S, ModelServer
from benchmarks.search.reference_order import ReferenceOrder
from curation.grading.grade import grade
from flows.stages.search import TreeSlots
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
ROOM = 32  # default trees at once of a build (`BuildSettings.concurrency`)
SIMULATIONS = 20  # the paper's (Table A4); its script runs 8
ENCODE_S = 0.25  # a 1260 x 840 image as PNG by Pillow: 0.27 to 0.41 s of one core, measured once

Wrap = Callable[[Policy, Question, SearchConfig], Policy]


def config(wave: int = 1, simulations: int = SIMULATIONS) -> SearchConfig:
    """Return the paper's search (Table A4) on Qwen2.5-VL; only the wave is ours.

    The reference's five steps of a rollout include the forced answer, so four are thoughts.
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
    """Time, cost and result of a run."""

    seconds: float
    trees: int
    simulations: int
    n_requests: int
    completion_tokens: int
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens found in the prefix cache."""
    right: int
    """Distinct right lines of reasoning in all trees (`Tree.right_lines`)."""
    fastest: float
    """Lower bound, in seconds, of any schedule of the same requests."""
    requests: list[Request] = field(repr=False, default_factory=list)

    @property
    def right_per_mtok(self) -> float:
        """Right lines per million completion tokens."""
        return 1e6 * self.right / self.completion_tokens

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens found in the prefix cache."""
        return self.cached_tokens / self.prompt_tokens


def _unwrapped(policy: Policy, question: Question, settings: SearchConfig) -> Policy:
    return policy


async def search_trees(
    questions: Sequence[Question],
    settings: SearchConfig,
    teacher: Teacher,
    folder: Path,
    at_once: int,
    wrap: Wrap = _unwrapped,
    image: bytes = b"",
) -> list[Tree]:
    """Search these questions, `at_once` trees concurrently, with a journal in `folder`.

    With fewer trees than that they prefetch, as in a build; in the reference's order they do not.
    """
    slots = TreeSlots(at_once)
    prefetch = slots.prefetch if wrap is _unwrapped else lambda: 0
    with Journal(folder) as journal:
        journaled = JournaledTeacher(teacher, journal)

        async def one(question: Question) -> Tree:
            name = search_id(question, settings, 0, teacher.identity)
            images = {shown.image_id: image for shown in question.images}
            policy = TeacherPolicy(question, settings, name, journaled, images)
            async with slots:
                wrapped = wrap(policy, question, settings)
                return await search(question, settings, wrapped, grade, name, prefetch=prefetch)

        return await gather(one(question) for question in questions)


def search_all(
    questions: Sequence[Question],
    settings: SearchConfig,
    at_once: int,
    wrap: Wrap = _unwrapped,
    server: ModelServer | None = None,
) -> Measured:
    """Search these questions, `at_once` trees concurrently, on a fresh server."""
    server = server or ModelServer()
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        trees, seconds = virtual_clock.run(
            search_trees(questions, settings, server, Path(folder), at_once, wrap)
        )
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


def reference(questions: Sequence[Question], settings: SearchConfig) -> Measured:
    """Search these questions in the reference's order, on the same kind of server."""
    return search_all(questions, _reference_config(settings), REFERENCE_AT_ONCE, ReferenceOrder)


def released(questions: Sequence[Question], settings: SearchConfig) -> Measured:
    """Search in the reference's order and set-up as released (method 5.8): without a prefix
    cache, and with the image encoded for every call."""
    server = ModelServer(cache_tokens=0, front_s=FRONT_S + ENCODE_S)
    return search_all(
        questions, _reference_config(settings), REFERENCE_AT_ONCE, ReferenceOrder, server
    )


def _reference_config(settings: SearchConfig) -> SearchConfig:
    """Return the reference's configuration of the same search."""
    return replace(settings, wave=1, bounded=False, rollout_steps=settings.rollout_steps + 1)


def alone(
    run: Callable[[Sequence[Question]], Measured], questions: Sequence[Question]
) -> list[Measured]:
    """Search one tree at a time, each on a fresh server."""
    return [run([question]) for question in questions]


def total(every: Sequence[Measured]) -> Measured:
    """Add up several runs."""
    sums = {
        name: sum(getattr(each, name) for each in every)
        for name in ("seconds", "trees", "simulations", "n_requests", "completion_tokens",
                     "prompt_tokens", "cached_tokens", "right", "fastest")
    }  # fmt: skip
    return Measured(**sums)


def right_share(ours: Sequence[Measured], theirs: Sequence[Measured]) -> tuple[float, float]:
    """Bootstrap a 95% interval of our right traces per token, relative to theirs.

    The same questions are resampled in both.
    """
    rng, found = random.Random(0), []
    for _ in range(1000):
        drawn = rng.choices(range(len(ours)), k=len(ours))
        right = sum(ours[i].right for i in drawn) / sum(theirs[i].right for i in drawn)
        found.append(
            right
            * sum(theirs[i].completion_tokens for i in drawn)
            / sum(ours[i].completion_tokens for i in drawn)
        )
    found.sort()
    return found[25], found[-26]


def _memory() -> str | None:
    """A folder in memory where there is one: a journal's fsync is not what is measured here."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
