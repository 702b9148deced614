"""`vigorl build --dry-run`: a few questions are searched to predict the cost of all.

    forecast = await forecast_build(BuildSettings.checked(task="sat2", limit=1000))
    print(forecast.text())

The pilot's trees are thrown away but its responses are not: they are in the journal, under the
names that the build itself gives them, so the build asks for none of them again. Apart from the
journal (and the embedded sample's questions, where a warehouse has none) nothing is written.
Questions are taken in the order of their ids, which are hashes, so the pilot is a random draw.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from flows.progress import Progress, short_time
from flows.settings import BuildSettings
from flows.stages.build import find_questions
from flows.stages.search import (
    OpenTeacher,
    committed,
    name_searches,
    search_config,
    search_one,
)
from flows.teachers.resolve import resolve
from mcts.budget import Usage
from mcts.concurrency import gather
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.teachers.shared_refusal import SharedRefusal
from mcts.tree import Tree
from warehouse.storage.home import Warehouse
from warehouse.tables.tree_rows import count_crops

# 95th percentiles of Student's t for 1, 2, ... degrees of freedom; beyond, a good approximation.
_T95 = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)


@dataclass(frozen=True, slots=True)
class Range:
    """A prediction: the middle, and the interval that holds nine times in ten."""

    middle: float
    low: float | None
    """None where one question says nothing of the spread."""
    high: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """Predicted cost of the questions still to be searched, the pilot's own included."""

    questions: int
    """Asked for."""
    missing: int
    """Of these, without a tree in the warehouse."""
    pilot: int
    """Of these, searched for this forecast."""
    right: int
    """Pilot trees that found a right answer."""
    failed: tuple[str, ...]
    """Why pilot trees failed."""
    spent: Usage
    """Cost of the pilot, now or when it was first searched."""
    requests: Range
    prompt_tokens: Range
    completion_tokens: Range
    fastest_s: float
    """Seconds, if the teacher answers `concurrency` trees at once as fast as it did the pilot's."""
    slowest_s: float
    """Seconds, if it writes no more tokens a second than it did for the pilot."""
    price_in: float | None = None
    price_out: float | None = None
    crops: Range | None = None
    """Crops shown, where steps may zoom."""
    image_tokens: Range | None = None
    """Of the prompt tokens, those of images, where steps may zoom."""

    def text(self) -> str:
        """Format the forecast for a person."""
        if not self.missing:
            return f"all {self.questions} questions have their trees: there is nothing to ask"
        lines = [
            f"pilot: {self.pilot} questions searched, {self.right} with a right answer; its "
            f"{self.spent.requests} responses are in the journal and are not asked for again",
            *(f"a pilot tree failed: {reason}" for reason in self.failed),
            f"predicted for {self.missing} of {self.questions} questions"
            + (" (from .. to: nine times in ten)" if self.pilot > 1 else ""),
            _line("requests", self.requests),
            _line("prompt tokens", self.prompt_tokens),
            *([_line("  of images", self.image_tokens)] if self.image_tokens else []),
            *([_line("crops shown", self.crops)] if self.crops else []),
            _line("tokens written", self.completion_tokens),
            f"  time            {short_time(self.fastest_s)} .. {short_time(self.slowest_s)}"
            " (the teacher keeps pace with many trees at once, or does not)",
        ]
        if self.price_in is not None and self.price_out is not None:
            lines.append(_line("money", self._money(self.price_in, self.price_out)))
        return "\n".join(lines)

    def _money(self, price_in: float, price_out: float) -> Range:
        def of(prompt: float | None, written: float | None) -> float | None:
            if prompt is None or written is None:
                return None
            return (prompt * price_in + written * price_out) / 1e6

        given, made = self.prompt_tokens, self.completion_tokens
        middle = of(given.middle, made.middle)
        assert middle is not None
        return Range(middle, of(given.low, made.low), of(given.high, made.high))


def _line(name: str, found: Range) -> str:
    shown = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in _known(found)]
    return f"  {name:<15} {shown[0]}" + (f" ({shown[1]} .. {shown[2]})" if shown[1:] else "")


