"""Reads any table as questions: the user says which column is what.

    columns = Columns.parsed("question=query,image=screenshot,box=bbox", boxes="xywh/1000")
    task = replace(task_of("my-task"), formats=columns.formats())

Roles are `question`, `image`, `answer`, `choices`, `box`, `objects`, `target`, `family`, `source`,
`licence` and `part_of` (the problem or episode a question is a part of). Several columns of one
role are joined by `+` (`choices=A+B+C+D`, `box=x1+y1+x2+y2`, `image=before+after`), and dots lead
into structs and lists (`answer=conversations.1.value`). What a value may be:

- image: bytes; `{bytes, path}` as `datasets` stores them; a path below the image root (by default
  the folder of the file); bytes as base64 text; a list of these. Of several, those that are missing
  (null, empty) are left out. Addresses are never fetched.
- answer: a text, a number, or a list of texts of which each is right; of a response with `<answer>`
  tags, what stands in them. Among choices it may also be
  the index of one, from 0 (from 1 with `count_from=1` among the columns), or its letter (`B`,
  `(B)`, `B. right`). Where a choice is itself that number or letter, the whole column tells what
  its answers are (`warehouse.sources.reading.answer_names`); with `count_from` numbers are indexes.
- choices: a list, an object by letter, the JSON of either, lettered text (`A. left, B. right`), or
  the columns joined by `+`. Missing ones (null, NaN, empty) are left out, and the others keep their
  letters and indexes.
- box: four numbers, a list of such, the text of either, or a struct with four numbers or with
  `bbox_2d`; also as models write them, fenced or in `<|box_start|>` marks. `boxes` says what they
  mean: `xyxy` or `xywh`, in pixels of the image, or behind a slash the number that
  stands for its whole side: `xyxy/1`, `xywh/1000`. With a box the answer is a point in it.
- objects: what is visible in the first image, a list of structs with a `label` and four numbers;
  by it points are judged, so it should name all there is.
- target: where what is asked about can be seen in the first image, in `box`'s forms; crops are
  judged by it. Not beside `box`, which says the same.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from mcts.data import AnswerKind, Box
from warehouse.sources.reading import tabular
from warehouse.sources.reading.answer_names import AnswerNames
from warehouse.sources.reading.drafts import (
    Draft,
    DraftImage,
    ImportProblem,
    ReadContext,
    ReadFile,
    Reject,
    Unusable,
)
from warehouse.sources.reading.gold_texts import gold_text
from warehouse.sources.reading.image_files import ImageFiles, image_size, is_no_image
from warehouse.sources.reading.literals import read_float
from warehouse.sources.reading.options import NO_OPTIONS, Options, is_missing, read_options

_DETAILS = ("family", "source", "licence", "part_of")
ROLES = (
    "question", "image", "answer", "choices", "box", "objects", "target", *_DETAILS,
)  # fmt: skip
_OPTIONAL = ("choices", "objects", "target", *_DETAILS)
_SEVERAL = ("image", "choices", "box", "target")
_BOXES = re.compile(r"(xyxy|xywh)(?:/(\d+(?:\.\d+)?))?")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_FENCE = re.compile(r"^```\w*\s*(.*?)\s*```$", re.DOTALL)
_MARKED = re.compile(r"<\|box_start\|>(.*?)<\|box_end\|>", re.DOTALL)
_NAMED = ("bbox_2d", "bbox")
# Names of a struct's four numbers, in the order in which they are read.
_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
_WITH_SIZE = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what."""

    of: dict[str, tuple[str, ...]]
    """Columns by role, in the order given."""
    corners: str = "xyxy"
    """What a box's four numbers are: two corners, or a corner with width and height (`xywh`)."""
    whole: float | None = None
    """The number that stands for a whole side of the image; None where boxes are in pixels."""
    kind: AnswerKind = AnswerKind.TEXT
    """What an answer is where no column of boxes says it."""
    count_from: int | None = None
    """What an answer counts from that is the index of a choice, where the user said so; then a
    number is an index, whatever the choices are. Else None: it counts from 0."""

    @classmethod
    def parsed(cls, text: str, boxes: str = "xyxy", kind: AnswerKind = AnswerKind.TEXT) -> Columns:
        """Read what a user typed.

        Raises:
            ImportProblem: an unknown role, a role twice, or one missing.
        """
        of: dict[str, tuple[str, ...]] = {}
        count_from: int | None = None
        for part in filter(None, (part.strip() for part in text.split(","))):
            role, equals, names = (word.strip() for word in part.partition("="))
            columns = tuple(name.strip() for name in names.split("+"))
            if not equals or not all(columns):
                raise ImportProblem(f"--columns: {part!r} is not ROLE=COLUMN")
            if role == "count_from":
                if names not in ("0", "1"):
                    raise ImportProblem(f"--columns: count_from is 0 or 1, not {names!r}")
                count_from = int(names)
                continue
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
        if "target" in of and ("box" in of or kind is AnswerKind.BOX):
            raise ImportProblem("--columns: target is not for answers that are boxes")
        found = _BOXES.fullmatch(boxes)
        if not found or (found[2] and float(found[2]) == 0):
            raise ImportProblem(f"--boxes: it is xyxy or xywh, or such as xywh/1000, not {boxes!r}")
        return cls(of, found[1], float(found[2]) if found[2] else None, kind, count_from)

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
        files = context.files or (file,)
        names = context.shared.setdefault(
            "names", AnswerNames(lambda: self._pairs(files), self.count_from)
        )
        present = context.shared.setdefault("present", {})
        for number, row in tabular.read_rows(file, wanted):
            if isinstance(row, str):
                yield Reject(file.name, number, "row", row)
                continue
            try:
                whole = self._with_absent(files, row, present)
                yield self._draft(file.name, number, whole, root, names)
            except Unusable as bad:
                yield Reject.of(bad, file.name, number)

    def _with_absent(
        self, files: Sequence[Path], row: dict[str, Any], present: dict[str, bool]
    ) -> dict[str, Any]:
        """Return a row with null where it lacks a key that it may lack, as rows of JSON do.

        Args:
            present: whether any row of the files has a key, of those that were missed.
        """
        absent = {
            name: name.partition(".")[0]
            for role in _OPTIONAL
            for name in self.of.get(role, ())
            if name not in row and name.partition(".")[0] not in row
        }
        for key in set(absent.values()) - present.keys():  # one that no row has is misspelt
            others = _rows_of(files, None)
            present[key] = any(key in other for other in others if isinstance(other, dict))
        return {**row, **{name: None for name, key in absent.items() if present[key]}}

    def _pairs(self, files: Sequence[Path]) -> Iterator[tuple[Options, str]]:
        """Yield options and answer of every row that has both."""
        for row in _rows_of(files, [*self.of["choices"], *self.of["answer"]]):
            if isinstance(row, dict):
                with suppress(Unusable):
                    options = self._options(row)
                    for answer, _ in self._answers(row, options):
                        yield options, answer

    def _draft(
        self, file: str, number: int, row: dict[str, Any], root: Path, names: AnswerNames
    ) -> Draft:
        text = self._text(row, "question")
        images = self._images(row, root)
        family, source, licence, part_of = (
            self._text(row, role) if role in self.of else "" for role in _DETAILS
        )
        boxes, options = self._boxes(row, images), self._options(row)
        answers = tuple(names.resolve(options, *answer) for answer in self._answers(row, options))
        return Draft(
            file, number, text, images, AnswerKind.BOX if boxes else self.kind,
            choices=options.choices, answers=answers, boxes=boxes or self._target(row, images),
            family=family, source=source, licence=licence, part_of=part_of,
        )  # fmt: skip

    @property
    def boxes_in(self) -> str | None:
        """The role whose columns hold boxes."""
        if "box" in self.of:
            return "box"
        return "answer" if self.kind is AnswerKind.BOX else None

    @property
    def _places(self) -> bool:
        """Whether places in the first image are read."""
        return self.boxes_in is not None or "objects" in self.of or "target" in self.of

    def _values(self, row: dict[str, Any], role: str) -> list[Any]:
        """What the columns of a role hold."""
        return [value_at(row, role, name) for name in self.of[role]]

    def _value(self, row: dict[str, Any], role: str) -> Any:
        return value_at(row, role, self.of[role][0])

    def _text(self, row: dict[str, Any], role: str) -> str:
        return as_text(_one_text(self._value(row, role), role))

    def _images(self, row: dict[str, Any], root: Path) -> tuple[DraftImage, ...]:
        stored: list[Any] = []
        for value in self._values(row, "image"):
            value = parse_list(value) if isinstance(value, str) else value
            stored += value if isinstance(value, list) else [value]
        present = [value for value in stored if not is_no_image(value)]
        if not present:
            raise Unusable("image", "there is no image")
        if self._places and is_no_image(stored[0]):
            raise Unusable("image", "the first image, in which the places are, is missing")
        files = ImageFiles((root,), given=True)
        first, *others = (DraftImage(files.get(value)) for value in present)
        if "objects" in self.of:
            first = DraftImage(first.data, self._objects(row, first))
        return (first, *others)

    def _objects(self, row: dict[str, Any], image: DraftImage) -> tuple[Box, ...] | None:
        objects = self._value(row, "objects")
        if objects is None:
            return None
        if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
            raise Unusable("objects", "this is not a list of structs")
        boxes = self._in_pixels(
            [four for one in objects for four in parse_boxes(one, self.corners)], image
        )
        return tuple(
            replace(box, label=as_text(one.get("label")))
            for box, one in zip(boxes, objects, strict=True)
        )

    def _options(self, row: dict[str, Any]) -> Options:
        if "choices" not in self.of or self.boxes_in:
            return NO_OPTIONS
        values = self._values(row, "choices")
        if len(values) == 1:
            return read_options(values[0], as_text=as_text)
        letters = [name.rpartition(".")[2].upper() for name in self.of["choices"]]
        if all(len(name) == 1 and name in ascii_uppercase for name in letters):
            return read_options(dict(zip(letters, values, strict=True)), as_text=as_text)
        return read_options(values, as_text=as_text)

    def _answers(self, row: dict[str, Any], options: Options) -> tuple[tuple[str, bool], ...]:
        """The answers as texts, each with whether it is stored as a whole number."""
        if self.boxes_in:
            return ()
        value = self._value(row, "answer")
        values = value if isinstance(value, list) else [value]
        return tuple(
            (gold_text(_as_choice(_one_text(value, "answer"), options)), _is_whole(value))
            for value in values
            if not is_missing(value)
        )

    def _boxes(self, row: dict[str, Any], images: tuple[DraftImage, ...]) -> tuple[Box, ...]:
        if self.boxes_in is None:
            return ()
        return self._boxes_of(row, self.boxes_in, images[0])

    def _target(self, row: dict[str, Any], images: tuple[DraftImage, ...]) -> tuple[Box, ...]:
        if "target" not in self.of:
            return ()
        if all(is_missing(value) or value == [] for value in self._values(row, "target")):
            return ()
        return self._boxes_of(row, "target", images[0])

    def _boxes_of(self, row: dict[str, Any], role: str, image: DraftImage) -> tuple[Box, ...]:
        values = self._values(row, role)
        written = parse_boxes(values[0] if len(values) == 1 else values, self.corners)
        return self._in_pixels(written, image)

    def _in_pixels(self, written: list[list[float]], image: DraftImage) -> tuple[Box, ...]:
        """Boxes in the pixels of the first image."""
        width = height = 1
        if self.whole:
            with suppress(Unusable):  # the checker says what is wrong with the image
                width, height = image_size(image.data)
        scale = (width / (self.whole or 1), height / (self.whole or 1))
        boxes = []
        for x1, y1, c, d in written:
            x2, y2 = (x1 + c, y1 + d) if self.corners == "xywh" else (c, d)
            boxes.append(Box(x1 * scale[0], y1 * scale[1], x2 * scale[0], y2 * scale[1]))
        return tuple(boxes)


