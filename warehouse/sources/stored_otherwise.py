"""Questions that are imported again with other details than they are stored with.

    counts = stored_otherwise(warehouse, rows)         # Counter({"licence": 3}), nothing is changed
    remarks(counts)                                    # a sentence each

A question's id is of what is asked and what is right. Of the rest the first import's stays, as all
that was made from it refers to it; an import says so, or a correction would seem to be stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from warehouse.storage.home import Warehouse
from warehouse.tables.delta import among, scan

_DETAILS = {"boxes": "target", "family": "family", "part_of": "part_of", "licence": "licence"}
"""Columns that are no part of an id, by the role that fills them; boxes of text answers alone."""


def stored_otherwise(warehouse: Warehouse, rows: Collection[Mapping[str, Any]]) -> Counter[str]:
    """Count the rows of `questions` that are stored already, by the detail in which they differ."""
    found: Counter[str] = Counter()
    new = {row["question_id"]: row for row in rows}
    if not new:
        return found
    columns = ["question_id", *_DETAILS]
    for stored in scan(warehouse, "questions", columns, among("question_id", new)).to_pylist():
        row = new[stored["question_id"]]
        for column, role in _DETAILS.items():
            found[role] += _plain(stored[column]) != _plain(row.get(column))
    return +found


def _plain(value: Any) -> Any:
    """Return a value as it is compared: nothing is empty, and a box is its corners."""
    if not value:
        return ""
    if isinstance(value, list | tuple):
        return [(box["x1"], box["y1"], box["x2"], box["y2"], box.get("image")) for box in value]
    return value


def remarks(counts: Mapping[str, int]) -> list[str]:
    """Say of which details others are stored."""
    return [
        f"{count} questions are stored with another {role} and keep it; delete their source, or "
        "import into a warehouse of its own (--home), to store this one"
        for role, count in sorted(counts.items())
    ]
