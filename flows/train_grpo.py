"""The deployments `train-grpo/*`: reward a student for right answers.

    prefect deployment run train-grpo/sat2 -p model=nano-sft-1a2b3c4d

The same as `vigorl train grpo`, in a process of its own that never outlives the flow
(`flows.orchestration.training_process`). A run that was stopped goes on where it was when it is
started again.
"""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.orchestration.training_process import trained_by
from flows.stages.train import TrainSettings


@flow(name="train-grpo", log_prints=True)
async def train_grpo(
    recipe: str = "nano-grpo",
    dataset: str | None = None,
    task: str | None = None,
    split: str = "train",
    limit: Annotated[int, Field(ge=1)] | None = None,
    model: str | None = None,
    name: str | None = None,
    override: tuple[str, ...] = (),
    min_new_rows: Annotated[int, Field(ge=0)] = 0,
    home: str | None = None,
) -> str:
    """Train a student; `min_new_rows` more than were trained on before, or nothing is done."""
    given = {key: value for key, value in locals().items() if key != "min_new_rows"}
    return await trained_by(TrainSettings.checked(kind="grpo", **given), min_new_rows)
