"""Tree search against best-of-n at equal tokens, with the embedded teachers in process.

    for row in search_or_sample(limit=24, runs=5): ...
    python -m benchmarks.search.search_vs_best_of_n sat2 --tokens 100 --limit 60 --runs 3
    python -m benchmarks.search.search_vs_best_of_n vstar --family relative_position \
        --tokens 150 --set widening=0.7 distinct=true
    python -m benchmarks.search.search_vs_best_of_n sat2 --teacher nano-reader --split test \
        --home my-warehouse --set value_model=my-prm value_rollouts=1

`search_or_sample` searches the same questions of the embedded sample with the same tokens per tree,
as `vigorl build` does, each time in an empty warehouse and with another seed. The command asks what
searching is worth where sampling fails (`vigorl_nano.claims.half_budget`); `--less` evens out what
a strategy's own last wave goes over.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.rows import Row
from curation.scores.bootstrap import clusters, difference
from flows.settings import BuildSettings
from flows.stages.build import build
from vigorl_nano.claims.half_budget import PLENTY, ratio, where_sampling_fails
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse

TREE_TOKENS = 3000  # about as many as 8 simulations of the embedded teacher


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


def failed_questions(
    task: str,
    strategy: str,
    limit: int,
    tokens: int | None,
    runs: int,
    home: str | None = None,
    **given: Any,
) -> Iterator[Row]:
    """Yield what a strategy solves of the questions that best-of-n fails with `tokens` tokens.

    `given` is for `where_sampling_fails`. `home` is a warehouse that has the strategy's value
    model; an empty one is made where there is none.
    """
    with tempfile.TemporaryDirectory() as empty:
        seeds = range(runs)
        pairs = where_sampling_fails(
            task, strategy, limit, tokens, seeds, home=home or empty, **given
        )
    asked = "questions asked" if strategy == "auto" else "questions that half the budget fails"
    half = f"{given['chains']} chains" if tokens is None else f"{tokens} tokens"
    yield Row(f"{task}, {half} a half, {runs} seeds: {asked}", len(pairs), "")
    if not pairs:
        return
    scenes = clusters([[image.image_id for image in q.images] for q, _, _ in pairs])
    ours, theirs = ([float(pair[i].right) for pair in pairs] for i in (1, 2))
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
    parser.add_argument("--chains", type=int, help="chains of half a budget, in place of tokens")
    parser.add_argument("--less", type=int, default=0, help="tokens that a last wave goes over")
    parser.add_argument("--runs", type=int, default=3, help="seeds")
    parser.add_argument("--home", help="a warehouse; an empty one when left out")
    parser.add_argument("--teacher", help="of all searches; the task's own when left out")
    parser.add_argument("--split", help="of the questions; train when left out")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="of a build")
    args = parser.parse_args()
    if args.chains is not None and (args.chains < 1 or args.strategy == "auto"):
        parser.error("--chains: at least 1, and not of auto, whose limit is --tokens")
    given = dict(pair.split("=", 1) for pair in args.set)
    for row in failed_questions(
        args.task,
        args.strategy,
        args.limit,
        None if args.chains else args.tokens,
        args.runs,
        args.home,
        family=args.family,
        chains=args.chains,
        less=args.less,
        asked={name: value for name in ("teacher", "split") if (value := getattr(args, name))},
        **given,
    ):
        print(row.line(), flush=True)


if __name__ == "__main__":
    main()
