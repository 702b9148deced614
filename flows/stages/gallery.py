"""Traces and trees read from the warehouse and drawn for people.

    png = draw_example(warehouse, "sat2")                  # one good trace, points on the image
    index = gallery(warehouse, Path("gallery"), sql=None)  # pages to browse

`curation.render.trace_card` and `curation.render.gallery` draw; this module only fetches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from curation.render.gallery import (
    FilterFunnel,
    GalleryTrace,
    GalleryTree,
    is_gallery,
    write_gallery,
)
from curation.render.trace_card import draw_trace
from flows.settings_base import Problem
from mcts.data import Question
from warehouse.query.limits import Limits
from warehouse.query.read_back import read_traces, read_trees, rows_among
from warehouse.query.run_query import connect_trusted, query
from warehouse.query.sql_guard import all_quoted, quoted
from warehouse.query.verdict_funnel import funnel_rows
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_image, read_questions
from warehouse.tables.schema import Row

_TRACES, _TREES = 1000, 250
"""Read at once: each time whole tables are looked through; a large tree has some 300 kB of text."""

# A trace that shows what this is about: it turns back and still gets there; else it looks twice.
_EXAMPLE = """
SELECT trace_id FROM kept_traces WHERE task = {task}
ORDER BY kind = 'corrected' DESC, abs(n_points - 4), trace_id LIMIT 1
"""


def draw_example(warehouse: Warehouse, task: str) -> bytes | None:
    """Draw one kept trace as PNG, its points numbered on the image; None if nothing is kept, or
    its image is lost."""
    rows = query(warehouse, _EXAMPLE.format(task=quoted(task)))
    for shown in gallery_traces(warehouse, rows["trace_id"].to_pylist(), {}):
        if not all(shown.images):
            return None
        return draw_trace(shown.trace, shown.question, shown.images)
    return None


# What a filter dropped, beside the trace that its reason names, where it names one.
_DROPPED = """
WITH dropped AS (
    SELECT trace_id, tree_id, other
    FROM latest_traces JOIN latest_verdicts USING (trace_id)
    WHERE filter = {filter} AND NOT keep
    ORDER BY other, tree_id, trace_id LIMIT {limit}
)
SELECT trace_id FROM (
    SELECT other, 1 AS place, tree_id, trace_id FROM dropped
    UNION
    SELECT other, 0, tree_id, traces.trace_id
    FROM traces JOIN (SELECT DISTINCT other FROM dropped) ON traces.trace_id = other
) ORDER BY other, place, tree_id, trace_id
"""


# As few of the newest commits as hold enough trees, whose files alone are read then.
_NEWEST = """
SELECT commit_id FROM (
    SELECT commit_id, count(DISTINCT coalesce(tree_id, trace_id)) AS n, max(created_at) AS made
    FROM traces GROUP BY commit_id
) QUALIFY sum(n) OVER (ORDER BY made DESC, commit_id) - n < {limit}
"""
# The same share of every tree; what is of one tree stands together.
_SOME = """
FROM (
    SELECT trace_id, tree_id FROM traces WHERE {among}
    ORDER BY row_number() OVER (PARTITION BY tree_id ORDER BY trace_id), tree_id LIMIT {limit}
) ORDER BY tree_id, trace_id
"""


def read_funnel(warehouse: Warehouse) -> FilterFunnel | None:
    """Count what each filter kept and dropped; None where nothing has been judged."""
    rows = funnel_rows(warehouse)
    totals = [(row.pop("traces_judged"), row.pop("traces_kept")) for row in rows]
    return FilterFunnel(tuple(rows), *totals[0]) if rows else None


def dropped_by(warehouse: Warehouse, name: str, limit: int = 500) -> str:
    """Return the statement that chooses what a filter dropped.

    Raises:
        Problem: no filter of that name has judged anything.
    """
    known = query(warehouse, "SELECT DISTINCT filter FROM latest_verdicts ORDER BY filter")
    names = known["filter"].to_pylist()
    if name not in names:
        there = f"there are: {', '.join(names)}" if names else "nothing has been judged yet"
        raise Problem(f"--dropped-by: no filter {name!r} has judged a trace; {there}")
    return _DROPPED.format(filter=quoted(name), limit=limit)


def gallery(
    warehouse: Warehouse,
    out: Path,
    *,
    sql: str | None = None,
    limit: int = 500,
    limits: Limits | None = None,
) -> tuple[Path, int]:
    """Write a gallery of traces and of the trees they come from; return its index and how many.

    Args:
        sql: a statement that yields `trace_id`; by default `limit` of the newest traces, as many of
            one tree as of another, kept and rejected alike.

    Raises:
        Problem: the statement has no `trace_id`, or the folder holds another page.
    """
    if (out / "index.html").exists() and not is_gallery(out):
        raise Problem(f"--out: {out} holds an index.html that is no gallery's; name another folder")
    rows = (
        chosen_traces(warehouse, sql, limits)
        if sql
        else _newest_traces(warehouse, limit).to_pylist()
    )
    trees = sorted({row["tree_id"] for row in rows if row["tree_id"]})
    questions: dict[str, Question] = {}
    index = write_gallery(
        out,
        gallery_traces(warehouse, [row["trace_id"] for row in rows], questions),
        _gallery_trees(warehouse, trees, questions),
        funnel=read_funnel(warehouse),
    )
    return index, len(rows)


def chosen_traces(warehouse: Warehouse, sql: str, limits: Limits | None) -> list[Row]:
    """Return trace_id and tree_id of the traces that a person's statement yields, in its order."""
    found = query(warehouse, sql, limits)
    if "trace_id" not in found.column_names:
        raise Problem("--sql: the statement must yield a column trace_id")
    named = found["trace_id"].to_pylist()
    ids = list(dict.fromkeys(str(trace_id) for trace_id in named if trace_id is not None))
    there = rows_among(warehouse, "traces", "trace_id", ids, "trace_id, tree_id")
    rows = {row["trace_id"]: row for row in there}
    return [rows[trace_id] for trace_id in ids if trace_id in rows]


