"""Inputs of deduplication, decontamination and the split: questions, perceptual hashes, places.

    questions = read_compared(warehouse)              # every question, as it is compared
    hashes = perceptual_hashes(warehouse, image_ids, run_id)    # those not stored yet are computed
    place_images(warehouse, training, hashes, run_id)           # the table `folds`

A hash is a function of an image's bytes and is computed once; a place is assigned once and kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import duckdb

from curation.filters import image_hash
from curation.filters.decontaminate import ComparedQuestion
from curation.filters.split import SplitPlace, assign_places
from warehouse.query.read_back import rows_among
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import WRITERS
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import read_image

_BATCH = 5000  # hashes written at once, so that an interruption loses little
_UNREADABLE = (OSError, KeyError)  # not stored, or no image
_QUESTIONS = "SELECT question_id, task, split, text, image_ids FROM questions"


def read_compared(
    source: Warehouse | duckdb.DuckDBPyConnection,
) -> list[ComparedQuestion]:
    """Read every question, from the warehouse now or from a connection with its own state."""
    if isinstance(source, Warehouse):
        table = query(source, _QUESTIONS)
    else:
        table = source.sql(_QUESTIONS).to_arrow_table()
    return [
        ComparedQuestion(
            row["question_id"], row["task"], row["split"] or "", row["text"] or "",
            tuple(row["image_ids"]),
        )
        for row in table.to_pylist()
    ]  # fmt: skip


def perceptual_hashes(
    warehouse: Warehouse,
    image_ids: Iterable[str],
    run_id: str | None = None,
    *,
    store: bool = True,
) -> dict[str, int | None]:
    """The hash of each image, None where it is blank; unreadable images are left out."""
    ids = sorted(set(image_ids))
    sql = f"SELECT image_id, hash FROM image_hashes WHERE method = '{image_hash.METHOD}'"
    known = {
        row["image_id"]: row["hash"] for row in rows_among(warehouse, f"({sql})", "image_id", ids)
    }
    missing = (image_id for image_id in ids if image_id not in known)

    def compute(image_id: str) -> dict[str, Any] | None:
        try:
            value = image_hash.phash(read_image(warehouse, image_id))
        except _UNREADABLE:
            return None
        text = None if value is None else f"{value:016x}"
        return {"image_id": image_id, "method": image_hash.METHOD, "hash": text, "run_id": run_id}

    with ThreadPoolExecutor(WRITERS) as pool:
        while batch := list(islice(missing, _BATCH)):
            rows = [row for row in pool.map(compute, batch) if row]
            if store:
                insert_new(warehouse, "image_hashes", rows)
            known |= {row["image_id"]: row["hash"] for row in rows}
    return {i: None if text is None else int(text, 16) for i, text in sorted(known.items())}


def place_images(
    warehouse: Warehouse,
    training: Sequence[ComparedQuestion],
    hashes: Mapping[str, int | None],
    run_id: str | None = None,
) -> int:
    """Assign the images of training questions to places; return how many rows were written.

    Args:
        training: the training questions of every task, since tasks may share images.
    """
    image_ids = {image_id for question in training for image_id in question.image_ids}
    alike = image_hash.group_similar({image_id: hashes.get(image_id) for image_id in image_ids})
    together = [*(question.image_ids for question in training), *alike.items()]
    while True:
        rows = query(
            warehouse,
            "SELECT * FROM folds QUALIFY version = max(version) OVER (PARTITION BY image_id)",
        ).to_pylist()
        known = {row["image_id"]: SplitPlace(row["group_id"], row["place"]) for row in rows}
        versions = {row["image_id"]: row["version"] for row in rows}
        places = assign_places(together, known)
        changed = [
            {
                "image_id": image_id,
                "version": versions.get(image_id, 0) + 1,
                "group_id": place.group,
                "place": place.at,
                "run_id": run_id,
            }
            for image_id, place in places.items()
            if known.get(image_id) != place
        ]
        # All or nothing: if another process was faster, its places are read and kept.
        if not changed or insert_new(warehouse, "folds", changed, whole=True):
            return len(changed)
