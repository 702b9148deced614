"""A copy of a warehouse in a folder, whole also while others write: `backup(warehouse, target)`.

    vigorl warehouse backup /mnt/copy            # again later: only what is new is copied
    VIGORL_HOME=/mnt/copy vigorl warehouse check    # a copy is a warehouse; to restore, use it

Files never change once written, so all that matters is the order. Of a table the log is copied
first, then the files it names: whoever copies the other way round may find a log that names files
he has not. Parents come before their children, tables before objects: what a row of the copy refers
to was there when the row was copied, so it is copied after it. Journals are copied too, up to where
they were; a line cut in half is what a killed build leaves, and a build knows how to go on.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from warehouse.catalog import ORDER
from warehouse.home import Warehouse, WarehouseError

_LEFT_OUT = {".partial", "tables", "prefect"}


def backup(warehouse: Warehouse, target: Path) -> int:
    """Copy what `target` does not have yet; how many files that were.

    Raises:
        WarehouseError: the warehouse is on S3, or the target lies inside it.
    """
    if warehouse.is_s3:
        raise WarehouseError("a warehouse on S3 is copied with the bucket's own means: versioning")
    source, target = Path(warehouse.root), target.absolute()
    if not source.is_dir():
        raise WarehouseError(f"there is no warehouse at {source}")
    if target.is_relative_to(source):
        raise WarehouseError(f"{target} lies inside the warehouse it would copy")
    copied = 0
    for name in ORDER:
        table = source / "tables" / name
        log = sorted((table / "_delta_log").glob("*"), key=_in_log)
        copied += sum(_copy(file, source, target) for file in log if not file.name.startswith("."))
        copied += sum(_copy(file, source, target) for file in sorted(table.glob("*.parquet")))
    for folder in sorted(source.iterdir()):
        if folder.is_dir() and folder.name not in _LEFT_OUT:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            # A version's card last: it is the proof that the rest is there.
            files.sort(key=lambda path: path.name == "card.json")
            copied += sum(_copy(file, source, target) for file in files)
    return copied


def _in_log(path: Path) -> tuple[bool, str]:
    """The pointer to the last checkpoint first: what it points to is copied after it."""
    return path.name != "_last_checkpoint", path.name


def _copy(file: Path, source: Path, target: Path) -> bool:
    """Copy one file, whole or not at all, unless the copy has it in this size."""
    goal = target / file.relative_to(source)
    pointer = file.name == "_last_checkpoint"
    if goal.exists() and goal.stat().st_size == file.stat().st_size and not pointer:
        return False
    goal.parent.mkdir(parents=True, exist_ok=True)
    partial = goal.with_name(f".{uuid.uuid4().hex}")
    try:
        shutil.copy2(file, partial)
        os.replace(partial, goal)
    finally:
        partial.unlink(missing_ok=True)
    return True
