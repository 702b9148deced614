"""The gate of unattended retraining: whether a challenger takes the champion's place.

    decision = decide(policy, paired, attempt=3, controls={"format": (0.99, 0.98)})
    decision.outcome, decision.reason           # "promote", "better by 5.2 points (p = 0.0004 …"

A decision is a function of the two models' scores on the same questions, so it can be made again
from what is stored. The test is the sign-flip test over images: if neither model is better, each
image's difference is as likely to have the other sign. It is exact for any number of images, and
takes questions about one image together.

Fifty nights of challengers that are no better must not promote one by luck. So the share of errors
allowed, `alpha`, is spent over the attempts against one champion: attempt k may use
alpha / (k (k + 1)), and all attempts together never more than alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from curation.scores.bootstrap import PairedDifference, difference

POWER = 0.8
"""The chance of deciding that the sample size named in a decision gives."""
_GRID = 240
"""Parts of a point in which scores are counted: means of 2 to 6, 8, 10 or 12 samples are whole."""
_NORMAL = NormalDist()


class GateOutcome(StrEnum):
    """What becomes of a challenger."""

    PROMOTE = "promote"
    REFUSE = "refuse"
    WAIT = "wait"
    """A person decides: it is better by the estimate, and the evidence does not suffice."""


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What a challenger must show."""

    alpha: float = 0.05
    """Share of champions' reigns that may end by luck alone."""
    minimum: float = 0.01
    """Gain in accuracy, at least; a smaller one is not worth a change."""
    family_margin: float = 0.10
    """A family may not be worse by more than this, as far as its questions show."""
    family_alpha: float = 0.05
    """Share of harmless challengers that a family may be wrongly held against."""
    control_margin: float = 0.02
    """A control (format, grounding, use of the tool) may not be worse by more than this."""
    blank_margin: float = 0.05
    """With blank images it may not be right more often than the champion by more than this."""
    ask_person: bool = False
    """Whether a better estimate without enough evidence waits for a person; else it is refused."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or not 0 < self.family_alpha < 1:
            raise ValueError("gate: alpha and family_alpha lie between 0 and 1")
        if min(self.minimum, self.family_margin, self.control_margin, self.blank_margin) < 0:
            raise ValueError("gate: a minimum and a margin are not below 0")


@dataclass(frozen=True, slots=True)
class Paired:
    """One question's scores by both models."""

    champion: float
    challenger: float
    scene: int
    """The same number for questions that have an image in common."""
    family: str = ""


@dataclass(frozen=True, slots=True)
class GateDecision:
    """A decision with its numbers."""

    outcome: GateOutcome
    reason: str
    """A sentence with the numbers that decided."""
    p: float
    """One-sided, of the sign-flip test: how likely such a gain is if neither is better."""
    spent: float
    """What of alpha this attempt might use."""
    gain: PairedDifference
    """Challenger minus champion, with its interval."""
    enough: int | None
    """Questions that would decide a gain of this size, or of the minimum, with `POWER`."""
    families: Mapping[str, float] = field(default_factory=dict)
    """The gain in each family."""


def decide(
    policy: GatePolicy,
    paired: Sequence[Paired],
    attempt: int,
    controls: Mapping[str, tuple[float, float]] | None = None,
) -> GateDecision:
    """Decide whether the challenger is promoted.

    Args:
        paired: the questions of the gate split, in any order.
        attempt: which attempt against this champion it is, from 1.
        controls: a figure of champion and challenger by its name; `blank` is accuracy without
            images, of the others more is better.

    Raises:
        ValueError: there are no questions, or attempts are not counted from 1.
    """
    scenes = [pair.scene for pair in paired]
    gain = difference(
        [pair.challenger for pair in paired], [pair.champion for pair in paired], scenes
    )
    judged = judge(policy, paired, attempt, controls)
    promoted = judged.outcome is GateOutcome.PROMOTE
    return GateDecision(
        *judged, gain,
        enough=None if promoted else sample_size(paired, policy, judged.spent),
        families={name: _gain(some) for name, some in _by_family(paired).items()},
    )  # fmt: skip


class Judgement(NamedTuple):
    """The part of a decision that decides."""

    outcome: GateOutcome
    reason: str
    p: float
    spent: float


