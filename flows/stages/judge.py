"""Judging stored traces with a model: `vigorl judge`, as a plain function.

    judged = await judge(JudgeSettings(task="sat2", what="behaviors", judge="http://gpu:8000"))
    print(judged.sentence())

The first half is the run: which traces, in which order, and what is stored. The second half asks:
whether a region around a point shows what its step says, how often each behavior occurs, and what
the answer is without a step or with its point moved.

Responses are journaled before they are used, under what was asked and not under its trace, so a
step that a hundred traces share is asked about once, and a run that was stopped continues. What is
stored already, by the same method, is left alone. A server that goes away is waited for. A request
that fails for good becomes a row without a value that says why; `retry_failed` asks it again and
puts the new rows of its trace in the place of the old.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from curation.scores import judge_prompts as prompts
from curation.scores import necessity
from flows.progress import Report, ignore
from flows.settings import JudgeSettings
from flows.settings_base import Problem
from flows.teachers.resolve import ResolvedTeacher, resolve
from mcts.concurrency import gather
from mcts.config import SearchConfig, identifying_fields
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Question, Step, Trace, content_id
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.journal.records import Key, Record
from mcts.parsing import render
from mcts.prompts import load_prompt
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import Request, TeacherError
from mcts.teachers.identities import member_of
from mcts.teachers.shared_refusal import SharedRefusal
from warehouse.maintenance.delete import delete_rows
from warehouse.query.read_back import read_traces, rows_among
from warehouse.query.run_query import query_trusted
from warehouse.query.sql_guard import all_quoted, quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new, record_run
from warehouse.tables.rows import behavior_rows, read_image, read_questions
from warehouse.tables.schema import Row

BATCH = 16  # traces judged and committed together

Traces = Sequence[tuple[Trace, Question]]


@dataclass(slots=True)
class Judged:
    """Outcome of a run of `judge`."""

    traces: int = 0
    rows: int = 0
    """Scores or counts stored."""
    values: list[float] = field(default_factory=list)
    """Those that have a value."""
    requests: int = 0
    replayed: int = 0

    def sentence(self) -> str:
        """Sum up the outcome."""
        if not self.traces:
            return "there is nothing left to judge"
        mean = f", {sum(self.values) / len(self.values):.3f} on average" if self.values else ""
        return (
            f"{self.traces} traces judged: {self.rows} rows, {len(self.values)} with a value{mean}"
        )


async def judge(settings: JudgeSettings, *, report: Report = ignore) -> Judged:
    """Ask a model about the traces of a task that have no answer yet.

    Raises:
        Problem: the task has no traces, or the model cannot be resolved.
        TeacherUnavailable: the model does not answer; its responses so far are kept.
    """
    warehouse = Warehouse.at(settings.home)
    kind = KINDS[settings.what]
    task = quoted(settings.task)
    if not query_trusted(warehouse, f"FROM traces WHERE task = {task} LIMIT 1").num_rows:
        raise Problem(f"there are no traces of task {settings.task!r} in {warehouse.root}")
    model = settings
    if settings.what != "necessity":
        # A judge is shown no coordinates and gives none, so any space will do.
        model = settings.model_copy(update={"teacher": settings.judge, "space": "original"})
    resolved = resolve(model, reconnect=True)
    run_id, judged = f"judge-{uuid.uuid4().hex[:12]}", Judged()
    try:
        await resolved.teacher.open()
        identity = resolved.teacher.identity
        methods = {name: f"{name}/{kind.version}:{identity}" for name in kind.methods}
        failed = _failed(warehouse, kind, methods.values()) if settings.retry_failed else set()
        trace_ids = _to_do(warehouse, kind, task, methods.values(), failed, settings.limit)
        if not trace_ids:
            return judged
        record_run(warehouse, run_id, "judge", task=settings.task, params=settings.params())
        with Journal(warehouse.journal_dir / "judge") as journal:
            refusals = SharedRefusal(settings.refusals)
            teacher = JournaledTeacher(resolved.teacher, journal, refusals=refusals)
            opened = OpenJudge(
                warehouse, teacher, resolved, identity, methods, settings.samples,
                asyncio.Semaphore(settings.concurrency), journal, settings.retry_failed,
                time.time(),
            )  # fmt: skip
            for start in range(0, len(trace_ids), BATCH):
                some = trace_ids[start : start + BATCH]
                rows = await kind.judge(opened, await asyncio.to_thread(_read, warehouse, some))
                rows = [{**row, "run_id": run_id} for row in rows]
                await teacher.settle()
                if again := sorted(failed.intersection(some)):
                    where = (
                        f"{_listed('trace_id', again)} AND {_listed('method', methods.values())}"
                    )
                    await asyncio.to_thread(delete_rows, warehouse, kind.table, where)
                await asyncio.to_thread(insert_new, warehouse, kind.table, rows)
                opened.places.clear()  # no request is in flight
                journal.rest()
                judged.traces += len(some)
                judged.rows += len(rows)
                found = [row.get("count" if kind.table == "behaviors" else "value") for row in rows]
                judged.values += [float(value) for value in found if value is not None]
                judged.requests, judged.replayed = teacher.requested, teacher.replayed
                report(f"{judged.traces} of {len(trace_ids)} traces, {judged.requests} requests")
    finally:
        await resolved.teacher.close()
    return judged


def _failed(warehouse: Warehouse, kind: Kind, methods: Iterable[str]) -> set[str]:
    """Traces with a row by these methods that stands for a failed request."""
    where = f"error IS NOT NULL AND {_listed('method', methods)}"
    found = query_trusted(warehouse, f"SELECT DISTINCT trace_id FROM {kind.table} WHERE {where}")
    return set(found["trace_id"].to_pylist())


def _listed(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({all_quoted(values)})"


def _to_do(
    warehouse: Warehouse,
    kind: Kind,
    task: str,
    methods: Iterable[str],
    failed: Iterable[str],
    limit: int | None,
) -> list[str]:
    """Traces without a row by these methods, and the failed, in the order of their ids: a fair
    sample of all."""
    done = f"SELECT trace_id FROM {kind.table} WHERE {_listed('method', methods)}"
    if again := sorted(failed):
        done += f" AND NOT {_listed('trace_id', again)}"
    wanted = kind.traces.format(task=task, done=done)
    most = "" if limit is None else f"LIMIT {limit}"
    found = query_trusted(warehouse, f"SELECT trace_id FROM ({wanted}) ORDER BY trace_id {most}")
    return [str(trace_id) for trace_id in found["trace_id"].to_pylist()]


def _read(warehouse: Warehouse, trace_ids: Sequence[str]) -> list[tuple[Trace, Question]]:
    traces = [trace for trace, _ in read_traces(warehouse, trace_ids)]
    ids = list({trace.question_id for trace in traces})
    questions = {q.question_id: q for q in read_questions(warehouse, question_ids=ids)}
    return [(trace, questions[trace.question_id]) for trace in traces]


# ---- the model, open ---------------------------------------------------------------------------


@dataclass(slots=True)
class OpenJudge:
    """A model that is open, behind its journal, and what is known about it."""

    warehouse: Warehouse
    teacher: JournaledTeacher
    resolved: ResolvedTeacher
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
    """One request at a time for a place of the journal: later ones find the response there."""
    silent: set[str] = field(default_factory=set)
    """Models that do not give their first word's probabilities."""

    async def put(
        self, what: str, request: Request, images: Mapping[str, bytes], *parts: object
    ) -> Record:
        """Make one request, journaled under what it asks: the same question has the same place."""
        name = content_id(what, prompts.VERSION, prompts.DIGEST, self.identity, *parts)
        async with self.places[name], self.slots:
            key = Key(self.attempt(name, ""), "", "judge", 0)
            # Several questions about one trace fail together where the trace is at fault.
            return await self.teacher.ask(key, request, images, subject=str(parts[0]))

    def attempt(self, name: str, node: str) -> str:
        """Return the name to ask under: the last that was tried, or a new one where that failed
        before and is to be asked again."""

        def records(tried: str) -> list[Record]:
            return [found for found in self.journal.records(tried) if found.key.node == node]

        for number in itertools.count(1):
            tried = name if number == 1 else f"{name}-{number}"
            failed = any(r.failure and r.started_at < self.began for r in records(tried))
            if not failed or not (self.retry_failed or records(f"{name}-{number + 1}")):
                return tried
        raise AssertionError


