"""Copies a warehouse consistently, also while others write: `backup(warehouse, "/mnt/copy")`.

    vigorl warehouse backup /mnt/copy            # again later: only what is new is copied
    vigorl warehouse backup s3://bucket/copy     # from a folder or from S3, to either
    VIGORL_HOME=/mnt/copy vigorl warehouse check    # a copy is a warehouse; to restore, use it

Hardly a file changes once written, so only the order matters. Each table's log is listed once, and
the copy ends at its newest entry then: parents are listed before their children, all tables before
the objects, so that what a listed row refers to was there. Then files are copied, and at the end
logs, an entry at a time, children before parents: a copy that breaks off shows of each table what
it showed before, or more, and a repeated one goes on. A copy that was written to itself is refused,
since its log and the warehouse's would both have an entry of the next number.

Journals are copied from the local disk, where what other machines put on S3 is fetched first, to
where the copy would look for them, up to their length then; half a line is what a killed build
leaves, and builds recover from it. Where the copy is on S3, those of builds are put there too:
other machines look for them there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mcts.journal.segments import SHARED, fetch
from warehouse.query.run_query import ORDER
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.objects import LocalObjects, Objects
from warehouse.tables.delta import open_table

_POINTER = "_last_checkpoint"  # the one file of a table that is written again
_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*parquet")
_REPLACED = ("inbox/", "retrain/", "models/", "training/")
"""Below these, files may be written again in the same size."""
_SKIPPED = {".partial", "tables", "prefect", "journal", "shards", "serving"}


def backup(warehouse: Warehouse, target: str | Path) -> int:
    """Copy what the folder or `s3://` prefix `target` does not have yet; return how many files.

    Raises:
        WarehouseError: there is no warehouse, or the target is inside it, or is no earlier copy of
            it; or a table's files were removed while they were copied.
    """
    copy = Warehouse(str(target))
    source, destination = _path(warehouse), _path(copy)
    if not warehouse.is_s3 and not Path(warehouse.root).is_dir():
        raise WarehouseError(f"there is no warehouse at {warehouse.root}")
    if PurePosixPath(destination).is_relative_to(source):
        raise WarehouseError(f"{copy.root} is inside the warehouse it would copy")
    logs = {name: _list_log(warehouse, name) for name in ORDER}
    for log in logs.values():
        _ensure_earlier(copy, warehouse, log)
    _ensure_same_versions(copy, warehouse)
    copied = sum(_copy_files(warehouse, copy, log) for log in logs.values())
    for top in _folders(warehouse):
        copied += _copy_all(warehouse.objects, copy.objects, top)
    _drop_deleted_versions(warehouse.objects, copy.objects)
    for name in reversed(ORDER):
        copied += _copy_log(warehouse, copy, logs[name])
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


@dataclass(frozen=True, slots=True)
class _Log:
    """A table's log as it was listed once."""

    name: str
    entries: Mapping[int, str]
    """Keys of the entries by their version, ascending."""
    checkpoints: Mapping[str, int]
    """Versions of the checkpoints by their keys."""

    @property
    def newest(self) -> int:
        """The newest version; -1 before the first."""
        return max(self.entries, default=-1)

    @property
    def folder(self) -> str:
        return f"tables/{self.name}/_delta_log"


def _list_log(warehouse: Warehouse, name: str) -> _Log:
    keys = warehouse.objects.keys(f"tables/{name}/_delta_log")
    files = {key: key.rpartition("/")[2] for key in keys}
    entries = {int(m[1]): key for key, file in files.items() if (m := _ENTRY.fullmatch(file))}
    found = {key: int(m[1]) for key, file in files.items() if (m := _CHECKPOINT.fullmatch(file))}
    newest = max(entries, default=-1)
    return _Log(name, entries, {key: n for key, n in found.items() if n <= newest})


def _ensure_earlier(copy: Warehouse, warehouse: Warehouse, log: _Log) -> None:
    """Check that the copy's log of a table is the beginning of the listed one.

    An entry names files that no other writer has, so that two logs with one entry in common have
    all those before it in common, too.
    """
    there = _list_log(copy, log.name)
    newest = there.newest
    if newest > log.newest or (
        newest in log.entries
        and copy.objects.get(there.entries[newest]) != warehouse.objects.get(log.entries[newest])
    ):
        raise _not_a_copy(copy, warehouse, f"the table {log.name}")


