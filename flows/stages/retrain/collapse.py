"""Checks that a champion which searched for its own training data did not narrow.

    outcome = check_collapse(cycle)
    outcome["checks"]                  # CollapseChecks, as JSON; none where no champion searched
    outcome["ends"]                    # where one failed: how the cycle ends, and a sentence

New searches by a model that is, or was, champion of the task are held against those of the last
cycle that came to a decision, and against those of the first that did: a slow decline might pass
the former every night. Before any, they are held against the searches of other models.
`curation.scores.collapse` measures.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from curation.grading.grade import choice_of
from curation.grading.normalize import normalize
from curation.scores.collapse import CollapseCheck, Searched, cell_of, compare
from flows.stages.retrain.cycle import Cycle, Tables, decided_earlier
from mcts.data import AnswerKind, Question
from mcts.teachers.identities import members
from warehouse.query.run_query import connect_trusted
from warehouse.registry import history
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_questions
from warehouse.tables.schema import Row

# A task's searches of training questions, without those that were revoked since.
_TREES = """
SELECT tree_id, model, run_id FROM trees
WHERE question_id IN (SELECT question_id FROM questions WHERE task = $1 AND split = 'train')
AND ($2 IS NULL OR created_at <= to_timestamp($2))
AND tree_id NOT IN (
    SELECT tree_id FROM traces JOIN revoked_traces USING (trace_id) WHERE tree_id IS NOT NULL
)
"""
_ENDS = """
SELECT tree_id, question_id, answer, reward >= 1 AS is_right
FROM outcomes JOIN trees USING (tree_id) SEMI JOIN wanted USING (tree_id)
"""
# A corrected trace repeats steps of two others.
_STEPS = """
SELECT tree_id, trace_id, x, y, image, grounded, len(string_split(trim(thought), ' ')) AS words
FROM steps JOIN (
    SELECT trace_id, tree_id FROM latest_traces WHERE kind <> 'corrected'
) USING (trace_id)
SEMI JOIN wanted USING (tree_id)
"""


def check_collapse(cycle: Cycle) -> Row:
    """Hold the new searches of champions against earlier ones."""
    warehouse, task = cycle.warehouse, cycle.task
    promoted = {row["model_id"] for row in history(warehouse, task) if row["promoted"]}
    earlier = decided_earlier(cycle)
    everything = _trees(warehouse, task)
    known = _trees(warehouse, task, earlier[-1]) if earlier else {}
    new = {name: row for name, row in everything.items() if name not in known}
    mine = {name for name, row in new.items() if promoted.intersection(members(row["model"]))}
    if not mine:
        return {"checks": []}
    if not earlier:
        references = {"the searches of other models": set(new) - mine}
    else:
        before = _trees(warehouse, task, earlier[-2]) if len(earlier) > 1 else {}
        first = _trees(warehouse, task, earlier[0]) if len(earlier) > 1 else known
        references = {earlier[0].name: set(first), earlier[-1].name: set(known) - set(before)}
    now = read_searches(warehouse, mine)
    checks = [
        check
        for since, trees in references.items()
        for check in compare(read_searches(warehouse, trees), now, since)
    ]
    outcome: Row = {"checks": [asdict(check) for check in checks]}
    if failed := [check for check in checks if check.failed]:
        runs = sorted({new[name]["run_id"] for name in mine})
        outcome["ends"] = {"outcome": "collapsed", "reason": _reason(failed, runs)}
    return outcome


def _reason(failed: list[CollapseCheck], runs: list[str]) -> str:
    said = "; ".join(check.sentence for check in failed)
    leave_out = ", ".join(f"`vigorl revoke run {run} --reason collapse`" for run in runs)
    return (
        f"what the champion searched itself is narrower than before: {said}; nothing was trained. "
        f"{leave_out} leaves it out of what comes"
    )


def _trees(warehouse: Warehouse, task: str, at: Cycle | None = None) -> dict[str, Row]:
    """Return a task's searches by id, all or those that a cycle published from."""

    def read(versions: Tables | None, until: float | None) -> list[Row]:
        names = ["trees", "questions", "traces", "revoked_traces"]
        with connect_trusted(warehouse, names, versions) as con:
            return con.sql(_TREES, params=[task, until]).to_arrow_table().to_pylist()

    rows = at.as_published(read) if at else read(None, None)
    return {row["tree_id"]: row for row in rows}


def read_searches(warehouse: Warehouse, tree_ids: Collection[str]) -> list[Searched]:
    """Read what is measured of these searches, in order of their ids."""
    names = ["outcomes", "trees", "steps", "latest_traces"]
    with connect_trusted(warehouse, names) as con:
        con.register("wanted", pa.table({"tree_id": pa.array(sorted(tree_ids), pa.string())}))
        ends, steps = _grouped(con, _ENDS), _grouped(con, _STEPS)
    asked = sorted({rows[0]["question_id"] for rows in ends.values()})
    questions = {q.question_id: q for q in read_questions(warehouse, question_ids=asked)}
    return [
        _searched(questions[rows[0]["question_id"]], rows, steps.get(tree_id, []))
        for tree_id, rows in sorted(ends.items())
    ]


def _grouped(con: Any, sql: str) -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in con.sql(sql).to_arrow_table().to_pylist():
        found[row["tree_id"]].append(row)
    return found


def _searched(question: Question, ends: list[Row], steps: list[Row]) -> Searched:
    said = question.answer_kind is AnswerKind.TEXT and bool(question.answers)
    given = [row["answer"] for row in ends if row["answer"] is not None]
    places = (
        cell_of(row["x"], row["y"], image.width, image.height)
        for row in steps
        if row["x"] is not None and 0 <= (row["image"] or 0) < len(question.images)
        for image in [question.images[row["image"] or 0]]
    )
    words: Counter[str] = Counter()
    for row in steps:
        words[row["trace_id"]] += row["words"]
    return Searched(
        ends=len(ends),
        right=sum(row["is_right"] for row in ends),
        answers=Counter(_words(question, answer) for answer in given) if said else {},
        gold=_words(question, question.answers[0]) if said else "",
        places=Counter(places),
        grounded=tuple(row["grounded"] for row in steps if row["grounded"] is not None),
        lengths=tuple(words.values()),
    )


def _words(question: Question, answer: str) -> str:
    """Return what an answer says: the option's text where there are options, never its letter."""
    index = choice_of(question, answer) if question.choices else None
    return normalize(answer if index is None else question.choices[index])
