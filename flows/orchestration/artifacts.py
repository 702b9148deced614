"""What Prefect shows of a run: stages as tasks, a progress bar, a summary table, an image.

progress = await FlowProgress.begun("build-traces/sat2")
summary = await build(settings, progress=progress, step=as_task)
await show_summary(summary, settings.home)
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect import task
from prefect.artifacts import (
    acreate_image_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from flows.progress import BuildCounts
from flows.stages.curate import Summary
from flows.stages.gallery import draw_example
from warehouse.storage.home import Warehouse

UPDATE_EVERY_S = 3.0  # each update is a request to the Prefect server


def as_task(stage: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Run a stage as a Prefect task; results and caches live in the warehouse, not in Prefect."""
    name = stage.__name__.replace("_", "-")
    make = task(name=name, cache_policy=NO_CACHE, persist_result=False)
    made: Callable[..., Awaitable[Any]] = make(stage)
    return made


@contextmanager
def only_shown(what: str, log: Any = None) -> Iterator[None]:
    """Let what Prefect only shows fail: say so in the run's `log`, and go on without it."""
    try:
        yield
    except Exception as error:  # a server that is away must not end a run
        (log or get_run_logger()).warning(f"{what} could not be shown: {error}")


class FlowProgress(BuildCounts):
    """A progress artifact, updated every few seconds."""

    def __init__(self, name: str, artifact: UUID | None, log: Any) -> None:
        super().__init__()
        self._name, self._artifact, self._log = name, artifact, log
        self._updated = 0.0
        self._share = 0.0
        self._sending: asyncio.Task[None] | None = None

    @classmethod
    async def begun(cls, name: str) -> FlowProgress:
        """Create a progress artifact at 0%; where it can't be shown, the log alone is told."""
        artifact = None
        with only_shown("the progress"):
            artifact = await acreate_progress_artifact(0.0, description=f"{name}: trees searched")
            assert isinstance(artifact, UUID)
        return cls(name, artifact, get_run_logger())

    def start(self, total: int, already: int, teacher: Any) -> None:
        super().start(total, already, teacher)
        self._log.info(f"{total} questions, {already} of their trees are in the warehouse already")
        self._update(force=True)

    def grown(self, name: str, share: float) -> None:
        super().grown(name, share)
        self._update(force=False)

    def tree(self, name: str, right: bool, failed: bool) -> None:
        super().tree(name, right, failed)
        self._update(force=self.already + self.done == self.total)

    def report(self, sentence: str) -> None:
        self._log.info(sentence)

    def _update(self, force: bool) -> None:
        if not force and time.monotonic() - self._updated < UPDATE_EVERY_S:
            return
        self._updated = time.monotonic()
        there = self.already + self.done
        self._log.info(f"{there} of {self.total} trees, {self.figures()}")
        grown = there + sum(self.growing.values())
        self._share = 100.0 * grown / self.total if self.total else 100.0
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        """Send the share until the newest one is sent: one request at a time, or an older one
        could arrive last."""
        sent = None
        while self._artifact is not None and sent != self._share:
            sent = self._share
            with only_shown("the progress", self._log):
                await aupdate_progress_artifact(self._artifact, progress=sent)

    async def flush(self) -> None:
        """Wait until the last share is sent."""
        if self._sending is not None:
            await self._sending


def artifact_key(*parts: str) -> str:
    """Return a key of parts: Prefect takes small letters, digits and dashes alone."""
    return re.sub(r"[^a-z0-9-]", "-", "-".join(parts).lower())


async def show_summary(summary: Summary, home: str | None) -> None:
    """Show the run's figures as a table, and one of its traces drawn."""
    log = get_run_logger()
    log.info(summary.sentence())
    counts: dict[str, object] = {
        "questions searched": summary.questions,
        "trees with a right answer": summary.right,
        "trees that failed": summary.failed,
        "traces": summary.traces,
        "traces kept": summary.kept,
        "requests to the teacher": summary.requests,
        "answered from the journal": summary.replayed,
        **summary.extra,
    }
    with only_shown("the summary"):
        await acreate_table_artifact(
            [{"what": what, "count": count} for what, count in counts.items()],
            key=artifact_key("summary", summary.task),
            description=summary.sentence(),
        )
    with only_shown("the trace"):
        warehouse = Warehouse.at(home)
        drawing = await asyncio.to_thread(draw_example, warehouse, summary.task)
        if drawing is not None:
            encoded = base64.b64encode(drawing).decode("ascii")
            await acreate_image_artifact(
                f"data:image/png;base64,{encoded}",
                key=artifact_key("trace", summary.task),
                description="One kept trace: its points, numbered in the order of its steps.",
            )
