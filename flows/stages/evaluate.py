"""Evaluation of a model on a benchmark: from names to models, questions, figures, a comparison.

    settings = EvaluateSettings.checked(model="./student", benchmark="sat2")
    outcome = await evaluate(settings, report=print)
    outcome.report.accuracy;  outcome.differences       # against another model

The measuring itself is `training.evaluation.measure`; here is what a person types. A model that
zooms is measured without zoom as well, since what looking closer is worth is the difference. The
same run again asks nothing that was answered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from curation.scores.bootstrap import PairedDifference
from flows.progress import ProgressLine, Report, ignore
from flows.settings import EvaluateSettings, TeacherSettings
from flows.settings_base import FieldProblem, Problem
from flows.stages.failures import describe_reasons
from flows.teachers.resolve import ResolvedTeacher, resolve
from flows.teachers.response_styles import WayOfAsking, way_of_asking, without_zoom
from flows.teachers.trained import trained_teacher
from mcts.data import Question
from mcts.teachers.credentials import mask_url
from mcts.teachers.identities import members
from training.evaluation.controls import CROP_CONTROLS
from training.evaluation.measure import (
    EvaluationProgress,
    EvaluationProtocol,
    Subject,
    measure,
)
from training.evaluation.report import EvaluationReport, compare
from training.values.lines import Scorer
from training.values.rerank import Reranking, rerank
from warehouse.query.read_back import PrefixStart, read_prefixes
from warehouse.sources import task_of
from warehouse.sources.find_files import normalize_split
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_image, read_questions

SPLITS = ("test", "validation")
"""Splits to measure on where none is named: the first that has questions."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of an evaluation."""

    report: EvaluationReport
    second: EvaluationReport | None = None
    """The model it was compared with."""
    differences: dict[str, PairedDifference] = field(default_factory=dict)
    """How much better the first is, over all and by family; empty without a second."""
    no_zoom: EvaluationReport | None = None
    """The first model on the same questions without zoom, where it zooms."""
    gain: dict[str, PairedDifference] = field(default_factory=dict)
    """How much better it is with zoom, over all and by family."""
    reranking: Reranking | None = None
    """What comes of a process reward model's choice among the first model's samples."""

    @property
    def reports(self) -> list[EvaluationReport]:
        """Every evaluation made."""
        return [r for r in (self.report, self.no_zoom, self.second) if r is not None]

    def rows(self) -> list[dict[str, str]]:
        """Return the first model's table; its last row is all questions without zoom."""
        rows = self.report.rows()
        if self.no_zoom is None:
            return rows
        overall = self.no_zoom.rows()[0]
        return [*rows, {title: overall.get(title, "") for title in rows[0]} | {"family": "no zoom"}]

    def sentence(self) -> str:
        """Sum up the outcome."""
        found = self.report.accuracy
        sentence = f"{self.report.model_id} on {self.report.benchmark}: "
        if found is None:
            sentence += f"no answer to any of {len(self.report.questions)} questions can be graded"
        else:
            sentence += (
                f"{_per_cent(found.value)} right, 95% interval {_interval(found.low, found.high)}, "
                f"{found.n} questions about {found.clusters} groups of images"
            )
        control = self.report.settings.get("control")
        if not control:
            return sentence
        if control == "prefixes":
            return f"{sentence}, behind prefixes of its trees"
        return f"{sentence}, {control} {'crops' if control in CROP_CONTROLS else 'images'}"

    def comparison(self) -> str:
        """Sum up the comparison with the second model."""
        assert self.second is not None
        names = (self.report.model_id, self.second.model_id)
        return _compared(self.differences, names, ("by the first", "by the second"))

    def zoom_gain(self) -> str:
        """Sum up the comparison with the same model without zoom."""
        return _compared(self.gain, ("zoom", "no zoom"), ("with zoom", "without"))

    def differences_by_family(self) -> list[dict[str, str]]:
        """Return the comparison as a table, in points; how often only one was right."""
        titles = ("first minus second", "only the first", "only the second")
        return _by_family(self.differences, titles)

    def gain_by_family(self) -> list[dict[str, str]]:
        """Return the comparison with the same model without zoom as a table, in points."""
        return _by_family(self.gain, ("zoom minus no zoom", "only with zoom", "only without"))

    def plain(self) -> dict[str, Any]:
        """Return the outcome as JSON holds it."""
        from dataclasses import asdict

        found = self.report.plain()
        if self.second is not None:
            found["against"] = self.second.plain()
            found["differences"] = {f: asdict(gap) for f, gap in self.differences.items()}
        if self.no_zoom is not None:
            found["no_zoom"] = self.no_zoom.plain()
            found["zoom_gain"] = {f: asdict(gap) for f, gap in self.gain.items()}
        if self.reranking is not None:
            found["rerank"] = self.reranking.plain()
        return found


