"""One question about images, asked as a build asks it: the steps, their points, the answer.

    vigorl ask ./student room.png "Is the lamp left of the chair?" --choice yes --choice no
    vigorl ask http://gpu:8000 a.jpg b.jpg "What moved?" --space qwen2.5-vl --n 3

It is a build's own search by the strategy best-of-n, so the prompt, the client and the reading of
what comes back are a build's. Points, and the regions that a model looked at closer, are printed,
and drawn into an image, in pixels of the files as they were given. Nothing is written to the
warehouse.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from curation.render.marks import format_point, in_whole_pixels, shown_answer
from curation.render.trace_card import draw_trace
from flows.search_settings import ZoomSettings
from flows.settings import AskSettings, BuildSettings, TeacherSettings
from flows.settings_base import Problem
from flows.stages.search import search_config
from flows.teachers.resolve import ResolvedTeacher, resolve
from mcts.config import SearchConfig, search_id
from mcts.data import AnswerKind, Grade, Observation, Point, Question, Step, Trace, TraceKind
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import TeacherUnavailable
from warehouse.sources.reading.accept_drafts import decode


def ask(settings: AskSettings) -> None:
    """Print each sample's steps and answer, and draw it into `settings.out`.

    Raises:
        Problem: an image is missing or broken, there is no question, or no such model.
        TeacherUnavailable: the model does not answer.
    """
    words, out = settings.words, settings.out
    temperature = settings.temperature
    if temperature is None:  # one is the likeliest text, of several none is like another
        temperature = 0.0 if settings.n == 1 else 1.0
    teacher = TeacherSettings.of(settings, teacher=settings.model, model=settings.served)
    zoom = {name: getattr(settings, name) for name in ZoomSettings.model_fields}
    build = BuildSettings.checked(
        **teacher.model_dump(), **zoom, task="ask", strategy="best-of-n", samples=settings.n,
        seed=settings.seed, temperature=temperature, prompt=settings.prompt,
        response_style=settings.response_style,
    )  # fmt: skip
    question, images = read_question(words, settings.choice)
    if out.suffix.lower() != ".png" or not out.absolute().parent.is_dir():
        raise Problem(f"--out {out}: name a .png file in a folder that is there")
    numbered = [out.with_name(f"{out.stem}-{i}{out.suffix}") for i in range(2, settings.n + 1)]
    drawings = [out, *numbered]
    for path in drawings:
        if path.exists() and any(path.samefile(image) for image in words[:-1]):
            raise Problem(f"--out {out}: {path} is one of the images asked about")
    resolved = resolve(teacher, crops=settings.max_crops)
    config = search_config(build, resolved)
    traces = asyncio.run(answers(resolved, question, images, config, settings.seed))
    shown = [images[image.image_id] for image in question.images]
    for i, trace in enumerate(traces):
        if len(traces) > 1:
            print(f"sample {i + 1}")
        print("\n".join(lines(trace, question)))
        path = drawings[i]
        path.write_bytes(draw_trace(trace, question, shown))
        print(f"drawn: {path}\n" if i + 1 < len(traces) else f"drawn: {path}")


def read_question(
    words: Sequence[str], choices: Sequence[str]
) -> tuple[Question, dict[str, bytes]]:
    """Read the question, the last of `words`, and the bytes of the images before it.

    Raises:
        Problem: a file is missing or no image, or there is nothing to ask.
    """
    *paths, text = words
    if not paths or not text.strip() or os.path.isfile(text):
        raise Problem("ask needs MODEL, one or more IMAGE files, and QUESTION as the last argument")
    images: dict[str, bytes] = {}
    shown = []
    for path in paths:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise Problem(f"image {path}: {error.strerror or error}") from None
        found = decode(data, hashlib.sha256(data).hexdigest())
        if isinstance(found, str):
            raise Problem(f"image {path} {found}")
        images[found.image.image_id] = data
        shown.append(found.image)
    question = Question("ask", text, tuple(shown), AnswerKind.TEXT, choices=tuple(choices))
    return question, images


async def answers(
    resolved: ResolvedTeacher,
    question: Question,
    images: dict[str, bytes],
    config: SearchConfig,
    seed: int,
) -> list[Trace]:
    """Sample whole chains of reasoning; ungraded, as there is no gold answer.

    Raises:
        TeacherUnavailable: there is no teacher, or it answers nothing.
    """
    with tempfile.TemporaryDirectory() as folder, Journal(folder) as journal:
        try:
            await resolved.teacher.open()
            name = search_id(question, config, seed, resolved.teacher.identity)
            teacher = JournaledTeacher(resolved.teacher, journal)
            policy = TeacherPolicy(question, config, name, teacher, images)
            tree = await search(question, config, policy, _ungraded, name)
        finally:
            await resolved.teacher.close()
    if not tree.root.rollouts:
        why = tree.errors[0] if tree.errors else "it wrote nothing"
        raise TeacherUnavailable(f"the model could not answer: {why}")
    kind = TraceKind.ZOOM if config.zoom else TraceKind.DIRECT
    return [
        Trace(
            question.question_id, rollout.steps, rollout.answer, None, kind,
            origin="evaluation", problems=rollout.problems,
        )
        for rollout in tree.root.rollouts
    ]  # fmt: skip


def _ungraded(question: Question, answer: str | None) -> Grade:
    return Grade(0.0, "not graded")  # a number, since an answer without one is a failed request


def lines(trace: Trace, question: Question) -> list[str]:
    """Format a trace for a terminal: numbered steps, each with its points in whole pixels.

    Below a step that looked closer stands the region it was shown.
    """

    def step_line(step: Step) -> str:
        places = ", ".join(map(format_point, step.points))
        thought = in_whole_pixels(" ".join(step.thought.split()), step.points)
        line = f"[{places or 'no point'}] {thought}"
        return f"{line}\n{_shown(step.observation)}" if step.observation else line

    shown = [f"{i}. {step_line(step)}" for i, step in enumerate(trace.steps, 1)]
    shown.append(f"answer: {shown_answer(trace.answer, question) or 'none was given'}")
    if trace.problems:
        shown.append(f"remarks: {', '.join(dict.fromkeys(trace.problems))}")
    return shown


def _shown(observation: Observation) -> str:
    """Say what a zoom call showed: the crop's number and corners, or why there is none."""
    crop, view = observation.crop, observation.view
    if crop is None or view is None:
        return f"   shown nothing: {observation.problem.replace('_', ' ')}"
    corners = Point(crop.x1, crop.y1, crop.image), Point(crop.x2, crop.y2, crop.image)
    return f"   shown as image {view + 1}: {' to '.join(map(format_point, corners))}, enlarged"
