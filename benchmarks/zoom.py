"""`make bench-zoom`: a search that looks closer, beside its own requests handed over all at once.

    python -m benchmarks.zoom                       # minutes
    python -m benchmarks.zoom --trees 8 --repeats 1 # a small slice of it
    python -m benchmarks.zoom --folder runs/my-model

A turn can only be requested when the crop before it is known, and a tree's next leaf when its
rewards are. What this order costs is the time of the search over the time of the same requests when
nothing has to wait: all of them handed to the same engine at once, crops already cut. Each side has
a fresh engine, so no cache of the other helps it; they take turns, and medians are shown. A model
that was not taught to zoom has calls written behind its thoughts.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.engine import Item, load_items
from benchmarks.rows import Row
from curation.grading.grade import grade
from flows.stages.search import TreeSlots
from mcts.concurrency import gather
from mcts.config import SearchConfig, search_id
from mcts.data import ResponseStyle, Step
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.prompts import load_prompt
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import Completion, Ledger, Reply, Request
from mcts.teachers.checkpoints import (
    checkpoint_space,
    find_checkpoint,
    observation_role,
    prompt_style,
)
from mcts.teachers.local.teacher import LocalTeacher
from mcts.tree import Tree
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import VISUAL_SEARCH_LENS
from mcts.zoom.recorded import recorded_zoom
from vigorl_nano import TEACHER

AT_ONCE = 32
"""Trees that a build searches at once, and samples that the engine decodes at once."""
_POINT = re.compile(r"<think>[^<]*?\((\d+), (\d+)\)[^<]*</think>")


@dataclass(slots=True)
class Recorder:
    """A teacher that keeps what it was asked, and may be made to look closer."""

    teacher: LocalTeacher
    forced: bool = False
    """Whether a model that was never taught to call a tool has its thoughts followed by calls."""
    requests: list[tuple[Request, Mapping[str, bytes]]] = field(default_factory=list)

    @property
    def identity(self) -> str:
        """The engine's."""
        return self.teacher.identity

    @property
    def ledger(self) -> Ledger:
        """The engine's."""
        return self.teacher.ledger

    async def open(self) -> None:
        """Load the engine."""
        await self.teacher.open()

    async def close(self) -> None:
        """Close the engine."""
        await self.teacher.close()

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer by the engine."""
        self.requests.append((request, images))
        reply = await self.teacher.complete(request, images)
        if not self.forced or "</tool_call>" not in request.stop:
            return reply
        pairs = enumerate(reply.completions)
        return replace(reply, completions=tuple(_looking(c, request.seed + i) for i, c in pairs))


def _looking(completion: Completion, seed: int) -> Completion:
    """Return a completion that calls for its first place, three times in four."""
    found = _POINT.search(completion.text)
    if found is None or random.Random(seed).random() < 0.25:
        return completion
    place = f'{{"coordinate": [{found[1]}, {found[2]}]}}'
    call = f'<tool_call>{{"name": "search_coordinate", "arguments": {place}}}</tool_call>'
    return replace(completion, text=f"{found[0]}\n{call}", finish_reason="stop")


class Clock:
    """What has passed since it was made."""

    def __init__(self) -> None:
        self._time, self._processor = time.perf_counter(), time.process_time()

    def spent(self) -> tuple[float, float]:
        """Return seconds, and seconds of processor time."""
        return time.perf_counter() - self._time, time.process_time() - self._processor


@dataclass(frozen=True, slots=True)
class Side:
    """One run of the search or of its requests."""

    seconds: float
    processor_s: float
    """Processor time, over all threads."""
    ledger: Ledger
    encoded: int
    """Images that the vision tower has run."""


async def searched(
    folder: Path, items: Sequence[Item], config: SearchConfig, *, forced: bool
) -> tuple[Side, Recorder, list[Tree]]:
    """Search the questions as a build does: so many trees at once, prefetch in what is left."""
    engine = LocalTeacher(folder, batch=AT_ONCE, threads=1)
    recorder, slots = Recorder(engine, forced), TreeSlots(AT_ONCE)
    await engine.open()
    with tempfile.TemporaryDirectory() as kept, Journal(kept) as journal:
        journaled = JournaledTeacher(recorder, journal)

        async def one(item: Item) -> Tree:
            question = item.question
            name = search_id(question, config, 0, engine.identity)
            policy = TeacherPolicy(question, config, name, journaled, item.images)
            async with slots:
                return await search(question, config, policy, grade, name, prefetch=slots.prefetch)

        start = Clock()
        trees = await gather(one(item) for item in items)
        spent = start.spent()
    encoded = engine.images_encoded
    await engine.close()
    return Side(*spent, engine.ledger, encoded), recorder, trees


async def at_once(folder: Path, recorded: Recorder) -> Side:
    """Hand an engine all requests of a search at once."""
    engine = LocalTeacher(folder, batch=AT_ONCE, threads=1)
    await engine.open()
    start = Clock()
    await gather(engine.complete(request, images) for request, images in recorded.requests)
    spent = start.spent()
    encoded = engine.images_encoded
    await engine.close()
    return Side(*spent, engine.ledger, encoded)


async def compare(
    what: str,
    folder: Path,
    items: Sequence[Item],
    config: SearchConfig,
    repeats: int,
    *,
    forced: bool,
    target: float | None,
) -> list[Row]:
    """Measure a search and its requests in turn; return the ratio of their times, and its parts."""
    ratios: list[float] = []
    processor: list[float] = []
    for repeat in range(repeats):
        # Each repetition has a part of the questions to itself: no cache of the system's helps.
        part = items[repeat::repeats]
        ours, recorded, trees = await searched(folder, part, config, forced=forced)
        whole = await at_once(folder, recorded)
        ratios.append(ours.seconds / whole.seconds)
        processor.append(ours.processor_s / whole.processor_s)
    used = ours.ledger
    distinct = {name for request, _ in recorded.requests for name in request.image_ids}
    looks = sum(
        step.observation is not None and step.observation.crop is not None
        for tree in trees
        for step in [*(n.step for n in tree.nodes if n.step), *_rolled_out(tree)]
    )
    per_tree = len(trees)
    return [
        Row(f"{what}: time over its requests' at once", statistics.median(ratios), at_most=target),
        Row("  processor time over theirs", statistics.median(processor)),
        Row("  requests a tree", len(recorded.requests) / per_tree, ""),
        Row("  crops shown a tree", looks / per_tree, ""),
        Row("  share of images in its prompt tokens", used.image_tokens / used.prompt_tokens, ""),
        Row("  prompt tokens in the prefix cache", used.cached_tokens / used.prompt_tokens, ""),
        Row("  times an image is encoded", ours.encoded / len(distinct), "", at_most=1.0),
    ]


def _rolled_out(tree: Tree) -> list[Step]:
    return [step for rollout in tree.rollouts for step in rollout.steps]


async def run(options: argparse.Namespace) -> None:
    """Print the table."""
    folder = options.folder
    style = prompt_style(folder)
    taught = style.prompts.get(ResponseStyle.ZOOM)
    prompt = load_prompt(taught or style.prompt or "zoom")
    zoom = recorded_zoom(folder) or ZoomConfig(VISUAL_SEARCH_LENS, role=observation_role(folder))
    config = SearchConfig(
        checkpoint_space(folder), prompt.name, prompt.digest,
        step_tokens=style.step_tokens, zoom=zoom,
    )  # fmt: skip
    print(f"{folder}, asked with {prompt.name}{'' if taught else '; its calls are made for it'}")
    items = load_items(options.parquet, "vstar")
    for what, trees, target in (
        (f"{options.trees} trees", options.trees, 1.3),
        ("a tree alone", 1, None),
    ):
        some = items[: trees * options.repeats]
        for row in await compare(
            what, folder, some, config, options.repeats, forced=not taught, target=target
        ):
            print(row.line(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zoom", description=__doc__.split("\n")[0]
    )
    default = find_checkpoint("nano-zoom") or TEACHER
    parser.add_argument("--folder", type=Path, default=default, help="the checkpoint")
    parser.add_argument("--parquet", type=Path, help="questions, in V*'s schema")
    parser.add_argument("--trees", type=int, default=16, help="trees of one measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements, each of other trees")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
