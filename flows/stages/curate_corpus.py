"""The second pass of curation: filters that must see a trace beside all others of its task.

    changed = await filter_corpus(warehouse, run_id, "sat2")     # traces with a new verdict

Copies are found among the traces of a task, contamination between its training questions and every
evaluation question, and the images of training questions get their places in the split. Filters of
content run here as well, since they may be slow: a verdict by the same method stands.

What a trace's neighbours are changes as the warehouse grows, so these verdicts are a stage of their
own (`verdicts.stage = 'corpus'`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from curation.filters import dedup, image_hash
from curation.filters.base import CORPUS, Context, Filter, apply_filters
from curation.filters.config import DEFAULT_FILTERS, trace_filters
from curation.filters.decontaminate import (
    DEFAULT,
    ComparedQuestion,
    Match,
    NotInEvaluation,
    compare,
)
from flows.stages.verdicts import Verdicts, as_row, changed_rows, stored_verdicts
from mcts.data import Question, Trace, Verdict
from warehouse.query.dedup_inputs import perceptual_hashes, place_images, read_compared
from warehouse.query.read_back import read_traces
from warehouse.query.run_query import query
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import read_image, read_questions
from warehouse.tables.schema import Row

_AT_ONCE = 1000  # traces held whole in memory, for the filters of content


@dataclass(frozen=True, slots=True)
class Corpus:
    """The questions beside which the traces of a task are seen."""

    training: list[ComparedQuestion]
    """The training questions of every task."""
    questions: dict[str, ComparedQuestion]
    """Those of this task, by id."""
    hashes: dict[str, int | None]
    """Perceptual hashes by image id."""
    contaminated: dict[str, list[Match]]
    """What an evaluation set knows, by question id."""


async def filter_corpus(
    warehouse: Warehouse, run_id: str, task: str, filters: Sequence[Filter] = DEFAULT_FILTERS
) -> int:
    """Apply the filters of this stage to a task's traces; return how many have a new verdict."""
    return await asyncio.to_thread(_filter_corpus, warehouse, run_id, task, filters)


def _filter_corpus(warehouse: Warehouse, run_id: str, task: str, filters: Sequence[Filter]) -> int:
    corpus = read_corpus(warehouse, task, filters, run_id)
    place_images(warehouse, corpus.training, corpus.hashes, run_id)
    ahead = 0
    while True:
        traces = corpus_traces(warehouse, task, corpus)
        stored = stored_verdicts(warehouse, CORPUS, task=task)
        load = partial(stored_traces, warehouse)
        verdicts = corpus_verdicts(warehouse, filters, corpus, traces, stored.verdicts, load)
        rows = changed_rows(verdicts, stored, CORPUS, run_id, ahead)
        # All or nothing: where another process was faster, its verdicts are read and compared.
        if not rows or insert_new(warehouse, "verdicts", rows, whole=True):
            return len({row["trace_id"] for row in rows})
        ahead += 1


def read_corpus(
    warehouse: Warehouse, task: str, filters: Sequence[Filter], run_id: str | None = None
) -> Corpus:
    """Read what the filters compare with; new image hashes are stored if a run is named."""
    every = read_compared(warehouse)
    training = [one for one in every if not one.evaluates]
    images = {image_id for one in every for image_id in one.image_ids}
    hashes = perceptual_hashes(warehouse, images, run_id, store=run_id is not None)
    here = {one.question_id: one for one in training if one.task == task}
    rule = next((one for one in filters if isinstance(one, NotInEvaluation)), DEFAULT)
    evaluation = [one for one in every if one.evaluates]
    found = compare(here.values(), evaluation, hashes, rule)
    return Corpus(training, here, hashes, found.contaminated)


def corpus_traces(warehouse: Warehouse, task: str, corpus: Corpus) -> list[dict[str, Any]]:
    """List the task's searched traces, and whether every first-stage filter keeps each.

    One that those filters have not judged is left out: it must not count as kept by this stage.
    """
    table = query(
        warehouse,
        "SELECT trace_id, question_id, tree_id, kind, answer, text, kept "
        "FROM latest_traces JOIN (SELECT trace_id, bool_and(keep) AS kept "
        f"FROM latest_verdicts WHERE stage IS DISTINCT FROM '{CORPUS}' GROUP BY trace_id) "
        f"USING (trace_id) WHERE task = {quoted(task)} AND origin = 'search' ORDER BY trace_id",
    )
    return [row for row in table.to_pylist() if row["question_id"] in corpus.questions]


