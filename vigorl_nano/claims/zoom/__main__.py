"""Tests what zoom, search and reinforcement are worth on the embedded model that zooms.

    make claim                          # eight hours a seed on two cores; interrupted, it goes on
    make claim ARGS=--quick             # one seed and little of everything: a check, no proof
    make claim ARGS=--report            # only the tables of what is finished
    make claim-zoom ARGS="--seeds 1"    # without the variants of GRPO: fewer arms, the same stages

Stages run as processes, one a core, each after those it needs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from vigorl_nano.claims.stages import add_options, open_experiment, run_command, seeds_of
from vigorl_nano.claims.zoom.plan import FULL, PARTS, QUICK, size_identity, stages
from vigorl_nano.claims.zoom.report import write_report
from vigorl_nano.claims.zoom.work import STAGES


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make claim", description=(__doc__ or "").partition("\n")[0]
    )
    add_options(parser)
    parser.add_argument("--part", choices=PARTS, help="of the claim; all when left out")
    parser.add_argument("--folder", type=Path, help="where all of it goes; below runs/")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    size = replace(size, seeds=seeds_of(parser, options, size.seeds))
    folder = options.folder or Path("runs") / f"claim{'-quick' if options.quick else ''}"
    experiment = open_experiment(folder, size, size_identity(size))
    again = ["vigorl_nano.claims.zoom", *(["--part", options.part] if options.part else [])]
    planned = stages(size, options.part)
    run_command(parser, options, experiment, planned, STAGES, again)
    write_report(experiment, options.part)


if __name__ == "__main__":
    main()
