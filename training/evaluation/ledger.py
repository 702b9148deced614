"""The tool ledger: how often a model looked closer, at how many places, and what it was shown.

    looks_of(prediction)         # Looks(calls=3, crops=2, places=2, on_asked=1, ...)
    figures(predictions)         # {"calls": 2.4, "places": 2.1, "on_asked": 0.8, ...}

A model can call often and see nothing new, or call at the wrong place: so calls, distinct places,
calls that showed nothing and crops with an object in question are counted apart. Whether a model
turns back is told by what it does where its first crop shows no object in question, whatever words
it has for that. Calls of a prefix that the model goes on from are not its own, and count nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curation.scores.prediction import Prediction
from training.rewards.rewards import distinct_places

COUNTS = {"calls": "calls", "places": "distinct places"}
"""Figures that are counts an answer, by name, with their titles."""
SHARES = {
    "looked": "answers that looked closer",
    "failed_calls": "calls that showed nothing",
    "on_asked": "crops with the object in question",
    "looked_again": "first crops without it after which another place was looked at",
    "forced": "answers that were forced",
}
"""Figures that are shares."""


@dataclass(frozen=True, slots=True)
class Looks:
    """Counts over one answer."""

    calls: int
    """Zoom calls, those that showed nothing included."""
    crops: int
    """Calls that showed a crop."""
    places: int
    """Crops of different places (`training.rewards.rewards.distinct_places`)."""
    known: int
    """Crops of which it is known whether they show an object in question."""
    on_asked: int
    """Crops that show one."""
    missed: bool
    """Whether the first of those crops does not show one."""
    forced: bool
    """Whether the answer was requested alone, at a limit."""


def looks_of(prediction: Prediction) -> Looks:
    """Count what an answer's calls showed."""
    seen = [step.observation for step in prediction.own_steps if step.observation is not None]
    asked = [shown for shown in prediction.shows_asked if shown is not None]
    return Looks(
        calls=len(seen),
        crops=sum(observation.crop is not None for observation in seen),
        places=len(distinct_places(prediction.own_steps)),
        known=len(asked),
        on_asked=sum(asked),
        missed=asked[:1] == [False],
        forced="answer_forced" in prediction.problems,
    )


def figures(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Return one question's part of each figure that applies to it: a mean over its samples.

    Shares of calls and of crops are over all samples together, and apply where there are any.
    """
    looks = [looks_of(prediction) for prediction in predictions]
    n, calls, known = len(looks), sum(x.calls for x in looks), sum(x.known for x in looks)
    found = {
        "calls": calls / n,
        "places": sum(x.places for x in looks) / n,
        "looked": sum(x.crops > 0 for x in looks) / n,
        "forced": sum(x.forced for x in looks) / n,
    }
    if calls:
        found["failed_calls"] = (calls - sum(x.crops for x in looks)) / calls
    if known:
        found["on_asked"] = sum(x.on_asked for x in looks) / known
    if missed := [x for x in looks if x.missed]:
        found["looked_again"] = sum(x.places > 1 for x in missed) / len(missed)
    return found
