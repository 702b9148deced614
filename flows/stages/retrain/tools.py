"""What a stage of a cycle is: its form, what it uses of the world around it, and how it pauses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from flows.progress import Report, ignore
from flows.retrain_settings import RetrainSettings
from flows.settings import TrainSettings
from flows.stages.retrain.cycle import Cycle
from warehouse.tables.schema import Row


class Paused(Exception):
    """The cycle can't go on now; run again, it goes on. The sentence says why."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a stage uses of the world around it."""

    train: Callable[[TrainSettings], Awaitable[str]]
    """Trains, and returns the model's name."""
    report: Report = ignore


Work = Callable[[Cycle, RetrainSettings, Tools], Awaitable[Row]]
