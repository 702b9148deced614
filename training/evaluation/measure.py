"""Evaluates a model on questions: responses through a journal, grades, figures with intervals.

    report = await measure(subject, questions, warehouse, EvaluationProtocol())
    report.accuracy                                                     # Estimate(value, low, high)

One request a question, to the answer's end or the limit: what is cut off has no answer. A model
that zooms is asked turn by turn; at the limit of its calls its answer is forced. The grader is
`curation.grading.grade`, the one of search and rewards: an answer is right when it is the gold
answer, never when it contains it. Responses are journaled before they are used, so an evaluation
that was killed continues, and a repeated one sends no request. The outcome is stored as rows of
`evaluations` and `predictions`, and every output as a trace whose `origin` is `evaluation`. Traces
are committed first and the row of `evaluations` last: a visible evaluation is complete.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from curation.filters import crops, grounding
from curation.filters.naming import Objects
from curation.grading.grade import answers_in_kind, grade
from curation.scores import behaviors
from curation.scores.prediction import Prediction
from mcts.config import SearchConfig, identifying_fields, search_id
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Box, Question, Trace, TraceKind, content_id
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.parsing import render
from mcts.prompts import load_prompt
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import Teacher, TeacherError, TeacherUnavailable
from mcts.teachers.local.teacher import LocalTeacher
from mcts.teachers.shared_refusal import QUESTIONS, SharedRefusal
from mcts.zoom.config import ZoomConfig
from training.evaluation.answers import Answered, AskedAgain, sample_answers
from training.evaluation.controls import CROP_CONTROLS, control_images, with_crops, with_images
from training.evaluation.report import EvaluationReport, make_report
from warehouse.query.read_back import PrefixStart
from warehouse.query.run_query import query_trusted
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_traces, insert_new, record_run
from warehouse.tables.rows import behavior_rows, read_image, read_objects, trace_rows
from warehouse.tables.schema import Row

VERSION = 5
"""Raise it when a response is parsed or graded differently: evaluations are made anew then."""
MAKER = f"evaluate/{VERSION}"
_QUESTIONS_COMMITTED_TOGETHER = 2000


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be evaluated, with what must be known to prompt it."""

    teacher: Teacher
    space: CoordinateSpace
    prompt: str
    """The prompt file."""
    step_tokens: int = 512
    """Most tokens of one step; an answer may have one more than `max_steps` times as many."""
    zoom: ZoomConfig | None = None
    """How it may look closer; None where it may not."""


@dataclass(frozen=True, slots=True)
class EvaluationProtocol:
    """How responses are sampled; part of an evaluation's identity."""

    temperature: float = 0.0
    """0 is greedy: the likeliest answer. The paper's tables are at 0.5."""
    top_p: float = 1.0
    samples: int = 1
    """Answers to each question; more than one only above temperature 0."""
    min_thoughts: int = 3
    """What the prompt demands, where it demands anything."""
    max_steps: int = 10
    """Decides how long an answer may be. With zoom that is for the turns to limit, each of which
    may have as many steps."""
    seed: int = 0
    control: str | None = None
    """`blank` or `shuffled`: what is shown in place of the question's own images; `noise`,
    `elsewhere` or `gold`: in place of a zoom's crops."""

    def __post_init__(self) -> None:
        if self.samples < 1 or (self.samples > 1 and self.temperature == 0):
            raise ValueError(
                "samples: one at temperature 0, where all are the same, else 1 or more"
            )


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """How far an evaluation has come."""

    questions: int
    of: int
    right: float
    """Sum of the scores so far, each question's samples averaged."""
    tokens: int
    """Written by the model since the beginning; replayed answers are not."""
    seconds: float
    requests: int
    """Requests to the model, those from the journal not counted."""
    waited: float
    """Seconds until the first question was done: a model has to be loaded before that."""
    unanswered: int = 0
    """Of the questions so far, those whose request failed for good."""

    @property
    def remaining(self) -> float | None:
        """Seconds to go at the pace since the first; None before a twentieth of all is done."""
        if not self.requests or self.questions < max(2, self.of / 20):
            return None
        pace = (self.seconds - self.waited) / (self.questions - 1)
        return pace * (self.of - self.questions)


ReportProgress = Callable[[EvaluationProgress], None]


