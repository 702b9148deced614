"""What a reader yields: drafts of questions with their encoded images, or rejects with a reason.

    def read(file: Path, context: ReadContext) -> Iterator[Draft | Reject]: …
    MINE = Task("my-task", "my dataset (JSONL)", {".jsonl": read})

A reader only returns what a file says. That images decode, that the answer is among the choices,
that boxes lie inside: `warehouse.sources.reading.accept_drafts` checks it once, for all readers. A
package outside this one adds a task with its reader (`warehouse.sources.tasks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mcts.data import AnswerKind, Box, Point


class ImportProblem(Exception):
    """Why nothing can be imported at all: one sentence that names the file. Nothing was written."""


class Unusable(Exception):
    """Why a row can't be a question; a reader turns it into a `Reject`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason = field, reason


class LeftOut(Unusable):
    """Why a row is no question by design, such as one whose answer is not published: it is counted
    and left out, and is no damage."""


class OtherFile(ImportProblem):
    """Why a file is not the dataset's: beside others, in a folder, it is left out."""


class OtherSet(OtherFile):
    """Why a file is another set's, as its name says: in a folder it is left out, Parquet too."""


@dataclass(frozen=True, slots=True)
class DraftImage:
    """One encoded image of a draft."""

    data: bytes
    objects: tuple[Box, ...] | None = None
    """Ground-truth boxes of what is visible, original pixels; None if unknown."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A question as a file states it, not checked yet."""

    file: str
    row: int
    """Row or line in the file, counted from 1."""
    text: str
    images: tuple[DraftImage, ...]
    answer_kind: AnswerKind = AnswerKind.TEXT
    choices: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    tolerance: float = 0.0
    family: str = ""
    part_of: str = ""
    source: str = ""
    licence: str = ""
    split: str = ""
    """The split that the row itself names, as in the file; empty where it names none."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that can't be a question, and why."""

    file: str
    row: int
    """Row or line in the file, counted from 1."""
    field: str
    reason: str
    left_out: bool = False
    """Whether it is no question by design, and no damage."""

    @classmethod
    def of(cls, problem: Unusable, file: str, row: int) -> Reject:
        """What a row becomes for which a reader raised `problem`."""
        return cls(file, row, problem.field, problem.reason, isinstance(problem, LeftOut))


@dataclass(frozen=True, slots=True)
class ReadContext:
    """What a reader may need besides the file."""

    task: str
    image_root: Path | None = None
    """The folder that image names in a file are relative to."""
    files: tuple[Path, ...] = ()
    """Every file of the import."""
    shared: dict[Any, Any] = field(default_factory=dict)
    """What a reader learned from one file and needs for the next: the same rows, however they are
    shared out, are the same questions."""


ReadFile = Callable[[Path, ReadContext], Iterator[Draft | Reject]]


class Readers(Protocol):
    """Readers of files that replace a task's own, such as a table's columns."""

    def formats(self) -> Mapping[str, ReadFile]:
        """A reader by file suffix, as in `Task.formats`."""
        ...
