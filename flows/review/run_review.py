"""Traces are chosen, drawn on pages and reviewed by a person: `vigorl review` as a plain function.

reviewed = review(ReviewSettings(task="sat2"), ready=print)      # until Ctrl-C
print(reviewed.sentence())
"""

from __future__ import annotations

import getpass
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from curation.filters.review import Review
from curation.render.review import write_review
from flows.review.server import GivenReview, serve
from flows.review.settings import ReviewSettings
from flows.settings_base import Problem
from flows.stages.gallery import chosen_traces, gallery_traces
from warehouse.query.limits import Limits
from warehouse.query.run_query import query_trusted
from warehouse.query.sql_guard import quoted
from warehouse.reviews import complete_verdicts, review_queue, reviews_by, store_review
from warehouse.storage.failures import describe
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import record_run
from warehouse.tables.schema import Row


@dataclass(slots=True)
class Reviewed:
    """Outcome of a run of `review`."""

    reviewer: str
    shown: int = 0
    """Traces that were on the pages."""
    verdicts: dict[str, str] = field(default_factory=dict)
    """What was said of whole traces this time, by trace."""

    def sentence(self) -> str:
        """Sum up the outcome."""
        if not self.shown:
            return f"{self.reviewer} has nothing left to review"
        said = list(self.verdicts.values())
        counted = ", ".join(f"{said.count(one)} {one}" for one in ("right", "wrong", "unsure"))
        return f"{len(said)} of {self.shown} traces reviewed by {self.reviewer}: {counted}"


def review(
    settings: ReviewSettings, *, ready: Callable[[str, int], None], limits: Limits | None = None
) -> Reviewed:
    """Serve traces to be reviewed until the process is told to stop.

    Args:
        ready: called with the address of the pages and the number of traces on them.

    Raises:
        Problem: the statement has no `trace_id`, nothing is kept yet, or the port is taken.
    """
    warehouse = Warehouse.at(settings.home)
    reviewed = Reviewed(settings.reviewer or getpass.getuser())
    run_id = f"review-{uuid.uuid4().hex[:12]}"
    complete_verdicts(warehouse, run_id)
    trace_ids = _chosen(warehouse, settings, reviewed.reviewer, limits)
    if not trace_ids:
        _check_any_kept(warehouse, settings)
        return reviewed
    reviewed.shown = len(trace_ids)
    record_run(warehouse, run_id, "review", task=settings.task, params=settings.params())
    with tempfile.TemporaryDirectory(prefix="vigorl-review-") as folder:
        entries = list(gallery_traces(warehouse, trace_ids, {}))
        write_review(Path(folder), entries, reviewer=reviewed.reviewer)
        steps = {entry.trace.trace_id: len(entry.trace.steps) for entry in entries}
        kept = StoredReviews(warehouse, reviewed, run_id, steps)
        del entries
        with suppress(KeyboardInterrupt):  # how a person ends it: every verdict is stored already
            serve(Path(folder), kept, port=settings.port, ready=lambda url: ready(url, len(steps)))
    return reviewed


def _chosen(
    warehouse: Warehouse, settings: ReviewSettings, reviewer: str, limits: Limits | None
) -> list[str]:
    if settings.sql:
        rows = chosen_traces(warehouse, settings.sql, limits)
        return [row["trace_id"] for row in rows][: settings.limit]
    return review_queue(
        warehouse, reviewer, task=settings.task, order=settings.order, limit=settings.limit
    )


def _check_any_kept(warehouse: Warehouse, settings: ReviewSettings) -> None:
    """Raise a `Problem` where nothing is chosen since there is nothing to choose from."""
    if settings.sql:
        raise Problem("--sql: the statement yields no trace that is in the warehouse")
    of_task = f"task = {quoted(settings.task)}" if settings.task else "true"
    if not query_trusted(warehouse, f"FROM kept_traces WHERE {of_task} LIMIT 1").num_rows:
        whose = f"of task {settings.task!r} " if settings.task else ""
        raise Problem(f"there are no kept traces {whose}in {warehouse.root}")


@dataclass(slots=True)
class StoredReviews:
    """The reviews of one person in a warehouse; see `flows.review.server.Reviews`."""

    warehouse: Warehouse
    reviewed: Reviewed
    run_id: str
    steps: dict[str, int]
    """How many steps each trace on the pages has."""

    def stored(self) -> list[Row]:
        """Return the reviewer's newest of the traces on the pages."""
        return reviews_by(self.warehouse, self.reviewed.reviewer, sorted(self.steps))

    def has(self, trace_id: str, step: int | None) -> bool:
        """Return whether the pages have this trace, and step."""
        return trace_id in self.steps and (step is None or 0 <= step < self.steps[trace_id])

    def store(self, given: GivenReview) -> None:
        """Store a review and what follows from it."""
        said = Review(
            given.trace_id, self.reviewed.reviewer, given.verdict, given.comment, given.step
        )
        store_review(self.warehouse, said, given.review_id, self.run_id)
        if given.step is None:
            self.reviewed.verdicts[given.trace_id] = given.verdict

    def failed(self, error: Exception) -> str | None:
        """Return why the warehouse could not store it; None for a defect of ours."""
        return describe(error)
