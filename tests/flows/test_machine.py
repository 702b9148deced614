"""`vigorl doctor` on machines: their disks, GPUs, clocks and libraries."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.stages.doctor import machine
from flows.stages.doctor.checkup import Diagnosis
from flows.stages.doctor.machine import (
    LEAST_FREE,
    MOST_OFF_S,
    check_clock,
    check_dependencies,
    check_disk,
    check_gpu,
    clock_diagnosis,
)
from warehouse.storage.home import Warehouse

GIB = 2**30


def told(found: Iterable[Diagnosis]) -> list[tuple[str, str]]:
    return [(diagnosis.state, diagnosis.sentence) for diagnosis in found]


# ---- disks ---------------------------------------------------------------------------------------


class Disks:
    """What the system says of disks; files and folders are real."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.files, self.files_left = LEAST_FREE, 10**6, 10_000
        self.asked: list[Path] = []
        monkeypatch.setattr(machine.shutil, "disk_usage", self.usage)
        monkeypatch.setattr(machine.os, "statvfs", self.statvfs)

    def usage(self, path: Path) -> Any:
        self.asked.append(path)
        return SimpleNamespace(free=self.free, total=100 * GIB)

    def statvfs(self, path: Path) -> Any:
        return SimpleNamespace(f_files=self.files, f_favail=self.files_left)


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> Disks:
    return Disks(monkeypatch)


def test_a_disk_has_room_for_bytes_and_for_files(disks: Disks, tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path / "not" / "made"))
    (found,) = check_disk(warehouse)
    assert (found.state, found.sentence) == ("ok", f"2.0 of 100 GiB are free at {tmp_path}")
    assert not (tmp_path / "not").exists()
    disks.files_left -= 1
    (found,) = check_disk(warehouse)
    assert (found.state, found.sentence) == ("problem", f"only 9,999 more files fit at {tmp_path}")
    assert found.remedy.startswith(f"du -xh -d 2 {tmp_path} ")
    disks.files = 0  # a file system that does not count files
    assert [found.state for found in check_disk(warehouse)] == ["ok"]
    disks.free -= 1
    (found,) = check_disk(warehouse)
    assert found.state == "problem" and found.sentence.startswith("only 2.0 of 100 GiB are free")


def test_the_disks_of_the_warehouse_the_journal_and_temporary_files_are_looked_at(
    disks: Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = iter(range(9))
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(Path, "stat", lambda self: SimpleNamespace(st_dev=next(devices)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = Warehouse(str(tmp_path))
    list(check_disk(here))
    assert disks.asked == [Path(here.root), here.journal_dir, Path(tempfile.gettempdir())]
    disks.asked.clear()
    there = Warehouse("s3://bucket/home")
    list(check_disk(there))
    assert disks.asked == [there.journal_dir, Path(tempfile.gettempdir())]


# ---- GPUs ----------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """What the driver, and torch, of a machine with a GPU answer."""
    answers: dict[str, str | None] = {
        "nvidia-smi": "NVIDIA H100, PCIe, 10, 81559\nNVIDIA L4, 0, 23034\n",
        sys.executable: "True\n",
    }
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine, "_output", lambda command: answers[command[0]])
    return answers


def test_every_gpu_is_shown_with_its_memory(asked: dict[str, str | None]) -> None:
    assert told(check_gpu()) == [
        ("ok", "NVIDIA H100, PCIe, 10 of 81559 MiB in use"),
        ("ok", "NVIDIA L4, 0 of 23034 MiB in use"),
    ]


def test_a_gpu_that_the_driver_or_torch_does_not_know_is_a_problem(
    asked: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in ("False\n", None):
        asked[sys.executable] = answer
        assert told(check_gpu())[2:] == [("problem", "torch can't use it")]
    asked["nvidia-smi"] = None
    assert told(check_gpu()) == [("problem", "its driver does not answer")]
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)  # AMD, or a TPU
    assert told(check_gpu()) == [("problem", "torch can't use it")]
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    assert [state for state, _ in told(check_gpu())] == ["ok"]


def test_a_command_that_fails_or_is_missing_has_no_output(tmp_path: Path) -> None:
    assert machine._output([sys.executable, "-c", "print('yes')"]) == "yes\n"
    assert machine._output([sys.executable, "-c", "print('yes'); raise SystemExit(1)"]) is None
    assert machine._output([str(tmp_path / "nothing")]) is None


# ---- clocks --------------------------------------------------------------------------------------


def test_clocks_may_differ_by_half_a_minute_either_way() -> None:
    assert MOST_OFF_S == 30.0
    for off_s in (-30.0, 0.0, 30.0):
        found = clock_diagnosis(off_s, "the store's")
        assert (found.state, found.sentence) == ("ok", "within 30 s of the store's")
    assert clock_diagnosis(30.6, "the store's").sentence == "31 s ahead of the store's"
    found = clock_diagnosis(-31.0, "the store's")
    assert (found.state, found.sentence) == ("problem", "31 s behind the store's")


def test_files_may_be_old_and_none_is_from_the_future(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    assert told(check_clock(warehouse)) == [("ok", "there is nothing yet to compare it with")]
    logs = [tmp_path / "tables" / name / "_delta_log" for name in ("traces", "trees")]
    for log, ago_s in zip(logs, (86_400, -300), strict=True):
        log.mkdir(parents=True)
        os.utime(log, (time.time() - ago_s, time.time() - ago_s))
    ((state, sentence),) = told(check_clock(warehouse))
    assert state == "problem" and sentence.endswith("s behind the newest file of the warehouse")
    shutil.rmtree(logs[1])
    assert [state for state, _ in told(check_clock(warehouse))] == ["ok"]


# ---- libraries -----------------------------------------------------------------------------------


def test_what_an_extra_lacks_is_a_note_and_what_a_marker_excludes_is_not_wanted(
    tmp_path: Path,
) -> None:
    numpy = metadata.version("numpy")
    stated = (
        "[project]\n"
        f'dependencies = ["numpy=={numpy}", "gone; python_version < \'3\'"]\n'
        "[project.optional-dependencies]\n"
        'filters = ["no-such-filter"]\n'
        'gpu = ["no-such-server"]\n'
    )
    (tmp_path / "pyproject.toml").write_text(stated)
    ((state, sentence),) = told(check_dependencies(tmp_path))
    assert state == "ok" and sentence.startswith("1 packages as wanted, Python 3.")
    (tmp_path / "pyproject.toml").write_text(stated + 'train = ["no-such-trainer"]\n')
    assert [state for state, _ in told(check_dependencies(tmp_path))] == ["ok", "note"]


def test_an_installed_package_is_held_to_what_it_says_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [
        "numpy",
        "no-such-library>=2",
        "no-such-trainer; extra == 'train'",
        "no-such-server; extra == 'gpu'",
    ]
    monkeypatch.setattr(machine.metadata, "requires", lambda name: wanted)
    problem, note = check_dependencies(tmp_path)
    assert (problem.sentence, note.state) == ("no-such-library is missing", "note")
    assert problem.remedy == "pip install -U vigorl"
    wanted[:] = ["numpy>=999"]
    ((state, sentence),) = told(check_dependencies(tmp_path))
    assert state == "problem" and sentence.endswith(", wanted >=999")
    monkeypatch.setattr(machine.metadata, "requires", lambda name: None)
    assert [state for state, _ in told(check_dependencies(tmp_path))] == ["ok"]
