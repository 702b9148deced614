"""What a curation would keep and drop, before it is done: `vigorl curate TASK --dry-run`.

    preview = await preview_curation(CurateSettings(task="sat2", filters="filters.yaml"))
    print(preview.text())

Computed by the functions that curate, on the same trees; nothing is written. All traces of the task
are held in memory with their texts: a million want some six gigabytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from curation.filters import image_hash
from curation.filters.base import CORPUS, Filter
from curation.filters.config import trace_filters
from curation.filters.decontaminate import DEFAULT, NotInEvaluation, compare
from curation.filters.dedup import CopyFilter
from flows.settings import CurateSettings
from flows.stages.corpus.filter_part import Beside, corpus_verdicts
from flows.stages.curate import CURATION_BATCH, cut_trees, find_uncurated, read_filters, trees_of
from flows.stages.verdicts import Verdicts, stored_verdicts
from mcts.data import Trace
from warehouse.query.dedup_inputs import compared_questions, perceptual_hashes
from warehouse.query.read_back import read_traces
from warehouse.query.run_query import connect_trusted, query_trusted
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row

_EXAMPLES = 3


@dataclass(slots=True)
class Change:
    """What one filter, or all together, keeps now and then."""

    name: str
    kept_now: int | None = None
    """None where it has judged no trace."""
    kept_then: int | None = None
    newly_dropped: list[str] = field(default_factory=list)
    """Trace ids, in order."""
    newly_kept: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Preview:
    """The outcome of a curation that was not done."""

    task: str
    traces_now: int
    traces_then: int
    filters: list[Change]
    """Those that ran last and those that would run, in order."""
    total: Change
    """Traces that every filter keeps."""

    def text(self) -> str:
        """Format a table with one line a filter, the totals, and some trace ids of what changes."""
        head = ("filter", "kept now", "kept then", "newly dropped", "newly kept")
        lines = [
            (c.name, c.kept_now, c.kept_then, len(c.newly_dropped), len(c.newly_kept))
            for c in (*self.filters, self.total)
        ]
        table = [head, *(tuple("-" if c is None else str(c) for c in line) for line in lines)]
        widths = [max(len(row[i]) for row in table) for i in range(len(head))]
        shown = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in table
        ]
        shown.insert(-1, "-" * len(shown[0]))
        for change in self.filters:
            for word, ids in (("drops", change.newly_dropped), ("lets pass", change.newly_kept)):
                if ids:
                    more = f", and {len(ids) - _EXAMPLES} more" * (len(ids) > _EXAMPLES)
                    shown.append(f"{change.name} newly {word}: {', '.join(ids[:_EXAMPLES])}{more}")
        traces = f"{self.traces_now} traces of {self.task} now, {self.traces_then} then"
        return "\n".join([*shown, f"{traces}; a dry run: nothing was written"])


async def preview_curation(settings: CurateSettings) -> Preview:
    """Compute what `curate` with these settings would change; nothing is written."""
    filters = read_filters(settings.filters)
    return await asyncio.to_thread(_preview, Warehouse.at(settings.home), settings.task, filters)


def _preview(warehouse: Warehouse, task: str, filters: Sequence[Filter]) -> Preview:
    tree_ids = trees_of(warehouse, task)
    latest = query_trusted(
        warehouse,
        "SELECT trace_id, tree_id FROM latest_traces "
        f"WHERE task = {quoted(task)} AND origin = 'search'",
    ).to_pylist()
    first, corpus = (stored_verdicts(warehouse, stage, task=task) for stage in (None, CORPUS))
    now = {
        row["trace_id"]: {
            **first.verdicts.get(row["trace_id"], {}),
            **corpus.verdicts.get(row["trace_id"], {}),
        }
        for row in latest
    }
    traces: dict[str, Trace] = {}
    rows: dict[str, Row] = {}
    recut: set[str] = set()
    verdicts: Verdicts = {}
    todo = find_uncurated(warehouse, tree_ids, filters)
    recut.update(todo)
    for start in range(0, len(todo), CURATION_BATCH):
        cut = cut_trees(warehouse, todo[start : start + CURATION_BATCH], filters)
        verdicts |= cut.verdicts
        traces |= {t.trace_id: t for t in cut.traces if t.trace_id not in now}
        rows |= {row["trace_id"]: row for row in cut.rows}
    for row in latest:
        if row["tree_id"] not in recut:
            verdicts[row["trace_id"]] = first.verdicts.get(row["trace_id"], {})
    beside = _beside(warehouse, task, filters)
    known = [r for r in _known_rows(warehouse, task) if r["tree_id"] not in recut]
    known += [
        {**row, "kept": all(v["keep"] for v in verdicts[trace_id].values())}
        for trace_id, row in rows.items()
    ]
    known = [row for row in known if row["question_id"] in beside.questions]
    known.sort(key=lambda row: str(row["trace_id"]))
    methods = {one.name: one.method for one in trace_filters(filters, CORPUS)}
    unjudged = []
    for row in known:
        given = corpus.verdicts.get(row["trace_id"], {})
        if any(name not in given or given[name]["method"] != m for name, m in methods.items()):
            unjudged.append(row["trace_id"])
    stored = read_traces(warehouse, [i for i in unjudged if i not in traces])
    whole = traces | {trace.trace_id: trace for trace, _ in stored}
    second = corpus_verdicts(warehouse, filters, beside, known, corpus.verdicts, whole)
    then = {i: {**v, **second.get(i, corpus.verdicts.get(i, {}))} for i, v in verdicts.items()}
    names = [one.name for one in filters]
    names += sorted({name for of_trace in now.values() for name in of_trace} - set(names))
    changes = [_change(name, now, then, [name]) for name in names]
    total = _change("all filters", now, then, names)
    return Preview(task, len(now), len(then), changes, total)


def _beside(warehouse: Warehouse, task: str, filters: Sequence[Filter]) -> Beside:
    """Read all that the task's traces are seen beside."""
    with connect_trusted(warehouse, ["questions", "images"]) as con:
        every = [one for some in compared_questions(con) for one in some]
        sizes = con.sql("SELECT image_id, width, height FROM images").fetchall()
    images = {image_id for one in every for image_id in one.image_ids}
    hashes = perceptual_hashes(warehouse, images, store=False)
    ours = [one for one in every if one.task == task and not one.evaluates]
    rule = next((one for one in filters if isinstance(one, NotInEvaluation)), DEFAULT)
    known = [one for one in every if one.evaluates]
    return Beside(
        {one.question_id: one for one in ours},
        {image_id: (width, height) for image_id, width, height in sizes},
        {
            one.max_hash_bits: image_hash.group_similar(hashes, one.max_hash_bits)
            for one in filters
            if isinstance(one, CopyFilter)
        },
        compare(ours, known, hashes, rule).contaminated,
    )


