"""The second pass of curation: filters that must see a trace beside all others of its task.

    changed = await judge_corpus(warehouse, run_id, "sat2")     # traces with a new verdict

Copies are found among the traces of a task, contamination between its training questions and every
evaluation question, and the pictures of training questions get their places in the split. Filters
of content run here as well: which of them are on depends on what is installed.

What a trace's neighbours are changes as the warehouse grows, so these verdicts are a stage of their
own (`verdicts.stage = 'corpus'`): a trace is given a new version of all of them when any of them
changed, and the newest version of each stage counts (`latest_verdicts`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from curation.filters import content, dedup
from curation.filters import image_hash as phash
from curation.filters.decontaminate import METHODS, Asked, Match, compare
from mcts.data import Question, Verdict
from warehouse.query.catalog import query
from warehouse.query.dedup_inputs import perceptual_hashes, place_images, read_asked
from warehouse.query.read_back import read_traces
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import read_image, read_questions, verdict_row

STAGE = "corpus"
_AT_ONCE = 1000  # traces held whole in memory, for the filters of content

Said = dict[str, dict[str, Any]]
"""A trace's verdicts of this stage by filter: keep, reason, score, method and other."""


async def judge_corpus(warehouse: Warehouse, run_id: str, task: str) -> int:
    """Judge a task's traces beside each other; return how many have a new verdict."""
    return await asyncio.to_thread(_judge_corpus, warehouse, run_id, task)


def _judge_corpus(warehouse: Warehouse, run_id: str, task: str) -> int:
    asked = read_asked(warehouse)
    training = [one for one in asked if not one.evaluates]
    pictures = {image_id for one in asked for image_id in one.image_ids}
    hashes = perceptual_hashes(warehouse, pictures, run_id)
    place_images(warehouse, training, hashes, run_id)
    here = {one.question_id: one for one in training if one.task == task}
    found = compare(here.values(), [one for one in asked if one.evaluates], hashes)
    while True:
        traces = _traces(warehouse, task, here)
        before, versions = _said_before(warehouse, task)
        said = _judged(warehouse, traces, here, found.contaminated, hashes, before)
        rows = [
            {**verdict_row(trace_id, Verdict(name, v["keep"], v["reason"], v["score"]), version),
             "stage": STAGE, "method": v["method"], "other": v["other"], "run_id": run_id}
            for trace_id, verdicts in said.items() if verdicts != before.get(trace_id)
            for version in [versions.get(trace_id, 0) + 1]
            for name, v in verdicts.items()
        ]  # fmt: skip
        # All or nothing: where another process was faster, what it said is read and compared.
        if not rows or insert_new(warehouse, "verdicts", rows, whole=True):
            return len({row["trace_id"] for row in rows})


def _judged(
    warehouse: Warehouse,
    traces: Sequence[Mapping[str, Any]],
    questions: Mapping[str, Asked],
    known: Mapping[str, list[Match]],
    hashes: Mapping[str, int | None],
    before: Mapping[str, Said],
) -> dict[str, Said]:
    """What every filter of this stage says of every trace."""
    said = _content(warehouse, [row["trace_id"] for row in traces], before)
    for row in traces:
        said[row["trace_id"]]["not_in_evaluation"] = _in_evaluation(known.get(row["question_id"]))
    alike = phash.alike(hashes)
    sizes = _sizes(warehouse, questions.values())
    documents = []
    for row in traces:
        image_ids = questions[row["question_id"]].image_ids
        documents.append(
            dedup.Document(
                row["trace_id"],
                row["kind"],
                (row["answer"] or "").casefold(),
                tuple(alike.get(image_id, image_id) for image_id in image_ids),
                dedup.canonical(row["text"] or "", [sizes[image_id] for image_id in image_ids]),
                good=row["kept"] and all(v["keep"] for v in said[row["trace_id"]].values()),
            )
        )
    copies = dedup.find_copies(documents)
    for one in documents:
        for verdict, other in dedup.verdicts(one.trace_id, copies):
            said[one.trace_id][verdict.filter] = _told(verdict, dedup.METHOD, other)
    return said


