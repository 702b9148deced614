"""Commands about versions: what a trainer is given, what differs, what it comes from, what is bad.

vigorl dataset export sat2-sft@v1 --to trl --out export --push-to me/sat2-sft
vigorl dataset diff sat2-sft@v1 sat2-sft@v2
vigorl lineage sat2-sft@v1 --out lineage.png
vigorl revoke source web-scrape --reason "its licence was withdrawn"
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.build import Home

Variant = Annotated[
    str | None,
    typer.Option(
        help="Tell each trace in another form: grounded (those with an ungrounded twin), "
        "ungrounded, answers or zoom."
    ),
]


def export(
    ref: Annotated[str, typer.Argument(help="name@vN, or name for the newest.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into; may be left out with --push-to.")
    ] = None,
    to: Annotated[
        str, typer.Option(help="Form: trl, llama-factory, grpo, verl, easyr1, dpo or prm.")
    ] = "trl",
    variant: Variant = None,
    space: Annotated[
        str | None,
        typer.Option(help="Coordinates of the model to train; by default the teacher's."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Prompt that asks the question; by default the variant's or the task's."),
    ] = None,
    files: Annotated[
        str, typer.Option(help="parquet with the pictures inside, or jsonl with them beside it.")
    ] = "parquet",
    push_to: Annotated[
        str | None,
        typer.Option(
            help="Also put it on a hub, into the repository owner/name (HF_TOKEN, HF_ENDPOINT)."
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody read a repository that is new.")
    ] = False,
    home: Home = None,
) -> None:
    """Write a version in the form a trainer reads, points in the trained model's coordinates."""
    from flows.cli import version_commands

    version_commands.export(ref, out, to, variant, space, prompt, files, push_to, public, home)


def diff(
    a: Annotated[str, typer.Argument(help="name@vN, or name for the newest.")],
    b: Annotated[str, typer.Argument(help="name@vN, or name for the newest.")],
    format_: Annotated[
        str, typer.Option("--format", help="table, or json with every row.")
    ] = "table",
    home: Home = None,
) -> None:
    """Say which rows two versions do not share, and why each is in one and not in the other."""
    from flows.cli import version_commands

    version_commands.diff(a, b, format_, home)


def lineage(
    id_: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Of a model, dataset version, row (name@vN/trace), trace, tree, "
            "node (tree/number), response, question, image, run or source; "
            "the beginning of an id is enough.",
        ),
    ],
    format_: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
    out: Annotated[Path | None, typer.Option(help="Draw it into this .png or .svg file.")] = None,
    most: Annotated[
        int, typer.Option(min=1, help="Things of a kind told one by one at each remove.")
    ] = 6,
    home: Home = None,
) -> None:
    """Tell where a thing comes from and what came of it, from a model down to the pixels."""
    from flows.cli import version_commands

    version_commands.lineage(id_, format_, out, most, home)


def revoke(
    subject: Annotated[str, typer.Argument(help="source, question, run, image or trace.")],
    value: Annotated[str, typer.Argument(help="Its name or id.")],
    reason: Annotated[str, typer.Option(help="Why; whoever meets it later will ask.")],
    home: Home = None,
) -> None:
    """Mark something as bad: say what came from it, and leave it out of versions from now on."""
    from flows.cli import version_commands

    version_commands.revoke(subject, value, reason, home)
