"""Tests the paper's claim end to end on the embedded models.

    make claim                     # hours on two cores; interrupted, the same command goes on
    make claim ARGS=--quick        # one seed and little of everything: a check, no proof
    make claim ARGS=--report       # only the tables and the plot of what is finished

Stages run as processes, one a core, each after those it needs. If a stage fails, the end of its log
is printed, and the stages that do not need it go on.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from mcts.teachers.checkpoints import find_checkpoint, registered_checkpoints
from training.errors import TrainingError
from vigorl_nano.claim.plan import FULL, QUICK, Size, size_identity, stages
from vigorl_nano.claim.report import write_report
from vigorl_nano.claim.stages import (
    Runner,
    Stage,
    alone,
    open_experiment,
    run_stage,
    stages_for,
)
from vigorl_nano.claim.work import STAGES


def default_folder(size: Size, quick: bool) -> Path:
    """Return where an experiment goes by default: a folder for each size and start."""
    other = "" if size.start == FULL.start else f"-from-{Path(size.start).name}"
    return Path("runs") / f"claim{'-quick' if quick else ''}{other}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make claim", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed, and little of everything")
    parser.add_argument(
        "--folder", type=Path, help="where all of it goes; by size and start, below runs/"
    )
    parser.add_argument(
        "--from", dest="start", default=FULL.start, help="the model that every arm starts from"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="stages at once")
    parser.add_argument("--seeds", type=int, help="how many; more go on from fewer")
    parser.add_argument("--until", help="only stages this one needs, and itself")
    parser.add_argument("--report", action="store_true", help="only report what is finished")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    seeds = size.seeds if options.seeds is None else tuple(range(options.seeds))
    if not seeds:
        parser.error(f"--seeds {options.seeds}: at least one is needed")
    if not find_checkpoint(options.start) and not (Path(options.start) / "config.json").is_file():
        parser.error(
            f"--from {options.start} is neither {', '.join(registered_checkpoints())}, nor a "
            "folder with a config.json"
        )
    size = replace(size, start=options.start, seeds=seeds)
    folder = options.folder or default_folder(size, options.quick)
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
            here = ["--folder", str(experiment.folder), "--from", size.start]
            here += ["--seeds", str(len(size.seeds)), *(["--quick"] if options.quick else [])]
            return [sys.executable, "-m", "vigorl_nano.claim", *here, "--stage", stage.name]

        with alone(experiment):
            Runner(experiment, options.workers, command).run(stages_for(plan, options.until))
    write_report(experiment)


if __name__ == "__main__":
    main()
