"""Reads trees and traces from the warehouse as the values they were.

    for tree, row in read_trees(warehouse, tree_ids): …      # mcts.tree.Tree and its row of trees
    for trace, verdicts in read_traces(warehouse, trace_ids): …

Only committed rows are read. Load dozens or hundreds at a time: all of it is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from curation.filters.dedup import NoExactCopy, NoNearCopy
from mcts.coordinates import CoordinateSpace, Dialect, Frame, SpaceKind
from mcts.data import Question, Step, Trace, Verdict
from mcts.tree import Tree, TreeRows, rebuild
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import Lens
from warehouse.query.run_query import UNREADABLE, connect_trusted, latest_verdicts_of, named_in
from warehouse.query.sql_guard import all_quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import open_table
from warehouse.tables.rows import read_questions, step_from, trace_from, verdict_from
from warehouse.tables.schema import CHILDREN, Row

_OF_COPIES = (NoExactCopy.name, NoNearCopy.name)
"""Filters that drop a trace because another is like it, which is no fault of the trace."""


def read_trees(warehouse: Warehouse, tree_ids: Sequence[str]) -> Iterator[tuple[Tree, Row]]:
    """Read committed trees with their rows of `trees`, in order of id."""
    if not tree_ids:
        return
    key = "tree_id"
    tables = ("nodes", "rollouts", "responses", "trees")
    with reading_among(warehouse, tables, key, tree_ids) as rows_of:
        nodes, rollouts = _grouped(rows_of("nodes"), key), _grouped(rows_of("rollouts"), key)
        columns = "tree_id, response_id, text, finish_reason"
        responses = _grouped(rows_of("responses", columns), key)
        trees = rows_of("trees")
    if not trees:
        return
    ids = [row["question_id"] for row in trees]
    questions = {q.question_id: q for q in read_questions(warehouse, question_ids=ids)}
    for row in trees:
        tree_id = row["tree_id"]
        parts = (nodes[tree_id], rollouts.get(tree_id, []), responses.get(tree_id, []))
        yield tree_from(row, *parts, questions[row["question_id"]]), row


def read_traces(
    warehouse: Warehouse, trace_ids: Sequence[str]
) -> list[tuple[Trace, list[Verdict]]]:
    """Read traces with each filter's latest verdict, in the order of `trace_ids`, without unknown
    ids."""
    if not trace_ids:
        return []
    key = "trace_id"
    newest = f"({latest_verdicts_of('_wanted')})"
    with reading_among(warehouse, ("steps", "traces", newest), key, trace_ids) as rows_of:
        steps, verdicts = _grouped(rows_of("steps"), key), _grouped(rows_of(newest), key)
        traces = {row[key]: row for row in rows_of("traces")}
    return [
        (
            trace_from(traces[trace_id], steps.get(trace_id, [])),
            [verdict_from(row) for row in verdicts.get(trace_id, [])],
        )
        for trace_id in trace_ids
        if trace_id in traces
    ]


def read_dropped(warehouse: Warehouse, trace_ids: Sequence[str]) -> set[str]:
    """Return which of these traces a filter drops for what they are; none that was not judged."""
    newest = f"({latest_verdicts_of('_wanted')})"
    verdicts = rows_among(warehouse, newest, "trace_id", trace_ids, "trace_id, filter, keep")
    return {v["trace_id"] for v in verdicts if not v["keep"] and v["filter"] not in _OF_COPIES}


def read_pass_rates(
    warehouse: Warehouse,
    question_ids: Sequence[str] | None = None,
    tables: Mapping[str, int | None] | None = None,
    or_now: bool = False,
) -> dict[str, tuple[float, str]]:
    """Read pass rate and band of each searched question, by the model that searched it most.

    Args:
        question_ids: only these; all when left out.
        tables: the tables' versions to read; the newest when left out.
        or_now: read the newest where a deletion took the files of these versions.
    """
    if tables is not None and or_now:
        try:
            return read_pass_rates(warehouse, question_ids, tables)
        except UNREADABLE:
            tables = None
    with connect_trusted(warehouse, ["grpo_prompts"], tables) as con:
        wanted = ""
        if question_ids is not None:
            ids = pa.array(question_ids, pa.string())
            con.register("_wanted", pa.table({"question_id": ids}))
            wanted = "SEMI JOIN _wanted USING (question_id) "
        rows = con.sql(
            f"SELECT question_id, pass_rate, band FROM grpo_prompts {wanted}QUALIFY row_number() "
            "OVER (PARTITION BY question_id ORDER BY outcomes DESC, model) = 1"
        ).to_arrow_table()
    return {r["question_id"]: (r["pass_rate"], r["band"]) for r in rows.to_pylist()}


def read_student_rates(
    warehouse: Warehouse, question_ids: Sequence[str], model: str, prompt: str
) -> dict[str, tuple[float, str, str, datetime | None]]:
    """Read pass rate and band of each question as they are today, whose they are, and since when:
    the `model`'s own where it was evaluated with `prompt`, else the `search`es'."""
    with connect_trusted(warehouse, ["student_prompts"]) as con:
        con.register("_wanted", pa.table({"question_id": pa.array(question_ids, pa.string())}))
        found = con.sql(
            "SELECT question_id, pass_rate, band, measured_by, measured_at FROM student_prompts "
            "SEMI JOIN _wanted USING (question_id) WHERE model = ? AND prompt = ?",
            params=[model, prompt],
        ).to_arrow_table()
    return {
        r["question_id"]: (r["pass_rate"], r["band"], r["measured_by"], r["measured_at"])
        for r in found.to_pylist()
    }


@dataclass(frozen=True, slots=True)
class PrefixStart:
    """First steps of a search that a student goes on from; a row of the view `prefix_starts`."""

    tree_id: str
    node_id: int
    """The node of the last step."""
    steps: tuple[Step, ...]
    solved: int | None
    """Right ones among the student's continuations; None where it was not measured."""
    asked: int | None

    @property
    def name(self) -> str:
        """Its name among a student's requests."""
        return f"{self.tree_id}/{self.node_id}"


