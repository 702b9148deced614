"""One question about pictures, asked as a build asks it: the steps, their points, the answer.

    vigorl ask nano room.png "Is the lamp left of the chair?" --choice yes --choice no
    vigorl ask http://gpu:8000 a.jpg b.jpg "What moved?" --space qwen2.5-vl --n 3

It is a build's own search by the strategy best-of-n, so the prompt, the client and the reading of
what comes back are a build's. Points are printed, and drawn into a picture, in pixels of the files
as they were given. Nothing is written to the warehouse.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curation.render.trace_card import draw_trace
from flows.settings import BuildSettings, Problem
from flows.stages.search import search_config
from flows.teachers.resolve import ChosenTeacher, choose_teacher
from mcts.config import SearchConfig, search_id
from mcts.data import AnswerKind, Grade, Question, Step, Trace
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import TeacherUnavailable
from warehouse.sources.reading.row_checks import decode


def ask(
    model: str, words: Sequence[str], choices: Sequence[str], out: Path, values: dict[str, Any]
) -> None:
    """`vigorl ask`: print each sample's steps and answer, and draw it into `out`.

    Args:
        words: paths of pictures, then the question.
        values: fields of `BuildSettings` about the teacher and how to sample from it; `samples`
            are drawn.

    Raises:
        Problem: a picture is missing or broken, there is no question, or no such model.
        TeacherUnavailable: nobody answers.
    """
    if values["temperature"] is None:  # one is the likeliest text, of several none is like another
        values = values | {"temperature": 0.0 if values["samples"] == 1 else 1.0}
    settings = BuildSettings.checked(task="ask", teacher=model, strategy="best-of-n", **values)
    question, images = read_question(words, choices)
    if out.suffix.lower() != ".png" or not out.absolute().parent.is_dir():
        raise Problem(f"--out {out}: name a .png file in a folder that is there")
    if out.exists() and any(out.samefile(path) for path in words[:-1]):
        raise Problem(f"--out {out}: that is one of the pictures asked about")
    chosen = choose_teacher(
        model, model=settings.model, space=settings.space, min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels, timeout_s=settings.timeout,
    )  # fmt: skip
    config = search_config(settings, chosen)
    traces = asyncio.run(answers(chosen, question, images, config, settings.seed))
    shown = [images[image.image_id] for image in question.images]
    for i, trace in enumerate(traces):
        if len(traces) > 1:
            print(f"sample {i + 1}")
        print("\n".join(lines(trace)))
        path = out if i == 0 else out.with_name(f"{out.stem}-{i + 1}{out.suffix}")
        path.write_bytes(draw_trace(trace, question, shown))
        print(f"drawn: {path}\n" if i + 1 < len(traces) else f"drawn: {path}")


def read_question(
    words: Sequence[str], choices: Sequence[str]
) -> tuple[Question, dict[str, bytes]]:
    """The question of the last of `words` about the pictures of the others, and their bytes.

    Raises:
        Problem: a file is missing or no picture, or there is nothing to ask.
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
    chosen: ChosenTeacher,
    question: Question,
    images: dict[str, bytes],
    config: SearchConfig,
    seed: int,
) -> list[Trace]:
    """Whole lines of reasoning; ungraded, as nobody gave a gold answer.

    Raises:
        TeacherUnavailable: there is no teacher, or it answers nothing.
    """
    with tempfile.TemporaryDirectory() as folder, Journal(folder) as journal:
        try:
            await chosen.teacher.open()
            name = search_id(question, config, seed, chosen.teacher.identity)
            asking = JournaledTeacher(chosen.teacher, journal)
            policy = TeacherPolicy(question, config, name, asking, images)
            tree = await search(question, config, policy, _ungraded, name)
        finally:
            await chosen.teacher.close()
    if not tree.root.rollouts:
        why = tree.errors[0] if tree.errors else "nothing was said"
        raise TeacherUnavailable(f"the model could not answer: {why}")
    return [
        Trace(
            question.question_id, rollout.steps, rollout.answer, None, "direct",
            origin="evaluation", problems=rollout.problems,
        )
        for rollout in tree.root.rollouts
    ]  # fmt: skip


def _ungraded(question: Question, answer: str | None) -> Grade:
    return Grade(0.0, "not graded")  # a number, since an answer without one is a failed request


def lines(trace: Trace) -> list[str]:
    """A trace for a terminal: numbered steps, each with its points in original pixels."""

    def told(step: Step) -> str:
        places = [
            f"({point.x:g}, {point.y:g})" + (f" in image {point.image + 1}" if point.image else "")
            for point in step.points
        ]
        return f"[{', '.join(places) or 'no point'}] {' '.join(step.thought.split())}"

    said = [f"{i}. {told(step)}" for i, step in enumerate(trace.steps, 1)]
    said.append(f"answer: {trace.answer if trace.answer is not None else 'none was given'}")
    if trace.problems:
        said.append(f"remarks: {', '.join(dict.fromkeys(trace.problems))}")
    return said
