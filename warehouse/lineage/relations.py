"""The relations of lineage, as SQL: each yields pairs (made_from, made_into) of ids.

    for relation in relations("trace"):      # those a walk that starts at a trace follows
        relation.parent, relation.child, relation.sql

From a trace, a node or a response, the path between a search and a trace leads through the single
responses and nodes; from anything larger it is one edge, or there would be millions. A node is
named `tree_id/node_id`, a dataset version `name@vN`.
"""

from __future__ import annotations

from dataclasses import dataclass

CLOSE_UP = frozenset({"trace", "node", "response"})
"""Kinds from which a walk follows single responses and nodes."""


@dataclass(frozen=True, slots=True)
class Relation:
    """One way in which a kind of entity is made from another."""

    parent: str
    child: str
    sql: str
    """Yields `made_from` and `made_into`, ids of the two kinds; pairs may repeat."""


_ALWAYS = (
    ("source", "image", "SELECT source AS made_from, image_id AS made_into FROM images"),
    (
        "source",
        "question",
        # Most have the source of their images, and are reached through these.
        "SELECT source AS made_from, question_id AS made_into FROM questions ANTI JOIN "
        "(SELECT question_id, images.source FROM (SELECT question_id, unnest(image_ids) AS "
        "image_id FROM questions) JOIN images USING (image_id)) USING (question_id, source)",
    ),
    (
        "image",
        "question",
        "SELECT unnest(image_ids) AS made_from, question_id AS made_into FROM questions",
    ),
    ("question", "tree", "SELECT question_id AS made_from, tree_id AS made_into FROM trees"),
    ("model", "tree", "SELECT model AS made_from, tree_id AS made_into FROM trees"),
    (
        "question",
        "trace",
        "SELECT question_id AS made_from, trace_id AS made_into FROM traces WHERE tree_id IS NULL",
    ),
    (
        "evaluation",
        "trace",
        "SELECT evaluation_id AS made_from, trace_id AS made_into FROM predictions",
    ),
    (
        "model",
        "trace",
        "SELECT model AS made_from, trace_id AS made_into FROM traces "
        "ANTI JOIN predictions USING (trace_id) WHERE tree_id IS NULL",
    ),
    ("trace", "dataset", "SELECT trace_id AS made_from, ref AS made_into FROM _held"),
    ("dataset", "model", "SELECT dataset AS made_from, model_id AS made_into FROM models"),
    (
        "question",
        "model",
        "SELECT unnest(question_ids) AS made_from, model_id AS made_into FROM models",
    ),
    (
        "model",
        "model",
        "SELECT coalesce(b.model_id, m.base) AS made_from, m.model_id AS made_into "
        "FROM models m LEFT JOIN models b ON m.base = b.model_id OR m.base = b.name",
    ),
    (
        "model",
        "evaluation",
        "SELECT model_id AS made_from, evaluation_id AS made_into FROM evaluations",
    ),
)
_FAR = (
    (
        "tree",
        "trace",
        "SELECT tree_id AS made_from, trace_id AS made_into FROM traces",
    ),
)
_CLOSE = (
    ("tree", "response", "SELECT tree_id AS made_from, response_id AS made_into FROM responses"),
    (
        "response",
        "node",
        "SELECT response_id AS made_from, tree_id || '/' || node_id AS made_into FROM nodes",
    ),
    (
        "tree",
        "node",  # the root, which no response wrote
        "SELECT tree_id AS made_from, tree_id || '/' || node_id AS made_into FROM nodes "
        "WHERE response_id IS NULL",
    ),
    (
        "node",
        "trace",
        "SELECT traces.tree_id || '/' || node_id AS made_from, trace_id AS made_into "
        "FROM steps JOIN traces USING (trace_id)",
    ),
    (
        "response",
        "trace",  # steps of a rollout, which are not nodes
        "SELECT response_id AS made_from, trace_id AS made_into FROM steps "
        "WHERE rollout_id IS NOT NULL",
    ),
    (
        "tree",
        "trace",
        "SELECT tree_id AS made_from, trace_id AS made_into FROM traces ANTI JOIN "
        "(SELECT trace_id FROM steps WHERE node_id IS NOT NULL) USING (trace_id)",
    ),
)
_RUN = tuple(
    ("run", kind, f"SELECT run_id AS made_from, {key} AS made_into FROM {table}")
    for kind, table, key in (
        ("image", "images", "image_id"),
        ("question", "questions", "question_id"),
        ("tree", "trees", "tree_id"),
        ("trace", "traces", "trace_id"),
        ("dataset", "dataset_versions", "name || '@v' || version"),
        ("model", "models", "model_id"),
        ("evaluation", "evaluations", "evaluation_id"),
    )
)


def relations(start: str) -> list[Relation]:
    """The relations that a walk follows from an entity of kind `start`."""
    between = _CLOSE if start in CLOSE_UP else _FAR
    # Every row was written by some run; only a walk from a run follows that.
    runs = _RUN if start == "run" else ()
    return [Relation(*parts) for parts in (*_ALWAYS, *between, *runs)]
