"""Reads rows of any table a few at a time: Parquet, Arrow, JSON, JSON lines, CSV, TSV.

    for number, row in read_rows(Path("train.parquet"), ["question", "image"]): …
    for row in read_json_objects(file): …                # a dict, or a clause for what is none
    for row in read_json_objects(file, keyed=True): …    # {"a": {…}, …}: its name is `_key`

`.arrow` is what `datasets.Dataset.save_to_disk` writes. Only the columns that are wanted are read,
and only a batch of rows is held, so a file may be larger than the memory. A JSON array's elements
are read one at a time; a file that is one object is one row, and so is each of several objects one
behind the other (as POPE's are). Text is UTF-8, or UTF-16 with its mark; `.gz` behind the suffix is
unpacked as it is read. A key or a column that is there twice is told: which one was meant?
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TextIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mcts.image_kinds import what_it_is
from warehouse.sources.reading.drafts import ImportProblem, OtherFile
from warehouse.storage.home import first_line
from warehouse.tables.schema import Row

TYPED = (".parquet", ".arrow")
"""Suffixes of files whose columns have types."""
_STAND_INS = ("is a git LFS pointer", "is an HTML page")
_ROW_BATCH = 32  # a row may hold whole images
_LONGEST = 96 << 20  # of one line, cell or JSON value; base64 is a third longer than an image
_CHUNK = 1 << 20  # characters
_SPACE = " \t\r\n"


def read_rows(file: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, Row | str]]:
    """Read rows with their numbers from 1; instead of an unreadable one, a clause that says why.

    Args:
        columns: those that are needed, `a.b` for something within `a`; None for all there are. A
            row may hold others as well, and in JSON it may lack some.

    Raises:
        ImportProblem: the file can't be read, or has not all of the columns.
    """
    row = 0
    _check_download(file)
    try:
        for row, values in enumerate(FORMATS[suffix_of(file)](file, columns), start=1):
            yield row, values
    except (
        pa.ArrowException, OSError, EOFError, zlib.error, csv.Error, ValueError, OverflowError,
    ) as error:  # fmt: skip
        reason = _reason(file, error)
        after = f" after row {row}" if row else ""
        raise ImportProblem(f"{file} can't be read{after}: {reason}") from None


def _check_download(file: Path) -> None:
    """Raise ImportProblem where what stands in for the file was downloaded, and not the file."""
    try:
        with file.open("rb") as handle:
            head = handle.read(2048)
    except OSError:
        return  # its reader says what is wrong
    _, clause = what_it_is(head)
    if clause.startswith(_STAND_INS):
        raise ImportProblem(f"{file} {clause}")


def _reason(file: Path, error: BaseException) -> str:
    """Why a file can't be read: what it is, where its beginning says that it is no table."""
    if isinstance(error, UnicodeError):
        return _not_text(error)
    with suppress(OSError), file.open("rb") as handle:
        head = handle.read(2048)
        if suffix_of(file) in TYPED and not head.startswith(
            (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")
        ):
            return f"it {what_it_is(head)[1]}"
    return first_line(error)


def column_types(file: Path) -> pa.Schema:
    """Read the columns of a Parquet or Arrow file.

    Raises:
        ImportProblem: it is none.
    """
    _check_download(file)
    try:
        if suffix_of(file) == ".arrow":
            with pa.memory_map(str(file)) as source:
                return _open_arrow(source)[0]
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        kind = "Arrow" if suffix_of(file) == ".arrow" else "Parquet"
        raise ImportProblem(f"{file} can't be read as {kind}: {_reason(file, error)}") from None


def suffix_of(file: Path) -> str:
    """What kind of file it is, in lower case: `.jsonl` of `train.jsonl` and `train.jsonl.gz`."""
    name = file.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def open_bytes(file: Path) -> IO[bytes]:
    """Open a file for reading, unpacked."""
    if file.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(file, "rb"))
    return file.open("rb")


def _open_text(file: Path, newline: str | None = None) -> TextIO:
    with open_bytes(file) as handle:
        utf16 = handle.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if utf16 else "utf-8-sig"
    return io.TextIOWrapper(cast(Any, open_bytes(file)), encoding, newline=newline)