def _newest_traces(warehouse: Warehouse, limit: int) -> pa.Table:
    with connect_trusted(warehouse, ["traces"]) as con:
        newest = con.execute(_NEWEST.format(limit=limit)).fetchall()
        commits = all_quoted(commit_id for (commit_id,) in newest if commit_id) or "''"
        among = f"commit_id IN ({commits})"
        if (None,) in newest:
            among += " OR commit_id IS NULL"
        return con.sql(_SOME.format(among=among, limit=limit)).to_arrow_table()


def gallery_traces(
    warehouse: Warehouse, trace_ids: Sequence[str], questions: dict[str, Question]
) -> Iterator[GalleryTrace]:
    """Yield traces; their questions are read into `questions`, unless they are there."""
    for start in range(0, len(trace_ids), _TRACES):
        some = read_traces(warehouse, trace_ids[start : start + _TRACES])
        ids = {trace.question_id for trace, _ in some} - set(questions)
        found = read_questions(warehouse, question_ids=sorted(ids)) if ids else ()
        questions.update((question.question_id, question) for question in found)
        for trace, verdicts in some:
            question = questions[trace.question_id]
            images = _images(warehouse, question)
            yield GalleryTrace(question, trace, tuple(verdicts), images)


def _gallery_trees(
    warehouse: Warehouse, tree_ids: Sequence[str], questions: dict[str, Question]
) -> Iterator[GalleryTree]:
    """Yield trees; their questions are put into `questions`."""
    for start in range(0, len(tree_ids), _TREES):
        for tree, _ in read_trees(warehouse, tree_ids[start : start + _TREES]):
            questions[tree.question.question_id] = tree.question
            yield GalleryTree(tree, _images(warehouse, tree.question))


def _images(warehouse: Warehouse, question: Question) -> tuple[bytes, ...]:
    """Read a question's images; one that is lost has no bytes."""

    def read(image_id: str) -> bytes:
        try:
            return read_image(warehouse, image_id)
        except KeyError:
            return b""

    return tuple(read(image.image_id) for image in question.images)
