"""Writes and reads a dataset version's rows.parquet and images.parquet; `card` writes the rest.

    rows = write_rows(con, folder)             # the temp table `chosen` names the traces
    write_images(warehouse, rows, folder)
    card = make_card(con, rows, …);  write_card(card, folder)

A row holds all that training on a trace needs: question, gold answer, steps and answer in original
pixels, image sizes, and the coordinate space its teacher spoke. The content hash is taken over the
rows' canonical JSON in order of trace_id, images included by their own hashes; run ids, paths and
times are not in it, so the same content has the same hash on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mcts.data import Image, Question, Trace
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.objects import WRITERS, image_key
from warehouse.tables.rows import question_from, step_from
from warehouse.tables.schema import TABLES

FORMAT = 1
"""Version of the bundle's layout; part of the content hash."""

ANSWER_FORCED = "answer_forced"
"""The problem of a trace whose answer was requested alone."""
_STEP = ("thought", "points", "call", "observation")
_ROW_BATCH = 1000
_ROUND_TRACES = 1_000_000  # found in the tables at once
_PART_TRACES = 50_000  # joined and sorted at once: some hundred megabytes
_IMAGE_BATCH = 64


def _field(table: str, column: str, name: str | None = None) -> pa.Field:
    return pa.field(name or column, TABLES[table].schema.field(column).type)


ROWS = pa.schema(
    [
        *(_field("traces", c) for c in ("trace_id", "question_id", "tree_id", "task", "kind")),
        *(_field("traces", c) for c in ("origin", "model", "linearizer")),
        *(_field("questions", c) for c in ("split", "family", "source", "licence")),
        _field("questions", "text", "question"),
        *(_field("questions", c) for c in ("choices", "answer_kind")),
        *(_field("questions", c, f"gold_{c}") for c in ("answers", "boxes", "points")),
        _field("questions", "tolerance"),
        pa.field("steps", pa.list_(pa.struct([_field("steps", c) for c in _STEP]))),
        *(_field("traces", c) for c in ("answer", "reward", "wrong_from", "turns_back_at")),
        *(_field("trees", c) for c in ("space", "min_pixels", "max_pixels", "factor")),
        _field("trees", "prompt_hash"),
        _field("questions", "image_ids"),
        pa.field(
            "image_sizes",
            pa.list_(pa.struct([_field("images", "width"), _field("images", "height")])),
        ),
        *(_field("questions", c) for c in ("part_of", "counted_as")),
        pa.field("answer_forced", pa.bool_()),
    ]
)
"""Columns of rows.parquet, described by the tables they come from. Points and boxes are original
pixels; `gold_*` is the gold answer; `image_sizes` are pixels, one for each image; `answer_forced`
is said of dialogues that zoom, whose answer is then never trained on."""

IMAGES = pa.schema(
    [
        *(_field("images", c) for c in ("image_id", "width", "height", "format")),
        pa.field("bytes", pa.binary()),
    ]
)
"""Columns of images.parquet: every image once, encoded as imported."""

# Of the traces in the temp table `round`, each with the number of its part; without their steps.
_ROUND_ROWS = """
SELECT p.part, t.trace_id, t.question_id, t.tree_id, t.task, t.kind, t.origin, t.model,
       t.linearizer, q.split, q.family, q.source, q.licence, q.text AS question, q.choices,
       q.answer_kind, q.answers AS gold_answers, q.boxes AS gold_boxes, q.points AS gold_points,
       q.tolerance, t.answer, t.reward, t.wrong_from, t.turns_back_at, r.space, r.min_pixels,
       r.max_pixels, r.factor, r.prompt_hash, q.image_ids, q.part_of, q.counted_as,
       list_contains(t.problems, 'answer_forced') AS answer_forced
FROM traces t
JOIN round p USING (trace_id)
LEFT JOIN questions q USING (question_id)
LEFT JOIN trees r USING (tree_id)
"""
_ROUND_STEPS = f"""
SELECT part, trace_id, step, {", ".join(_STEP)} FROM steps JOIN round USING (trace_id)
"""
_PART = f"""
SELECT r.* EXCLUDE (part), s.steps FROM (FROM round_rows WHERE part = $part) r
LEFT JOIN (
    SELECT trace_id, list({{{", ".join(f"'{c}': {c}" for c in _STEP)}}} ORDER BY step) AS steps
    FROM round_steps WHERE part = $part GROUP BY trace_id
) s USING (trace_id)
ORDER BY r.trace_id
"""
_CHOSEN_IMAGES = """
SELECT image_id, width, height, format, licence FROM images
SEMI JOIN (
    SELECT unnest(image_ids) AS image_id FROM questions
    SEMI JOIN (SELECT question_id FROM traces SEMI JOIN chosen USING (trace_id)) USING (question_id)
) USING (image_id)
ORDER BY image_id
"""


