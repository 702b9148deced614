"""The commands that look at traces again: `vigorl curate`, `vigorl filters`, `vigorl judge`."""

from __future__ import annotations

from flows.parameters import takes
from flows.settings import CurateSettings, JudgeSettings


@takes(CurateSettings)
def curate(settings: CurateSettings) -> None:
    """Make traces and verdicts from a task's trees again, by these filters and today's code.

    vigorl curate sat2 --publish sat2-sft
    """
    from flows.cli.interrupts import run

    if settings.dry_run:
        from flows.stages.curate_preview import preview_curation

        print(run(preview_curation(settings)).text())
        return
    from flows.cli.datasets import print_revoked
    from flows.progress import report_to_stderr
    from flows.stages import curate as stage

    summary = run(stage.curate(settings))
    print(summary.sentence())
    if remark := summary.extra.get("filters"):
        report_to_stderr(remark)
    if dataset := summary.extra.get("dataset"):
        print(f"dataset {dataset}")
        print_revoked(dataset, settings.home)


def filters() -> None:
    """Print every filter with its values, their units and defaults, as a file to start from.

    vigorl filters
    """
    from curation.filters.config import filters_yaml

    print(filters_yaml())


@takes(JudgeSettings)
def judge(settings: JudgeSettings) -> None:
    """Ask a model whether points fit their steps, what traces do, which steps they need.

    vigorl judge sat2 --what behaviors --judge http://localhost:8000
    """
    from flows.cli.interrupts import run
    from flows.progress import report_to_stderr
    from flows.stages import judge as stage

    judged = run(stage.judge(settings, report=report_to_stderr))
    print(judged.sentence())
    report_to_stderr(
        f"{judged.requests} requests to the model, {judged.replayed} answered from the journal"
    )
