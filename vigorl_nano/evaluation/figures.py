"""From verdicts on sampled answers to shares with their intervals.

    found = measure(asked)              # {"all": {"pass@1": Figure(...), ...}, "count": ...}
    found["all"]["pass@1"].value, .low, .high

Intervals are bootstrap intervals that resample scenes, not questions: questions whose pictures
have a picture in common share their luck. All figures of a family are resampled together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from curation.filters.union_find import Groups
from vigorl_nano.evaluation.items import Verdict

DRAWS = 2000
MARGIN = 0.03  # blind success within this of chance counts as equal to it


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with what its samples were worth."""

    family: str
    images: tuple[str, ...]
    options: int
    gold: int
    """Which option is right."""
    seen: Sequence[Verdict]
    """One a sample, with the picture."""
    blind: Sequence[Verdict]
    """One a sample, with a grey picture."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A share (or, for the pointing error, a median) with its 95% interval."""

    value: float
    low: float
    high: float
    low90: float
    """The 90% interval: what two one-sided tests at 5% look at."""
    high90: float

    @property
    def near_zero(self) -> bool:
        """Whether the 90% interval lies within the margin around zero."""
        return self.low90 >= -MARGIN and self.high90 <= MARGIN


def measure(asked: Sequence[Asked], draws: int = DRAWS) -> dict[str, dict[str, Figure]]:
    """Every figure, over all questions (`all`) and for each family."""
    scenes = clusters([one.images for one in asked])
    families: dict[str, list[int]] = {"all": list(range(len(asked)))}
    for family in sorted({one.family for one in asked}):
        families[family] = [i for i, one in enumerate(asked) if one.family == family]
    return {
        family: _figures([asked[i] for i in some], [scenes[i] for i in some], draws)
        for family, some in families.items()
    }


def clusters(groups: Iterable[Sequence[str]]) -> list[int]:
    """A number for each group of pictures; groups that have a picture in common share theirs."""
    groups = list(groups)
    linked = Groups(name for group in groups for name in group)
    for group in groups:
        linked.join(group)
    numbers: dict[str, int] = {}
    return [numbers.setdefault(linked.name(group[0]), len(numbers)) for group in groups]


def shares(one: Asked) -> dict[str, tuple[float, float]]:
    """A question's part of each figure: what counts, and out of how many."""
    seen, blind, chance = one.seen, one.blind, 1 / one.options
    right, grounded = [v.right for v in seen], [v.grounded for v in seen]
    blind_right = float(np.mean([v.right for v in blind]))
    majority, grounded_majority = _vote(one)
    steps = sum(v.steps for v in seen)
    return {
        "chance": (chance, 1),
        "pass@1": (float(np.mean(right)), 1),
        "pass@n": (float(any(right)), 1),
        "majority": (majority, 1),
        "grounded pass@1": (float(np.mean(grounded)), 1),
        "grounded pass@n": (float(any(grounded)), 1),
        "grounded majority": (grounded_majority, 1),
        "blank pass@1": (blind_right, 1),
        "blank pass@n": (float(any(v.right for v in blind)), 1),
        "blank chance@n": (1 - (1 - chance) ** len(blind), 1),
        "blank - chance": (blind_right - chance, 1),
        "blank no option": (float(np.mean([v.choice < 0 for v in blind])), 1),
        "no option": (float(np.mean([v.choice < 0 for v in seen])), 1),
        "format": (float(np.mean([v.formed for v in seen])), 1),
        "on object": (sum(v.hits for v in seen), steps),
        "steps": (steps, len(seen)),
    }


def _vote(one: Asked) -> tuple[float, float]:
    """Whether the option named most often is right, and its share of grounded answers if it is.

    Options named equally often share the vote. An answer that names no option has no vote.
    """
    votes = Counter(v.choice for v in one.seen if v.choice >= 0)
    most = max(votes.values(), default=0)
    if not most or votes[one.gold] < most:
        return 0.0, 0.0
    share = 1 / sum(count == most for count in votes.values())
    return share, share * sum(v.grounded for v in one.seen) / most


def _figures(some: Sequence[Asked], scenes: Sequence[int], draws: int) -> dict[str, Figure]:
    parts = [shares(one) for one in some]
    names = list(parts[0])
    values = np.array([[part[name] for name in names] for part in parts], dtype=float)
    number = np.unique(scenes, return_inverse=True)[1]
    sums = np.zeros((number.max() + 1, *values.shape[1:]))
    np.add.at(sums, number, values)
    rng = np.random.default_rng(0)
    n = len(sums)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
    again = (counts @ sums.reshape(n, -1)).reshape(draws, len(names), 2)
    total = sums.sum(0)
    found = {}
    for i, name in enumerate(names):
        drawn = again[:, i, 0] / np.maximum(again[:, i, 1], 1e-9)
        found[name] = _figure(total[i, 0] / max(total[i, 1], 1e-9), drawn)
    found["pointing error"] = _error(some, number, counts)
    return found


def _error(some: Sequence[Asked], number: np.ndarray, counts: np.ndarray) -> Figure:
    """The median distance of a point from the middle of its object, NaN without points."""
    by_scene: dict[int, list[float]] = defaultdict(list)
    for one, scene in zip(some, number.tolist(), strict=True):
        by_scene[scene] += [error for v in one.seen for error in v.errors]
    pairs = sorted((error, scene) for scene, errors in by_scene.items() for error in errors)
    if not pairs:
        return _figure(float("nan"), np.full(1, np.nan))
    errors = np.array([error for error, _ in pairs])
    of = np.array([scene for _, scene in pairs])
    medians = []
    for weights in counts[:200]:  # a median moves little, and costs a pass over every point
        reached = np.cumsum(weights[of])
        medians.append(errors[np.searchsorted(reached, reached[-1] / 2)])
    return _figure(float(np.median(errors)), np.array(medians))


def _figure(value: float, drawn: np.ndarray) -> Figure:
    low, low90, high90, high = np.percentile(drawn, [2.5, 5, 95, 97.5])
    return Figure(float(value), float(low), float(high), float(low90), float(high90))
