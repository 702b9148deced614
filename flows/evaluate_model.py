"""The deployments `evaluate-model/*`: measure a model on a benchmark.

    prefect deployment run evaluate-model/sat2 -p model=nano-base -p against=nano

The flow is `flows.stages.evaluate.evaluate`, which `vigorl evaluate` runs as well; its figures
become a table artifact. What was answered is journaled, so a run goes on where the last one was
stopped.
"""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from prefect.artifacts import acreate_table_artifact
from pydantic import Field

from flows.settings import EvaluateSettings
from flows.stages.evaluate import evaluate


@flow(name="evaluate-model", log_prints=True)
async def evaluate_model(
    model: str = "nano",
    benchmark: str = "sat2",
    split: str | None = None,
    limit: Annotated[int, Field(ge=1)] | None = None,
    against: str | None = None,
    control: Literal["blank", "shuffled"] | None = None,
    temperature: Annotated[float, Field(ge=0)] = 0.0,
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0,
    samples: Annotated[int, Field(ge=1)] = 1,
    form: Literal["grounded", "ungrounded", "answers"] | None = None,
    prompt: str | None = None,
    min_thoughts: Annotated[int, Field(ge=1)] = 3,
    seed: Annotated[int, Field(ge=0)] = 0,
    served: str | None = None,
    space: str | None = None,
    min_pixels: Annotated[int, Field(ge=1)] | None = None,
    max_pixels: Annotated[int, Field(ge=1)] | None = None,
    concurrency: Annotated[int, Field(ge=1)] = 64,
    timeout: Annotated[float, Field(gt=0)] = 600.0,
    home: str | None = None,
) -> str:
    """Ask a benchmark's questions, grade the answers, say how sure the figures are."""
    settings = EvaluateSettings.checked(**locals())
    outcome = await evaluate(settings, say=print)
    said = outcome.sentence()
    if outcome.second is not None:
        said += f". {outcome.comparison()}"
    rows = [{"model": outcome.report.model_id, **row} for row in outcome.report.rows()]
    if outcome.second is not None:
        rows += [{"model": outcome.second.model_id, **row} for row in outcome.second.rows()]
    await acreate_table_artifact(rows, key=f"evaluation-{benchmark}".lower(), description=said)
    return said
