"""Measures a model on questions: asks each of them through a journal, grades, and says how sure.

    report = evaluate("checkpoints/student", questions, warehouse)      # a script, a small model
    report.figures["all"]["accuracy"]                                   # Figure(value, low, high)
    report = await measure(subject, questions, warehouse, asking)       # any teacher

One request a question, to the answer's end or the limit: what is cut off has no answer. The grader
is `curation.grading.grade`, the one of search and rewards: an answer is right when it is the gold
answer, never when it contains it. Responses are journaled before they are used, so an evaluation
that was killed goes on where it was, and the same one again asks nothing; what it found is stored
as rows of `evaluations` and `predictions`, and every output as a trace whose `origin` is
`evaluation`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from curation.filters import grounding
from curation.grading.grade import answers_in_kind, grade
from curation.scores.prediction import Prediction
from mcts.config import SearchConfig, search_id
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Question, Trace, content_id
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.parsing import fold_remark
from mcts.policy import Sample, parse_response
from mcts.prompts import load_prompt
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import Teacher, TeacherError
from mcts.teachers.local.teacher import LocalTeacher
from training.evaluation.controls import asked_about, shown_pictures
from training.evaluation.report import Report, make_report
from training.evaluation.rows import MAKER, store
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import record_run
from warehouse.tables.rows import read_image, read_objects


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be measured, with what must be known to ask it."""

    teacher: Teacher
    space: CoordinateSpace
    prompt: str
    """The prompt file that asks it."""
    step_tokens: int = 512
    """Most tokens of one step; an answer may have one more than `max_steps` times as many."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a model is asked; part of an evaluation's identity."""

    temperature: float = 0.0
    """0 is greedy: the likeliest answer. The paper's tables are at 0.5."""
    top_p: float = 1.0
    samples: int = 1
    """Answers to each question; more than one only above temperature 0."""
    min_thoughts: int = 3
    """What the prompt demands, where it demands anything."""
    max_steps: int = 10
    """Decides only how long an answer may be."""
    seed: int = 0
    control: str | None = None
    """`blank` or `shuffled`: what is shown in place of the question's own pictures."""

    def __post_init__(self) -> None:
        if self.samples < 1 or (self.samples > 1 and self.temperature == 0):
            raise ValueError(
                "samples: one at temperature 0, where all are the same, else 1 or more"
            )


@dataclass(frozen=True, slots=True)
class Done:
    """How far it has come; what `progress` is told."""

    questions: int
    of: int
    right: float
    """Sum of the scores so far, each question's samples averaged."""
    tokens: int
    """Written by the model since the beginning; replayed answers are not."""
    seconds: float
    asked: int
    """Requests to the model, those from the journal not counted."""
    waited: float
    """Seconds until the first question was done: a model has to be loaded before that."""

    @property
    def remaining(self) -> float | None:
        """Seconds to go at the pace since the first; None before a twentieth of all is done."""
        if not self.asked or self.questions < max(2, self.of / 20):
            return None
        pace = (self.seconds - self.waited) / (self.questions - 1)
        return pace * (self.of - self.questions)


Progress = Callable[[Done], None]


def evaluate(
    folder: Path | str,
    questions: Sequence[Question],
    warehouse: Warehouse,
    *,
    space: CoordinateSpace,
    prompt: str,
    asking: Asking | None = None,
    benchmark: str | None = None,
    step_tokens: int = 48,
    threads: int = 1,
    progress: Progress = lambda done: None,
) -> Report:
    """Measure the checkpoint in `folder`, in this process; see `measure`."""
    teacher = LocalTeacher(folder, batch=48, threads=threads)
    subject = Subject(teacher, space, prompt, step_tokens)

    async def run() -> Report:
        try:
            return await measure(
                subject, questions, warehouse, asking or Asking(), benchmark=benchmark,
                concurrency=96, progress=progress,
            )  # fmt: skip
        finally:
            await teacher.close()

    return asyncio.run(run())


