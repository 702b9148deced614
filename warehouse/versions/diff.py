"""What differs between two dataset versions, row by row, and why.

    changes = diff(warehouse, resolve(warehouse, "sat2-sft@v1"), resolve(warehouse, "sat2-sft@v2"))
    print(changes.sentence())    # sat2-sft@v1 (1040 rows) -> sat2-sft@v2 (980 rows): 60 removed, …
    changes.differences[0]       # trace_id, removed | added | changed, reason, what, detail

A version stores its statement and the versions of all tables it read, so both states can still be
queried. A row that one version has and the other lacks is explained by running each statement on
each state: if the lacking side's tables are enough to lose it, what those tables say of the trace
is the reason (it is not there, revoked, dropped by a filter, cut anew, …); if not, the statement
is. A reason is only given when the facts show it. Only the differing traces are looked up, and
everything about all of them in a few queries.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Self

import duckdb
import pyarrow as pa

from curation.filters.config import describe_change
from warehouse.query.run_query import UNREADABLE, connect, latest_verdicts_of
from warehouse.query.sql_guard import QueryError
from warehouse.storage.home import Warehouse, WarehouseError, first_line
from warehouse.tables.schema import Row
from warehouse.versions.selection import choose, names_for
from warehouse.versions.versions import ROWS, Version, open_version, read_tables

REASONS = {
    "revoked": "revoked",
    "deleted": "deleted from the tables",
    "question": "its question is new",
    "tree": "its search is new",
    "curated": "its tree was curated since",
    "linearizer": "cut anew by another linearizer",
    "filter": "a filter decides otherwise",
    "unjudged": "no filter had seen it",
    "row": "its columns have changed",
    "statement": "the statement differs",
    "response style": "it can't be written so, or repeats another",
    "others": "other traces came or went",
    "code": "the views' code has changed",
}
"""What each reason means, for a table."""

_Why = tuple[str, str, str]
# Tables that every command writes into.
_BOOKKEEPING = {"runs", "dataset_versions"}

_FACTS = """
SELECT d.trace_id, t.trace_id IS NOT NULL AS present, l.trace_id IS NOT NULL AS latest,
       t.linearizer, n.newest, n.cuts, r.run_id AS tree_run, t.run_id AS trace_run,
       q.question_id IS NOT NULL AS question, r.tree_id IS NOT NULL AS tree,
       {'split': q.split, 'family': q.family, 'source': q.source, 'licence': q.licence,
        'kind': t.kind, 'reward': t.reward, 'task': t.task, 'origin': t.origin} AS columns
