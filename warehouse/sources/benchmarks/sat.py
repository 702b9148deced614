"""SAT as published: Parquet with the images inside, SAT-v2's columns or SAT v1's.

SAT-v2: `images`, SAT v1: `image_bytes`, a list of images as bytes or as `struct<bytes, path>`; with
`question`, `answers: list<string>` (the choices), `correct_answer` and `question_type`. Which one
a file is, its columns say. Beside `NAME.parquet` there may be `NAME.objects.parquet`
(`image_sha256`, `objects: list<struct<label, x1, y1, x2, y2>>`): the boxes of what is visible, in
original pixels. Schema metadata `source` and `licence`, where present, are passed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mcts.data import Box
from warehouse.sources.benchmarks import reference
from warehouse.sources.reading.drafts import (
    Draft,
    ImportProblem,
    Picture,
    ReadContext,
    Reject,
    Unusable,
)
from warehouse.sources.reading.image_marks import MARK
from warehouse.sources.reading.options import is_missing, read_options
from warehouse.sources.tasks import SAMPLE, Sample, Task

_COLUMNS = ("question", "answers", "correct_answer", "question_type")
_ROWS_AT_ONCE = 32  # a row holds whole images
OBJECTS_SUFFIX = ".objects.parquet"


def read(file: Path, context: ReadContext) -> Iterator[Draft | Reject]:
    """Rows of one Parquet file.

    Raises:
        ImportProblem: it is no Parquet file, or lacks a column, or a column has another type.
    """
    parquet = _open(file)
    schema = parquet.schema_arrow
    images = _image_column(file, schema)
    objects = _read_objects(file)
    metadata = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items() if len(v) < 1000}
    row = 0
    try:
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=[images, *_COLUMNS]):
            for values in batch.to_pylist():
                row += 1
                yield _draft(file.name, row, values, images, objects, metadata)
    except (pa.ArrowException, OSError) as error:
        raise ImportProblem(f"{file} is damaged after row {row}: {_sentence(error)}") from None


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ImportProblem(f"{file} can't be read as Parquet: {_sentence(error)}") from None


def _image_column(file: Path, schema: pa.Schema) -> str:
    column = "image_bytes" if "image_bytes" in schema.names else "images"
    missing = [name for name in (column, *_COLUMNS) if name not in schema.names]
    if missing:
        raise ImportProblem(
            f"{file} is not SAT: it has no column {', '.join(missing)}; "
            f"it has: {', '.join(schema.names)}"
        )
    wanted = {column: "a list of images", "answers": "a list of strings"}
    kinds = {name: schema.field(name).type for name in wanted}
    for name, kind in kinds.items():
        inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else None
        if name == column and inner is not None and pa.types.is_struct(inner):
            index = inner.get_field_index("bytes")
            inner = inner.field(index).type if index >= 0 else None
        fits = inner is not None and (_is_text(inner) if name == "answers" else _is_binary(inner))
        if not fits:
            raise ImportProblem(f"{file}: column {name} should be {wanted[name]}, not {kind}")
    for name in ("question", "correct_answer", "question_type"):
        kind = schema.field(name).type
        if not _is_text(kind) and not pa.types.is_null(kind):
            raise ImportProblem(f"{file}: column {name} should be text, not {kind}")
    return column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _draft(
    file: str,
    row: int,
    values: dict[str, Any],
    column: str,
    objects: dict[str, tuple[Box, ...]],
    metadata: dict[str, str],
) -> Draft | Reject:
    images = []
    for i, stored in enumerate(values[column] or (), start=1):
        data = stored["bytes"] if isinstance(stored, dict) else stored
        if not data:
            return Reject(file, row, column, f"image {i} has no bytes")
        visible = objects.get(hashlib.sha256(data).hexdigest()) if objects else None
        images.append(Picture(data, visible))
    if is_missing(values["correct_answer"]):
        return Reject(file, row, "correct_answer", "there is no answer")
    try:
        options = read_options(values["answers"], "answers")
        right = options.resolve(values["correct_answer"], field="correct_answer")
    except Unusable as problem:
        return Reject.of(problem, file, row)
    return Draft(
        file=file,
        row=row,
        # A template that was not filled in: no question of SAT stands in its image.
        text="" if (values["question"] or "").strip() == MARK else values["question"] or "",
        images=tuple(images),
        choices=options.choices,
        answers=(right,),
        family=values["question_type"] or "",
        source=metadata.get("source", ""),
        licence=metadata.get("licence", ""),
    )


def _read_objects(file: Path) -> dict[str, tuple[Box, ...]]:
    """Boxes by SHA-256 of the image they are in; empty if there is no such file."""
    beside = file.with_name(file.name.removesuffix(".parquet") + OBJECTS_SUFFIX)
    if not beside.exists():
        return {}
    table = _open(beside).read()
    if missing := {"image_sha256", "objects"} - set(table.schema.names):
        raise ImportProblem(f"{beside} has no column {', '.join(sorted(missing))}")
    return {
        row["image_sha256"]: tuple(
            Box(o["x1"], o["y1"], o["x2"], o["y2"], label=o["label"] or "") for o in row["objects"]
        )
        for row in table.to_pylist()
        if row["objects"] is not None
    }


def _sentence(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


_ROOMS = {split: SAMPLE / f"rooms-{split}.parquet" for split in ("train", "test", "gate")}
TASKS = (
    Task(
        "sat2",
        "SAT: spatial questions (Parquet of SAT-v2 or SAT v1, or reference JSONL)",
        {".parquet": read, ".jsonl": reference.read},
        metrics=("by_family",),
        sample=Sample(_ROOMS, "vigorl-rooms", "Apache-2.0"),
    ),
)
