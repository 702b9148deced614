"""The commands `vigorl warehouse …`: check, compact, copy and clear what is stored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.printing import Home, existing_warehouse

warehouse = typer.Typer(
    help="Check, compact, copy and clear what is stored.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@warehouse.command()
def check(home: Home = None) -> None:
    """Verify every file, hash and reference; one line for each that is wrong, and status 1.

    vigorl warehouse check
    """
    from warehouse.maintenance import check as checking

    wrong = 0
    for finding in checking.check(existing_warehouse(home)):
        wrong += finding.wrong
        print(finding.sentence if finding.wrong else f"remark: {finding.sentence}", flush=True)
    if wrong:
        sys.exit(1)
    print("everything is there, and is what it says")


@warehouse.command()
def compact(
    keep_days: Annotated[
        float,
        typer.Option(min=1, help="Days that replaced files stay, for readers of them."),
    ] = 7.0,
    sort: Annotated[
        bool, typer.Option("--sort", help="Also sort rows by what they are looked up by.")
    ] = False,
    home: Home = None,
) -> None:
    """Merge small files; remove those that no dataset version and no reader can need.

    vigorl warehouse compact --keep-days 30
    """
    from warehouse.maintenance import compact as compacting

    for done in compacting.compact(existing_warehouse(home), keep_days, sort=sort):
        print(done.sentence(), flush=True)


@warehouse.command()
def snapshot(
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: vigorl.duckdb in the warehouse.")
    ] = None,
    home: Home = None,
) -> None:
    """Write a file that any DuckDB client opens, views on disk or rows from S3; an older one is
    replaced in one step.

        vigorl warehouse snapshot --out vigorl.duckdb
    """
    from warehouse.query import snapshot as views

    print(views.snapshot(existing_warehouse(home), out))


@warehouse.command()
def backup(
    target: Annotated[
        str,
        typer.Argument(help="Folder or s3:// prefix of the copy; what it has is not copied."),
    ],
    home: Home = None,
) -> None:
    """Copy a warehouse, also while others write, to a folder or to S3; the copy is a warehouse.

    vigorl warehouse backup s3://bucket/copy
    """
    from warehouse.maintenance import backup as copying

    copied = copying.backup(existing_warehouse(home), target)
    print(f"{copied} files copied to {target}")


@warehouse.command("delete-source")
def delete_source(
    name: Annotated[str, typer.Argument(help="The source, as in questions.source.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete; without it, list what would go.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Delete the dataset versions that hold some of it, too.")
    ] = False,
    home: Home = None,
) -> None:
    """Delete a source for good: its rows everywhere, its images, the old files that hold them.

    vigorl warehouse delete-source web-scrape --yes
    """
    from warehouse.maintenance import delete as deleting

    where = existing_warehouse(home)
    if yes:
        deleting.delete_source(where, name, force=force, report=print)
        return
    doomed = deleting.plan(where, name)
    counts = [f"{len(ids)} {key.removesuffix('_id')}s" for key, ids in doomed.ids.items()]
    print(f"{name}: {', '.join(counts)}")
    for version in doomed.versions:
        print(f"dataset {version.ref} holds some of it and goes with --force")
    for sentence in deleting.out_of_reach(where, doomed):
        print(f"out of reach: {sentence}")
    print("nothing is deleted without --yes")
