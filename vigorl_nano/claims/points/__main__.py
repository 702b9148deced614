"""Tests what points are worth on the embedded models: the paper's comparison, in rooms.

    make claim-points                # hours on two cores; interrupted, the same command goes on
    make claim-points ARGS=--quick   # one seed and little of everything: a check, no proof
    make claim-points ARGS=--report  # only the tables and the plot of what is finished

Stages run as processes, one a core, each after those it needs. If a stage fails, the end of its log
is printed, and the stages that do not need it go on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from mcts.teachers.checkpoints import find_checkpoint, registered_checkpoints
from vigorl_nano.claims.points.plan import FULL, QUICK, Size, size_identity, stages
from vigorl_nano.claims.points.report import write_report
from vigorl_nano.claims.points.work import STAGES
from vigorl_nano.claims.stages import add_options, open_experiment, run_command, seeds_of


def default_folder(size: Size, quick: bool) -> Path:
    """Return where an experiment goes by default: a folder for each size and start."""
    other = "" if size.start == FULL.start else f"-from-{Path(size.start).name}"
    return Path("runs") / f"claim-points{'-quick' if quick else ''}{other}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make claim-points", description=__doc__.partition("\n")[0]
    )
    add_options(parser)
    parser.add_argument(
        "--folder", type=Path, help="where all of it goes; by size and start, below runs/"
    )
    parser.add_argument(
        "--from", dest="start", default=FULL.start, help="the model that every arm starts from"
    )
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    seeds = seeds_of(parser, options, size.seeds)
    if not find_checkpoint(options.start) and not (Path(options.start) / "config.json").is_file():
        parser.error(
            f"--from {options.start} is neither {', '.join(registered_checkpoints())}, nor a "
            "folder with a config.json"
        )
    size = replace(size, start=options.start, seeds=seeds)
    folder = options.folder or default_folder(size, options.quick)
    experiment = open_experiment(folder, size, size_identity(size))
    again = ["vigorl_nano.claims.points", "--from", size.start]
    run_command(parser, options, experiment, stages(size), STAGES, again)
    write_report(experiment)


if __name__ == "__main__":
    main()
