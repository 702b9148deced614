"""Revocations: traces left out of new versions, and rows reported in published ones.

    revoked = remove_revoked(con)                  # from the temp table `chosen`, for the card
    since = revoked_since(warehouse, folder)       # of a published version's files
    revocation = revoke(warehouse, "source", "web-scrape", "its licence was withdrawn")

A published version never changes, so a revocation cannot take rows out of it: its card reports it,
and the next version goes without. A revoked source, question, image or run takes every trace with
it that was made from it (the view `revoked_traces`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from mcts.data import content_id
from warehouse.query.run_query import connect_trusted
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.delta import insert_new, scan
from warehouse.tables.schema import Row

SUBJECTS = ("source", "question", "run", "image", "trace")
_SUMMED = (
    "SELECT subject, value, reason, count(*) AS rows FROM revoked_traces "
    "SEMI JOIN chosen USING (trace_id) GROUP BY ALL ORDER BY rows DESC, subject, value"
)
# The bundle's own columns count too: the tables may have lost the rows.
_BY_COLUMN = {"trace": "trace_id", "question": "question_id", "source": "source"}


@dataclass(frozen=True, slots=True)
class Revocation:
    """One thing marked as bad."""

    subject: str
    value: str
    reason: str
    """The first reason given; revoking the same thing again does not replace it."""
    new: bool
    """Whether it was not revoked before."""


def revoke(warehouse: Warehouse, subject: str, value: str, reason: str) -> Revocation:
    """Mark a source, question, run, image or trace as bad; doing it again changes nothing.

    Raises:
        WarehouseError: the subject is none of these, or no reason is given.
    """
    if subject not in SUBJECTS:
        raise WarehouseError(f"{subject!r} can't be revoked; what can: {', '.join(SUBJECTS)}")
    if not reason.strip():
        raise WarehouseError("a revocation needs a reason, for those who meet it later")
    revocation_id = content_id("revocation", subject, value)
    row = {"subject": subject, "value": value, "reason": reason.strip()}
    new = bool(insert_new(warehouse, "revocations", [{"revocation_id": revocation_id, **row}]))
    for known in revocations(warehouse):
        if (known["subject"], known["value"]) == (subject, value):
            row = known
    return Revocation(subject, value, row["reason"], new)


def revocations(warehouse: Warehouse) -> list[Row]:
    """All revocations: subject, value and reason."""
    return list(scan(warehouse, "revocations", ["subject", "value", "reason"]).to_pylist())


def remove_revoked(con: duckdb.DuckDBPyConnection) -> list[Row]:
    """Remove revoked traces from the temp table `chosen`; return how many each revocation removed.

    A trace that two revocations reach counts for both.

    Raises:
        WarehouseError: nothing is left.
    """
    rows: list[Row] = list(con.sql(_SUMMED).to_arrow_table().to_pylist())
    if rows:
        con.execute("DELETE FROM chosen WHERE trace_id IN (SELECT trace_id FROM revoked_traces)")
        if not con.execute("SELECT 1 FROM chosen LIMIT 1").fetchall():
            raise WarehouseError(
                "every trace the statement chose is revoked, so nothing was published: "
                + describe_revocation(rows[0])
            )
    return rows


def revoked_since(warehouse: Warehouse, folder: Path) -> list[Row]:
    """The revocations that reach a version's files: subject, value, reason and number of rows.

    Args:
        folder: the version's files. What was revoked before it was published is not in them.
    """
    if not revocations(warehouse):
        return []
    held = pq.read_table(
        folder / "rows.parquet", columns=["trace_id", "question_id", "source", "image_ids"]
    )
    with connect_trusted(warehouse, ["revoked_traces", "revocations"]) as con:
        con.register("_held", held)
        con.execute("CREATE TEMP TABLE reached AS SELECT * FROM revoked_traces")
        for subject, column in _BY_COLUMN.items():
            con.execute(
                "INSERT INTO reached SELECT h.trace_id, revocation_id, subject, value, reason "
                f"FROM _held h JOIN revocations ON subject = '{subject}' AND value = h.{column}"
            )
        con.execute(
            "INSERT INTO reached SELECT h.trace_id, revocation_id, subject, value, reason FROM "
            "(SELECT trace_id, unnest(image_ids) AS image_id FROM _held) h "
            "JOIN revocations ON subject = 'image' AND value = h.image_id"
        )
        found = con.sql(
            "SELECT subject, value, reason, count(DISTINCT trace_id) AS rows FROM reached "
            "SEMI JOIN _held USING (trace_id) GROUP BY ALL ORDER BY rows DESC, subject, value"
        )
        return list(found.to_arrow_table().to_pylist())


def describe_revocation(row: Row) -> str:
    """A revocation and the rows it reaches, in words."""
    rows = "1 row" if row["rows"] == 1 else f"{row['rows']} rows"
    return f"{row['subject']} {row['value']} ({row['reason']}), {rows}"
