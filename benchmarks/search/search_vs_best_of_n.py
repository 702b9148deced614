"""Tree search against best-of-n at equal tokens, with the embedded teacher in process.

    for row in search_or_sample(limit=24, runs=5): ...

Both strategies search the same questions of the embedded sample with the same tokens per tree, as
`vigorl build` does, each time in an empty warehouse and with another seed.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.rows import Row
from flows.settings import BuildSettings
from flows.stages.build import build
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
