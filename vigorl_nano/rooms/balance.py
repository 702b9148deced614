"""Keeps words from giving answers away: counts what each hint has pointed to, and evens it out.

Every question carries notes, (cue, value) pairs: a cue is something the words show (a wording, a
kind in a role, a pair of kinds, a pair of options) and its value, 1 or -1, the answer it went with.
Where all values of a cue sum to nothing, the cue tells nothing. Two ways to get there:

    balance = Balance(slack=2)                 # while sampling: turn down what would tip a cue
    if balance.allows(notes):
        balance.add(notes)

    kept = even_out(list_of_notes, size=20)      # afterwards: the subset whose cues sum to least

The second is far the stronger for small sets: with a few questions a cue, sampling leaves an odd
one over, and odd ones lean the way rooms lean (sofas stand far away, vases are small).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Cue = tuple[str | int, ...]
Notes = tuple[tuple[Cue, float], ...]


@dataclass(slots=True)
class Balance:
    """Running sums by cue; `slack` is how far any of them may stray from 0."""

    slack: float = 1
    tally: defaultdict[Cue, float] = field(default_factory=lambda: defaultdict(float))

    def allows(self, notes: Notes) -> bool:
        """Return whether no cue ends up outside the slack, unless it was farther out before."""
        after = ((self.tally[cue], self.tally[cue] + value) for cue, value in notes)
        return all(abs(new) <= self.slack or abs(new) < abs(old) for old, new in after)

    def tips(self, notes: Notes) -> float:
        """Return by how much the sum of squares over all cues would grow; lower is better."""
        return sum(value * (value + 2 * self.tally[cue]) for cue, value in notes)

    def add(self, notes: Notes) -> None:
        for cue, value in notes:
            self.tally[cue] += value


def even_out(candidates: Sequence[Notes], size: int) -> list[int]:
    """Choose `size` candidates whose cues nearly cancel; return their indices, ascending.

    Starts with the first ones and swaps one for another, always the best swap for the sum of
    squares over cues, until none helps.
    """
    if size > len(candidates):
        raise ValueError(f"{size} wanted of {len(candidates)}")
    columns = {cue: i for i, cue in enumerate(dict.fromkeys(c for n in candidates for c, _ in n))}
    values = np.zeros((len(candidates), len(columns)))
    for row, notes in enumerate(candidates):
        for cue, value in notes:
            values[row, columns[cue]] += value
    products = values @ values.T
    lengths = np.diag(products)
    inside, outside = list(range(size)), list(range(size, len(candidates)))
    while outside:
        lean = values @ values[inside].sum(axis=0)
        leave = lengths[inside] - 2 * lean[inside]
        enter = lengths[outside] + 2 * lean[outside]
        change = leave[:, None] + enter[None] - 2 * products[np.ix_(inside, outside)]
        i, j = np.unravel_index(int(np.argmin(change)), change.shape)
        if change[i, j] > -1e-9:
            break
        inside[i], outside[j] = outside[j], inside[i]
    return sorted(inside)
