"""The deployments `curate-traces/*`: judge a task's trees anew, by the code as it is now.

    prefect deployment run curate-traces/sat2 -p publish=sat2-sft

Trees are the costly part and stay as they are; traces and verdicts are made from them again
whenever the linearizer or a filter has changed, and what is unchanged is left alone.
"""

from __future__ import annotations

from prefect import flow

from flows.orchestration import events
from flows.orchestration.artifacts import as_task, show_summary
from flows.settings import CurateSettings
from flows.stages.curate import curate
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import resolve


@flow(name="curate-traces", log_prints=True)
async def curate_traces(
    task: str = "sat2", publish: str | None = None, home: str | None = None
) -> str:
    """Linearize and judge a task's trees, and publish what is kept if a name is given."""
    settings = CurateSettings.checked(**locals())
    summary = await curate(settings, step=as_task)
    await show_summary(summary, settings.home)
    if dataset := summary.extra.get("dataset"):
        events.published(resolve(Warehouse.at(settings.home), str(dataset)))
    return summary.sentence()
