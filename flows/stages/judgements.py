"""What `flows.stages.judge` asks a model for: looks at points, counts of behaviors, steps left out.

Each function takes traces with their questions and returns rows of `step_scores` or `behaviors`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from curation.scores import judge_prompts as judging
from curation.scores import necessity
from flows.teachers.resolve import ChosenTeacher
from mcts.concurrency import gather
from mcts.config import SearchConfig
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Question, Step, Trace, content_id
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.journal.records import Key, Record
from mcts.parsing import render
from mcts.prompts import load_prompt
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import Request, TeacherError
from warehouse.query.read_back import rows_among
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import behavior_rows, read_image

Row = dict[str, Any]
Asked = Sequence[tuple[Trace, Question]]


@dataclass(slots=True)
class Asking:
    """A model that is open, behind its journal, and what is known about it."""

    warehouse: Warehouse
    teacher: JournaledTeacher
    chosen: ChosenTeacher
    identity: str
    methods: Mapping[str, str]
    """The full name of a method, version and model included, by its first word."""
    samples: int
    slots: asyncio.Semaphore
    journal: Journal
    retry_failed: bool
    began: float
    """When this run began (Unix time): what failed since then is not asked again by it."""
    places: defaultdict[str, asyncio.Lock] = field(
        default_factory=lambda: defaultdict(asyncio.Lock)
    )
    """One at a time asks at a place of the journal: whoever comes later finds the answer there."""
    tells_probabilities: bool = True
    """Whether the model is still believed to tell its first word's probabilities."""

    async def put(
        self, what: str, request: Request, images: Mapping[str, bytes], *parts: object
    ) -> Record:
        """One request, journaled under what it asks: the same question has the same place."""
        name = content_id(what, judging.VERSION, judging.DIGEST, self.identity, *parts)
        async with self.places[name], self.slots:
            key = Key(self.attempt(name, ""), "", "judge", 0)
            return await self.teacher.ask(key, request, images)

    def attempt(self, name: str, node: str) -> str:
        """The name to ask under: the last that was tried, or a new one where that failed before
        and is to be asked again."""

        def records(tried: str) -> list[Record]:
            return [found for found in self.journal.records(tried) if found.key.node == node]

        for number in itertools.count(1):
            tried = name if number == 1 else f"{name}-{number}"
            failed = any(r.failure and r.started_at < self.began for r in records(tried))
            if not failed or not (self.retry_failed or records(f"{name}-{number + 1}")):
                return tried
        raise AssertionError


# ---- grounding: a region around the point, shown to the model ----------------------------------


async def look_at_points(asking: Asking, asked: Asked) -> list[Row]:
    """Rows for the steps that point, and of which boxes said nothing when the trace was made."""
    unknown = await asyncio.to_thread(
        rows_among,
        asking.warehouse,
        "(SELECT trace_id, step FROM steps WHERE x IS NOT NULL AND grounded IS NULL)",
        "trace_id",
        [trace.trace_id for trace, _ in asked],
    )
    open_steps = {(row["trace_id"], row["step"]) for row in unknown}
    wanted: dict[tuple[str, str, float, float], list[tuple[str, int]]] = {}
    steps: dict[tuple[str, str, float, float], tuple[Step, Question]] = {}
    rows = []
    for trace, question in asked:
        for number, step in enumerate(trace.steps):
            if step.point is None or (trace.trace_id, number) not in open_steps:
                continue
            if not 0 <= step.point.image < len(question.images):
                rows.append(_row(asking, trace.trace_id, number, "no such image"))
                continue
            image_id = question.images[step.point.image].image_id
            key = (image_id, step.thought, step.point.x, step.point.y)
            wanted.setdefault(key, []).append((trace.trace_id, number))
            steps[key] = step, question
    answers = await gather(_look(asking, *steps[key]) for key in wanted)
    for places, answer in zip(wanted.values(), answers, strict=True):
        rows += [_row(asking, trace_id, number) | answer for trace_id, number in places]
    return rows


def _row(asking: Asking, trace_id: str, number: int, note: str = "") -> Row:
    method = asking.methods["region"]
    return {
        "trace_id": trace_id, "step": number, "score": "grounding", "method": method, "n": 0,
        "note": note,
    }  # fmt: skip


