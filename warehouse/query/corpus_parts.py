"""Reads a task's traces part by part, whole groups of questions together, in bounded memory.

    for part in read_parts(con, "sat2", groups, {"no_personal_data": "rules/1"}):
        part.rows, part.stored, part.unjudged

The traces of a round, a million, are brought together with their verdicts in temporary tables of
DuckDB, which spill to disk; each part of a round, some thousands of traces, then becomes Python
values. So however many traces there are, every table is read once a round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from curation.filters.base import CORPUS
from curation.filters.decontaminate import ComparedQuestion
from mcts.data import Trace
from warehouse.query.dedup_inputs import compared_questions
from warehouse.query.sql_guard import quoted
from warehouse.tables.rows import trace_from
from warehouse.tables.schema import Row

ROUND, PART = 1_000_000, 20_000
"""Traces; a group of more is one part."""

_MOST_COMMITS = 256  # named in a statement: files of other commits are then passed over


@dataclass(slots=True)
class Part:
    """Some groups of questions with their traces."""

    rows: list[Row]
    """Of each trace: trace_id, question_id, kind, answer, text, and whether every filter of the
    first stage keeps it (`kept`); in order of trace_id. What those have not judged is left out."""
    stored: list[Row]
    """The newest rows of `verdicts` of the corpus stage on these traces."""
    questions: dict[str, ComparedQuestion]
    """Those of the traces, by id."""
    sizes: dict[str, tuple[int, int]]
    """Width and height of the questions' images, pixels."""
    unjudged: dict[str, Trace]
    """By id, the whole traces on which a filter of content has no verdict by its method."""


def read_parts(
    con: duckdb.DuckDBPyConnection,
    task: str,
    groups: Iterable[Sequence[str]],
    methods: Mapping[str, str],
    *,
    judged: bool = True,
) -> Iterator[Part]:
    """Read the searched traces of groups of question ids.

    Args:
        methods: of the filters of content, by name.
        judged: whether verdicts of the corpus stage may be stored on them.
    """
    for numbers in _rounds(groups, _count_traces(con, task)):
        parts = max(numbers.values()) + 1
        _load_round(con, task, numbers, judged)
        _load_unjudged(con, methods)
        for number in range(parts):
            yield _read_part(con, number)


def _count_traces(con: duckdb.DuckDBPyConnection, task: str) -> dict[str, int]:
    counted = con.execute(
        "SELECT question_id, count(*) FROM traces WHERE task = ? GROUP BY 1", [task]
    )
    return dict(counted.fetchall())


