"""Look before importing: the first rows as pictures with their gold drawn; nothing is stored.

    look = look_at("screenspot", "data/", out=Path("import-check"))
    look.files, look.warnings

A row that would be rejected is drawn as well, with the reason under it. Warnings come from all rows
that were read, drawn or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from curation.render.question_card import draw_gold
from warehouse.sources.importing import files_of
from warehouse.sources.reading.box_units import Frames
from warehouse.sources.reading.columns import Columns
from warehouse.sources.reading.drafts import Draft, ImportProblem, Reject
from warehouse.sources.reading.row_checks import Accepted, Checked, Checker

READ, DRAWN = 400, 12
"""Rows read, and of these drawn, where nobody says how many."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen."""

    read: int
    """Rows read."""
    rejects: tuple[Reject, ...]
    """Those that an import would reject."""
    lines: tuple[str, ...]
    """A line for each row that was drawn."""
    files: tuple[Path, ...]
    """Its picture."""
    warnings: tuple[str, ...]
    """What looks wrong with the gold boxes of all rows together."""


def look_at(
    task: str,
    path: str | Path,
    *,
    out: Path,
    split: str | None = None,
    limit: int | None = None,
    image_root: str | Path | None = None,
    columns: Columns | None = None,
) -> Looked:
    """Read rows as an import does, draw the first into the folder `out`, and store nothing.

    Args:
        limit: rows to read, all of which are drawn; without it, `READ` and `DRAWN`.

    Raises:
        ImportProblem: a file can't be read, there are no rows, or `out` is no folder.
    """
    if out.exists() and not out.is_dir():
        raise ImportProblem(f"{out} is no folder for the pictures")
    checker, frames = Checker(task), Frames()
    rejects: list[Reject] = []
    lines: list[str] = []
    files: list[Path] = []
    read = 0
    for draft, its_split in islice(_drafts(task, path, split, image_root, columns), limit or READ):
        read += 1
        outcome = checker.check(draft, its_split) if isinstance(draft, Draft) else draft
        if isinstance(outcome, Reject):
            rejects.append(outcome)
        problem = f"{outcome.field}: {outcome.reason}" if isinstance(outcome, Reject) else ""
        if isinstance(draft, Draft):
            seen = [checker.picture(picture) for picture in draft.images]
            frames.see(draft.boxes, [_size(found) for found in seen])
            if len(files) < (limit or DRAWN):
                out.mkdir(parents=True, exist_ok=True)
                file = out / f"{len(files) + 1:03}.png"
                file.write_bytes(_card(draft, outcome, its_split, problem))
                files.append(file)
                lines.append(_line(draft, problem))
    if not read:
        raise ImportProblem(f"{path} is empty")
    return Looked(read, tuple(rejects), tuple(lines), tuple(files), tuple(frames.warnings()))


def _drafts(
    task: str,
    path: str | Path,
    split: str | None,
    image_root: str | Path | None,
    columns: Columns | None,
) -> Iterator[tuple[Draft | Reject, str]]:
    for drafts, its_split in files_of(task, path, split, image_root, columns):
        for draft in drafts():
            yield draft, its_split


def _size(found: Checked | str) -> tuple[int, int] | None:
    return None if isinstance(found, str) else (found.image.width, found.image.height)


def _card(draft: Draft, outcome: Accepted | Reject, split: str, problem: str) -> bytes:
    """The draft drawn; one that was accepted as it is stored."""
    gold: Draft | object = outcome.question if isinstance(outcome, Accepted) else draft
    remarks = [f"{draft.file} row {draft.row}", split, str(draft.answer_kind), draft.family]
    return draw_gold(
        getattr(gold, "text", draft.text), draft.choices, draft.answers, draft.boxes, draft.points,
        [picture.data for picture in draft.images], [r for r in remarks if r], problem,
    )  # fmt: skip


def _line(draft: Draft, problem: str) -> str:
    boxes = [f"({b.x1:g}, {b.y1:g}, {b.x2:g}, {b.y2:g})" for b in draft.boxes]
    points = [f"({p.x:g}, {p.y:g})" for p in draft.points]
    gold = "; ".join([*draft.answers, *boxes, *points]) or "no gold answer"
    text = " ".join(draft.text.split())
    shown = text if len(text) <= 70 else text[:69] + "…"
    return f"{draft.file} row {draft.row}: {shown} -> {gold}" + (f" [{problem}]" if problem else "")