def _ensure_same_versions(copy: Warehouse, warehouse: Warehouse) -> None:
    cards = {key for key in copy.objects.keys("datasets") if key.endswith("/card.json")}
    for key in sorted(cards & set(warehouse.objects.keys("datasets"))):
        if copy.objects.get(key) != warehouse.objects.get(key):
            name, number = key.split("/")[1:3]
            raise _not_a_copy(copy, warehouse, f"the dataset version {name}@{number}")


def _not_a_copy(copy: Warehouse, warehouse: Warehouse, what: str) -> WarehouseError:
    return WarehouseError(
        f"{copy.root} is no earlier copy of {warehouse.root}: it has {what} otherwise, since it "
        "was written to or copied from elsewhere; name another place for the copy"
    )


def _copy_files(warehouse: Warehouse, copy: Warehouse, log: _Log) -> int:
    """Copy a table's files, which nothing reads before a log names them.

    Raises:
        WarehouseError: some that the listed log names were removed meanwhile.
    """
    folder = f"tables/{log.name}"
    copied = _copy_all(warehouse.objects, copy.objects, folder)
    newest = open_table(warehouse, log.name)
    if newest is not None and newest.version() > log.newest >= 0:
        delta = open_table(warehouse, log.name, log.newest)
        there = set(copy.objects.keys(folder))
        for uri in delta.file_uris() if delta else ():
            if f"{folder}/{uri.rpartition('/')[2]}" not in there:
                raise WarehouseError(
                    f"files of the table {log.name} were removed while they were copied; the copy "
                    "is as it was: repeat this when nothing is being compacted or deleted"
                )
    return copied


def _copy_log(warehouse: Warehouse, copy: Warehouse, log: _Log) -> int:
    """Copy the listed entries of a table's log in their order, whose files are there already.

    Raises:
        WarehouseError: the copy was written to meanwhile.
    """
    there = set(copy.objects.keys(log.folder))
    copied = 0
    for key in (*log.checkpoints, *log.entries.values()):
        if key in there:
            continue
        with warehouse.objects.local_path(key) as path:
            if copy.objects.put_file(key, path):
                copied += 1
            elif key not in log.checkpoints and copy.objects.get(key) != path.read_bytes():
                raise _not_a_copy(copy, warehouse, f"the table {log.name}")
    pointer = f"{log.folder}/{_POINTER}"
    if not log.checkpoints or not warehouse.objects.exists(pointer):
        return copied
    with warehouse.objects.local_path(pointer) as path:
        data = path.read_bytes()
        # One that was written since points to a checkpoint that was not listed.
        if json.loads(data)["version"] in log.checkpoints.values() and not (
            pointer in there and copy.objects.get(pointer) == data
        ):
            copied += copy.objects.put_file(pointer, path, replace=True)
    return copied


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
    """Copy what is new or longer below a folder, without the logs of tables."""
    stored = target.sizes(prefix)
    copied = 0
    for key, size in _in_order(source.sizes(prefix)):
        replaced = key.startswith(_REPLACED)
        try:
            if stored.get(key) == size and not (replaced and source.get(key) != target.get(key)):
                continue
            with source.local_path(key) as path:
                target.put_file(key, path, replace=True)
        except KeyError:  # removed since it was listed
            continue
        copied += 1
    return copied


def _drop_deleted_versions(source: Objects, target: Objects) -> None:
    """Delete from a copy the versions that `delete-source` deleted since, each card first."""
    for marker in source.keys("datasets"):
        folder, _, name = marker.rpartition("/")
        if name == "deleted":
            kept = set(source.keys(folder))
            gone = [key for key in target.keys(folder) if key not in kept]
            for key in sorted(gone, key=lambda key: not key.endswith("/card.json")):
                target.delete(key)


def _in_order(sizes: dict[str, int]) -> Iterator[tuple[str, int]]:
    """All but hidden files and the logs of tables; a version's card last, since it proves that the
    rest is there."""
    for key, size in sorted(sizes.items(), key=lambda i: (i[0].endswith("/card.json"), i)):
        path = PurePosixPath(key)
        if not path.name.startswith(".") and path.parent.name != "_delta_log":
            yield key, size
