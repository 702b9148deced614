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

from mcts.data import Box
from warehouse.sources.benchmarks import reference
from warehouse.sources.reading.drafts import (
    Draft,
    DraftImage,
    ImportProblem,
    ReadContext,
    Reject,
    Unusable,
)
from warehouse.sources.reading.image_marks import MARK
from warehouse.sources.reading.options import is_missing, read_options
from warehouse.sources.reading.tabular import column_types, read_rows
from warehouse.sources.tasks import SAMPLE, Sample, Task

_COLUMNS = ("question", "answers", "correct_answer", "question_type")
OBJECTS_SUFFIX = ".objects.parquet"


def read(file: Path, context: ReadContext) -> Iterator[Draft | Reject]:
    """Rows of one Parquet or Arrow file.

    Raises:
        ImportProblem: it is none, or lacks a column, or a column has another type.
    """
    schema = column_types(file)
    images = _image_column(file, schema)
    objects = _read_objects(file)
    metadata = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items() if len(v) < 1000}
    for row, values in read_rows(file, [images, *_COLUMNS]):
        if isinstance(values, dict):  # rows of Parquet and Arrow are whole
            _check_kinds(file, schema, images)
            yield _draft(file.name, row, values, images, objects, metadata)


def _image_column(file: Path, schema: pa.Schema) -> str:
    column = "image_bytes" if "image_bytes" in schema.names else "images"
    missing = [name for name in (column, *_COLUMNS) if name not in schema.names]
    if missing:
        raise ImportProblem(
            f"{file} is not SAT: it has no column {', '.join(missing)}; "
            f"it has: {', '.join(schema.names)}"
        )
    return column


def _check_kinds(file: Path, schema: pa.Schema, column: str) -> None:
    """Check what a file's columns hold; of one without rows nobody knows.

    Raises:
        ImportProblem: a column has another type.
    """
    wanted = {column: "a list of images", "answers": "a list of strings"}
    kinds = {name: schema.field(name).type for name in wanted}
    for name, kind in kinds.items():
        inner = kind.value_type if "list" in str(kind) and hasattr(kind, "value_type") else None
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


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return str(kind) in ("string", "large_string", "string_view")


def _is_binary(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return str(kind) in ("binary", "large_binary", "binary_view")


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
        images.append(DraftImage(data, visible))
    if is_missing(values["correct_answer"]):
        return Reject(file, row, "correct_answer", "there is no answer")
    try:
        options = read_options(values["answers"], "answers")
        if len(options.choices) < 2:
            raise Unusable("answers", f"there are {len(options.choices)} options")
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
    beside = file.with_name(file.stem + OBJECTS_SUFFIX)
    if not beside.exists():
        return {}
    if missing := {"image_sha256", "objects"} - set(column_types(beside).names):
        raise ImportProblem(f"{beside} has no column {', '.join(sorted(missing))}")
    found: dict[str, tuple[Box, ...]] = {}
    for number, row in read_rows(beside, ["image_sha256", "objects"]):
        if isinstance(row, dict) and row["objects"] is not None:
            try:
                found[row["image_sha256"]] = tuple(map(_object, row["objects"]))
            except (TypeError, KeyError, ValueError, AttributeError):
                raise ImportProblem(
                    f"{beside} row {number}: objects: each is a struct of label and the numbers "
                    "x1, y1, x2, y2"
                ) from None
    return found


def _object(written: Any) -> Box:
    x1, y1, x2, y2 = (float(written[name]) for name in ("x1", "y1", "x2", "y2"))
    return Box(x1, y1, x2, y2, label=str(written.get("label") or ""))


_ROOMS = {split: SAMPLE / f"rooms-{split}.parquet" for split in ("train", "test", "gate")}
TASKS = (
    Task(
        "sat2",
        "SAT: spatial questions (Parquet of SAT-v2 or SAT v1, or reference JSONL)",
        {".parquet": read, ".arrow": read, ".jsonl": reference.read},
        metrics=("by_family",),
        sample=Sample(_ROOMS, "vigorl-rooms", "Apache-2.0"),
    ),
)
