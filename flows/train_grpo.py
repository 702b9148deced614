"""The deployments `train-grpo/*`: reward a student for right answers.

    prefect deployment run train-grpo/sat2 -p model=my-sft-1a2b3c4d

The same as `vigorl train grpo`, in a process of its own that never outlives the flow
(`flows.orchestration.training_process`). A run that was stopped continues when it is started again.
"""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.orchestration.training_process import train_in_process
from flows.parameters import takes
from flows.settings import GrpoSettings


@flow(name="train-grpo", log_prints=True)
@takes(GrpoSettings)
async def train_grpo(settings: GrpoSettings, min_new_rows: Annotated[int, Field(ge=0)] = 0) -> str:
    """Train a student if the version has `min_new_rows` more rows than were trained on before."""
    return await train_in_process(settings, min_new_rows)
