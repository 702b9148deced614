"""The deployments `train-sft/*`: teach a student a dataset version's traces.

    prefect deployment run train-sft/sat2 -p recipe=my-sft.yaml -p dataset=sat2-sft@v1

The same as `vigorl train sft`, in a process of its own that never outlives the flow
(`flows.orchestration.training_process`). A run that was stopped continues when it is started again.
"""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.orchestration.training_process import train_in_process
from flows.parameters import takes
from flows.settings import SftSettings


@flow(name="train-sft", log_prints=True)
@takes(SftSettings)
async def train_sft(settings: SftSettings, min_new_rows: Annotated[int, Field(ge=0)] = 0) -> str:
    """Train a student if the version has `min_new_rows` more rows than were trained on before."""
    return await train_in_process(settings, min_new_rows)
