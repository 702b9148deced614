"""The deployments `judge-traces/*`: ask a model about a task's traces.

    prefect deployment run judge-traces/sat2 -p what=behaviors -p judge=http://gpu:8000

What was answered is kept and not asked again, so a run goes on where the last one was stopped.
"""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.settings import JudgeSettings
from flows.stages.judge import judge as judge_them


@flow(name="judge-traces", log_prints=True)
async def judge_traces(
    task: str = "sat2",
    what: Literal["grounding", "behaviors", "necessity"] = "grounding",
    judge: str | None = None,
    teacher: str = "nano",
    model: str | None = None,
    space: str | None = None,
    min_pixels: Annotated[int | None, Field(ge=1)] = None,
    max_pixels: Annotated[int | None, Field(ge=1)] = None,
    samples: Annotated[int, Field(ge=1)] = 8,
    limit: Annotated[int | None, Field(ge=1)] = None,
    retry_failed: bool = False,
    concurrency: Annotated[int, Field(ge=1)] = 16,
    timeout: Annotated[float, Field(gt=0)] = 600.0,
    home: str | None = None,
) -> str:
    """Score steps or count behaviors with a model, for the traces that have no answer yet."""
    settings = JudgeSettings.checked(**locals())
    judged = await judge_them(settings, progress=print)
    return judged.sentence()
