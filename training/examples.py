"""Training examples, rendered for one student: traces for SFT, prompts for GRPO.

    examples = sft_examples(warehouse, folder, "sat2-sft@v1", student, min_thoughts=3)
    examples.rows[0]["messages"]; examples.dataset()        # a `datasets.Dataset` with its images
    prompts = version_prompts(warehouse, version, folder, student, recipe)
    prompts = task_prompts(warehouse, "sat2", "train", student, recipe, limit=1000)

A GRPO group of answers that are all right or all wrong has nothing to learn from, so where pass
rates are known, only questions in the recipe's bands are used. The rates are of searches (the view
`grpo_prompts`), or of the student itself where it was measured (`student_prompts`).

Images are looked up when a row is read, never copied into the rows: hundreds of traces are about
one image. Points are written in the student's own coordinates, questions with its own prompt.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from curation.traces.response_styles import answer_only, without_points
from mcts.data import Question, ResponseStyle, Trace, content_id
from mcts.image_io import decode
from mcts.teachers.control_tokens import first_mark
from mcts.zoom.config import ZoomConfig
from training.chat_templates import turns_of
from training.errors import TrainingError
from training.recipes import GrpoRecipe
from training.rewards.question_column import question_column, zoom_column
from training.students import Student, read_control_tokens
from training.zoom_rows import DialogueProblem, Dialogues, post_hoc, zooms
from warehouse.exports.dialogues import ConversationRenderer
from warehouse.exports.files import BundleImages
from warehouse.query.read_back import (
    PrefixStart,
    read_pass_rates,
    read_student_rates,
    read_usable_prefixes,
)
from warehouse.sources import task_of
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_image, read_objects, read_questions
from warehouse.tables.schema import Row
from warehouse.versions.bundle import question_of, read_rows, trace_of
from warehouse.versions.unfit_questions import unfit_questions
from warehouse.versions.versions import Version, read_tables

_DECODED_IMAGES_KEPT = 128
Rate = tuple[float, str, str, datetime | None]
"""Of right answers to a question; its band, whose it is, and when a student's own was measured."""
TRAINED_SPLITS = ("", "train")
"""Those that may be trained on; a question without a split is of none."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows, and where their images are."""

    rows: list[Row]
    """Each with `image_ids` beside what a trainer reads."""
    read_image: Callable[[str], bytes]
    """An image's encoded bytes by its id."""
    left_out: dict[str, int]
    """How many rows were left out, by reason."""
    post_hoc: int = 0
    """Dialogues among them whose words were written without the crops they show."""
    rates_text: str = ""
    """Whose pass rates chose the questions, and how old they are; empty for the searches'."""

    @property
    def left_out_text(self) -> str:
        """What was left out and what is of note, as the end of a sentence; empty if nothing is."""
        written = f"; {self.post_hoc} written without their crops in view" if self.post_hoc else ""
        told = (f"; {n} left out, {reason}" for reason, n in self.left_out.items())
        rates = f"; {self.rates_text}" if self.rates_text else ""
        return "".join((written, *told, rates))

    @property
    def question_ids(self) -> tuple[str, ...]:
        """Each row's question, once."""
        return tuple(dict.fromkeys(row["question_id"] for row in self.rows))

    def dataset(self) -> Any:
        """Return a `datasets.Dataset` whose rows have `images`, decoded when they are read."""
        from datasets import Dataset

        return Dataset.from_list(self.rows).with_transform(AddImages(self.read_image))


class AddImages:
    """Adds `images` to rows as they are read."""

    def __init__(self, read_image: Callable[[str], bytes]) -> None:
        @lru_cache(maxsize=_DECODED_IMAGES_KEPT)
        def decoded(image_id: str) -> Any:
            return decode_image(read_image(image_id))

        self.decoded = decoded

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        images = [[self.decoded(image_id) for image_id in ids] for ids in batch["image_ids"]]
        if "image_turns" not in batch:
            return {**batch, "images": images}
        # TRL has no way to hand over images of a tool's turn but in the turn itself.
        rows = zip(batch["messages"], batch["image_turns"], images, strict=True)
        messages = [turns_of(texts, turns, shown) for texts, turns, shown in rows]
        return {**batch, "messages": messages, "images": [[] for _ in images]}

    def __reduce__(self) -> Any:  # `datasets` wants to hash what it applies; this has no content
        return (AddImages, ())


def decode_image(data: bytes) -> Any:
    """Decode an image as trainers take it: upright, on white, in RGB."""
    return decode(data)


