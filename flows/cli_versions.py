"""Commands that ask why: what differs between versions, where a thing comes from, what is bad.

vigorl dataset diff sat2-sft@v1 sat2-sft@v2
vigorl lineage sat2-sft@v1 --out lineage.png
vigorl revoke source web-scrape --reason "its licence was withdrawn"
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_build import Home


def diff(
    a: Annotated[str, typer.Argument(help="name@vN, or name for the newest.")],
    b: Annotated[str, typer.Argument(help="name@vN, or name for the newest.")],
    format_: Annotated[
        str, typer.Option("--format", help="table, or json with every row.")
    ] = "table",
    home: Home = None,
) -> None:
    """Say which rows two versions do not share, and why each is in one and not in the other."""
    from flows import version_commands

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
    from flows import version_commands

    version_commands.lineage(id_, format_, out, most, home)


def revoke(
    subject: Annotated[str, typer.Argument(help="source, question, run, image or trace.")],
    value: Annotated[str, typer.Argument(help="Its name or id.")],
    reason: Annotated[str, typer.Option(help="Why; whoever meets it later will ask.")],
    home: Home = None,
) -> None:
    """Mark something as bad: say what came from it, and leave it out of versions from now on."""
    from flows import version_commands

    version_commands.revoke(subject, value, reason, home)