@dataclass(frozen=True, slots=True)
class Rows:
    """What was written to rows.parquet."""

    count: int
    content_hash: str
    images: dict[str, dict[str, Any]]
    """Every image of the rows by id, in order: its row of `images`."""
    counts: Counter[str]
    """How many rows, and of each kind (`kind direct`), steps and points they have; how many zoom
    (`dialogues`), and how many crops those show."""
    left_out: int
    """Chosen traces that can't be written in the response style asked for, or repeat an answer."""


def write_rows(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    restyle: Callable[[Iterable[dict[str, Any]]], Iterator[dict[str, Any]]] | None = None,
) -> Rows:
    """Write the rows of the traces in the temp table `chosen`, in order of trace_id.

    Args:
        restyle: rewrites rows in another response style; a trace that it drops is left out, and
            taken out of `chosen`.

    Raises:
        WarehouseError: a trace's question or image is missing from the warehouse.
    """
    chosen_images = con.sql(_CHOSEN_IMAGES).to_arrow_table().to_pylist()
    images = {row["image_id"]: row for row in chosen_images}
    digest = _new_digest()
    counts: Counter[str] = Counter()
    dropped: list[str] = []
    with pq.ParquetWriter(folder / "rows.parquet", ROWS, compression="zstd") as writer:
        for batch in _joined(con):
            rows = batch.to_pylist()
            for row in rows:
                if row["question"] is None:
                    raise WarehouseError(f"question {row['question_id']} is not in the warehouse")
                row["image_sizes"] = [_size(images, image_id) for image_id in row["image_ids"]]
            if restyle:
                ids = [row["trace_id"] for row in rows]
                rows = list(restyle(rows))
                dropped += set(ids).difference(row["trace_id"] for row in rows)
            for row in rows:
                row["answer_forced"] = (row["answer_forced"] and _zooms(row)) or None
                digest.update(_canonical(row))
                counts["steps"] += len(row["steps"] or ())
                counts["points"] += sum(len(step["points"] or ()) for step in row["steps"] or ())
                counts[f"kind {row['kind']}"] += 1
                counts["dialogues"] += _zooms(row)
                counts["crops"] += sum(_shows(step) for step in row["steps"] or ())
            writer.write_table(pa.Table.from_pylist(rows, ROWS))
            counts["rows"] += len(rows)
    if not counts["rows"]:
        raise WarehouseError("no chosen trace can be written in the response style asked for")
    if dropped:
        con.register("_dropped", pa.table({"trace_id": pa.array(dropped, pa.string())}))
        con.execute("DELETE FROM chosen WHERE trace_id IN (SELECT trace_id FROM _dropped)")
        kept = {r["image_id"] for r in con.sql(_CHOSEN_IMAGES).to_arrow_table().to_pylist()}
        images = {image_id: row for image_id, row in images.items() if image_id in kept}
    return Rows(counts["rows"], digest.hexdigest(), images, counts, len(dropped))