def read_prefixes(
    warehouse: Warehouse, question_ids: Sequence[str], model: str, prompt: str, condition: str
) -> dict[str, list[PrefixStart]]:
    """Read a student's prefixes of questions, in order of their `place`.

    Args:
        condition: SQL that chooses among the columns of `prefix_starts`.
    """
    with connect_trusted(warehouse, ["prefix_starts", "nodes"]) as con:
        con.register("_wanted", pa.table({"question_id": pa.array(question_ids, pa.string())}))
        rows = con.execute(
            f"""
            WITH chosen AS (
                SELECT question_id, tree_id, node_id, path, place, solved, asked
                FROM prefix_starts SEMI JOIN _wanted USING (question_id)
                WHERE model = ? AND prompt = ? AND ({condition})
            ),
            step AS (
                SELECT tree_id, path, depth, {{
                    thought: thought, call: call, observation: observation,
                    points: coalesce(points, CASE WHEN x IS NULL THEN [] ELSE
                        [{{x: x, y: y, image: image::INTEGER}}] END)
                }} AS row
                FROM nodes WHERE thought IS NOT NULL
            )
            SELECT question_id, tree_id, node_id, solved, asked, list(row ORDER BY depth) AS steps
            FROM chosen JOIN step USING (tree_id)
            WHERE starts_with(chosen.path || '.', step.path || '.')
            GROUP BY question_id, tree_id, node_id, solved, asked, place
            ORDER BY question_id, place
            """,
            [model, prompt],
        ).fetchall()
    found: dict[str, list[PrefixStart]] = {}
    for question_id, tree_id, node_id, solved, asked, steps in rows:
        prefix = PrefixStart(tree_id, node_id, tuple(map(step_from, steps)), solved, asked)
        found.setdefault(question_id, []).append(prefix)
    return found


def read_usable_prefixes(
    warehouse: Warehouse, question_ids: Sequence[str], model: str, prompt: str, zooms: bool
) -> dict[str, list[PrefixStart]]:
    """Read the prefixes behind which a student was measured right sometimes: those to learn from.

    Args:
        zooms: whether they are of searches that zoom.
    """
    of_kind = "zooms" if zooms else "NOT zooms"
    sometimes = f"{of_kind} AND solved BETWEEN 1 AND asked - 1"
    return read_prefixes(warehouse, question_ids, model, prompt, sometimes)


def space_of(row: Mapping[str, Any]) -> CoordinateSpace:
    """The coordinate space recorded in a row of `trees` or `models`."""
    limits = (row["min_pixels"], row["max_pixels"], row["factor"])
    return CoordinateSpace(SpaceKind(row["space"]), *limits, _dialect(row.get("config")))


def zoom_of(row: Mapping[str, Any]) -> ZoomConfig | None:
    """How a tree's steps might look closer, from its row of `trees`; None if they might not."""
    zoom = json.loads(row.get("config") or "{}").get("zoom")
    return ZoomConfig(**{**zoom, "lens": Lens(**zoom["lens"])}) if zoom else None


def read_zoom_tools(warehouse: Warehouse, tree_ids: Sequence[str]) -> dict[str, str]:
    """Return the tool that each of these trees offered, of those whose steps might look closer."""
    columns = "tree_id, json_extract_string(config, '$.zoom.tool') AS tool"
    rows = rows_among(warehouse, "trees", "tree_id", tree_ids, columns)
    return {row["tree_id"]: row["tool"] for row in rows if row["tool"]}


