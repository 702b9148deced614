"""Fewer, larger files: `compact` merges what small commits left, and removes what nobody needs.

    for done in compact(warehouse, keep_days=7): print(done.sentence())
    compact(warehouse, sort=True)       # rows of a tree, or a trace, side by side

Merging changes no row and fails no writer: appends go on beside it. A file it replaced stays until
nobody can need it any more. The rule: a file is removed when it is in no version of its table that

    - is the current one,
    - was stated by a published data set version, so that its statement can be run again, or
    - was current within the last `keep_days`, so that whoever reads now can finish.

Builds that ran side by side leave their rows mixed, and whoever looks one trace up reads them all:
sorted, its rows lie together, and the file's statistics lead there. Sorting writes every file anew.

Bundles of published versions are objects, not files of tables; nothing here comes near them.
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
"""What the rows of a table are looked up and joined by; other tables are small, or stay as they
are."""

_ATTEMPTS = 10
_SORT_BYTES = 2**30  # held in memory at once; the rest is spilled to disk


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done to one table."""

    table: str
    before: int
    """Files it was made of."""
    after: int
    removed: int
    """Files that nobody needs any more, and that are gone."""

    def sentence(self) -> str:
        """For a person."""
        told = f"{self.table}: {self.before} files became {self.after}"
        return f"{told}, {self.removed} old ones removed"


def compact(warehouse: Warehouse, keep_days: float = 7.0, *, sort: bool = False) -> list[Compacted]:
    """Merge the small files of every table and remove what the rule above lets go.

    Args:
        sort: also sort the tables of `SORTED_BY`.

    Raises:
        WarehouseError: other writers overtook every attempt.
    """
    needed = stated_versions(warehouse)
    done = []
    for name in TABLES:
        delta = open_table(warehouse, name)
        if delta is None:
            continue
        before = len(delta.file_uris())
        _merge(warehouse, name, SORTED_BY.get(name) if sort else None)
        note_commits(warehouse, name)
        removed = _remove(warehouse, name, needed.get(name, set()), keep_days)
        delta = _opened(warehouse, name)
        delta.create_checkpoint()  # the log in one file: every question opens its tables sooner
        done.append(Compacted(name, before, len(delta.file_uris()), removed))
    return done


def stated_versions(warehouse: Warehouse) -> dict[str, set[int]]:
    """By table, the versions that published data set versions were cut from."""
    stated: dict[str, set[int]] = {}
    for version in list_versions(warehouse):
        for table, number in version.card["table_versions"].items():
            stated.setdefault(table, set()).add(int(number))
    return stated


def _merge(warehouse: Warehouse, name: str, sorted_by: str | None) -> None:
    for attempt in range(_ATTEMPTS):
        delta = _opened(warehouse, name)
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
        "enforce_retention_duration": False,  # the rule is ours, and keeps more than Delta's would
        "dry_run": False,
        "keep_versions": sorted(needed) or None,
        # What a killed writer left is in no log. A day is more than any commit takes.
        "full": keep_days >= 1,
    }
    return len(_opened(warehouse, name).vacuum(**options))


def _opened(warehouse: Warehouse, name: str) -> DeltaTable:
    delta = open_table(warehouse, name)
    if delta is None:
        raise WarehouseError(f"table {name} is gone")
    return delta
