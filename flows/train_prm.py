"""The deployments `train-prm/*`: teach a process reward model the step values of trees.

    prefect deployment run train-prm/sat2 -p model=my-sft-1a2b3c4d -p dataset=sat2-sft@v1

The same as `vigorl train prm`, in a process of its own that never outlives the flow
(`flows.orchestration.training_process`). A run that was stopped continues when it is started again.
"""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.orchestration.training_process import train_in_process
from flows.parameters import takes
from flows.settings import PrmSettings


@flow(name="train-prm", log_prints=True)
@takes(PrmSettings)
async def train_prm(settings: PrmSettings, min_new_rows: Annotated[int, Field(ge=0)] = 0) -> str:
    """Train a model if the version has `min_new_rows` more rows than were trained on before."""
    return await train_in_process(settings, min_new_rows)
