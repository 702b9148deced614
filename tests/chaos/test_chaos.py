"""A slice of `make chaos-search`, and single faults whose message a person reads."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mcts.journal.journal import Journal
from mcts.journal.records import Key, Record
from mcts.teachers.base import Completion, Reply
from tests.chaos.contents import compare
from tests.chaos.scenarios import POINTS, Weather, scenario
from tests.support.fixtures import sat_rows, write_sat
from tests.support.stub_server import StubServer
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse

ROOT = Path(__file__).parents[2]
SLICE = (1, 7, 34)


def chaos(*arguments):
    command = [sys.executable, "-m", "tests.chaos", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


def test_a_slice_of_the_scenarios_loses_doubles_and_changes_nothing(tmp_path):
    # These hold deaths around the journal and the tables, a storm, and a server that dies.
    done = chaos("--seed", *SLICE, "--json", tmp_path / "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["scenarios"] == len(SLICE) and report["faults injected"] > 10
    assert report["faults"]["die"] and report["faults"]["kill"]
    assert report["lost trees"] == report["differing trees"] == 0
    assert report["duplicate requests of journaled responses"] == 0


def test_two_hundred_scenarios_contain_every_kind_of_fault():
    runs = [run for seed in range(200) for run in scenario(seed).runs]
    for point in POINTS:
        assert sum(run.point == point and run.ending == "failpoint" for run in runs) > 5, point
    for ending in ("full", "kill", "term", "int"):
        assert sum(run.ending == ending for run in runs) > 10, ending
    for weather in ("storm", "dies", "absent"):
        assert sum(run.weather == weather for run in runs) > 10, weather
    assert scenario(17) == scenario(17) != scenario(18)


def test_a_storm_is_a_function_of_the_request_and_passes():
    weather = Weather("storm", 3)
    for n in range(50):
        faults = [weather.fault_of({"n": n}, i) for i in range(6)]
        assert faults == [weather.fault_of({"n": n}, i) for i in range(6)]
        assert faults[4:] == ["ok", "ok"], "never so many that a request fails for good"


def test_a_missing_and_a_changed_tree_are_detected():
    reference = {"a": ["x"], "b": ["y"]}
    assert compare(reference, reference) == (0, 0)
    assert compare({"a": ["x"]}, reference) == (1, 0)
    assert compare({"a": ["x", "x"], "b": ["y"]}, reference) == (0, 1)


async def test_what_was_answered_when_a_run_is_stopped_is_in_the_journal(tmp_path):
    completion = Completion("a", "stop", 1)
    answered = Record.of_reply(
        Key("s", "0", "expand", 0), "f", Reply((completion,), 1, None, 1, 0.5), 7.0
    )
    with Journal(tmp_path) as journal:
        appending = asyncio.create_task(journal.append(answered))
        await asyncio.sleep(0)
        appending.cancel()
    with Journal(tmp_path) as journal:
        assert journal.find(answered.key, "f") == answered


@pytest.fixture
def home(tmp_path):
    sample = write_sat(tmp_path / "SAT_train.parquet", sat_rows(3))
    import_questions(Warehouse(str(tmp_path / "home")), "sat2", sample)
    return tmp_path / "home"


def start(home, server, failpoint=""):
    env = {**os.environ, "VIGORL_HOME": str(home), "VIGORL_FAILPOINT": failpoint}
    command = [sys.executable, "-m", "flows.cli", "build", "sat2", "--teacher", server.url]
    command += ["--space", "qwen3-vl", "--simulations", "2"]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    "point",
    ["journal_write:5:full", pytest.param("between_tables:2:full", marks=pytest.mark.slow)],
)
def test_a_full_disk_stops_the_build_with_one_sentence_and_loses_nothing(home, point):
    with StubServer() as server:
        build = start(home, server, point)
        _, stderr = build.communicate(timeout=120)
        assert build.returncode == 1
        assert stderr.count("\n") == 1 and "No space left on device" in stderr
        before = server.request_count()
        again = start(home, server)
        _, stderr = again.communicate(timeout=120)
        assert again.returncode == 0, stderr
        if point.startswith("between"):
            assert server.repeated() == []
            assert server.request_count() == before, "every answer was journaled"
        else:  # the fifth answer could not be written: the four before it are asked no more
            assert server.request_count() > before
            assert len(server.repeated()) <= before - 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_build_in_seconds_and_what_was_answered_is_kept(home, number):
    with StubServer(latency_s=0.3) as server:
        build = start(home, server)
        while server.request_count() < 8:
            time.sleep(0.02)
        sent_at = time.monotonic()
        build.send_signal(number)
        _, stderr = build.communicate(timeout=60)
        assert time.monotonic() - sent_at < 5
        assert build.returncode == 128 + number
        assert stderr == "vigorl: stopped; what was done is kept, the same command continues\n"
        lines = [line for p in home.glob("journal/*.jsonl") for line in p.read_bytes().splitlines()]
        assert lines
