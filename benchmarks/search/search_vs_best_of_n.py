"""Tree search against best-of-n at equal tokens, with the embedded teachers in process.

    for row in search_or_sample(limit=24, runs=5): ...
    python -m benchmarks.search.search_vs_best_of_n sat2 --tokens 100 --limit 60 --runs 3
    python -m benchmarks.search.search_vs_best_of_n vstar --family relative_position \
        --tokens 150 --set widening=0.7 distinct=true
    python -m benchmarks.search.search_vs_best_of_n sat2 --teacher nano-reader --split test \
        --home my-warehouse --set value_model=my-prm value_rollouts=1

`search_or_sample` searches the same questions of the embedded sample with the same tokens per tree,
as `vigorl build` does, each time in an empty warehouse and with another seed. The command asks what
searching is worth where sampling fails: best-of-n is given half of a question's tokens, and where
it finds no right answer, each strategy the other half. Chains come eight to a request, so best-of-n
writes more than a small budget says; the strategy is given as many tokens as that wrote, less half
of its own last wave (`--less`). Every search stops at its first right line.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.rows import Row
from curation.scores.bootstrap import clusters, difference
from flows.progress import Progress
from flows.settings import BuildSettings
from flows.stages.build import build, find_questions
from flows.stages.search import OpenTeacher, Search, TreeSlots, search_config, search_one
from flows.teachers.resolve import resolve
from mcts.budget import Budget
from mcts.concurrency import gather
from mcts.config import search_id
from mcts.data import Question
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.teachers.base import Teacher
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse

TREE_TOKENS = 3000  # about as many as 8 simulations of the embedded teacher
PLENTY = 1000


@dataclass(frozen=True, slots=True)
class BuildResult:
    """Time, trees and tokens of one build."""

    seconds: float
    trees: int
    kept: int
    completion_tokens: int

    @property
    def trees_per_hour(self) -> float:
        return 3600 * self.trees / self.seconds

    @property
    def kept_per_mtok(self) -> float:
        return 1e6 * self.kept / max(1, self.completion_tokens)


def build_once(
    strategy: str, limit: int, seed: int, tree_tokens: int = TREE_TOKENS, **given: Any
) -> BuildResult:
    """Search `limit` questions in an empty warehouse with `tree_tokens` tokens each.

    `given` are further fields of `BuildSettings`, such as another teacher than the embedded one.
    """
    plenty = {"simulations": PLENTY} if strategy == "mcts" else {"samples": PLENTY}
    with tempfile.TemporaryDirectory() as home:
        settings = BuildSettings.checked(
            task="sat2", strategy=strategy, limit=limit, seed=seed, tree_tokens=tree_tokens,
            home=home, **plenty, **given,
        )  # fmt: skip
        start = time.perf_counter()
        summary = asyncio.run(build(settings))
        seconds = time.perf_counter() - start
        written = query(Warehouse(home), "SELECT sum(completion_tokens) AS n FROM trees")
        return BuildResult(seconds, summary.trees, summary.kept, int(written["n"][0].as_py() or 0))


def search_or_sample(limit: int, runs: int) -> Iterator[Row]:
    """Yield the rows of both strategies, medians over `runs` seeds in turns, and their ratio."""
    every: dict[str, list[BuildResult]] = {"mcts": [], "best-of-n": []}
    for seed in range(runs):
        for strategy, found in every.items():
            found.append(build_once(strategy, limit, seed))
    of = f"(median of {runs})"
    kept = {}
    for strategy, found in every.items():
        pace = statistics.median(built.trees_per_hour for built in found)
        kept[strategy] = statistics.median(built.kept_per_mtok for built in found)
        yield Row(f"nano, {strategy}: trees per hour {of}", pace, "")
        yield Row("  kept traces per million tokens", kept[strategy], "")
    ratio = kept["mcts"] / max(kept["best-of-n"], 1e-9)
    yield Row("nano, search against best-of-n at equal tokens: kept traces", ratio)


FEWEST = 10
"""Questions that best-of-n must solve for their ratio to be held against a target."""


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
        self, questions: Sequence[Question], strategy: str, tokens: int | Sequence[int], seed: int,
        **given: Any,
    ) -> list[Solved]:  # fmt: skip
        """Search each question until its first right line, or until its `tokens` are written."""
        limits = [tokens] * len(questions) if isinstance(tokens, int) else tokens
        if strategy == "best-of-n":
            given = {}
        plenty = {"samples": PLENTY} if strategy == "best-of-n" else {"simulations": PLENTY}
        settings = BuildSettings.checked(
            task=self._task, strategy=strategy, enough=1, seed=seed,
            home=self._home, **plenty, **self._asked, **given,
        )  # fmt: skip
        config, slots = search_config(settings, resolve(settings)), TreeSlots(settings.concurrency)
        await self._teacher.open()
        identity = self._teacher.identity
        with Journal(self._warehouse.journal_dir) as journal:
            asked = JournaledTeacher(self._teacher, journal)
            opened = OpenTeacher(identity, asked, journal)

            async def one(question: Question, limit: int) -> Solved:
                limited = replace(config, budget=Budget(limit))
                named = Search(question, search_id(question, limited, seed, identity))
                async with slots:
                    tree = await search_one(self._warehouse, named, limited, opened)
                right = any(reward >= 1.0 for _, reward in tree.outcomes())
                return Solved(right, tree.usage.completion_tokens)

            found = await gather(map(one, questions, limits))
            await asked.settle()
        return found


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


def where_sampling_fails(
    task: str,
    strategy: str,
    limit: int,
    tokens: int,
    runs: int,
    family: str | None = None,
    less: int = 0,
    home: str | None = None,
    asked: dict[str, Any] | None = None,
    **given: Any,
) -> Iterator[Row]:
    """Yield what a strategy solves of the questions that best-of-n fails with `tokens` tokens.

    Best-of-n and the strategy are given `tokens` more, the strategy what best-of-n goes over it as
    well, and `less` fewer, since its own last wave goes over, too. `auto` begins with all questions
    and both halves instead, since it samples first by itself. `given` are settings of the strategy,
    `asked` of all. `home` is a warehouse that has its value model; else an empty one is made.
    """
    pairs: list[tuple[Question, Solved, Solved]] = []

    async def measure(bench: HalfBudget, seed: int) -> None:
        whole = list(bench.questions)
        found = await bench.search(whole, "best-of-n", tokens, 2 * seed)
        half = {q.question_id: done for q, done in zip(whole, found, strict=True)}
        failed = [question for question in whole if not half[question.question_id].right]
        again = await bench.search(failed, "best-of-n", tokens, 2 * seed + 1)
        if strategy != "auto":
            limits = [max(1, max(tokens, done.tokens) - less) for done in again]
            ours = await bench.search(failed, strategy, limits, 2 * seed, **given)
            pairs.extend(zip(failed, ours, again, strict=True))
            return
        ours = await bench.search(whole, strategy, 2 * tokens, 2 * seed, **given)
        more = {q.question_id: done for q, done in zip(failed, again, strict=True)}
        for question, found_here in zip(whole, ours, strict=True):
            first, then = half[question.question_id], more.get(question.question_id)
            both = Solved(then.right, first.tokens + then.tokens) if then else first
            pairs.append((question, found_here, both))

    with tempfile.TemporaryDirectory() as empty:
        bench = HalfBudget(task, limit, home or empty, family, asked)
        for seed in range(runs):
            asyncio.run(measure(bench, seed))
    scenes = clusters([[image.image_id for image in q.images] for q, _, _ in pairs])
    ours, theirs = ([float(pair[i].right) for pair in pairs] for i in (1, 2))
    asked = "questions asked" if strategy == "auto" else "questions that half the budget fails"
    yield Row(f"{task}, {tokens} tokens a half, {runs} seeds: {asked}", len(pairs), "")
    if not pairs:
        return
    yield Row(f"  {strategy} solves", sum(ours), "")
    yield Row("  best-of-n solves", sum(theirs), "")
    value, low, high = ratio(ours, theirs, scenes)
    target = 1.3 if sum(theirs) >= FEWEST else None  # of fewer, a ratio says nothing
    yield Row(f"  ratio ({low:.2f} .. {high:.2f}, 19 in 20)", value, at_least=target)
    gap = difference(ours, theirs, scenes)
    yield Row(f"  points more ({100 * gap.low:.1f} .. {100 * gap.high:.1f})", 100 * gap.value, "")
    spent = [sum(pair[i].tokens for pair in pairs) for i in (1, 2)]
    yield Row("  tokens written, of best-of-n's", spent[0] / max(1, spent[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Search against best-of-n where it fails.")
    parser.add_argument("task", choices=["sat2", "vstar"], help="sample, and so embedded teacher")
    parser.add_argument("--strategy", default="mcts", choices=["mcts", "linear", "auto"])
    parser.add_argument("--family", help="of the questions; all when left out")
    parser.add_argument("--limit", type=int, default=60, help="questions")
    parser.add_argument("--tokens", type=int, default=100, help="tokens of half a budget")
    parser.add_argument("--less", type=int, default=0, help="tokens that a last wave goes over")
    parser.add_argument("--runs", type=int, default=3, help="seeds")
    parser.add_argument("--home", help="a warehouse; an empty one when left out")
    parser.add_argument("--teacher", help="of all searches; the task's own when left out")
    parser.add_argument("--split", help="of the questions; train when left out")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="of a build")
    args = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in args.set)
    for row in where_sampling_fails(
        args.task,
        args.strategy,
        args.limit,
        args.tokens,
        args.runs,
        args.family,
        args.less,
        args.home,
        {name: value for name in ("teacher", "split") if (value := getattr(args, name))},
        **given,
    ):
        print(row.line(), flush=True)


if __name__ == "__main__":
    main()