# ---- grounding: a region around the point, shown to the model ----------------------------------


async def look_at_points(opened: OpenJudge, traces: Traces) -> list[Row]:
    """Score the steps that point and that no box decided on when the trace was made."""
    unknown = await asyncio.to_thread(
        rows_among,
        opened.warehouse,
        "(SELECT trace_id, step FROM steps WHERE x IS NOT NULL AND grounded IS NULL)",
        "trace_id",
        [trace.trace_id for trace, _ in traces],
    )
    open_steps = {(row["trace_id"], row["step"]) for row in unknown}
    wanted: dict[tuple[str, str, float, float], list[tuple[str, int]]] = {}
    steps: dict[tuple[str, str, float, float], tuple[Step, Question]] = {}
    rows = []
    for trace, question in traces:
        for number, step in enumerate(trace.steps):
            if step.point is None or (trace.trace_id, number) not in open_steps:
                continue
            if not 0 <= step.point.image < len(question.images):
                rows.append(_row(opened, trace.trace_id, number, "no such image"))
                continue
            image_id = question.images[step.point.image].image_id
            key = (image_id, step.thought, step.point.x, step.point.y)
            wanted.setdefault(key, []).append((trace.trace_id, number))
            steps[key] = step, question
    answers = await gather(_look(opened, *steps[key]) for key in wanted)
    for places, answer in zip(wanted.values(), answers, strict=True):
        rows += [_row(opened, trace_id, number) | answer for trace_id, number in places]
    return rows


