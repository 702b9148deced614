"""What is stored of a cycle: the outcome of each stage, once.

    cycle = begin_cycle(warehouse, "sat2", settings)          # number 7
    cycle.outcome("publish")                                  # None while it isn't done
    cycle.store("publish", {"dataset": "sat2-cycle@v3"})

An outcome is a small JSON object in the warehouse, put there if it is absent. A stage that has one
is not run again, so a cycle that was killed in whatever stage goes on by being run again; what the
stages themselves do (search, training, evaluation) continues in the same way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from flows.settings_base import Problem
from warehouse.query.run_query import UNREADABLE
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.notes import write_note
from warehouse.tables.schema import TABLES, Row
from warehouse.versions.versions import read_tables, resolve

T = TypeVar("T")
Tables = Mapping[str, int | None]
"""The version of each table; None for one that did not exist yet."""
STAGES = (
    "look", "build", "collapse", "publish", "sft", "measure", "grpo", "evaluate", "gate", "end",
)  # fmt: skip
"""In their order. `end` says how it ended; a cycle may end at any stage."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """One cycle of a task."""

    warehouse: Warehouse
    task: str
    number: int
    """Counted from 1 within the task."""

    @property
    def name(self) -> str:
        """Its name in models and reports: `sat2-cycle-7`."""
        return f"{self.task}-cycle-{self.number}"

    @property
    def folder(self) -> str:
        """Where it is kept, below the warehouse."""
        return f"{_folder(self.task)}/{self.number:06d}"

    def outcome(self, stage: str) -> Row | None:
        """Return what a stage left; None while it isn't done."""
        try:
            found: Row = json.loads(self.warehouse.objects.get(f"{self.folder}/{stage}.json"))
        except KeyError:
            return None
        return found

    def required(self, stage: str) -> Row:
        """Return what a stage left that comes before."""
        found = self.outcome(stage)
        assert found is not None, f"{self.name}: stage {stage} comes before"
        return found

    @property
    def dataset(self) -> str:
        """The dataset version that it trains on, once it has published."""
        return str(self.required("publish")["dataset"])

    def tables(self) -> Tables | None:
        """Return the versions of the tables that it published from; None if it did not publish.

        Its dataset need not be of these: what equals an earlier version is that version.
        """
        outcome = self.outcome("publish")
        if outcome is None or "dataset" not in outcome:
            return None
        if "tables" not in outcome:  # of a cycle before these were kept
            return read_tables(resolve(self.warehouse, outcome["dataset"]))
        return {name: outcome["tables"].get(name) for name in TABLES}

    def as_published(self, read: Callable[[Tables | None, float | None], T]) -> T:
        """Read the tables as they were when this cycle published.

        Args:
            read: takes their versions and None; or, where a deletion took the files of these, None
                and the Unix time until which what is there now had been made.
        """
        try:
            return read(self.tables(), None)
        except (*UNREADABLE, WarehouseError):
            published = self.outcome("publish")
            if published is None:
                raise
            return read(None, published["at"])

    def store(self, stage: str, outcome: Mapping[str, Any]) -> Row:
        """Store a stage's outcome; return what is stored, as another may have been first."""
        row = {**outcome, "at": round(time.time(), 3)}
        data = json.dumps(row, sort_keys=True, indent=1).encode()
        self.warehouse.objects.put(f"{self.folder}/{stage}.json", data)
        stored = self.outcome(stage)
        assert stored is not None
        return stored

    def store_again(self, stage: str, outcome: Mapping[str, Any]) -> None:
        """Store another outcome of a stage in place of the one that is there."""
        row = {**outcome, "at": round(time.time(), 3)}
        write_note(self.warehouse, f"{self.folder}/{stage}.json", row)

    def store_pause(self, stage: str, reason: str) -> None:
        """Store that a budget stopped a stage, which goes on when it is run again."""
        self.warehouse.objects.put(
            f"{self.folder}/{stage}.paused.json", json.dumps(reason).encode()
        )

    @property
    def paused(self) -> str | None:
        """Why a stage was stopped that has no outcome yet; None if none was."""
        for stage in STAGES:
            if self.outcome(stage) is None:
                try:
                    key = f"{self.folder}/{stage}.paused.json"
                    return str(json.loads(self.warehouse.objects.get(key)))
                except KeyError:
                    if stage != "measure":  # which older cycles passed over
                        return None
        return None

    @property
    def done(self) -> Row | None:
        """How it ended; None while it hasn't."""
        return self.outcome("end")


def cycles(warehouse: Warehouse, task: str) -> list[Cycle]:
    """Return every cycle of a task, the oldest first."""
    keys = warehouse.objects.keys(_folder(task))
    folders = {key.removeprefix(f"{_folder(task)}/").partition("/")[0] for key in keys}
    return [Cycle(warehouse, task, int(name)) for name in sorted(folders) if name.isdigit()]


def cycle_of(warehouse: Warehouse, task: str, number: int | None = None) -> Cycle:
    """Return a task's cycle, the last one if no number is given.

    Raises:
        Problem: there is none.
    """
    found = {each.number: each for each in cycles(warehouse, task)}
    if not found:
        raise Problem(
            f"{task} has not been retrained: `vigorl retrain {task} --sft-recipe RECIPE` begins a "
            "cycle"
        )
    wanted = max(found) if number is None else number
    if wanted not in found:
        raise Problem(f"{task} has no cycle {wanted}: there are 1 to {max(found)}")
    return found[wanted]


def retrained_tasks(warehouse: Warehouse) -> list[str]:
    """Return the tasks that have had a cycle."""
    names = (key.split("/")[1:3] for key in warehouse.objects.keys("retrain"))
    return sorted({task for task, folder in names if folder.isdigit()})


def begin_cycle(warehouse: Warehouse, task: str, look: Mapping[str, Any]) -> Cycle:
    """Begin the next cycle with the outcome of its first stage."""
    before = cycles(warehouse, task)
    cycle = Cycle(warehouse, task, before[-1].number + 1 if before else 1)
    cycle.store("look", look)
    return cycle


def unfinished(warehouse: Warehouse, task: str) -> Cycle | None:
    """Return the cycle that was begun and has not ended; None if there is none."""
    return next((cycle for cycle in reversed(cycles(warehouse, task)) if not cycle.done), None)


def lease_name(task: str) -> str:
    """Return the lease under which a task's cycles run, one at a time."""
    return _folder(task)


def _folder(task: str) -> str:
    return f"retrain/{task}"


def last_decided(warehouse: Warehouse, task: str) -> Cycle | None:
    """Return the newest cycle that ended with a decision; None before the first."""
    return next(reversed(_decided(cycles(warehouse, task))), None)


def decided_earlier(cycle: Cycle) -> list[Cycle]:
    """Return the cycles before this one that ended with a decision, the oldest first."""
    return _decided([c for c in cycles(cycle.warehouse, cycle.task) if c.number < cycle.number])


def decided_before(cycle: Cycle) -> Cycle | None:
    """Return the newest of those; None before the first."""
    return next(reversed(decided_earlier(cycle)), None)


def _decided(some: Sequence[Cycle]) -> list[Cycle]:
    return [cycle for cycle in some if cycle.done and cycle.outcome("gate")]
