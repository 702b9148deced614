"""Previews an import: draws the first rows with their gold answers, and stores nothing.

    preview = preview_import("screenspot", "data/", out=Path("import-check"))
    preview.files, preview.warnings

A row that would be rejected is drawn as well, with the reason under it. Warnings come from all rows
that were read, drawn or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curation.render.question_card import draw_question
from warehouse.sources.find_files import find_readers
from warehouse.sources.importing import left_out_rows
from warehouse.sources.reading.accept_drafts import Accepted, Checker
from warehouse.sources.reading.box_units import BoxUnits
from warehouse.sources.reading.drafts import Draft, ImportProblem, Readers, Reject

READ, DRAWN = 400, 12
"""Rows read, and of these drawn, without a limit."""


@dataclass(frozen=True, slots=True)
class ImportPreview:
    """The first rows of an import, checked and drawn."""

    read: int
    """Rows read."""
    rejects: tuple[Reject, ...]
    """Rows that an import would reject."""
    lines: tuple[str, ...]
    """One line per row drawn."""
    files: tuple[Path, ...]
    """Its image."""
    warnings: tuple[str, ...]
    """What looks wrong with the gold boxes of all rows together."""
    remarks: tuple[str, ...] = ()
    """What an import would leave out, and why."""


def preview_import(
    task: str,
    path: str | Path,
    *,
    out: Path,
    split: str | None = None,
    limit: int | None = None,
    image_root: str | Path | None = None,
    columns: Readers | None = None,
) -> ImportPreview:
    """Read rows as an import does, draw the first into the folder `out`, and store nothing.

    Args:
        limit: rows to read besides those that are left out, all of which are drawn; without it,
            `READ` and `DRAWN`.

    Raises:
        ImportProblem: a file can't be read, there are no rows, or `out` is not a folder.
    """
    if out.exists() and not out.is_dir():
        raise ImportProblem(f"{out} is not a folder for the images")
    checker, units = Checker(task), BoxUnits()
    rejects: list[Reject] = []
    lines: list[str] = []
    files: list[Path] = []
    read = 0
    left_out: list[Reject] = []
    found = find_readers(task, path, split, image_root, columns)
    drafts = ((draft, file_split) for read_file, file_split in found for draft in read_file())
    for draft, file_split in drafts:
        if read - len(left_out) >= (limit or READ):
            break
        read += 1
        outcome = checker.check(draft, file_split) if isinstance(draft, Draft) else draft
        problem = ""
        if isinstance(outcome, Reject) and outcome.left_out:
            left_out.append(outcome)
        elif isinstance(outcome, Reject):
            rejects.append(outcome)
            problem = f"{outcome.field}: {outcome.reason}"
        if isinstance(draft, Draft):
            decoded = [checker.decode_image(image) for image in draft.images]
            sizes = [
                None if isinstance(one, str) else (one.image.width, one.image.height)
                for one in decoded
            ]
            units.add(draft.boxes, sizes)
            if len(files) < (limit or DRAWN):
                out.mkdir(parents=True, exist_ok=True)
                file = out / f"{len(files) + 1:03}.png"
                file.write_bytes(_card(draft, outcome, file_split, problem))
                files.append(file)
                lines.append(_line(draft, problem))
    if not read:
        raise ImportProblem(f"{path} is empty")
    remarks = (*found.remarks, *left_out_rows(left_out, read))
    return ImportPreview(
        read, tuple(rejects), tuple(lines), tuple(files), tuple(units.warnings()), remarks
    )


def _card(draft: Draft, outcome: Accepted | Reject, split: str, problem: str) -> bytes:
    """Draw the draft; one that was accepted as it would be stored."""
    gold: Draft | object = outcome.question if isinstance(outcome, Accepted) else draft
    details = [
        f"{draft.file} row {draft.row}",
        draft.split or split,
        str(draft.answer_kind),
        draft.family,
    ]
    return draw_question(
        getattr(gold, "text", draft.text), draft.choices, draft.answers, draft.boxes, draft.points,
        [image.data for image in draft.images], [d for d in details if d], problem,
    )  # fmt: skip


def _line(draft: Draft, problem: str) -> str:
    boxes = [f"({b.x1:g}, {b.y1:g}, {b.x2:g}, {b.y2:g})" for b in draft.boxes]
    points = [f"({p.x:g}, {p.y:g})" for p in draft.points]
    gold = "; ".join([*draft.answers, *boxes, *points]) or "no gold answer"
    text = " ".join(draft.text.split())
    shown = text if len(text) <= 70 else text[:69] + "…"
    return f"{draft.file} row {draft.row}: {shown} -> {gold}" + (f" [{problem}]" if problem else "")
