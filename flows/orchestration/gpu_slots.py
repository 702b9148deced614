"""Slots on this server's GPUs: flows that need one wait for each other in Prefect.

    async with gpu_slot(needs_gpu(settings.teacher)):
        ...

`vigorl up` makes the global concurrency limit `gpu` (one flow at a time; `prefect gcl update gpu
--limit N` where there are more) and the work pool `vigorl-gpu`, whose worker runs where a GPU is.
Outside Prefect nothing is held: who types a command sees what else is running.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefect.concurrency.asyncio import concurrency

GPU_LIMIT = "gpu"
"""The global concurrency limit's name."""


@asynccontextmanager
async def gpu_slot(needed: bool) -> AsyncIterator[None]:
    """Hold one of the GPU slots while the block runs, as soon as one is free.

    A Prefect server that has no such limit lets every flow in. A lease that could not be renewed in
    time does not end a run of days.
    """
    if not needed:
        yield
        return
    async with concurrency(GPU_LIMIT, raise_on_lease_renewal_failure=False):
        yield
