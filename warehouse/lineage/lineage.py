"""Where a thing comes from, and what has come of it: from a model down to the pixels, and back.

    with Walker(warehouse) as walker:
        found = walker.lineage(walker.find("sat2-sft@v1")[0])
    found.up, found.down            # Things, nearest first; found.edges says what is made from what
    found.total("model")            # how many models it reaches, exactly

A `Thing` is one row of something, or a group of several that are not shown one by one: a data set
has thousands of traces. Groups are walked like single things, so that nothing is lost behind one:
whatever is reached at all is in some Thing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.lineage.relations import Relation, relations
from warehouse.query.catalog import connect
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.versions.versions import Version, list_versions, open_version

MOST = 6
"""Things of a kind shown one by one at each remove; the rest is one group."""

_WHERE_IDS_ARE = (
    ("trace", "SELECT trace_id AS id FROM traces"),
    ("tree", "SELECT tree_id AS id FROM trees"),
    ("question", "SELECT question_id AS id FROM questions"),
    ("image", "SELECT image_id AS id FROM images"),
    ("response", "SELECT response_id AS id FROM responses"),
    ("run", "SELECT run_id AS id FROM runs"),
    ("evaluation", "SELECT evaluation_id AS id FROM evaluations"),
    (
        "model",
        "SELECT model_id AS id FROM models UNION SELECT model FROM trees "
        "UNION SELECT model_id FROM evaluations",
    ),
    ("source", "SELECT source AS id FROM questions UNION SELECT source FROM images"),
)


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing, or a group of one kind."""

    kind: str
    ids: tuple[str, ...]

    @property
    def id(self) -> str:
        """Its id, or that of the first of a group."""
        return self.ids[0]

    @property
    def single(self) -> bool:
        return len(self.ids) == 1


@dataclass
class Lineage:
    """A thing with everything it was made from and everything made from it."""

    focus: Thing
    up: list[Thing] = field(default_factory=list)
    down: list[Thing] = field(default_factory=list)
    edges: list[tuple[Thing, Thing]] = field(default_factory=list)
    """(made from, made into); each once."""

    def total(self, kind: str, *, up: bool = False) -> int:
        """How many of a kind came of it, or went into it."""
        return sum(len(t.ids) for t in (self.up if up else self.down) if t.kind == kind)


