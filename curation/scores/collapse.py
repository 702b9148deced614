"""Whether a model that searches for its own training data narrows: in answers, places, words.

    checks = compare(before, now)         # of the searches before and of these, a Searched each
    [check.sentence for check in checks if check.failed]

A student that is trained on what it found itself may repeat itself: it gives few answers, points at
few places, and no longer finds what it does not find at once. Each measure is one of the questions'
searches, so both sides may have any number of questions, and other ones:

- `answers`: how often two questions' answers differ, by how often their gold answers do;
- `places`: how often two questions' points lie in different cells of a grid over the image;
- `pass@4`: how often one of four answers to a question is right;
- `grounded`: the share of steps that point at what they name;
- `length`: words of a trace.

A check fails where its measure falls (`length`: changes) by more than its margin, and by more than
luck explains: more than 1.64 standard errors of the difference, by the jackknife over questions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

K = 4
"""Answers of which one is to be right in `pass@4`."""
GRID = 8
"""Cells along each side of an image."""
FEWEST = 10
"""Questions that a measure wants on each side; with fewer it says nothing."""
_LUCK = 1.645  # standard errors: one of twenty differences without a cause is larger


@dataclass(frozen=True, slots=True)
class Searched:
    """What the search of one question came to."""

    ends: int
    """Answers that were graded."""
    right: int
    """Of these, the right ones."""
    answers: Mapping[str, int] = field(default_factory=dict)
    """How often each answer was given; empty where answers are places."""
    gold: str = ""
    """The gold answer, written as `answers` are."""
    places: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """How many points lie in each cell (`cell_of`)."""
    grounded: tuple[bool, ...] = ()
    """Of the steps of which it is known, whether they point at what they name."""
    lengths: tuple[int, ...] = ()
    """Words of each trace."""


class Margin(NamedTuple):
    """How far a measure may fall."""

    most: float
    relative: bool = True
    """Whether `most` is a share of what it was; else it is a difference."""
    both_ways: bool = False
    """Whether it may not rise by more either."""


MARGINS = {
    "answers": Margin(0.15),
    "places": Margin(0.15),
    f"pass@{K}": Margin(0.10, relative=False),
    "grounded": Margin(0.05, relative=False),
    "length": Margin(0.40, both_ways=True),
}
"""By measure; see above for what they are."""


@dataclass(frozen=True, slots=True)
class CollapseCheck:
    """One measure before and now."""

    name: str
    before: float
    now: float
    allowed: float
    """By how much it may fall, in its own unit."""
    error: float
    """Standard error of the difference."""
    failed: bool
    since: str = ""
    """What it was compared with."""

    @property
    def sentence(self) -> str:
        """Say what happened to it."""
        way = "falls" if self.now < self.before else "rises"
        return (
            f"{self.name} {way} from {self.before:.3g} to {self.now:.3g} since "
            f"{self.since or 'before'}, {self.allowed:.2g} are allowed"
        )


def cell_of(x: float, y: float, width: int, height: int) -> tuple[int, int]:
    """Return the cell of the grid that a point is in, in pixels of its image; edges count."""
    column, row = (int(GRID * part / side) for part, side in ((x, width), (y, height)))
    return min(max(column, 0), GRID - 1), min(max(row, 0), GRID - 1)


def compare(
    before: Sequence[Searched], now: Sequence[Searched], since: str = ""
) -> list[CollapseCheck]:
    """Check every measure that both sides have enough questions for.

    Args:
        since: what `before` is, for the sentences.
    """
    checks = []
    for name, margin in MARGINS.items():
        was, found = _MEASURES[name](before), _MEASURES[name](now)
        if was is None or found is None:
            continue
        allowed = margin.most * (was.value if margin.relative else 1.0)
        error = math.hypot(was.error, found.error)
        change = found.value - was.value
        harm = abs(change) if margin.both_ways else -change
        failed = harm > allowed and harm > _LUCK * error
        checks.append(CollapseCheck(name, was.value, found.value, allowed, error, failed, since))
    return checks


class _Measured(NamedTuple):
    value: float
    error: float


_Measure = Callable[[Sequence[Searched]], _Measured | None]


def _jackknife(value: float, without: np.ndarray) -> _Measured:
    """Return a value with its standard error, from the values without each of the questions."""
    n = len(without)
    return _Measured(value, float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())))


def _mean(values: Sequence[float]) -> _Measured | None:
    if len(values) < FEWEST:
        return None
    given = np.asarray(values, dtype=float)
    return _jackknife(float(given.mean()), (given.sum() - given) / (len(given) - 1))


def _apart(counts: Sequence[Mapping[Any, int]]) -> tuple[float, np.ndarray]:
    """Return how often two questions differ, and the same without each of the questions.

    One of the things counted is drawn of each of two questions: without bias for any number.
    """
    shares = [{k: n / sum(some.values()) for k, n in some.items()} for some in counts]
    total: defaultdict[Any, float] = defaultdict(float)
    for some in shares:
        for key, share in some.items():
            total[key] += share
    alike = np.array([sum(s * (total[k] - s) for k, s in some.items()) for some in shares])
    n = len(counts)
    # A question's pairs are counted from both sides, so without it twice its own are missing.
    without = 1 - (alike.sum() - 2 * alike) / ((n - 1) * (n - 2))
    return float(1 - alike.sum() / (n * (n - 1))), without


def _answers(searched: Sequence[Searched]) -> _Measured | None:
    some = [s for s in searched if s.gold and s.answers]
    if len(some) < FEWEST:
        return None
    given, given_without = _apart([s.answers for s in some])
    gold, gold_without = _apart([{s.gold: 1} for s in some])
    if not gold or not gold_without.all():
        return None  # all have one answer, as far as it goes
    return _jackknife(given / gold, given_without / gold_without)


def _places(searched: Sequence[Searched]) -> _Measured | None:
    some = [s.places for s in searched if s.places]
    return _jackknife(*_apart(some)) if len(some) >= FEWEST else None


def _pass_at_k(searched: Sequence[Searched]) -> _Measured | None:
    some = [s for s in searched if s.ends >= K]
    return _mean([1 - math.comb(s.ends - s.right, K) / math.comb(s.ends, K) for s in some])


def _grounded(searched: Sequence[Searched]) -> _Measured | None:
    return _mean([sum(s.grounded) / len(s.grounded) for s in searched if s.grounded])


def _length(searched: Sequence[Searched]) -> _Measured | None:
    return _mean([sum(s.lengths) / len(s.lengths) for s in searched if s.lengths])


_MEASURES: dict[str, _Measure] = {
    "answers": _answers,
    "places": _places,
    f"pass@{K}": _pass_at_k,
    "grounded": _grounded,
    "length": _length,
}