def stored_traces(warehouse: Warehouse, trace_ids: Sequence[str]) -> list[Trace]:
    """Read traces of the warehouse."""
    return [trace for trace, _ in read_traces(warehouse, trace_ids)]


def corpus_verdicts(
    warehouse: Warehouse,
    filters: Sequence[Filter],
    corpus: Corpus,
    traces: Sequence[Mapping[str, Any]],
    before: Verdicts,
    load: Callable[[Sequence[str]], list[Trace]],
) -> Verdicts:
    """Apply every filter of this stage to every trace.

    Args:
        traces: rows as of `corpus_traces`.
        before: stored verdicts; those of a content filter of the same method stand.
        load: gives the traces of some ids.
    """
    verdicts = _content_verdicts(warehouse, filters, [r["trace_id"] for r in traces], before, load)
    for one in filters:
        if isinstance(one, NotInEvaluation):
            for row in traces:
                known = corpus.contaminated.get(row["question_id"])
                verdicts[row["trace_id"]][one.name] = _contamination(one, known)
    sizes = _sizes(warehouse, corpus)
    good = {
        row["trace_id"]: row["kept"] and all(v["keep"] for v in verdicts[row["trace_id"]].values())
        for row in traces
    }

    @cache
    def documents(cells: int, max_hash_bits: int) -> list[dedup.Document]:
        alike = image_hash.group_similar(corpus.hashes, max_hash_bits)
        return [_document(row, corpus, alike, sizes, cells, good) for row in traces]

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
        for trace_id, of_trace in verdicts.items():
            verdict, other = dedup.verdict(copy_filter, found.get(trace_id))
            of_trace[copy_filter.name] = as_row(verdict, copy_filter.method, other)
    return verdicts


def _content_verdicts(
    warehouse: Warehouse,
    filters: Sequence[Filter],
    trace_ids: list[str],
    before: Verdicts,
    load: Callable[[Sequence[str]], list[Trace]],
) -> Verdicts:
    """Apply the filters that see one trace; a verdict by the same method stands."""
    verdicts: Verdicts = {trace_id: {} for trace_id in trace_ids}
    for one in trace_filters(filters, CORPUS):
        todo = []
        for trace_id in trace_ids:
            stands = before.get(trace_id, {}).get(one.name)
            if stands and stands["method"] == one.method:
                verdicts[trace_id][one.name] = stands
            else:
                todo.append(trace_id)
        for start in range(0, len(todo), _AT_ONCE):
            some = load(todo[start : start + _AT_ONCE])
            ids = sorted({trace.question_id for trace in some})
            questions = {q.question_id: q for q in read_questions(warehouse, question_ids=ids)}
            for trace in some:
                question = questions[trace.question_id]
                context = Context(images=partial(_images, warehouse, question))
                (verdict,) = apply_filters(trace, question, [one], context)
                verdicts[trace.trace_id][one.name] = as_row(verdict, one.method)
    return verdicts


def _images(warehouse: Warehouse, question: Question) -> list[bytes]:
    return [read_image(warehouse, image.image_id) for image in question.images]


def _contamination(one: NotInEvaluation, matches: Sequence[Match] | None) -> Row:
    if not matches:
        return as_row(Verdict(one.name, True, ""), one.method)
    best = matches[0]
    also = f"; also by {', '.join(m.way for m in matches[1:])}" if matches[1:] else ""
    verdict = Verdict(one.name, False, best.reason + also, best.closeness)
    return as_row(verdict, one.method, best.question_id)


def _document(
    row: Mapping[str, Any],
    corpus: Corpus,
    alike: Mapping[str, str],
    sizes: Mapping[str, tuple[int, int]],
    cells: int,
    good: Mapping[str, bool],
) -> dedup.Document:
    """Make the document that is compared of a trace."""
    image_ids = corpus.questions[row["question_id"]].image_ids
    return dedup.Document(
        row["trace_id"],
        row["kind"],
        (row["answer"] or "").casefold(),
        tuple(alike.get(image_id, image_id) for image_id in image_ids),
        dedup.canonical(row["text"] or "", [sizes[i] for i in image_ids], cells),
        good=good[row["trace_id"]],
    )


def _sizes(warehouse: Warehouse, corpus: Corpus) -> dict[str, tuple[int, int]]:
    wanted = {image_id for one in corpus.questions.values() for image_id in one.image_ids}
    rows = query(warehouse, "SELECT image_id, width, height FROM images").to_pylist()
    return {r["image_id"]: (r["width"], r["height"]) for r in rows if r["image_id"] in wanted}