def _compared(
    differences: Mapping[str, PairedDifference], names: tuple[str, str], by: tuple[str, str]
) -> str:
    if not differences:
        return f"{names[0]} minus {names[1]}: no question was graded of both"
    gap = differences["all"]
    return (
        f"{names[0]} minus {names[1]}: {100 * gap.value:+.1f} points, "
        f"95% interval {_interval(gap.low, gap.high, '+')}{gap.doubt} (bootstrap over images "
        f"p = {gap.p:.2g}; {gap.only_first} right only {by[0]}, {gap.only_second} only {by[1]}, "
        f"McNemar p = {gap.mcnemar:.2g})"
    )


def _by_family(
    differences: dict[str, PairedDifference], titles: tuple[str, str, str]
) -> list[dict[str, str]]:
    return [
        {
            "family": family,
            "questions": str(gap.n),
            titles[0]: f"{100 * gap.value:+.1f} " + _interval(gap.low, gap.high, "+"),
            titles[1]: str(gap.only_first),
            titles[2]: str(gap.only_second),
            "McNemar p": f"{gap.mcnemar:.2g}",
        }
        for family, gap in differences.items()
    ]


def _per_cent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _interval(low: float, high: float, sign: str = "") -> str:
    return f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


async def evaluate(
    settings: EvaluateSettings, *, report: Report = ignore, beside_no_zoom: bool = True,
    question_ids: Collection[str] | None = None,
) -> Outcome:  # fmt: skip
    """Measure a model on a benchmark, and compare it with another one where that is asked for.

    Args:
        beside_no_zoom: ask a model that zooms everything a second time, without zoom.
        question_ids: only these of the benchmark's questions; all when left out.

    Raises:
        Problem: there are no such questions, no such model, or no such prompt.
        TeacherUnavailable: the model does not answer; its responses so far are kept.
        TrainingError: `rerank` names no process reward model.
    """
    warehouse = Warehouse.at(settings.home)
    questions, split = await asyncio.to_thread(find_benchmark, warehouse, settings, report)
    if question_ids is not None:
        questions = [question for question in questions if question.question_id in question_ids]
    asked = _Benchmark(warehouse, settings, questions, split, report)
    resolved, way = resolve_model(settings, settings.model)
    try:
        scorer = await asyncio.to_thread(load_scorer, settings, way)  # before anything is asked
        first = await asked.measure(settings.model, resolved, way)
        outcome = Outcome(first)
        if scorer is not None:
            chosen = await asyncio.to_thread(asked.rerank, first, scorer)
            outcome = replace(outcome, reranking=chosen)
        if way.zoom is not None and beside_no_zoom and not settings.prefixes:
            plain = without_zoom(resolved, task_of(settings.benchmark))
            no_zoom = await asked.measure(settings.model, resolved, plain, ", no zoom")
            outcome = replace(outcome, no_zoom=no_zoom, gain=compare(first, no_zoom))
    finally:
        await resolved.teacher.close()
    if settings.against is None:
        return outcome
    resolved, way = resolve_model(settings, settings.against)
    try:
        second = await asked.measure(settings.against, resolved, way)
    finally:
        await resolved.teacher.close()
    return replace(outcome, second=second, differences=compare(first, second))


