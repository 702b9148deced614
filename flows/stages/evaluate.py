"""Measuring a model on a benchmark: from names to models, questions, figures and a comparison.

    outcome = await evaluate(EvaluateSettings.checked(model="nano", benchmark="sat2"), say=print)
    outcome.report.figures["all"]["accuracy"];  outcome.differences       # against another model

The measuring itself is `training.evaluation.evaluate`; here is what a person types. The same run
again asks nothing that was answered.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.scores.bootstrap import Difference
from flows.settings import EvaluateSettings, Problem
from flows.stages.progress import short_time
from flows.teachers.resolve import ChosenTeacher, choose_teacher, patient
from mcts.data import Question
from mcts.teachers.checkpoints import GENERAL, find_checkpoint, prompt_style
from training.evaluation.evaluate import Asking, Done, Subject, measure
from training.evaluation.report import Report, compare
from warehouse.models import find_model, open_model
from warehouse.sources import task_of
from warehouse.sources.importing import split_named
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_questions

Say = Callable[[str], None]
SPLITS = ("test", "validation")
"""What is measured on where no split is named, the first that has questions."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an evaluation."""

    report: Report
    second: Report | None = None
    """The model it was compared with."""
    differences: dict[str, Difference] = field(default_factory=dict)
    """How much better the first is, over all and by family; empty without a second."""

    def sentence(self) -> str:
        """The outcome in one sentence."""
        found = self.report.figures["all"]["accuracy"]
        told = (
            f"{self.report.model_id} on {self.report.benchmark}: {_per_cent(found.value)} right, "
            f"95% interval {_interval(found.low, found.high)}, {found.n} questions about "
            f"{found.clusters} groups of pictures"
        )
        control = self.report.settings.get("control")
        return f"{told}, {control} pictures" if control else told

    def comparison(self) -> str:
        """The comparison in one sentence."""
        assert self.second is not None
        gap = self.differences["all"]
        clear = "" if gap.clear else ", which includes 0"
        return (
            f"{self.report.model_id} minus {self.second.model_id}: {100 * gap.value:+.1f} points, "
            f"95% interval {_interval(gap.low, gap.high, '+')}{clear} (bootstrap over pictures "
            f"p = {gap.p:.2g}; {gap.only_first} right only by the first, {gap.only_second} only by "
            f"the second, McNemar p = {gap.mcnemar:.2g})"
        )

    def differences_by_family(self) -> list[dict[str, str]]:
        """The comparison as a table, in points; how often only one of the two was right."""
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
        """As JSON can hold it."""
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


async def evaluate(settings: EvaluateSettings, *, say: Say = lambda line: None) -> Outcome:
    """Measure a model on a benchmark, and compare it with another one where that is asked for.

    Raises:
        Problem: there are no such questions, no such model, or no such prompt.
        TeacherUnavailable: nobody answers; what was answered is kept.
    """
    warehouse = Warehouse.at(settings.home)
    questions, split = await asyncio.to_thread(find_benchmark, warehouse, settings, say)
    reports = []
    for name in [settings.model, *([settings.against] if settings.against else [])]:
        report = await _measure(warehouse, settings, name, questions, split, say)
        if report.failed:
            say(f"{report.failed} answers could not be had; they count as wrong")
        reports.append(report)
    if len(reports) == 1:
        return Outcome(reports[0])
    return Outcome(reports[0], reports[1], compare(*reports))


def find_benchmark(
    warehouse: Warehouse, settings: EvaluateSettings, say: Say = lambda line: None
) -> tuple[list[Question], str]:
    """The questions to ask and their split; a task that comes with a sample is given it if empty.

    Raises:
        Problem: there are none.
    """

    splits = [split_named(settings.split)] if settings.split else SPLITS

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
        from warehouse.sources.samples import import_sample

        if report := import_sample(warehouse, settings.benchmark):
            say(f"the embedded sample was imported ({report.added} questions)")
            found, split = read()
    if not found:
        told = settings.split or " or ".join(SPLITS)
        raise Problem(
            f"there are no questions of benchmark {settings.benchmark!r}, split {told}, in "
            f"{warehouse.root}; import some with `vigorl import {settings.benchmark} PATH`"
        )
    return found, split


