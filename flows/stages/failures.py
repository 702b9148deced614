"""Why requests and searches failed, grouped: a summary names the commonest reasons.

describe_failures(warehouse, tree_ids)     # "failures: 12 x HTTP 400: no such parameter; ..."
describe_reasons(["timeout: ...", ...])
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from mcts.teachers.shared_refusal import without_changing
from warehouse.query.read_back import rows_about
from warehouse.storage.home import Warehouse

SHOWN = 3
"""Reasons named in a sentence."""
SHOWN_CHARS = 200

_OUTSIDE = "point_outside_image"
_DISCARDED = """
    SELECT tree_id, string_agg(DISTINCT discarded, ', ' ORDER BY discarded) AS reasons
    FROM nodes WHERE discarded IS NOT NULL GROUP BY tree_id
"""
_PLACE = re.compile(r"^at (the root|[\d.]+): ")


def describe_failures(warehouse: Warehouse, tree_ids: Sequence[str]) -> str:
    """Describe why searches, or branches of them, failed; empty where none did."""
    rows = rows_about(warehouse, tree_ids, "SELECT tree_id, status, error, errors FROM trees")
    failed = [row for row in rows if row["status"] == "failed"]
    discarded = _discarded(warehouse, [row["tree_id"] for row in failed if not row["errors"]])
    of_trees = [discarded.get(row["tree_id"]) or row["error"] for row in failed]
    of_branches = [
        error for row in rows if row["status"] != "failed" for error in row["errors"] or ()
    ]
    parts = []
    if of_trees:
        parts.append(f"why questions failed: {describe_reasons(of_trees)}")
    if any(_OUTSIDE in reasons for reasons in discarded.values()):
        parts.append("points outside their images are most often another --space than the model's")
    if of_branches:
        parts.append(f"why branches ended: {describe_reasons(of_branches)}")
    return "; ".join(parts)


def _discarded(warehouse: Warehouse, tree_ids: Sequence[str]) -> dict[str, str]:
    """Say by tree why no step of it was followed, where that is why it failed."""
    if not tree_ids:
        return {}
    said = rows_about(warehouse, tree_ids, _DISCARDED)
    return {row["tree_id"]: f"nothing usable was said: {row['reasons']}" for row in said}


def describe_reasons(reasons: Iterable[str]) -> str:
    """List the commonest reasons with their counts."""
    counts = Counter(
        without_changing(_PLACE.sub("", reason or "no reason given")) for reason in reasons
    )
    listed = [f"{_first_words(reason)} ({count})" for reason, count in counts.most_common(SHOWN)]
    if len(counts) > SHOWN:
        left = sum(counts.values()) - sum(count for _, count in counts.most_common(SHOWN))
        listed.append(f"{len(counts) - SHOWN} other reasons ({left})")
    return ", ".join(listed)


def _first_words(reason: str) -> str:
    text = " ".join(reason.split())
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."
