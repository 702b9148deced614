"""The schema of every table: one sentence a table, one sentence a column.

A table is a text file in `columns/`: what a row is, `key:` the columns that name a row, `parent:`
the table whose rows make its rows visible, then one column a line (`name  type  sentence`). So the
definitions read as the documentation they are; here they become pyarrow schemas whose fields carry
the sentence as metadata. Users write SQL against names and meanings: add columns, never rename
them.

    schema = TABLES["traces"].schema           # pyarrow.Schema; description in each field
    TABLES["steps"].describe("x")              # "Pixels from the left edge of ..."

Points and boxes are original pixels of a named image, x right and y down, everywhere. Times are
UTC. Null means "not known" or "not applicable", never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

import pyarrow as pa

Row = dict[str, Any]
"""One row of a table or of a file, by column name."""

_BOX = [("label", pa.string()), *((name, pa.float64()) for name in ("x1", "y1", "x2", "y2"))]
_POINT = [("x", pa.float64()), ("y", pa.float64()), ("image", pa.int32())]
_TYPES = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "time": pa.timestamp("us", tz="UTC"),
    "point": pa.struct(_POINT),
    "call": pa.struct(
        [
            *_POINT,
            ("view", pa.int32()),
            ("box", pa.struct([*_BOX, ("image", pa.int32())])),
            ("label", pa.string()),
            ("text", pa.string()),
        ]
    ),
    # An object seen in one image; a gold box also names the image it lies in.
    "object": pa.struct(_BOX),
    "box": pa.struct([*_BOX, ("image", pa.int32())]),
    "observation": pa.struct(
        [
            *((name, pa.float64()) for name in ("x1", "y1", "x2", "y2")),
            ("image", pa.int32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("marked", pa.bool_()),
            ("view", pa.int32()),
            ("problem", pa.string()),
            ("last", pa.bool_()),
        ]
    ),
}

# Columns every table ends with: each row says who wrote it, and when.
_PROVENANCE = """
run_id          string   The run that wrote the row (see runs).
revision        string   Version-control revision of the code that wrote the row.
created_at      time     When the row was written.
"""


def _type(text: str) -> pa.DataType:
    if text.startswith("["):
        return pa.list_(pa.field("element", _type(text[1:-1])))
    return _TYPES[text]


@dataclass(frozen=True)
class Table:
    """One table: its name, what a row of it is, what names a row, and its columns."""

    name: str
    sentence: str
    key: tuple[str, ...]
    """Columns that together name a row; at most one row has a given key."""
    columns: str
    """One column a line: name, type, sentence."""
    parent: str | None = None
    """The table whose rows make this table's rows visible, through `commit_id`."""

    @cached_property
    def schema(self) -> pa.Schema:
        """The pyarrow schema, each field with its `description` as metadata."""
        fields = []
        for line in f"{self.columns}\n{_PROVENANCE}".strip().splitlines():
            if line.strip():
                name, kind, sentence = line.split(None, 2)
                metadata = {"description": sentence}
                fields.append(pa.field(name, _type(kind), metadata=metadata))
        return pa.schema(fields, metadata={"description": self.sentence})

    def describe(self, column: str) -> str:
        """The sentence of a column; KeyError for an unknown one."""
        metadata = self.schema.field(column).metadata
        return str(metadata[b"description"], "utf-8")


_ORDER = (
    *("runs", "images", "questions", "responses", "trees", "nodes", "rollouts", "traces", "steps"),
    *("verdicts", "behaviors", "step_scores", "reviews", "dataset_versions", "models"),
    *("evaluations", "predictions", "promotions", "revocations", "image_hashes", "folds"),
)


def _read_table(name: str) -> Table:
    """Read `columns/<name>.txt`."""
    text = (resources.files("warehouse.tables") / "columns" / f"{name}.txt").read_text("utf-8")
    head, _, columns = text.partition("\n\n")
    sentence, *fields = head.splitlines()
    about = dict(field.split(": ", 1) for field in fields)
    return Table(name, sentence, tuple(about["key"].split()), columns, about.get("parent"))


TABLES: dict[str, Table] = {name: _read_table(name) for name in _ORDER}
"""Every table by name, in the order in which data comes into being."""

CHILDREN: dict[str, tuple[str, ...]] = {
    "trees": ("responses", "nodes", "rollouts"),
    "traces": ("steps", "verdicts"),
}
"""Tables whose rows are written before, and shown only with, the rows of the table named first."""


def as_described(data: Any, stored: Mapping[str, Any]) -> Any:
    """Give a table or a stream of batches the field metadata of the stored table.

    Delta Lake refuses metadata that differs, and a sentence may have been reworded since the table
    was created; a cast would leave it as it is.
    """
    schema = pa.schema([f.with_metadata(stored.get(f.name, f.metadata)) for f in data.schema])
    if isinstance(data, pa.Table):
        return pa.Table.from_arrays(data.columns, schema=schema)
    batches = (pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in data)
    return pa.RecordBatchReader.from_batches(schema, batches)