FROM _differing d
LEFT JOIN traces t USING (trace_id)
LEFT JOIN (SELECT trace_id FROM latest_traces) l USING (trace_id)
LEFT JOIN questions q ON q.question_id = d.question_id
LEFT JOIN trees r ON r.tree_id = d.tree_id
LEFT JOIN (
    SELECT tree_id, count(*) AS cuts,
           max_by(linearizer, try_cast(split_part(linearizer, '/', 2) AS INT)) AS newest
    FROM traces GROUP BY tree_id
) n ON n.tree_id = d.tree_id
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that two versions do not share as it is."""

    trace_id: str
    change: str
    """`removed`, `added` or `changed`."""
    reason: str
    """A key of `REASONS`, which says what it means."""
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
    with open_version(warehouse, a, ROWS) as old, open_version(warehouse, b, ROWS) as new:
        differing, changed = _compare(old / "rows.parquet", new / "rows.parquet")
    found: list[Difference] = []
    if differing.num_rows:
        names = names_for(str(a.card["sql"]), str(b.card["sql"]))
        with (
            Side(warehouse, a, differing, names) as old_side,
            Side(warehouse, b, differing, names) as new_side,
        ):
            for row in differing.to_pylist():
                has, lacks = (old_side, new_side)[:: 1 if row["in_a"] else -1]
                why = explain(row["trace_id"], has, lacks)
                change = "removed" if row["in_a"] else "added"
                found.append(Difference(row["trace_id"], change, *why))
    found.sort(key=lambda difference: difference.change != "removed")
    return Diff(a, b, (*found, *changed))


def _compare(old: Path, new: Path) -> tuple[pa.Table, list[Difference]]:
    """Rows that only one file has, with their question and tree, and rows whose columns differ."""
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
    """Rows of one trace whose columns differ: what is stored beside its text may change."""
    columns = {c[0] for c in con.execute("DESCRIBE a").fetchall()}
    columns &= {c[0] for c in con.execute("DESCRIBE b").fetchall()}
    shared = sorted(columns - {"trace_id"})
    differ = [f'a."{c}" IS DISTINCT FROM b."{c}"' for c in shared]
    old, new = ([f'{side}."{c}"::VARCHAR' for c in shared] for side in ("a", "b"))
    rows = con.sql(
        f"SELECT a.trace_id, [{', '.join(differ)}], [{', '.join(old)}], [{', '.join(new)}] "
        f"FROM a JOIN b USING (trace_id) WHERE {' OR '.join(differ)} ORDER BY a.trace_id"
    )
    for trace_id, *values in rows.fetchall():
        changes = {
            c: f"{c}: {_short(was)} -> {_short(now)}"
            for c, changed, was, now in zip(shared, *values, strict=True)
            if changed
        }
        what, detail = ", ".join(changes), "; ".join(changes.values())
        yield Difference(trace_id, "changed", "row", what, detail)


def _short(value: str | None, most: int = 80) -> str:
    text = "nothing" if value is None else value
    return text if len(text) <= most else f"{text[: most - 1]}…"


@dataclass(frozen=True, slots=True)
class Facts:
    """What one state of the tables holds about one trace."""

    row: Row
    verdicts: dict[str, Row] = field(default_factory=dict)
    """Each filter's latest verdict, by the filter's name: version, keep, reason, method."""
    revoked: tuple[Row, ...] = ()
    """The revocations that reach it: subject, value, reason."""


class Side:
    """One of the two versions with the tables it was cut from, open until it is closed."""

    def __init__(
        self, warehouse: Warehouse, version: Version, differing: pa.Table, names: set[str]
    ) -> None:
        self.version, self.ref = version, version.ref
        self.sql = str(version.card["sql"])
        self.tables: dict[str, int] = version.card["table_versions"]
        try:
            self.con = connect(warehouse, read_tables(version), names)
        except UNREADABLE as error:
            raise WarehouseError(
                f"the tables {self.ref} was cut from can't be read as they were then: "
                f"{first_line(error)}"
            ) from None
        self.con.register("_differing", differing)
        self.chosen_by = cache(self._chosen_by)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.con.close()

    def _chosen_by(self, sql: str) -> frozenset[str] | None:
        """The differing traces that `sql` chooses; None if it can't be run on this state."""
        try:
            choose(self.con, sql)
        except QueryError:
            return None
        except WarehouseError:  # it chose nothing
            self.con.execute("CREATE OR REPLACE TEMP TABLE chosen (trace_id VARCHAR)")
        sql = "SELECT trace_id FROM chosen SEMI JOIN _differing USING (trace_id)"
        chosen = frozenset(trace_id for (trace_id,) in self.con.execute(sql).fetchall())
        self.con.execute("DROP TABLE chosen")
        return chosen

    @cached_property
    def facts(self) -> dict[str, Facts]:
        """What these tables hold about each of the differing traces."""
        verdicts: dict[str, dict[str, Row]] = defaultdict(dict)
        for row in self._rows(
            "SELECT trace_id, filter, version, keep, reason, method "
            f"FROM ({latest_verdicts_of('_differing')}) ORDER BY filter"
        ):
            verdicts[row["trace_id"]][row["filter"]] = row
        revoked: dict[str, list[Row]] = defaultdict(list)
        for row in self._rows(
            "SELECT trace_id, subject, value, reason FROM revoked_traces "
            "SEMI JOIN _differing USING (trace_id) ORDER BY ALL"
        ):
            revoked[row["trace_id"]].append(row)
        return {
            (i := row["trace_id"]): Facts(row, verdicts.get(i, {}), tuple(revoked.get(i, ())))
            for row in self._rows(_FACTS)
        }

    def _rows(self, sql: str) -> list[Row]:
        try:
            return list(self.con.sql(sql).to_arrow_table().to_pylist())
        except duckdb.Error as error:
            raise WarehouseError(
                f"the tables {self.ref} was cut from can't be read: {first_line(error)}"
            ) from None


def explain(trace_id: str, has: Side, lacks: Side) -> _Why:
    """Explain why `lacks` has no row of the trace: reason, what it is about, detail.

    Which of the two versions came later does not matter: the same facts explain a row that was
    removed and one that was added.
    """
    facts = lacks.facts[trace_id]
    if facts.revoked:
        first = facts.revoked[0]
        return "revoked", f"{first['subject']} {first['value']}", first["reason"]
    if not facts.row["present"]:
        return _absent(trace_id, has, lacks)
    style = lacks.version.response_style
    own, others = has.chosen_by(has.sql), lacks.chosen_by(lacks.sql)
    if style and others and trace_id in others:
        why = f"{lacks.ref} has the response style {style}: this trace can't be written so"
        return "response style", str(style), f"{why}, or repeats another"
    if own is None or others is None or trace_id not in own or trace_id in others:
        # Run again, a statement does not give what it gave: the views it reads are today's.
        was, now = has.version.card["revision"], lacks.version.card["revision"]
        return "code", f"{was[:12]} and {now[:12]}", "a view it is chosen by means something else"
    crossed = lacks.chosen_by(has.sql)
    if crossed is not None and trace_id in crossed:
        return "statement", *_statement(facts, lacks)
    reason, what, detail = _tables(has.facts[trace_id], facts, has, lacks)
    other_way = has.chosen_by(lacks.sql)
    if other_way is not None and trace_id not in other_way:
        # Either alone would lose it. What the tables say is the nearer cause.
        detail = f"{detail}; nor does {lacks.ref}'s statement choose it"
    return reason, what, detail


