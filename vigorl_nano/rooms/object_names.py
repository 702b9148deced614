"""Which objects a scene holds, drawn around the counting question that it will be asked.

names, count = sample_names(rng, 2, 5)      # [("red", "ball"), ...] and the question
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vigorl_nano.rooms.kinds import COLOURS, KINDS


@dataclass(frozen=True, slots=True)
class Count:
    """The one counting question a scene is built around, so that its answer is balanced."""

    attribute: str  # "kind" or "colour"
    value: str
    low: int
    high: int
    answer: int  # low or high


def sample_names(
    rng: np.random.Generator, low: int, high: int
) -> tuple[list[tuple[str, str]], Count]:
    """Distinct (colour, kind) pairs with a counting question whose two options are equally likely.

    The pair of options is drawn first and then which of them is true, so the options alone tell
    nothing about the answer.
    """
    pairs = [(a, a + 1, p) for a, p in ((1, 0.4), (2, 0.4), (3, 0.2)) if a + 1 <= high]
    weights = np.array([p for *_, p in pairs])
    first, second, _ = pairs[rng.choice(len(pairs), p=weights / weights.sum())]
    answer = int(rng.choice([first, second]))
    attribute = ("kind", "colour")[rng.integers(2)]
    values, others = (KINDS, tuple(COLOURS)) if attribute == "kind" else (tuple(COLOURS), KINDS)
    value = values[rng.integers(len(values))]
    total = int(rng.integers(max(low, answer), high + 1))
    chosen = [(value, others[i]) for i in rng.choice(len(others), answer, replace=False)]
    rest = [(v, o) for v in values if v != value for o in others]
    chosen += [rest[i] for i in rng.choice(len(rest), total - answer, replace=False)]
    rng.shuffle(chosen)
    names = [(o, v) if attribute == "kind" else (v, o) for v, o in chosen]
    return names, Count(attribute, value, first, second, answer)
