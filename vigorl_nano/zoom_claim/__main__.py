"""Tests what zoom, search and reinforcement are worth on the embedded model that zooms.

    make claim-zoom                     # hours on two cores; interrupted, the same command goes on
    make claim-zoom ARGS=--quick        # one seed and little of everything: a check, no proof
    make claim-zoom ARGS=--report       # only the tables of what is finished

Stages run as processes, one a core, each after those it needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from training.errors import TrainingError
from vigorl_nano.claim.stages import Runner, Stage, alone, open_experiment, run_stage, stages_for
from vigorl_nano.zoom_claim.plan import FULL, QUICK, size_identity, stages
from vigorl_nano.zoom_claim.report import write_report
from vigorl_nano.zoom_claim.work import STAGES


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make claim-zoom", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="one seed, and little of everything")
    parser.add_argument("--folder", type=Path, help="where all of it goes; below runs/")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="stages at once")
    parser.add_argument("--seeds", type=int, help="how many; more go on from fewer")
    parser.add_argument("--until", help="only stages this one needs, and itself")
    parser.add_argument("--report", action="store_true", help="only report what is finished")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    if options.seeds is not None:
        if options.seeds < 1:
            parser.error(f"--seeds {options.seeds}: at least one is needed")
        size = replace(size, seeds=tuple(range(options.seeds)))
    folder = options.folder or Path("runs") / f"claim-zoom{'-quick' if options.quick else ''}"
    experiment = open_experiment(folder, size, size_identity(size))
    plan = {stage.name: stage for stage in stages(size)}
    if options.stage:
        try:
            run_stage(experiment, plan[options.stage], STAGES)
        except TrainingError as error:
            sys.exit(f"vigorl: {error}")
        return
    if options.until and options.until not in plan:
        parser.error(f"--until: there is no stage {options.until!r}: {', '.join(plan)}")
    if not options.report:

        def command(stage: Stage) -> list[str]:
            here = ["--folder", str(folder), "--seeds", str(len(size.seeds))]
            here += ["--quick"] if options.quick else []
            return [sys.executable, "-m", "vigorl_nano.zoom_claim", *here, "--stage", stage.name]

        with alone(experiment):
            Runner(experiment, options.workers, command).run(stages_for(plan, options.until))
    write_report(experiment)


if __name__ == "__main__":
    main()