def find_benchmark(
    warehouse: Warehouse, settings: EvaluateSettings, report: Report = ignore
) -> tuple[list[Question], str]:
    """Return the questions to ask and their split; a task with a sample is given it if empty.

    Raises:
        Problem: there are none.
    """

    splits: Sequence[str] = SPLITS
    if settings.split:  # `dev` is a split of its own where there is a validation as well
        splits = list(dict.fromkeys([settings.split, normalize_split(settings.split)]))

    def read() -> tuple[list[Question], str]:
        for split in splits:
            found = list(
                read_questions(warehouse, settings.benchmark, split=split, limit=settings.limit)
            )
            if found:
                return found, split
        return [], ""

    found, split = read()
    sample = task_of(settings.benchmark).sample
    empty = not found and not any(read_questions(warehouse, settings.benchmark, limit=1))
    if empty and sample is not None and set(splits) & set(sample.files):
        from warehouse.sources.importing import import_sample

        if imported := import_sample(warehouse, settings.benchmark):
            report(f"the embedded sample was imported ({imported.added} questions)")
            found, split = read()
    if not found:
        splits_shown = settings.split or " or ".join(SPLITS)
        raise Problem(
            f"there are no questions of benchmark {settings.benchmark!r}, split {splits_shown}, in "
            f"{warehouse.root}; import some with `vigorl import {settings.benchmark} PATH`"
        )
    return found, split


@dataclass(frozen=True, slots=True)
class _Benchmark:
    """The questions, and how every model is asked them."""

    warehouse: Warehouse
    settings: EvaluateSettings
    questions: list[Question]
    split: str
    report: Report

    def _demanded(self, name: str, way: WayOfAsking) -> int:
        """Return how many steps the prompt demands: of a student of GRPO what it was asked for."""
        if len(names := members(name)) > 1:
            return max(self._demanded(one, way) for one in names)
        row = trained_teacher(self.settings.home, name)
        recipe = json.loads(row["recipe"]) if row is not None else {}
        if recipe.get("kind") == "grpo" and "min_thoughts" in recipe:
            return int(recipe["min_thoughts"])
        return 1 if way.zoom else 3

    async def measure(
        self, name: str, resolved: ResolvedTeacher, way: WayOfAsking, remark: str = ""
    ) -> EvaluationReport:
        """Measure a model; its teacher stays open.

        Args:
            name: of the model, as it was typed.
            remark: what is shown behind the name.

        Raises:
            Problem: there is no such prompt, or an image is lost.
        """
        settings = self.settings
        control = settings.control
        if way.zoom is None and control in CROP_CONTROLS:
            control = None  # there are no crops to replace
        protocol = EvaluationProtocol(
            temperature=settings.temperature, top_p=settings.top_p, samples=settings.samples,
            min_thoughts=settings.min_thoughts or self._demanded(name, way), seed=settings.seed,
            control=control,
        )  # fmt: skip
        subject = Subject(
            resolved.teacher, resolved.space, way.prompt, resolved.step_tokens, way.zoom
        )
        questions, prefixes = self.questions, None
        if settings.prefixes:
            prefixes = await self._prefixes(resolved, way)
            questions = [question for question in questions if question.question_id in prefixes]
        shown = mask_url(name).replace("{", "{{").replace("}", "}}")
        line = ProgressLine(f"{shown}{remark}: {{done}} of {{total}} questions", report=self.report)
        try:
            measured = await measure(
                subject, questions, self.warehouse, protocol,
                benchmark=f"{settings.benchmark}/{self.split}",
                concurrency=settings.concurrency, progress=partial(_show, line),
                recorded={"settings": settings.params()}, refusals=settings.refusals,
                prefixes=prefixes,
            )  # fmt: skip
        except KeyError as lost:
            raise Problem(f"image {lost.args[0]} is not among the warehouse's objects") from None
        except ValueError as error:  # no such prompt
            raise Problem(str(error)) from None
        finally:
            line.close()
        if measured.failed:
            why = describe_reasons(measured.unanswered.values())
            self.report(
                f"unanswered and in no figure: {measured.failed} of {len(questions)} "
                f"questions: {why}; the same command asks them again"
            )
        return measured

    def rerank(self, measured: EvaluationReport, scorer: Scorer) -> Reranking:
        """Have a process reward model choose among each question's samples."""
        line = ProgressLine("{done} of {total} questions reranked", report=self.report)
        try:
            return rerank(
                measured, scorer, lambda name: read_image(self.warehouse, name),
                lambda done, of: line.update(done, of, "", None),
            )  # fmt: skip
        finally:
            line.close()

    async def _prefixes(
        self, resolved: ResolvedTeacher, way: WayOfAsking
    ) -> dict[str, list[PrefixStart]]:
        """Return what the model goes on from, by question.

        Raises:
            Problem: there is nothing.
        """
        await resolved.teacher.open()
        ids = [question.question_id for question in self.questions]
        zooms = "zooms" if way.zoom is not None else "NOT zooms"
        chosen = f"{zooms} AND place <= {self.settings.prefixes}"
        asked = (resolved.teacher.identity, way.prompt, chosen)
        found = await asyncio.to_thread(read_prefixes, self.warehouse, ids, *asked)
        if not found:
            raise FieldProblem(
                "prefixes",
                "no tree has a right prefix of a question that this model never solves, or a wrong "
                "one of a question it nearly always does; search them, and measure whole answers "
                "first (--pass-at without --prefixes)",
            )
        return found


