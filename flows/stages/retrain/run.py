"""One cycle of retraining from beginning to end, or on from where it was killed.

    ended = await retrain(RetrainSettings.checked(task="sat2"), tools)
    ended.sentence              # "sat2-cycle-3: promoted sat2-cycle-3-grpo@1a2b: better by …"

A cycle begins where something is new, holds a lease so that no other of its task runs, and stores
each stage's outcome before the next. It trains only when enough new traces were kept: otherwise it
ends, and what it found counts for the next one.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from dataclasses import dataclass

from curation.scores.gate import GatePolicy
from flows.progress import Report
from flows.retrain_settings import BUDGETS, RetrainSettings
from flows.settings import TrainSettings
from flows.settings_base import Problem
from flows.stages.retrain.cycle import (
    Cycle,
    begin_cycle,
    cycle_of,
    cycles,
    lease_name,
    unfinished,
)
from flows.stages.retrain.gate import compare
from flows.stages.retrain.inbox import complete_sample, missing_in_sample
from flows.stages.retrain.new_data import look_for_new
from flows.stages.retrain.report import write_last_report, write_report
from flows.stages.retrain.stages import STAGE_WORK
from flows.stages.retrain.tools import Paused, Tools
from flows.stages.retrain.usable import require_teacher, usable
from flows.stages.train import train
from mcts.failpoints import reach
from warehouse.storage.home import Warehouse
from warehouse.storage.lease import LeaseHeld, take_lease
from warehouse.tables.rows import read_questions
from warehouse.tables.schema import Row


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call of `retrain` ended."""

    outcome: str
    """promoted, refused, waiting, too_few, collapsed, abandoned; nothing_new, too_soon, paused."""
    sentence: str
    cycle: Cycle | None = None

    @property
    def decided(self) -> bool:
        """Whether the gate decided, so that what the cycle was about is no longer new."""
        return self.cycle is not None and self.cycle.outcome("gate") is not None


async def retrain(settings: RetrainSettings, tools: Tools) -> Ended:
    """Run a cycle of the task, if there is anything to do.

    Raises:
        Problem: the task has no questions for the gate, or a setting is wrong.
        LeaseHeld: another process is at it, or took it over since this one was silent for long.
    """
    warehouse = Warehouse.at(settings.home)
    with take_lease(warehouse, lease_name(settings.task)) as lost:
        cycle = unfinished(warehouse, settings.task)
        if cycle is None:
            await asyncio.to_thread(write_last_report, warehouse, settings.task)
            settings = await usable(settings)
            _require_gate(warehouse, settings)
            if added := complete_sample(warehouse, settings.task):
                tools.report(f"the embedded sample was imported ({added} questions)")
            if (soon := _too_soon(warehouse, settings)) is not None:
                return Ended("too_soon", soon)
            look = look_for_new(warehouse, settings.task)
            if not look["questions"] and look["traces"] < settings.min_new_traces:
                return Ended("nothing_new", _nothing_new(settings, look["traces"]))
            if look["questions"] and not settings.teacher:
                await require_teacher(settings, None, settings.space)
            stored = settings.model_dump(mode="json", exclude={"home"})
            cycle = begin_cycle(warehouse, settings.task, {**look, "settings": stored})
        elif settings.leave_paused and (paused := cycle.paused):
            return Ended("paused", f"{cycle.name} is left to another run: {paused}", cycle)
        ended = await go_on(cycle, settings, tools, lost)
        tools.report(f"report: {await asyncio.to_thread(write_report, cycle)}")
        return ended


