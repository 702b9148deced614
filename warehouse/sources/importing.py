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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

from mcts.data import Box, content_id
from warehouse.sources import task_of
from warehouse.sources.find_files import FoundFiles, find_readers
from warehouse.sources.reading.accept_drafts import Accepted, Checker
from warehouse.sources.reading.box_units import BoxUnits
from warehouse.sources.reading.drafts import Draft, ImportProblem, Readers, Reject
from warehouse.sources.reading.image_boxes import ImageBoxes
from warehouse.sources.stored_otherwise import remarks as remarks_on
from warehouse.sources.stored_otherwise import stored_otherwise
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import put_images
from warehouse.tables.delta import insert_new, record_run
from warehouse.tables.older_questions import add_lost_ids, without_older
from warehouse.tables.rows import image_row, question_row

_DRAFT_BATCH = 32  # each holds its images
_IMAGE_BATCH = 64
_ROW_BATCH = 4096
_SPLIT = re.compile(r"\w+(?:[.-]\w+)*")


@dataclass(frozen=True, slots=True)
class ImportReport:
    """Counts of an import; `read` is the sum of the next three and `left_out`."""

    read: int
    added: int
    already_there: int
    rejected: int
    rejects_path: str | None
    """The CSV that lists the rejects, or None without any."""
    run_id: str
    warnings: tuple[str, ...] = ()
    """What looks wrong with the gold boxes together, though each alone could be right."""
    left_out: int = 0
    """Rows that are no questions by design, such as those whose answer is not published."""
    remarks: tuple[str, ...] = ()
    """What was left out of the files, and why: a sentence each."""


def _check_split(split: str | None) -> None:
    """Check what a split is called: it names folders and columns of files later.

    Raises:
        ImportProblem: it is no name.
    """
    if split and not _SPLIT.fullmatch(split):
        raise ImportProblem(
            f"--split {split!r}: letters, digits and underscores, with dots or dashes between them"
        )


def _doubts(split: str | None) -> list[str]:
    """Remark on a split that looks like a slip of the pen: as any but train it would evaluate."""
    if not split or split == "train" or not get_close_matches(split, ["train"], cutoff=0.75):
        return []
    return [
        f"{split} is an evaluation set, as every split but train: training questions like its own "
        "are left out of training"
    ]


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
    before: Callable[[], object] = lambda: None,
) -> ImportReport:
    """Import a file, or all files of a folder.

    Args:
        split: in a folder, import only the files of this split; where no file's name has a split,
            all belong to it. A single file belongs to it whatever its name.
        limit: read at most this many rows, besides those that are left out by design.
        image_root: the folder that image names in a file are relative to.
        recorded: what `runs.params` keeps beside the arguments.
        max_rejects: most rows that may be rejected. By default 10, or a tenth of the rows if that
            is more.
        source, licence: of the dataset, where the file does not say.
        columns: reads the files instead of the task's own reader, such as a table's columns.
        progress: called with `checking` or `storing` and the number of rows done so far.
        before: called once everything is checked, and before anything is stored.

    Raises:
        ImportProblem: a file can't be read, too many are rejected, none is usable; none is stored.
    """
    _check_split(split)
    files = find_readers(task, path, split, image_root, columns)
    checker = Checker(task, source, licence)

    def outcomes(stage: str) -> Iterator[Accepted | Reject]:
        return _outcomes(files, checker, limit, lambda done: progress and progress(stage, done))

    # The checker has its own, smaller limit, and rejects instead of warning.
    with warnings.catch_warnings(action="ignore", category=PILImage.DecompressionBombWarning):
        checked = _check_all(path, files, outcomes("checking"), max_rejects)
        before()
        run_id = run_id or f"import-{uuid.uuid4().hex[:12]}"
        params = {"path": str(path), "split": split, "limit": limit, "max_rejects": max_rejects}
        rejects_path = _write_rejects(warehouse, task, checked.rejects)
        params |= {"rejected": len(checked.rejects), "rejects": rejects_path, **(recorded or {})}
        record_run(warehouse, run_id, "import", task=task, params=params)
        accepted = (o for o in outcomes("storing") if isinstance(o, Accepted))
        add_lost_ids(warehouse, task)
        added, otherwise = _store(warehouse, accepted, run_id, checked.boxes)
    remarks = (*files.remarks, *checked.remarks(), *remarks_on(otherwise), *_doubts(split))
    rejected, left_out = len(checked.rejects), len(checked.left_out)
    return ImportReport(
        checked.read, added, checked.read - rejected - left_out - added, rejected, rejects_path,
        run_id, tuple(checked.units.warnings()), left_out, remarks,
    )  # fmt: skip


def _outcomes(
    files: FoundFiles,
    checker: Checker,
    limit: int | None,
    report: Callable[[int], object],
) -> Iterator[Accepted | Reject]:
    """Read and check the rows of all files, some at a time; report how many are done."""
    done = usable = 0
    for drafts, file_split in files:
        rows = drafts()
        while True:
            most = _DRAFT_BATCH if limit is None else min(_DRAFT_BATCH, limit - usable)
            batch = list(islice(rows, most))
            if not batch:
                break
            checker.decode_all(batch)
            for draft in batch:
                yield checker.check(draft, file_split) if isinstance(draft, Draft) else draft
            done += len(batch)
            usable += sum(isinstance(draft, Draft) or not draft.left_out for draft in batch)
            report(done)