class Walker:
    """The tables, opened once for any number of look-ups."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.versions = {version.ref: version for version in list_versions(warehouse)}
        self.con: duckdb.DuckDBPyConnection = connect(warehouse)
        self.con.register("_held", _held(warehouse, list(self.versions.values())))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.con.close()

    def rows(self, sql: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of a statement that asks the table `_ids(id)`."""
        self.con.register("_ids", pa.table({"id": pa.array(ids, pa.string())}))
        return list(self.con.sql(sql).to_arrow_table().to_pylist())

    def lineage(self, focus: Thing, most: int = MOST, within: str | None = None) -> Lineage:
        """Walk both ways from a thing.

        Args:
            most: how many things of a kind are shown one by one at each remove.
            within: only this data set version, of those a trace is in.
        """
        found = Lineage(focus)
        self._walk(found, found.up, most, within, upward=True)
        self._walk(found, found.down, most, within, upward=False)
        found.edges = list(dict.fromkeys(found.edges))
        return found

    def _walk(
        self, found: Lineage, out: list[Thing], most: int, within: str | None, *, upward: bool
    ) -> None:
        ways = relations(found.focus.kind)
        if upward:  # what a run wrote is below it; nothing is above
            ways = [way for way in ways if way.parent != "run"]
        place = {(found.focus.kind, i): found.focus for i in found.focus.ids}
        frontier = [found.focus]
        while frontier:
            fresh: dict[str, dict[str, None]] = {}
            links: list[tuple[Thing, str, str]] = []
            for way in ways:
                near, far = (way.child, way.parent) if upward else (way.parent, way.child)
                things = [thing for thing in frontier if thing.kind == near]
                for here, there in self._pairs(way, things, upward):
                    if within and far == "dataset" and there != within:
                        continue
                    links.append((place[near, here], far, there))
                    if (far, there) not in place:
                        fresh.setdefault(far, {})[there] = None
            frontier = []
            for kind, ids in fresh.items():
                for thing in _grouped(kind, list(ids), most):
                    place.update({(kind, i): thing for i in thing.ids})
                    frontier.append(thing)
            out += frontier
            for near_thing, kind, there in links:
                ends = (place[kind, there], near_thing)
                if ends[0] is not ends[1]:
                    found.edges.append(ends if upward else (ends[1], ends[0]))

    def _pairs(self, way: Relation, things: list[Thing], upward: bool) -> list[tuple[str, str]]:
        ids = [i for thing in things for i in thing.ids]
        if not ids:
            return []
        near, far = ("made_into", "made_from") if upward else ("made_from", "made_into")
        order = {i: n for n, i in enumerate(ids)}
        rows = self.rows(
            f"SELECT DISTINCT {near} AS here, {far} AS there FROM ({way.sql}) "
            f"SEMI JOIN _ids ON {near} = _ids.id WHERE {far} IS NOT NULL AND {far} <> ''",
            ids,
        )
        pairs = [(row["here"], row["there"]) for row in rows]
        return sorted(pairs, key=lambda pair: (order[pair[0]], pair[1]))

    def find(self, text: str, kinds: Sequence[str] = ()) -> tuple[Thing, str | None]:
        """What `text` names: an id, the beginning of one, a name, `kind:id`, or a row of a version.

        Returns the thing and, for a row (`name@vN/trace`), the version it is a row of.

        Raises:
            WarehouseError: it names nothing, or several things.
        """
        kind, _, rest = text.partition(":")
        if rest and kind in {name for name, _ in _WHERE_IDS_ARE} | {"node", "dataset"}:
            kinds, text = (kind,), rest
        if match := re.fullmatch(r"([^@/]+(?:@v\d+))/(\w+)", text):
            return self._row(*match.groups())
        if match := re.fullmatch(r"(\w+)/(\d+)", text):
            return self._node(*match.groups()), None
        matches = self._matching(text, kinds)
        exact = [thing for thing in matches if thing.id == text]
        matches = exact or matches
        if len(matches) == 1:
            return matches[0], None
        if not matches:
            among = f"no {' or '.join(kinds)}" if kinds else "nothing"
            raise WarehouseError(f"{among} in {self.warehouse.root} is called {text!r}")
        listed = ", ".join(f"{thing.kind}:{thing.id}" for thing in matches[:4])
        more = " and more" if len(matches) > 4 else ""
        raise WarehouseError(f"{text!r} could be {listed}{more}: write more of it")

    def _matching(self, text: str, kinds: Sequence[str]) -> list[Thing]:
        found = []
        for kind, sql in _WHERE_IDS_ARE:
            if kinds and kind not in kinds:
                continue
            rows = self.con.execute(
                f"SELECT DISTINCT id FROM ({sql}) WHERE starts_with(id, ?) AND id <> '' "
                "ORDER BY id <> ?, id LIMIT 5",
                [text, text],
            ).fetchall()
            found += [Thing(kind, (name,)) for (name,) in rows]
        if not kinds or "model" in kinds:
            named = self.con.execute("SELECT model_id FROM models WHERE name = ?", [text])
            found += [Thing("model", (name,)) for (name,) in named.fetchall()]
        if not kinds or "dataset" in kinds:
            ours = [v for v in self.versions.values() if text in (v.name, v.ref)]
            found += [Thing("dataset", (v.ref,)) for v in ours[-1:]]
        return list(dict.fromkeys(found))

    def _row(self, ref: str, trace: str) -> tuple[Thing, str]:
        if ref not in self.versions:
            listed = ", ".join(self.versions) or "nothing is published yet"
            raise WarehouseError(f"there is no data set {ref}; there are: {listed}")
        rows = self.con.execute(
            "SELECT trace_id FROM _held WHERE ref = ? AND starts_with(trace_id, ?) LIMIT 2",
            [ref, trace],
        ).fetchall()
        if len(rows) != 1:
            told = "no row" if not rows else "several rows"
            raise WarehouseError(f"{ref} has {told} whose trace_id begins with {trace!r}")
        return Thing("trace", (rows[0][0],)), ref

    def _node(self, tree: str, number: str) -> Thing:
        found = self.find(tree, ("tree",))[0]
        there = self.con.execute(
            "SELECT 1 FROM nodes WHERE tree_id = ? AND node_id = ?", [found.id, int(number)]
        ).fetchall()
        if not there:
            raise WarehouseError(f"tree {found.id} has no node {number}")
        return Thing("node", (f"{found.id}/{int(number)}",))


def _grouped(kind: str, ids: list[str], most: int) -> list[Thing]:
    """The first ids one by one, the rest together; a rest of one is no group."""
    singles = ids if len(ids) <= most + 1 else ids[:most]
    rest = tuple(ids[len(singles) :])
    return [*(Thing(kind, (i,)) for i in singles), *([Thing(kind, rest)] if rest else [])]


def _held(warehouse: Warehouse, versions: Sequence[Version]) -> pa.Table:
    """Which traces every version holds: its files say so, not the tables."""
    parts = []
    for version in versions:
        with open_version(warehouse, version) as folder:
            ids = pq.read_table(folder / "rows.parquet", columns=["trace_id"])
        ref = pa.array([version.ref]).dictionary_encode()
        parts.append(ids.append_column("ref", ref.take(pa.array([0] * ids.num_rows))))
    schema = pa.schema([("trace_id", pa.string()), ("ref", pa.string())])
    return pa.concat_tables([schema.empty_table(), *(part.cast(schema) for part in parts)])
