"""Rows of any table as plain values, a few at a time: Parquet, Arrow, JSON, JSON lines, CSV, TSV.

    for number, row in rows_of(Path("train.parquet"), ["question", "image"]): …

`.arrow` is what `datasets.Dataset.save_to_disk` writes. Only the columns that are wanted are read,
and nothing is held but a batch of rows, so a file may be larger than the memory.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.sources.reading.drafts import ImportProblem
from warehouse.sources.reading.json_rows import objects_in

_ROWS_AT_ONCE = 32  # a row may hold whole pictures
_LONGEST = 96 << 20  # bytes of one line or cell; a picture as text is a third longer than its bytes

Row = dict[str, Any]


def rows_of(file: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, Row | str]]:
    """Rows with their numbers from 1; instead of one that can't be read, a clause that says why.

    Args:
        columns: those that are needed, `a.b` for something within `a`; None for all there are. A
            row may hold others as well, and in JSON it may lack some.

    Raises:
        ImportProblem: the file can't be read, or has not all of the columns.
    """
    row = 0
    try:
        for row, values in enumerate(_ALL[file.suffix.lower()](file, columns), start=1):
            yield row, values
    except (pa.ArrowException, OSError, csv.Error, UnicodeDecodeError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        after = f" after row {row}" if row else ""
        raise ImportProblem(f"{file} can't be read{after}: {said}") from None


def _parquet(file: Path, columns: Sequence[str] | None) -> Iterator[Row | str]:
    parquet = pq.ParquetFile(file)
    chosen = _chosen(file, columns, parquet.schema_arrow.names)
    for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=chosen):
        yield from batch.to_pylist()


def _arrow(file: Path, columns: Sequence[str] | None) -> Iterator[Row | str]:
    with pa.memory_map(str(file)) as source:
        batches: Iterable[pa.RecordBatch]
        try:
            batches = stream = pa.ipc.open_stream(source)
            names = stream.schema.names
        except pa.ArrowInvalid:
            whole = pa.ipc.open_file(source)
            names = whole.schema.names
            batches = (whole.get_batch(i) for i in range(whole.num_record_batches))
        chosen = _chosen(file, columns, names)
        for batch in batches:
            wanted = batch.select(chosen)
            for start in range(0, wanted.num_rows, _ROWS_AT_ONCE):
                yield from wanted.slice(start, _ROWS_AT_ONCE).to_pylist()


def _json_lines(file: Path, columns: Sequence[str] | None) -> Iterator[Row | str]:
    with file.open("rb") as lines:
        while line := lines.readline(_LONGEST):
            if len(line) == _LONGEST:
                raise ImportProblem(f"{file} has a line that is too long for JSON lines")
            try:
                values = json.loads(line) if line.strip() else {}
            except (ValueError, RecursionError) as error:
                yield f"this is not JSON: {error}"
                continue
            yield values if isinstance(values, dict) else "this is not a JSON object"


def _separated(by: str) -> Callable[[Path, Sequence[str] | None], Iterator[Row | str]]:
    def read(file: Path, columns: Sequence[str] | None) -> Iterator[Row | str]:
        csv.field_size_limit(_LONGEST)
        with file.open(encoding="utf-8-sig", newline="") as lines:
            table = csv.DictReader(lines, delimiter=by)
            _chosen(file, columns, table.fieldnames or [])
            for values in table:
                if None in values:
                    yield "the row has more cells than the header"
                else:
                    yield dict(values)

    return read


def _json(file: Path, columns: Sequence[str] | None) -> Iterator[Row | str]:
    return objects_in(file)


def _chosen(file: Path, columns: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """The columns to read: `a.b` is a column of that name, or else something within `a`."""
    if columns is None:
        return list(names)
    heads = [name if name in names else name.partition(".")[0] for name in columns]
    if missing := [name for name in heads if name not in names]:
        there = ", ".join(names) or "none"
        raise ImportProblem(f"{file} has no column {', '.join(missing)}; it has: {there}")
    return list(dict.fromkeys(heads))


FORMATS: dict[str, Callable[[Path, Sequence[str] | None], Iterator[Row | str]]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".jsonl": _json_lines,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
}
"""How a table is read, by its suffix."""
# Not a table's: in a folder that `datasets` saved, JSON says what its tables are.
_ALL = {**FORMATS, ".json": _json}
