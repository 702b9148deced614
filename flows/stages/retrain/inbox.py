"""The watched folder: files that are dropped into it become questions, each once.

    inbox = Inbox(warehouse, "/data/inbox")        # files of sat2 lie in /data/inbox/sat2
    inbox.look()                                   # the first look takes nothing
    inbox.look()                                   # a file that is as it was then is imported

A file that still grows is left for a later look. The warehouse remembers a file by its content
(`retrain/<task>/inbox/<sha256>.json`), so the same one, renamed or not, is taken once. Nothing is
moved. Beside one that can't be used its reason is written, `NAME.rejected.txt`; with that deleted,
or the file changed, it is tried again. A name that says no split belongs to training.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from flows.progress import Report, ignore
from flows.settings_base import Problem
from warehouse.query.run_query import connect_trusted
from warehouse.sources import ImportProblem, task_of
from warehouse.sources.benchmarks.sat import OBJECTS_SUFFIX
from warehouse.sources.find_files import split_in_name
from warehouse.storage.failures import describe
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import LocalObjects

REJECTED = ".rejected.txt"
RETRY_S = 300.0
"""Seconds until a file is tried again where the disk or the store failed."""
_UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart")
"""Ends of the names that programs write under before they rename."""
Stamp = tuple[str, str]
"""The versions of a file and of the one with its objects: of what still changes they differ."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a file."""

    task: str
    file: str
    imported: bool
    sentence: str
    added: int = 0
    """Questions that were not there."""


