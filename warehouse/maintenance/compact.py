"""Merges the small files of many commits into larger ones, and removes files no longer needed.

    for table in compact(warehouse, keep_days=7): print(table.sentence())
    compact(warehouse, sort=True)       # rows of a tree, or a trace, side by side

Merging changes no row and fails no writer: appends go on beside it. A file is removed when it is in
no version of its table that

    - is the current one,
    - was recorded by a published dataset version, so that its statement can be run again, or
    - was current within the last `keep_days`, so that current readers can finish.

Builds that ran in parallel leave their rows mixed, and looking one trace up reads them all: sorted,
its rows lie together, and the file's statistics lead there. Sorting rewrites every file.

Bundles of published versions are objects, not files of tables; nothing here touches them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from warehouse.query.commit_visibility import note_commits
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.delta import WRITER, open_table
from warehouse.tables.schema import TABLES
from warehouse.versions.versions import list_versions

TARGET_BYTES = 512 * 2**20
"""Size of file that merging aims at."""

SORTED_BY = {
    **dict.fromkeys(("steps", "verdicts", "behaviors", "step_scores", "predictions"), "trace_id"),
    **dict.fromkeys(("traces", "nodes", "rollouts", "responses"), "tree_id"),
    "trees": "question_id",
    "image_hashes": "image_id",
}
"""The column that the rows of a table are looked up and joined by; other tables stay unsorted."""

_ATTEMPTS = 10
_SORT_BYTES = 2**30  # held in memory at once; the rest is spilled to disk


@dataclass(frozen=True, slots=True)
class Compacted:
    """What compaction did to one table."""

    table: str
    before: int
    """Files before."""
    after: int
    removed: int
    """Old files that were removed."""

    def sentence(self) -> str:
        """The counts in one sentence."""
        files = f"{self.before} files became {self.after}"
        return f"{self.table}: {files}, {self.removed} old ones removed"


def compact(warehouse: Warehouse, keep_days: float = 7.0, *, sort: bool = False) -> list[Compacted]:
    """Merge the small files of every table and remove old files by the rule above.

    Args:
        sort: also sort the tables of `SORTED_BY`.

    Raises:
        WarehouseError: other writers overtook every attempt.
    """
    needed = stated_versions(warehouse)
    compacted = []
    for name in TABLES:
        delta = open_table(warehouse, name)
        if delta is None:
            continue
        before = len(delta.file_uris())
        _merge(warehouse, name, SORTED_BY.get(name) if sort else None)
        note_commits(warehouse, name)
        removed = _remove(warehouse, name, needed.get(name, set()), keep_days)
        delta = _open(warehouse, name)
        delta.create_checkpoint()  # the log in one file: every query opens its tables sooner
        compacted.append(Compacted(name, before, len(delta.file_uris()), removed))
    return compacted


def stated_versions(warehouse: Warehouse) -> dict[str, set[int]]:
    """The versions of each table that published dataset versions were cut from."""
    stated: dict[str, set[int]] = {}
    for version in list_versions(warehouse):
        for table, number in version.card["table_versions"].items():
            stated.setdefault(table, set()).add(int(number))
    return stated


def _merge(warehouse: Warehouse, name: str, sorted_by: str | None) -> None:
    for attempt in range(_ATTEMPTS):
        delta = _open(warehouse, name)
        if len(delta.file_uris()) < (1 if sorted_by else 2):
            return
        try:
            if sorted_by:
                delta.optimize.z_order(
                    [sorted_by],  # of one column, a plain sort
                    target_size=TARGET_BYTES,
                    max_concurrent_tasks=1,
                    max_spill_size=_SORT_BYTES,
                    writer_properties=WRITER,
                )
                return
            delta.optimize.compact(
                target_size=TARGET_BYTES,
                max_concurrent_tasks=1,  # memory before speed: a task holds a whole file
                writer_properties=WRITER,
            )
            return
        except CommitFailedError:
            time.sleep(0.1 * 2**attempt)
    raise WarehouseError(
        f"table {name} is too busy: every attempt to merge its files was overtaken"
    )


def _remove(warehouse: Warehouse, name: str, needed: set[int], keep_days: float) -> int:
    options: dict[str, Any] = {
        "retention_hours": round(24 * keep_days),
        "enforce_retention_duration": False,  # our rule keeps more than Delta's would
        "dry_run": False,
        "keep_versions": sorted(needed) or None,
        # What a killed writer left is in no log. A day is more than any commit takes.
        "full": keep_days >= 1,
    }
    return len(_open(warehouse, name).vacuum(**options))


def _open(warehouse: Warehouse, name: str) -> DeltaTable:
    delta = open_table(warehouse, name)
    if delta is None:
        raise WarehouseError(f"table {name} is gone")
    return delta