def _not_text(error: UnicodeError) -> str:
    reason = getattr(error, "reason", str(error))
    return f"it is not text in UTF-8 ({reason}); save it as UTF-8"


def _parquet(file: Path, columns: Sequence[str] | None) -> Iterator[Row | str]:
    parquet = pq.ParquetFile(file)
    chosen = _chosen(file, columns, parquet.schema_arrow.names)
    narrow = _narrow(parquet.schema_arrow)
    for batch in parquet.iter_batches(_ROW_BATCH, columns=chosen):
        yield from _rows(batch, narrow)


def _arrow(file: Path, columns: Sequence[str] | None) -> Iterator[Row | str]:
    with pa.memory_map(str(file)) as source:
        schema, batches = _open_arrow(source)
        chosen, narrow = _chosen(file, columns, schema.names), _narrow(schema)
        for batch in batches:
            wanted = batch.select(chosen)
            for start in range(0, wanted.num_rows, _ROW_BATCH):
                yield from _rows(wanted.slice(start, _ROW_BATCH), narrow)


def _open_arrow(source: pa.NativeFile) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    try:
        stream = pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        whole = pa.ipc.open_file(source)
        return whole.schema, (whole.get_batch(i) for i in range(whole.num_record_batches))
    return stream.schema, stream


def _narrow(schema: pa.Schema) -> dict[str, pa.DataType]:
    """The columns that hold floats of less than 64 bits."""
    return {field.name: field.type for field in schema if "float" in str(field.type)}


def _rows(batch: pa.RecordBatch, narrow: dict[str, pa.DataType]) -> Iterator[Row]:
    """Rows with narrow floats as the shortest decimal that they are: 3.14, and no 3.140000104."""
    for row in batch.to_pylist():
        yield {k: _shortest(v, narrow[k]) if k in narrow else v for k, v in row.items()}


