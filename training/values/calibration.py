"""How well predicted step values agree with observed ones: by depth, on questions not trained on.

    rows = calibration([Scored(depth, predicted, observed, visits), …], mean=0.7)
    rows[0].brier, rows[0].baseline, rows[0].ece

Every answer behind a step is one observation of it, right or wrong. The Brier score (Brier 1950) is
the mean squared difference of prediction and observation; it can't fall below what the luck of the
answers leaves. The expected calibration error (Naeini et al. 2015; Guo et al., arXiv 1706.04599) is
the mean distance of prediction and observation over ten bins of equal width. The baseline
predicts the mean of the training targets of everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.values.lines import ANSWER_DEPTH

BINS = 10
DEEPEST = 6
"""Steps from this depth on are told together."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A target and what was predicted of it."""

    depth: int
    """Of a step, from 1; `ANSWER_DEPTH` for an answer."""
    predicted: float
    observed: float
    """Mean of its observations."""
    visits: int
    """Their number."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Figures of the steps of one depth."""

    name: str
    """`step_1`, …, `answer`, `all`."""
    steps: int
    visits: int
    predicted: float
    """Mean prediction, over the observations."""
    observed: float
    brier: float
    baseline: float
    """Brier score of the constant mean."""
    ece: float

    def sentence(self) -> str:
        """Say the figures."""
        return (
            f"{self.name.replace('_', ' ')}: {self.steps} held out, predicted "
            f"{self.predicted:.3f}, observed {self.observed:.3f}, Brier score {self.brier:.3f} "
            f"(constant mean {self.baseline:.3f}), calibration error {self.ece:.3f}"
        )

    def metrics(self) -> dict[str, float]:
        """Return the figures as a run's metrics."""
        names = ("steps", "predicted", "observed", "brier", "baseline", "ece")
        return {f"calibration/{self.name}/{name}": getattr(self, name) for name in names}


def calibration(scored: Iterable[Scored], mean: float) -> list[Calibration]:
    """Compute the figures of all, of each depth, and of answers.

    Args:
        mean: what the baseline predicts.
    """
    groups: dict[int, list[Scored]] = {}
    every = list(scored)
    for one in every:
        groups.setdefault(min(one.depth, DEEPEST), []).append(one)
    answers = groups.pop(ANSWER_DEPTH, [])
    found = [_figures("all", every, mean)] if every else []
    for depth, some in sorted(groups.items()):
        more = "_and_on" if depth == DEEPEST else ""
        found.append(_figures(f"step_{depth}{more}", some, mean))
    return found + ([_figures("answer", answers, mean)] if answers else [])


def _figures(name: str, scored: Sequence[Scored], mean: float) -> Calibration:
    visits = sum(one.visits for one in scored)

    def averaged(values: Iterable[float]) -> float:
        return sum(v * one.visits for v, one in zip(values, scored, strict=True)) / visits

    def brier(predictions: Iterable[float]) -> float:
        # Of observations that are 0 or 1: their spread about their mean, and that mean's distance.
        return averaged(
            (p - one.observed) ** 2 + one.observed * (1 - one.observed)
            for p, one in zip(predictions, scored, strict=True)
        )

    return Calibration(
        name=name,
        steps=len(scored),
        visits=visits,
        predicted=averaged(one.predicted for one in scored),
        observed=averaged(one.observed for one in scored),
        brier=brier(one.predicted for one in scored),
        baseline=brier(mean for _ in scored),
        ece=_calibration_error(scored, visits),
    )


def _calibration_error(scored: Sequence[Scored], visits: int) -> float:
    bins: dict[int, list[Scored]] = {}
    for one in scored:
        bins.setdefault(min(int(one.predicted * BINS), BINS - 1), []).append(one)
    gaps = (
        abs(sum((one.predicted - one.observed) * one.visits for one in some))
        for some in bins.values()
    )
    return sum(gaps) / visits
