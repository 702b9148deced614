"""The deployments `judge-traces/*`: ask a model about a task's traces.

    prefect deployment run judge-traces/sat2 -p what=behaviors -p judge=http://gpu:8000

Responses are kept and not asked for again, so a run that was stopped continues.
"""

from __future__ import annotations

from prefect import flow

from flows.parameters import takes
from flows.settings import JudgeSettings
from flows.stages.judge import judge


@flow(name="judge-traces", log_prints=True)
@takes(JudgeSettings)
async def judge_traces(settings: JudgeSettings) -> str:
    """Score steps or count behaviors with a model, for the traces that have no answer yet."""
    return (await judge(settings, report=print)).sentence()
