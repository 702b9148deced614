"""The commands about what a model is worth: `vigorl evaluate`, `vigorl lint-reward`.

`flows.cli.app` puts them among the others. Names, defaults and bounds of `evaluate` are those of
`flows.settings.EvaluateSettings`; a test compares them.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from flows.cli.build import Home, MaxPixels, MinPixels, Space, Timeout


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="nano, nano-base, a trained model's name, a folder, or a URL."
        ),
    ],
    benchmark: Annotated[
        str, typer.Argument(metavar="BENCHMARK", help="Task whose questions are asked.")
    ],
    split: Annotated[
        str | None, typer.Option(help="Its split. Default: test, or else validation.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Most questions.")] = None,
    against: Annotated[
        str | None, typer.Option(help="A second model, to compare question by question.")
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="Show blank pictures, or shuffled ones, instead.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="0 is greedy; the paper's tables are at 0.5.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option(help="Nucleus of the sampling.")] = 1.0,
    samples: Annotated[
        int, typer.Option(help="Answers to each question, above temperature 0.")
    ] = 1,
    form: Annotated[
        str | None, typer.Option(help="Form of answer: grounded, ungrounded, answers.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt file, in place of a form's.")] = None,
    min_thoughts: Annotated[int, typer.Option(help="Steps that the prompt demands at least.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the sampling, and of shuffling.")] = 0,
    served: Annotated[str | None, typer.Option(help="Model to ask a server for.")] = None,
    space: Space = None,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    concurrency: Annotated[int, typer.Option(help="Requests at once.")] = 64,
    timeout: Timeout = 600.0,
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    home: Home = None,
) -> None:
    """Measure a model on a benchmark: how often it is right, how sure that is, what goes wrong."""
    values = dict(locals())
    as_json = values.pop("json_")
    from flows.settings import EvaluateSettings

    settings = EvaluateSettings.checked(**values)
    from flows.cli.interrupts import run
    from flows.stages import evaluate as evaluating

    outcome = run(evaluating.evaluate(settings, say=evaluating.to_stderr))
    if as_json:
        print(json.dumps(outcome.plain(), ensure_ascii=False))
        return
    import pyarrow as pa

    from flows.cli.commands import show_table

    for report in (outcome.report, outcome.second):
        if report is not None:
            print(report.model_id)
            show_table(pa.Table.from_pylist(report.rows()))
            ends = [f"{end} {100 * share:.1f}%" for end, share in report.outcomes.items()]
            print(f"how answers end: {', '.join(ends)}")
            for name, value in report.metrics.items():
                if name.removeprefix("accuracy/") not in (*report.figures, "accuracy"):
                    print(f"{name}: {value:.4g}")  # what the table does not say
            print()
    print(outcome.sentence())
    if outcome.second is not None:
        print(outcome.comparison())
        show_table(pa.Table.from_pylist(outcome.differences_by_family()))
    asked = sum(r.asked for r in (outcome.report, outcome.second) if r is not None)
    replayed = sum(r.replayed for r in (outcome.report, outcome.second) if r is not None)
    evaluating.to_stderr(f"{asked} requests, {replayed} answered from the journal")


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
    from flows.teachers.resolve import space_by_name
    from training.rewards.lint import lint, load_reward
    from training.rewards.rewards import PRESETS, make_rewards

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
