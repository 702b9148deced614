"""Any table as questions: the user says which column is what.

    columns = Columns.parsed("question=query,image=screenshot,box=bbox", boxes="xywh/1000")
    task = replace(task_of("my-task"), formats=columns.formats())

Roles are `question`, `image`, `answer`, `choices`, `box`, `objects`, `family`, `source`, `licence`
and `part_of` (the problem or episode a question is a part of). Several columns of one role are
joined by `+` (`choices=A+B+C+D`, `box=x1+y1+x2+y2`, `image=before+after`), and dots lead into
structs and lists (`answer=conversations.1.value`). What a value may be:

- image: bytes; `{bytes, path}` as `datasets` stores them; a path below the image root (by default
  the folder of the file); bytes as base64 text; a list of these. Addresses are never fetched.
- answer: a text, a number, or a list of texts of which each is right. Among choices it may also be
  the index of one, from 0, or its letter, where no choice is itself that number or letter.
- choices: a list, the JSON of one, or the columns joined by `+`; empty ones are left out.
- box: four numbers, a list of such, the text of either, or a struct with four numbers. `boxes` says
  what they mean: `xyxy` or `xywh`, in pixels of the picture, or behind a slash the number that
  stands for its whole side: `xyxy/1`, `xywh/1000`. With a box the answer is a point in it.
- objects: what is visible in the first picture, a list of structs with a `label` and four numbers;
  by it points are judged, so it should name all there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcts.data import AnswerKind, Box
from warehouse.sources.reading import tabular
from warehouse.sources.reading.cells import (
    answer_of,
    follow,
    fours,
    listed,
    picture_of,
    size_of,
    text_of,
)
from warehouse.sources.reading.drafts import (
    Draft,
    ImportProblem,
    Picture,
    ReadContext,
    ReadFile,
    Reject,
    Unusable,
)

_REMARKS = ("family", "source", "licence", "part_of")
ROLES = (
    "question", "image", "answer", "choices", "box", "objects", *_REMARKS,
)  # fmt: skip
_SEVERAL = ("image", "choices", "box")
_BOXES = re.compile(r"(xyxy|xywh)(?:/(\d+(?:\.\d+)?))?")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what."""

    of: dict[str, tuple[str, ...]]
    """Columns by role, in the order given."""
    corners: str = "xyxy"
    """What a box's four numbers are: two corners, or a corner with width and height (`xywh`)."""
    whole: float | None = None
    """The number that stands for a whole side of the picture; None where boxes are in pixels."""
    kind: AnswerKind = AnswerKind.TEXT
    """What an answer is where no column of boxes says it."""

    @classmethod
    def parsed(cls, text: str, boxes: str = "xyxy", kind: AnswerKind = AnswerKind.TEXT) -> Columns:
        """Read what a user typed.

        Raises:
            ImportProblem: an unknown role, a role twice, or one missing.
        """
        of: dict[str, tuple[str, ...]] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            role, equals, names = (word.strip() for word in part.partition("="))
            columns = tuple(name.strip() for name in names.split("+"))
            if not equals or not all(columns):
                raise ImportProblem(f"--columns: {part!r} is not ROLE=COLUMN")
            if role not in ROLES:
                raise ImportProblem(f"--columns: no role {role!r}; there are: {', '.join(ROLES)}")
            if role in of:
                raise ImportProblem(f"--columns: {role} is given twice; join columns with +")
            if len(columns) > 1 and role not in _SEVERAL:
                raise ImportProblem(f"--columns: {role} is one column, not {names.strip()}")
            of[role] = columns
        for role in ("question", "image"):
            if role not in of:
                raise ImportProblem(f"--columns: say which column is the {role}")
        if "answer" not in of and "box" not in of:
            raise ImportProblem("--columns: say which column is the answer, or the box")
        found = _BOXES.fullmatch(boxes)
        if not found or (found[2] and float(found[2]) == 0):
            raise ImportProblem(f"--boxes: it is xyxy or xywh, or such as xywh/1000, not {boxes!r}")
        return cls(of, found[1], float(found[2]) if found[2] else None, kind)

    def formats(self) -> dict[str, ReadFile]:
        """Readers by file suffix, as a task has them."""
        return dict.fromkeys(tabular.FORMATS, self.read)

    def read(self, file: Path, context: ReadContext) -> Iterator[Draft | Reject]:
        """Rows of one file.

        Raises:
            ImportProblem: it can't be read, or has no such column.
        """
        root = (context.image_root or file.parent).resolve()
        if not root.is_dir():
            raise ImportProblem(f"the image root {context.image_root} is not a folder")
        wanted = list(dict.fromkeys(name for names in self.of.values() for name in names))
        for number, row in tabular.rows_of(file, wanted):
            if isinstance(row, str):
                yield Reject(file.name, number, "row", row)
                continue
            try:
                yield self._draft(file.name, number, row, root)
            except Unusable as bad:
                yield Reject(file.name, number, bad.field, bad.reason)

    def _draft(self, file: str, number: int, row: dict[str, Any], root: Path) -> Draft:
        text = text_of(self._value(row, "question"))
        pictures = self._pictures(row, root)
        choices = self._choices(row)
        family, source, licence, part_of = (
            text_of(self._value(row, role)) if role in self.of else "" for role in _REMARKS
        )
        boxes, choices = self._boxes(row, pictures), self._choices(row)
        answers = tuple(answer_of(answer, choices) for answer in self._answers(row))
        return Draft(
            file, number, text, pictures, AnswerKind.BOX if boxes else self.kind,
            choices=choices, answers=answers, boxes=boxes,
            family=family, source=source, licence=licence, part_of=part_of,
        )  # fmt: skip

    @property
    def boxes_in(self) -> str | None:
        """The role whose columns hold boxes."""
        if "box" in self.of:
            return "box"
        return "answer" if self.kind is AnswerKind.BOX else None

    def _values(self, row: dict[str, Any], role: str) -> list[Any]:
        """What the columns of a role hold."""
        return [follow(row, role, name) for name in self.of[role]]

    def _value(self, row: dict[str, Any], role: str) -> Any:
        return follow(row, role, self.of[role][0])

    def _pictures(self, row: dict[str, Any], root: Path) -> tuple[Picture, ...]:
        stored: list[Any] = []
        for value in self._values(row, "image"):
            value = listed(value) if isinstance(value, str) else value
            stored += value if isinstance(value, list) else [value]
        if not stored:
            raise Unusable("image", "there is no image")
        first, *others = (Picture(picture_of(value, root)) for value in stored)
        if "objects" in self.of:
            first = Picture(first.data, self._objects(row, first))
        return (first, *others)

    def _objects(self, row: dict[str, Any], picture: Picture) -> tuple[Box, ...] | None:
        seen = self._value(row, "objects")
        if seen is None:
            return None
        if not isinstance(seen, list) or not all(isinstance(one, dict) for one in seen):
            raise Unusable("objects", "this is not a list of structs")
        boxes = self._in_pixels(
            [four for one in seen for four in fours(one, self.corners)], picture
        )
        return tuple(
            replace(box, label=text_of(one.get("label")))
            for box, one in zip(boxes, seen, strict=True)
        )

    def _choices(self, row: dict[str, Any]) -> tuple[str, ...]:
        if "choices" not in self.of or self.boxes_in:
            return ()
        values = self._values(row, "choices")
        if len(values) == 1:
            found = listed(values[0]) if isinstance(values[0], str) else values[0]
            if found is not None and not isinstance(found, list):
                raise Unusable("choices", "this is not a list of choices")
            values = found or []
        return tuple(text for text in map(text_of, values) if text)

    def _answers(self, row: dict[str, Any]) -> tuple[str, ...]:
        if self.boxes_in:
            return ()
        value = self._value(row, "answer")
        values = value if isinstance(value, list) else [value]
        return tuple(text_of(value) for value in values if value is not None)

    def _boxes(self, row: dict[str, Any], pictures: tuple[Picture, ...]) -> tuple[Box, ...]:
        if self.boxes_in is None:
            return ()
        values = self._values(row, self.boxes_in)
        written = fours(values[0] if len(values) == 1 else values, self.corners)
        return self._in_pixels(written, pictures[0])

    def _in_pixels(self, written: list[list[float]], picture: Picture) -> tuple[Box, ...]:
        """Boxes in the pixels of the first picture."""
        across, down = size_of(picture) if self.whole else (1, 1)
        scale = (across / (self.whole or 1), down / (self.whole or 1))
        boxes = []
        for x1, y1, c, d in written:
            x2, y2 = (x1 + c, y1 + d) if self.corners == "xywh" else (c, d)
            boxes.append(Box(x1 * scale[0], y1 * scale[1], x2 * scale[0], y2 * scale[1]))
        return tuple(boxes)
