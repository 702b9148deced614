"""Workers of a build in a Prefect work pool: each shard is a run of the pool's deployment.

    async with pool_workers("vigorl", 4, settings, progress) as workers:
        outcome = await workers[0].run(shard)

The deployment is `build-shard/POOL`; whatever the pool starts (a process, a container, a Kubernetes
job) runs `flows.build_traces.build_shard`. A shard and its outcome lie in the warehouse, so that
Prefect needs no storage of its own. A run that crashed, or whose worker is gone, is begun again and
goes on from the journal. That a worker is gone shows at the shard's lease, which it renews: Prefect
waits for minutes, or for ever where nothing looks for heartbeats. A server that is away as a build
begins ends it; one that goes away later is waited for.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from flows.progress import Progress
from flows.settings import BuildSettings
from flows.settings_base import Problem
from flows.stages.shards.prefect_away import Outage, answering
from flows.stages.shards.shard import Shard, ShardOutcome
from flows.stages.shards.worker import WorkerProcess
from warehouse.storage.home import Warehouse
from warehouse.storage.lease import current

MOST_LOSSES = 100
"""Runs lost in the middle of one shard after which the build ends."""
_LOOK_S = 1.0
_LEASE_LOOK_S = 5.0
"""Seconds between two looks at a lease; a run that has just ended has as long to say so."""


async def run_stored_shard(home: str, key: str) -> str:
    """Run the shard that is stored at `key`, and store its outcome beside it; return a sentence."""
    objects, process = Warehouse.at(home).objects, WorkerProcess()
    try:
        text = await process.run(objects.get(f"{key}.json").decode())
    finally:
        await process.close()
    objects.put(f"{key}-outcome.json", text.encode())
    outcome = ShardOutcome.of(text)
    return outcome.problem or f"{len(outcome.tree_ids)} trees are in the warehouse"


class PoolWorker:
    """Runs one shard after another in a pool."""

    def __init__(
        self, pool: str, warehouse: Warehouse, progress: Progress, outage: Outage | None = None
    ) -> None:
        self._pool, self._warehouse, self._progress = pool, warehouse, progress
        self._outage = outage or Outage(progress.report)

    async def ready(self) -> None:
        """Return: the pool has its own queue."""

    async def run(self, shard: Shard) -> ShardOutcome:
        """See `flows.stages.shards.elsewhere.RemoteWorker`."""
        objects = self._warehouse.objects
        key = f"shards/{shard.name}/{uuid.uuid4().hex[:12]}"
        stored = f"{key}.json", f"{key}-outcome.json"
        objects.put(stored[0], shard.text().encode())
        try:
            for _ in range(MOST_LOSSES):
                state = await self._one_run(key, f"shards/{shard.name}")
                with suppress(KeyError):
                    return ShardOutcome.of(objects.get(stored[1]).decode())
                if state.is_failed() or state.is_cancelled():
                    break  # a defect, or a person's wish; a lost one has crashed
                self._progress.report(f"a worker of {self._pool} was lost; its shard goes on")
            raise OSError(
                f"a shard in the work pool {self._pool} ended as {state.name}: Prefect has its "
                "log; what was answered is in the journals, and the same command goes on"
            )
        finally:
            for name in stored:
                objects.delete(name)

    async def _one_run(self, key: str, lease: str) -> Any:
        """Run the deployment once; return the last state of the run, or Crashed if it was lost."""
        from prefect.client.orchestration import get_client
        from prefect.states import Cancelling, Crashed

        run = await self._begun(key)
        watched, told = _Watched(self._warehouse, lease), False
        async with get_client() as client:
            try:
                while not (run.state and run.state.is_final()):
                    if run.state and run.state.name == "Late" and not told:
                        told = True
                        self._progress.report(
                            f"no worker of the work pool {self._pool} has taken a shard yet: is "
                            "one running, and has it room? "
                            f"(prefect worker start --pool {self._pool})"
                        )
                    await asyncio.sleep(_LOOK_S)
                    if await watched.is_lost():  # its place in the pool is free from now on
                        lost: Any = Crashed(message="its worker renews the shard's lease no longer")
                        with suppress(Exception):  # it goes on without that, too
                            await client.set_flow_run_state(run.id, lost, force=True)
                        return lost
                    try:
                        run = await client.read_flow_run(run.id)
                    except Exception as error:
                        self._outage.met(error)
                    else:
                        self._outage.over()
            except asyncio.CancelledError:
                with suppress(Exception):  # the run's own end does without
                    await client.set_flow_run_state(run.id, Cancelling(), force=True)
                raise
        return run.state

    async def _begun(self, key: str) -> Any:
        """Begin a run of the deployment, as soon as the server answers."""
        from prefect.deployments import arun_deployment
        from prefect.exceptions import ObjectNotFound

        name, values = _deployment_of(self._pool), {"home": self._warehouse.root, "key": key}
        once = uuid.uuid4().hex  # an answer may be lost: asked again, no second run is begun
        while True:
            try:
                run = await arun_deployment(
                    name, parameters=values, timeout=0, idempotency_key=once
                )
            except ObjectNotFound:
                raise _no_deployment(name) from None
            except Exception as error:
                self._outage.met(error)
            else:
                self._outage.over()
                return run
            await asyncio.sleep(_LOOK_S)


class _Watched:
    """A shard's lease, watched for a holder that came and went without a word."""

    def __init__(self, warehouse: Warehouse, lease: str) -> None:
        self._warehouse, self._lease = warehouse, lease
        self._next, self._held, self._over = 0.0, False, False

    async def is_lost(self) -> bool:
        """Return whether a term was seen that has ended, at two looks, and none was begun since."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _LEASE_LOOK_S
        try:
            _, term = await asyncio.to_thread(current, self._warehouse, self._lease)
        except Exception:  # a store that is away says nothing of the worker
            return False
        if term is None:  # not begun, or done: the run's own state says how
            self._held = self._over = False
        elif not term.over:
            self._held, self._over = True, False
        elif self._held and self._over:
            return True
        else:
            self._over = self._held
        return False


def _deployment_of(pool: str) -> str:
    """Return the name of the deployment that runs shards in a pool."""
    return f"build-shard/{pool}"


def _no_deployment(name: str) -> Problem:
    return Problem(f"on: there is no deployment {name}; docs/building.md says how to make it")


async def _check(pool: str) -> None:
    """Check that the server answers, and has the pool's deployment.

    Raises:
        Problem: it does not.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with answering():
        async with get_client() as client:
            try:
                await client.read_deployment_by_name(_deployment_of(pool))
            except ObjectNotFound:
                raise _no_deployment(_deployment_of(pool)) from None


@asynccontextmanager
async def pool_workers(
    pool: str, count: int, settings: BuildSettings, progress: Progress
) -> AsyncIterator[Sequence[PoolWorker]]:
    """Send shards to `pool`, `count` of them at once.

    Raises:
        Problem: there is no Prefect server, or it has no deployment for the pool.
    """
    await _check(pool)
    warehouse, outage = Warehouse.at(settings.home), Outage(progress.report)
    yield [PoolWorker(pool, warehouse, progress, outage) for _ in range(count)]