@dataclass(slots=True)
class _CheckedRows:
    """What a file's rows are, before any is stored."""

    read: int = 0
    rejects: list[Reject] = field(default_factory=list)
    left_out: list[Reject] = field(default_factory=list)
    units: BoxUnits = field(default_factory=BoxUnits)
    boxes: ImageBoxes = field(default_factory=ImageBoxes)

    def remarks(self) -> list[str]:
        """Say what was left out, and what was odd about the boxes."""
        return [*left_out_rows(self.left_out, self.read), *self.boxes.remarks()]


def _check_all(
    path: str | Path,
    files: FoundFiles,
    outcomes: Iterator[Accepted | Reject],
    max_rejects: int | None,
) -> _CheckedRows:
    """Count and check all rows; ImportProblem where too many, or all, are rejected."""
    checked = _CheckedRows()
    rejects = checked.rejects
    for outcome in outcomes:
        checked.read += 1
        if isinstance(outcome, Accepted):
            sizes = [(image.width, image.height) for image in outcome.question.images]
            checked.units.add(outcome.question.boxes, sizes)
            for image, picture in zip(outcome.question.images, outcome.draft.images, strict=True):
                checked.boxes.add(image.image_id, picture.objects)
                if picture.objects:
                    own = [replace(box, image=0) for box in picture.objects]
                    checked.units.add(own, [(image.width, image.height)])
        elif outcome.left_out:
            checked.left_out.append(outcome)
        else:
            rejects.append(outcome)
            if max_rejects is not None and len(rejects) > max_rejects:
                raise _too_many(path, rejects, checked.read)
    if not checked.read:
        raise files.others[0] if files.others else ImportProblem(f"{path} is empty")
    usable = checked.read - len(checked.left_out)
    if not usable:
        (sentence,) = left_out_rows(checked.left_out, checked.read)
        raise ImportProblem(f"{path}: nothing was imported: {sentence}")
    allowed = max(10, usable // 10) if max_rejects is None else max_rejects
    if len(rejects) > allowed or len(rejects) == usable:
        raise _too_many(path, rejects, usable)
    return checked


def left_out_rows(rows: Sequence[Reject], read: int) -> list[str]:
    """One sentence on the rows that are left out by design, with the commonest reasons; or none."""
    if not rows:
        return []
    reasons = Counter(f"{row.field}: {row.reason}" for row in rows)
    shown = [f"{reason} ({many} rows)" for reason, many in reasons.most_common(2)]
    more = f", and {len(reasons) - 2} reasons more" if len(reasons) > 2 else ""
    return [f"{len(rows)} of {read} rows are left out: {'; '.join(shown)}{more}"]


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


def _store(
    warehouse: Warehouse, accepted: Iterator[Accepted], run_id: str, boxes: ImageBoxes
) -> tuple[int, Counter[str]]:
    """Store questions and images; return how many questions were new, and how many keep another
    detail than this import's."""
    added, otherwise = 0, Counter[str]()
    encoded: list[bytes] = []
    images: dict[str, dict[str, Any]] = {}
    questions: list[dict[str, Any]] = []
    uncounted: dict[str, str] = {}
    imported_at = datetime.now(UTC)

    def flush_rows() -> int:
        put_images(warehouse.objects, encoded)
        encoded.clear()
        provenance = {"run_id": run_id}
        boxes.hold_against(warehouse, images.values())
        insert_new(warehouse, "images", [{**row, **provenance} for row in images.values()])
        rows = [{**row, **provenance} for row in without_older(warehouse, questions, uncounted)]
        otherwise.update(stored_otherwise(warehouse, rows))
        new = insert_new(warehouse, "questions", rows)
        images.clear()
        questions.clear()
        uncounted.clear()
        return new

    for one in accepted:
        for decoded, image in zip(one.images, one.draft.images, strict=True):
            if decoded.image.image_id in images:
                continue
            encoded.append(image.data)
            seen = boxes.of(decoded.image.image_id, image.objects)
            images[decoded.image.image_id] = {
                **image_row(decoded.image),
                "format": decoded.format,
                "orientation": decoded.orientation,
                "bytes": len(image.data),
                "objects": None if seen is None else list(map(_object_row, seen)),
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
        if one.question.counted_as:
            uncounted[one.question.question_id] = replace(one.question, counted_as="").question_id
        if len(questions) >= _ROW_BATCH:
            added += flush_rows()
    return added + flush_rows(), otherwise


def _object_row(box: Box) -> dict[str, Any]:
    """Return a box as the column `images.objects` holds it."""
    return {"label": box.label, "x1": box.x1, "y1": box.y1, "x2": box.x2, "y2": box.y2}


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
