"""`vigorl retrain`: one cycle of retraining, or a past decision made again."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.parameters import takes
from flows.retrain_settings import RetrainSettings

Again = Annotated[
    int | None,
    typer.Option("--decide-again", help="Only make this cycle's decision again, as it is stored."),
]


@takes(RetrainSettings)
def retrain(settings: RetrainSettings, decide_again: Again = None) -> None:
    """Retrain on what is new, and let the gate decide; killed, the same command goes on.

    vigorl retrain sat2 --sft-recipe my-sft.yaml --min-new-traces 200
    """
    from flows.cli.interrupts import run
    from flows.progress import report_to_stderr
    from flows.stages.retrain.run import decided_again, retrain_here

    if decide_again is not None:
        print(decided_again(settings, decide_again))
        return
    print(run(retrain_here(settings, report_to_stderr)).sentence)
