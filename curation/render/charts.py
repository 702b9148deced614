"""Where the parts of a chart lie: axes with round ends and ticks, and the line through a series.

    axis = Axis.around([-0.04, 0.11], also=[0.0])       # -0.05 to 0.15, ticks 0.05 apart
    axis.at(0.0)                                        # 25.0, per cent of the way
    curve = Curve.of("loss", [(1, 2.3), (20, 1.1)])
    curve.line                                          # "0,0 100,40": an SVG polyline's points

Templates draw; what is decided about a chart is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 100.0, 40.0
"""Of a curve, in the units of its SVG."""
_MOST_POINTS = 200
_PARTS = 4  # between an axis's ticks there are about so many


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from a round number to another."""

    low: float
    high: float
    step: float
    """Between ticks."""

    @classmethod
    def around(cls, values: Iterable[float], also: Iterable[float] = ()) -> Axis:
        """Choose the axis that all values lie on.

        Raises:
            ValueError: there are none.
        """
        there = [*values, *also]
        least, most = min(there), max(there)
        room = (most - least) or abs(most) or 1.0
        size = 10 ** math.floor(math.log10(room / _PARTS))
        step = next(size * part for part in (1, 2, 5, 10) if size * part * _PARTS >= room * 0.999)
        low, high = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
        return cls(low * step, max(high, low + 1) * step, step)

    def at(self, value: float) -> float:
        """Return how far along a value is, in per cent; one beyond an end lies on it."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    @property
    def ticks(self) -> list[float]:
        """The values that are written at it."""
        count = round((self.high - self.low) / self.step)
        return [round(self.low + i * self.step, 10) for i in range(count + 1)]


@dataclass(frozen=True, slots=True)
class Curve:
    """A series over the steps of a training."""

    title: str
    line: str
    """The points of an SVG polyline, `WIDTH` by `HEIGHT`."""
    first: float
    last: float
    least: float
    most: float
    steps: int
    """The last step."""

    @classmethod
    def of(cls, title: str, series: Sequence[tuple[float, float]]) -> Curve:
        """Lay out a series of (step, value) in the order of its steps.

        Long ones are thinned: of some neighbours each, the mean is drawn.

        Raises:
            ValueError: there are fewer than two.
        """
        if len(series) < 2:
            raise ValueError(f"{title}: a curve has two points at least")
        each = math.ceil(len(series) / _MOST_POINTS)
        groups = [series[i : i + each] for i in range(0, len(series), each)]
        drawn = [tuple(sum(v) / len(some) for v in zip(*some, strict=True)) for some in groups]
        values = [value for _, value in series]
        least, most = min(values), max(values)
        start, end = drawn[0][0], drawn[-1][0]
        points = (
            f"{WIDTH * (step - start) / ((end - start) or 1):.2f},"
            f"{HEIGHT - HEIGHT * (value - least) / ((most - least) or 1):.2f}"
            for step, value in drawn
        )
        return cls(title, " ".join(points), values[0], values[-1], least, most, int(series[-1][0]))
