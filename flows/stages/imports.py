"""The command `vigorl import`: what can be imported, a look at it, and the import itself.

reading = Reading("screenspot", "screenspot.jsonl", split="test")
check(reading, Path("import-check"))     # draws the first rows; stores nothing
import_(reading, max_rejects=None, home=None)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.settings import Problem

TREES = "reference-trees"
"""What stands in the place of a task where the reference implementation's trees are read."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read, and how; as the command takes it."""

    task: str
    path: str
    split: str | None = None
    limit: int | None = None
    image_root: str | None = None
    columns: str | None = None
    boxes: str = "xyxy"

    def options(self) -> dict[str, Any]:
        """The keyword arguments of an import, or of a look.

        Raises:
            Problem: there is no task or no path.
            ImportProblem: the columns say nothing that can be read.
        """
        from warehouse.sources import task_of
        from warehouse.sources.reading.columns import Columns

        if not self.task or not self.path:
            raise Problem("import needs a TASK and a PATH; `vigorl import --list` names the tasks")
        columns = None
        if self.columns is not None:
            columns = Columns.parsed(self.columns, self.boxes, task_of(self.task).kind)
        elif self.boxes != "xyxy":
            raise Problem("--boxes: it belongs to --columns; a task's own reader knows its boxes")
        return {
            "split": self.split,
            "limit": self.limit,
            "image_root": self.image_root,
            "columns": columns,
        }


def list_tasks() -> None:
    """Print every task with what is read for it."""
    from warehouse.sources import tasks
    from warehouse.sources.reading import tabular

    for name, task in sorted(tasks().items()):
        print(f"{name:<16} {task.title}")
    print(
        f"{TREES:<16} the reference implementation's search trees, as trees (its rollouts_*.jsonl)"
    )
    kinds = ", ".join(tabular.FORMATS)
    print(
        f"\nAny task, also a new one, from {kinds} with --columns question=...,image=...,answer=..."
    )


def import_(reading: Reading, max_rejects: int | None, home: str | None) -> None:
    """Import, and say what came of it."""
    from warehouse.sources.importing import import_questions
    from warehouse.storage.home import Warehouse

    options = reading.options()
    report = import_questions(
        Warehouse.at(home), reading.task, reading.path, max_rejects=max_rejects, **options
    )
    print(
        f"{report.read} rows read: {report.added} questions added, "
        f"{report.already_there} already there, {report.rejected} rejected"
    )
    if report.rejects_path:
        print(f"the rejected rows and why: {report.rejects_path}", file=sys.stderr)
    _warn(report.warnings)


def import_trees(
    reading: Reading, into: str | None, space: str, max_rejects: int | None, home: str | None
) -> None:
    """Import the reference implementation's trees, and say what came of it."""
    from flows.teachers.resolve import space_by_name
    from warehouse.sources import importing_trees
    from warehouse.storage.home import Warehouse

    if not reading.path:
        raise Problem("import reference-trees needs a PATH: a rollouts_*.jsonl or its folder")
    report = importing_trees.import_trees(
        Warehouse.at(home),
        reading.path,
        into=into,
        split=reading.split,
        space=space_by_name(space),
        image_root=reading.image_root,
        limit=reading.limit,
        max_rejects=max_rejects,
    )
    print(
        f"{report.trees} trees of {report.task} added, {report.already_there} already there, "
        f"{report.questions.rejected} rejected"
    )
    if report.differing:
        print(
            f"{report.differing} of {report.graded} published rewards differ from our grader's, "
            "which count here; rollouts.grade_reason and nodes.grade_reason say which",
            file=sys.stderr,
        )
    if report.questions.rejects_path:
        print(f"the rejected rows and why: {report.questions.rejects_path}", file=sys.stderr)
    print(f"`vigorl curate {report.task}` makes traces of them", file=sys.stderr)


def check(reading: Reading, out: Path) -> None:
    """Draw the first rows, and say what looks wrong."""
    from warehouse.sources.preview import look_at

    looked = look_at(reading.task, reading.path, out=out, **reading.options())
    for line, file in zip(looked.lines, looked.files, strict=True):
        print(f"{file}  {line}")
    rejected = len(looked.rejects)
    print(f"{looked.read} rows read, {rejected} of them would be rejected; nothing was stored")
    if looked.rejects:
        first = looked.rejects[0]
        print(
            f"first, {first.file} row {first.row}, {first.field}: {first.reason}", file=sys.stderr
        )
    _warn(looked.warnings)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
