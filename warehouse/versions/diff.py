"""What differs between two dataset versions, row by row, and why.

    told = diff(warehouse, resolve(warehouse, "sat2-sft@v1"), resolve(warehouse, "sat2-sft@v2"))
    print(told.sentence())    # sat2-sft@v1 (1040 rows) -> sat2-sft@v2 (980 rows): 60 removed, …
    told.differences[0]       # trace_id, removed | added | changed, reason, what, detail

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
from deltalake.exceptions import DeltaError

from curation.filters.config import describe_change
from warehouse.query.catalog import connect
from warehouse.query.sql_guard import QueryError
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.schema import Row
from warehouse.versions.selection import choose
from warehouse.versions.versions import Version, open_version, read_tables

REASONS = {
    "revoked": "revoked",
    "deleted": "deleted from the tables",
    "question": "its question is new",
    "tree": "its search is new",
    "curated": "its tree was curated since",
    "linearizer": "cut anew by another linearizer",
    "filter": "a filter decides otherwise",
    "unjudged": "no filter had judged it",
    "row": "what is told of it has changed",
    "statement": "the statement differs",
    "response style": "it can't be written so, or repeats another",
    "others": "other traces came or went",
    "code": "the views' code has changed",
}
"""What each reason means, in words for a table."""

_Why = tuple[str, str, str]
# Tables that every command writes into, whatever it is about.
_BOOKKEEPING = {"runs", "dataset_versions"}

_FACTS = """
SELECT d.trace_id, t.trace_id IS NOT NULL AS there, l.trace_id IS NOT NULL AS latest,
       t.linearizer, n.newest, n.cuts, r.run_id AS tree_run, t.run_id AS trace_run,
       q.question_id IS NOT NULL AS question, r.tree_id IS NOT NULL AS tree,
       {'split': q.split, 'family': q.family, 'source': q.source, 'licence': q.licence,
        'kind': t.kind, 'reward': t.reward, 'task': t.task, 'origin': t.origin} AS told
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


@dataclass(frozen=True, slots=True)
class Fact:
    """What one state of the tables said of one trace."""

    row: Row
    verdicts: dict[str, Row] = field(default_factory=dict)
    """Each filter's latest word, by the filter's name: version, keep, reason."""
    revoked: tuple[Row, ...] = ()
    """The revocations that reach it: subject, value, reason."""

    @property
    def there(self) -> bool:
        """Whether the trace is in the tables."""
        return bool(self.row["there"])