def _known(found: Range) -> list[float]:
    return [v for v in (found.middle, found.low, found.high) if v is not None]


def predict(sample: Sequence[float], total: int) -> Range:
    """Predict the sum over `total` things of which `sample` are known; 90% by Student's t."""
    known, rest = len(sample), total - len(sample)
    mean = sum(sample) / known
    middle = mean * total
    if not rest:
        return Range(middle, middle, middle)
    if known == 1:
        return Range(middle, None, None)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in sample) / (known - 1))
    t = _T95[known - 2] if known - 2 < len(_T95) else 1.645 + 1.6 / (known - 1)
    spread = t * deviation * math.sqrt(rest + rest * rest / known)
    return Range(middle, max(float(sum(sample)), middle - spread), middle + spread)


async def forecast_build(
    settings: BuildSettings,
    *,
    progress: Progress | None = None,
    question_ids: Sequence[str] | None = None,
) -> Forecast:
    """Search the first few questions that have no tree yet and predict the cost of the rest.

    Args:
        question_ids: ask these of them alone, as in `flows.stages.build.build`.
    """
    progress = progress or Progress()
    warehouse = Warehouse.at(settings.home)
    resolved = resolve(settings, reconnect=True)
    config = search_config(settings, resolved)
    questions = await find_questions(warehouse, settings, progress, question_ids)
    try:
        await resolved.teacher.open()
        identity = resolved.teacher.identity
        searches = name_searches(warehouse, settings, questions, config, identity)
        done = committed(warehouse, [s.tree_id for s in searches])
        missing = [s for s in searches if s.tree_id not in done]
        tried = missing[: settings.pilot]
        slots = asyncio.Semaphore(settings.concurrency)
        with Journal(warehouse.journal_dir, store=warehouse.journal_store) as journal:
            # A failure that no later answer shows to be its question's own is not journaled.
            refusals = SharedRefusal(settings.refusals, len(tried))
            asked = JournaledTeacher(resolved.teacher, journal, refusals=refusals)
            opened = OpenTeacher(identity, asked, journal)

            async def one(i: int) -> Tree:
                async with slots:
                    return await search_one(warehouse, tried[i], config, opened)

            trees = await gather(one(i) for i in range(len(tried)))
            refusals.ended()
        zooms = config.zoom is not None
        return forecast(trees, len(searches), len(missing), settings, zooms=zooms)
    finally:
        await resolved.teacher.close()


def forecast(
    trees: Sequence[Tree],
    questions: int,
    missing: int,
    settings: BuildSettings,
    zooms: bool = False,
) -> Forecast:
    """Predict from `trees`, the first of `missing`, what all of them cost."""
    spent = Usage(spans=[span for tree in trees for span in tree.usage.spans])
    for tree in trees:
        spent.requests += tree.usage.requests
        spent.prompt_tokens += tree.usage.prompt_tokens
        spent.completion_tokens += tree.usage.completion_tokens
    if not trees:
        none = Range(0.0, 0.0, 0.0)
        return Forecast(questions, missing, 0, 0, (), spent, none, none, none, 0.0, 0.0)
    each = [tree.usage.seconds for tree in trees]
    alone = sum(each) / len(each) * missing / min(settings.concurrency, missing)
    in_line = spent.seconds / len(trees) * missing
    return Forecast(
        questions,
        missing,
        len(trees),
        sum(any(reward >= 1.0 for _, reward in tree.outcomes()) for tree in trees),
        tuple((tree.errors or ("nothing usable",))[0] for tree in trees if tree.failed),
        spent,
        predict([tree.usage.requests for tree in trees], missing),
        predict([tree.usage.prompt_tokens for tree in trees], missing),
        predict([tree.usage.completion_tokens for tree in trees], missing),
        min(max(alone, *each), in_line),
        max(alone, in_line, *each),
        settings.price_in,
        settings.price_out,
        predict([count_crops(tree) for tree in trees], missing) if zooms else None,
        predict([tree.usage.image_tokens for tree in trees], missing) if zooms else None,
    )
