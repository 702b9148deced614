"""Rows of `questions` as older code stored them, so that nothing is there or counted twice.

    add_lost_ids(warehouse, "robospatial")    # of rows that are read and named under another id
    rows = without_older(warehouse, rows, uncounted)

Older code hashed the whole-numbered edges of a polygon's boxes as integers, then asked the question
under the hash of what it had read back: trees, traces and predictions name an id that no row has.
It made a polygon one box a pixel row, which reached a little over its sides; today's boxes lie
inside it, and are another question. And it left out of an id what a benchmark counts by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow.dataset as pads

from mcts.data import AnswerKind
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import among, insert_new, scan
from warehouse.tables.rows import question_from, read_images
from warehouse.tables.schema import Row

_PLACE = ("task", "split", "text", "family", "part_of")


def add_lost_ids(warehouse: Warehouse, task: str) -> int:
    """Store rows anew under the id that they are read under, where it is another; return how many.

    The older row stays, as every stored row does; readers take both for one question.
    """
    where = (pads.field("task") == task) & (pads.field("answer_kind") == str(AnswerKind.BOX))
    rows = [row for row in scan(warehouse, "questions", where=where).to_pylist() if _is_older(row)]
    if not rows:
        return 0
    images = read_images(warehouse, [i for row in rows for i in row["image_ids"]])
    found = [{**row, "question_id": question_from(row, images).question_id} for row in rows]
    return insert_new(warehouse, "questions", found)


def without_older(
    warehouse: Warehouse, rows: Sequence[Row], uncounted: Mapping[str, str]
) -> list[Row]:
    """Rows of `questions` without those that older code stored under another id.

    Args:
        uncounted: a question's id without what its benchmark counts it under, by its id.
    """
    ids = among("question_id", uncounted.values())
    names = ["question_id", "family", "part_of"]
    counted = {
        (row["question_id"], row["family"] or "", row["part_of"] or "")
        for row in (scan(warehouse, "questions", names, ids).to_pylist() if uncounted else ())
    }
    polygons = _older_polygons(warehouse, rows)
    return [
        row
        for row in rows
        if (uncounted.get(row["question_id"]), row["family"], row["part_of"]) not in counted
        and not (len(row["boxes"]) > 1 and _place(row) in polygons)
    ]


def _older_polygons(warehouse: Warehouse, rows: Sequence[Row]) -> set[tuple[object, ...]]:
    """What is asked, and of which images, in the stored rows with an older polygon."""
    texts = {row["text"] for row in rows if len(row["boxes"]) > 1}
    if not texts:
        return set()
    where = among("text", texts) & (pads.field("answer_kind") == str(AnswerKind.BOX))
    stored = scan(warehouse, "questions", [*_PLACE, "image_ids", "boxes"], where).to_pylist()
    return {_place(row) for row in stored if _is_older(row)}


def _place(row: Row) -> tuple[object, ...]:
    return (*(row[name] or "" for name in _PLACE), *row["image_ids"])


def _is_older(row: Row) -> bool:
    """Whether a row's boxes are pixel rows one under another, as older code made a polygon."""
    boxes = row["boxes"] or []
    ys = [box["y1"] for box in boxes]
    rows_of_pixels = all(box["y1"].is_integer() and box["y2"] - box["y1"] == 1 for box in boxes)
    return bool(boxes) and rows_of_pixels and ys == sorted(ys)
