"""The commands about what a student earns: `vigorl lint-reward`; `flows.cli` registers it."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer


def lint_reward(
    reward: Annotated[
        str, typer.Argument(help="grounded, verified, ungrounded, direct, or module:function.")
    ] = "grounded",
    space: Annotated[
        str, typer.Option(help="Coordinates that completions are written in.")
    ] = "qwen3-vl",
    seed: Annotated[int, typer.Option(help="Seed of what is drawn by lot.")] = 0,
    one_block: Annotated[
        bool, typer.Option("--one-block", help="Write all thoughts in one think block.")
    ] = False,
    messages: Annotated[
        bool, typer.Option("--messages", help="Give completions as chat messages.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Try to cheat a reward; status 1 if any trick earns more than honest work."""
    from dataclasses import asdict

    from flows.settings import Problem
    from flows.teachers import space_by_name
    from training.lint import lint, load_reward
    from training.rewards import PRESETS, make_rewards

    spoken = space_by_name(space)
    if reward in PRESETS:
        wanted = make_rewards(PRESETS[reward], spoken).total
    elif ":" in reward:
        try:
            wanted = load_reward(reward)
        except ValueError as error:
            raise Problem(str(error)) from None
    else:
        raise Problem(f"reward: {reward!r} is none of {', '.join(PRESETS)}, nor module:function")
    report = lint(wanted, spoken, seed=seed, one_block=one_block, messages=messages)
    if json_:
        print(json.dumps(asdict(report) | {"reward": reward, "clean": report.clean}))
    else:
        for finding in (*report.findings, *report.limits):
            print(finding.sentence())
        honest = ", ".join(f"{name} {mean:.3g}" for name, mean in report.honest.items())
        print(f"honest completions earn: {honest}", file=sys.stderr)
        if not report.sees_answers:
            print("it scores right and wrong answers alike", file=sys.stderr)
        found = len(report.findings)
        outcome = "nothing found" if report.clean else f"{found} faults found"
        print(f"{reward}: {outcome} in {report.completions} completions")
    if not report.clean:
        sys.exit(1)
