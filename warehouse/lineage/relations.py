"""The relations of lineage: which kind of entity is made from which, as SQL (`relations.sql`).

    for relation in relations("trace"):      # those a walk that starts at a trace follows
        relation.parent, relation.child, relation.sql

From a trace, a node, a response or a crop, the path between a search and a trace leads through the
single responses, crops and nodes; from anything larger it is one edge, or there would be millions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

CLOSE_UP = frozenset({"trace", "node", "response", "crop"})
"""Kinds from which a walk follows single responses, crops and nodes."""
_HEAD = re.compile(r"^--- (\w+): (\w+) -> (\w+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Relation:
    """One way in which a kind of entity is made from another."""

    when: str
    """`always`; `near` or `far`, by the kind a walk starts from; `run`, for a walk from a run."""
    parent: str
    child: str
    sql: str
    """Yields `made_from` and `made_into`, ids of the two kinds; pairs may repeat."""


@cache
def _all_relations() -> tuple[Relation, ...]:
    text = (resources.files("warehouse.lineage") / "relations.sql").read_text("utf-8")
    _, *parts = _HEAD.split(text)
    heads = zip(*(parts[i::4] for i in range(4)), strict=True)
    return tuple(
        Relation(when, parent, child, sql.strip().rstrip(";")) for when, parent, child, sql in heads
    )


def relations(start: str) -> list[Relation]:
    """Return the relations that a walk follows from an entity of kind `start`."""
    followed = {"always", "near" if start in CLOSE_UP else "far"}
    if start == "run":  # every row was written by some run; only a walk from a run follows that
        followed.add("run")
    return [relation for relation in _all_relations() if relation.when in followed]


def all_statements() -> list[str]:
    """Return the statement of every relation."""
    return [relation.sql for relation in _all_relations()]