def _shortest(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return float(str(kind.to_pandas_dtype()(value)))
    if pa.types.is_struct(kind) and isinstance(value, dict):
        return {name: _shortest(inner, kind.field(name).type) for name, inner in value.items()}
    if isinstance(value, list) and hasattr(kind, "value_type"):
        return [_shortest(inner, kind.value_type) for inner in value]
    return value


def _json_lines(file: Path, columns: Sequence[str] | None) -> Iterator[Row | str]:
    with _lines(file) as lines:
        while line := lines.readline(_LONGEST):
            if len(line) == _LONGEST:
                raise ImportProblem(f"{file} has a line that is too long for JSON lines")
            try:
                values = json.loads(line, object_pairs_hook=_pairs) if line.strip() else {}
            except (ValueError, RecursionError) as error:
                yield f"this is not JSON: {error}"
                continue
            yield _object(values)


def _lines(file: Path) -> IO[Any]:
    """Lines as bytes, so that one that is no UTF-8 is that line's fault; of UTF-16 as text."""
    with open_bytes(file) as handle:
        utf16 = handle.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return _open_text(file) if utf16 else open_bytes(file)


def _separated(by: str) -> Callable[[Path, Sequence[str] | None], Iterator[Row | str]]:
    def read(file: Path, columns: Sequence[str] | None) -> Iterator[Row | str]:
        csv.field_size_limit(_LONGEST)
        with _open_text(file, newline="") as lines:
            table = csv.DictReader(lines, delimiter=by, strict=True)
            _chosen(file, columns, table.fieldnames or [])
            for values in _records(file, table):
                if isinstance(values, str):
                    yield values
                elif any(cell.strip() for cell in values.pop(None, ())):
                    yield "the row has more cells than the header"
                else:
                    yield dict(values)

    return read


def _records(file: Path, table: csv.DictReader[str]) -> Iterator[dict[Any, Any] | str]:
    """Yield the rows; instead of one whose quotes are wrong, a clause that names its lines.

    Raises:
        ImportProblem: a quote is never closed, so that the rest of the file would be one cell.
    """
    while True:
        first = table.reader.line_num + 1
        try:
            yield next(table)
        except StopIteration:
            return
        except csv.Error as error:
            last, reason = table.reader.line_num, str(error)
            if reason == "unexpected end of data":
                raise ImportProblem(
                    f"{file}, line {first}: a quote is opened in this row and never closed"
                ) from None
            if "expected after" not in reason:
                raise
            lines = f"line {first}" if first == last else f"lines {first} to {last}"
            yield f"{lines}: text follows a closing quote; quotes in a cell are written twice"


def _json(file: Path, columns: Sequence[str] | None) -> Iterator[Row | str]:
    rows = read_json_objects(file)
    first = next(rows, None)
    if first is None:
        return
    # JSON beside the data, such as what `datasets` writes of its tables, is no table.
    if isinstance(first, dict) and columns and not any(_has(first, name) for name in columns):
        shown = ", ".join(map(str, list(first)[:20])) or "none"
        raise OtherFile(f"{file} has no column {', '.join(columns)}; it has: {shown}")
    yield first
    yield from rows


def _has(row: Row, name: str) -> bool:
    return name in row or name.partition(".")[0] in row


def _chosen(file: Path, columns: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """The columns to read: `a.b` is a column of that name, or else something within `a`."""
    if twice := [name for name, many in Counter(names).items() if name and many > 1]:
        raise ImportProblem(f"{file} has the column {', '.join(twice)} more than once")
    if columns is None:
        return list(names)
    heads = [name if name in names else name.partition(".")[0] for name in columns]
    if missing := [name for name in heads if name not in names]:
        available = ", ".join(names) or "none"
        raise OtherFile(f"{file} has no column {', '.join(missing)}; it has: {available}")
    return list(dict.fromkeys(heads))


def read_json_objects(file: Path, *, keyed: bool = False) -> Iterator[Row | str]:
    """Read the objects of a JSON file one by one; instead of another value, a clause says so.

    Args:
        keyed: the file is one object that maps names to rows.

    Raises:
        ImportProblem: the file can't be read, is not JSON, or ends in the middle.
    """
    _check_download(file)
    try:
        with _open_text(file) as handle:
            yield from _objects(_JsonText(file, handle), keyed)
    except UnicodeError as error:
        raise ImportProblem(f"{file} can't be read: {_not_text(error)}") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImportProblem(f"{file} can't be read: {reason}") from None


def _objects(text: _JsonText, keyed: bool) -> Iterator[Row | str]:
    first = text.peek()
    if first == "{" and not keyed:
        while text.peek() == "{":
            yield _object(text.value())
    elif first == ("{" if keyed else "["):
        yield from _members(text, first, keyed)
    else:
        wanted = "an object of rows" if keyed else "an array of objects, or objects"
        raise OtherFile(f"{text.file} is not {wanted}")
    if extra := text.peek():
        raise ImportProblem(f"{text.file} is damaged: {extra} found behind its last row")


def _members(text: _JsonText, first: str, keyed: bool) -> Iterator[Row | str]:
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


class _JsonText:
    """JSON text that is read from its file as it is parsed."""

    def __init__(self, file: Path, handle: TextIO) -> None:
        self.file, self.handle = file, handle
        self.text, self.at, self.ended = "", 0, False

    def more(self, least: int = _CHUNK) -> bool:
        """Read on, dropping what is parsed; False at the end."""
        chunk = "" if self.ended else self.handle.read(least)
        self.ended = not chunk
        self.text = self.text[self.at :] + chunk
        self.at = 0
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
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
        """Parse the next value."""
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


class _Twice(dict[str, Any]):
    """An object of which a key is there twice, with different values."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs) or all(found[key] == value for key, value in pairs):
        return found
    return _Twice(found)


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs)


def _object(value: Any) -> Row | str:
    if isinstance(value, _Twice):
        return "a key of this JSON object is there twice, with different values"
    return value if isinstance(value, dict) else "this is not a JSON object"


FORMATS: dict[str, Callable[[Path, Sequence[str] | None], Iterator[Row | str]]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
}
"""How a table is read, by its suffix."""