def _known_rows(warehouse: Warehouse, task: str) -> list[Row]:
    """Read the task's searched traces, and whether every first-stage filter keeps each.

    One that those filters have not judged is left out: it must not count as kept by this stage.
    """
    table = query_trusted(
        warehouse,
        "SELECT trace_id, question_id, tree_id, kind, answer, text, kept "
        "FROM latest_traces JOIN (SELECT trace_id, bool_and(keep) AS kept "
        f"FROM latest_verdicts WHERE stage IS DISTINCT FROM '{CORPUS}' GROUP BY trace_id) "
        f"USING (trace_id) WHERE task = {quoted(task)} AND origin = 'search'",
    )
    return list(table.to_pylist())


def _change(name: str, now: Verdicts, then: Verdicts, names: Iterable[str]) -> Change:
    """Compare what `names` keep together; a trace none of them judged counts for neither."""

    def kept(verdicts: Verdicts, trace_id: str) -> bool | None:
        of_trace: Mapping[str, Mapping[str, bool]] = verdicts.get(trace_id, {})
        given = [of_trace[n]["keep"] for n in names if n in of_trace]
        return all(given) if given else None

    names = list(names)
    change = Change(name)
    for trace_id in sorted({*now, *then}):
        before, after = kept(now, trace_id), kept(then, trace_id)
        if before is not None:
            change.kept_now = (change.kept_now or 0) + before
        if after is not None:
            change.kept_then = (change.kept_then or 0) + after
        if after is False and before is not False:
            change.newly_dropped.append(trace_id)
        if before is False and after is not False:
            change.newly_kept.append(trace_id)
    return change