def _content(
    warehouse: Warehouse, trace_ids: list[str], before: Mapping[str, Said]
) -> dict[str, Said]:
    """What the filters of content say; what one has said by the same method stands."""
    said: dict[str, Said] = {trace_id: {} for trace_id in trace_ids}
    for one in content.installed():
        todo = []
        for trace_id in trace_ids:
            stands = before.get(trace_id, {}).get(one.name)
            if stands and stands["method"] == one.method:
                said[trace_id][one.name] = stands
            else:
                todo.append(trace_id)
        for start in range(0, len(todo), _AT_ONCE):
            some = read_traces(warehouse, todo[start : start + _AT_ONCE])
            ids = {trace.question_id for trace, _ in some}
            asked = {q.question_id: q for q in read_questions(warehouse, question_ids=sorted(ids))}
            for trace, _ in some:
                question = asked[trace.question_id]
                verdict = one.judge(trace, question, partial(_pictures, warehouse, question))
                said[trace.trace_id][one.name] = _told(verdict, one.method, None)
    return said


def _pictures(warehouse: Warehouse, question: Question) -> list[bytes]:
    return [read_image(warehouse, image.image_id) for image in question.images]


def _in_evaluation(matches: Sequence[Match] | None) -> dict[str, Any]:
    name = "not_in_evaluation"
    method = "; ".join(f"{way}: {how}" for way, how in METHODS.items())
    if not matches:
        return _told(Verdict(name, True, ""), method, None)
    best = matches[0]
    also = f"; also by {', '.join(m.way for m in matches[1:])}" if matches[1:] else ""
    verdict = Verdict(name, False, best.reason + also, best.closeness)
    return _told(verdict, method, best.question_id)


def _told(verdict: Verdict, method: str, other: str | None) -> dict[str, Any]:
    told = {"keep": verdict.keep, "reason": verdict.reason, "score": verdict.score}
    return {**told, "method": method, "other": other}


def _traces(
    warehouse: Warehouse, task: str, questions: Mapping[str, Asked]
) -> list[dict[str, Any]]:
    """The task's searched traces, and whether every filter that sees one alone keeps it.

    One that those filters have not judged is left out: it must not count as kept by this stage.
    """
    table = query(
        warehouse,
        "SELECT trace_id, question_id, kind, answer, text, kept "
        "FROM latest_traces JOIN (SELECT trace_id, bool_and(keep) AS kept "
        f"FROM latest_verdicts WHERE stage IS DISTINCT FROM '{STAGE}' GROUP BY trace_id) "
        f"USING (trace_id) WHERE task = {quoted(task)} AND origin = 'search' ORDER BY trace_id",
    )
    return [row for row in table.to_pylist() if row["question_id"] in questions]


def _said_before(warehouse: Warehouse, task: str) -> tuple[dict[str, Said], dict[str, int]]:
    """The newest verdicts of this stage, and their version, by trace."""
    table = query(
        warehouse,
        "SELECT trace_id, filter, version, keep, reason, score, method, other FROM latest_verdicts "
        f"SEMI JOIN (SELECT trace_id FROM traces WHERE task = {quoted(task)}) USING (trace_id) "
        f"WHERE stage = '{STAGE}'",
    )
    said: dict[str, Said] = {}
    versions: dict[str, int] = {}
    for row in table.to_pylist():
        trace_id, name = row.pop("trace_id"), row.pop("filter")
        versions[trace_id] = row.pop("version")
        said.setdefault(trace_id, {})[name] = row
    return said, versions


def _sizes(warehouse: Warehouse, asked: Any) -> dict[str, tuple[int, int]]:
    wanted = {image_id for one in asked for image_id in one.image_ids}
    rows = query(warehouse, "SELECT image_id, width, height FROM images").to_pylist()
    return {r["image_id"]: (r["width"], r["height"]) for r in rows if r["image_id"] in wanted}
