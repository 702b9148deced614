"""Builds a benchmark's readers from one function: how a row becomes a draft.

    def draft(row: Row) -> Draft:
        return row.draft(text=row.text("question"), images=row.images("image"),
                         answers=(row.text("answer"),))

    FORMATS = published("POPE", draft, needs=("question", "answer", "image"))

    TASKS = (Task("pope", "…", FORMATS),)

`FORMATS` then reads the same rows from Parquet, Arrow, JSON, JSON Lines, TSV and CSV, streaming. A
file without the columns it needs is refused as a whole; a row for which `draft` raises `Unusable`
becomes a reject with its field and reason. Where a row holds several questions, `draft` is a
generator of drafts and of `Unusable` values.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from string import ascii_uppercase
from typing import IO, Any

from warehouse.sources.reading.drafts import (
    Draft,
    DraftImage,
    ImportProblem,
    LeftOut,
    OtherFile,
    ReadContext,
    ReadFile,
    Reject,
    Unusable,
)
from warehouse.sources.reading.gold_texts import gold_text
from warehouse.sources.reading.image_files import ImageFiles, from_base64, is_no_image
from warehouse.sources.reading.literals import read_literal
from warehouse.sources.reading.options import NO_OPTIONS, Options, lettered_places, read_options
from warehouse.sources.reading.tabular import (
    TYPED,
    column_types,
    read_json_objects,
    read_rows,
    suffix_of,
)

_SPLITS = ("train", "validation", "valid", "val", "dev", "test")
SUFFIXES = (".parquet", ".arrow", ".json", ".jsonl", ".tsv", ".csv")
_REFERENCE = 64  # characters; a shorter image cell of a TSV names the row that has the image


@dataclass(slots=True)
class Row:
    """One row of a benchmark's file, and where its images are."""

    file: Path
    number: int
    values: dict[str, Any]
    files: ImageFiles
    spool: Spool | None = None
    """Images of earlier rows, for a TSV whose rows refer to each other."""
    shared: dict[Any, Any] = field(default_factory=dict)
    """What rows before, of all files of the import, left for this one."""

    def get(self, *names: str) -> Any:
        """The value of the first of these columns that has one; None if none has."""
        for name in names:
            value = self.values.get(name)
            if value is not None and value != "" and value == value:  # NaN is no value
                return value
        return None

    def text(self, *names: str) -> str:
        """A text or a number as text; Unusable where there is none."""
        found = self.optional(*names)
        if not found:
            raise Unusable(names[0], f"there is no {names[0].replace('_', ' ')}")
        return found

    def optional(self, *names: str) -> str:
        """A text, or nothing; Unusable where it is something else."""
        value = self.get(*names)
        if value is None:
            return ""
        if isinstance(value, str | int | float):
            return str(value).strip()
        raise Unusable(names[0], f"it should be text, not {type(value).__name__}")

    def answer(self, *names: str, hidden: Sequence[str] = ()) -> str:
        """The published answer as text.

        Args:
            hidden: what stands in its place where it is not published, without regard to case.

        Raises:
            LeftOut: it is not published.
        """
        found = gold_text(self.optional(*(names or ("answer",))), (names or ("answer",))[0])
        if not found:
            raise LeftOut((names or ("answer",))[0], "there is no answer")
        if found.strip("() ").casefold() in hidden:
            raise LeftOut(names[0] if names else "answer", f"it is not published ({found})")
        return found

    def options(self, *names: str) -> Options:
        """The options: a list in the first of these columns that has one, else a column a letter,
        as in VLMEvalKit's TSV files."""
        found = read_options(self.get(*names), names[0]) if names else NO_OPTIONS
        if found.places:
            return found
        letters = [letter for letter in ascii_uppercase if letter in self.values]
        return lettered_places({letter: self.optional(letter) for letter in letters})

    def items(self, *names: str) -> list[Any]:
        """A list, also one written as text (`"['a', 'b']"`); empty where there is none."""
        value = self.get(*names)
        if isinstance(value, str):
            try:
                value = read_literal(value)
            except ValueError:
                raise Unusable(names[0], f"it should be a list, not {value[:60]!r}") from None
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            raise Unusable(names[0], f"it should be a list, not {type(value).__name__}")
        return list(value)

    def image(self, *names: str) -> DraftImage:
        """The image in the first of these columns that has one."""
        name = next((name for name in names if self.get(name) is not None), names[0])
        return DraftImage(self._bytes(self.get(name), name))

    def images(self, *names: str) -> tuple[DraftImage, ...]:
        """All images of these columns in order, without the empty ones."""
        found = [
            DraftImage(self._bytes(one, name))
            for name in names
            if self.get(name) is not None
            for one in _several(self.get(name))
            if not is_no_image(one)
        ]
        if not found:
            named = next((name for name in names if name in self.values), names[0])
            raise Unusable(named, "there is no image")
        return tuple(found)

    picture, pictures = image, images  # their names before 0.1, which readers elsewhere may use

    def _bytes(self, value: Any, field: str) -> bytes:
        if self.spool is None or not isinstance(value, str):
            return self.files.get(value, field)
        return self.spool.get(value.strip(), field)

    def draft(self, text: str, images: Sequence[DraftImage], **rest: Any) -> Draft:
        """A draft of this row."""
        return Draft(self.file.name, self.number, text, tuple(images), **rest)


