"""Cycles under faults: what `make chaos-retrain` plays, and a few of its scenarios."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.stages.retrain.cycle import STAGES
from tests.chaos import processes
from tests.chaos.retrain_contents import differences
from tests.chaos.retrain_faults import AT_A_WRITE, Faults, scenario, write_of
from warehouse.storage.objects import LocalObjects

ROOT = Path(__file__).parents[2]
SCENARIOS = 48


def test_the_scenarios_hold_every_fault_in_every_stage():
    played = {(s.stage, s.fault) for s in map(scenario, range(SCENARIOS))}
    assert {(stage, fault) for stage in STAGES for fault in AT_A_WRITE} <= played
    for fault in ("training", "worker"):
        assert {stage for stage, kind in played if kind == fault} == {"sft", "grpo"}
    assert ("build", "server") in played and len(played) == 4 * len(STAGES) + 5
    assert scenario(17) == scenario(17) != scenario(18)


def test_a_fault_comes_at_its_share_of_the_writes_of_its_stage(tmp_path):
    log = tmp_path / "writes.jsonl"
    stages = ["look", *["build"] * 8, "publish"]
    log.write_text("".join(json.dumps([stage, "put", 1]) + "\n" for stage in stages))
    for played in map(scenario, range(SCENARIOS)):
        if count := stages.count(played.stage):
            assert 1 <= write_of(played, log) <= count


@pytest.mark.parametrize(("fault", "status", "kept"), [("before", 137, 1), ("after", 137, 2)])
def test_a_process_dies_at_the_write_that_is_named(tmp_path, fault, status, kept):
    objects = LocalObjects(tmp_path / "home")

    def work():
        Faults(tmp_path / "log.jsonl", 2, fault).install()
        for name in ("a", "b", "c"):
            objects.put(name, b"x")

    assert processes.wait(processes.fork(work, tmp_path / "out.txt")) == status
    assert len(objects.keys("")) == kept


def test_a_write_is_counted_in_its_stage(tmp_path):
    objects = LocalObjects(tmp_path / "home")

    def work():
        Faults(tmp_path / "log.jsonl", 2, "before", stage="build").install()
        for name in ("retrain/sat2/000001/look.json", "a", "b", "c"):
            objects.put(name, b"{}")

    assert processes.wait(processes.fork(work, tmp_path / "out.txt")) == 137
    assert objects.keys("") == ["a", "retrain/sat2/000001/look.json"]


def test_a_full_disk_takes_nothing_more_and_the_stages_are_logged(tmp_path):
    objects = LocalObjects(tmp_path / "home")

    def work():
        Faults(tmp_path / "log.jsonl", 3, "full").install()
        for name in STAGES[:3]:
            objects.put(f"retrain/sat2/000001/{name}.json", b"{}")

    assert processes.wait(processes.fork(work, tmp_path / "out.txt")) == 1
    assert len(objects.keys("retrain")) == 2
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [stage for stage, _, _ in lines] == list(STAGES[:3])


def test_whatever_differs_from_a_whole_cycle_is_told():
    whole = {"dataset": "a", "rows": {"models": 2}, "trees": {"t": ["x"]}}
    assert differences(whole, whole) == []
    told = differences({"dataset": "b", "rows": {"models": 3}, "trees": {}}, whole)
    assert len(told) == 3 and told[0] == "1 trees lost, 0 differ"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_few_scenarios_lose_double_and_change_nothing(tmp_path):
    command = [sys.executable, "-m", "tests.chaos.retrain", "--limit", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 scenarios, 0 failed" in done.stdout
