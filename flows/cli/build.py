"""The command `vigorl build`: its many options, each with its sentence.

Names, defaults and bounds are those of `flows.settings.BuildSettings`; a test compares them.
"""

from __future__ import annotations

from typing import Annotated

import typer

Home = Annotated[
    str | None,
    typer.Option("--home", help="Warehouse: a folder or s3:// URL. Default: $VIGORL_HOME."),
]
Model = Annotated[str | None, typer.Option("--model", help="Model to ask a server for.")]
Space = Annotated[
    str | None,
    typer.Option(help="The model's coordinates: qwen2-vl, qwen2.5-vl, qwen3-vl, original."),
]
MinPixels = Annotated[
    int | None, typer.Option(help="Fewest pixels the server's processor resizes to.")
]
MaxPixels = Annotated[
    int | None, typer.Option(help="Most pixels the server's processor resizes to.")
]
Timeout = Annotated[float, typer.Option(help="Seconds a server may take.")]


def build(
    task: Annotated[str, typer.Argument(help="Task whose questions are searched.")],
    split: Annotated[str, typer.Option(help="Split of its questions.")] = "train",
    limit: Annotated[int | None, typer.Option(help="Most questions.")] = None,
    teacher: Annotated[
        str, typer.Option(help="nano, a checkpoint folder, vllm:MODEL, a server's URL, or URL,URL.")
    ] = "nano",
    model: Model = None,
    space: Space = None,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    revision: Annotated[
        str | None, typer.Option(help="Revision of a server's weights, where its name says none.")
    ] = None,
    timeout: Timeout = 600.0,
    prompt: Annotated[str | None, typer.Option(help="Prompt file to ask with.")] = None,
    simulations: Annotated[int, typer.Option(help="Simulations a tree.")] = 8,
    children: Annotated[int, typer.Option(help="Steps sampled at an expansion.")] = 3,
    rollouts: Annotated[int, typer.Option(help="Answers sampled from each new step.")] = 2,
    max_depth: Annotated[int, typer.Option(help="Steps before an answer must follow.")] = 10,
    exploration: Annotated[float, typer.Option(help="The constant c of UCT.")] = 2.0,
    wave: Annotated[int, typer.Option(help="Simulations at once within a tree.")] = 1,
    strategy: Annotated[str, typer.Option(help="mcts, or a baseline: best-of-n, linear.")] = "mcts",
    samples: Annotated[
        int | None, typer.Option(help="Chains of a baseline. Default: 16, or its tree budget's.")
    ] = None,
    enough: Annotated[
        int | None, typer.Option(help="Stop a tree at so many distinct right lines of reasoning.")
    ] = None,
    tree_tokens: Annotated[
        int | None, typer.Option(help="Stop a tree when so many tokens are written.")
    ] = None,
    tree_requests: Annotated[int | None, typer.Option(help="... so many requests made.")] = None,
    tree_seconds: Annotated[
        float | None, typer.Option(help="... its requests have taken so many seconds.")
    ] = None,
    run_tokens: Annotated[
        int | None,
        typer.Option(help="Stop the run when its trees have had so many tokens written."),
    ] = None,
    run_requests: Annotated[int | None, typer.Option(help="... so many requests made.")] = None,
    run_seconds: Annotated[float | None, typer.Option(help="... so many seconds are over.")] = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Nucleus of the sampling.")] = 1.0,
    step_tokens: Annotated[int | None, typer.Option(help="Most tokens of a step.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the searches.")] = 0,
    concurrency: Annotated[int, typer.Option(help="Trees searched at once.")] = 32,
    shard: Annotated[int, typer.Option(help="Trees committed at once.")] = 64,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Search questions again whose tree failed.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Rebuild trees from recorded responses; no server.")
    ] = False,
    regrade: Annotated[
        bool, typer.Option("--regrade", help="Say what today's grader would score otherwise.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Search a few questions, predict the cost of all.")
    ] = False,
    pilot: Annotated[int, typer.Option(help="Questions a dry run searches.")] = 4,
    price_in: Annotated[
        float | None, typer.Option(help="Money a million prompt tokens cost.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option(help="Money a million written tokens cost.")
    ] = None,
    metrics: Annotated[
        int | None, typer.Option(help="Port for Prometheus to read the progress from.")
    ] = None,
    home: Home = None,
) -> None:
    """Search questions, keep every trace with its verdicts; run again to continue."""
    values = dict(locals())
    from flows.cli import commands

    commands.build(values)
