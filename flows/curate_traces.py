"""The deployments `curate-traces/*`: filter a task's trees anew, by the code as it is now.

    prefect deployment run curate-traces/sat2 -p publish=sat2-sft

Trees are the costly part and stay as they are; traces and verdicts are made from them again
whenever the linearizer or a filter has changed, and what is unchanged is left alone.
"""

from __future__ import annotations

from prefect import flow

from flows.orchestration import events
from flows.orchestration.artifacts import as_task, show_summary
from flows.parameters import takes
from flows.settings import CurateSettings
from flows.stages.curate import curate
from flows.stages.curate_preview import preview_curation
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import resolve


@flow(name="curate-traces", log_prints=True)
@takes(CurateSettings)
async def curate_traces(settings: CurateSettings) -> str:
    """Linearize and filter a task's trees, and publish what is kept if a name is given."""
    if settings.dry_run:
        return (await preview_curation(settings)).text()
    summary = await curate(settings, step=as_task)
    await show_summary(summary, settings.home)
    if dataset := summary.extra.get("dataset"):
        events.emit_published(resolve(Warehouse.at(settings.home), str(dataset)))
    return summary.sentence()
