"""Inputs of deduplication, decontamination and the split: questions, perceptual hashes, places.

    perceptual_hashes(warehouse, unhashed_images(warehouse), run_id)   # computes and stores them
    hashes = read_hashes(con)                      # of every question's images, as two arrays
    for some in compared_questions(con, "NOT " + TRAINS): …            # questions, as compared
    place_images(warehouse, con, hashes, run_id)                       # the table `folds`

A hash is a function of an image's bytes and is computed once; a place is assigned once and kept.
`con` shows the warehouse at fixed versions. What is held in memory grows with the questions and
images, some hundred bytes each, and never with the traces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.filters import image_hash
from curation.filters.decontaminate import BENCHMARKS, ComparedQuestion
from curation.filters.split import SplitPlace, assign_places
from mcts.data import AnswerKind
from warehouse.query.read_back import rows_among
from warehouse.query.run_query import query_trusted
from warehouse.query.sql_guard import all_quoted, quoted
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import WRITERS
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import read_image

_MEASURES = all_quoted(sorted(BENCHMARKS))
TRAINS = f"(coalesce(split, '') = 'train' AND task NOT IN ({_MEASURES}))"
"""SQL: whether a question is training material, as `ComparedQuestion.evaluates` says it is not."""

_BATCH = 5000  # hashes written at once, so that an interruption loses little
_AT_ONCE = 10_000  # questions held at once
_UNREADABLE = (OSError, KeyError)  # not stored, or no image


def compared_questions(
    con: duckdb.DuckDBPyConnection, condition: str = "true", table: str = "questions"
) -> Iterator[list[ComparedQuestion]]:
    """Read the questions that meet an SQL condition, some thousands at a time."""
    found = con.sql(
        "SELECT question_id, task, split, text, image_ids, choices, answer_kind "
        f"FROM {table} WHERE {condition}"
    ).to_arrow_table()  # whole, so that the connection can answer others meanwhile
    for batch in found.to_batches(_AT_ONCE):
        yield [
            ComparedQuestion(
                row["question_id"], row["task"], row["split"] or "", row["text"] or "",
                tuple(row["image_ids"]), tuple(row["choices"] or ()),
                AnswerKind(row["answer_kind"]),
            )
            for row in batch.to_pylist()
        ]  # fmt: skip


def unhashed_images(warehouse: Warehouse) -> list[str]:
    """List the images of questions whose perceptual hash is not stored."""
    return query_trusted(
        warehouse,
        "SELECT DISTINCT image_id FROM (SELECT unnest(image_ids) AS image_id FROM questions) "
        f"ANTI JOIN (SELECT image_id FROM image_hashes WHERE method = {quoted(image_hash.METHOD)}) "
        "USING (image_id) ORDER BY image_id",
    )["image_id"].to_pylist()


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


@dataclass(frozen=True, slots=True)
class ImageHashes:
    """The images of questions that have a perceptual hash, in order of id."""

    ids: pa.Array
    values: np.ndarray[Any, np.dtype[np.uint64]]
    """Their hashes."""
    trains: np.ndarray[Any, np.dtype[np.bool_]]
    """Whether a training question shows it."""

    def of(self, image_ids: Iterable[str]) -> dict[str, int | None]:
        """Return the hashes of those of the images that have one."""
        wanted = pa.array(sorted(set(image_ids)), pa.string())
        return self._chosen(pc.index_in(wanted, value_set=self.ids).drop_null().to_numpy())

    def alike(
        self, image_ids: Iterable[str], max_bits: int, *, trains: bool = False
    ) -> dict[str, int | None]:
        """Return the hashes of the images that are like some, or linked to them by ones that are.

        Args:
            trains: look only among the images of training questions.
        """
        seeds = {value for value in self.of(image_ids).values() if value is not None}
        known = self.values[self.trains] if trains else self.values
        found = np.fromiter(image_hash.linked(seeds, known, max_bits), np.uint64)
        among = np.isin(self.values, found) & (self.trains if trains else True)
        return self._chosen(np.flatnonzero(among))

    def all(self, *, trains: bool = False) -> dict[str, int | None]:
        """Return every hash, or only those of the images of training questions."""
        return self._chosen(np.flatnonzero(self.trains | (not trains)))

    def _chosen(self, places: np.ndarray[Any, Any]) -> dict[str, int | None]:
        ids = self.ids.take(pa.array(places, pa.int64())).to_pylist()
        return dict(zip(ids, self.values[places].tolist(), strict=True))


def read_hashes(con: duckdb.DuckDBPyConnection) -> ImageHashes:
    """Read the hashes of every question's images, blank ones left out."""
    found = con.sql(
        "SELECT image_id, ('0x' || hash)::UBIGINT AS hash, trains FROM image_hashes JOIN ("
        "SELECT image_id, bool_or(trains) AS trains FROM ("
        f"SELECT unnest(image_ids) AS image_id, {TRAINS} AS trains FROM questions)"
        " GROUP BY image_id) USING (image_id) "
        f"WHERE method = {quoted(image_hash.METHOD)} AND hash IS NOT NULL ORDER BY image_id"
    ).to_arrow_table()
    arrays = (found[name].combine_chunks() for name in ("image_id", "hash", "trains"))
    ids, values, trains = arrays
    return ImageHashes(ids, values.to_numpy(), trains.to_numpy(zero_copy_only=False))


