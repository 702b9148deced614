"""Searching a shard of questions: many trees side by side, committed together.

config = search_config(settings, chosen)
searches = name_searches(questions, config, settings.seed, chosen.teacher.identity)
added = await search_shard(warehouse, run_id, searches, config, settings, teaching, progress)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from curation.grading import grade
from flows.progress import Progress
from flows.settings import BuildSettings, Problem
from flows.teachers import ChosenTeacher
from mcts.data import Question, content_id
from mcts.journal import Journal, JournaledTeacher
from mcts.policy import TeacherPolicy
from mcts.prompts import load_prompt
from mcts.search import SearchConfig, search, search_id, together
from mcts.tree import Node, Tree
from warehouse.home import Warehouse
from warehouse.reading import rows_about
from warehouse.rows import read_image
from warehouse.tables import commit_trees
from warehouse.tree_rows import search_rows


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


def search_config(settings: BuildSettings, chosen: ChosenTeacher) -> SearchConfig:
    """The part of the settings that decides a search's outcome, and so its name."""
    try:
        prompt = load_prompt(settings.prompt or chosen.prompt)
    except ValueError as error:
        raise Problem(f"prompt: {error}") from None
    return SearchConfig(
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
    )


def name_searches(
    questions: Sequence[Question], config: SearchConfig, seed: int, teacher: str
) -> list[Search]:
    """Each question with the name of its search."""
    return [Search(q, search_id(q, config, seed, teacher)) for q in questions]


def committed(warehouse: Warehouse, tree_ids: Sequence[str]) -> set[str]:
    """Those of `tree_ids` that are in the warehouse already."""
    return {row["tree_id"] for row in rows_about(warehouse, tree_ids, "SELECT tree_id FROM trees")}


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


async def search_shard(
    warehouse: Warehouse,
    run_id: str,
    searches: Sequence[Search],
    config: SearchConfig,
    settings: BuildSettings,
    teaching: Teaching,
    progress: Progress,
) -> int:
    """Search some questions side by side and commit their trees together; return how many."""
    slots = asyncio.Semaphore(settings.concurrency)

    async def one(wanted: Search) -> Tree:
        async with slots:
            tree = await search_one(warehouse, wanted, config, teaching)
        progress.tree(any(reward >= 1.0 for _, reward in tree.outcomes()), tree.failed)
        return tree

    # A failure here concerns them all (no server, full disk): the others are cancelled.
    trees = await together(one(wanted) for wanted in searches)
    rows = [
        search_rows(
            tree,
            config,
            teaching.journal.records(wanted.tree_id),
            model=teaching.identity,
            seed=settings.seed,
        )
        for wanted, tree in zip(searches, trees, strict=True)
    ]
    commit = await asyncio.to_thread(
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
    return commit.added


async def search_one(
    warehouse: Warehouse, wanted: Search, config: SearchConfig, teaching: Teaching
) -> Tree:
    """Search one question; one whose picture is lost makes a failed tree that says so."""
    question = wanted.question
    try:
        images = {i.image_id: read_image(warehouse, i.image_id) for i in question.images}
    except KeyError as lost:
        reason = f"image {lost.args[0]} is not among the warehouse's objects"
        return Tree(wanted.tree_id, question, Node(0, "", None), errors=(reason,))
    policy = TeacherPolicy(question, config, wanted.tree_id, teaching.asking, images)
    return await search(question, config, policy, grade, wanted.tree_id)