def _joined(con: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
    """The rows of the chosen traces in order of trace_id.

    Every table is read once a round; what a round needs lies in temporary tables, which DuckDB
    spills to disk, and is sorted part by part.
    """
    ends = con.execute(
        "SELECT trace_id FROM chosen "
        f"QUALIFY row_number() OVER (ORDER BY trace_id) % {_ROUND_TRACES} = 0 ORDER BY trace_id"
    ).fetchall()
    for low, high in pairwise([None, *(end for (end,) in ends), None]):
        con.execute(
            "CREATE OR REPLACE TEMP TABLE round AS SELECT trace_id, "
            f"(row_number() OVER (ORDER BY trace_id) - 1) // {_PART_TRACES} AS part FROM chosen "
            "WHERE ($low IS NULL OR trace_id > $low) AND ($high IS NULL OR trace_id <= $high)",
            {"low": low, "high": high},
        )
        con.execute(f"CREATE OR REPLACE TEMP TABLE round_rows AS {_ROUND_ROWS}")
        con.execute(f"CREATE OR REPLACE TEMP TABLE round_steps AS {_ROUND_STEPS}")
        ((parts,),) = con.execute("SELECT coalesce(max(part) + 1, 0) FROM round").fetchall()
        for part in range(parts):
            yield from con.sql(_PART, params={"part": part}).to_arrow_reader(_ROW_BATCH)
    for table in ("round", "round_rows", "round_steps"):
        con.execute(f"DROP TABLE {table}")


def write_images(warehouse: Warehouse, rows: Rows, folder: Path) -> None:
    """Write the images, in order of id; each is checked against its hash.

    Raises:
        WarehouseError: an image is missing or damaged.
    """

    def load(row: dict[str, Any]) -> dict[str, Any]:
        image_id = row["image_id"]
        try:
            data = warehouse.objects.get(image_key(image_id))
        except KeyError:
            raise WarehouseError(f"the bytes of image {image_id} are not stored") from None
        if hashlib.sha256(data).hexdigest() != image_id:
            raise WarehouseError(f"the stored bytes of image {image_id} are damaged")
        return {**row, "bytes": data}

    # Encoded images do not compress again.
    path = folder / "images.parquet"
    with (
        pq.ParquetWriter(path, IMAGES, compression="none", use_dictionary=False) as writer,
        ThreadPoolExecutor(WRITERS) as pool,
    ):
        every = list(rows.images.values())
        for start in range(0, len(every), _IMAGE_BATCH):
            loaded = pool.map(load, every[start : start + _IMAGE_BATCH])
            writer.write_table(pa.Table.from_pylist(list(loaded), IMAGES))


def hash_rows(path: Path) -> str:
    """Compute the content hash of a rows.parquet, as its card states it."""
    digest = _new_digest()
    for row in read_rows(path):
        digest.update(_canonical(row))
    return str(digest.hexdigest())


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read rows of a rows.parquet in bounded memory."""
    with pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches(_ROW_BATCH):
            yield from batch.to_pylist()


def question_of(row: dict[str, Any]) -> Question:
    """The question of a version's row."""
    images = {
        image_id: Image(image_id, **size)
        for image_id, size in zip(row["image_ids"], row["image_sizes"], strict=True)
    }
    gold = {name: row[f"gold_{name}"] for name in ("answers", "boxes", "points")}
    return question_from({**row, "text": row["question"], **gold}, images)


def trace_of(row: dict[str, Any]) -> Trace:
    """The trace of a version's row; a version does not record where in its tree each step was."""
    return Trace(
        question_id=row["question_id"],
        steps=tuple(step_from(step) for step in row["steps"] or ()),
        answer=row["answer"],
        reward=row["reward"],
        kind=row["kind"],
        origin=row["origin"],
        tree_id=row["tree_id"],
        wrong_from=row["wrong_from"],
        turns_back_at=row["turns_back_at"],
        problems=(ANSWER_FORCED,) if row.get("answer_forced") else (),
        maker=row["linearizer"] or "",
    )


def _zooms(row: dict[str, Any]) -> bool:
    return row["kind"] == "zoom" or any(step["observation"] for step in row["steps"] or ())


def _shows(step: dict[str, Any]) -> bool:
    return bool(step["observation"]) and step["observation"]["x1"] is not None


def _size(images: dict[str, dict[str, Any]], image_id: str) -> dict[str, int]:
    if image_id not in images:
        raise WarehouseError(f"image {image_id} is not in the warehouse")
    return {"width": images[image_id]["width"], "height": images[image_id]["height"]}


def _new_digest() -> Any:
    return hashlib.sha256(f"vigorl data set, format {FORMAT}\n".encode())


_LATER = ("part_of", "counted_as", "answer_forced")
"""Columns that earlier bundles don't have; hashed where they say something."""


def _canonical(row: dict[str, Any]) -> bytes:
    row = {name: value for name, value in row.items() if value or name not in _LATER}
    text = json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n"
    return text.encode("utf-8", "surrogatepass")
