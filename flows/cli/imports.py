"""The command `vigorl import`: what can be imported, a look at it, and the import itself."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.parameters import takes
from flows.settings import ImportSettings
from flows.settings_base import Problem

TREES = "reference-trees"
"""Given in place of a task to read the reference implementation's trees."""


@takes(ImportSettings)
def import_(
    settings: ImportSettings,
    check: Annotated[
        bool, typer.Option("--check", help="Only draw the first rows with their gold answers.")
    ] = False,
    out: Annotated[Path, typer.Option(help="With --check, the folder for the images.")] = Path(
        "import-check"
    ),
    list_: Annotated[bool, typer.Option("--list", help="List what can be imported.")] = False,
) -> None:
    """Read questions with their images into the warehouse; bad rows go into a report.

    vigorl import sat2 SAT_train.parquet --limit 1000
    """
    if list_:
        print_tasks()
    elif settings.task == TREES:
        import_trees(settings)
    elif check:
        preview(settings, out)
    else:
        import_questions(settings)


def reading_options(settings: ImportSettings) -> dict[str, Any]:
    """Return the keyword arguments of an import, or of a look.

    Raises:
        Problem: there is no task or no path.
        ImportProblem: the columns can't be read.
    """
    from warehouse.sources import task_of
    from warehouse.sources.reading.columns import Columns

    if not settings.task or not settings.path:
        raise Problem("import needs a TASK and a PATH; `vigorl import --list` names the tasks")
    columns = None
    if settings.columns is not None:
        columns = Columns.parsed(settings.columns, settings.boxes, task_of(settings.task).kind)
    elif settings.boxes != "xyxy":
        raise Problem("--boxes: it belongs to --columns; a task's own reader knows its boxes")
    return {
        "split": settings.split,
        "limit": settings.limit,
        "image_root": settings.image_root,
        "columns": columns,
    }


def print_tasks() -> None:
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


def import_questions(settings: ImportSettings) -> None:
    """Import, and print the outcome."""
    from warehouse.sources import importing
    from warehouse.storage.home import Warehouse

    report = importing.import_questions(
        Warehouse.at(settings.home), settings.task, settings.path,
        max_rejects=settings.max_rejects, recorded={"settings": settings.params()},
        **reading_options(settings),
    )  # fmt: skip
    print(
        f"{report.read} rows read: {report.added} questions added, "
        f"{report.already_there} already there, {report.rejected} rejected"
        + (f", {report.left_out} left out" if report.left_out else "")
    )
    print_remarks(report.remarks)
    if report.rejects_path:
        print(f"the rejected rows and why: {report.rejects_path}", file=sys.stderr)
    _print_warnings(report.warnings)
    if report.added:
        from flows.orchestration.announce import announce_imported

        if announce_imported(settings.home, settings.task):
            print("the server of `vigorl up` was told", file=sys.stderr)


def import_trees(settings: ImportSettings) -> None:
    """Import the reference implementation's trees, and print the outcome."""
    from flows.teachers.spaces import space_by_name
    from warehouse.sources import importing_trees
    from warehouse.storage.home import Warehouse

    if not settings.path:
        raise Problem("import reference-trees needs a PATH: a rollouts_*.jsonl or its folder")
    report = importing_trees.import_trees(
        Warehouse.at(settings.home),
        settings.path,
        into=settings.into,
        split=settings.split,
        space=space_by_name(settings.space),
        image_root=settings.image_root,
        limit=settings.limit,
        max_rejects=settings.max_rejects,
    )
    print(
        f"{report.trees} trees of {report.task} added, {report.already_there} already there, "
        f"{report.questions.rejected} rejected"
    )
    print_remarks(report.questions.remarks)
    if report.differing:
        print(
            f"{report.differing} of {report.graded} published rewards differ from our grader's, "
            "which count here; rollouts.grade_reason and nodes.grade_reason say which",
            file=sys.stderr,
        )
    if report.questions.rejects_path:
        print(f"the rejected rows and why: {report.questions.rejects_path}", file=sys.stderr)
    print(f"`vigorl curate {report.task}` makes traces of them", file=sys.stderr)


def preview(settings: ImportSettings, out: Path) -> None:
    """Draw the first rows, and print what looks wrong."""
    from warehouse.sources.preview import preview_import

    looked = preview_import(settings.task, settings.path, out=out, **reading_options(settings))
    for line, file in zip(looked.lines, looked.files, strict=True):
        print(f"{file}  {line}")
    rejected = len(looked.rejects)
    print(f"{looked.read} rows read, {rejected} of them would be rejected; nothing was stored")
    if looked.rejects:
        first = looked.rejects[0]
        print(
            f"first, {first.file} row {first.row}, {first.field}: {first.reason}", file=sys.stderr
        )
    print_remarks(looked.remarks)
    _print_warnings(looked.warnings)


def print_remarks(remarks: Iterable[str]) -> None:
    """Print what was left out of the files, and why."""
    for remark in remarks:
        print(remark, file=sys.stderr)


def _print_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