def judge(
    policy: GatePolicy,
    paired: Sequence[Paired],
    attempt: int,
    controls: Mapping[str, tuple[float, float]] | None = None,
) -> Judgement:
    """Decide as `decide`, without the interval."""
    if attempt < 1:
        raise ValueError("attempts are counted from 1")
    p, spent = sign_flip(paired), policy.alpha / (attempt * (attempt + 1))
    if harm := _harm(policy, _by_family(paired), controls or {}):
        return Judgement(GateOutcome.REFUSE, harm, p, spent)
    gain = _gain(paired)
    points = f"{100 * gain:+.1f} points"
    evidence = f"p = {p:.2g}, {spent:.2g} allowed"
    if gain < policy.minimum - ROUNDING:
        wanted = f"{points}; a change wants a gain of {100 * policy.minimum:.1f} at least"
        return Judgement(GateOutcome.REFUSE, wanted, p, spent)
    if p <= spent:
        return Judgement(GateOutcome.PROMOTE, f"better by {points} ({evidence})", p, spent)
    outcome = GateOutcome.WAIT if policy.ask_person else GateOutcome.REFUSE
    return Judgement(outcome, f"{points} could be luck ({evidence})", p, spent)


ROUNDING = 1e-9
"""Differences of shares are rounded: 0.99 - 0.97 is more than 0.02 to a float."""


def _by_family(paired: Sequence[Paired]) -> dict[str, list[Paired]]:
    found: dict[str, list[Paired]] = {}
    for pair in sorted(paired, key=lambda pair: pair.family):
        found.setdefault(pair.family, []).append(pair)
    return found


def _harm(
    policy: GatePolicy, by_family: Mapping[str, Sequence[Paired]],
    controls: Mapping[str, tuple[float, float]],
) -> str:  # fmt: skip
    """Return what the challenger does worse; empty if nothing is known to be."""
    for name, (before, after) in controls.items():
        if name == "blank" and after - before > policy.blank_margin + ROUNDING:
            return (
                f"right on blank images in {100 * after:.1f}% of questions, the champion in "
                f"{100 * before:.1f}%: it guesses better, and sees no more"
            )
        if name != "blank" and before - after > policy.control_margin + ROUNDING:
            return f"{name} falls from {100 * before:.1f} to {100 * after:.1f}%"
    if len(by_family) < 2:
        return ""
    for name, some in sorted(by_family.items()):
        lost = -_gain(some)
        if lost > policy.family_margin + ROUNDING:
            turned = [Paired(q.challenger, q.champion, q.scene) for q in some]
            if sign_flip(turned) <= policy.family_alpha / len(by_family):  # any of them may
                margin = 100 * policy.family_margin
                return f"{name} falls by {100 * lost:.1f} points, {margin:.1f} are allowed"
    return ""


def sign_flip(paired: Sequence[Paired]) -> float:
    """Return how likely a gain as large as this one is if each scene's sign were a coin's.

    Exact, by convolution over scenes; scores are counted in parts of 1/240.
    """
    sums: dict[int, int] = {}
    for pair in paired:
        sums[pair.scene] = sums.get(pair.scene, 0) + round(
            _GRID * (pair.challenger - pair.champion)
        )
    steps = [abs(total) for total in sums.values() if total]
    if not steps:
        return 1.0
    unit = math.gcd(*steps)
    chances = np.ones(1)  # of each sum of the steps that come out positive
    for step in (step // unit for step in steps):
        longer = np.zeros(len(chances) + step)
        longer[: len(chances)] += chances / 2
        longer[step:] += chances / 2
        chances = longer
    gained = sum(total for total in sums.values() if total > 0) // unit
    return min(1.0, float(chances[gained:].sum()))


def sample_size(paired: Sequence[Paired], policy: GatePolicy, spent: float) -> int | None:
    """Return how many questions would show such a gain, or the least one that is wanted.

    By the normal approximation, with the spread between scenes that was seen; None without one.
    """
    gain = max(_gain(paired), policy.minimum)
    sums: dict[int, float] = {}
    for pair in paired:
        sums[pair.scene] = sums.get(pair.scene, 0.0) + pair.challenger - pair.champion
    spread = float(np.sqrt(sum(total**2 for total in sums.values()) / len(paired)))
    if not spread or not gain:
        return None
    return math.ceil(((_NORMAL.inv_cdf(1 - spent) + _NORMAL.inv_cdf(POWER)) * spread / gain) ** 2)


def _gain(paired: Sequence[Paired]) -> float:
    return float(np.mean([pair.challenger - pair.champion for pair in paired]))