async def _look(asking: Asking, step: Step, question: Question) -> Row:
    """How likely the region around a step's point shows what the step says."""
    assert step.point is not None
    image = question.images[step.point.image]
    region = judging.region_around(step.point, image)
    if region is None:
        return {"note": "the point is outside the image"}
    try:
        data = await asyncio.to_thread(read_image, asking.warehouse, image.image_id)
        crop_id, crop = await asyncio.to_thread(judging.cut_out, data, region)
    except (KeyError, OSError) as error:
        return {"note": f"the picture cannot be read: {error}"}
    if asking.tells_probabilities:
        request = judging.region_request(step, crop_id)
        try:
            record = await asking.put("region", request, {crop_id: crop}, crop_id, step.thought, 0)
            value = judging.probability(record.completions)
            if value is not None:
                names = [record.response_id]
                return {"value": value, "n": 1, "note": "logprobs", "responses": names}
            if not any(completion.top_logprobs for completion in record.completions):
                asking.tells_probabilities = False
        except TeacherError:
            pass  # some servers refuse to tell probabilities; what else is wrong shows below
    request = judging.region_request(step, crop_id, asking.samples)
    parts = (crop_id, step.thought, asking.samples)
    try:
        record = await asking.put("region", request, {crop_id: crop}, *parts)
    except TeacherError as error:
        return {"note": str(error), "error": error.kind}
    value, n = judging.share_of_yes(record.completions)
    note = "samples" if n else "no answer begins with yes or no"
    return {"value": value, "n": n, "note": note, "responses": [record.response_id]}


# ---- behaviors: the counting questions -----------------------------------------------------------


async def count_behaviors(asking: Asking, asked: Asked) -> list[Row]:
    """Rows of `behaviors`; a count is null where the model gave no number, or was not heard."""

    async def one(trace: Trace, question: Question) -> list[Row]:
        pixels = Frame.of(CoordinateSpace.original(), question)
        text = render(trace.steps, trace.answer, pixels)
        counts: dict[str, int | None] = {}
        errors: dict[str, str] = {}
        for behavior in judging.COUNTED:
            request = judging.counting_request(behavior, question, text)
            try:
                record = await asking.put(behavior, request, {}, trace.question_id, text)
                counts[behavior] = judging.count_in(record.completions[0].text)
            except TeacherError as error:
                counts[behavior], errors[behavior] = None, error.kind
        rows = behavior_rows(trace.trace_id, counts, asking.methods["judge"])
        return [{**row, "error": errors.get(row["behavior"])} for row in rows]

    return [row for rows in await gather(one(*pair) for pair in asked) for row in rows]


# ---- necessity: the answer without a step, or with its point moved -------------------------------


async def vary_steps(asking: Asking, asked: Asked) -> list[Row]:
    """Rows for every step that can be left out, or whose point can be moved."""
    found = await gather(_vary(asking, trace, question) for trace, question in asked)
    return [row for rows in found for row in rows]


async def _vary(asking: Asking, trace: Trace, question: Question) -> list[Row]:
    chosen = asking.chosen
    prompt = load_prompt(chosen.prompt_for(question.task))
    config = SearchConfig(chosen.space, prompt.name, prompt.digest, step_tokens=chosen.step_tokens)
    parts = [question.question_id, asdict(config), asking.samples, asking.identity]
    name = content_id("necessity", necessity.VERSION, *parts)
    try:
        images = {
            image.image_id: await asyncio.to_thread(read_image, asking.warehouse, image.image_id)
            for image in question.images
        }
    except KeyError as lost:
        return _unvaried(asking, trace, f"image {lost.args[0]} is not among the objects")
    frame = Frame.of(chosen.space, question)

    async def value(steps: Sequence[Step]) -> tuple[float | None, str]:
        place = content_id([step.thought for step in steps])
        async with asking.places[name + place], asking.slots:
            tried = asking.attempt(name, place)
            policy = TeacherPolicy(question, config, tried, asking.teacher, images)
            samples = await policy.sample(place, "finish", steps, asking.samples)
        response = samples[0].response_id.rpartition(".")[0]
        return necessity.value(question, samples, frame), response

    try:
        base, with_it = await value(trace.steps)
    except TeacherError as error:
        return [row | {"error": error.kind} for row in _unvaried(asking, trace, str(error))]

    async def one(number: int, method: str) -> list[Row]:
        changed = necessity.variant(trace.steps, number, method, question)
        if changed is None:
            return []
        row = {
            "trace_id": trace.trace_id, "step": number, "score": "necessity",
            "method": asking.methods[method], "base": base,
        }  # fmt: skip
        try:
            after, response = await value(changed)
        except TeacherError as error:
            return [row | {"n": 0, "note": str(error), "error": error.kind}]
        known = base is not None and after is not None
        change = base - after if base is not None and after is not None else None
        note = "samples" if known else "no answer could be graded"
        return [
            row | {"value": change, "n": asking.samples, "note": note,
                   "responses": [with_it, response]}
        ]  # fmt: skip

    tried = [(i, method) for i in range(len(trace.steps)) for method in necessity.METHODS]
    return [row for rows in await gather(one(*pair) for pair in tried) for row in rows]


def _unvaried(asking: Asking, trace: Trace, why: str) -> list[Row]:
    """The failure as data: one row, on the first step."""
    return [
        {"trace_id": trace.trace_id, "step": 0, "score": "necessity", "n": 0, "note": why,
         "method": asking.methods["without"]}
    ]  # fmt: skip
