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

from dataclasses import dataclass
from functools import partial
from typing import Any

from deltalake import DeltaTable

from warehouse.maintenance.delete import clear_partial
from warehouse.query.commit_visibility import note_commits
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import WRITER, open_table, rewrite
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
    clear_partial(warehouse, older_than_s=24 * 3600.0)
    needed = stated_versions(warehouse)
    compacted = []
    for name in TABLES:
        delta = open_table(warehouse, name)
        if delta is None:
            continue
        before = len(delta.file_uris())
        sorted_by = SORTED_BY.get(name) if sort else None
        rewrite(warehouse, name, partial(_merge, sorted_by=sorted_by))
        note_commits(warehouse, name)
        delta = open_table(warehouse, name) or delta
        removed = _remove(warehouse, delta, name, needed.get(name, set()), keep_days)
        delta = open_table(warehouse, name) or delta
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


def _merge(delta: DeltaTable, sorted_by: str | None) -> None:
    if len(delta.file_uris()) < (1 if sorted_by else 2):
        return
    options: dict[str, Any] = {
        "target_size": TARGET_BYTES,
        "max_concurrent_tasks": 1,  # memory before speed: a task holds a whole file
        "writer_properties": WRITER,
    }
    if sorted_by:  # a Z-order of one column is a plain sort
        delta.optimize.z_order([sorted_by], max_spill_size=_SORT_BYTES, **options)
    else:
        delta.optimize.compact(**options)


def _remove(
    warehouse: Warehouse, delta: DeltaTable, name: str, needed: set[int], keep_days: float
) -> int:
    """Remove a table's old files; return how many there were. Delta names those it removed
    earlier as well, for as long as its log does."""
    options: dict[str, Any] = {
        "retention_hours": round(24 * keep_days),
        "enforce_retention_duration": False,  # our rule keeps more than Delta's would
        "dry_run": False,
        "keep_versions": sorted(needed) or None,
        # What a killed writer left is in no log. A day is more than any commit takes.
        "full": keep_days >= 1,
    }
    before = set(warehouse.objects.keys(f"tables/{name}"))
    delta.vacuum(**options)
    gone = before.difference(warehouse.objects.keys(f"tables/{name}"))
    return sum(key.endswith(".parquet") for key in gone)