def sft_examples(
    warehouse: Warehouse, folder: Path, ref: str, student: Student, min_thoughts: int,
    most_steps: int | None = None, wrong_attempts: bool = True,
) -> Examples:  # fmt: skip
    """Render the traces of a version's opened `folder` in the student's response style.

    Args:
        most_steps: leaves out traces that have more in that style; None leaves out none.
        wrong_attempts: whether looks of corrected dialogues before they turn back are trained on.

    Raises:
        TrainingError: it has none of the split `train`, or none that can be written in that style.
    """
    style = student.prompt_style.response_style
    renderer = ConversationRenderer(
        warehouse, student.space, student.prompt_style.prompt, min_thoughts
    )
    dialogues = Dialogues(student, min_thoughts, wrong_attempts)
    left_out: Counter[str] = Counter()
    marks = read_control_tokens(student)
    rows: list[Row] = []
    without_crops = 0
    for trace_id, question, trace in _restyled(folder, style, left_out):
        if most_steps is not None and len(trace.steps) > most_steps:
            left_out[f"of more than {most_steps} steps"] += 1
            continue
        try:
            row = (
                dialogues.row(question, trace)
                if style is ResponseStyle.ZOOM
                else _plain_row(renderer, question, trace)
            )
        except DialogueProblem as problem:
            left_out[str(problem)] += 1
            continue
        if mark := mark_in(row["messages"], marks):
            left_out[with_mark(mark)] += 1
            continue
        without_crops += post_hoc(trace)
        rows.append(row | {"trace_id": trace_id, "question_id": question.question_id})
    if not rows:
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or "it is empty"
        raise TrainingError(f"{ref} has nothing to train on: {reasons}")
    read = dialogues.reader(image_reader(folder))
    return Examples(rows, read, dict(left_out), without_crops)


def read_dialogues(folder: Path) -> Iterator[tuple[Question, Trace]]:
    """Yield the training dialogues that zoom of a version's opened `folder`."""
    for row in read_rows(folder / "rows.parquet"):
        question, trace = question_of(row), trace_of(row)
        if question.split in TRAINED_SPLITS and zooms(trace):
            yield question, trace


def _plain_row(renderer: ConversationRenderer, question: Question, trace: Trace) -> Row:
    """Return a trace as one question and one answer."""
    answer = renderer.completion(trace.steps, trace.answer, question)
    prompt = renderer.prompt(question, len(trace.steps) or None)
    return {
        "messages": [*prompt, {"role": "assistant", "content": answer}],
        "image_ids": [image.image_id for image in question.images],
        "image_sizes": [[image.width, image.height] for image in question.images],
    }


def mark_in(messages: Iterable[Mapping[str, str]], marks: Sequence[str]) -> str | None:
    """Return a control token of the model that a text spells: TRL would make it one."""
    found = (first_mark(message["content"], marks) for message in messages)
    return next((mark for mark in found if mark), None)


def with_mark(mark: str) -> str:
    """Return why a row is left out that spells a control token."""
    return f"whose text spells {mark}, a control token of this model"


def _restyled(
    folder: Path, style: ResponseStyle, left_out: Counter[str]
) -> Iterator[tuple[str, Question, Trace]]:
    """Yield the training traces in that style, each behind the id by which the warehouse knows it;
    count in `left_out` why others are not there."""
    answers: set[str] = set()
    for row in read_rows(folder / "rows.parquet"):
        trace_id, question, trace = row["trace_id"], question_of(row), trace_of(row)
        if question.split not in TRAINED_SPLITS:
            left_out[f"of the split {question.split}"] += 1
        elif zooms(trace) is not (style is ResponseStyle.ZOOM):
            left_out["zoom dialogues" if zooms(trace) else "that never could look closer"] += 1
        elif style in (ResponseStyle.ZOOM, ResponseStyle.GROUNDED):
            yield trace_id, question, trace
        elif style is ResponseStyle.UNGROUNDED:
            if (ungrounded := without_points(trace)) is None:
                left_out["without words when their points are gone"] += 1
            else:
                yield trace_id, question, ungrounded
        elif (answer := answer_only(trace)).trace_id not in answers:
            answers.add(answer.trace_id)  # a question counts once, however often it was solved
            yield trace_id, question, answer


def image_reader(folder: Path) -> Callable[[str], bytes]:
    """Return a reader of the images in a version's opened folder."""
    images = BundleImages(folder / "images.parquet")
    return lambda image_id: images[image_id]


