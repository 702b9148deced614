"""The deployments `build-traces/*`: questions in, searched, curated and stored traces out.

    prefect deployment run build-traces/sat2 -p limit=24 -p simulations=20

The flow is `flows.stages.build.build` with its stages run as Prefect tasks, one a shard of trees
and never one a node: a task run costs milliseconds, a node must not. Prefect shows; the warehouse
and the journal know. A run that was killed goes on where it was when it is started again.
"""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.orchestration.artifacts import FlowProgress, as_task, show_summary
from flows.orchestration.gpu_slots import held
from flows.settings import BuildSettings
from flows.stages import regrade as regrading
from flows.stages import replay as replaying
from flows.stages.build import build
from flows.stages.forecast import pilot as search_pilot
from flows.stages.prometheus import served


@flow(name="build-traces", log_prints=True)
async def build_traces(
    task: str = "sat2",
    split: str = "train",
    limit: Annotated[int, Field(ge=1)] | None = None,
    teacher: str = "nano",
    model: str | None = None,
    space: str | None = None,
    min_pixels: Annotated[int, Field(ge=1)] | None = None,
    max_pixels: Annotated[int, Field(ge=1)] | None = None,
    revision: str | None = None,
    timeout: Annotated[float, Field(gt=0)] = 600.0,
    prompt: str | None = None,
    simulations: Annotated[int, Field(ge=1)] = 8,
    children: Annotated[int, Field(ge=1)] = 3,
    rollouts: Annotated[int, Field(ge=1)] = 2,
    max_depth: Annotated[int, Field(ge=1)] = 10,
    exploration: Annotated[float, Field(ge=0)] = 2.0,
    wave: Annotated[int, Field(ge=1)] = 1,
    strategy: Literal["mcts", "best-of-n", "linear"] = "mcts",
    samples: Annotated[int, Field(ge=1)] | None = None,
    enough: Annotated[int, Field(ge=1)] | None = None,
    tree_tokens: Annotated[int, Field(ge=1)] | None = None,
    tree_requests: Annotated[int, Field(ge=1)] | None = None,
    tree_seconds: Annotated[float, Field(gt=0)] | None = None,
    run_tokens: Annotated[int, Field(ge=1)] | None = None,
    run_requests: Annotated[int, Field(ge=1)] | None = None,
    run_seconds: Annotated[float, Field(gt=0)] | None = None,
    temperature: Annotated[float, Field(ge=0)] = 1.0,
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0,
    step_tokens: Annotated[int, Field(ge=1)] | None = None,
    seed: Annotated[int, Field(ge=0)] = 0,
    concurrency: Annotated[int, Field(ge=1)] = 32,
    shard: Annotated[int, Field(ge=1)] = 64,
    retry_failed: bool = False,
    replay: bool = False,
    regrade: bool = False,
    dry_run: bool = False,
    pilot: Annotated[int, Field(ge=1)] = 4,
    price_in: Annotated[float, Field(ge=0)] | None = None,
    price_out: Annotated[float, Field(ge=0)] | None = None,
    metrics: Annotated[int, Field(ge=1, le=65535)] | None = None,
    home: str | None = None,
) -> str:
    """Search a task's questions, curate the trees and report; parameters as in BuildSettings."""
    settings = BuildSettings.checked(**locals())
    if settings.dry_run:
        forecast = await search_pilot(settings)
        return forecast.text()
    if settings.replay:
        return (await replaying.replay(settings)).sentence()
    if settings.regrade:
        return (await regrading.regrade(settings)).sentence()
    progress = await FlowProgress.begun(f"build-traces/{task}")
    async with held(settings.teacher.startswith("vllm:")):
        with served(settings.metrics, progress):
            summary = await build(settings, progress=progress, step=as_task)
    await show_summary(summary, settings.home)
    return summary.sentence()
