"""The rows of a file as plain dicts, whatever the file: Parquet, JSON, JSON Lines, TSV or CSV.

    for number, values in records(file): …       # a dict, or Broken for a line that is no object

One row after the other, a few in memory at a time, also where a JSON file is one array of a million
objects. Numbers count from 1: rows of a table, lines of JSON Lines, elements of a JSON array.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.sources.drafts import ImportProblem

Values = dict[str, Any]

_ROWS_AT_ONCE = 32  # a row may hold whole pictures
_LONGEST_LINE = 128 << 20  # characters; a longer line is not a row
_CHUNK = 1 << 20
_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that can't be read as a row."""

    reason: str


Record = tuple[int, Values | Broken]


def records(
    file: Path, columns: Sequence[str] | None = None, *, keyed: bool = False
) -> Iterator[Record]:
    """The rows of a file, by its suffix.

    Args:
        columns: of a Parquet file, read only those of these that it has.
        keyed: a JSON file is one object that maps names to rows; a row gets its name as `_key`.

    Raises:
        ImportProblem: the file can't be read, or ends in the middle.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        yield from _parquet(file, columns)
        return
    read: Mapping[str, Callable[[TextIO], Iterator[Record]]] = {
        ".jsonl": lambda handle: _lines(file, handle),
        ".json": lambda handle: _json(file, handle, keyed),
        ".tsv": lambda handle: _table(file, handle, "\t"),
        ".csv": lambda handle: _table(file, handle, ","),
    }
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            yield from read[suffix](handle)
    except OSError as error:
        raise ImportProblem(f"{file} can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ImportProblem(f"{file} is not text in UTF-8: {error.reason}") from None


def open_parquet(file: Path) -> pq.ParquetFile:
    """Raises ImportProblem where the file is no Parquet."""
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ImportProblem(f"{file} can't be read as Parquet: {_sentence(error)}") from None


def _parquet(file: Path, columns: Sequence[str] | None) -> Iterator[Record]:
    parquet = open_parquet(file)
    names = parquet.schema_arrow.names
    wanted = None if columns is None else [name for name in names if name in columns]
    number = 0
    try:
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=wanted):
            for values in batch.to_pylist():
                number += 1
                yield number, values
    except (pa.ArrowException, OSError) as error:
        raise ImportProblem(f"{file} is damaged after row {number}: {_sentence(error)}") from None


def _lines(file: Path, handle: TextIO) -> Iterator[Record]:
    number = 0
    while line := handle.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise ImportProblem(f"{file}: line {number} is too long for JSON Lines")
        if not line.strip():
            continue
        try:
            yield number, _object(json.loads(line))
        except (ValueError, RecursionError) as error:
            yield number, Broken(f"this is not JSON: {error}")


def _table(file: Path, handle: TextIO, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(_LONGEST_LINE)  # a cell may be a picture
    rows = csv.DictReader(handle, delimiter=delimiter)
    number = 0
    try:
        for values in rows:
            number += 1
            # Too many cells come under the key None, too few as values None.
            if None in values:
                yield number, Broken(f"the row has more than the {len(values) - 1} columns named")
            else:
                yield number, values
    except csv.Error as error:
        raise ImportProblem(f"{file} is damaged after row {number}: {error}") from None


def _json(file: Path, handle: TextIO, keyed: bool) -> Iterator[Record]:
    """An array's elements, a mapping's values, or objects one behind the other (as POPE's are)."""
    text = _Stream(file, handle)
    first = text.peek()
    number = 0
    if first == "{" and not keyed:
        while text.peek() == "{":
            number += 1
            yield number, _object(text.value())
        if extra := text.peek():
            raise ImportProblem(f"{file} is damaged: {extra} found behind object {number}")
        return
    if first != ("{" if keyed else "["):
        wanted = "an object of rows" if keyed else "an array of objects, or objects"
        raise ImportProblem(f"{file} is not {wanted}")
    closing = "}" if keyed else "]"
    text.skip(first)
    while text.peek() != closing:
        if number:
            text.skip(",")
        number += 1
        key = None
        if keyed:
            key = text.value()
            text.skip(":")
        values = _object(text.value())
        if isinstance(values, dict) and key is not None:
            values["_key"] = key
        yield number, values
    text.skip(closing)
    if extra := text.peek():
        raise ImportProblem(f"{file} is damaged: {extra} found behind its last row")


class _Stream:
    """JSON text that is read as it is needed."""

    def __init__(self, file: Path, handle: TextIO) -> None:
        self.file, self.handle = file, handle
        self.text, self.at, self.ended = "", 0, False

    def more(self, least: int = _CHUNK) -> bool:
        """Read on, dropping what is done with; False at the end."""
        chunk = "" if self.ended else self.handle.read(least)
        self.ended = not chunk
        self.text = self.text[self.at :] + chunk
        self.at = 0
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def skip(self, expected: str) -> None:
        if self.peek() != expected:
            found = self.peek() or "the end of the file"
            raise ImportProblem(f"{self.file} is damaged: {expected} expected, {found} found")
        self.at += 1

    def value(self) -> Any:
        """The next value whole."""
        self.peek()
        least = _CHUNK
        while True:
            failure: Exception | None = None
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except (ValueError, RecursionError) as error:
                failure = error
            else:
                # A number may go on where the text read so far ends.
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            if len(self.text) - self.at > _LONGEST_LINE:
                raise ImportProblem(f"{self.file} has a value that is too long for a row")
            if not self.more(least) and failure is not None:
                raise ImportProblem(f"{self.file} is not whole JSON: {failure}")
            least *= 2  # each try reads the value from its start


def _object(value: Any) -> Values | Broken:
    return value if isinstance(value, dict) else Broken("this is not an object")


def _sentence(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
