"""Commands about a model: `vigorl serve`, `ask`, `evaluate`, `lint-reward`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from flows.parameters import takes
from flows.settings import AskSettings, EvaluateSettings, LintSettings, ServeSettings
from flows.settings_base import Problem

Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]


@takes(ServeSettings)
def serve(settings: ServeSettings) -> None:
    """Start a vLLM server for tree search, print its URL, stop it on Ctrl-C.

    vigorl serve Qwen/Qwen2.5-VL-72B-Instruct --tensor-parallel 8
    vigorl serve Qwen/Qwen2.5-VL-72B-Instruct --tensor-parallel 8 --ray --replicas 4
    """
    if settings.ray:
        from flows.teachers.ray_replicas import serve_on_ray

        return serve_on_ray(settings)
    from flows.teachers.vllm import serve as run_server

    run_server(settings)


@takes(AskSettings)
def ask(settings: AskSettings) -> None:
    """Ask a model about images: its steps with their points, its answer, and a drawing.

    vigorl ask http://gpu:8000 room.png "Is the lamp left of the chair?" --space qwen2.5-vl
    """
    from flows.stages.ask import ask as ask_model

    ask_model(settings)


@takes(EvaluateSettings)
def evaluate(settings: EvaluateSettings, json_: Json = False) -> None:
    """Measure a model on a benchmark: how often it is right, how sure that is, what goes wrong.

    vigorl evaluate ./checkpoints/student sat2 --against ./checkpoints/base --limit 200
    """
    from flows.cli.interrupts import run
    from flows.progress import report_to_stderr
    from flows.stages import evaluate as stage

    outcome = run(stage.evaluate(settings, report=report_to_stderr))
    if json_:
        print(json.dumps(outcome.plain(), ensure_ascii=False))
        return
    import pyarrow as pa

    from flows.cli.printing import show_table

    for report in (outcome.report, outcome.second):
        if report is None:
            continue
        print(report.model_id)
        rows = outcome.rows() if report is outcome.report else report.rows()
        show_table(pa.Table.from_pylist(rows))
        if looks := report.ledger_rows():
            show_table(pa.Table.from_pylist(looks))
        ends = [f"{end} {100 * share:.1f}%" for end, share in report.outcomes.items()]
        print(f"how answers end: {', '.join(ends)}")
        for name, value in report.metrics.items():
            if name.removeprefix("accuracy/") not in (*report.figures, "accuracy"):
                print(f"{name}: {value:.4g}")  # what the table does not show
        if report.remark:
            print(report.remark)
        print()
    print(outcome.sentence())
    if outcome.reranking is not None:
        print(outcome.reranking.sentence())
        show_table(pa.Table.from_pylist(outcome.reranking.rows()))
    if outcome.no_zoom is not None:
        print(outcome.zoom_gain())
        if outcome.gain:
            show_table(pa.Table.from_pylist(outcome.gain_by_family()))
    if outcome.second is not None:
        print(outcome.comparison())
        if outcome.differences:
            show_table(pa.Table.from_pylist(outcome.differences_by_family()))
    reports = outcome.reports
    requests, replayed = (sum(getattr(r, n) for r in reports) for n in ("requests", "replayed"))
    report_to_stderr(f"{requests} requests, {replayed} answered from the journal")


@takes(LintSettings)
def lint_reward(settings: LintSettings, json_: Json = False) -> None:
    """Try to cheat a reward; status 1 if any trick earns more than honest work.

    vigorl lint-reward my_rewards:total --space qwen2.5-vl
    """
    from dataclasses import asdict

    from flows.teachers.spaces import space_by_name
    from mcts.data import ResponseStyle
    from training.rewards.lint import lint, load_reward
    from training.rewards.rewards import make_rewards, preset

    reward, space = settings.reward, space_by_name(settings.space)
    dialogues = settings.zoom
    try:
        if ":" in reward:
            function = load_reward(reward)
        else:
            spec = preset(reward)
            function = make_rewards(spec, space).total
            dialogues = spec.response_style is ResponseStyle.ZOOM
    except ValueError as error:
        raise Problem(f"{error}{'' if ':' in reward else ', or module:function'}") from None
    report = lint(
        function, space, seed=settings.seed, one_block=settings.one_block,
        messages=settings.messages, dialogues=dialogues,
    )  # fmt: skip
    if json_:
        print(json.dumps(asdict(report) | {"reward": reward, "clean": report.clean}))
    else:
        for finding in (*report.findings, *report.limits):
            print(finding.sentence())
        honest = ", ".join(f"{name} {mean:.3g}" for name, mean in report.honest.items())
        print(f"honest completions earn: {honest}", file=sys.stderr)
        if not report.sees_answers:
            print("it scores right and wrong answers alike", file=sys.stderr)
        outcome = "nothing found" if report.clean else f"{len(report.findings)} faults found"
        print(f"{reward}: {outcome} in {report.completions} completions")
    if not report.clean:
        sys.exit(1)