async def measure(
    subject: Subject,
    questions: Sequence[Question],
    warehouse: Warehouse,
    protocol: EvaluationProtocol,
    *,
    benchmark: str | None = None,
    concurrency: int = 32,
    progress: ReportProgress = lambda progress: None,
    recorded: Mapping[str, Any] | None = None,
    refusals: int = QUESTIONS,
    prefixes: Mapping[str, Sequence[PrefixStart]] | None = None,
) -> EvaluationReport:
    """Evaluate any model: sample, grade, measure and store.

    A question whose request fails for good is no wrong answer: it is left out of the figures and
    of what is stored, and asked again by the next run.

    Args:
        questions: with their images in the warehouse.
        benchmark: a name for all of them; by default their task and split.
        recorded: what else `runs.params` keeps of this run.
        concurrency: requests at once.
        progress: called after each question.
        refusals: questions in a row that, refused alike, stop the evaluation; 0: never.
        prefixes: of each question, what is continued in place of whole answers.

    Raises:
        ValueError: there are no questions, no such prompt, or a control of crops without zoom.
        TeacherUnavailable: no answer from the server, or to no question; responses are kept.
        KeyError: an image is not among the warehouse's objects.
    """
    _check(subject, questions, protocol)
    began = time.monotonic()
    config = _search_config(subject, protocol)
    benchmark = benchmark or f"{questions[0].task}/{questions[0].split}"
    if not isinstance(subject.teacher, LocalTeacher):  # whose identity is in its folder
        await subject.teacher.open()
    identity = subject.teacher.identity
    run_id = f"evaluate-{uuid.uuid4().hex[:12]}"
    settings = _settings_of(subject, protocol, prefixes is not None)
    params = {**settings, **(recorded or {})}
    record_run(warehouse, run_id, "evaluate", task=questions[0].task, params=params)
    evaluation = _Evaluation(subject, questions, warehouse, protocol, config, progress, prefixes)
    predictions = await evaluation.run(concurrency, refusals)
    answered = [q for q in questions if q.question_id in predictions]
    if not answered:
        reason = next(iter(evaluation.unanswered.values()))
        raise TeacherUnavailable(f"no question was answered ({reason}): nothing was measured")
    settings |= {"unanswered": len(evaluation.unanswered)} if evaluation.unanswered else {}
    sampled = identifying_fields(config), protocol.seed, settings["control"] or ""
    evaluation_id = content_id(MAKER, identity, benchmark, *sampled, _responses(predictions))
    report = make_report(
        evaluation_id, identity, benchmark, settings, answered, predictions, run_id=run_id,
        requests=evaluation.requests, replayed=evaluation.replayed,
        seconds=time.monotonic() - began, unanswered=evaluation.unanswered,
    )  # fmt: skip
    await asyncio.to_thread(store, warehouse, report)
    return report


def _check(subject: Subject, questions: Sequence[Question], protocol: EvaluationProtocol) -> None:
    if not questions:
        raise ValueError("there are no questions to ask")
    if protocol.control in CROP_CONTROLS and subject.zoom is None:
        raise ValueError(f"the control {protocol.control} replaces crops, and nothing zooms here")


def _settings_of(
    subject: Subject, protocol: EvaluationProtocol, from_prefixes: bool
) -> dict[str, Any]:
    """Return what `evaluations.settings` and `runs.params` say of how a model was asked."""
    found: dict[str, Any] = {"space": asdict(subject.space), "prompt": subject.prompt}
    found |= asdict(protocol) | {"step_tokens": subject.step_tokens}
    found |= {"control": "prefixes"} if from_prefixes else {}
    return found | ({"zoom": asdict(subject.zoom)} if subject.zoom else {})


def _responses(predictions: Mapping[str, Sequence[Prediction]]) -> list[tuple[Any, ...]]:
    """Return the responses as an evaluation's identity has them: graded anew, it is another one."""
    return sorted(
        (p.question_id, p.sample, p.response, p.score, p.answer, p.error,
         *((*p.prefix, p.given) if p.prefix else ()))
        for some in predictions.values()
        for p in some
    )  # fmt: skip


def _search_config(subject: Subject, protocol: EvaluationProtocol) -> SearchConfig:
    """Return the settings under which responses are journaled: whole chains, or their turns."""
    prompt = load_prompt(subject.prompt)
    turns = subject.zoom.max_turns + 1 if subject.zoom else 1
    return SearchConfig(
        space=subject.space,
        prompt=prompt.name,
        prompt_digest=prompt.digest,
        max_depth=protocol.max_steps * turns,
        temperature=protocol.temperature,
        top_p=protocol.top_p,
        step_tokens=subject.step_tokens,
        min_thoughts=(protocol.min_thoughts, protocol.min_thoughts),
        strategy="best-of-n",
        samples=protocol.samples,
        zoom=subject.zoom,
    )


