"""Imports questions and their images from files into the warehouse.

    report = import_questions(warehouse, "sat2", "SAT_train.parquet", limit=1000)
    report.added, report.already_there, report.rejected, report.rejects_path
    report = import_sample(warehouse, "sat2")        # what comes with the task; None without

Files are read twice: first everything is checked and nothing written; then, if not too much was
rejected, it is stored in bounded batches, images before the rows that name them. Ids are content
hashes, so importing again, also after an interruption, adds only what is missing. Rejects are
listed in a CSV below `rejects/`: file, row, field and reason, a line each.
"""

from __future__ import annotations

import csv
import io
import re
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from mcts.data import content_id
from warehouse.sources import find_task, task_of
from warehouse.sources.benchmarks.sat import OBJECTS_SUFFIX
from warehouse.sources.reading.accept_drafts import Accepted, Checker
from warehouse.sources.reading.box_units import BoxUnits
from warehouse.sources.reading.drafts import Draft, ImportProblem, ReadContext, Readers, Reject
from warehouse.sources.tasks import Task
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import put_images
from warehouse.tables.delta import insert_new, record_run
from warehouse.tables.rows import image_row, question_row

_DRAFT_BATCH = 32  # each holds its images
_IMAGE_BATCH = 64
_ROW_BATCH = 4096
_SPLITS = {"val": "validation", "valid": "validation", "dev": "validation"}
_SPLIT = re.compile(r"(?<![a-z])(train|validation|valid|val|dev|test)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """Counts of an import; `read` is the sum of `added`, `already_there` and `rejected`."""

    read: int
    added: int
    already_there: int
    rejected: int
    rejects_path: str | None
    """The CSV that lists the rejects, or None without any."""
    run_id: str
    warnings: tuple[str, ...] = ()
    """What looks wrong with the gold boxes together, though each alone could be right."""


def import_questions(
    warehouse: Warehouse,
    task: str,
    path: str | Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    image_root: str | Path | None = None,
    max_rejects: int | None = None,
    source: str | None = None,
    licence: str | None = None,
    columns: Readers | None = None,
    run_id: str | None = None,
    progress: Callable[[str, int], None] | None = None,
    recorded: Mapping[str, Any] | None = None,
) -> ImportReport:
    """Import a file, or all files of a folder.

    Args:
        split: in a folder, import only the files of this split; a file whose name has no split
            belongs to it. A single file belongs to it whatever its name.
        limit: read at most this many rows.
        image_root: the folder that image names in a file are relative to.
        recorded: what `runs.params` keeps beside the arguments.
        max_rejects: most rows that may be rejected. By default 10, or a tenth of the rows if that
            is more.
        source, licence: of the dataset, where the file does not say.
        columns: reads the files instead of the task's own reader, such as a table's columns.
        progress: called with `checking` or `storing` and the number of rows done so far.

    Raises:
        ImportProblem: a file can't be read, too much was rejected, or nothing was usable. Nothing
            has been written then.
    """
    files = find_readers(task, path, split, image_root, columns)
    checker = Checker(task, source, licence)

    def outcomes(stage: str) -> Iterator[Accepted | Reject]:
        return _outcomes(files, checker, limit, lambda done: progress and progress(stage, done))

    with warnings.catch_warnings():
        # The checker has its own, smaller limit, and rejects instead of warning.
        warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
        read, rejects, units = _check_all(path, outcomes("checking"), max_rejects)
        run_id = run_id or f"import-{uuid.uuid4().hex[:12]}"
        params = {"path": str(path), "split": split, "limit": limit, "max_rejects": max_rejects}
        params |= dict(recorded or {})
        record_run(warehouse, run_id, "import", task=task, params=params)
        accepted = (o for o in outcomes("storing") if isinstance(o, Accepted))
        added = _store(warehouse, accepted, run_id)
    already_there = read - len(rejects) - added
    rejects_path = _write_rejects(warehouse, task, rejects)
    return ImportReport(
        read, added, already_there, len(rejects), rejects_path, run_id, tuple(units.warnings())
    )


def _outcomes(
    files: list[tuple[Callable[[], Iterator[Draft | Reject]], str]],
    checker: Checker,
    limit: int | None,
    report: Callable[[int], object],
) -> Iterator[Accepted | Reject]:
    """Read and check the rows of all files, some at a time; report how many are done."""
    done = 0
    for drafts, file_split in files:
        limited = islice(drafts(), None if limit is None else limit - done)
        while batch := list(islice(limited, _DRAFT_BATCH)):
            checker.decode_all(batch)
            for draft in batch:
                yield checker.check(draft, file_split) if isinstance(draft, Draft) else draft
            done += len(batch)
            report(done)


def _check_all(
    path: str | Path, outcomes: Iterator[Accepted | Reject], max_rejects: int | None
) -> tuple[int, list[Reject], BoxUnits]:
    """Count and check all rows; ImportProblem where too many, or all, are rejected."""
    read, rejects, units = 0, list[Reject](), BoxUnits()
    for outcome in outcomes:
        read += 1
        if isinstance(outcome, Accepted):
            sizes = [(image.width, image.height) for image in outcome.question.images]
            units.add(outcome.question.boxes, sizes)
        else:
            rejects.append(outcome)
            if max_rejects is not None and len(rejects) > max_rejects:
                raise _too_many(path, rejects, read)
    if not read:
        raise ImportProblem(f"{path} is empty")
    allowed = max(10, read // 10) if max_rejects is None else max_rejects
    if len(rejects) > allowed or len(rejects) == read:
        raise _too_many(path, rejects, read)
    return read, rejects, units


def import_sample(warehouse: Warehouse, task: str) -> ImportReport | None:
    """Import every split of a task's sample; importing again adds nothing."""
    total: ImportReport | None = None
    sample = task_of(task).sample
    if sample is None:
        return None
    for split, path in sample.files.items():
        report = import_questions(
            warehouse, task, path, split=split, source=sample.source, licence=sample.licence
        )
        if total is not None:
            report = replace(
                report,
                read=total.read + report.read,
                added=total.added + report.added,
                already_there=total.already_there + report.already_there,
            )
        total = report
    return total


def find_readers(
    task: str,
    path: str | Path,
    split: str | None = None,
    image_root: str | Path | None = None,
    columns: Readers | None = None,
) -> list[tuple[Callable[[], Iterator[Draft | Reject]], str]]:
    """Find the files to read: for each a function that reads it anew, and its split.

    Raises:
        ImportProblem: no such task, file or split.
    """
    reader = find_task(task) if columns is None else Task(task, formats=columns.formats())
    context = ReadContext(task, Path(image_root) if image_root else None)
    return [
        (partial(reader.formats[file.suffix.lower()], file, context), file_split)
        for file, file_split in _files(Path(path), reader, split)
    ]


def normalize_split(word: str) -> str:
    """The split that a word means, as stored in `questions.split`: `val` is `validation`."""
    return _SPLITS.get(word, word)


def split_in_name(name: str) -> str | None:
    """The split in a file name: train-00000-of-00004.parquet, SAT_val.parquet, …; else None."""
    found = {normalize_split(word.lower()) for word in _SPLIT.findall(name.rpartition(".")[0])}
    return found.pop() if len(found) == 1 else None


def _files(path: Path, reader: Task, split: str | None) -> list[tuple[Path, str]]:
    """The files to read, each with its split."""
    formats = ", ".join(sorted(reader.formats))
    wanted = normalize_split(split) if split else None
    if path.is_file():
        if path.suffix.lower() not in reader.formats:
            raise ImportProblem(f"{path}: {reader.name} is read from {formats}")
        found = [(path, wanted or split_in_name(path.name) or reader.split)]
    elif path.is_dir():
        every = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        every = [p for p in every if p.suffix.lower() in reader.formats]
        every = [p for p in every if not p.name.endswith(OBJECTS_SUFFIX)]
        if not every:
            raise ImportProblem(f"{path} holds no {formats} file")
        found = [(p, _split_within(p, path) or wanted or reader.split) for p in every]
        found = [(p, s) for p, s in found if wanted is None or s == wanted]
        if not found:
            raise ImportProblem(f"{path} holds no file of the split {split}")
    else:
        raise ImportProblem(f"{path} does not exist")
    for file, file_split in found:
        if not file_split:
            raise ImportProblem(f"{file}: its name has no split; say with --split which it is")
    return [(file, file_split) for file, file_split in found if file_split is not None]


def _split_within(file: Path, folder: Path) -> str | None:
    """The split in a file's name, or else in the name of the nearest folder it lies in."""
    names = [file.name, *(f"{part}." for part in reversed(file.relative_to(folder).parts[:-1]))]
    return next((found for name in names if (found := split_in_name(name))), None)


def _store(warehouse: Warehouse, accepted: Iterator[Accepted], run_id: str) -> int:
    """Store questions and images; return how many questions were new."""
    added = 0
    encoded: list[bytes] = []
    images: dict[str, dict[str, Any]] = {}
    questions: list[dict[str, Any]] = []
    imported_at = datetime.now(UTC)

    def flush_rows() -> int:
        put_images(warehouse.objects, encoded)
        encoded.clear()
        provenance = {"run_id": run_id}
        insert_new(warehouse, "images", [{**row, **provenance} for row in images.values()])
        new = insert_new(warehouse, "questions", [{**row, **provenance} for row in questions])
        images.clear()
        questions.clear()
        return new

    for one in accepted:
        for decoded, image in zip(one.images, one.draft.images, strict=True):
            if decoded.image.image_id in images:
                continue
            encoded.append(image.data)
            objects = None
            if image.objects is not None:
                objects = [
                    {"label": b.label, "x1": b.x1, "y1": b.y1, "x2": b.x2, "y2": b.y2}
                    for b in image.objects
                ]
            images[decoded.image.image_id] = {
                **image_row(decoded.image),
                "format": decoded.format,
                "orientation": decoded.orientation,
                "bytes": len(image.data),
                "objects": objects,
                "licence": one.question.licence,
                "source": one.question.source,
            }
        if len(encoded) >= _IMAGE_BATCH:
            put_images(warehouse.objects, encoded)
            encoded.clear()
        questions.append(
            {
                **question_row(one.question),
                "source_file": one.draft.file,
                "source_row": one.draft.row,
                "imported_at": imported_at,
            }
        )
        if len(questions) >= _ROW_BATCH:
            added += flush_rows()
    return added + flush_rows()


def _too_many(path: str | Path, rejects: list[Reject], read: int) -> ImportProblem:
    first = rejects[0]
    return ImportProblem(
        f"{path}: {len(rejects)} of {read} rows can't be used, so nothing was imported; "
        f"first, {first.file} row {first.row}, {first.field}: {first.reason}"
    )


def _write_rejects(warehouse: Warehouse, task: str, rejects: list[Reject]) -> str | None:
    """Write the rejects as CSV; the same rejects give the same file."""
    if not rejects:
        return None
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "row", "field", "reason"])
    table.writerows([r.file, r.row, r.field, r.reason] for r in rejects)
    data = text.getvalue()
    key = f"rejects/{task}-{content_id(data)[:12]}.csv"
    warehouse.objects.put(key, data.encode("utf-8", "replace"))
    return f"{warehouse.root}/{key}"
