"""The deployments `train-dpo/*`: have a student prefer the better of two ways on in a tree.

    prefect deployment run train-dpo/sat2 -p model=my-sft-1a2b3c4d -p dataset=sat2-sft@v1

The same as `vigorl train dpo`, in a process of its own that never outlives the flow
(`flows.orchestration.training_process`). A run that was stopped continues when it is started again.
"""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.orchestration.training_process import train_in_process
from flows.parameters import takes
from flows.settings import DpoSettings


@flow(name="train-dpo", log_prints=True)
@takes(DpoSettings)
async def train_dpo(settings: DpoSettings, min_new_rows: Annotated[int, Field(ge=0)] = 0) -> str:
    """Train a student if the version has `min_new_rows` more rows than were trained on before."""
    return await train_in_process(settings, min_new_rows)