async def go_on(
    cycle: Cycle, settings: RetrainSettings, tools: Tools, lost: threading.Event | None = None
) -> Ended:
    """Run the stages that are not done, with the settings that the cycle was begun with.

    Its budgets alone are those of this run.

    Args:
        lost: set once another process has taken the lease over.

    Raises:
        LeaseHeld: it was set before a stage.
    """
    look = cycle.outcome("look")
    assert look is not None
    budgets = {name: getattr(settings, name) for name in BUDGETS}
    settings = RetrainSettings.checked(**{**look["settings"], **budgets}, home=settings.home)
    ends = time.monotonic() + 3600 * (settings.run_hours or math.inf)
    for stage, work in STAGE_WORK.items():
        outcome = cycle.outcome(stage)
        if outcome is None:
            if lost is not None and lost.is_set():
                raise LeaseHeld(f"{cycle.name} was taken over by another process before {stage}")
            tools.report(f"{cycle.name}: {stage}")
            try:
                if time.monotonic() >= ends:
                    raise Paused(f"{settings.run_hours:g} hours are over before {stage}")
                outcome = cycle.store(stage, await work(cycle, settings, tools))
            except Paused as paused:
                cycle.store_pause(stage, str(paused))
                return Ended(
                    "paused", f"{cycle.name} goes on when it is run again: {paused}", cycle
                )
            reach(f"retrain_{stage}")
        if stage == "build" and outcome["traces"] < settings.min_new_traces:
            return _end(
                cycle, "too_few",
                f"{outcome['traces']} new traces were kept, {settings.min_new_traces} are wanted",
            )  # fmt: skip
        if ends_with := outcome.get("ends"):
            return _end(cycle, **ends_with)
    decided = cycle.outcome("gate")
    assert decided is not None
    return _end(cycle, decided["outcome"], f"{decided['model']}: {decided['reason']}")


async def retrain_here(settings: RetrainSettings, report: Report) -> Ended:
    """Run a cycle as `retrain`, with trainings in this process."""

    async def train_here(training: TrainSettings) -> str:
        row = await asyncio.to_thread(train, training)
        assert row is not None
        return str(row["name"])

    return await retrain(settings, Tools(train_here, report))


def abandon(settings: RetrainSettings, reason: str) -> Ended:
    """End the task's unfinished cycle without a decision; what it was about stays new.

    Raises:
        Problem: there is none.
        LeaseHeld: a process is at it.
    """
    warehouse = Warehouse.at(settings.home)
    with take_lease(warehouse, lease_name(settings.task)):
        cycle = unfinished(warehouse, settings.task)
        if cycle is None:
            raise Problem(f"{settings.task} has no unfinished cycle")
        ended = _end(cycle, "abandoned", reason)
        write_report(cycle)
        return ended


def decided_again(settings: RetrainSettings, number: int) -> str:
    """Make a past cycle's decision again from the predictions that are stored, and tell it.

    Raises:
        Problem: there is no such cycle, or it came to no decision.
    """
    cycle = cycle_of(Warehouse.at(settings.home), settings.task, number)
    found, decided = cycle.outcome("evaluate"), cycle.outcome("gate")
    if found is None or decided is None:
        raise Problem(f"{cycle.name} came to no decision")
    policy = GatePolicy(**decided["policy"])
    again = compare(cycle.warehouse, found, policy, decided["attempt"])
    same = "the same" if again.reason == decided["reason"] else f"then: {decided['reason']}"
    return f"{cycle.name}: {again.outcome}; {again.reason} ({same})"


def _end(cycle: Cycle, outcome: str, reason: str) -> Ended:
    ended: Row = cycle.store("end", {"outcome": outcome, "reason": reason})
    said = outcome.replace("_", " ")
    return Ended(ended["outcome"], f"{cycle.name}: {said}; {ended['reason']}", cycle)


def _nothing_new(settings: RetrainSettings, traces: int) -> str:
    if not traces:
        return f"{settings.task}: nothing is new since the last cycle"
    return (
        f"{settings.task}: no new question, and {traces} new traces of the "
        f"{settings.min_new_traces} that start a training"
    )


def _require_gate(warehouse: Warehouse, settings: RetrainSettings) -> None:
    split = settings.gate_split
    if split in missing_in_sample(warehouse, settings.task):
        return
    if not any(read_questions(warehouse, settings.task, split=split, limit=1)):
        raise Problem(
            f"{settings.task} has no questions of the split {split!r}, by which the gate decides: "
            f"`vigorl import {settings.task} FILE --split {split}` adds some that are used for "
            "nothing else"
        )


def _too_soon(warehouse: Warehouse, settings: RetrainSettings) -> str | None:
    last = next(reversed(cycles(warehouse, settings.task)), None)
    look = last.outcome("look") if last else None
    if look is None or not settings.at_most_every:
        return None
    hours = (time.time() - look["at"]) / 3600
    if hours >= settings.at_most_every:
        return None
    assert last is not None
    return (
        f"{last.name} began {hours:.1f} hours ago, and a cycle begins at most every "
        f"{settings.at_most_every:g}"
    )
