"""What `vigorl review` takes."""

from __future__ import annotations

from typing import Annotated, Literal

from flows.settings import HomeSettings
from flows.settings_base import POSITIONAL, Problem, option


class ReviewSettings(HomeSettings):
    """What `vigorl review` takes."""

    command = "review"
    task: Annotated[str | None, POSITIONAL] = option(
        None, "task whose kept traces are reviewed; of all tasks when left out"
    )
    sql: str | None = option(
        None, "a statement that yields the trace_id of what to review, in its order"
    )
    order: Literal["doubt", "random"] = option(
        "doubt", "the most doubtful first, or drawn at random, as filter_precision wants"
    )
    limit: int = option(200, "most traces", ge=1)
    reviewer: str | None = option(
        None, "who reviews; the name of the user when left out", min_length=1
    )
    port: int = option(0, "port of this machine; any that is free when left out", ge=0, le=65535)
    timeout: float = option(600.0, "seconds the statement may take", gt=0)

    def check(self) -> None:
        """See `Settings.check`."""
        if self.sql and self.task:
            raise Problem("--sql and a task: give one of them")
