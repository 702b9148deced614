"""Bootstrap intervals of means and of paired differences, which resample images.

    scenes = clusters([question_image_ids, ...])          # questions that share an image, together
    mean_of(scores, scenes)                               # Estimate(value, low, high, n, clusters)
    difference(scores_a, scores_b, scenes)                # paired: the same questions, in one order
    mcnemar(scores_a, scores_b)                           # exact, on right or wrong

Questions about one image share its luck, so intervals resample images (with all questions about
them), never questions. Everything follows from the seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from curation.filters.union_find import UnionFind

DRAWS = 2000
_AT_ONCE = 100  # draws held in memory together


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval, of 95% by default."""

    value: float
    low: float
    high: float
    n: int
    """Questions it is the mean of."""
    clusters: int
    """Groups of questions without an image in common."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much better the first of two models is on the same questions."""

    value: float
    """Mean of the first minus mean of the second."""
    low: float
    """Lower end of the 95% interval."""
    high: float
    """Upper end of the 95% interval."""
    p: float
    """Two-sided: the larger one of that from the same draws and of how often signs drawn for each
    group of images give as large a difference; the smallest it can be is 2 over the number of draws
    and one, or of few groups what a sign test of them all on one side gives."""
    only_first: int
    """Questions the first alone has right, by its first sample."""
    only_second: int
    """Questions the second alone has right."""
    mcnemar: float
    """Two-sided p of the exact McNemar test on those two; it takes questions for independent."""
    n: int
    clusters: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero, and there are groups of images enough to say so."""
        return (self.low > 0 or self.high < 0) and self.p <= 0.05

    @property
    def doubt(self) -> str:
        """What keeps it from being clear, as the end of a sentence; empty where nothing does."""
        if self.low <= 0 <= self.high:
            return ", which includes 0"
        return "" if self.clear else f", of too few groups of images to tell ({self.clusters})"


def clusters(groups: Iterable[Sequence[str]]) -> list[int]:
    """Number the groups of images; groups that have an image in common share a number."""
    groups = list(groups)
    linked = UnionFind(name for group in groups for name in group)
    for group in groups:
        linked.union(group)
    numbers: dict[str, int] = {}
    return [numbers.setdefault(linked.find(group[0]), len(numbers)) for group in groups]


def mean_of(
    values: Sequence[float], scenes: Sequence[int], *, level: float = 0.95, seed: int = 0
) -> Estimate:
    """Compute the mean of `values`, one a question, with its interval.

    Args:
        scenes: a number for each question, the same for those that belong together.
        level: of the interval; 0.9 for two one-sided tests at 5%.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there is nothing to take the mean of")
    sums, counts = _by_scene(values, scenes)
    drawn = np.concatenate([(w @ sums) / (w @ counts) for w in _weights(len(sums), seed)])
    tail = round(50 * (1 - level), 6)
    low, high = _interval(drawn, [tail, 100 - tail], values, len(sums))
    return Estimate(float(np.mean(values)), float(low), float(high), len(values), len(sums))


def difference(
    first: Sequence[float], second: Sequence[float], scenes: Sequence[int], *, seed: int = 0
) -> PairedDifference:
    """Compute how much better `first` is than `second`, question by question in one order.

    Where a value is the mean of several samples, McNemar takes more than half for right.

    Raises:
        ValueError: there are no values, or not as many of one as of the other.
    """
    if not first and not second:
        raise ValueError("there is nothing to compare")
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values can't be paired")
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    sums, counts = _by_scene(gaps, scenes)
    drawn = np.concatenate([(w @ sums) / (w @ counts) for w in _weights(len(sums), seed)])
    low, high = _interval(drawn, [2.5, 97.5], gaps, len(sums))
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    # No fewer scenes than that can show it: all may lie on one side by chance.
    # Percentiles of few scenes promise too much, and signs that are drawn for each do not.
    p = max(2 * (1 + tail) / (1 + len(drawn)), 2.0 ** (1 - len(sums)), _sign_flip(sums, seed))
    p = min(1.0, p)
    only_first, only_second, exact = mcnemar(first, second)
    value = float(np.mean(gaps))
    return PairedDifference(
        value, float(low), float(high), p, only_first, only_second, exact, len(gaps), len(sums)
    )


def _sign_flip(sums: np.ndarray, seed: int) -> float:
    """Return how often random signs of the scenes' sums give as large a sum, either way.

    Drawn, as these sums may be any numbers; `curation.scores.gate.sign_flip` is exact, of scores.
    """
    found, rng, total = 0, np.random.default_rng(seed), abs(float(sums.sum()))
    for start in range(0, DRAWS, _AT_ONCE):
        size = (min(_AT_ONCE, DRAWS - start), len(sums))
        signs = 2.0 * rng.integers(0, 2, size=size) - 1
        found += int((np.abs(signs @ sums) >= total - 1e-9).sum())
    return (1 + found) / (1 + DRAWS)


def mcnemar(first: Sequence[float], second: Sequence[float]) -> tuple[int, int, float]:
    """Count how many only the first has right, and only the second; with the exact two-sided p."""
    pairs = [(a > 0.5, b > 0.5) for a, b in zip(first, second, strict=True)]
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    n, k = only_first + only_second, min(only_first, only_second)
    # log of the binomial coefficients, so that thousands of pairs do not overflow.
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
        for i in range(k + 1)
    ]
    return only_first, only_second, min(1.0, 2 * math.fsum(map(math.exp, logs)))


def _interval(
    drawn: np.ndarray, percentiles: Sequence[float], values: Sequence[float], scenes: int
) -> tuple[float, float]:
    """Return the ends of an interval; of one scene, which tells nothing of others, all values."""
    if scenes == 1:
        return min(values), max(values)
    low, high = np.percentile(drawn, percentiles)
    return float(low), float(high)


def _by_scene(values: Sequence[float], scenes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the values and number of questions of each scene."""
    number = np.unique(np.asarray(scenes), return_inverse=True)[1]
    sums = np.bincount(number, weights=np.asarray(values, dtype=float))
    return sums, np.bincount(number).astype(float)


def _weights(n: int, seed: int) -> Iterator[np.ndarray]:
    """Return how often each of `n` scenes is drawn, some draws at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, DRAWS, _AT_ONCE):
        size = min(_AT_ONCE, DRAWS - start)
        yield rng.multinomial(n, np.full(n, 1 / n), size=size).astype(float)