class State:
    """One version's tables, open for as long as they are needed."""

    def __init__(self, warehouse: Warehouse, version: Version, differing: pa.Table) -> None:
        self.version = version
        try:
            self.con = connect(warehouse, read_tables(version))
        except (DeltaError, duckdb.Error, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise WarehouseError(
                f"the tables {version.ref} was cut from can't be read as they were then: {first}"
            ) from None
        self.con.register("_differing", differing)
        self.chosen_by = cache(self._chosen_by)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.con.close()

    def fact(self, trace_id: str) -> Fact:
        """What the tables said of one of the differing traces."""
        return self._facts[trace_id]

    def _chosen_by(self, sql: str) -> frozenset[str] | None:
        """Those of the differing traces that `sql` chooses; None if it can't be asked here."""
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
    def _facts(self) -> dict[str, Fact]:
        verdicts: dict[str, dict[str, Row]] = defaultdict(dict)
        for row in self._rows(
            "SELECT trace_id, filter, version, keep, reason, method FROM latest_verdicts "
            "SEMI JOIN _differing USING (trace_id) ORDER BY filter"
        ):
            verdicts[row["trace_id"]][row["filter"]] = row
        revoked: dict[str, list[Row]] = defaultdict(list)
        for row in self._rows(
            "SELECT trace_id, subject, value, reason FROM revoked_traces "
            "SEMI JOIN _differing USING (trace_id) ORDER BY ALL"
        ):
            revoked[row["trace_id"]].append(row)
        return {
            (i := row["trace_id"]): Fact(row, verdicts.get(i, {}), tuple(revoked.get(i, ())))
            for row in self._rows(_FACTS)
        }

    def _rows(self, sql: str) -> list[Row]:
        try:
            return list(self.con.sql(sql).to_arrow_table().to_pylist())
        except duckdb.Error as error:
            first = str(error).strip().splitlines()[0]
            raise WarehouseError(
                f"the tables {self.version.ref} was cut from can't be read: {first}"
            ) from None


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions, with the tables it was cut from."""

    version: Version
    state: State

    @property
    def sql(self) -> str:
        return str(self.version.card["sql"])


def explain(trace_id: str, has: Side, lacks: Side) -> _Why:
    """The reason, what it is about, and the detail, why `lacks` has no row of the trace."""
    here, there = has.state.fact(trace_id), lacks.state.fact(trace_id)
    if there.revoked:
        first = there.revoked[0]
        return "revoked", f"{first['subject']} {first['value']}", first["reason"]
    if not there.there:
        return _absent(here, there, has, lacks)
    style = lacks.version.response_style
    others = lacks.state.chosen_by(lacks.sql)
    if style and others and trace_id in others:
        why = f"{lacks.version.ref} has the response style {style}: this trace can't be written so"
        return "response style", str(style), f"{why}, or repeats another"
    own, others = has.state.chosen_by(has.sql), lacks.state.chosen_by(lacks.sql)
    if own is None or others is None or trace_id not in own or trace_id in others:
        # Asked again, a statement does not give what it gave: the views it reads are today's.
        was, now = has.version.card["revision"], lacks.version.card["revision"]
        return "code", f"{was[:12]} and {now[:12]}", "a view it is chosen by means something else"
    crossed = lacks.state.chosen_by(has.sql)
    if crossed is not None and trace_id in crossed:
        return "statement", *_statement(there, lacks)
    told = _tables(here, there, has, lacks)
    other_way = has.state.chosen_by(lacks.sql)
    if other_way is not None and trace_id not in other_way:
        # Either alone would lose it. What the tables say is the nearer cause.
        return (*told[:2], f"{told[2]}; nor does {lacks.version.ref}'s statement choose it")
    return told


def _absent(here: Fact, there: Fact, has: Side, lacks: Side) -> _Why:
    """The lacking side's tables do not hold the trace."""
    if _traces(has) <= _traces(lacks):  # the side without it came later, and lost it
        return "deleted", "", "the trace is no longer in the tables"
    run = here.row["tree_run"] or here.row["trace_run"]
    if not there.row["question"]:
        return "question", "", f"its question was not imported for {lacks.version.ref} yet"
    if not there.row["tree"]:
        return "tree", str(run or ""), f"its tree was not searched for {lacks.version.ref} yet"
    if there.row["cuts"]:
        what = f"{_named(there.row['newest'])} -> {_named(here.row['linearizer'])}"
        return "linearizer", what, "its tree was there, cut otherwise"
    return "curated", str(here.row["trace_run"] or ""), "its tree was there, not curated yet"


def _traces(side: Side) -> int:
    """The version of the table of traces that a side read."""
    return int(side.version.card["table_versions"].get("traces", -1))


def _statement(there: Fact, lacks: Side) -> tuple[str, str]:
    """What the statement that does not choose it may have gone by."""
    drops = [row for row in there.verdicts.values() if not row["keep"]]
    if drops:
        what = ", ".join(row["filter"] for row in drops)
        reasons = "; ".join(f"{row['filter']}: {row['reason']}" for row in drops)
        return what, f"{lacks.version.ref}'s does not choose it; filters drop it ({reasons})"
    kept = "every filter keeps it" if there.verdicts else "no filter judged it"
    return "", f"{lacks.version.ref}'s does not choose it; {kept}"


def _tables(here: Fact, there: Fact, has: Side, lacks: Side) -> _Why:
    """What the two states of the tables say unlike of a trace both hold."""
    drops = {
        name: row
        for name, row in there.verdicts.items()
        if not row["keep"] and here.verdicts.get(name, {"keep": True})["keep"]
    }
    if drops:
        told = "; ".join(_turned(here.verdicts.get(f), row, has, lacks) for f, row in drops.items())
        names = [_with_values(f, here.verdicts.get(f), row) for f, row in drops.items()]
        return "filter", ", ".join(names), told
    if here.verdicts and not there.verdicts:
        return "unjudged", "", f"{lacks.version.ref} was published before it was judged"
    if here.row["latest"] and not there.row["latest"]:
        what = f"{_named(here.row['linearizer'])} -> {_named(there.row['newest'])}"
        return "linearizer", what, "its tree has been cut anew, and the newest cut counts"
    unlike = {
        column: f"{column}: {here.row['told'][column]} in {has.version.ref}, {value}"
        for column, value in there.row["told"].items()
        if here.row["told"][column] != value
    }
    if unlike:
        told = "; ".join(unlike.values())
        return "row", ", ".join(unlike), f"{told} in {lacks.version.ref}"
    mine, theirs = has.version.card["table_versions"], lacks.version.card["table_versions"]
    moved = sorted(n for n in {*mine, *theirs} - _BOOKKEEPING if mine.get(n) != theirs.get(n))
    return (
        "others",
        ", ".join(moved),
        "nothing told of it differs: the statement weighs traces against each other, or against "
        "other tables, and these have changed",
    )


def _named(linearizer: str | None) -> str:
    return linearizer or "unnamed"


def _with_values(name: str, before: Row | None, row: Row) -> str:
    """The filter's name, and which of its values changed from the older state to the newer."""
    if before is None:
        return name
    older, newer = sorted((before, row), key=lambda verdict: int(verdict["version"]))
    change = describe_change(name, older["method"], newer["method"])
    return f"{name} ({change})" if change else name


def _turned(before: Row | None, row: Row, has: Side, lacks: Side) -> str:
    """One filter's two words on a trace, told from the side that has the row."""
    name, reason = row["filter"], row["reason"] or "without a reason"
    by = f"version {row['version']} of the filters"
    dropped = f"dropped by {by}, in {lacks.version.ref} ({reason})"
    if before is None:
        return f"{name}: {dropped}, not asked in {has.version.ref}"
    return f"{name}: {dropped}, kept by version {before['version']}, in {has.version.ref}"
