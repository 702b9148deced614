"""The deployments `evaluate-model/*`: measure a model on a benchmark.

    prefect deployment run evaluate-model/sat2 -p model=my-sft-1a2b -p against=my-base

The flow is `flows.stages.evaluate.evaluate`, which `vigorl evaluate` runs as well; its figures
become a table artifact. Responses are journaled, so a run that was stopped continues.
"""

from __future__ import annotations

from prefect import flow
from prefect.artifacts import acreate_table_artifact

from flows.orchestration.artifacts import artifact_key, only_shown
from flows.parameters import takes
from flows.settings import EvaluateSettings
from flows.stages.evaluate import evaluate


@flow(name="evaluate-model", log_prints=True)
@takes(EvaluateSettings)
async def evaluate_model(settings: EvaluateSettings) -> str:
    """Ask a benchmark's questions, grade the answers, report figures with their intervals."""
    outcome = await evaluate(settings, report=print)
    sentence = outcome.sentence()
    if outcome.reranking is not None:
        sentence += f". {outcome.reranking.sentence()}"
    if outcome.no_zoom is not None:
        sentence += f". {outcome.zoom_gain()}"
    if outcome.second is not None:
        sentence += f". {outcome.comparison()}"
    tables = [(outcome.report, outcome.rows())]
    tables += [(outcome.second, outcome.second.rows())] if outcome.second else []
    rows = [{"model": report.model_id, **row} for report, table in tables for row in table]
    key = artifact_key("evaluation", settings.benchmark)
    with only_shown("the figures"):
        await acreate_table_artifact(rows, key=key, description=sentence)
    return sentence
