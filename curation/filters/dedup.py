"""Traces that say what another says: exact copies, and near ones.

    found = find_copies(documents)          # {trace_id: Copy(of="…", similarity=0.93)}

A trace is what is said about pictures. So two traces are compared when they are of one kind, give
one answer, and are about the same pictures, or ones that look the same: two of one question, or of
two questions about one image. The same words about another picture are another example.

What is compared is the canonical text: words without case, tags and punctuation, and each point as
the cell it falls in, so that a pixel more or less makes no difference. Of a group of copies the
best is kept: what the other filters keep before what they drop, then by trace id, which is a
content hash. The order in which traces come plays no part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from curation.filters.minhash import BANDS, ROWS, SEED, WIDTH, copies, shingles, words_of
from mcts.data import Point, Verdict
from mcts.parsing import with_points_told

THRESHOLD = 0.8
"""Jaccard similarity of shingles from which one trace is a near copy of another."""
CELLS = 32
"""Cells along an image's longer side; points in one cell are the same place."""
METHOD = f"minhash/1 {WIDTH}-words {BANDS}x{ROWS} seed {SEED} >= {THRESHOLD:g}, {CELLS} cells"
"""Name, version and settings of the comparison; stored with each verdict."""

_TAG = re.compile(r"</?\w+>")


@dataclass(frozen=True, slots=True)
class Document:
    """A trace as it is compared."""

    trace_id: str
    kind: str
    answer: str
    """The final answer, in lower case; empty if none was given."""
    pictures: tuple[str, ...]
    """Its question's images, each by the name of its group of alike pictures."""
    text: str
    """Its canonical text."""
    good: bool = True
    """Whether every other filter keeps it."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Of which kept trace another is a copy."""

    of: str
    similarity: float
    """Jaccard similarity of their shingles."""
    exact: bool
    """Whether their canonical texts are equal."""


def canonical(text: str, sizes: Sequence[tuple[int, int]]) -> str:
    """A trace's text as it is compared.

    Args:
        text: the whole reasoning, points in original pixels.
        sizes: width and height of each of the question's images, pixels.
    """

    def cell(point: Point) -> str:
        side = max(sizes[point.image]) if 0 <= point.image < len(sizes) else CELLS
        x, y = (int(v * CELLS // side) for v in (point.x, point.y))
        return f" @{point.image}:{x}:{y} "

    return " ".join(words_of(with_points_told(_TAG.sub(" ", text), cell)))


def find_copies(documents: Iterable[Document], threshold: float = THRESHOLD) -> dict[str, Copy]:
    """The traces to drop, each with the kept one it copies."""
    ordered = sorted(documents, key=lambda d: (not d.good, d.trace_id))
    found: dict[str, Copy] = {}
    first: dict[tuple[object, ...], Document] = {}
    for one in ordered:
        same = first.setdefault((*_group(one), one.text), one)
        if same is not one:
            found[one.trace_id] = Copy(same.trace_id, 1.0, exact=True)
    different = list(first.values())
    numbers: dict[tuple[object, ...], int] = {}
    groups = [numbers.setdefault(_group(one), len(numbers)) for one in different]
    texts = [shingles(one.text) for one in different]
    for one, near in zip(different, copies(texts, groups, threshold), strict=True):
        if near is not None:
            found[one.trace_id] = Copy(different[near[0]].trace_id, near[1], exact=False)
    # The text of an exact copy may itself have been dropped as a near copy: name what is kept.
    for trace_id, copy in found.items():
        if copy.exact and copy.of in found:
            above = found[copy.of]
            found[trace_id] = Copy(above.of, above.similarity, exact=False)
    return found


def verdicts(trace_id: str, found: dict[str, Copy]) -> list[tuple[Verdict, str | None]]:
    """What the two filters say of a trace, each with the id of the trace it names."""
    copy = found.get(trace_id)
    exact, near = Verdict("no_exact_copy", True, ""), Verdict("no_near_copy", True, "")
    if copy is None:
        return [(exact, None), (near, None)]
    if copy.exact:
        reason = f"it says word for word what trace {copy.of} says"
        return [(Verdict(exact.filter, False, reason, 1.0), copy.of), (near, None)]
    reason = f"it says nearly what trace {copy.of} says (similarity {copy.similarity:.2f})"
    return [(exact, None), (Verdict(near.filter, False, reason, copy.similarity), copy.of)]


def _group(one: Document) -> tuple[object, ...]:
    return one.kind, one.answer, one.pictures