class _Evaluation:
    """Samples and grades all questions, many at once."""

    def __init__(
        self,
        subject: Subject,
        questions: Sequence[Question],
        warehouse: Warehouse,
        protocol: EvaluationProtocol,
        config: SearchConfig,
        progress: ReportProgress,
        prefixes: Mapping[str, Sequence[PrefixStart]] | None,
    ) -> None:
        self.prefixes = prefixes
        self.subject, self.questions, self.warehouse = subject, questions, warehouse
        self.protocol, self.config, self.progress = protocol, config, progress
        self.predictions: dict[str, list[Prediction]] = {}
        self.unanswered: dict[str, str] = {}
        """By question id, why its request failed for good."""
        self.requests = self.replayed = 0
        self._began, self._waited, self._right = time.monotonic(), 0.0, 0.0

    async def run(self, concurrency: int, refusals: int) -> dict[str, list[Prediction]]:
        """Return the predictions by question id, in order of samples; none of the unanswered."""
        warehouse, protocol = self.warehouse, self.protocol
        ids = [image.image_id for question in self.questions for image in question.images]
        self._objects = await asyncio.to_thread(read_objects, warehouse, ids)
        self._images = control_images(
            self.questions, protocol.control, protocol.seed, lambda i: read_image(warehouse, i)
        )
        slots = asyncio.Semaphore(concurrency)
        identity = self.subject.teacher.identity
        with Journal(warehouse.journal_dir / "evaluate") as journal:
            teacher = JournaledTeacher(
                self.subject.teacher, journal, identity=identity,
                refusals=SharedRefusal(refusals, len(self.questions)),
            )  # fmt: skip
            journal.name_teacher(identity)

            async def one(question: Question) -> None:
                async with slots:
                    if predictions := await self._predict(question, teacher, journal):
                        self._add(question, predictions)
                    self._report_progress(teacher.requested)

            try:
                async with asyncio.TaskGroup() as group:
                    for question in self.questions:
                        group.create_task(one(question))
            except BaseExceptionGroup as several:
                raise several.exceptions[0] from None
            await teacher.settle()
            self.requests, self.replayed = teacher.requested, teacher.replayed
        return self.predictions

    async def _predict(
        self, question: Question, teacher: JournaledTeacher, journal: Journal
    ) -> list[Prediction]:
        images = await asyncio.to_thread(self._images, question)
        control, objects = self.protocol.control, self._objects_of(question)
        asked = crops.asked_boxes(question, objects)
        shown, data = (
            with_crops(question, images, control, asked)
            if control in CROP_CONTROLS
            else with_images(question, images)
        )
        name = search_id(shown, self.config, self.protocol.seed, self.subject.teacher.identity)
        policy = AskedAgain(
            name, journal, lambda name: TeacherPolicy(shown, self.config, name, teacher, data)
        )
        frame = Frame.of(self.subject.space, question)
        starts = [None] if self.prefixes is None else self.prefixes[question.question_id]
        try:
            answers = [
                (answered, prefix)
                for prefix in starts
                for answered in await sample_answers(policy, frame, self.config, prefix)
            ]
        except TeacherError as failure:
            self.unanswered[question.question_id] = str(failure)
            return []
        for name in policy.names:
            journal.forget(name)
        return [
            _graded(question, objects, i, answered, prefix)
            for i, (answered, prefix) in enumerate(answers)
        ]

    def _objects_of(self, question: Question) -> list[tuple[Box, ...] | None]:
        return [self._objects.get(image.image_id) for image in question.images]

    def _add(self, question: Question, predictions: list[Prediction]) -> None:
        self.predictions[question.question_id] = predictions
        self._right += sum(p.score or 0.0 for p in predictions) / len(predictions)

    def _report_progress(self, requests: int) -> None:
        seconds = time.monotonic() - self._began
        self._waited = self._waited or seconds
        tokens = self.subject.teacher.ledger.completion_tokens
        self.progress(
            EvaluationProgress(
                len(self.predictions) + len(self.unanswered), len(self.questions), self._right,
                tokens, seconds, requests, self._waited, len(self.unanswered),
            )
        )  # fmt: skip


def _graded(
    question: Question,
    objects: Objects,
    number: int,
    answered: Answered,
    prefix: PrefixStart | None,
) -> Prediction:
    """Grade one answer; control images have the sizes of the question's own.

    What is checked step by step is of the model's own steps alone.
    """
    steps, answer = answered.steps, answered.answer
    given = len(prefix.steps) if prefix else 0
    others = (None,) * given
    found = grade(question, answer)
    trace = Trace(question.question_id, steps, answer, found.score, TraceKind.DIRECT)
    asked = crops.asked_boxes(question, objects)
    return Prediction(
        question_id=question.question_id,
        sample=number,
        response=answered.response,
        finish_reason=answered.finish_reason,
        error=None,
        steps=steps,
        answer=answer,
        score=found.score,
        reason=found.reason,
        valid=answers_in_kind(question, answer),
        problems=answered.problems,
        looked_at=grounding.share_of_named_objects(trace, question, objects),
        grounded=others + tuple(step.grounded for step in grounding.check(trace, objects)[given:]),
        shows_asked=others
        + tuple(crops.shows_asked(step.observation, asked) for step in steps[given:]),
        prefix=(prefix.tree_id, prefix.node_id) if prefix else None,
        given=given,
        tokens=sum(cost.completion_tokens for cost in answered.costs),
        seconds=sum(cost.seconds for cost in answered.costs),
    )


