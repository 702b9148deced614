"""Traces that repeat another: exact copies, and near ones.

    found = find_copies(documents)          # {trace_id: Copy(of="…", similarity=0.93)}

A trace is about images, so two traces are compared when they are of one kind, give
one answer, and are about the same images, or ones that look the same: two of one question, or of
two questions about one image. The same words about another image are another example.

What is compared is the canonical text: words without case, tags and punctuation, and each point, of
a zoom's call too, as the cell it falls in, so that a pixel more or less makes no difference. Nor
does how the answer is spelled (`answer_key`). Of a group of copies the best is kept: what the other
filters keep before what they drop, then by trace id, which is a content hash. The order in which
traces come plays no part.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from pydantic import Field

from curation.filters.base import CORPUS, Filter
from curation.filters.image_hash import SIMILAR_BITS
from curation.filters.minhash import BANDS, ROWS, SEED, WIDTH, copies, shingles_of
from curation.filters.words import words_of
from curation.grading.choices import choice_index
from curation.grading.grade import normal_answer
from mcts.data import AnswerKind, Verdict
from mcts.parsing import replace_places
from mcts.places.decide import Place

THRESHOLD = 0.8
CELLS = 32
MAKER = "minhash/2"
METHOD = f"{MAKER} {WIDTH}-words {BANDS}x{ROWS} seed {SEED} >= {THRESHOLD:g}, {CELLS} cells"


class CopyFilter(Filter):
    """What both filters of copies count as the same."""

    maker = MAKER
    stage = CORPUS
    default_method = METHOD
    cells: int = Field(
        default=CELLS,
        ge=1,
        description="cells along an image's longer side; points in one cell are one place",
    )
    max_hash_bits: int = Field(
        default=SIMILAR_BITS,
        ge=0,
        le=16,
        description="bits of 64 in which the hashes of two images that count as one may differ",
    )


class NoExactCopy(CopyFilter):
    """No other trace has the same words about the same images."""

    name = "no_exact_copy"


class NoNearCopy(CopyFilter):
    """No other trace has nearly the same words about the same images."""

    name = "no_near_copy"
    min_similarity: float = Field(
        default=THRESHOLD,
        ge=0.1,
        le=1,
        description="share of the runs of words in either text that are in both (Jaccard), from "
        "which one is a copy of the other, 0 to 1",
    )
    shingle_words: int = Field(default=WIDTH, ge=1, description="words in a run")


_TAG = re.compile(r"</?\w+>")
_ANSWER = re.compile(r"<answer>.*?</answer>", re.DOTALL)
_CALL = re.compile(r"<tool_call>.*?</tool_call>", re.DOTALL)
_CALLED = re.compile(r'"(?:coordinate|bbox_2d)": \[([^\[\]]*)\]')
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_CALLED_IMAGE = re.compile(r'"image": (\d{1,6})')


class Document(NamedTuple):
    """A trace as it is compared; a tuple, since a corpus has many."""

    trace_id: str
    kind: str
    answer: str
    """The final answer, by its `answer_key`; empty if none was given."""
    images: tuple[str, ...]
    """Its question's images, each by the name of its group of images that look alike."""
    text: str
    """Its canonical text."""
    good: bool = True
    """Whether every other filter keeps it."""

    @property
    def group(self) -> tuple[object, ...]:
        """What it has in common with those it is compared with: kind, answer and images."""
        return self[1:4]


@dataclass(frozen=True, slots=True)
class Copy:
    """Of which kept trace another is a copy."""

    of: str
    similarity: float
    """Jaccard similarity of their shingles."""
    exact: bool
    """Whether their canonical texts are equal."""


def canonical(
    text: str,
    sizes: Sequence[tuple[int, int]],
    cells: int = CELLS,
    answer: str | None = None,
) -> str:
    """Rewrite a trace's text as it is compared.

    Args:
        text: the whole reasoning, points in original pixels.
        sizes: width and height of each of the question's images, pixels.
        cells: cells along an image's longer side.
        answer: the `answer_key` of the answer that the text ends with; as written when left out.
    """
    if "<tool_call>" in text:
        text = _CALL.sub(lambda call: _call_in_cells(call[0], sizes, cells), text)
    if answer is not None:
        text = _ANSWER.sub(lambda _: f" {answer} ", text)
    text = _TAG.sub(" ", text)
    return " ".join(words_of(_in_cells(text, sizes, cells)))


