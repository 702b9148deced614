"""Search of a shard of questions: many trees side by side, committed together.

config = search_config(settings, resolved)
searches = name_searches(warehouse, settings, questions, config, resolved.teacher.identity)
budget.begin([s.tree_id for s in searches], {})
ids = await search_shard(warehouse, run_id, searches, config, settings, opened, budget, progress)

A shard ends with its slowest tree, and a server must not wait for that: `overlapping` lets the
next shard's trees begin as soon as there is room for them, and shards still end one after another.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from curation.grading.grade import grade
from flows.progress import Progress
from flows.settings import BuildSettings
from flows.settings_base import FieldProblem
from flows.stages.node_values import find_value_model, valuer_of
from flows.stages.run_budget import OutOfBudget, RunBudget
from flows.teachers.resolve import ResolvedTeacher
from flows.teachers.response_styles import search_style, way_of_asking
from mcts.baselines import CHAINS_PER_REQUEST
from mcts.budget import Budget, Usage
from mcts.concurrency import gather
from mcts.config import SearchConfig, search_id
from mcts.data import Question, ResponseStyle, content_id
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.prompts import load_prompt
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.tree import Node, Tree
from warehouse.query.read_back import rows_about
from warehouse.sources import task_of
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees
from warehouse.tables.rows import read_image
from warehouse.tables.tree_rows import SearchRows, search_rows

# Chains a baseline samples where its tree budget alone is to stop it.
MOST_SAMPLES = 1024
_ONLY_MCTS = ("simulations", "children", "rollouts", "exploration", "widening", "distinct",
              "value_model", "value_weight", "value_rollouts", "keep_rollouts", "stay",
              "scale_exploration", "policy_prior")  # fmt: skip

Shard = TypeVar("Shard")


@dataclass(frozen=True, slots=True)
class Search:
    """One question's search and its id."""

    question: Question
    tree_id: str


@dataclass(frozen=True, slots=True)
class OpenTeacher:
    """A teacher that is open, behind its journal."""

    identity: str
    teacher: JournaledTeacher
    journal: Journal
    unused_prefetch: Usage = field(default_factory=Usage)
    """What trees prefetched and did not use (`mcts.prefetch`); no tree's rows count it."""


def search_config(settings: BuildSettings, resolved: ResolvedTeacher) -> SearchConfig:
    """Return the part of the settings that decides a search's outcome, and so its name.

    A field of `SearchConfig` that a build has under the same name is taken from it.

    Raises:
        Problem: there is no such prompt, or the teacher has none for the response style.
    """
    task = task_of(settings.task)
    style = ResponseStyle(settings.response_style or search_style(resolved, task))
    way = way_of_asking(settings, resolved, task, style, settings.prompt)
    try:
        prompt = load_prompt(way.prompt)
    except ValueError as error:
        raise FieldProblem("prompt", str(error)) from None
    shared = {found.name: getattr(settings, found.name, None) for found in fields(SearchConfig)}
    values: dict[str, Any] = {
        "step_tokens": resolved.step_tokens,
        **{name: value for name, value in shared.items() if value is not None},
        "space": resolved.space,
        "prompt": prompt.name,
        "prompt_digest": prompt.digest,
        "zoom": way.zoom,
        "value_model": find_value_model(
            settings.home, settings.value_model, zooms=way.zoom is not None
        ),
        "bounded": resolved.bounded,
        "budget": Budget(settings.tree_tokens, settings.tree_requests, settings.tree_seconds),
    }
    config = _with_room(SearchConfig(**values))
    if config.strategy == "mcts":
        return config
    if config.strategy == "auto":
        return replace(config, samples=settings.samples or CHAINS_PER_REQUEST)
    # What a baseline does not use must not be part of its searches' names.
    plain = SearchConfig(resolved.space)
    unlimited = plain.samples if config.budget == Budget() else MOST_SAMPLES
    unused = {name: getattr(plain, name) for name in _ONLY_MCTS}
    return replace(config, samples=settings.samples or unlimited, **unused)


def _with_room(config: SearchConfig) -> SearchConfig:
    """Return the configuration with steps for as many crops as were asked for, and an answer.

    What was not left at its default stays as it is.
    """
    plain = SearchConfig(config.space)
    if config.zoom is None or config.zoom.max_calls < plain.rollout_steps:
        return config
    steps = config.zoom.max_calls + 1
    depth = config.max_depth
    if depth == plain.max_depth:
        depth = max(depth, steps)
    return replace(config, rollout_steps=steps, max_depth=depth)


def name_searches(
    warehouse: Warehouse,
    settings: BuildSettings,
    questions: Sequence[Question],
    config: SearchConfig,
    teacher: str,
) -> list[Search]:
    """Name each question's search by a teacher of this identity.

    With `retry_failed` a search whose tree failed gets a new name, so that it is tried again and
    the failure is kept.
    """
    searches = [Search(q, search_id(q, config, settings.seed, teacher)) for q in questions]
    while settings.retry_failed:
        ids = [s.tree_id for s in searches]
        found = rows_about(warehouse, ids, "SELECT tree_id FROM trees WHERE status = 'failed'")
        failed = {row["tree_id"] for row in found}
        if not failed:
            break
        searches = [
            Search(s.question, content_id(s.tree_id, "again")) if s.tree_id in failed else s
            for s in searches
        ]
    return searches