def version_prompts(
    warehouse: Warehouse, version: Version, folder: Path, student: Student, recipe: GrpoRecipe
) -> Examples:
    """Return each question of a version's opened `folder` once; pass rates as when it was cut."""
    questions: dict[str, Question] = {}
    for row in read_rows(folder / "rows.parquet"):
        if row["question_id"] not in questions:
            questions[row["question_id"]] = question_of(row)
    rates = _pass_rates(warehouse, questions.values(), student, recipe, read_tables(version))
    rows, left_out = _prompt_rows(warehouse, questions.values(), rates, student, recipe)
    told = _told_rates(rates, student, recipe)
    prompts = Examples(rows, image_reader(folder), left_out, rates_text=told)
    return _require_enough(prompts, version.ref, recipe)


def task_prompts(
    warehouse: Warehouse,
    task: str,
    split: str,
    student: Student,
    recipe: GrpoRecipe,
    limit: int | None = None,
) -> Examples:
    """Return the questions of a task, in the order of their ids.

    Those that were revoked, or that an evaluation set knows, are left out, as a version leaves out
    their traces.
    """
    found = list(read_questions(warehouse, task, split=split, limit=limit))
    unfit = unfit_questions(warehouse, [question.question_id for question in found])
    questions = [question for question in found if question.question_id not in unfit]
    rates = _pass_rates(warehouse, questions, student, recipe)
    rows, left_out = _prompt_rows(warehouse, questions, rates, student, recipe)
    left_out |= Counter(unfit.values())
    told = _told_rates(rates, student, recipe)
    prompts = Examples(
        rows, lambda image_id: read_image(warehouse, image_id), left_out, rates_text=told
    )
    return _require_enough(prompts, f"task {task}, split {split}", recipe)


def prompts_hash(prompts: Examples) -> str:
    """Return a content hash of the prompts."""
    return content_id(
        [
            (row["question_id"], row["prompt"], *([row["prefix"]] if row.get("prefix") else []))
            for row in prompts.rows
        ]
    )


def _pass_rates(
    warehouse: Warehouse,
    questions: Collection[Question],
    student: Student,
    recipe: GrpoRecipe,
    tables: Mapping[str, int | None] | None = None,
) -> dict[str, Rate]:
    """Return what is known by question.

    Args:
        tables: versions of the tables that the searches' rates are read of; the newest when left
            out, or when a deletion took their files. A student's own rates are today's: they are
            measured after a version was cut.
    """
    ids = [question.question_id for question in questions]
    searched = read_pass_rates(warehouse, ids, tables, or_now=True)
    rates: dict[str, Rate] = {
        name: (rate, band, "search", None) for name, (rate, band) in searched.items()
    }
    if recipe.pass_rates == "student":
        for prompt, own in _by_prompt(questions, student).items():
            found = read_student_rates(warehouse, own, student.model_id, prompt)
            rates |= {name: rate for name, rate in found.items() if rate[2] != "search"}
    return rates


def _told_rates(rates: Mapping[str, Rate], student: Student, recipe: GrpoRecipe) -> str:
    """Say which rates are the student's own, and since when; empty where the searches' are asked.

    A student that was trained since is another model, of which nothing is measured.
    """
    if recipe.pass_rates != "student":
        return ""
    own = [at for _, _, by, at in rates.values() if by != "search" and at is not None]
    measure = "`vigorl evaluate MODEL TASK --pass-at 8` measures it"
    if not own:
        return f"pass rates are the searches', of {student.model_id} there are none: {measure}"
    others, oldest = len(rates) - len(own), f"{min(own):%Y-%m-%d %H:%M} UTC"
    told = f"{len(own)} pass rates are {student.model_id}'s own, the oldest of {oldest}"
    return told + (f", {others} the searches': {measure}" if others else "")


def _by_prompt(questions: Iterable[Question], student: Student) -> dict[str, list[str]]:
    """Return the questions' ids by the prompt file that they are asked with."""
    found: dict[str, list[str]] = {}
    for question in questions:
        prompt = student.prompt_style.prompt or task_of(question.task).prompt
        found.setdefault(prompt, []).append(question.question_id)
    return found


def _prefixes(
    warehouse: Warehouse, questions: Collection[Question], student: Student, recipe: GrpoRecipe
) -> dict[str, list[PrefixStart]]:
    """Return what the student goes on from, by question: where it was measured right sometimes, as
    near to half of the times as there is.

    Raises:
        TrainingError: there is nothing.
    """
    if not recipe.prefixes:
        return {}
    found: dict[str, list[PrefixStart]] = {}
    zooms = recipe.response_style is ResponseStyle.ZOOM
    for prompt, ids in _by_prompt(questions, student).items():
        found |= read_usable_prefixes(warehouse, ids, student.model_id, prompt, zooms)
    if not found:
        raise TrainingError(
            f"prefixes: there are none behind which {student.model_id} was measured right "
            "sometimes; `vigorl evaluate MODEL TASK --pass-at 8` measures whole answers, then the "
            "same with `--prefixes 4` these"
        )
    return {name: nearest_half(prefixes)[: recipe.prefixes] for name, prefixes in found.items()}


