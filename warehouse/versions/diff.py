"""What differs between two data set versions, row by row, and why.

    told = diff(warehouse, resolve(warehouse, "sat2-sft@v1"), resolve(warehouse, "sat2-sft@v2"))
    print(told.sentence())    # sat2-sft@v1 (1040 rows) -> sat2-sft@v2 (980 rows): 60 removed, …
    told.differences[0]       # trace_id, removed | added | changed, reason, what, detail

A version stores its statement and the versions of all tables it read, so both states can still be
asked. A row that one version has and the other lacks is explained by asking each statement of each
state: if the lacking side's tables are enough to lose it, what those tables say of the trace is the
reason (it is not there, revoked, dropped by a filter, cut anew, …); if not, the statement is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from warehouse.storage.home import Warehouse
from warehouse.versions.diff_reasons import REASONS, Side, explain
from warehouse.versions.diff_state import State
from warehouse.versions.versions import Version, open_version

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that two versions do not share as it is."""

    trace_id: str
    change: str
    """`removed`, `added` or `changed`."""
    reason: str
    """A key of `diff_reasons.REASONS`, which says what it means."""
    what: str
    """What the reason is about: filters, a revoked thing, columns, a version of the linearizer."""
    detail: str
    """The reason for this row, in words."""


@dataclass(frozen=True, slots=True)
class Diff:
    """Everything that differs between two versions."""

    a: Version
    b: Version
    differences: tuple[Difference, ...]
    """Removed, added, changed; each in order of trace_id."""

    def count(self, change: str) -> int:
        return sum(difference.change == change for difference in self.differences)

    def sentence(self) -> str:
        """How many rows were removed, added and changed."""
        a, b = self.a, self.b
        head = f"{a.ref} ({a.n_rows} rows) -> {b.ref} ({b.n_rows} rows)"
        if not self.differences:
            return f"{head}: the same rows"
        same = a.n_rows - self.count("removed") - self.count("changed")
        return (
            f"{head}: {self.count('removed')} removed, {self.count('added')} added, "
            f"{self.count('changed')} changed, {same} the same"
        )

    def summary(self) -> list[Row]:
        """The differences by change, reason and what it is about, each with an example."""
        key = [(d.change, d.reason, d.what) for d in self.differences]
        first = dict(zip(reversed(key), reversed(self.differences), strict=True))
        order = ("removed", "added", "changed")
        return [
            {
                "change": change,
                "reason": REASONS[reason],
                "what": what,
                "rows": n,
                "example": first[change, reason, what].trace_id,
                "of the example": first[change, reason, what].detail,
            }
            for (change, reason, what), n in sorted(
                Counter(key).items(), key=lambda item: (order.index(item[0][0]), -item[1], item[0])
            )
        ]


def diff(warehouse: Warehouse, a: Version, b: Version) -> Diff:
    """Compare two versions, of one name or of two.

    Raises:
        WarehouseError: the tables one of them was cut from can no longer be read as they were then.
    """
    with open_version(warehouse, a) as old, open_version(warehouse, b) as new:
        differing, changed = _compare(old / "rows.parquet", new / "rows.parquet")
    found: list[Difference] = []
    if differing.num_rows:
        then, now = Side(a, State(warehouse, a, differing)), Side(b, State(warehouse, b, differing))
        with then.state, now.state:
            for row in differing.to_pylist():
                has, lacks = (then, now) if row["in_a"] else (now, then)
                why = explain(row["trace_id"], has, lacks)
                change = "removed" if row["in_a"] else "added"
                found.append(Difference(row["trace_id"], change, *why))
    found.sort(key=lambda difference: difference.change != "removed")
    return Diff(a, b, (*found, *changed))


def _compare(old: Path, new: Path) -> tuple[pa.Table, list[Difference]]:
    """Rows that only one file has, with where they came from, and rows that both have unlike."""
    with duckdb.connect() as con:
        for name, path in (("a", old), ("b", new)):
            con.read_parquet(str(path)).create_view(name)
        only = (
            "SELECT trace_id, question_id, tree_id, {in_a} AS in_a FROM {x} "
            "ANTI JOIN {y} USING (trace_id)"
        )
        differing = con.sql(
            f"{only.format(in_a='true', x='a', y='b')} UNION ALL "
            f"{only.format(in_a='false', x='b', y='a')} ORDER BY trace_id"
        ).to_arrow_table()
        return differing, list(_changed(con))


def _changed(con: duckdb.DuckDBPyConnection) -> Iterator[Difference]:
    """Rows of one trace whose columns differ: what is told beside its text may change."""
    columns = {c[0] for c in con.execute("DESCRIBE a").fetchall()}
    columns &= {c[0] for c in con.execute("DESCRIBE b").fetchall()}
    shared = sorted(columns - {"trace_id"})
    unlike = [f'a."{c}" IS DISTINCT FROM b."{c}"' for c in shared]
    was, now = ([f'{side}."{c}"::VARCHAR' for c in shared] for side in ("a", "b"))
    rows = con.sql(
        f"SELECT a.trace_id, [{', '.join(unlike)}] AS unlike, [{', '.join(was)}] AS was, "
        f"[{', '.join(now)}] AS is_now "
        f"FROM a JOIN b USING (trace_id) WHERE {' OR '.join(unlike)} ORDER BY a.trace_id"
    )
    for row in rows.to_arrow_table().to_pylist():
        columns_of = zip(shared, row["unlike"], row["was"], row["is_now"], strict=True)
        told = {c: f"{c}: {_short(x)} -> {_short(y)}" for c, differs, x, y in columns_of if differs}
        what, detail = ", ".join(told), "; ".join(told.values())
        yield Difference(row["trace_id"], "changed", "row", what, detail)


def _short(value: str | None, most: int = 80) -> str:
    text = "nothing" if value is None else value
    return text if len(text) <= most else f"{text[: most - 1]}…"
