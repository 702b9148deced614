"""Checks that everything is stored, and undamaged: `check` reads all of it and lists problems.

    for finding in check(warehouse):
        print(finding.sentence)            # "images: the bytes of image 3f… are damaged"

Tables: every file of the newest version and of each version that a published dataset was cut from
is there, and as large as the log says; keys identify one row; references resolve. Objects: every
image has the hash it is named by, every bundle the content its card states. What is not damage, a
commit that never finished, an object without a row, files of an earlier version that went with a
deleted source, is reported as a remark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from warehouse.maintenance.compact import stated_versions
from warehouse.maintenance.delete import last_deletion
from warehouse.query.commit_visibility import commits_of
from warehouse.query.run_query import connect
from warehouse.storage.home import Warehouse, WarehouseError, first_line
from warehouse.storage.objects import WRITERS, image_key
from warehouse.tables.delta import open_table, scan
from warehouse.tables.schema import CHILDREN, TABLES
from warehouse.versions.bundle import hash_rows
from warehouse.versions.versions import Version, list_versions, open_version

# Column of a table, and the table and column its values must be found in; nulls refer to nothing.
REFERENCES = (
    ("questions", "unnest(image_ids)", "images", "image_id"),
    ("trees", "question_id", "questions", "question_id"),
    ("nodes", "tree_id", "trees", "tree_id"),
    ("rollouts", "tree_id", "trees", "tree_id"),
    ("responses", "tree_id", "trees", "tree_id"),
    ("nodes", "response_id", "responses", "response_id"),
    ("traces", "question_id", "questions", "question_id"),
    ("traces", "tree_id", "trees", "tree_id"),
    ("steps", "trace_id", "traces", "trace_id"),
    ("verdicts", "trace_id", "traces", "trace_id"),
    ("behaviors", "trace_id", "traces", "trace_id"),
    ("step_scores", "trace_id", "traces", "trace_id"),
    ("reviews", "trace_id", "traces", "trace_id"),
    ("image_hashes", "image_id", "images", "image_id"),
    ("predictions", "evaluation_id", "evaluations", "evaluation_id"),
    ("predictions", "question_id", "questions", "question_id"),
)

_MISSING = " is missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem or remark."""

    sentence: str
    wrong: bool = True
    """False for a remark: something left over, which does no harm."""


def check(warehouse: Warehouse) -> Iterator[Finding]:
    """Yield problems and remarks as they are found. Reads every byte of every image."""
    broken: set[str] = set()
    yield from _files(warehouse, broken)
    try:
        opened = connect(warehouse, names=_sound(broken))
    except duckdb.Error:
        unreadable = _unreadable(warehouse, _sound(broken))
        yield from map(_unread, unreadable, unreadable.values())
        broken |= set(unreadable)
        opened = connect(warehouse, names=_sound(broken))
    sound = set(_sound(broken))
    with opened as con:
        for name in _sound(broken):
            try:
                yield from _keys(con, name)
            except duckdb.Error as error:
                yield _unread(name, error)
                sound.discard(name)
        for reference in REFERENCES:
            if {reference[0], reference[2]} <= sound:
                yield from _reference(con, *reference)
    yield from unfinished_commits(warehouse, broken)
    if "images" not in broken:
        yield from _images(warehouse)
    yield from _bundles(warehouse)


def _sound(broken: Collection[str]) -> list[str]:
    """Return the tables that can be read, as can those that say which of their rows to show."""
    return [name for name in TABLES if not {name, TABLES[name].parent} & set(broken)]


def _unreadable(warehouse: Warehouse, names: Sequence[str]) -> dict[str, duckdb.Error]:
    """Return the tables that can't be opened although their files are there, and why."""
    found = {}
    for name in names:
        try:
            connect(warehouse, names=[name]).close()
        except duckdb.Error as error:
            found[name] = error
    return found


def _unread(name: str, error: duckdb.Error) -> Finding:
    return Finding(f"{name}: it can't be read: {first_line(error)}")


def _files(warehouse: Warehouse, broken: set[str]) -> Iterator[Finding]:
    """Yield what is wrong with the tables' files; add to `broken` whose newest version it hurts.

    What a deletion took of versions before it was meant to go: one remark for each of these.
    """
    needed = stated_versions(warehouse)
    for name in TABLES:
        newest = open_table(warehouse, name)
        if newest is None:
            continue
        deleted_at: int | None = None
        for number in sorted(needed.get(name, set()) | {newest.version()}):
            found = list(_files_of(warehouse, name, number))
            if found and number == newest.version():
                broken.add(name)
            elif found and any(finding.sentence.endswith(_MISSING) for finding in found):
                deleted_at = last_deletion(newest) if deleted_at is None else deleted_at
                if number < deleted_at:
                    what = f"version {number} can't be read, since a source was deleted later"
                    yield Finding(f"{name}: {what}", wrong=False)
                    found = [one for one in found if not one.sentence.endswith(_MISSING)]
            yield from found