def place_images(
    warehouse: Warehouse,
    con: duckdb.DuckDBPyConnection,
    hashes: ImageHashes,
    run_id: str | None = None,
    *,
    new_images: Iterable[str] | None = None,
) -> int:
    """Assign the images of training questions to places; return how many rows were written.

    The questions are those of every task, since tasks may share images.

    Args:
        new_images: where all others have their places: images whose hash is new, and those of new
            questions.
    """
    condition, trains = TRAINS, hashes.all(trains=True) if new_images is None else {}
    if new_images is not None:
        new = sorted(set(new_images))
        if not new:
            return 0
        con.register("_new_images", pa.table({"image_id": pa.array(new, pa.string())}))
        condition += (
            " AND question_id IN (SELECT question_id FROM (SELECT question_id, unnest(image_ids) "
            "AS image_id FROM questions) SEMI JOIN _new_images USING (image_id))"
        )
    shown = [one.image_ids for some in compared_questions(con, condition) for one in some]
    if new_images is not None:
        images = set(chain.from_iterable(shown))
        trains = hashes.alike(images, image_hash.SIMILAR_BITS, trains=True)
    links = [*shown, *image_hash.group_similar(trains).items()]
    while True:
        rows = _places(warehouse, None if new_images is None else set(chain.from_iterable(links)))
        known = {row["image_id"]: SplitPlace(row["group_id"], row["place"]) for row in rows}
        versions = {row["image_id"]: row["version"] for row in rows}
        changed = [
            {
                "image_id": image_id,
                "version": versions.get(image_id, 0) + 1,
                "group_id": place.group,
                "place": place.at,
                "run_id": run_id,
            }
            for image_id, place in assign_places(links, known).items()
            if known.get(image_id) != place
        ]
        # All or nothing: if another process was faster, its places are read and kept.
        if not changed or insert_new(warehouse, "folds", changed, whole=True):
            return len(changed)


def _places(warehouse: Warehouse, images: set[str] | None) -> list[dict[str, Any]]:
    """Read the places of all images, or of the groups that some of them are in."""
    newest = (
        "(SELECT image_id, version, group_id, place FROM folds "
        "QUALIFY version = max(version) OVER (PARTITION BY image_id))"
    )
    if images is None:
        return query_trusted(warehouse, f"FROM {newest}").to_pylist()
    groups = rows_among(warehouse, newest, "image_id", sorted(images), "DISTINCT group_id")
    return rows_among(warehouse, newest, "group_id", [row["group_id"] for row in groups])