def _row(opened: OpenJudge, trace_id: str, number: int, note: str = "") -> Row:
    method = opened.methods["region"]
    return {
        "trace_id": trace_id, "step": number, "score": "grounding", "method": method, "n": 0,
        "note": note,
    }  # fmt: skip


async def _look(opened: OpenJudge, step: Step, question: Question) -> Row:
    """Ask how likely the region around a step's point shows what the step says."""
    assert step.point is not None
    image = question.images[step.point.image]
    region = prompts.region_around(step.point, image)
    if region is None:
        return {"note": "the point is outside the image"}
    try:
        data = await asyncio.to_thread(read_image, opened.warehouse, image.image_id)
        crop_id, crop = await asyncio.to_thread(prompts.cut_out, data, region)
    except (KeyError, OSError) as error:
        return {"note": f"the picture cannot be read: {error}"}
    request = prompts.region_request(step, crop_id)
    asked = member_of(opened.identity, request.seed)
    if asked not in opened.silent:
        try:
            record = await opened.put("region", request, {crop_id: crop}, crop_id, step.thought, 0)
            value = prompts.probability(record.completions)
            if value is not None:
                names = [record.response_id]
                return {"value": value, "n": 1, "note": "logprobs", "responses": names}
            if not any(completion.top_logprobs for completion in record.completions):
                opened.silent.add(asked)
        except TeacherError:
            pass  # some servers refuse to give probabilities; what else is wrong shows below
    request = prompts.region_request(step, crop_id, opened.samples)
    parts = (crop_id, step.thought, opened.samples)
    try:
        record = await opened.put("region", request, {crop_id: crop}, *parts)
    except TeacherError as error:
        return {"note": str(error), "error": error.kind}
    value, n = prompts.share_of_yes(record.completions)
    note = "samples" if n else "no answer begins with yes or no"
    return {"value": value, "n": n, "note": note, "responses": [record.response_id]}


# ---- behaviors: the counting questions -----------------------------------------------------------


async def count_behaviors(opened: OpenJudge, traces: Traces) -> list[Row]:
    """Count behaviors; a count is null where the model gave no number, or its request failed."""

    async def one(trace: Trace, question: Question) -> list[Row]:
        pixels = Frame.of(CoordinateSpace.original(), question)
        text = render(trace.steps, trace.answer, pixels)
        counts: dict[str, int | None] = {}
        errors: dict[str, str] = {}
        for behavior in prompts.JUDGED_BEHAVIORS:
            request = prompts.counting_request(behavior, question, text)
            try:
                record = await opened.put(behavior, request, {}, trace.question_id, text)
                counts[behavior] = prompts.count_in(record.completions[0].text)
            except TeacherError as error:
                counts[behavior], errors[behavior] = None, error.kind
        rows = behavior_rows(trace.trace_id, counts, opened.methods["judge"])
        return [{**row, "error": errors.get(row["behavior"])} for row in rows]

    return [row for rows in await gather(one(*pair) for pair in traces) for row in rows]