def _files_of(warehouse: Warehouse, name: str, number: int) -> Iterator[Finding]:
    try:
        delta = open_table(warehouse, name, number)
    except DeltaError as error:
        yield Finding(f"{name}: its version {number} can't be read: {first_line(error)}")
        return
    assert delta is not None
    actions = pa.table(delta.get_add_actions(flatten=True))
    stated = dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))
    for info in warehouse.arrow_filesystem(name).get_file_info(list(stated)):
        if not info.is_file:
            yield Finding(f"{name}: the file {info.path} of version {number}{_MISSING}")
        elif info.size != stated[info.path]:
            sizes = f"{info.size} bytes, not {stated[info.path]}"
            yield Finding(f"{name}: the file {info.path} of version {number} has {sizes}")


def _keys(con: duckdb.DuckDBPyConnection, name: str) -> Iterator[Finding]:
    key = ", ".join(TABLES[name].key)
    (doubled,) = con.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM {name} GROUP BY {key} HAVING count(*) > 1)"
    ).fetchall()[0]
    if doubled:
        yield Finding(f"{name}: {doubled} keys ({key}) name more than one row")


def _reference(
    con: duckdb.DuckDBPyConnection, table: str, column: str, target: str, key: str
) -> Iterator[Finding]:
    try:
        lost, example = con.execute(
            f"SELECT count(DISTINCT ref), min(ref) FROM (SELECT {column} AS ref FROM {table}) "
            f"ANTI JOIN {target} ON {target}.{key} = ref WHERE ref IS NOT NULL"
        ).fetchall()[0]
    except duckdb.Error as error:  # the target's key was read
        yield _unread(table, error)
        return
    if lost:
        yield Finding(f"{table}: {lost} rows' {key} is not in {target}, such as {example}")


def unfinished_commits(warehouse: Warehouse, broken: Collection[str] = ()) -> Iterator[Finding]:
    """Yield a remark for each table that holds rows of commits that never finished.

    Args:
        broken: tables that can't be read.
    """
    with duckdb.connect() as con:
        for parent, children in CHILDREN.items():
            if parent in broken:
                continue
            finished = _commits(con, warehouse, parent)
            for name in (child for child in children if child not in broken):
                if unfinished := _commits(con, warehouse, name) - finished - {None}:
                    what = f"{len(unfinished)} commits never finished; their rows are not shown"
                    yield Finding(f"{name}: {what}", wrong=False)


def _commits(
    con: duckdb.DuckDBPyConnection, warehouse: Warehouse, name: str
) -> frozenset[str | None]:
    """Return the commits of a table's rows, from the log where it says them."""
    delta = open_table(warehouse, name)
    return frozenset().union(*commits_of(con, warehouse, name, delta).values() if delta else ())


def _images(warehouse: Warehouse) -> Iterator[Finding]:
    expected = set(scan(warehouse, "images", ["image_id"])["image_id"].to_pylist())
    stored = {key.rsplit("/", 1)[-1] for key in warehouse.objects.keys("images")}

    def damaged(image_id: str) -> bool:
        data = warehouse.objects.get(image_key(image_id))
        return hashlib.sha256(data).hexdigest() != image_id

    for image_id in sorted(expected - stored):
        yield Finding(f"images: the bytes of image {image_id} are missing")
    ids = sorted(stored)
    with ThreadPoolExecutor(WRITERS) as pool:
        for image_id, bad in zip(ids, pool.map(damaged, ids), strict=True):
            if bad:
                yield Finding(f"images: the bytes of image {image_id} are damaged")
    if orphans := stored - expected:
        yield Finding(f"images: {len(orphans)} stored images are in no row", wrong=False)


def _bundles(warehouse: Warehouse) -> Iterator[Finding]:
    published = list_versions(warehouse)
    for version in published:
        yield from _bundle(warehouse, version)
    recorded = scan(warehouse, "dataset_versions", ["name", "version", "content_hash"])
    cards = {(v.name, v.number): v.content_hash for v in published}
    for row in recorded.sort_by([("name", "ascending"), ("version", "ascending")]).to_pylist():
        ref = f"{row['name']}@v{row['version']}"
        if (row["name"], row["version"]) not in cards:
            deleted = f"datasets/{row['name']}/v{row['version']}/deleted"
            if not warehouse.objects.exists(deleted):
                yield Finding(f"dataset {ref}: it is in dataset_versions, but its files are gone")
        elif cards[row["name"], row["version"]] != row["content_hash"]:
            yield Finding(f"dataset {ref}: its card and dataset_versions state different hashes")


def _bundle(warehouse: Warehouse, version: Version) -> Iterator[Finding]:
    try:
        with open_version(warehouse, version) as folder:
            if hash_rows(folder / "rows.parquet") != version.content_hash:
                yield Finding(f"dataset {version.ref}: its rows are not those its card states")
            with pq.ParquetFile(folder / "images.parquet") as parquet:
                for batch in parquet.iter_batches(64, columns=["image_id", "bytes"]):
                    for row in batch.to_pylist():
                        if hashlib.sha256(row["bytes"]).hexdigest() != row["image_id"]:
                            yield Finding(
                                f"dataset {version.ref}: its image {row['image_id']} is damaged"
                            )
    except (OSError, KeyError, pa.ArrowException, WarehouseError) as error:
        yield Finding(f"dataset {version.ref}: it can't be read: {first_line(error)}")
