"""The deployments `train-sft/*`: teach a student a dataset version's traces.

    prefect deployment run train-sft/sat2 -p dataset=sat2-sft@v1

The same as `vigorl train sft`, in a process of its own that never outlives the flow
(`flows.orchestration.training_process`). A run that was stopped goes on where it was when it is
started again.
"""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.orchestration.training_process import trained_by
from flows.stages.train import TrainSettings


@flow(name="train-sft", log_prints=True)
async def train_sft(
    recipe: str = "nano-sft",
    dataset: str = "sat2-sft",
    model: str | None = None,
    name: str | None = None,
    override: tuple[str, ...] = (),
    min_new_rows: Annotated[int, Field(ge=0)] = 0,
    home: str | None = None,
) -> str:
    """Train a student; `min_new_rows` more than were trained on before, or nothing is done."""
    given = {key: value for key, value in locals().items() if key != "min_new_rows"}
    return await trained_by(TrainSettings.checked(kind="sft", **given), min_new_rows)