def store(warehouse: Warehouse, report: EvaluationReport) -> None:
    """Store what is not there yet; fill in the report's outcomes from what is stored."""
    for start in range(0, len(report.questions), _QUESTIONS_COMMITTED_TOGETHER):
        some = report.questions[start : start + _QUESTIONS_COMMITTED_TOGETHER]
        _store_predictions(warehouse, report, some)
    insert_new(warehouse, "evaluations", [_evaluation_row(report)])
    shares = query_trusted(
        warehouse,
        "SELECT outcome, sum(answers)::BIGINT AS answers FROM error_taxonomy "
        f"WHERE evaluation_id = {quoted(report.evaluation_id)} GROUP BY outcome "
        "ORDER BY answers DESC, outcome",
    ).to_pylist()
    total = sum(row["answers"] for row in shares)
    report.outcomes.update({row["outcome"]: row["answers"] / total for row in shares})


def _store_predictions(
    warehouse: Warehouse, report: EvaluationReport, questions: Sequence[Question]
) -> None:
    traces: dict[str, Row] = {}
    steps: list[Row] = []
    counts: list[Row] = []
    predicted: list[Row] = []
    for question in questions:
        for prediction in report.predictions[question.question_id]:
            trace = _trace(question, prediction, report.evaluation_id)
            predicted.append(_prediction_row(report.evaluation_id, trace, prediction))
            if trace.trace_id in traces:
                continue  # two samples with the same text, behind as much of a prefix
            pixels = Frame.of(CoordinateSpace.original(), question)
            row, its_steps = trace_rows(
                trace, task=question.task, text=render(trace.steps, trace.answer, pixels),
                model=report.model_id, grounded=prediction.grounded, question=question,
                shows_asked=prediction.shows_asked,
            )  # fmt: skip
            traces[trace.trace_id] = row
            steps += its_steps
            own = replace(trace, steps=prediction.own_steps)
            checked = prediction.grounded[prediction.given :]
            counted = behaviors.count_behaviors(own, question, checked)
            counts += behavior_rows(trace.trace_id, counted, behaviors.METHOD)
    run = {"run_id": report.run_id}
    commit_traces(warehouse, list(traces.values()), steps=steps, verdicts=[], run_id=report.run_id)
    insert_new(warehouse, "behaviors", [row | run for row in counts])
    insert_new(warehouse, "predictions", [row | run for row in predicted])


def _trace(question: Question, prediction: Prediction, evaluation_id: str) -> Trace:
    """Return a response as a trace; its maker names the evaluation, so that none is in two, and how
    many steps are a prefix's, since the same text behind another one has others of the model's."""
    begun = f":{prediction.given}" if prediction.given else ""
    return Trace(
        question_id=question.question_id,
        steps=prediction.steps,
        answer=prediction.answer,
        reward=prediction.score,
        kind=TraceKind.EVALUATED,
        origin="evaluation",
        problems=prediction.problems,
        maker=f"{MAKER}:{evaluation_id}{begun}",
    )


def _prediction_row(evaluation_id: str, trace: Trace, prediction: Prediction) -> Row:
    copied = ("question_id", "sample", "answer", "score", "reason", "valid", "finish_reason",
              "error", "looked_at", "response")  # fmt: skip
    row = {name: getattr(prediction, name) for name in copied}
    tree, node = prediction.prefix or (None, None)
    row |= {"prefix_tree": tree, "prefix_node": node}
    return {"evaluation_id": evaluation_id, "trace_id": trace.trace_id, **row}


def _evaluation_row(report: EvaluationReport) -> Row:
    overall, right = report.figures["all"]["format"], report.accuracy
    figures = {f: {k: asdict(v) for k, v in row.items()} for f, row in report.figures.items()}
    return {
        "evaluation_id": report.evaluation_id,
        "model_id": report.model_id,
        "benchmark": report.benchmark,
        "n_questions": len(report.questions),
        "accuracy": right and right.value,
        "low": right and right.low,
        "high": right and right.high,
        "settings": json.dumps(dict(report.settings), sort_keys=True),
        "control": report.settings.get("control"),
        "temperature": report.settings.get("temperature"),
        "samples": report.settings.get("samples"),
        "prompt": report.settings.get("prompt"),
        "n_scenes": (right or overall).clusters,
        "figures": json.dumps(figures, sort_keys=True),
        "metrics": json.dumps(report.metrics, sort_keys=True) if report.metrics else None,
        "run_id": report.run_id,
    }
