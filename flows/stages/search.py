"""Searching a shard of questions: many trees side by side, committed together.

config = search_config(settings, chosen)
searches = name_searches(questions, config, settings.seed, chosen.teacher.identity)
purse.open([s.tree_id for s in searches], {})
ids = await search_shard(warehouse, run_id, searches, config, settings, teaching, purse, progress)

A shard ends with its slowest tree, and a server must not wait for that: `overlapping` lets the
next shard's trees begin as soon as there is room for them, and shards still end one after another.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from curation.grading.grade import grade
from flows.settings import BuildSettings, Problem
from flows.stages.progress import Progress
from flows.stages.run_budget import OutOfBudget, Purse
from flows.teachers.resolve import ChosenTeacher
from mcts.budget import Budget, Spent
from mcts.data import Question, content_id
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.policy import TeacherPolicy
from mcts.prompts import load_prompt
from mcts.samples import together
from mcts.search import SearchConfig, search, search_id
from mcts.tree import Node, Tree
from warehouse.query.read_back import rows_about
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees
from warehouse.tables.rows import read_image
from warehouse.tables.tree_rows import search_rows

# Chains a baseline samples where its tree budget alone is to stop it.
MOST_SAMPLES = 1024

Shard = TypeVar("Shard")


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
    vain: Spent = field(default_factory=Spent)
    """What trees asked for ahead and did not need (`mcts.prefetch`); no tree's rows count it."""


def search_config(settings: BuildSettings, chosen: ChosenTeacher) -> SearchConfig:
    """The part of the settings that decides a search's outcome, and so its name."""
    try:
        prompt = load_prompt(settings.prompt or chosen.prompt_for(settings.task))
    except ValueError as error:
        raise Problem(f"prompt: {error}") from None
    config = SearchConfig(
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
        strategy=settings.strategy,
        enough=settings.enough,
        bounded=chosen.bounded,
        budget=Budget(settings.tree_tokens, settings.tree_requests, settings.tree_seconds),
    )
    if config.strategy == "mcts":
        return config
    # What a baseline does not know must not be part of its searches' names.
    plain = SearchConfig(chosen.space)
    unlimited = plain.samples if config.budget == Budget() else MOST_SAMPLES
    return replace(
        config,
        samples=settings.samples or unlimited,
        simulations=plain.simulations,
        children=plain.children,
        rollouts=plain.rollouts,
        exploration=plain.exploration,
    )


def name_searches(
    questions: Sequence[Question], config: SearchConfig, seed: int, teacher: str
) -> list[Search]:
    """Each question with the name of its search."""
    return [Search(q, search_id(q, config, seed, teacher)) for q in questions]


def committed(warehouse: Warehouse, tree_ids: Sequence[str]) -> dict[str, Spent]:
    """Those of `tree_ids` that are in the warehouse already, with what they cost."""
    sql = "SELECT tree_id, requests, prompt_tokens, completion_tokens FROM trees"
    return {
        row["tree_id"]: Spent(row["requests"], row["prompt_tokens"], row["completion_tokens"])
        for row in rows_about(warehouse, tree_ids, sql)
    }


def renamed_failures(warehouse: Warehouse, searches: Sequence[Search]) -> list[Search]:
    """Searches with a new name for each whose tree failed: to be tried again, the failure kept."""
    renamed = list(searches)
    while True:
        sql = "SELECT tree_id FROM trees WHERE status = 'failed'"
        failed = {
            row["tree_id"] for row in rows_about(warehouse, [s.tree_id for s in renamed], sql)
        }
        if not failed:
            return renamed
        renamed = [
            Search(s.question, content_id(s.tree_id, "again")) if s.tree_id in failed else s
            for s in renamed
        ]


class Room(asyncio.Semaphore):
    """Room for `size` trees at once; where fewer are there, they look ahead in what is left."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._size, self._there = size, 0

    async def acquire(self) -> Literal[True]:
        """Wait for a place."""
        await super().acquire()
        self._there += 1
        return True

    def release(self) -> None:
        """Give a place back."""
        self._there -= 1
        super().release()

    def ahead(self) -> int:
        """How many leaves each of the trees may ask for ahead: together they fill the room."""
        return max(0, self._size // max(1, self._there) - 1)


class Turn:
    """A shard's place in the order of shards."""

    def __init__(self, slots: Room, before: asyncio.Event) -> None:
        self.slots = slots
        """Room for trees, shared by all shards; whoever asks first is served first."""
        self.before = before
        """Set when the shard before has ended."""
        self.begun = asyncio.Event()
        """To be set when there is room for the next shard's trees."""
        self.ended = asyncio.Event()


