"""Tests what zoom, search and reinforcement are worth on the embedded model that zooms.

    make claim-zoom                     # hours on two cores; interrupted, the same command goes on
    make claim-zoom ARGS=--quick        # one seed and little of everything: a check, no proof
    make claim-zoom ARGS=--report       # only the tables of what is finished

Stages run as processes, one a core, each after those it needs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from vigorl_nano.claim.stages import add_options, open_experiment, run_command, seeds_of
from vigorl_nano.zoom_claim.plan import FULL, QUICK, size_identity, stages
from vigorl_nano.zoom_claim.report import write_report
from vigorl_nano.zoom_claim.work import STAGES


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make claim-zoom", description=(__doc__ or "").partition("\n")[0]
    )
    add_options(parser)
    parser.add_argument("--folder", type=Path, help="where all of it goes; below runs/")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    size = replace(size, seeds=seeds_of(parser, options, size.seeds))
    folder = options.folder or Path("runs") / f"claim-zoom{'-quick' if options.quick else ''}"
    experiment = open_experiment(folder, size, size_identity(size))
    run_command(parser, options, experiment, stages(size), STAGES, ["vigorl_nano.zoom_claim"])
    write_report(experiment)


if __name__ == "__main__":
    main()
