"""Evaluation of a model on a benchmark: from names to models, questions, figures, a comparison.

    settings = EvaluateSettings.checked(model="./student", benchmark="sat2")
    outcome = await evaluate(settings, report=print)
    outcome.report.figures["all"]["accuracy"];  outcome.differences       # against another model

The measuring itself is `training.evaluation.measure`; here is what a person types. The same run
again asks nothing that was answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from curation.scores.bootstrap import PairedDifference
from flows.progress import ProgressLine, Report, ignore
from flows.settings import EvaluateSettings, FieldProblem, Problem, TeacherSettings
from flows.stages.failures import describe_reasons
from flows.teachers.resolve import ResolvedTeacher, resolve
from mcts.data import Question
from mcts.teachers.checkpoints import GENERAL, find_checkpoint, prompt_style
from mcts.teachers.credentials import mask_url
from training.evaluation.measure import (
    EvaluationProgress,
    EvaluationProtocol,
    Subject,
    measure,
)
from training.evaluation.report import EvaluationReport, compare
from warehouse.models import find_model, open_model
from warehouse.sources import task_of
from warehouse.sources.find_files import normalize_split
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_questions

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

    def sentence(self) -> str:
        """Sum up the outcome."""
        found = self.report.figures["all"]["accuracy"]
        sentence = (
            f"{self.report.model_id} on {self.report.benchmark}: {_per_cent(found.value)} right, "
            f"95% interval {_interval(found.low, found.high)}, {found.n} questions about "
            f"{found.clusters} groups of images"
        )
        control = self.report.settings.get("control")
        return f"{sentence}, {control} images" if control else sentence

    def comparison(self) -> str:
        """Sum up the comparison."""
        assert self.second is not None
        gap = self.differences["all"]
        clear = "" if gap.clear else ", which includes 0"
        return (
            f"{self.report.model_id} minus {self.second.model_id}: {100 * gap.value:+.1f} points, "
            f"95% interval {_interval(gap.low, gap.high, '+')}{clear} (bootstrap over images "
            f"p = {gap.p:.2g}; {gap.only_first} right only by the first, {gap.only_second} only by "
            f"the second, McNemar p = {gap.mcnemar:.2g})"
        )

    def differences_by_family(self) -> list[dict[str, str]]:
        """Return the comparison as a table, in points; how often only one was right."""
        return [
            {
                "family": family,
                "questions": str(gap.n),
                "first minus second": f"{100 * gap.value:+.1f} "
                + _interval(gap.low, gap.high, "+"),
                "only the first": str(gap.only_first),
                "only the second": str(gap.only_second),
                "McNemar p": f"{gap.mcnemar:.2g}",
            }
            for family, gap in self.differences.items()
        ]

    def plain(self) -> dict[str, Any]:
        """Return the outcome as JSON holds it."""
        from dataclasses import asdict

        found = self.report.plain()
        if self.second is not None:
            found["against"] = self.second.plain()
            found["differences"] = {f: asdict(gap) for f, gap in self.differences.items()}
        return found


def _per_cent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _interval(low: float, high: float, sign: str = "") -> str:
    return f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


async def evaluate(settings: EvaluateSettings, *, report: Report = ignore) -> Outcome:
    """Measure a model on a benchmark, and compare it with another one where that is asked for.

    Raises:
        Problem: there are no such questions, no such model, or no such prompt.
        TeacherUnavailable: the model does not answer; its responses so far are kept.
    """
    warehouse = Warehouse.at(settings.home)
    questions, split = await asyncio.to_thread(find_benchmark, warehouse, settings, report)
    reports = []
    for name in [settings.model, *([settings.against] if settings.against else [])]:
        measured = await _measure(warehouse, settings, name, questions, split, report)
        if measured.failed:
            why = describe_reasons(measured.unanswered.values())
            report(
                f"unanswered and in no figure: {measured.failed} of {len(questions)} questions: "
                f"{why}; the same command asks them again"
            )
        reports.append(measured)
    if len(reports) == 1:
        return Outcome(reports[0])
    return Outcome(reports[0], reports[1], compare(*reports))


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


async def _measure(
    warehouse: Warehouse,
    settings: EvaluateSettings,
    name: str,
    questions: list[Question],
    split: str,
    report: Report,
) -> EvaluationReport:
    with _opened(warehouse, name) as where:
        resolved, prompt = resolve_model(settings, name, where)
        subject = Subject(resolved.teacher, resolved.space, prompt, resolved.step_tokens)
        protocol = EvaluationProtocol(
            temperature=settings.temperature, top_p=settings.top_p, samples=settings.samples,
            min_thoughts=settings.min_thoughts, seed=settings.seed, control=settings.control,
        )  # fmt: skip
        shown = mask_url(name).replace("{", "{{").replace("}", "}}")
        head = shown + ": {done} of {total} questions"
        line = ProgressLine(head, report=report)
        try:
            return await measure(
                subject, questions, warehouse, protocol, benchmark=f"{settings.benchmark}/{split}",
                concurrency=settings.concurrency, progress=partial(_show, line),
                recorded={"settings": settings.params()}, refusals=settings.refusals,
            )  # fmt: skip
        except KeyError as lost:
            raise Problem(f"image {lost.args[0]} is not among the warehouse's objects") from None
        except ValueError as error:  # no such prompt
            raise Problem(str(error)) from None
        finally:
            line.close()
            await resolved.teacher.close()


def _show(line: ProgressLine, done: EvaluationProgress) -> None:
    answered = done.questions - done.unanswered
    right = f"{_per_cent(done.right / answered)} right" if answered else "none answered"
    figures = f"{right}, {done.tokens / max(done.seconds, 1e-9):.0f} tokens/s"
    line.update(done.questions, done.of, figures, done.remaining)


def resolve_model(settings: EvaluateSettings, name: str, where: str) -> tuple[ResolvedTeacher, str]:
    """Return the model called `name`, and the prompt file that asks it.

    Args:
        where: its folder if it is a trained one, else the name again.

    Raises:
        Problem: there is none, its coordinates are not known, or it has no such prompt.
    """
    teacher = TeacherSettings.of(settings, teacher=where, model=settings.served)
    resolved = resolve(teacher, reconnect=True)
    if settings.prompt:
        return resolved, settings.prompt
    if settings.response_style is None:
        return resolved, resolved.prompt_for(settings.benchmark)
    folder = find_checkpoint(name) or Path(where)
    style = prompt_style(folder) if folder.is_dir() else GENERAL
    try:
        prompt = style.with_response_style(settings.response_style).prompt
    except ValueError as error:
        raise FieldProblem("response_style", str(error)) from None
    return resolved, prompt or task_of(settings.benchmark).prompt


@contextmanager
def _opened(warehouse: Warehouse, name: str) -> Iterator[str]:
    """Yield where a model is: a local folder of one that was trained here, else its name."""
    known = bool(find_checkpoint(name)) or "://" in name or name.startswith(("vllm:", "vllm-cpu:"))
    row = None
    if not known and not Path(name, "config.json").is_file():
        row = find_model(warehouse, name)
    if row is None:
        yield name
        return
    with open_model(warehouse, row) as folder:
        yield str(folder)
