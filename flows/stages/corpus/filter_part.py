"""Judges the traces of one part of a corpus, beside what they are compared with.

    part = CorpusPart(rows, stored, unfiltered, beside)
    table = filter_part(warehouse, filters, run_id, part)     # verdicts that differ from the stored

A part is a value: another process can filter it (`workers`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pyarrow as pa

from curation.filters import dedup
from curation.filters.base import CORPUS, Context, Filter, apply_filters, verdict_without_words
from curation.filters.config import trace_filters
from curation.filters.decontaminate import ComparedQuestion, Match, NotInEvaluation
from flows.stages.verdicts import Verdicts, as_row, as_stored, changed_table
from mcts.data import Question, Trace, Verdict
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_image, read_questions
from warehouse.tables.schema import Row


@dataclass(frozen=True, slots=True)
class Beside:
    """What traces are seen beside; of their own questions and images, at least."""

    questions: Mapping[str, ComparedQuestion]
    """By id."""
    sizes: Mapping[str, tuple[int, int]]
    """Width and height by image id, pixels."""
    alike: Mapping[int, Mapping[str, str]]
    """By the bits in which hashes may differ: the group of each image that has a hash."""
    contaminated: Mapping[str, Sequence[Match]]
    """What an evaluation set knows, by question id."""


@dataclass(frozen=True, slots=True)
class CorpusPart:
    """Some groups of questions with their traces; the fields are those of `corpus_parts.Part`."""

    rows: pa.Table
    stored: pa.Table
    unfiltered: Mapping[str, Trace]
    beside: Beside


def filter_part(
    warehouse: Warehouse, filters: Sequence[Filter], run_id: str, part: CorpusPart
) -> pa.Table:
    """Apply the filters of this stage to a part; return new rows of `verdicts` where they differ
    from those stored."""
    stored, rows = as_stored(part.stored.to_pylist()), part.rows.to_pylist()
    verdicts = corpus_verdicts(
        warehouse, filters, part.beside, rows, stored.verdicts, part.unfiltered
    )
    return changed_table(verdicts, stored, run_id)


def corpus_verdicts(
    warehouse: Warehouse,
    filters: Sequence[Filter],
    beside: Beside,
    traces: Sequence[Mapping[str, Any]],
    before: Verdicts,
    unfiltered: Mapping[str, Trace],
) -> Verdicts:
    """Apply every filter of this stage to every trace of some groups of questions.

    Args:
        traces: rows as those of `Part`.
        before: stored verdicts; those of a content filter of the same method stand.
        unfiltered: by id, the traces on which a content filter has none, but for those in which
            nothing matches its signs.
    """
    verdicts = _content_verdicts(warehouse, filters, traces, before, unfiltered)
    for one in filters:
        if isinstance(one, NotInEvaluation):
            known = {
                question_id: contamination(one, beside.contaminated.get(question_id))
                for question_id in {row["question_id"] for row in traces}
            }
            for row in traces:
                verdicts[row["trace_id"]][one.name] = known[row["question_id"]]
    good = {
        row["trace_id"]: row["kept"] and all(v["keep"] for v in verdicts[row["trace_id"]].values())
        for row in traces
    }

    @cache
    def documents(cells: int, max_hash_bits: int) -> list[dedup.Document]:
        return _documents(traces, beside, beside.alike[max_hash_bits], cells, good)

    by_name = {one.name: one for one in filters if isinstance(one, dedup.CopyFilter)}
    exact, near = by_name.get("no_exact_copy"), by_name.get("no_near_copy")
    exact_found, near_found = {}, {}
    if exact:
        exact_found = dedup.exact_copies(documents(exact.cells, exact.max_hash_bits))
    if isinstance(near, dedup.NoNearCopy):
        every = documents(near.cells, near.max_hash_bits)
        rest = [one for one in every if one.trace_id not in exact_found]
        near_found = dedup.near_copies(rest, near)
    found = dedup.kept_originals(exact_found, near_found)
    for copy_filter in by_name.values():
        method = copy_filter.method
        original = as_row(dedup.verdict(copy_filter, None)[0], method)
        for trace_id, of_trace in verdicts.items():
            of_trace[copy_filter.name] = original
            if copy := found.get(trace_id):
                verdict, other = dedup.verdict(copy_filter, copy)
                of_trace[copy_filter.name] = as_row(verdict, method, other)
    return verdicts


def _content_verdicts(
    warehouse: Warehouse,
    filters: Sequence[Filter],
    traces: Sequence[Mapping[str, Any]],
    before: Verdicts,
    unfiltered: Mapping[str, Trace],
) -> Verdicts:
    """Apply the filters that see one trace; a verdict by the same method stands."""
    verdicts: Verdicts = {row["trace_id"]: {} for row in traces}
    ids = sorted({trace.question_id for trace in unfiltered.values()})
    found = read_questions(warehouse, question_ids=ids) if ids else ()
    questions = {question.question_id: question for question in found}
    for one in trace_filters(filters, CORPUS):
        method = one.method
        passed = as_row(verdict_without_words(one), method) if one.signs else None
        for trace_id, given in verdicts.items():
            stands = before.get(trace_id, {}).get(one.name)
            if stands and stands["method"] == method:
                given[one.name] = stands
                continue
            if passed and trace_id not in unfiltered:
                given[one.name] = passed
                continue
            trace = unfiltered[trace_id]
            question = questions[trace.question_id]
            context = Context(images=partial(_images, warehouse, question))
            (verdict,) = apply_filters(trace, question, [one], context)
            given[one.name] = as_row(verdict, method)
    return verdicts


def _images(warehouse: Warehouse, question: Question) -> list[bytes]:
    return [read_image(warehouse, image.image_id) for image in question.images]


def contamination(one: NotInEvaluation, matches: Sequence[Match] | None) -> Row:
    if not matches:
        return as_row(Verdict(one.name, True, ""), one.method)
    best = matches[0]
    also = f"; also by {', '.join(m.way for m in matches[1:])}" if matches[1:] else ""
    verdict = Verdict(one.name, False, best.reason + also, best.closeness)
    return as_row(verdict, one.method, best.question_id)


def _documents(
    traces: Sequence[Mapping[str, Any]],
    beside: Beside,
    alike: Mapping[str, str],
    cells: int,
    good: Mapping[str, bool],
) -> list[dedup.Document]:
    """Make the documents of the traces that are compared with another.

    Those of a question follow one another: they share steps, whose places are then decided once.
    """
    asked = {row["question_id"]: beside.questions[row["question_id"]].image_ids for row in traces}
    images = {
        q: tuple(alike.get(image_id, image_id) for image_id in ids) for q, ids in asked.items()
    }
    sizes = {q: [beside.sizes[image_id] for image_id in ids] for q, ids in asked.items()}
    ordered = sorted(traces, key=lambda row: str(row["question_id"]))

    def answer_of(row: Mapping[str, Any]) -> str:
        asked = beside.questions[row["question_id"]]
        seen = tuple(sizes[asked.question_id])
        return dedup.answer_key(row["answer"] or "", asked.choices, asked.kind, seen, cells)

    groups = [(str(row["kind"]), answer_of(row), images[row["question_id"]]) for row in ordered]
    members = Counter(groups)
    return [
        dedup.Document(
            row["trace_id"],
            *group,
            dedup.canonical(row["text"] or "", sizes[row["question_id"]], cells, group[1]),
            good=good[row["trace_id"]],
        )
        for row, group in zip(ordered, groups, strict=True)
        if members[group] > 1
    ]
