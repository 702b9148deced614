"""A few words about each thing of a lineage: what a text or a picture says beside its id.

words = describe(walker, things)        # {thing: "direct, 4 steps, right, kept"}
steps = steps_of(walker, trace_id)      # thought, point, node and response of every step
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from warehouse.lineage.lineage import Thing, Walker

Row = dict[str, Any]

_SQL = {
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
        SELECT evaluation_id AS id, benchmark || ': ' || round(100 * accuracy, 1) || '% of '
        || n_questions AS words FROM evaluations""",
    "run": """
        SELECT run_id AS id, concat_ws(', ', kind, task, host, created_at::DATE) AS words
        FROM runs""",
}


def describe(walker: Walker, things: Iterable[Thing]) -> dict[Thing, str]:
    """Words for each thing: of a group its number, of anything revoked that it is, and why."""
    things = list(things)
    revoked = {
        (row["subject"], row["value"]): row["reason"]
        for row in walker.con.sql("FROM revocations").to_arrow_table().to_pylist()
    }
    words: dict[tuple[str, str], str] = {}
    for kind in {thing.kind for thing in things} & set(_SQL):
        ids = [thing.id for thing in things if thing.kind == kind and thing.single]
        asked = f"SELECT id, words FROM ({_SQL[kind]}) SEMI JOIN _ids USING (id)"
        words.update({(kind, row["id"]): row["words"] for row in walker.rows(asked, ids)})
    told = {}
    for thing in things:
        if not thing.single:
            told[thing] = f"{len(thing.ids)} more"
            continue
        text = words.get((thing.kind, thing.id)) or ""
        if reason := revoked.get((thing.kind, thing.id)):
            text = f"REVOKED: {reason}{'; ' if text else ''}{text}"
        told[thing] = " ".join(text.split())
    return told


def steps_of(walker: Walker, trace_id: str) -> list[Row]:
    """A trace's steps, each with its point in original pixels and where its words came from."""
    return walker.rows(
        "SELECT step, thought, x, y, image, points, node_id, rollout_id, response_id FROM steps "
        "SEMI JOIN _ids ON trace_id = _ids.id ORDER BY step",
        [trace_id],
    )