async def measure(
    subject: Subject,
    questions: Sequence[Question],
    warehouse: Warehouse,
    asking: Asking,
    *,
    benchmark: str | None = None,
    concurrency: int = 32,
    progress: Progress = lambda done: None,
) -> Report:
    """Ask, grade, measure and store.

    Args:
        questions: with their pictures in the warehouse.
        benchmark: what they are called together; by default their task and split.
        concurrency: requests at once.

    Raises:
        ValueError: there are no questions, or no such prompt.
        TeacherUnavailable: nobody answers; what was answered is kept.
        KeyError: a picture is not among the warehouse's objects.
    """
    if not questions:
        raise ValueError("there are no questions to ask")
    prompt = load_prompt(subject.prompt)
    config = SearchConfig(
        space=subject.space,
        prompt=prompt.name,
        prompt_digest=prompt.digest,
        max_depth=asking.max_steps,
        temperature=asking.temperature,
        top_p=asking.top_p,
        step_tokens=subject.step_tokens,
        min_thoughts=(asking.min_thoughts, asking.min_thoughts),
        strategy="best-of-n",
        samples=asking.samples,
    )
    benchmark = benchmark or f"{questions[0].task}/{questions[0].split}"
    if not isinstance(subject.teacher, LocalTeacher):  # whose identity is in its folder
        await subject.teacher.open()
    identity = subject.teacher.identity
    run_id = f"evaluate-{uuid.uuid4().hex[:12]}"
    settings: dict[str, Any] = {"space": asdict(subject.space), "prompt": prompt.name}
    settings |= asdict(asking) | {"step_tokens": subject.step_tokens}
    record_run(warehouse, run_id, "evaluate", task=questions[0].task, params=settings)
    images = [image.image_id for question in questions for image in question.images]
    objects = await asyncio.to_thread(read_objects, warehouse, images)
    shown = shown_pictures(
        questions, asking.control, asking.seed, lambda image_id: read_image(warehouse, image_id)
    )
    began, slots = time.monotonic(), asyncio.Semaphore(concurrency)
    predictions: dict[str, list[Prediction]] = {}
    done = Done(0, len(questions), 0.0, 0, 0.0, 0, 0.0)

    with Journal(warehouse.journal_dir / "evaluate") as journal:
        journaled = JournaledTeacher(subject.teacher, journal, identity=identity)
        journal.name_teacher(identity)

        async def one(question: Question) -> None:
            nonlocal done
            async with slots:
                pictures = await asyncio.to_thread(shown, question)
                seen, data = asked_about(question, pictures)
                name = search_id(seen, config, asking.seed, identity)
                policy = TeacherPolicy(seen, config, name, journaled, data)
                try:
                    samples = await policy.sample("", "chain", (), asking.samples)
                    error = None
                except TeacherError as failure:
                    error = None if failure.kind == "empty" else failure.kind
                    samples = [Sample("", "stop", "")] * asking.samples
                journal.forget(name)
            known = [objects.get(image.image_id) for image in question.images]
            predictions[question.question_id] = [
                _read(question, known, subject.space, i, sample, error)
                for i, sample in enumerate(samples)
            ]
            scores = [p.score or 0.0 for p in predictions[question.question_id]]
            done = replace(
                done,
                questions=done.questions + 1,
                right=done.right + sum(scores) / len(scores),
                tokens=subject.teacher.ledger.completion_tokens,
                seconds=time.monotonic() - began,
                asked=journaled.requested,
                waited=done.waited or time.monotonic() - began,
            )
            progress(done)

        try:
            async with asyncio.TaskGroup() as group:
                for question in questions:
                    group.create_task(one(question))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        asked, replayed = journaled.requested, journaled.replayed
    # What was said is part of the name: graded otherwise, or asked anew, it is another evaluation.
    answered = sorted(
        (p.question_id, p.sample, p.response, p.score, p.answer, p.error)
        for some in predictions.values()
        for p in some
    )
    evaluation_id = content_id(
        MAKER, identity, benchmark, asdict(config), asking.seed, asking.control or "", answered
    )
    report = make_report(
        evaluation_id, identity, benchmark, settings, questions, predictions, run_id=run_id,
        asked=asked, replayed=replayed, seconds=time.monotonic() - began,
    )  # fmt: skip
    await asyncio.to_thread(store, warehouse, report)
    return report


def _read(
    question: Question,
    objects: grounding.Objects,
    space: CoordinateSpace,
    number: int,
    sample: Sample,
    error: str | None,
) -> Prediction:
    """What a response says and what it is worth. Its pictures have the sizes of the question's."""
    parsed = parse_response(sample, Frame.of(space, question))
    steps = fold_remark(parsed.steps) if parsed.answer is not None else parsed.steps
    grade_ = grade(question, parsed.answer)
    trace = Trace(question.question_id, steps, parsed.answer, grade_.score, "direct")
    return Prediction(
        question_id=question.question_id,
        sample=number,
        response=sample.text,
        finish_reason=sample.finish_reason,
        error=error,
        steps=steps,
        answer=parsed.answer,
        score=None if error else grade_.score,
        reason=f"the request failed: {error}" if error else grade_.reason,
        valid=answers_in_kind(question, parsed.answer),
        problems=tuple(problem.kind for problem in parsed.problems),
        looked_at=grounding.looked_at(trace, question, objects),
        grounded=tuple(found.grounded for found in grounding.check(trace, objects)),
    )
