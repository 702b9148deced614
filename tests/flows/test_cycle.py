"""What is stored of a cycle of retraining: its number, its outcomes, where it was stopped."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flows.stages.retrain.cycle import (
    STAGES,
    Cycle,
    begin_cycle,
    cycles,
    lease_name,
    retrained_tasks,
    unfinished,
)
from warehouse.storage.home import Warehouse


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path))


def test_cycles_are_numbered_within_their_task(warehouse: Warehouse) -> None:
    assert cycles(warehouse, "sat2") == [] == retrained_tasks(warehouse)
    for _ in range(11):
        begin_cycle(warehouse, "sat2", {"questions": 1})
    other = begin_cycle(warehouse, "vstar", {})
    assert [cycle.number for cycle in cycles(warehouse, "sat2")] == [*range(1, 12)]
    assert (other.number, other.name) == (1, "vstar-cycle-1")
    assert other.folder == "retrain/vstar/000001" and lease_name("vstar") == "retrain/vstar"
    warehouse.objects.put("retrain/sat2/notes.txt", b"mine")
    warehouse.objects.put("retrain/gqa/notes.txt", b"mine")
    assert retrained_tasks(warehouse) == ["sat2", "vstar"]
    assert len(cycles(warehouse, "sat2")) == 11


def test_an_outcome_keeps_when_it_was_and_is_never_replaced(warehouse: Warehouse) -> None:
    cycle = begin_cycle(warehouse, "sat2", {"questions": 3})
    look = cycle.outcome("look")
    assert look is not None and look["questions"] == 3
    assert 0 <= time.time() - look["at"] < 60 and look["at"] == round(look["at"], 3)
    assert cycle.outcome("build") is None
    first = cycle.store("build", {"trees": 1})
    assert cycle.store("build", {"trees": 2}) == first == cycle.outcome("build")


def test_the_newest_cycle_that_has_not_ended_goes_on(warehouse: Warehouse) -> None:
    assert unfinished(warehouse, "sat2") is None
    first, second = (begin_cycle(warehouse, "sat2", {}) for _ in range(2))
    assert unfinished(warehouse, "sat2") == second and second.done is None
    second.store("end", {"outcome": "refused"})
    assert second.done is not None and second.done["outcome"] == "refused"
    assert unfinished(warehouse, "sat2") == first
    first.store("end", {})
    assert unfinished(warehouse, "sat2") is None


def test_a_pause_counts_until_its_stage_is_done(warehouse: Warehouse) -> None:
    cycle = begin_cycle(warehouse, "sat2", {})
    assert cycle.paused is None
    cycle.store_pause("sft", "later")
    assert cycle.paused is None, "of the stage that comes next"
    cycle.store_pause("build", "out of tokens")
    assert cycle.paused == "out of tokens"
    for stage in STAGES[: STAGES.index("sft")]:
        cycle.store(stage, {})
    assert cycle.paused == "later"
    cycle.store("sft", {})
    cycle.store_pause("grpo", "of a version without the stage in between")
    assert cycle.paused == "of a version without the stage in between"
    for stage in STAGES:
        cycle.store(stage, {})
    assert cycle.paused is None


def test_a_cycle_is_what_is_stored_of_it(warehouse: Warehouse) -> None:
    begun = begin_cycle(warehouse, "sat2", {"questions": 1})
    again = Cycle(Warehouse(warehouse.root), "sat2", 1)
    assert again.outcome("look") == begun.outcome("look")
