"""Lineage: what an entity was made from and what was made from it, from a model to the pixels.

    with Walker(warehouse) as walker:
        lineage = walker.lineage(walker.find("sat2-sft@v1")[0])
        walker.describe(lineage.descendants)      # {entity: "direct, 4 steps, right, kept"}
    lineage.ancestors, lineage.descendants        # nearest first; lineage.edges joins them
    lineage.total("model")                        # how many models it reaches, exactly

An `Entity` is one row of something, or a group of several that are not listed one by one: a dataset
has thousands of traces. Groups are walked like single entities, so that nothing is lost behind one:
whatever is reached at all is in some entity.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.lineage.relations import Relation, all_statements, relations
from warehouse.query.run_query import connect_trusted, named_in
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.schema import Row
from warehouse.versions.versions import ROWS, Version, list_versions, open_version

MOST = 6
"""Entities of a kind listed one by one at each distance; the rest is one group."""

_ID_QUERIES = (
    ("trace", "SELECT trace_id AS id FROM traces"),
    ("tree", "SELECT tree_id AS id FROM trees"),
    ("question", "SELECT question_id AS id FROM questions"),
    ("image", "SELECT image_id AS id FROM images"),
    ("response", "SELECT response_id AS id FROM responses"),
    ("crop", "SELECT crop_id AS id FROM nodes UNION SELECT crop_id FROM steps"),
    ("run", "SELECT run_id AS id FROM runs"),
    ("evaluation", "SELECT evaluation_id AS id FROM evaluations"),
    (
        "model",
        "SELECT model_id AS id FROM models UNION SELECT unnest(string_split(model, ' + ')) "
        "FROM trees UNION SELECT unnest(string_split(model_id, ' + ')) FROM evaluations",
    ),
    ("source", "SELECT source AS id FROM questions UNION SELECT source FROM images"),
)

_DESCRIPTIONS = {
    "image": """
        SELECT image_id AS id, concat_ws(', ', width || 'x' || height || ' ' || format,
        nullif(licence, '')) AS words FROM images""",
    "question": """
        SELECT question_id AS id, concat_ws(', ', '"' || text || '"', nullif(family, ''),
        'imported in ' || run_id) AS words FROM questions""",
    "tree": """
        SELECT tree_id AS id, concat_ws(', ', simulations || ' simulations',
        n_nodes || ' nodes', 'value ' || round(root_value, 2), 'searched in ' || run_id) AS words
        FROM trees""",
    "response": """
        SELECT response_id AS id, concat_ws(', ', purpose, tokens || ' tokens', model,
        '"' || text || '"') AS words FROM responses""",
    "crop": """
        SELECT crop_id AS id, '(' || round(look.x1)::INT || ', ' || round(look.y1)::INT ||
        ') to (' || round(look.x2)::INT || ', ' || round(look.y2)::INT || '), shown at ' ||
        look.width || 'x' || look.height AS words
        FROM (SELECT crop_id, any_value(observation) AS look FROM (
            SELECT crop_id, observation FROM nodes UNION ALL SELECT crop_id, observation FROM steps
        ) WHERE crop_id IS NOT NULL GROUP BY crop_id)""",
    "node": """
        SELECT tree_id || '/' || node_id AS id, concat_ws(', ', 'step ' || depth,
        '"' || coalesce(thought, answer) || '"', visits || ' visits',
        'value ' || round(value, 2)) AS words FROM nodes""",
    "trace": """
        SELECT trace_id AS id, concat_ws(', ', kind, n_steps || ' steps',
        CASE WHEN reward >= 1 THEN 'right' WHEN reward IS NULL THEN 'not graded' ELSE 'wrong' END,
        coalesce(judged, 'not judged')) AS words FROM traces LEFT JOIN (
            SELECT trace_id, CASE WHEN bool_and(keep) THEN 'kept by ' || count(*) || ' filters'
            ELSE 'dropped: ' || string_agg(nullif(reason, ''), '; ' ORDER BY filter)
            FILTER (NOT keep) END AS judged
            FROM latest_verdicts GROUP BY trace_id
        ) USING (trace_id)""",
    "dataset": """
        SELECT name || '@v' || version AS id, n_rows || ' rows, ' || n_images || ' images, content '
        || content_hash[:12] AS words FROM dataset_versions""",
    "model": """
        SELECT model_id AS id, concat_ws(', ', nullif(name, model_id), 'trained in ' || run_id)
        AS words FROM models""",
    "evaluation": """
        SELECT evaluation_id AS id, benchmark || ': '
        || coalesce(round(100 * accuracy, 1) || '% of ', 'none graded of ') || n_questions AS words
        FROM evaluations""",
    "run": """
        SELECT run_id AS id, concat_ws(', ', kind, task, host, created_at::DATE) AS words
        FROM runs""",
}


@dataclass(frozen=True, slots=True)
class Entity:
    """One row of something, or a group of one kind."""

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
    """An entity with everything it was made from and everything made from it."""

    focus: Entity
    ancestors: list[Entity] = field(default_factory=list)
    descendants: list[Entity] = field(default_factory=list)
    edges: list[tuple[Entity, Entity]] = field(default_factory=list)
    """(made from, made into); each once."""

    @property
    def entities(self) -> list[Entity]:
        """The focus, its ancestors and its descendants, each once."""
        return list(dict.fromkeys([self.focus, *self.ancestors, *self.descendants]))

    def total(self, kind: str, *, up: bool = False) -> int:
        """Count the descendants of a kind, or the ancestors (`up`)."""
        return sum(
            len(e.ids) for e in (self.ancestors if up else self.descendants) if e.kind == kind
        )


@cache
def _tables_read() -> frozenset[str]:
    """The tables and views of every statement here and in `relations.sql`."""
    statements = [sql for _, sql in _ID_QUERIES] + list(_DESCRIPTIONS.values())
    return frozenset(named_in(" ".join([*statements, *all_statements(), "revocations"])))


class Walker:
    """Follows relations through the tables, which it opens once for any number of look-ups."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.versions = {version.ref: version for version in list_versions(warehouse)}
        self.con: duckdb.DuckDBPyConnection = connect_trusted(warehouse, _tables_read())
        self.con.register("_held", _held(warehouse, list(self.versions.values())))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.con.close()

    def rows(self, sql: str, ids: Sequence[str]) -> list[Row]:
        """Run a statement that reads the given ids as the table `_ids(id)`."""
        self.con.register("_ids", pa.table({"id": pa.array(ids, pa.string())}))
        return list(self.con.sql(sql).to_arrow_table().to_pylist())

    def lineage(self, focus: Entity, most: int = MOST, within: str | None = None) -> Lineage:
        """Walk both ways from an entity.

        Args:
            most: how many entities of a kind are listed one by one at each distance.
            within: the only dataset version to follow, of those a trace is in.
        """
        lineage = Lineage(focus)
        self._walk(lineage, lineage.ancestors, most, within, upward=True)
        self._walk(lineage, lineage.descendants, most, within, upward=False)
        lineage.edges = list(dict.fromkeys(lineage.edges))
        return lineage

    def _walk(
        self, lineage: Lineage, out: list[Entity], most: int, within: str | None, *, upward: bool
    ) -> None:
        """Breadth first: one query per relation and distance, however many entities there are."""
        focus = lineage.focus
        followed = relations(focus.kind)
        if upward:  # runs are roots: what a run wrote descends from it
            followed = [relation for relation in followed if relation.parent != "run"]
        entity_of = {(focus.kind, i): focus for i in focus.ids}
        frontier = [focus]
        while frontier:
            new: dict[str, dict[str, None]] = {}
            links: list[tuple[Entity, str, str]] = []
            for relation in followed:
                near, far = (relation.child, relation.parent)[:: 1 if upward else -1]
                members = [entity for entity in frontier if entity.kind == near]
                for near_id, far_id in self._pairs(relation, members, upward):
                    if within and far == "dataset" and far_id != within:
                        continue
                    links.append((entity_of[near, near_id], far, far_id))
                    if (far, far_id) not in entity_of:
                        new.setdefault(far, {})[far_id] = None
            frontier = [e for kind, ids in new.items() for e in _grouped(kind, list(ids), most)]
            entity_of |= {(entity.kind, i): entity for entity in frontier for i in entity.ids}
            out += frontier
            for entity, kind, far_id in links:
                other = entity_of[kind, far_id]
                if other is not entity:
                    lineage.edges.append((other, entity) if upward else (entity, other))

    def _pairs(
        self, relation: Relation, entities: list[Entity], upward: bool
    ) -> list[tuple[str, str]]:
        """(near id, far id) of all entities, in their order."""
        ids = [i for entity in entities for i in entity.ids]
        if not ids:
            return []
        near, far = ("made_into", "made_from") if upward else ("made_from", "made_into")
        order = {i: n for n, i in enumerate(ids)}
        rows = self.rows(
            f"SELECT DISTINCT {near} AS near, {far} AS far FROM ({relation.sql}) "
            f"SEMI JOIN _ids ON {near} = _ids.id WHERE {far} IS NOT NULL AND {far} <> ''",
            ids,
        )
        pairs = [(row["near"], row["far"]) for row in rows]
        return sorted(pairs, key=lambda pair: (order[pair[0]], pair[1]))

    def find(self, text: str, kinds: Sequence[str] = ()) -> tuple[Entity, str | None]:
        """Find an entity by id, the beginning of one, name, `kind:id`, or as a row of a version.

        Returns the entity and, for a row (`name@vN/trace`), the version it is a row of.

        Raises:
            WarehouseError: it names nothing, or several entities.
        """
        matches = self._matching(text, kinds)
        exact = [entity for entity in matches if entity.id == text]
        if len(exact) == 1:
            return exact[0], None
        kind, _, rest = text.partition(":")
        known = {name for name, _ in _ID_QUERIES} | {"node", "dataset"}
        if rest and kind in (known.intersection(kinds) if kinds else known):
            return self.find(rest, (kind,))
        match = re.fullmatch(r"([^@/]+(?:@v\d+))/(\w+)", text)
        if match and (not kinds or "trace" in kinds):
            return self._row(*match.groups())
        match = re.fullmatch(r"(\w+)/(\d+)", text)
        if match and (not kinds or "node" in kinds):
            return self._node(*match.groups()), None
        matches = exact or matches
        if len(matches) == 1:
            return matches[0], None
        if not matches:
            among = f"no {' or '.join(kinds)}" if kinds else "nothing"
            raise WarehouseError(f"{among} in {self.warehouse.root} is called {text!r}")
        listed = ", ".join(f"{entity.kind}:{entity.id}" for entity in matches[:4])
        more = " and more" if len(matches) > 4 else ""
        raise WarehouseError(f"{text!r} could be {listed}{more}: write more of it")

    def _matching(self, text: str, kinds: Sequence[str]) -> list[Entity]:
        found = []
        for kind, sql in _ID_QUERIES:
            if kinds and kind not in kinds:
                continue
            rows = self.con.execute(
                f"SELECT DISTINCT id FROM ({sql}) WHERE starts_with(id, ?) AND id <> '' "
                "ORDER BY id <> ?, id LIMIT 5",
                [text, text],
            ).fetchall()
            found += [Entity(kind, (name,)) for (name,) in rows]
        if not kinds or "model" in kinds:
            named = self.con.execute("SELECT model_id FROM models WHERE name = ?", [text])
            found += [Entity("model", (name,)) for (name,) in named.fetchall()]
        if not kinds or "dataset" in kinds:
            ours = [v for v in self.versions.values() if text in (v.name, v.ref)]
            found += [Entity("dataset", (v.ref,)) for v in ours[-1:]]
        return list(dict.fromkeys(found))

    def _row(self, ref: str, trace: str) -> tuple[Entity, str]:
        if ref not in self.versions:
            listed = ", ".join(self.versions) or "nothing is published yet"
            raise WarehouseError(f"there is no dataset {ref}; there are: {listed}")
        rows = self.con.execute(
            "SELECT trace_id FROM _held WHERE ref = ? AND starts_with(trace_id, ?) LIMIT 2",
            [ref, trace],
        ).fetchall()
        if len(rows) != 1:
            count = "no row" if not rows else "several rows"
            raise WarehouseError(f"{ref} has {count} whose trace_id begins with {trace!r}")
        return Entity("trace", (rows[0][0],)), ref

    def _node(self, tree: str, number: str) -> Entity:
        tree_id = self.find(tree, ("tree",))[0].id
        rows = self.con.execute(
            "SELECT 1 FROM nodes WHERE tree_id = ? AND node_id = ?", [tree_id, int(number)]
        ).fetchall()
        if not rows:
            raise WarehouseError(f"tree {tree_id} has no node {number}")
        return Entity("node", (f"{tree_id}/{int(number)}",))

    def describe(self, entities: Iterable[Entity]) -> dict[Entity, str]:
        """Describe each in a few words; of a group its size; a revocation comes first."""
        entities = list(entities)
        revoked = {
            (row["subject"], row["value"]): row["reason"]
            for row in self.con.sql("FROM revocations").to_arrow_table().to_pylist()
        }
        words: dict[tuple[str, str], str] = {}
        for kind in {entity.kind for entity in entities} & set(_DESCRIPTIONS):
            ids = [entity.id for entity in entities if entity.kind == kind and entity.single]
            sql = f"SELECT id, words FROM ({_DESCRIPTIONS[kind]}) SEMI JOIN _ids USING (id)"
            words.update({(kind, row["id"]): row["words"] for row in self.rows(sql, ids)})
        described = {}
        for entity in entities:
            text = words.get((entity.kind, entity.id)) or ""
            if not entity.single:
                text = f"{len(entity.ids)} more"
            elif reason := revoked.get((entity.kind, entity.id)):
                text = f"REVOKED: {reason}{'; ' if text else ''}{text}"
            described[entity] = " ".join(text.split())
        return described

    def steps(self, trace_id: str) -> list[Row]:
        """A trace's steps, each with its point and crop in original pixels, node and response."""
        return self.rows(
            "SELECT step, thought, x, y, image, points, node_id, rollout_id, response_id, call, "
            "observation, crop_id FROM steps SEMI JOIN _ids ON trace_id = _ids.id ORDER BY step",
            [trace_id],
        )


def _grouped(kind: str, ids: list[str], most: int) -> list[Entity]:
    """The first ids as single entities, the rest as one group, unless that would be one id."""
    singles = ids if len(ids) <= most + 1 else ids[:most]
    rest = tuple(ids[len(singles) :])
    return [*(Entity(kind, (i,)) for i in singles), *([Entity(kind, rest)] if rest else [])]


def _held(warehouse: Warehouse, versions: Sequence[Version]) -> pa.Table:
    """The traces of every version, read from its files: the tables do not hold them."""
    parts = []
    for version in versions:
        with open_version(warehouse, version, ROWS) as folder:
            ids = pq.read_table(folder / "rows.parquet", columns=["trace_id"])
        ref = pa.array([version.ref]).dictionary_encode()
        parts.append(ids.append_column("ref", ref.take(pa.array([0] * ids.num_rows))))
    schema = pa.schema([("trace_id", pa.string()), ("ref", pa.string())])
    return pa.concat_tables([schema.empty_table(), *(part.cast(schema) for part in parts)])
