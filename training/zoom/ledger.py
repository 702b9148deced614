"""What the calls of a student that zooms bring: counts of every step, and when to stop for them.

    ledger = ZoomLedger.of(completions, forced)        # of one batch of episodes
    ledger.metrics()                               # {"zoom/call_rate": 0.8, …}
    alarm = ZoomAlarm(recipe.alarm, earlier_metrics)
    alarm.check(metrics)                           # TrainingError: one sentence that says why

Zooming is lost in three ways that a reward does not show: the calls die out while accuracy stays,
they go on as a decoration that nothing is read from, or they go on until a limit ends them, which
leaves the mean reward to the questions that are easy. So calls and limits are counted at every
step, and from time to time the same questions are asked again with noise in the place of every
crop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean
from typing import Any

from curation.filters.crops import asked_boxes, shows_asked
from mcts.zoom.observe import ZoomProblem
from training.errors import TrainingError
from training.recipe_sections import ZoomAlarmSettings
from training.rewards.completions import ParsedCompletion
from training.rewards.rewards import correctness, distinct_places

CALL_RATE, FORCED, GAIN = "zoom/call_rate", "zoom/forced", "zoom/control_gain"


@dataclass(slots=True)
class ZoomLedger:
    """Counts over a batch of episodes; those of several processes add up."""

    episodes: int = 0
    calling: int = 0
    """Episodes with a call."""
    calls: int = 0
    crops: int = 0
    places: int = 0
    """Crops of different places, as the reward counts them."""
    known: int = 0
    """Crops of questions of which it is known where the objects in question are."""
    on_object: int = 0
    """Those of them that show one (`curation.filters.crops`)."""
    forced: int = 0
    """Episodes that hit a limit."""
    scored: int = 0
    right: float = 0.0
    """Sum of the scores of `scored` episodes; one that hit a limit has none right."""
    problems: Counter[str] = field(default_factory=Counter)
    """Calls that showed nothing, by kind."""

    @classmethod
    def of(
        cls,
        completions: Sequence[ParsedCompletion],
        forced: Iterable[bool],
        begun: Iterable[int] | None = None,
    ) -> ZoomLedger:
        """Count a batch.

        Args:
            forced: those that hit a limit.
            begun: how many steps of each it was begun with, which are not counted.
        """
        ledger = cls()
        starts = [0] * len(completions) if begun is None else begun
        for parsed, broken_off, start in zip(completions, forced, starts, strict=True):
            own = parsed.steps[start:]
            shown = [step.observation for step in own if step.observation]
            ledger.episodes += 1
            ledger.calling += bool(shown)
            ledger.calls += len(shown)
            ledger.crops += sum(observation.crop is not None for observation in shown)
            ledger.places += len(distinct_places(own))
            ledger.problems.update(o.problem for o in shown if o.problem)
            ledger.forced += broken_off
            score = 0.0 if broken_off else correctness(parsed)
            if score is not None:
                ledger.scored += 1
                ledger.right += score
            asked = asked_boxes(parsed.graded.question, parsed.graded.objects)
            found = [known for o in shown if (known := shows_asked(o, asked)) is not None]
            ledger.known += len(found)
            ledger.on_object += sum(found)
        return ledger

    def __add__(self, other: ZoomLedger) -> ZoomLedger:
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return ZoomLedger(**sums)

    @property
    def accuracy(self) -> float | None:
        """Mean score of the answers; None where none was scored."""
        return self.right / self.scored if self.scored else None

    def metrics(self) -> dict[str, float]:
        """Return the shares and means that are logged; what nothing is known of is left out."""
        shares = {
            CALL_RATE: (self.calling, self.episodes),
            "zoom/calls": (self.calls, self.episodes),
            "zoom/places": (self.places, self.episodes),
            FORCED: (self.forced, self.episodes),
            "zoom/accuracy": (self.right, self.scored),
            "zoom/on_object": (self.on_object, self.known),
            **{f"zoom/failed/{p}": (self.problems[p], self.calls) for p in ZoomProblem},
        }
        return {name: count / of for name, (count, of) in shares.items() if of}


class ZoomAlarm:
    """Stops a training whose zooming dies, never ends, or no longer reads what it is shown."""

    def __init__(
        self,
        settings: ZoomAlarmSettings,
        earlier: Callable[[], Sequence[Mapping[str, Any]]] = lambda: (),
    ) -> None:
        """`earlier` returns what was logged by an earlier start."""
        self.settings, self._earlier = settings, earlier
        self._rates: list[float] = []
        self._forced: list[float] = []
        self._gains: list[float] = []

    def recall(self) -> None:
        """Take what was logged by an earlier start; call it before the first step is logged."""
        for row in self._earlier():
            self._take(row)
        self._earlier = lambda: ()

    def check(self, metrics: Mapping[str, Any]) -> None:
        """Take the metrics of a step.

        Raises:
            TrainingError: it is time to stop, and why.
        """
        self._take(metrics)
        if CALL_RATE in metrics:
            self._check_calls(self._rates)
        if FORCED in metrics:
            self._check_forced(self._forced)
        if GAIN in metrics:
            self._check_gains()

    def _take(self, metrics: Mapping[str, Any]) -> None:
        if CALL_RATE in metrics:
            self._rates.append(metrics[CALL_RATE])
        if FORCED in metrics:
            self._forced.append(metrics[FORCED])
        if GAIN in metrics:
            self._gains.append(metrics[GAIN])

    def _check_calls(self, rates: Sequence[float]) -> None:
        least, n = self.settings.least_calls, self.settings.batches
        if not n or len(rates) < 2 * n or fmean(rates[:n]) < 2 * least:
            return
        if max(rates[-n:]) < least:
            raise TrainingError(
                f"the student stopped zooming: at most {max(rates[-n:]):.1%} of its episodes made "
                f"a call in each of the last {n} batches, and {fmean(rates[:n]):.1%} in the first "
                f"{n}; what earns without looking (easier questions, a reward without `looks`) "
                "taught it so; `alarm.batches=0` goes on all the same"
            )

    def _check_forced(self, shares: Sequence[float]) -> None:
        most, n = self.settings.most_forced, self.settings.forced_batches
        if not n or len(shares) < 2 * n:
            return
        first, last = fmean(shares[:n]), fmean(shares[-n:])
        if last > most and last >= 2 * first:
            raise TrainingError(
                f"the student calls on instead of answering: {last:.1%} of its episodes hit a "
                f"limit in the last {n} batches, and {first:.1%} in the first {n}; a lower rate or "
                "a larger `beta` may keep it from that; `alarm.forced_batches=0` goes on all the "
                "same"
            )

    def _check_gains(self) -> None:
        n, least = self.settings.controls, self.settings.least_gain
        if not n or len(self._gains) < n or fmean(self._gains[-n:]) >= least:
            return
        raise TrainingError(
            f"the student's zooming is a decoration: over the last {n} controls it was right "
            f"{fmean(self._gains[-n:]):+.1%} more often with its crops than with noise in their "
            f"place, and {least:.1%} are demanded; ask what a look at the whole image can't "
            "answer, or start from a student that reads its crops; `alarm.controls=0` goes on all "
            "the same"
        )
