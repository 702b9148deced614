"""The command `vigorl build`."""

from __future__ import annotations

import sys

from flows.parameters import takes
from flows.settings import BuildSettings


@takes(BuildSettings)
def build(settings: BuildSettings) -> None:
    """Search questions, keep every trace with its verdicts; run again to continue.

    vigorl build sat2 --limit 100
    """
    from flows.cli.interrupts import run
    from flows.progress import TerminalProgress

    if settings.dry_run:
        from flows.stages.forecast import forecast_build

        print(run(forecast_build(settings, progress=TerminalProgress())).text())
        return
    if settings.regrade:
        from flows.stages.regrade import regrade

        print(run(regrade(settings)).sentence())
        return
    if settings.replay:
        from flows.stages.replay import replay

        replayed = run(replay(settings, progress=TerminalProgress()))
        print(replayed.sentence())
        if not replayed.faithful:
            sys.exit(1)
        return
    from flows.stages import build as stage
    from flows.stages.prometheus import served

    progress = TerminalProgress()
    with served(settings.metrics, progress):
        summary = run(stage.build(settings, progress=progress))
    print(summary.sentence())
    for remark in summary.extra.values():
        print(remark)
    print(
        f"{summary.requests} requests to the teacher, {summary.replayed} answered from the journal "
        f"(run {summary.run_id})",
        file=sys.stderr,
    )
