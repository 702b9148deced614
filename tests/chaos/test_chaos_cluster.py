"""Scenarios of `make chaos-cluster`, and how it finds its own processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.cluster import Place, wait

ROOT = Path(__file__).parents[2]


def test_only_the_processes_of_a_part_are_killed(tmp_path):
    place, namesake = (Place(tmp_path / run / "head-folder", "folder") for run in "ab")
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    head, second = (subprocess.Popen(sleep, env=place.environment(p)) for p in ("head", "second"))
    other = subprocess.Popen(sleep, env=namesake.environment("second"))
    try:
        assert {pid for pid, _ in place.processes()} == {head.pid, second.pid}
        place.kill("second")
        assert wait(second) == 137 and head.poll() is other.poll() is None
    finally:
        for process in (head, second, other):
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["worker", "head", "store"])
def test_a_cluster_that_loses_a_part_stores_what_one_process_does(fault):
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "tests.chaos.cluster", "--only", fault]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the rows of one process") == (1 if fault == "store" else 2)
