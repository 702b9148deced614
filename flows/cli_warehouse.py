"""`vigorl warehouse …`: looking after what is stored. `flows.cli` puts it among the commands.

vigorl warehouse check
vigorl warehouse compact --keep-days 30
vigorl warehouse delete-source NAME --yes
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_build import Home

warehouse = typer.Typer(
    help="Check, compact, copy and clear what is stored.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@warehouse.command()
def check(home: Home = None) -> None:
    """Verify every file, hash and reference; one line for each that is wrong, and status 1."""
    from warehouse import checking
    from warehouse.home import Warehouse

    wrong = 0
    for finding in checking.check(Warehouse(home) if home else Warehouse()):
        wrong += finding.wrong
        print(finding.sentence if finding.wrong else f"remark: {finding.sentence}", flush=True)
    if wrong:
        sys.exit(1)
    print("everything is there, and is what it says")


@warehouse.command()
def compact(
    keep_days: Annotated[
        float, typer.Option(min=1, help="Days that replaced files stay, for whoever reads them.")
    ] = 7.0,
    home: Home = None,
) -> None:
    """Merge small files; remove those that no dataset version and no reader can need."""
    from warehouse import compacting
    from warehouse.home import Warehouse

    for done in compacting.compact(Warehouse(home) if home else Warehouse(), keep_days):
        print(done.sentence(), flush=True)


@warehouse.command()
def snapshot(
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: vigorl.duckdb in the warehouse.")
    ] = None,
    home: Home = None,
) -> None:
    """Write a file of views that any DuckDB client opens; an older one is replaced in one step."""
    from warehouse import snapshot as views
    from warehouse.home import Warehouse

    print(views.snapshot(Warehouse(home) if home else Warehouse(), out))