def _rounds(groups: Iterable[Sequence[str]], traces: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Yield the questions of each round, with the number of their part in it."""
    numbers: dict[str, int] = {}
    in_round = in_part = part = 0
    for group in groups:
        size = sum(traces.get(question_id, 0) for question_id in group)
        if in_part and in_part + size > PART:
            part, in_part = part + 1, 0
        if in_round and in_round + size > ROUND:
            yield numbers
            numbers, in_round, in_part, part = {}, 0, 0, 0
        numbers.update(dict.fromkeys(group, part))
        in_round, in_part = in_round + size, in_part + size
    if numbers:
        yield numbers


def _load_round(
    con: duckdb.DuckDBPyConnection, task: str, numbers: Mapping[str, int], judged: bool
) -> None:
    names = {"question_id": pa.array(numbers, pa.string()), "part": pa.array(numbers.values())}
    con.register("_wanted", pa.table(names))
    con.execute(
        "CREATE OR REPLACE TEMP TABLE part_questions AS SELECT question_id, task, split, text, "
        "image_ids, part FROM questions JOIN _wanted USING (question_id)"
    )
    # As in latest_traces; the traces of a tree are of one question.
    con.execute(
        "CREATE OR REPLACE TEMP TABLE part_ids AS SELECT trace_id, question_id, commit_id, part "
        "FROM (SELECT * FROM (SELECT trace_id, question_id, tree_id, commit_id, task, origin, "
        "linearizer FROM traces) JOIN _wanted USING (question_id) "
        "QUALIFY tree_id IS NULL OR linearizer IS NOT DISTINCT FROM max_by(linearizer, "
        "try_cast(split_part(linearizer, '/', 2) AS INT)) OVER (PARTITION BY tree_id)) "
        f"WHERE task = {quoted(task)} AND origin = 'search'"
    )
    here = _of_commits(con)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE part_kept AS SELECT trace_id, bool_and(keep) AS kept FROM "
        "(SELECT trace_id, filter, stage, version, keep FROM verdicts SEMI JOIN part_ids "
        f"USING (trace_id) WHERE stage IS DISTINCT FROM '{CORPUS}' "
        f"AND ({here} OR commit_id IS NULL) "
        "QUALIFY version = max(version) OVER (PARTITION BY trace_id, stage) "
        "AND filter <> '(none)') GROUP BY trace_id"
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE part_rows AS SELECT part, traces.trace_id, "
        "traces.question_id, kind, answer, text, kept FROM traces JOIN "
        "(SELECT trace_id, part, kept FROM part_ids JOIN part_kept USING (trace_id)) AS here "
        f"ON here.trace_id = traces.trace_id WHERE {here}"
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE part_stored AS SELECT part, verdicts.* FROM "
        "(SELECT trace_id, filter, version, keep, reason, score, method, other FROM verdicts "
        f"WHERE {'true' if judged else 'false'} AND stage = '{CORPUS}') AS verdicts "
        "JOIN (SELECT trace_id, part FROM part_ids) USING (trace_id) "
        "QUALIFY version = max(version) OVER (PARTITION BY trace_id)"
    )


def _of_commits(con: duckdb.DuckDBPyConnection) -> str:
    """The condition that holds for the rows of the round's traces by their commits, if few."""
    found = con.execute(
        f"SELECT DISTINCT commit_id FROM part_ids LIMIT {_MOST_COMMITS + 1}"
    ).fetchall()
    commits = [commit_id for (commit_id,) in found if commit_id is not None]
    if len(found) > _MOST_COMMITS or len(commits) < len(found) or not commits:
        return "true"
    return f"commit_id IN ({', '.join(map(quoted, commits))})"


def _load_unjudged(con: duckdb.DuckDBPyConnection, methods: Mapping[str, str]) -> None:
    by_method = " OR ".join(
        f"(filter = {quoted(name)} AND method = {quoted(method)})"
        for name, method in methods.items()
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE part_open AS SELECT part, trace_id, commit_id FROM part_ids "
        "SEMI JOIN part_rows USING (trace_id) ANTI JOIN (SELECT trace_id FROM part_stored "
        f"WHERE {by_method or 'false'} GROUP BY trace_id HAVING count(*) = {len(methods)}) "
        f"USING (trace_id) WHERE {bool(methods)}"
    )
    here = _of_commits(con)
    for table in ("traces", "steps"):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE part_{table} AS SELECT part, {table}.* FROM {table} "
            f"JOIN (SELECT part, trace_id FROM part_open) USING (trace_id) WHERE {here}"
        )


def _read_part(con: duckdb.DuckDBPyConnection, number: int) -> Part:
    def read(table: str, order: str) -> list[Row]:
        sql = f"SELECT * EXCLUDE (part) FROM {table} WHERE part = {number} ORDER BY {order}"
        return list(con.sql(sql).to_arrow_table().to_pylist())

    asked = compared_questions(con, f"part = {number}", "part_questions")
    questions = {one.question_id: one for some in asked for one in some}
    images = sorted({image_id for one in questions.values() for image_id in one.image_ids})
    con.register("_part_images", pa.table({"image_id": pa.array(images, pa.string())}))
    sized = con.sql(
        "SELECT image_id, width, height FROM images SEMI JOIN _part_images USING (image_id)"
    ).fetchall()
    steps: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for step in read("part_steps", "trace_id, step"):
        steps[step["trace_id"]].append(step)
    return Part(
        read("part_rows", "trace_id"),
        read("part_stored", "trace_id, filter"),
        questions,
        {image_id: (width, height) for image_id, width, height in sized},
        {
            row["trace_id"]: trace_from(row, steps[row["trace_id"]])
            for row in read("part_traces", "trace_id")
        },
    )
