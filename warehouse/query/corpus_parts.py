"""Reads a task's traces part by part, whole groups of questions together, in bounded memory.

    for part in read_parts(con, "sat2", groups, [NoPersonalData()]):
        part.rows, part.stored, part.unfiltered

The traces of a round, a million, are brought together with their verdicts in temporary tables of
DuckDB, which spill to disk; each part of a round, some thousands of traces, then becomes Python
values. So however many traces there are, every table is read once a round.

Of the traces that filters of content have not judged, only those are read whole in which one finds
its signs (`TraceFilter.signs`): DuckDB looks for them in texts of ASCII, and leaves the others.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from curation.filters.base import CORPUS, TraceFilter
from curation.filters.decontaminate import ComparedQuestion
from curation.grading.normalize import fold
from mcts.data import Trace
from warehouse.query.dedup_inputs import compared_questions
from warehouse.query.sql_guard import all_quoted, quoted
from warehouse.tables.rows import trace_from
from warehouse.tables.schema import Row

ROUND, PART = 1_000_000, 20_000
"""Traces; a group of more is one part."""

_MOST_COMMITS = 256  # named in a statement: files of other commits are then passed over


@dataclass(slots=True)
class Part:
    """Some groups of questions with their traces; columns are sent between processes faster than
    rows are."""

    rows: pa.Table
    """Of each trace: trace_id, question_id, kind, answer, text, and whether every filter of the
    first stage keeps it (`kept`); in order of trace_id. What those have not judged is left out."""
    stored: pa.Table
    """The newest rows of `verdicts` of the corpus stage on these traces."""
    questions: dict[str, ComparedQuestion]
    """Those of the traces, by id."""
    sizes: dict[str, tuple[int, int]]
    """Width and height of the questions' images, pixels."""
    unfiltered: dict[str, Trace]
    """By id, the whole traces on which a filter of content has no verdict by its method, but for
    those in which none of its signs is."""


def read_parts(
    con: duckdb.DuckDBPyConnection,
    task: str,
    groups: Iterable[Sequence[str]],
    content: Sequence[TraceFilter],
    *,
    judged: bool = True,
) -> Iterator[Part]:
    """Read the searched traces of groups of question ids.

    Args:
        content: the filters that see one trace.
        judged: whether verdicts of the corpus stage may be stored on them.
    """
    for numbers in _rounds(groups, _count_traces(con, task)):
        parts = max(numbers.values()) + 1
        _load_round(con, task, numbers, judged)
        _load_unfiltered(con, content, parts)
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
        "image_ids, choices, answers, answer_kind, part "
        "FROM questions JOIN _wanted USING (question_id)"
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
    here = _of_commits(con, "part_ids")
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


def _of_commits(con: duckdb.DuckDBPyConnection, table: str) -> str:
    """The condition that holds for the rows of a table's traces by their commits, if few."""
    found = con.execute(
        f"SELECT DISTINCT commit_id FROM {table} LIMIT {_MOST_COMMITS + 1}"
    ).fetchall()
    commits = [commit_id for (commit_id,) in found if commit_id is not None]
    if len(found) > _MOST_COMMITS or len(commits) < len(found) or not commits:
        return "true"
    return f"commit_id IN ({all_quoted(commits)})"


def _load_unfiltered(
    con: duckdb.DuckDBPyConnection, content: Sequence[TraceFilter], parts: int
) -> None:
    """Load what a filter must see: of its own, where it has no verdict by its method."""
    con.execute(
        "CREATE OR REPLACE TEMP TABLE part_open AS "
        "SELECT part, trace_id, commit_id FROM part_ids WHERE false"
    )
    for one in content:
        con.execute(
            "CREATE OR REPLACE TEMP TABLE part_lacking AS SELECT part, trace_id, question_id, "
            "commit_id FROM part_ids SEMI JOIN part_rows USING (trace_id) ANTI JOIN "
            "(SELECT trace_id FROM part_stored WHERE filter = $1 AND method = $2) USING (trace_id)",
            [one.name, one.method],
        )
        showing = ""
        if one.signs:
            _load_signs(con, one.signs, parts)
            showing = "SEMI JOIN part_signs USING (trace_id) "
        con.execute(
            "INSERT INTO part_open SELECT part, trace_id, commit_id FROM part_lacking "
            f"{showing}ANTI JOIN part_open USING (trace_id)"
        )
    here = _of_commits(con, "part_open")
    for table in ("traces", "steps"):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE part_{table} AS "
            f"SELECT part, {table}.* EXCLUDE (created_at) FROM {table} "
            f"JOIN (SELECT part, trace_id FROM part_open) USING (trace_id) WHERE {here}"
        )


def _load_signs(con: duckdb.DuckDBPyConnection, signs: str, parts: int) -> None:
    """Load into `part_signs` the ids of the lacking traces in one of whose texts a sign is."""
    here = _of_commits(con, "part_lacking")
    con.execute(
        "CREATE OR REPLACE TEMP TABLE part_texts AS SELECT part, trace_id, text, ascii FROM "
        "(SELECT part, trace_id, text, strlen(text) = length(text) AS ascii FROM "
        f"(SELECT trace_id, thought AS text FROM steps WHERE {here} "
        "UNION ALL SELECT trace_id, answer FROM part_rows "
        "UNION ALL SELECT trace_id, concat_ws(chr(10), text, array_to_string(choices, chr(10)), "
        "array_to_string(answers, chr(10))) FROM part_lacking JOIN part_questions "
        "USING (question_id)) JOIN part_lacking USING (trace_id)) "
        "WHERE NOT ascii OR regexp_matches(text, $1)",
        [signs],
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE part_signs AS SELECT DISTINCT trace_id FROM part_texts "
        "WHERE ascii"
    )
    sign = re.compile(signs)
    for number in range(parts):
        found = con.execute(
            "SELECT text, list(trace_id) FROM part_texts WHERE NOT ascii AND part = $1 GROUP BY 1",
            [number],
        ).fetchall()
        having = [ids for text, ids in found if sign.search(fold(text))]
        ids = pa.array(sorted({i for some in having for i in some}), pa.string())
        con.register("_having", pa.table({"trace_id": ids}))
        con.execute("INSERT INTO part_signs FROM _having ANTI JOIN part_signs USING (trace_id)")


def _read_part(con: duckdb.DuckDBPyConnection, number: int) -> Part:
    def read(table: str, order: str) -> pa.Table:
        return con.sql(
            f"SELECT * EXCLUDE (part) FROM {table} WHERE part = {number} ORDER BY {order}"
        ).to_arrow_table()

    asked = compared_questions(con, f"part = {number}", "part_questions")
    questions = {one.question_id: one for some in asked for one in some}
    images = sorted({image_id for one in questions.values() for image_id in one.image_ids})
    con.register("_part_images", pa.table({"image_id": pa.array(images, pa.string())}))
    sized = con.sql(
        "SELECT image_id, width, height FROM images SEMI JOIN _part_images USING (image_id)"
    ).fetchall()
    steps: dict[str, list[Row]] = defaultdict(list)
    for step in read("part_steps", "trace_id, step").to_pylist():
        steps[step["trace_id"]].append(step)
    return Part(
        read("part_rows", "trace_id"),
        read("part_stored", "trace_id, filter"),
        questions,
        {image_id: (width, height) for image_id, width, height in sized},
        {
            row["trace_id"]: trace_from(row, steps[row["trace_id"]])
            for row in read("part_traces", "trace_id").to_pylist()
        },
    )