async def overlapping(
    shards: Iterable[Shard], work: Callable[[Shard, Turn], Awaitable[None]], concurrency: int
) -> None:
    """Do `work` for each shard, two of them at once at most, begun and ended in order.

    The next one begins when every tree of the one before has. Where `work` commits something it
    waits for `turn.before` first. The first failure cancels the others.
    """
    slots, before = Room(concurrency), asyncio.Event()
    before.set()

    async def one(shard: Shard, turn: Turn) -> None:
        try:
            await work(shard, turn)
            await turn.before.wait()
        finally:
            turn.begun.set()
        turn.ended.set()  # not after a failure: nothing later may be committed then

    try:
        async with asyncio.TaskGroup() as group:
            for shard in shards:
                turn = Turn(slots, before)
                group.create_task(one(shard, turn))
                await turn.begun.wait()
                await before.wait()
                before = turn.ended
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


async def search_shard(
    warehouse: Warehouse,
    run_id: str,
    searches: Sequence[Search],
    config: SearchConfig,
    settings: BuildSettings,
    teaching: Teaching,
    purse: Purse,
    progress: Progress,
    turn: Turn | None = None,
) -> list[str]:
    """Search some questions side by side and commit their trees together; return their ids.

    Trees that the run's budget does not reach to are left for another run, whole or not.

    Args:
        turn: its place among shards that overlap; alone if left out.
    """
    slots = turn.slots if turn else Room(settings.concurrency)
    waiting = len(searches)

    async def one(wanted: Search) -> Tree | None:
        nonlocal waiting
        between = _watched(wanted.tree_id, config, purse, progress)
        async with slots:
            waiting -= 1
            if turn and not waiting:
                turn.begun.set()
            try:
                tree = await search_one(warehouse, wanted, config, teaching, between, slots.ahead)
            except OutOfBudget:
                return None
        teaching.vain.requests += tree.vain.requests
        teaching.vain.completion_tokens += tree.vain.completion_tokens
        right = any(reward >= 1.0 for _, reward in tree.outcomes())
        progress.tree(wanted.tree_id, right, tree.failed)
        return tree

    # A failure here concerns them all (no server, full disk): the others are cancelled.
    grown = await together(one(wanted) for wanted in searches)
    if turn:
        await turn.before.wait()
    trees = [tree for tree in grown if tree is not None and purse.allows(tree.tree_id)]
    rows = [
        search_rows(
            tree,
            config,
            teaching.journal.records(tree.tree_id),
            model=teaching.identity,
            seed=settings.seed,
        )
        for tree in trees
    ]
    await asyncio.to_thread(
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
    return [tree.tree_id for tree in trees]


def _watched(
    tree_id: str, config: SearchConfig, purse: Purse, progress: Progress
) -> Callable[[Spent], None]:
    """What a search calls between its waves: the purse's check, and word of how far it has come."""
    check, waves = purse.between(tree_id), itertools.count()

    def between(spent: Spent) -> None:
        check(spent)
        if config.strategy == "mcts":
            progress.grown(tree_id, next(waves) * config.wave / config.simulations)

    return between


async def search_one(
    warehouse: Warehouse,
    wanted: Search,
    config: SearchConfig,
    teaching: Teaching,
    between: Callable[[Spent], None] = lambda spent: None,
    ahead: Callable[[], int] = lambda: 0,
) -> Tree:
    """Search one question; one whose picture is lost makes a failed tree that says so."""
    question = wanted.question
    try:
        images = {i.image_id: read_image(warehouse, i.image_id) for i in question.images}
    except KeyError as lost:
        reason = f"image {lost.args[0]} is not among the warehouse's objects"
        return Tree(wanted.tree_id, question, Node(0, "", None), errors=(reason,))
    policy = TeacherPolicy(question, config, wanted.tree_id, teaching.asking, images)
    return await search(question, config, policy, grade, wanted.tree_id, between, ahead)
