"""This machine: room on its disks, its GPU, its clock, and the libraries that are installed."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from flows.stages.doctor.checkup import Diagnosis
from flows.teachers.vllm_command import PROJECT, has_gpu
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import S3Objects

LEAST_FREE = 2 * 2**30
"""Bytes free on a disk below which a build or a training is likely to fill it."""
MOST_OFF_S = 30.0
"""Seconds that clocks may differ: leases of the warehouse end after two minutes."""
_EXTRAS = ("train", "filters", "web")
"""Those that run in this environment; `gpu` has one of its own, `dev` is no user's."""


def check_disk(warehouse: Warehouse) -> Iterator[Diagnosis]:
    """Look at the room where the warehouse, the journals and temporary files are."""
    places = [warehouse.journal_dir, Path(tempfile.gettempdir())]
    if not warehouse.is_s3:
        places.insert(0, Path(warehouse.root))
    seen: dict[int, Path] = {}
    for place in places:
        there = next(parent for parent in (place, *place.parents) if parent.exists())
        seen.setdefault(there.stat().st_dev, there)
    for there in seen.values():
        usage, entries = shutil.disk_usage(there), os.statvfs(there)
        room = f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.0f} GiB are free at {there}"
        remedy = f"du -xh -d 2 {shlex.quote(str(there))} | sort -h | tail; vigorl warehouse compact"
        if usage.free < LEAST_FREE:
            yield Diagnosis("disk", "problem", f"only {room}", remedy)
        elif entries.f_files and entries.f_favail < 10_000:
            sentence = f"only {entries.f_favail:,} more files fit at {there}"
            yield Diagnosis("disk", "problem", sentence, remedy)
        else:
            yield Diagnosis("disk", "ok", room)


def check_gpu() -> Iterator[Diagnosis]:
    """Ask the driver what there is, and torch, in a process of its own, whether it can use it."""
    if not has_gpu():
        yield Diagnosis("GPU", "ok", "none here, and the embedded models need none")
        return
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=name,memory.used,memory.total"
        asked = _output(["nvidia-smi", query, "--format=csv,noheader,nounits"])
        if asked is None:
            yield Diagnosis("GPU", "problem", "its driver does not answer", "nvidia-smi")
            return
        for line in asked.splitlines():
            name, used, total = (part.strip() for part in line.rsplit(",", 2))
            yield Diagnosis("GPU", "ok", f"{name}, {used} of {total} MiB in use")
    sees = _output([sys.executable, "-c", "import torch; print(torch.cuda.is_available())"])
    if sees is None or sees.strip() != "True":
        yield Diagnosis(
            "GPU", "problem", "torch can't use it",
            f"{sys.executable} -c 'import torch; torch.zeros(1).cuda()'",
        )  # fmt: skip


def _output(command: list[str]) -> str | None:
    """Return what a command prints; None if it fails, or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def check_clock(warehouse: Warehouse) -> Iterator[Diagnosis]:
    """Compare the clock with the object store's, or with the times of the warehouse's files."""
    if isinstance(warehouse.objects, S3Objects):
        yield clock_diagnosis(time.time() - warehouse.objects.clock(), "the object store's")
        return
    logs = Path(warehouse.root).glob("tables/*/_delta_log")
    if newest := max((path.stat().st_mtime for path in logs), default=None):
        # A file may be old, and not from the future.
        yield clock_diagnosis(min(0.0, time.time() - newest), "the newest file of the warehouse")
    else:
        yield Diagnosis("clock", "ok", "there is nothing yet to compare it with")


def clock_diagnosis(off_s: float, where: str) -> Diagnosis:
    """Say whether a difference between two clocks does harm.

    Args:
        off_s: seconds that this machine's is ahead.
    """
    if abs(off_s) <= MOST_OFF_S:
        return Diagnosis("clock", "ok", f"within {MOST_OFF_S:g} s of {where}")
    way = "ahead of" if off_s > 0 else "behind"
    return Diagnosis(
        "clock", "problem", f"{abs(off_s):.0f} s {way} {where}", "sudo timedatectl set-ntp true"
    )


def check_dependencies(project: Path = PROJECT) -> Iterator[Diagnosis]:
    """Compare what is installed with what the project asks for: its checkout, else its package."""
    wrong, lacking, count = [], set(), 0
    for extra, requirement in _requirements(project):
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if extra:
                lacking.add(extra)
            else:
                wrong.append(f"{requirement.name} is missing")
            continue
        count += 1
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} is {found}, wanted {requirement.specifier}")
    if wrong:
        setup = "make setup" if _is_checkout(project) else "pip install -U vigorl"
        yield Diagnosis("dependencies", "problem", "; ".join(wrong), setup)
    else:
        python = platform.python_version()
        yield Diagnosis("dependencies", "ok", f"{count} packages as wanted, Python {python}")
    if "train" in lacking:
        sentence = "what training needs is not installed: students can't be made here"
        yield Diagnosis("dependencies", "note", sentence, "pip install 'vigorl[train]'")


def _is_checkout(project: Path) -> bool:
    return (project / "pyproject.toml").is_file()


def _requirements(project: Path) -> Iterator[tuple[str, Requirement]]:
    """Yield what is wanted here, each with the extra that wants it."""
    if _is_checkout(project):
        stated = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lines = [("", line) for line in stated["dependencies"]]
        extras = stated["optional-dependencies"]
        lines += [(name, line) for name in _EXTRAS for line in extras.get(name, ())]
    else:
        lines = []
        for line in metadata.requires("vigorl") or ():
            extra = re.search(r"extra == [\"']([\w-]+)", line)
            lines.append((extra[1] if extra else "", line))
    for name, line in lines:
        requirement = Requirement(line)
        if name in ("", *_EXTRAS) and (
            requirement.marker is None or requirement.marker.evaluate({"extra": name})
        ):
            yield name, requirement