class Inbox:
    """A folder, or a prefix of S3, with a folder for each task."""

    def __init__(
        self, warehouse: Warehouse, place: str | None = None, report: Report = ignore
    ) -> None:
        self.warehouse, self._report = warehouse, report
        self.root = Warehouse(place or inbox_of(warehouse))
        self._before: dict[str, Stamp] = {}
        self._done: dict[str, Stamp] = {}
        self._later: dict[str, float] = {}
        self._refused: set[str] = set()
        """Those of `_done` beside which a reason lay."""

    def tasks(self) -> list[str]:
        """Return the tasks that have a folder with files in it."""
        return sorted({key.partition("/")[0] for key in _files(self.root.objects.versions())})

    def require_folder(self, task: str = "") -> None:
        """Check that the folder is there, and the task's in it; on S3 there are none.

        Raises:
            Problem: it is not.
        """
        objects = self.root.objects
        if isinstance(objects, LocalObjects) and not (objects.root / task).is_dir():
            there = sorted(path.name for path in objects.root.glob("[!.]*/"))
            known = f"; there are those of {', '.join(there)}" if task and there else ""
            raise Problem(f"there is no folder {objects.root / task}{known}")

    def look(self, task: str | None = None) -> list[Taken]:
        """Import what has not changed since the last look and is not known; report on each file.

        Args:
            task: its files alone.
        """
        listed = self.root.objects.versions(task or "")
        found = _files(listed)
        for key in [k for k in self._refused if f"{k}{REJECTED}" not in listed]:
            if not task or _parts(key)[0] == task:  # its reason was deleted: it is tried again
                self._refused.remove(key)
                self._done.pop(key, None)
        still = [key for key, stamp in found.items() if self._before.get(key) == stamp]
        self._before = found
        taken = []
        for key in still:
            if self._done.get(key) == found[key] or self._later.get(key, 0) > time.monotonic():
                continue
            try:
                outcome = self._take(key)
            except Exception as error:  # a file, or a disk, that fails in its own way
                self._later[key] = time.monotonic() + RETRY_S
                said = describe(error) or str(error) or type(error).__name__
                outcome = Taken(*_parts(key), False, f"{said.splitlines()[0]}; it is tried again")
            else:
                self._done[key] = found[key]
                if self.root.objects.exists(f"{key}{REJECTED}"):
                    self._refused.add(key)
            if outcome is not None:
                self._report(f"{outcome.task}/{outcome.file}: {outcome.sentence}")
                taken.append(outcome)
        return taken

    @property
    def restless(self) -> bool:
        """Whether the last look left files for another one."""
        return any(
            self._done.get(key) != stamp and key not in self._later
            for key, stamp in self._before.items()
        )

    def _take(self, key: str) -> Taken | None:
        """Import a file; None where it is known already."""
        task, name = _parts(key)
        reason_key = f"{key}{REJECTED}"
        with self._local(key) as path:
            known = f"retrain/{task}/inbox/{_content_of(path)}"
            objects = self.warehouse.objects
            if objects.exists(f"{known}.json"):
                return None
            if objects.exists(f"{known}.refused.json") and self.root.objects.exists(reason_key):
                return None
            try:
                taken = self._import(task, name, path)
            except ImportProblem as problem:
                reason = str(problem).replace(str(path), name).splitlines()[0]
                taken = Taken(task, name, False, reason)
        end = "json" if taken.imported else "refused.json"
        note = json.dumps({**asdict(taken), "at": time.time()}, sort_keys=True, indent=1)
        objects.put(f"{known}.{end}", note.encode())
        if taken.imported:
            self.root.objects.delete(reason_key)
        else:
            self._write(reason_key, f"{taken.sentence}\n")
        return taken

    def _import(self, task: str, name: str, path: Path) -> Taken:
        from warehouse.sources.importing import import_questions

        def complete() -> None:
            if added := complete_sample(self.warehouse, task):
                self._report(f"{task}: the embedded sample was imported ({added} questions)")

        report = import_questions(
            self.warehouse, task, path, split=None if split_in_name(name) else "train",
            recorded={"inbox": f"{self.root.root}/{task}/{name}"}, before=complete,
        )  # fmt: skip
        said = f"{report.added} questions added, {report.already_there} already there"
        if report.rejected:
            said += f", {report.rejected} rows rejected ({report.rejects_path})"
        return Taken(task, name, True, "; ".join([said, *report.warnings]), report.added)

    @contextmanager
    def _local(self, key: str) -> Iterator[Path]:
        """Give a local file, with the one of its objects beside it where there is one."""
        objects = self.root.objects
        if isinstance(objects, LocalObjects):
            yield objects.root / key
            return
        with tempfile.TemporaryDirectory() as folder:
            for name in (key, _beside(key)):
                if objects.exists(name):
                    with objects.local_path(name) as path:
                        shutil.copy(path, folder)
            yield Path(folder) / PurePosixPath(key).name

    def _write(self, key: str, text: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "reason"
            path.write_text(text, encoding="utf-8")
            self.root.objects.put_file(key, path, replace=True)


def inbox_of(warehouse: Warehouse) -> str:
    """Return where the watched folder is: $VIGORL_INBOX, or `inbox` in the warehouse."""
    return os.environ.get("VIGORL_INBOX") or f"{warehouse.root}/inbox"


def missing_in_sample(warehouse: Warehouse, task: str) -> frozenset[str]:
    """Return the splits that a task's sample would add, where it has no other questions.

    None for a sample without questions of the gate.
    """
    sample = task_of(task).sample
    if sample is None or "gate" not in sample.files:
        return frozenset()
    with connect_trusted(warehouse, ["questions"]) as con:
        there = con.sql(
            "SELECT DISTINCT source, split FROM questions WHERE task = $1", params=[task]
        ).fetchall()
    if any(source != sample.source for source, _ in there):
        return frozenset()
    return frozenset(sample.files) - {split for _, split in there}


def complete_sample(warehouse: Warehouse, task: str) -> int:
    """Import what is missing of a task's sample where the task has no other questions.

    Returns:
        How many questions were added; 0 for a sample without questions of the gate.
    """
    if not missing_in_sample(warehouse, task):
        return 0
    from warehouse.sources.importing import import_sample

    report = import_sample(warehouse, task)
    return report.added if report else 0


def _files(listed: Mapping[str, str]) -> dict[str, Stamp]:
    """Return the files that may be questions, by key: those that lie in a task's folder."""
    found = {}
    for key, version in listed.items():
        parts = PurePosixPath(key).parts
        hidden = any(part.startswith(".") for part in parts)
        ends = (REJECTED, OBJECTS_SUFFIX, *_UNFINISHED)
        if len(parts) == 2 and not hidden and not key.endswith(ends):
            found[key] = version, listed.get(_beside(key), "")
    return found


def _parts(key: str) -> tuple[str, str]:
    task, _, name = key.partition("/")
    return task, name


def _beside(key: str) -> str:
    """Return the name of the file with a file's objects, as the reader of SAT looks for it."""
    return key.removesuffix(".parquet") + OBJECTS_SUFFIX


def _content_of(path: Path) -> str:
    """Return the SHA-256 of a file, with its objects' where there are any."""
    whole = hashlib.sha256()
    for part in (path, path.with_name(_beside(path.name))):
        if part.exists():
            with part.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
