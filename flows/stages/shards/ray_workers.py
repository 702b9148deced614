"""Workers of a build on a Ray cluster: each an actor that runs one shard after another.

    async with ray_workers(None, count=4) as workers:     # the cluster that is here, or a new one
        outcome = await workers[0].run(shard)

An actor whose process or machine is lost is started again where there is room, and runs its shard
from the journal. Actors end with the process that made them. Everything imports `vigorl` where it
runs: it must be installed on every machine, with the same models and environment variables.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from flows.ray_cluster import join_ray
from flows.stages.shards.shard import Shard, ShardOutcome
from flows.stages.shards.worker import WorkerProcess

LOST = (
    "a worker of the Ray cluster was lost and replaced, and its shard went on from the journal; "
    "Ray's logs say why"
)
MOST_LOSSES = 1000
"""Workers lost in the middle of one shard after which the run ends: the shard must be the cause."""


class _Actor:
    """What runs on the cluster."""

    def __init__(self) -> None:
        import ray

        self._process = WorkerProcess()
        self._replaces = ray.get_runtime_context().was_current_actor_reconstructed

    async def ready(self) -> None:
        """Return: this runs, so there was room."""

    async def run(self, text: str) -> str:
        """See `WorkerProcess.run`; a loss is reported with the shard that was run when it came."""
        outcome = ShardOutcome.of(await self._process.run(text))
        if self._replaces:
            outcome.reports.append(LOST)
            self._replaces = False
        return outcome.text()


class RayWorker:
    """One actor, seen from the build."""

    def __init__(self, actor: Any, gone: tuple[type[Exception], ...]) -> None:
        self._actor, self._gone = actor, gone

    async def ready(self) -> None:
        """See `flows.stages.shards.elsewhere.RemoteWorker`."""
        await self._answer(self._actor.ready.remote())

    async def run(self, shard: Shard) -> ShardOutcome:
        """See `flows.stages.shards.elsewhere.RemoteWorker`."""
        return ShardOutcome.of(await self._answer(self._actor.run.remote(shard.text())))

    async def _answer(self, asked: Any) -> Any:
        try:
            return await asked
        except self._gone as error:
            raise OSError(
                f"Ray's workers are gone ({str(error).strip().splitlines()[0]}); what was answered "
                "is in the journals: the same command goes on once the cluster is there again"
            ) from None


@asynccontextmanager
async def ray_workers(address: str | None, count: int) -> AsyncIterator[Sequence[RayWorker]]:
    """Start `count` workers, as soon as there is room for each.

    Args:
        address: of the cluster's head, or `ray://…`; when left out RAY_ADDRESS's, the one that
            runs on this machine, or a new one on it.

    Raises:
        Problem: Ray is not installed, or there is no cluster.
    """
    # Not in the main thread, whose signals are the command's.
    ray = await asyncio.to_thread(join_ray, "on", address)
    try:
        options: dict[str, Any] = {
            "num_cpus": 1,
            "max_restarts": -1,
            "max_task_retries": MOST_LOSSES,
        }
        actor = ray.remote(**options)(_Actor)
        gone = (ray.exceptions.RaySystemError, ray.exceptions.ActorDiedError)
        yield [RayWorker(actor.remote(), gone) for _ in range(count)]
    finally:
        await asyncio.to_thread(ray.shutdown)
