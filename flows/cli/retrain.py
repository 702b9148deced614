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
Abandon = Annotated[
    str | None,
    typer.Option(
        "--abandon", metavar="REASON",
        help="Only end a cycle that can't go on, such as one whose training fails each time.",
    ),
]  # fmt: skip


@takes(RetrainSettings)
def retrain(settings: RetrainSettings, decide_again: Again = None, abandon: Abandon = None) -> None:
    """Retrain on what is new, and let the gate decide. Run again after a kill, it resumes.

    vigorl retrain sat2 --sft-recipe my-sft.yaml --min-new-traces 200
    """
    from flows.cli.interrupts import run
    from flows.progress import report_to_stderr
    from flows.stages.retrain import run as cycles

    if decide_again is not None:
        print(cycles.decided_again(settings, decide_again))
    elif abandon is not None:
        print(cycles.abandon(settings, abandon).sentence)
    else:
        print(run(cycles.retrain_here(settings, report_to_stderr)).sentence)
