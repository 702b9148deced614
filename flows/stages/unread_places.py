"""What many responses told as a place and was none: one sentence, with the setting that reads it.

describe_unread(warehouse, tree_ids, "qwen3-vl")
# "24 of 24 responses hold a place that is not read, such as (0.62, 0.71) (unread_shares): …"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mcts.coordinates import Frame
from mcts.parsing import parse
from mcts.places.decide import UNREAD
from warehouse.query.read_back import rows_about, space_of
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_questions

FREQUENT = 0.1
"""Share of the responses over which a kind is told."""
_TEXTS = """
    SELECT tree_id, response_id, problems FROM nodes WHERE response_id IS NOT NULL
    UNION ALL SELECT tree_id, response_ids[1], problems FROM rollouts
"""
_COUNTED = f"""
    SELECT tree_id, kind, count(DISTINCT response_id) AS responses, min(response_id) AS example
    FROM (
        SELECT tree_id, response_id, unnest(list_append(problems, 'any')) AS kind FROM ({_TEXTS})
    ) WHERE kind = 'any' OR starts_with(kind, '{UNREAD}') GROUP BY tree_id, kind
"""
_DIALECTS = {"unread_xml": "xml", "unread_json": "json", "unread_box": "boxes"}
_HINTS = {
    "unread_image": "the prompt (--prompt) can ask for `(x, y) in image 2`",
    "unread_number": "it may be a number; the prompt (--prompt) can ask for `(x, y)` with a space",
}


def describe_unread(warehouse: Warehouse, tree_ids: Sequence[str], space: str | None) -> str:
    """Name the commonest kind of place that was not read, an example and what helps.

    Empty where none is frequent.

    Args:
        space: the coordinate space as it was named in the settings.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, tuple[str, str]] = {}
    for row in rows_about(warehouse, tree_ids, _COUNTED):
        counts[row["kind"]] += row["responses"]
        examples.setdefault(row["kind"], (row["tree_id"], row["example"]))
    total = counts.pop("any", 0)
    if not counts:
        return ""
    kind, responses = counts.most_common(1)[0]
    if responses <= FREQUENT * total:
        return ""
    example = _example(warehouse, kind, *examples[kind])
    such = f", such as {example}" if example else ""
    return (
        f"{responses} of {total} responses hold a place that is not read{such} ({kind}): "
        f"{_help(kind, example, space)}"
    )


def _example(warehouse: Warehouse, kind: str, tree_id: str, response_id: str) -> str:
    """Read the place from the response again; empty where it can't be."""
    (tree,) = rows_about(warehouse, [tree_id], "SELECT * FROM trees")
    texts = rows_about(warehouse, [tree_id], "SELECT tree_id, response_id, text FROM responses")
    for question in read_questions(warehouse, question_ids=[tree["question_id"]]):
        frame = Frame.of(space_of(tree), question)
        for row in texts:
            if row["response_id"] == response_id:
                problems = parse(row["text"] or "", frame).problems
                return next((" ".join(p.detail.split()) for p in problems if p.kind == kind), "")
    return ""


def _help(kind: str, example: str, space: str | None) -> str:
    name, _, declared = (space or "SPACE").partition("+")
    if kind == "unread_shares":
        wanted = f"normalized-1+{declared}" if declared else "normalized-1"
        return f"if the teacher writes shares of the image, --space {wanted} reads them"
    dialect = _DIALECTS.get(kind)
    if dialect and dialect != declared and not example.lower().startswith("<loc"):
        molmo = ", of Molmo --space molmo" if dialect == "xml" else ""
        return f"--space {name}+{dialect} reads them{molmo}"
    return _HINTS.get(kind, "no setting reads this; the prompt (--prompt) can ask for `(x, y)`")