class Spool:
    """Images by name in a file on disk, for a TSV whose rows may refer to another row's image.

    VLMEvalKit's files (`vlmeval/dataset/image_base.py`) hold in `image` either base64, or, in at
    most 64 characters, the `index` of the row that has it. Others repeat the base64 in every row
    (HR-Bench in four, gigabytes in all): it is kept once.
    """

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle = handle
        self.places: dict[str, list[tuple[int, int]]] = {}
        self.kept: dict[bytes, tuple[int, int]] = {}
        """Where what was written lies, by its hash."""
        self.index = ""

    def put(self, name: str, data: bytes) -> None:
        """Store an image under a name."""
        key = sha256(data).digest()
        if key not in self.kept:
            self.kept[key] = self.handle.seek(0, 2), len(data)
            self.handle.write(data)
        self.places.setdefault(name, []).append(self.kept[key])

    def get(self, value: str, field: str) -> bytes:
        """Decode the image in a cell of the row `index`, or get the one stored under that name."""
        if len(value) > _REFERENCE:
            data = from_base64(value, field)
            self.put(self.index, data)
            return data
        if value not in self.places:
            raise Unusable(field, f"it refers to {value!r}, and no image of that name is there")
        if len(self.places[value]) > 1:
            raise Unusable(field, f"it refers to {value!r}, which has several images")
        ((at, length),) = self.places[value]
        self.handle.seek(at)
        return self.handle.read(length)


def published(
    name: str,
    draft: Callable[[Row], Draft | Iterable[Draft | Unusable]],
    needs: Sequence[str],
    *,
    folders: Sequence[str] = (),
    suffixes: Sequence[str] = SUFFIXES,
    keyed: bool = False,
    licence: str = "",
) -> dict[str, ReadFile]:
    """Readers by file suffix.

    Args:
        name: the dataset's, for messages and for `questions.source`.
        draft: converts a row; raises Unusable for one that can't be used.
        needs: columns a file must have; `a|b` is either of them.
        folders: names of image folders as published, looked for beside the file and one above it
            where no image root is given.
        keyed: its JSON is an object that maps names to rows.
        licence: of the dataset, as an SPDX id.
    """

    def read(file: Path, context: ReadContext) -> Iterator[Draft | Reject]:
        files = find_image_files(file, context, folders)
        suffix = suffix_of(file)
        known = suffix in TYPED
        if known:
            _require(name, file, needs, column_names(file))
        with ExitStack() as stack:
            spool = None
            if suffix == ".tsv":
                spool = Spool(stack.enter_context(tempfile.TemporaryFile()))
            rows: Iterable[tuple[int, dict[str, Any] | str]] = read_rows(file, None)
            if keyed and suffix == ".json":
                rows = enumerate(read_json_objects(file, keyed=True), start=1)
            for number, values in rows:
                if isinstance(values, str):
                    yield Reject(file.name, number, "line", values)
                    continue
                if not values:
                    continue  # an empty line
                if not known:
                    _require(name, file, needs, list(values))
                    known = True
                if spool is not None:
                    spool.index = str(values.get("index", ""))
                try:
                    drafts = draft(Row(file, number, values, files, spool, context.shared))
                    for one in (drafts,) if isinstance(drafts, Draft) else drafts:
                        if isinstance(one, Unusable):
                            yield Reject.of(one, file.name, number)
                        else:
                            split = _split_of(values)
                            yield replace(one, source=name, licence=licence, split=split)
                except Unusable as problem:
                    yield Reject.of(problem, file.name, number)

    return dict.fromkeys(suffixes, read)


def _split_of(values: dict[str, Any]) -> str:
    """The split that a row names, as VLMEvalKit's MMMU_DEV_VAL.tsv does; else empty."""
    named = values.get("split")
    return named if isinstance(named, str) and named.lower() in _SPLITS else ""


def column_names(file: Path) -> list[str]:
    """The columns of a Parquet or Arrow file; ImportProblem where it is none."""
    return list(column_types(file).names)


def find_image_files(file: Path, context: ReadContext, folders: Sequence[str] = ()) -> ImageFiles:
    """Find the folders of a file's images: the image root, or beside the file."""
    if context.image_root is not None:
        if not context.image_root.is_dir():
            raise ImportProblem(f"the image root {context.image_root} is not a folder")
        return ImageFiles((context.image_root,), given=True)
    beside = [above / folder for above in (file.parent, file.parent.parent) for folder in folders]
    return ImageFiles((*(path for path in beside if path.is_dir()), file.parent))


def _require(name: str, file: Path, needs: Sequence[str], columns: Sequence[str]) -> None:
    missing = [need for need in needs if not any(one in columns for one in need.split("|"))]
    if missing:
        lacks = ", ".join(need.replace("|", " or ") for need in missing)
        shown = ", ".join(map(str, columns[:20]))
        kind = name or "the reference implementation's"
        raise OtherFile(f"{file} is not {kind}: it has no column {lacks}; it has: {shown}")


def _several(value: Any) -> Sequence[Any]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = read_literal(value)
        except ValueError:
            return [value]
    return value if isinstance(value, list | tuple) else [value]


def choice_row(row: Row, *names: str, hidden: Sequence[str] = ()) -> tuple[tuple[str, ...], str]:
    """The options of a multiple-choice row, and the right one, which `answer` names by its letter.

    Args:
        names: columns that may hold the options as a list; else each letter has its column.
        hidden: what `answer` says where it is not published.
    """
    answer, found = row.answer(hidden=hidden), row.options(*names)
    if len(found.choices) < 2:
        raise Unusable(names[0], f"there are {len(found.choices)} options")
    return found.choices, found.by_letter(answer)