async def _measure(
    warehouse: Warehouse,
    settings: EvaluateSettings,
    name: str,
    questions: list[Question],
    split: str,
    say: Say,
) -> Report:
    with _opened(warehouse, name) as where:
        chosen, prompt = choose_model(settings, name, where)
        subject = Subject(chosen.teacher, chosen.space, prompt, chosen.step_tokens)
        asking = Asking(
            temperature=settings.temperature, top_p=settings.top_p, samples=settings.samples,
            min_thoughts=settings.min_thoughts, seed=settings.seed, control=settings.control,
        )  # fmt: skip
        try:
            return await measure(
                subject, questions, warehouse, asking, benchmark=f"{settings.benchmark}/{split}",
                concurrency=settings.concurrency, progress=Told(name, say),
            )  # fmt: skip
        except KeyError as lost:
            raise Problem(f"image {lost.args[0]} is not among the warehouse's objects") from None
        except ValueError as error:  # no such prompt
            raise Problem(str(error)) from None
        finally:
            await chosen.teacher.close()


def choose_model(settings: EvaluateSettings, name: str, where: str) -> tuple[ChosenTeacher, str]:
    """The model called `name`, and the prompt file that asks it.

    Args:
        where: its folder if it is a trained one, else the name again.

    Raises:
        Problem: there is none, or its coordinates are not known.
    """
    chosen = choose_teacher(
        where, model=settings.served, space=settings.space, min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels, timeout_s=settings.timeout,
        concurrency=settings.concurrency, home=settings.home,
    )  # fmt: skip
    chosen = patient(chosen, where)
    if settings.prompt:
        return chosen, settings.prompt
    if settings.form is None:
        return chosen, chosen.prompt_for(settings.benchmark)
    folder = find_checkpoint(name) or Path(where)
    style = prompt_style(folder) if folder.is_dir() else GENERAL
    # None: what its task asks with.
    prompt = style.with_response_style(settings.form).prompt
    return chosen, prompt or task_of(settings.benchmark).prompt


@contextmanager
def _opened(warehouse: Warehouse, name: str) -> Iterator[str]:
    """Where a model is: a local folder of one that was trained here, else its name."""
    known = bool(find_checkpoint(name)) or "://" in name or name.startswith(("vllm:", "vllm-cpu:"))
    row = None
    if not known and not Path(name, "config.json").is_file():
        row = find_model(warehouse, name)
    if row is None:
        yield name
        return
    with open_model(warehouse, row) as folder:
        yield str(folder)


class Told:
    """Says how far an evaluation has come: at once in a terminal, now and then elsewhere."""

    def __init__(self, name: str, say: Say, every_s: float = 15.0) -> None:
        self._name, self._say = name, say
        self._live = sys.stderr.isatty() and say is to_stderr
        self._every_s = 0.2 if self._live else every_s
        self._said = time.monotonic()

    def __call__(self, done: Done) -> None:
        last = done.questions == done.of
        if not last and time.monotonic() - self._said < self._every_s:
            return
        self._said = time.monotonic()
        line = (
            f"{self._name}: {done.questions} of {done.of} questions, "
            f"{_per_cent(done.right / done.questions)} right, "
            f"{done.tokens / max(done.seconds, 1e-9):.0f} tokens/s"
        )
        if not last and done.remaining is not None:
            line += f", about {short_time(done.remaining)} left"
        if self._live:
            print(f"\r{line:<100}", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            self._say(line)


def to_stderr(line: str) -> None:
    """Say something beside the results."""
    print(line, file=sys.stderr, flush=True)
