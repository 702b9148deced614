"""Choosing among kept traces: fair to questions, families and difficulties, the same every time.

    rows = [Candidate(trace.trace_id, question_id, family, band, trust(trace, tree)), …]
    chosen = select(rows, per_question=4, total=10_000, seed="a")         # trace ids, sorted

Each trace draws a number from the hash of its own id and the seed, scaled by its trust: smaller
comes first, and a trace twice as trusted comes first twice as often (weighted sampling without
replacement, Efraimidis and Spirakis 2006). No draw depends on another, so order and machine do not
matter, and rows that come later push out only what they overtake in their own question and cell.

The view `trace_draws` holds the same numbers (for the seed ""); tests compare both.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from mcts.data import Trace
from mcts.tree import Tree


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the choice knows of one trace."""

    trace_id: str
    question_id: str
    family: str
    band: str
    """Difficulty of its question, as `tests.support.pass_rate_bands` bands it."""
    trust: float = 0.5
    """How far the search bears it out, above 0 to 1; see `trust`."""


def trust(trace: Trace, tree: Tree) -> float:
    """Estimate how far the search bears a trace out: by its nodes' values and visits.

    The mean over the nodes it goes through of (right + 1) / (visits + 2): near 1/2 where little is
    known, near the value where much is. A lucky guess behind steps that mostly fail ranks below
    a chain whose every step held. Of a corrected chain the wrong attempt is not counted.
    """
    wrong, turn = trace.wrong_from, trace.turns_back_at
    attempt = range(wrong, turn) if wrong is not None and turn is not None else range(0)
    nodes = {node.node_id: node for node in tree.nodes}
    through = {o.node_id for i, o in enumerate(trace.origins) if i not in attempt}
    shares = [
        (nodes[node_id].total + 1) / (nodes[node_id].visits + 2)
        for node_id in sorted(i for i in through if i is not None)
    ]
    return sum(shares) / len(shares) if shares else 0.5


def draw(trace_id: str, trust: float, seed: str = "") -> float:
    """Return where a trace stands in the drawing: above 0; smaller comes first."""
    digest = hashlib.md5(f"{seed}|{trace_id}".encode(), usedforsecurity=False).hexdigest()
    uniform = (int(digest[:13], 16) + 0.5) / 2**52
    return -math.log(uniform) / trust


def select(
    candidates: Iterable[Candidate],
    *,
    per_question: int | None = None,
    per_cell: int | None = None,
    total: int | None = None,
    seed: str = "",
) -> list[str]:
    """Choose traces; their ids, in order.

    Args:
        per_question: most traces of one question.
        per_cell: most traces of one family and difficulty; with this rather than `total`, what is
            added to one cell never changes another.
        total: most traces in all, spread evenly over the cells as far as they reach: first one of
            each, then a second of each, and so on.
    """
    known = {row.trace_id: row for row in candidates}
    place = {i: (draw(i, row.trust, seed), i) for i, row in known.items()}
    rows = sorted(known.values(), key=lambda row: place[row.trace_id])
    # In a cell the first trace of every question comes before the second of any.
    in_question = _ranks(rows, [row.question_id for row in rows])
    rows = [row for row in rows if _below(in_question[row.trace_id], per_question)]
    rows.sort(key=lambda row: in_question[row.trace_id])
    in_cell = _ranks(rows, [(row.family, row.band) for row in rows])
    rows = [row for row in rows if _below(in_cell[row.trace_id], per_cell)]
    rows.sort(key=lambda row: (in_cell[row.trace_id], place[row.trace_id]))
    return sorted(row.trace_id for row in rows[:total])


def _ranks(rows: Sequence[Candidate], groups: Sequence[Hashable]) -> dict[str, int]:
    """Return the place of each row among those of its group, from 0, in the order given."""
    seen: defaultdict[Hashable, int] = defaultdict(int)
    ranks: dict[str, int] = {}
    for row, group in zip(rows, groups, strict=True):
        ranks[row.trace_id] = seen[group]
        seen[group] += 1
    return ranks


def _below(rank: int, most: int | None) -> bool:
    return most is None or rank < most
