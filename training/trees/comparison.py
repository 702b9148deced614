"""What trees give beside chains of as many tokens: an equal-token comparison before a training.

    rows = compared_rows(dataset, seed, most=16)
    figures, sentence = comparison(chains, trees)       # one `SampledQuestion` a question each

Which questions those are depends on the seed alone. For each a group of chains is sampled, then a
tree that may write what those chains wrote. A tree begins with the same samples, so the two differ
in what the rest of the tokens is spent on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

from training.batches.live_groups import all_equal, further_rows
from warehouse.tables.schema import Row

_ANY_STEP = -1
_AS_MANY = 0.1
"""Share of the chains' tokens by which the trees' may differ and still be called equal."""


@dataclass(frozen=True, slots=True)
class SampledQuestion:
    """What one way of sampling gave for one question."""

    rewards: Sequence[float]
    """Of each completion; NaN where it has none."""
    right: Sequence[bool]
    """Whether each completion's answer is fully right."""
    answers: Sequence[str | None]
    tokens: int
    """Sampled; shared ones count once."""

    @property
    def live(self) -> bool:
        """Whether two completions earned different rewards, so that something can be learned."""
        return not all_equal(self.rewards)

    @property
    def distinct(self) -> int:
        """How many different answers there are."""
        return len({" ".join(answer.split()).casefold() for answer in self.answers if answer})


def compared_rows(dataset: Any, seed: int, most: int) -> list[Row]:
    """Return the questions that are compared, `most` at most."""
    return list(islice(further_rows(dataset, (), seed, _ANY_STEP), most))


def comparison(
    chains: Sequence[SampledQuestion], trees: Sequence[SampledQuestion]
) -> tuple[Row, str]:
    """Return the figures of both ways by their metric's name, and a sentence of them."""
    figures: Row = {"comparison/questions": float(len(trees))}
    told = []
    for name, found in (("trees", trees), ("chains", chains)):
        own = {
            "tokens": fmean(question.tokens for question in found),
            "completions": fmean(len(question.answers) for question in found),
            "live": fmean(question.live for question in found),
            "distinct": fmean(question.distinct for question in found),
            "right": fmean(right for question in found for right in question.right),
            "solved": fmean(any(question.right) for question in found),
        }
        figures |= {f"comparison/{name}/{figure}": value for figure, value in own.items()}
        told.append(
            f"{name}: {own['completions']:.1f} completions of {own['tokens']:.0f} tokens, "
            f"{own['live']:.0%} of the groups live, {own['distinct']:.1f} different answers, "
            f"{own['right']:.0%} of them right, {own['solved']:.0%} of the questions solved"
        )
    share = figures["comparison/trees/tokens"] / max(1.0, figures["comparison/chains/tokens"])
    spent = "equal tokens" if abs(share - 1) <= _AS_MANY else f"{share:.0%} of the chains' tokens"
    return figures, f"{len(trees)} questions at {spent}; {'; '.join(told)}"