def committed(warehouse: Warehouse, tree_ids: Sequence[str]) -> dict[str, Usage]:
    """Return those of `tree_ids` that are in the warehouse already, with what they cost."""
    sql = "SELECT tree_id, requests, prompt_tokens, completion_tokens FROM trees"
    return {
        row["tree_id"]: Usage(row["requests"], row["prompt_tokens"], row["completion_tokens"])
        for row in rows_about(warehouse, tree_ids, sql)
    }


class TreeSlots(asyncio.Semaphore):
    """Slots for `size` trees at once; where fewer run, they prefetch in what is left."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._size, self._running = size, 0

    async def acquire(self) -> Literal[True]:
        """Wait for a slot."""
        await super().acquire()
        self._running += 1
        return True

    def release(self) -> None:
        """Give a slot back."""
        self._running -= 1
        super().release()

    def prefetch(self) -> int:
        """Return how many leaves each running tree may prefetch: together they fill the slots."""
        return max(0, self._size // max(1, self._running) - 1)


class ShardTurn:
    """A shard's place in the order of shards."""

    def __init__(self, slots: TreeSlots, before: asyncio.Event) -> None:
        self.slots = slots
        """Slots for trees, shared by all shards, first come first served."""
        self.before = before
        """Set when the shard before has ended."""
        self.begun = asyncio.Event()
        """To be set when there is room for the next shard's trees."""
        self.ended = asyncio.Event()


async def overlapping(
    shards: Iterable[Shard], work: Callable[[Shard, ShardTurn], Awaitable[None]], concurrency: int
) -> None:
    """Do `work` for each shard, two of them at once at most, begun and ended in order.

    The next one begins when every tree of the one before has. Where `work` commits something it
    waits for `turn.before` first. The first failure cancels the others.
    """
    slots, before = TreeSlots(concurrency), asyncio.Event()
    before.set()

    async def one(shard: Shard, turn: ShardTurn) -> None:
        try:
            await work(shard, turn)
            await turn.before.wait()
        finally:
            turn.begun.set()
        turn.ended.set()  # not after a failure: nothing later may be committed then

    try:
        async with asyncio.TaskGroup() as group:
            for shard in shards:
                turn = ShardTurn(slots, before)
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
    opened: OpenTeacher,
    budget: RunBudget,
    progress: Progress,
    turn: ShardTurn | None = None,
) -> list[str]:
    """Search some questions side by side and commit their trees together; return their ids.

    Trees that the run's budget does not reach to are left for another run, whole or not.

    Args:
        turn: its place among shards that overlap; alone if left out.
    """
    slots = turn.slots if turn else TreeSlots(settings.concurrency)
    waiting = len(searches)

    async def one(named: Search) -> Tree | None:
        nonlocal waiting
        between = _between(named.tree_id, config, budget, progress)
        async with slots:
            waiting -= 1
            if turn and not waiting:
                turn.begun.set()
            try:
                tree = await search_one(warehouse, named, config, opened, between, slots.prefetch)
            except OutOfBudget:
                return None
        opened.unused_prefetch.requests += tree.unused_prefetch.requests
        opened.unused_prefetch.completion_tokens += tree.unused_prefetch.completion_tokens
        right = any(reward >= 1.0 for _, reward in tree.outcomes())
        progress.tree(named.tree_id, right, tree.failed)
        return tree

    # A failure here concerns them all (no server, full disk): the others are cancelled.
    searched = await gather(one(named) for named in searches)
    if turn:
        await turn.before.wait()
    trees = [tree for tree in searched if tree is not None and budget.allows(tree.tree_id)]
    await opened.teacher.settle(tree.tree_id for tree in trees)
    rows = [
        search_rows(
            tree,
            config,
            opened.journal.records(tree.tree_id),
            model=opened.identity,
            seed=settings.seed,
        )
        for tree in trees
    ]
    await asyncio.to_thread(commit_trees, warehouse, SearchRows.joined(rows), run_id=run_id)
    for tree in trees:  # an unfinished one's answers are paid for, and looked for again
        opened.journal.forget(tree.tree_id)
    return [tree.tree_id for tree in trees]


def _between(
    tree_id: str, config: SearchConfig, budget: RunBudget, progress: Progress
) -> Callable[[Usage], None]:
    """Return what a search calls between its waves: it checks the budget and reports progress."""
    check, waves = budget.between(tree_id), itertools.count()

    def between(usage: Usage) -> None:
        check(usage)
        if config.strategy == "mcts":
            progress.grown(tree_id, next(waves) * config.wave / config.simulations)

    return between


async def search_one(
    warehouse: Warehouse,
    named: Search,
    config: SearchConfig,
    opened: OpenTeacher,
    between: Callable[[Usage], None] = lambda usage: None,
    prefetch: Callable[[], int] = lambda: 0,
) -> Tree:
    """Search one question; one whose image is lost makes a failed tree that says so."""
    question = named.question
    try:
        images = {i.image_id: read_image(warehouse, i.image_id) for i in question.images}
    except KeyError as lost:
        reason = f"image {lost.args[0]} is not among the warehouse's objects"
        return Tree(named.tree_id, question, Node(0, "", None), errors=(reason,))
    policy = TeacherPolicy(question, config, named.tree_id, opened.teacher, images)
    valuer = await valuer_of(warehouse, config, question)
    return await search(question, config, policy, grade, named.tree_id, between, prefetch, valuer)
