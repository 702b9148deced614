"""The objects of a JSON file one after the other, however large the file: an array, or a mapping.

    for row in objects_in(file): …                # a dict, or a clause for what is no object
    for row in objects_in(file, keyed=True): …    # {"a": {…}, …}: each with its name as `_key`

An array's elements are read one at a time. A file that is one object is one row, and so is each of
several objects one behind the other (as POPE's are).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from warehouse.sources.reading.drafts import ImportProblem

_CHUNK = 1 << 20  # characters
_LONGEST = 96 << 20  # characters of one value
_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"


def objects_in(file: Path, *, keyed: bool = False) -> Iterator[dict[str, Any] | str]:
    """The objects of a JSON file; instead of one that is none, a clause that says so.

    Args:
        keyed: the file is one object that maps names to rows.

    Raises:
        ImportProblem: the file can't be read, is no JSON, or ends in the middle.
    """
    try:
        with file.open(encoding="utf-8-sig") as handle:
            yield from _objects(_Stream(file, handle), keyed)
    except OSError as error:
        raise ImportProblem(f"{file} can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ImportProblem(f"{file} is not text in UTF-8: {error.reason}") from None


def _objects(text: _Stream, keyed: bool) -> Iterator[dict[str, Any] | str]:
    first = text.peek()
    if first == "{" and not keyed:
        while text.peek() == "{":
            yield _object(text.value())
    elif first == ("{" if keyed else "["):
        yield from _members(text, first, keyed)
    else:
        wanted = "an object of rows" if keyed else "an array of objects, or objects"
        raise ImportProblem(f"{text.file} is not {wanted}")
    if extra := text.peek():
        raise ImportProblem(f"{text.file} is damaged: {extra} found behind its last row")


def _members(text: _Stream, first: str, keyed: bool) -> Iterator[dict[str, Any] | str]:
    closing = "}" if keyed else "]"
    text.skip(first)
    begun = False
    while text.peek() != closing:
        if begun:
            text.skip(",")
        begun = True
        key = None
        if keyed:
            key = text.value()
            text.skip(":")
        values = _object(text.value())
        yield values if isinstance(values, str) or key is None else {**values, "_key": key}
    text.skip(closing)


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
            if len(self.text) - self.at > _LONGEST:
                raise ImportProblem(f"{self.file} has a value that is too long for a row")
            if not self.more(least) and failure is not None:
                raise ImportProblem(f"{self.file} is not whole JSON: {failure}")
            least *= 2  # each try reads the value from its start


def _object(value: Any) -> dict[str, Any] | str:
    return value if isinstance(value, dict) else "this is not a JSON object"