def load_scorer(settings: EvaluateSettings, way: WayOfAsking) -> Scorer | None:
    """Load the process reward model that `rerank` names; None where it names none.

    Raises:
        Problem: it values dialogues that zoom where the model doesn't, or the other way round.
        TrainingError: it is none.
    """
    if settings.rerank is None:
        return None
    from training.values.model import load_value_model

    scorer = load_value_model(Warehouse.at(settings.home), settings.rerank)
    if scorer.writer.zooms is not (way.zoom is not None):
        those = "dialogues that zoom" if scorer.writer.zooms else "answers without crops"
        raise FieldProblem("rerank", f"{scorer.student.model_id} values {those} alone")
    return scorer


def _show(line: ProgressLine, done: EvaluationProgress) -> None:
    answered = done.questions - done.unanswered
    right = f"{_per_cent(done.right / answered)} right" if answered else "none answered"
    figures = f"{right}, {done.tokens / max(done.seconds, 1e-9):.0f} tokens/s"
    line.update(done.questions, done.of, figures, done.remaining)


def resolve_model(settings: EvaluateSettings, name: str) -> tuple[ResolvedTeacher, WayOfAsking]:
    """Return a model, and how it is asked.

    Args:
        name: as for a build's teacher (`flows.teachers.resolve`).

    Raises:
        Problem: there is none, its coordinates are not known, it has no such prompt, or what was
            given goes only with a model that zooms.
    """
    teacher = TeacherSettings.of(settings, teacher=name, model=settings.served)
    resolved = resolve(teacher, reconnect=True, crops=settings.max_crops)
    style = settings.response_style or resolved.style.response_style
    task = task_of(settings.benchmark)
    way = way_of_asking(settings, resolved, task, style, settings.prompt)
    if settings.control in CROP_CONTROLS and way.zoom is None:
        raise FieldProblem(
            "control",
            f"{settings.control} replaces crops, and the model answers {style} here; "
            "give --response-style zoom",
        )
    return resolved, way