# ---- necessity: the answer without a step, or with its point moved -------------------------------


async def vary_steps(opened: OpenJudge, traces: Traces) -> list[Row]:
    """Score every step that can be left out, or whose point can be moved."""
    found = await gather(_vary(opened, trace, question) for trace, question in traces)
    return [row for rows in found for row in rows]


async def _vary(opened: OpenJudge, trace: Trace, question: Question) -> list[Row]:
    resolved = opened.resolved
    prompt = load_prompt(resolved.prompt_for(question.task))
    config = SearchConfig(
        resolved.space, prompt.name, prompt.digest, step_tokens=resolved.step_tokens
    )
    parts = [question.question_id, identifying_fields(config), opened.samples, opened.identity]
    name = content_id("necessity", necessity.VERSION, *parts)
    try:
        images = {
            image.image_id: await asyncio.to_thread(read_image, opened.warehouse, image.image_id)
            for image in question.images
        }
    except KeyError as lost:
        return _unvaried(opened, trace, f"image {lost.args[0]} is not among the objects")
    frame = Frame.of(resolved.space, question)

    async def value(steps: Sequence[Step]) -> tuple[float | None, str]:
        place = content_id([step.thought for step in steps])
        async with opened.places[name + place], opened.slots:
            tried = opened.attempt(name, place)
            policy = TeacherPolicy(question, config, tried, opened.teacher, images)
            samples = await policy.sample(place, "finish", steps, opened.samples)
        response = samples[0].response_id.rpartition(".")[0]
        return necessity.mean_reward(question, samples, frame), response

    try:
        base, with_it = await value(trace.steps)
    except TeacherError as error:
        return [row | {"error": error.kind} for row in _unvaried(opened, trace, str(error))]

    async def one(number: int, method: str) -> list[Row]:
        changed = necessity.change_step(trace.steps, number, method, question)
        if changed is None:
            return []
        row = {
            "trace_id": trace.trace_id, "step": number, "score": "necessity",
            "method": opened.methods[method], "base": base,
        }  # fmt: skip
        try:
            after, response = await value(changed)
        except TeacherError as error:
            return [row | {"n": 0, "note": str(error), "error": error.kind}]
        known = base is not None and after is not None
        change = base - after if base is not None and after is not None else None
        note = "samples" if known else "no answer could be graded"
        return [
            row | {"value": change, "n": opened.samples, "note": note,
                   "responses": [with_it, response]}
        ]  # fmt: skip

    tried = [(i, method) for i in range(len(trace.steps)) for method in necessity.METHODS]
    return [row for rows in await gather(one(*pair) for pair in tried) for row in rows]


def _unvaried(opened: OpenJudge, trace: Trace, why: str) -> list[Row]:
    """Return the failure as data: one row, on the first step."""
    return [
        {"trace_id": trace.trace_id, "step": 0, "score": "necessity", "n": 0, "note": why,
         "method": opened.methods["without"]}
    ]  # fmt: skip


# ---- what can be judged --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """One score or count that a model can give."""

    table: str
    version: int
    methods: tuple[str, ...]
    """First words of the methods its rows have."""
    traces: str
    """SQL over traces of a task that can be judged so; `{done}` are the ids of those that are."""
    judge: Callable[[OpenJudge, Traces], Awaitable[list[Row]]]


KINDS = {
    "grounding": Kind(
        "step_scores", prompts.VERSION, ("region",),
        "SELECT DISTINCT trace_id FROM kept_traces JOIN steps USING (trace_id) "
        "WHERE task = {task} AND x IS NOT NULL AND grounded IS NULL AND trace_id NOT IN ({done})",
        look_at_points,
    ),
    "behaviors": Kind(
        "behaviors", prompts.VERSION, ("judge",),
        "SELECT trace_id FROM latest_traces WHERE task = {task} AND trace_id NOT IN ({done})",
        count_behaviors,
    ),
    "necessity": Kind(
        "step_scores", necessity.VERSION, necessity.METHODS,
        "SELECT trace_id FROM kept_traces WHERE task = {task} AND kind = 'direct' "
        "AND trace_id NOT IN ({done})",
        vary_steps,
    ),
}  # fmt: skip