def _rows_of(files: Sequence[Path], columns: list[str] | None) -> Iterator[Any]:
    """Yield the rows of every file that is a table with these columns."""
    for file in files:
        with suppress(ImportProblem):
            for _, row in tabular.read_rows(file, columns):
                yield row


def value_at(row: dict[str, Any], role: str, name: str) -> Any:
    """The value at a dotted name; a name with dots in it is tried as it is first."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            columns = f"; it has: {', '.join(map(str, row))}" if value is row else ""
            raise Unusable(role, f"the row has no {name}{columns}")
    return value


def _as_choice(value: Any, options: Options) -> str:
    """The value as a text: a boolean as the options say it, `True` or `yes`."""
    text = as_text(value)
    if isinstance(value, bool) and options.by_text(text) is None:
        return options.by_text(str(value)) or text
    return text


def _is_whole(value: Any) -> bool:
    """Whether a value is stored as a whole number; of a column with gaps pandas makes floats."""
    return not isinstance(value, bool) and (
        isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    )


def _one_text(value: Any, role: str) -> Any:
    """The value, which can be written as a text; Unusable where that would be Python's notation."""
    if isinstance(value, dict | list | bytes):
        kind = {"dict": "an object", "list": "a list", "bytes": "bytes"}[type(value).__name__]
        raise Unusable(role, f"it should be a text or a number, not {kind}; NAME.KEY leads into it")
    return value


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if is_missing(value) else str(value).strip()


