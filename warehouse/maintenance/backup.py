"""Copies a warehouse consistently, also while others write: `backup(warehouse, "/mnt/copy")`.

    vigorl warehouse backup /mnt/copy            # again later: only what is new is copied
    vigorl warehouse backup s3://bucket/copy     # from a folder or from S3, to either
    VIGORL_HOME=/mnt/copy vigorl warehouse check    # a copy is a warehouse; to restore, use it

Hardly a file changes once written, so only the order matters. Of a table the log is copied first,
then the files it names: in the other order a copied log could name files that are missing. Parents
come before their children, tables before objects: what a row refers to was there when the row was
copied, so it is copied after it. Journals are copied from the local disk, where what other machines
put on S3 is fetched first, to where the copy would look for them, up to their length then; half a
line is what a killed build leaves, and builds recover from it. Where the copy is on S3, those of
builds are put there too: other machines look for them there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mcts.journal.segments import SHARED, fetch
from warehouse.query.run_query import ORDER
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.objects import LocalObjects, Objects

_POINTER = "_last_checkpoint"  # the one file of a table that is written again
_REPLACED = ("inbox/", "retrain/")
"""Below these, files may be written again in the same size."""
_SKIPPED = {".partial", "tables", "prefect", "journal", "shards", "serving"}


def backup(warehouse: Warehouse, target: str | Path) -> int:
    """Copy what the folder or `s3://` prefix `target` does not have yet; return how many files.

    Raises:
        WarehouseError: there is no warehouse, or the target is inside it.
    """
    copy = Warehouse(str(target))
    source, destination = _path(warehouse), _path(copy)
    if not warehouse.is_s3 and not Path(warehouse.root).is_dir():
        raise WarehouseError(f"there is no warehouse at {warehouse.root}")
    if PurePosixPath(destination).is_relative_to(source):
        raise WarehouseError(f"{copy.root} is inside the warehouse it would copy")
    copied = 0
    for name in ORDER:
        for part in (f"tables/{name}/_delta_log", f"tables/{name}"):
            copied += _copy_all(warehouse.objects, copy.objects, part)
    for top in _folders(warehouse):
        copied += _copy_all(warehouse.objects, copy.objects, top)
    if warehouse.is_s3 and warehouse.objects.keys("journal"):
        warehouse.journal_dir.mkdir(parents=True, exist_ok=True)
        fetch(warehouse.journal_dir, warehouse.objects)
    if not warehouse.journal_dir.is_dir():
        return copied
    if copy.journal_store:
        copied += _share_journal(warehouse.journal_dir, copy.journal_store)
    return copied + _copy_all(
        LocalObjects(warehouse.journal_dir), LocalObjects(copy.journal_dir), ""
    )


def _share_journal(folder: Path, store: Objects) -> int:
    """Put the segments of builds that are new or longer where other machines look for them."""
    stored = store.sizes(SHARED)
    keys = {f"{SHARED}/{path.name}": path for path in sorted(folder.glob("*.jsonl"))}
    new = [key for key, path in keys.items() if stored.get(key) != path.stat().st_size]
    for key in new:
        store.put_file(key, keys[key], replace=True)
    return len(new)


def _path(warehouse: Warehouse) -> str:
    return warehouse.root.removeprefix("s3://")


def _folders(warehouse: Warehouse) -> list[str]:
    """The top-level folders of objects: all but tables and journals."""
    if not warehouse.is_s3:
        found = {path.name for path in Path(warehouse.root).iterdir() if path.is_dir()}
    else:
        found = {key.split("/", 1)[0] for key in warehouse.objects.sizes() if "/" in key}
    return sorted(found - _SKIPPED)


def _copy_all(source: Objects, target: Objects, prefix: str) -> int:
    """Copy what is new or longer below a folder."""
    stored = target.sizes(prefix)
    copied = 0
    for key, size in _in_order(source.sizes(prefix)):
        there = stored.get(key) == size and not key.endswith(_POINTER)
        if there and (not key.startswith(_REPLACED) or source.get(key) == target.get(key)):
            continue
        try:
            with source.local_path(key) as path:
                target.put_file(key, path, replace=True)
        except KeyError:  # compaction removed it meanwhile: no copied log needs it
            continue
        copied += 1
    return copied


def _in_order(sizes: dict[str, int]) -> Iterator[tuple[str, int]]:
    """All but hidden files; the pointer to the last checkpoint first, since what it points to is
    copied after it; a version's card last, since it proves that the rest is there."""
    for key, size in sorted(
        sizes.items(), key=lambda i: (not i[0].endswith(_POINTER), i[0].endswith("/card.json"), i)
    ):
        if not PurePosixPath(key).name.startswith("."):
            yield key, size
