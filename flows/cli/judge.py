"""The command `vigorl judge`; `flows.cli.app` registers it.

Names, defaults and bounds are those of `flows.settings.JudgeSettings`; a test compares them.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.cli.build import Home, MaxPixels, MinPixels, Model, Space, Timeout


def judge(
    task: Annotated[str, typer.Argument(help="Task whose traces are judged.")],
    what: Annotated[str, typer.Option(help="grounding, behaviors or necessity.")] = "grounding",
    judge: Annotated[
        str | None, typer.Option(help="Judge of grounding and behaviors: a server's URL.")
    ] = None,
    teacher: Annotated[
        str, typer.Option(help="Who answers anew for necessity: nano, a folder, or a URL.")
    ] = "nano",
    model: Model = None,
    space: Space = None,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    samples: Annotated[
        int, typer.Option(help="Answers drawn where one does not tell a probability.")
    ] = 8,
    limit: Annotated[
        int | None, typer.Option(help="Most traces; those with an answer do not count.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again what failed for good before.")
    ] = False,
    concurrency: Annotated[int, typer.Option(help="Requests at once.")] = 16,
    timeout: Timeout = 600.0,
    home: Home = None,
) -> None:
    """Ask a model whether points show what is said, what traces do, which steps they need."""
    values = dict(locals())
    from flows.settings import JudgeSettings

    settings = JudgeSettings.checked(**values)
    from flows.cli.interrupts import run
    from flows.stages import judge as judging

    judged = run(
        judging.judge(settings, progress=lambda line: print(line, file=sys.stderr, flush=True))
    )
    print(judged.sentence())
    print(
        f"{judged.asked} requests to the model, {judged.replayed} answered from the journal",
        file=sys.stderr,
    )