def read_dialects(warehouse: Warehouse, tree_ids: Sequence[str]) -> set[Dialect]:
    """Return the dialects in which the teachers of these trees wrote places."""
    column = "DISTINCT json_extract_string(config, '$.space.dialect') AS dialect"
    rows = rows_among(warehouse, "trees", "tree_id", tree_ids, column)
    return {Dialect(row["dialect"] or Dialect.PAIRS) for row in rows}


def _dialect(config: str | None) -> Dialect:
    """The dialect in a search's configuration; imported and older trees have none."""
    space = json.loads(config or "{}").get("space")
    return Dialect(space["dialect"]) if space and "dialect" in space else Dialect.PAIRS


def tree_from(
    row: Mapping[str, Any],
    nodes: Sequence[Mapping[str, Any]],
    rollouts: Sequence[Mapping[str, Any]],
    responses: Sequence[Mapping[str, Any]],
    question: Question,
) -> Tree:
    """Rebuild the tree of a row of `trees` from its rows of the other tables, in any order."""
    texts = {r["response_id"]: r["text"] for r in responses if r["text"] is not None}
    cut_off = {r["response_id"] for r in responses if r.get("finish_reason") == "length"}
    rows = TreeRows([dict(n) for n in nodes], [dict(r) for r in rollouts])
    frame = Frame.of(space_of(row), question)
    return rebuild(
        row["tree_id"], question, rows, texts, frame, row["simulations"], row["errors"] or (),
        zoom_of(row), cut_off,
    )  # fmt: skip


def rows_about(warehouse: Warehouse, tree_ids: Sequence[str], sql: str) -> list[Row]:
    """Run a statement and keep rows whose `tree_id` is among `tree_ids`."""
    return rows_among(warehouse, f"({sql})", "tree_id", tree_ids)


def rows_among(
    warehouse: Warehouse, table: str, key: str, ids: Sequence[str], columns: str = "*"
) -> list[Row]:
    """Read rows of a table, or a statement in brackets, whose column `key` is among `ids`.

    The statement may read `ids` itself, as the column `key` of `_wanted`.
    """
    with reading_among(warehouse, [table], key, ids) as rows_of:
        return rows_of(table, columns)


@contextmanager
def reading_among(
    warehouse: Warehouse, tables: Sequence[str], key: str, ids: Sequence[str]
) -> Iterator[Callable[..., list[Row]]]:
    """Open tables, all as they are now, for a function that reads as `rows_among` does.

    The function takes one of the tables, or a statement in brackets of those given, and columns.
    """
    names = named_in(" ".join(tables))
    versions, commits = _commits_of(warehouse, names, key, ids)
    with connect_trusted(warehouse, names, versions, commits) as con:
        # The ids come in as a table: thousands of them in a statement would take seconds to read.
        con.register("_wanted", pa.table({key: pa.array(ids, pa.string())}))

        def rows_of(table: str, columns: str = "*") -> list[Row]:
            wanted = f"{key} IN (SELECT {key} FROM _wanted)"
            if table in commits:  # files of other commits are passed over
                among = all_quoted(sorted(commits[table])) or "''"
                wanted += f" AND (commit_id IS NULL OR commit_id IN ({among}))"
            found = con.sql(f"SELECT {columns} FROM {table} WHERE {wanted} ORDER BY ALL")
            return list(found.to_arrow_table().to_pylist())

        yield rows_of


_PARENTS = {"tree_id": "trees", "trace_id": "traces"}


def _commits_of(
    warehouse: Warehouse, names: set[str], key: str, ids: Sequence[str]
) -> tuple[dict[str, int | None], dict[str, frozenset[str]]]:
    """Find the commits of these trees or traces, so that only files with their rows are read.

    Returns:
        The version of the table of trees or traces, for others to be read beside it, and of this
        table the commits. Nothing where no table below it is read.
    """
    parent = _PARENTS.get(key, "")
    if not names & {*CHILDREN.get(parent, ())}:
        return {}, {}
    delta = open_table(warehouse, parent)
    versions = {parent: delta.version() if delta else None}
    with connect_trusted(warehouse, [parent], versions) as con:
        con.register("_wanted", pa.table({key: pa.array(ids, pa.string())}))
        found = con.execute(
            f"SELECT DISTINCT commit_id FROM {parent} WHERE {key} IN (SELECT {key} FROM _wanted) "
            "AND commit_id IS NOT NULL"
        ).fetchall()
    return versions, {parent: frozenset(commit_id for (commit_id,) in found)}


def _grouped(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row[key], []).append(row)
    return grouped
