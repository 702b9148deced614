"""A copy of a warehouse, whole also while others write: `backup(warehouse, "/mnt/copy")`.

    vigorl warehouse backup /mnt/copy            # again later: only what is new is copied
    vigorl warehouse backup s3://bucket/copy     # from a folder or from S3, to either
    VIGORL_HOME=/mnt/copy vigorl warehouse check    # a copy is a warehouse; to restore, use it

Files never change once written, so all that matters is the order. Of a table the log is copied
first, then the files it names: whoever copies the other way round may find a log that names files
he has not. Parents come before their children, tables before objects: what a row of the copy refers
to was there when the row was copied, so it is copied after it. Journals, which are always on a
local disk, are copied to where the copy would look for them, up to where they were; a line cut in
half is what a killed build leaves, and a build knows how to go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from warehouse.query.catalog import ORDER
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.objects import LocalObjects, Objects

_POINTER = "_last_checkpoint"  # the one file of a table that is written again
_LEFT_OUT = {".partial", "tables", "prefect", "journal"}


def backup(warehouse: Warehouse, target: str | Path) -> int:
    """Copy what the folder or `s3://` prefix `target` does not have yet; how many files that were.

    Raises:
        WarehouseError: there is no warehouse, or the target lies inside it.
    """
    copy = Warehouse(str(target))
    here, there = _place(warehouse), _place(copy)
    if not warehouse.is_s3 and not Path(warehouse.root).is_dir():
        raise WarehouseError(f"there is no warehouse at {warehouse.root}")
    if there == here or PurePosixPath(there).is_relative_to(here):
        raise WarehouseError(f"{copy.root} lies inside the warehouse it would copy")
    copied = 0
    for name in ORDER:
        for part in (f"tables/{name}/_delta_log", f"tables/{name}"):
            copied += _copy_all(warehouse.objects, copy.objects, part)
    for top in _folders(warehouse):
        copied += _copy_all(warehouse.objects, copy.objects, top)
    journals = LocalObjects(warehouse.journal_dir), LocalObjects(copy.journal_dir)
    return copied + (_copy_all(*journals, "") if warehouse.journal_dir.is_dir() else 0)


def _place(warehouse: Warehouse) -> str:
    return warehouse.root.removeprefix("s3://")


def _folders(warehouse: Warehouse) -> list[str]:
    """What lies at the top beside tables and journals: folders of objects."""
    if not warehouse.is_s3:
        found = {path.name for path in Path(warehouse.root).iterdir() if path.is_dir()}
    else:
        found = {key.split("/", 1)[0] for key in warehouse.objects.sizes() if "/" in key}
    return sorted(found - _LEFT_OUT)


def _copy_all(source: Objects, target: Objects, prefix: str) -> int:
    """Copy what is new or longer below a folder."""
    there = target.sizes(prefix)
    copied = 0
    for key, size in _in_order(source.sizes(prefix)):
        if there.get(key) == size and not key.endswith(_POINTER):
            continue
        try:
            with source.local_path(key) as path:
                target.put_file(key, path, replace=True)
        except KeyError:  # compaction took it away meanwhile: no log that was copied needs it
            continue
        copied += 1
    return copied


def _in_order(sizes: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Hidden files left out; the pointer to the last checkpoint first, since what it points to is
    copied after it; a version's card last, since it is the proof that the rest is there."""
    for key, size in sorted(
        sizes.items(), key=lambda item: (not item[0].endswith(_POINTER), _a_card(item[0]), item[0])
    ):
        if not PurePosixPath(key).name.startswith("."):
            yield key, size


def _a_card(key: str) -> bool:
    return key.endswith("/card.json")