def parse_list(text: str) -> list[Any] | str:
    """Parse the list that a text writes down, or return the text."""
    if not text.lstrip().startswith("["):
        return text
    for written in (text, text.replace("'", '"')):
        try:
            found = json.loads(written)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list):
            return found
    return text


def parse_boxes(value: Any, corners: str) -> list[list[float]]:
    """Parse boxes, however they are written, as lists of four numbers.

    Args:
        corners: xyxy or xywh; of a struct, the numbers whose names say so.
    """
    if isinstance(value, str):
        value = _unwrapped(value)
    if value is None or value == [] or value == "":
        raise Unusable("box", "there is no box")
    if isinstance(value, list) and all(isinstance(part, list | dict) for part in value):
        return [_parse_box(part, corners) for part in value]
    texts = isinstance(value, list) and all(isinstance(part, str) for part in value)
    if texts and any(len(_NUMBER.findall(part)) > 1 for part in value):  # a box each
        return [_parse_box(part, corners) for part in value]
    return [_parse_box(value, corners)]


def _unwrapped(text: str) -> Any:
    """Take a box out of the marks that models put around it: fences, control tokens, JSON."""
    text = _FENCE.sub(r"\1", text.strip())
    if marked := _MARKED.findall(text):
        return marked
    if text.startswith(("[", "{")):
        with suppress(ValueError, RecursionError):
            return json.loads(text)
    return parse_list(text.replace("(", "[").replace(")", "]"))


def _parse_box(value: Any, corners: str) -> list[float]:
    if isinstance(value, dict) and (named := next((n for n in _NAMED if n in value), None)):
        value = value[named]
    if isinstance(value, dict):
        names = _WITH_SIZE if corners == "xywh" else _CORNERS
        known = next((four for four in names if set(four) <= set(value)), None)
        if known is None:
            raise Unusable("box", f"a struct of {', '.join(value)} is not {corners}")
        value = [value[name] for name in known]
    numbers = _NUMBER.findall(value) if isinstance(value, str) else value
    found = [read_float(number) for number in numbers] if isinstance(numbers, list | tuple) else []
    if len(found) != 4 or not all(map(math.isfinite, found)):
        raise Unusable("box", f"a box is four numbers, not {str(value)[:60]!r}")
    return found