def nearest_half(prefixes: Iterable[PrefixStart]) -> list[PrefixStart]:
    """Sort measured prefixes by how far the student's rate behind them is from one half."""
    return sorted(prefixes, key=lambda p: abs((p.solved or 0) / (p.asked or 1) - 0.5))


def _beginning(
    renderer: ConversationRenderer, dialogues: Dialogues, zoom: ZoomConfig | None,
    marks: Sequence[str], question: Question, prefix: PrefixStart,
) -> str:  # fmt: skip
    """Return what an answer begins with: a text, or with zoom the turns, as JSON.

    Raises:
        DialogueProblem: the student's own calls would show something else, or it spells one of
            `marks`.
    """
    if zoom is None:
        begun = renderer.completion(prefix.steps, None, question) + "\n"
    else:
        begun = json.dumps(dialogues.turns_before(question, prefix.steps))
    if mark := first_mark(begun, marks):
        raise DialogueProblem(with_mark(mark))
    return begun


def _prompt_rows(
    warehouse: Warehouse,
    questions: Collection[Question],
    rates: Mapping[str, Rate],
    student: Student,
    recipe: GrpoRecipe,
) -> tuple[list[Row], dict[str, int]]:
    """Return rows as TRL and the rewards read them, and how many were left out by reason."""
    own, least = student.prompt_style.prompt, recipe.min_thoughts
    renderer = ConversationRenderer(warehouse, student.space, own, least)
    left_out: Counter[str] = Counter()
    kept: list[tuple[float, Question, str]] = []
    prefixes = _prefixes(warehouse, questions, student, recipe)
    marks = read_control_tokens(student)
    zoom = student.zoom if recipe.response_style is ResponseStyle.ZOOM else None
    dialogues = Dialogues(student, least)
    beginning = partial(_beginning, renderer, dialogues, zoom, marks)
    for question in questions:
        rate, band, by, _ = rates.get(question.question_id, (0.5, "unknown", "", None))
        if question.split not in TRAINED_SPLITS:
            left_out[f"of the split {question.split}"] += 1
            continue
        if band != "unknown" and band not in recipe.bands:
            left_out[f"{band} by the {by}"] += 1
        else:
            kept.append((rate, question, ""))
        for prefix in prefixes.get(question.question_id, ()):
            assert prefix.solved is not None and prefix.asked
            try:
                begun = beginning(question, prefix)
            except DialogueProblem as problem:
                left_out[f"prefixes {problem}"] += 1
                continue
            kept.append((prefix.solved / prefix.asked, question, begun))
    prompts = {q.question_id: renderer.prompt(q, zoom=zoom) for _, q, _ in kept}
    for name in list(prompts):
        if mark := mark_in(prompts[name], marks):
            left_out[with_mark(mark)] += 1
            del prompts[name]
    kept = [asked for asked in kept if asked[1].question_id in prompts]
    if recipe.curriculum == "easy_first":
        kept.sort(key=lambda asked: (-asked[0], asked[1].question_id, asked[2]))
    ids = [image.image_id for _, question, _ in kept for image in question.images]
    objects = read_objects(warehouse, ids)
    rows = [
        {
            "prompt": prompts[question.question_id],
            "image_ids": [image.image_id for image in question.images],
            "image_sizes": [[image.width, image.height] for image in question.images],
            "question_id": question.question_id,
            "question": question_column(
                question, [objects.get(image.image_id) for image in question.images]
            ),
            "min_thoughts": least,
        }
        | ({} if zoom is None else {"zoom": zoom_column(zoom)})
        | ({"prefix": begun} if recipe.prefixes else {})
        for _, question, begun in kept
    ]
    return rows, dict(left_out)


def _require_enough(prompts: Examples, source: str, recipe: GrpoRecipe) -> Examples:
    needed = recipe.questions * recipe.updates
    if len(prompts.rows) < needed:
        left_out = "".join(f", {n} {reason}" for reason, n in prompts.left_out.items())
        raise TrainingError(
            f"{source} has {len(prompts.rows)} questions to ask{left_out}; a batch of answers "
            f"takes {needed} (questions times updates of the recipe)"
        )
    return prompts