@lru_cache(maxsize=1 << 14)
def answer_key(
    answer: str,
    choices: tuple[str, ...] = (),
    kind: AnswerKind = AnswerKind.TEXT,
    sizes: tuple[tuple[int, int], ...] = (),
    cells: int = CELLS,
) -> str:
    """Return what answers that say the same have in common: the text of the choice that one names,
    the cells of a place, else the normal form.

    Args:
        choices: those of the question; a letter alone says nothing beside another question.
        kind: only an answer that is asked to be a place is one.
        sizes: width and height of each of the question's images, pixels.
    """
    if (index := choice_index(choices, answer)) is not None:
        return normal_answer(choices[index])
    if kind in (AnswerKind.BOX, AnswerKind.POINT):
        return " ".join(_in_cells(answer.casefold(), sizes, cells).split())
    return normal_answer(answer)


def _in_cells(text: str, sizes: Sequence[tuple[int, int]], cells: int) -> str:
    def cell(place: Place) -> str:
        side = max(sizes[place.image]) if 0 <= place.image < len(sizes) else cells
        return _cell(place.x, place.y, place.image, side, cells)

    return replace_places(text, cell)


def _cell(x: float, y: float, image: int, side: int, cells: int) -> str:
    return f" @{image}:{int(x * cells // side)}:{int(y * cells // side)} "


def _call_in_cells(call: str, sizes: Sequence[tuple[int, int]], cells: int) -> str:
    """Rewrite the numbers of a zoom's call by cells; those of a crop are about as fine as those of
    the first image."""
    named = _CALLED_IMAGE.search(call)
    view = int(named[1]) - 1 if named else 0
    side = max(sizes[view] if 0 <= view < len(sizes) else sizes[0]) if sizes else cells

    def in_cells(told: re.Match[str]) -> str:
        numbers = list(map(float, _NUMBER.findall(told[1])))
        pairs = zip(numbers[::2], numbers[1::2], strict=False)
        return "".join(_cell(x, y, view, side, cells) for x, y in pairs)

    return _CALLED.sub(in_cells, call)


def find_copies(documents: Sequence[Document], near: NoNearCopy | None = None) -> dict[str, Copy]:
    """Find the traces to drop, each with the kept one that it copies.

    Args:
        near: how near copies are found; with the default values when left out.
    """
    exact = exact_copies(documents)
    rest = [one for one in documents if one.trace_id not in exact]
    return kept_originals(exact, near_copies(rest, near or NoNearCopy()))


def exact_copies(documents: Iterable[Document]) -> dict[str, Copy]:
    """Find the traces whose canonical text another has, each with the one to keep."""
    same: dict[tuple[object, ...], list[Document]] = defaultdict(list)
    for one in documents:
        same[one.group, one.text].append(one)
    found: dict[str, Copy] = {}
    for some in same.values():
        if len(some) > 1:
            best, *rest = _best_first(some)
            found.update((one.trace_id, Copy(best.trace_id, 1.0, exact=True)) for one in rest)
    return found


def near_copies(documents: Iterable[Document], near: NoNearCopy) -> dict[str, Copy]:
    """Find the traces whose text is similar to that of one to keep, which is named."""
    documents = list(documents)
    sizes = Counter(one.group for one in documents)
    # Nothing is to be read of a text that is compared with no other.
    ordered = _best_first(one for one in documents if sizes[one.group] > 1)
    numbers: dict[tuple[object, ...], int] = {}
    groups = [numbers.setdefault(one.group, len(numbers)) for one in ordered]
    texts = shingles_of([one.text for one in ordered], near.shingle_words)
    found = zip(ordered, copies(texts, groups, near.min_similarity), strict=True)
    return {
        one.trace_id: Copy(ordered[copy[0]].trace_id, copy[1], exact=False)
        for one, copy in found
        if copy is not None
    }


def kept_originals(exact: dict[str, Copy], near: dict[str, Copy]) -> dict[str, Copy]:
    """Join both; an exact copy of what was dropped as a near one names what is kept."""
    found = {**exact, **near}
    for trace_id, copy in exact.items():
        if copy.of in near:
            above = near[copy.of]
            found[trace_id] = Copy(above.of, above.similarity, exact=False)
    return found


def verdict(one: CopyFilter, copy: Copy | None) -> tuple[Verdict, str | None]:
    """Give the verdict of a filter of copies, and the id of the trace that it names."""
    if copy is None or copy.exact != isinstance(one, NoExactCopy):
        return Verdict(one.name, True, ""), None
    reason = f"it says word for word what trace {copy.of} says"
    if not copy.exact:
        reason = f"it says nearly what trace {copy.of} says (similarity {copy.similarity:.2f})"
    return Verdict(one.name, False, reason, copy.similarity), copy.of


def _best_first(documents: Iterable[Document]) -> list[Document]:
    ordered = sorted(documents, key=attrgetter("trace_id"))
    return [one for one in ordered if one.good] + [one for one in ordered if not one.good]
