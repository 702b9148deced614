"""The deployments `retrain/*`: what is new becomes traces, a student, and a decision.

    prefect deployment run retrain/on-new-data -p task=sat2 -p min_new_traces=200

The same as `vigorl retrain`: `flows.stages.retrain`, each stage a Prefect task. Prefect shows; what
is done is in the warehouse, so a cycle whose worker was killed goes on in the next run, and an
event that came twice finds nothing new. When a cycle has come to a decision the warehouse is asked
again: what came in meanwhile may have been announced to nobody. After one that came to none the
same would begin again, and so would what it costs.
"""

from __future__ import annotations

import asyncio

from prefect import flow
from prefect.artifacts import acreate_markdown_artifact
from prefect.logging import get_run_logger

from curation.render.cycle_report import render_summary
from flows.orchestration.artifacts import artifact_key, only_shown
from flows.orchestration.gpu_slots import gpu_slot
from flows.orchestration.training_process import train_shown
from flows.parameters import takes
from flows.retrain_settings import RetrainSettings
from flows.settings import TrainSettings
from flows.stages.retrain.report import read_report
from flows.stages.retrain.run import retrain as run_cycle
from flows.stages.retrain.tools import Tools
from flows.teachers.trained import needs_gpu
from warehouse.storage.lease import LeaseHeld


@flow(name="retrain", log_prints=True)
@takes(RetrainSettings)
async def retrain(settings: RetrainSettings) -> str:
    """Run cycles of a task while one decides and more is new; parameters as in RetrainSettings."""
    log = get_run_logger()

    async def train(training: TrainSettings) -> str:
        return str((await train_shown(training))["name"])

    said = ""
    while True:
        try:
            async with gpu_slot(needs_gpu(settings.teacher or "")):
                ended = await run_cycle(settings, Tools(train, log.info))
        except LeaseHeld as held:  # its holder looks again when it is done
            log.info(str(held))
            return str(held)
        log.info(ended.sentence)
        if ended.cycle is None:
            return said or ended.sentence
        said = ended.sentence
        report = await asyncio.to_thread(read_report, ended.cycle)
        summary, key = render_summary(report), artifact_key("retrain", settings.task)
        with only_shown("the report"):
            await acreate_markdown_artifact(summary, key=key, description=said)
        if not ended.decided:
            return said