def _absent(trace_id: str, has: Side, lacks: Side) -> _Why:
    """Why the lacking side's tables do not hold the trace."""
    if has.tables.get("traces", -1) <= lacks.tables.get("traces", -1):  # it came later, and lost it
        return "deleted", "", "the trace is no longer in the tables"
    here, there = has.facts[trace_id].row, lacks.facts[trace_id].row
    if not there["question"]:
        return "question", "", f"its question was not imported for {lacks.ref} yet"
    if not there["tree"]:
        run = here["tree_run"] or here["trace_run"] or ""
        return "tree", str(run), f"its tree was not searched for {lacks.ref} yet"
    if there["cuts"]:
        what = f"{there['newest'] or 'unnamed'} -> {here['linearizer'] or 'unnamed'}"
        return "linearizer", what, "its tree was there, cut otherwise"
    return "curated", str(here["trace_run"] or ""), "its tree was there, not curated yet"


def _statement(facts: Facts, lacks: Side) -> tuple[str, str]:
    """What the statement that does not choose the trace may have filtered by."""
    drops = [row for row in facts.verdicts.values() if not row["keep"]]
    if drops:
        what = ", ".join(row["filter"] for row in drops)
        reasons = "; ".join(f"{row['filter']}: {row['reason']}" for row in drops)
        return what, f"{lacks.ref}'s does not choose it; filters drop it ({reasons})"
    kept = "every filter keeps it" if facts.verdicts else "no filter judged it"
    return "", f"{lacks.ref}'s does not choose it; {kept}"


def _tables(here: Facts, there: Facts, has: Side, lacks: Side) -> _Why:
    """How the two states of the tables differ about a trace that both hold."""
    drops = {
        name: row
        for name, row in there.verdicts.items()
        if not row["keep"] and here.verdicts.get(name, {"keep": True})["keep"]
    }
    if drops:
        details = [_verdicts(here.verdicts.get(f), row, has, lacks) for f, row in drops.items()]
        names = [_with_values(f, here.verdicts.get(f), row) for f, row in drops.items()]
        return "filter", ", ".join(names), "; ".join(details)
    if here.verdicts and not there.verdicts:
        return "unjudged", "", f"{lacks.ref} was published before it was judged"
    if here.row["latest"] and not there.row["latest"]:
        what = f"{here.row['linearizer'] or 'unnamed'} -> {there.row['newest'] or 'unnamed'}"
        return "linearizer", what, "its tree has been cut anew, and the newest cut counts"
    changed = {
        column: f"{column}: {here.row['columns'][column]} in {has.ref}, {value}"
        for column, value in there.row["columns"].items()
        if here.row["columns"][column] != value
    }
    if changed:
        return "row", ", ".join(changed), f"{'; '.join(changed.values())} in {lacks.ref}"
    names = sorted({*has.tables, *lacks.tables} - _BOOKKEEPING)
    return (
        "others",
        ", ".join(name for name in names if has.tables.get(name) != lacks.tables.get(name)),
        "no column of it differs: the statement weighs traces against each other, or against other "
        "tables, and these have changed",
    )


def _with_values(name: str, before: Row | None, row: Row) -> str:
    """The filter's name, and which of its values changed from the older state to the newer."""
    if before is None:
        return name
    older, newer = sorted((before, row), key=lambda verdict: int(verdict["version"]))
    change = describe_change(name, older["method"], newer["method"])
    return f"{name} ({change})" if change else name


def _verdicts(before: Row | None, row: Row, has: Side, lacks: Side) -> str:
    """One filter's two verdicts on a trace."""
    name, reason = row["filter"], row["reason"] or "without a reason"
    by = f"version {row['version']} of the filters"
    dropped = f"dropped by {by}, in {lacks.ref} ({reason})"
    if before is None:
        return f"{name}: {dropped}, not applied in {has.ref}"
    return f"{name}: {dropped}, kept by version {before['version']}, in {has.ref}"
