"""An evaluation as rows: traces with their steps and behaviors, predictions, and the figures last.

    store(warehouse, report)            # again adds nothing

Traces go first and the row of `evaluations` last: whoever sees an evaluation sees all of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from curation.scores import behaviors
from curation.scores.prediction import Prediction
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Question, Trace
from mcts.parsing import render
from training.evaluation.report import Report
from warehouse.query.catalog import query
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_traces, insert_new
from warehouse.tables.rows import behavior_rows, trace_rows

VERSION = 1
"""Raise it when an answer is read or graded otherwise: evaluations are made anew then."""
MAKER = f"evaluate/{VERSION}"
KIND = "answered"
_AT_ONCE = 2000  # questions committed together

Row = dict[str, Any]


def store(warehouse: Warehouse, report: Report) -> None:
    """Write what is not there yet; fill in the report's outcomes from what is stored."""
    for start in range(0, len(report.questions), _AT_ONCE):
        _store_some(warehouse, report, report.questions[start : start + _AT_ONCE])
    insert_new(warehouse, "evaluations", [_evaluation(report)])
    shares = query(
        warehouse,
        "SELECT outcome, sum(answers)::BIGINT AS answers FROM error_taxonomy "
        f"WHERE evaluation_id = {quoted(report.evaluation_id)} GROUP BY outcome "
        "ORDER BY answers DESC, outcome",
    ).to_pylist()
    total = sum(row["answers"] for row in shares)
    report.outcomes.update({row["outcome"]: row["answers"] / total for row in shares})


def _store_some(warehouse: Warehouse, report: Report, questions: Any) -> None:
    traces: dict[str, Row] = {}
    steps: list[Row] = []
    counts: list[Row] = []
    predicted: list[Row] = []
    for question in questions:
        for said in report.predictions[question.question_id]:
            trace = trace_of(question, said, report.evaluation_id)
            predicted.append(_prediction(report.evaluation_id, trace, said))
            if trace.trace_id in traces:
                continue  # two samples that say the same
            pixels = Frame.of(CoordinateSpace.original(), question)
            row, its_steps = trace_rows(
                trace, task=question.task, text=render(trace.steps, trace.answer, pixels),
                model=report.model_id, grounded=said.grounded,
            )  # fmt: skip
            traces[trace.trace_id] = row
            steps += its_steps
            counted = behaviors.count_behaviors(trace, question, said.grounded)
            counts += behavior_rows(trace.trace_id, counted, behaviors.METHOD)
    run = {"run_id": report.run_id}
    commit_traces(warehouse, list(traces.values()), steps=steps, verdicts=[], run_id=report.run_id)
    insert_new(warehouse, "behaviors", [row | run for row in counts])
    insert_new(warehouse, "predictions", [row | run for row in predicted])


def trace_of(question: Question, said: Prediction, evaluation_id: str) -> Trace:
    """An answer as a trace; its maker names the evaluation, so no two of them share one."""
    return Trace(
        question_id=question.question_id,
        steps=said.steps,
        answer=said.answer,
        reward=said.score,
        kind=KIND,
        origin="evaluation",
        problems=said.problems,
        maker=f"{MAKER}:{evaluation_id}",
    )


def _prediction(evaluation_id: str, trace: Trace, said: Prediction) -> Row:
    return {
        "evaluation_id": evaluation_id,
        "question_id": said.question_id,
        "sample": said.sample,
        "trace_id": trace.trace_id,
        "answer": said.answer,
        "score": said.score,
        "reason": said.reason,
        "valid": said.valid,
        "finish_reason": said.finish_reason,
        "error": said.error,
        "looked_at": said.looked_at,
        "response": said.response,
    }


def _evaluation(report: Report) -> Row:
    overall = report.figures["all"]["accuracy"]
    figures = {f: {k: asdict(v) for k, v in row.items()} for f, row in report.figures.items()}
    return {
        "evaluation_id": report.evaluation_id,
        "model_id": report.model_id,
        "benchmark": report.benchmark,
        "n_questions": len(report.questions),
        "accuracy": overall.value,
        "low": overall.low,
        "high": overall.high,
        "settings": json.dumps(dict(report.settings), sort_keys=True),
        "control": report.settings.get("control"),
        "temperature": report.settings.get("temperature"),
        "samples": report.settings.get("samples"),
        "prompt": report.settings.get("prompt"),
        "n_scenes": overall.clusters,
        "figures": json.dumps(figures, sort_keys=True),
        "metrics": json.dumps(report.metrics, sort_keys=True) if report.metrics else None,
        "run_id": report.run_id,
    }
