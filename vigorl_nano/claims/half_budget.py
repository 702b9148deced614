"""Searches where sampling fails: best-of-n and another strategy at equal tokens, side by side.

    pairs = where_sampling_fails("vstar", "mcts", 80, 120, seeds=range(4), home="my-warehouse")
    for question, ours, theirs in pairs:
        ours.right, theirs.right
    ratio([1, 1, 0], [1, 0, 0], scenes=[0, 0, 1])       # 2.0, and its interval

Best-of-n is given half of a question's tokens or of its chains, and where it finds no right answer,
each strategy the other half. Chains come eight to a request, so best-of-n writes more than a small
budget of tokens says; the strategy is given as many tokens as that wrote, less half of its own last
wave. Every search stops at its first right line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flows.progress import Progress
from flows.settings import BuildSettings
from flows.stages.build import find_questions
from flows.stages.search import OpenTeacher, Search, TreeSlots, search_config, search_one
from flows.teachers.resolve import resolve
from mcts.budget import Budget
from mcts.concurrency import gather
from mcts.config import search_id
from mcts.data import Question
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.teachers.base import Teacher
from warehouse.storage.home import Warehouse

PLENTY = 1000
"""Simulations or chains that no budget here lets a search reach."""


@dataclass(frozen=True, slots=True)
class Solved:
    """What a search of one question came to."""

    right: bool
    tokens: int
    """Completion tokens; the last wave may go over the limit."""


class HalfBudget:
    """Searches questions of a task's sample with a limit of tokens each, in one warehouse."""

    def __init__(
        self, task: str, limit: int, home: str, family: str | None = None,
        asked: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """`asked` are fields of `BuildSettings` for all strategies: the teacher, the split."""
        self._task, self._home, self._warehouse = task, home, Warehouse(home)
        self._asked = asked or {}
        settings = BuildSettings.checked(task=task, home=home, **self._asked)
        self._teacher: Teacher = resolve(settings).teacher
        every = asyncio.run(find_questions(self._warehouse, settings, Progress()))
        self.questions: Sequence[Question] = [
            question for question in every if family in (None, question.family)
        ][:limit]

    async def search(
        self, questions: Sequence[Question], strategy: str, tokens: int | Sequence[int] | None,
        seed: int, chains: int | None = None, **given: Any,
    ) -> list[Solved]:  # fmt: skip
        """Search each question until its first right line, or until its `tokens` are written.

        Args:
            given: settings of the strategy; its teacher, where it is not the one of all.
            chains: that best-of-n samples at most.
        """
        limits = tokens if isinstance(tokens, Sequence) else [tokens] * len(questions)
        plenty = {"simulations": PLENTY}
        if strategy == "best-of-n":
            plenty, given = {"samples": chains or PLENTY}, {}
        settings = BuildSettings.checked(
            task=self._task, strategy=strategy, enough=1, seed=seed,
            home=self._home, **plenty, **{**self._asked, **given},
        )  # fmt: skip
        way = resolve(settings)
        config, slots = search_config(settings, way), TreeSlots(settings.concurrency)
        teacher = way.teacher if "teacher" in given else self._teacher
        await teacher.open()
        identity = teacher.identity
        with Journal(self._warehouse.journal_dir) as journal:
            asked = JournaledTeacher(teacher, journal)
            opened = OpenTeacher(identity, asked, journal)

            async def one(question: Question, limit: int | None) -> Solved:
                limited = replace(config, budget=Budget(limit))
                named = Search(question, search_id(question, limited, seed, identity))
                async with slots:
                    tree = await search_one(self._warehouse, named, limited, opened)
                right = any(reward >= 1.0 for _, reward in tree.outcomes())
                return Solved(right, tree.usage.completion_tokens)

            found = await gather(map(one, questions, limits))
            await asked.settle()
        return found


Pair = tuple[Question, Solved, Solved]
"""A question, what the strategy came to, and what best-of-n did."""


def where_sampling_fails(
    task: str,
    strategy: str,
    limit: int,
    tokens: int | None,
    seeds: Sequence[int],
    *,
    home: str,
    family: str | None = None,
    less: int = 0,
    chains: int | None = None,
    asked: dict[str, Any] | None = None,
    **given: Any,
) -> list[Pair]:
    """Search the questions that best-of-n fails with `tokens` tokens, in both ways.

    Best-of-n and the strategy are given `tokens` more, the strategy what best-of-n goes over it as
    well, and `less` fewer, since its own last wave goes over, too. `auto` begins with all questions
    and both halves instead, since it samples first by itself. `given` are settings of the strategy,
    `asked` of all. Nothing but the journal of the warehouse `home` is written.

    Args:
        tokens: of half a budget; None where `chains` alone are its limit, for all but `auto`.
        chains: that best-of-n samples with half a budget, at most.
    """
    bench = HalfBudget(task, limit, home, family, asked)
    return [
        pair
        for seed in seeds
        for pair in asyncio.run(_both(bench, strategy, tokens, seed, less, chains, given))
    ]


async def _both(
    bench: HalfBudget, strategy: str, tokens: int | None, seed: int, less: int,
    chains: int | None, given: dict[str, Any],
) -> list[Pair]:  # fmt: skip
    whole = list(bench.questions)
    found = await bench.search(whole, "best-of-n", tokens, 2 * seed, chains)
    half = {q.question_id: done for q, done in zip(whole, found, strict=True)}
    failed = [question for question in whole if not half[question.question_id].right]
    again = await bench.search(failed, "best-of-n", tokens, 2 * seed + 1, chains)
    if strategy != "auto":
        limits = [max(1, max(tokens or 1, done.tokens) - less) for done in again]
        ours = await bench.search(failed, strategy, limits, 2 * seed, **given)
        return list(zip(failed, ours, again, strict=True))
    assert tokens is not None, "auto samples chains by itself: its limit is of tokens"
    ours = await bench.search(whole, strategy, 2 * tokens, 2 * seed, **given)
    more = {q.question_id: done for q, done in zip(failed, again, strict=True)}
    pairs = []
    for question, found_here in zip(whole, ours, strict=True):
        first, then = half[question.question_id], more.get(question.question_id)
        both = Solved(then.right, first.tokens + then.tokens) if then else first
        pairs.append((question, found_here, both))
    return pairs


def ratio(
    first: Sequence[float], second: Sequence[float], scenes: Sequence[int]
) -> tuple[float, float, float]:
    """Return the ratio of two sums over the same questions, and its 95% interval.

    The interval draws whole scenes, as `curation.scores.bootstrap` does.
    """
    number = np.unique(np.asarray(scenes), return_inverse=True)[1]
    a, b = (np.bincount(number, weights=values) for values in (first, second))
    drawn = np.random.default_rng(0).multinomial(len(a), np.full(len(a), 1 / len(a)), size=4000)
    ratios = (drawn @ a) / np.maximum(drawn @ b, 0.5)  # no question solved counts as half of one
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(a.sum() / max(b.sum(), 0.5)), float(low), float(high)
