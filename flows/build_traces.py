"""The deployments `build-traces/*`: questions in, searched, curated and stored traces out.

    prefect deployment run build-traces/sat2 -p limit=24 -p simulations=20

The flow is `flows.stages.build.build` with its stages run as Prefect tasks, one a shard of trees
and never one a node: a task run costs milliseconds, a node must not. Prefect shows; the warehouse
and the journal know. A run that was killed continues when it is started again.

`build-shard/POOL` is one shard of a build with `on=pool:POOL`, begun by it and by nobody else.
"""

from __future__ import annotations

from prefect import flow

from flows.orchestration.artifacts import FlowProgress, as_task, show_summary
from flows.orchestration.gpu_slots import gpu_slot
from flows.parameters import takes
from flows.settings import BuildSettings
from flows.settings_base import Problem
from flows.stages.build import build
from flows.stages.forecast import forecast_build
from flows.stages.prometheus import served
from flows.stages.regrade import regrade
from flows.stages.replay import replay
from flows.stages.shards.pool_workers import run_stored_shard
from flows.teachers.trained import needs_gpu


@flow(name="build-traces", log_prints=True)
@takes(BuildSettings)
async def build_traces(settings: BuildSettings) -> str:
    """Search a task's questions, curate the trees and report; parameters as in BuildSettings."""
    if settings.dry_run:
        return (await forecast_build(settings)).text()
    if settings.replay:
        replayed = await replay(settings)
        if not replayed.faithful:  # the run ends as failed, as the command does with status 1
            raise Problem(replayed.sentence())
        return replayed.sentence()
    if settings.regrade:
        return (await regrade(settings)).sentence()
    progress = await FlowProgress.begun(f"build-traces/{settings.task}")
    async with gpu_slot(needs_gpu(settings.teacher)):
        with served(settings.metrics, progress):
            summary = await build(settings, progress=progress, step=as_task)
    await progress.flush()
    await show_summary(summary, settings.home)
    return summary.sentence()


@flow(name="build-shard", log_prints=True)
async def build_shard(home: str, key: str) -> str:
    """Run one shard of a build, which is stored in the warehouse `home` under `key`."""
    return await run_stored_shard(home, key)
