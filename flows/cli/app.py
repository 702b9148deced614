"""The command line: every command checks its input, then calls one plain function.

    vigorl import sat2 SAT_val.parquet
    vigorl build sat2 --limit 100 --teacher http://localhost:8000 --space qwen2.5-vl
    vigorl sql "SELECT kind, count(*), avg(reward) FROM traces GROUP BY kind"

What a person can put right ends with one sentence on stderr and status 2; a teacher that is not
there with status 1. Heavy libraries load inside the commands that use them, so that `--help` is
quick.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import datasets as cli_versions
from flows.cli import evaluate as cli_evaluate
from flows.cli import models as cli_models
from flows.cli.build import Home, build
from flows.cli.datasets import Variant
from flows.cli.judge import judge
from flows.cli.train import train
from flows.cli.warehouse import warehouse

app = typer.Typer(
    name="vigorl",
    help="Search, curate and train visual reasoning that points.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
dataset = typer.Typer(
    help="Named, immutable versions of what was kept.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(dataset, name="dataset")
app.add_typer(warehouse, name="warehouse")
app.add_typer(train, name="train")


@app.command("import")
def import_(
    task: Annotated[str, typer.Argument(help="Task or benchmark the questions belong to.")] = "",
    path: Annotated[str, typer.Argument(help="A file, or a folder of shards.")] = "",
    split: Annotated[str | None, typer.Option(help="Split; by default the file name says.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most questions to read.")] = None,
    image_root: Annotated[
        str | None, typer.Option(help="Folder that relative image paths start from.")
    ] = None,
    max_rejects: Annotated[
        int | None,
        typer.Option(min=0, help="Most bad rows. Default: 10, or a tenth of the rows if more."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Read any table: question=COLUMN,image=COLUMN,answer=COLUMN, ..."),
    ] = None,
    boxes: Annotated[
        str, typer.Option(help="With --columns, what four numbers are: xyxy, xywh, xyxy/1000, ...")
    ] = "xyxy",
    check: Annotated[
        bool, typer.Option("--check", help="Only draw the first rows with their gold answers.")
    ] = False,
    out: Annotated[Path, typer.Option(help="With --check, the folder for the pictures.")] = Path(
        "import-check"
    ),
    into: Annotated[
        str | None, typer.Option(help="With reference-trees, the task that the trees belong to.")
    ] = None,
    space: Annotated[
        str, typer.Option(help="With reference-trees, the coordinates of their points.")
    ] = "original",
    list_: Annotated[bool, typer.Option("--list", help="List what can be imported.")] = False,
    home: Home = None,
) -> None:
    """Read questions with their images into the warehouse; bad rows go into a report."""
    from flows.stages import imports as importing

    if list_:
        importing.list_tasks()
        return
    reading = importing.Reading(task, path, split, limit, image_root, columns, boxes)
    if task == importing.TREES:
        importing.import_trees(reading, into, space, max_rejects, home)
    elif check:
        importing.check(reading, out)
    else:
        importing.import_(reading, max_rejects, home)


app.command()(build)


@app.command()
def curate(
    task: Annotated[str, typer.Argument(help="Task whose trees are curated.")],
    publish: Annotated[
        str | None, typer.Option(help="Publish what is kept as this dataset.")
    ] = None,
    home: Home = None,
) -> None:
    """Make traces and verdicts from a task's trees again, by the code as it is now."""
    values = dict(locals())
    from flows.cli import commands

    commands.curate(values)


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT over the warehouse's tables.")],
    format_: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
    home: Home = None,
) -> None:
    """Ask the warehouse; `SELECT * FROM duckdb_columns()` describes every column."""
    from flows.cli import commands

    commands.sql(statement, format_, home)


@app.command()
def gallery(
    out: Annotated[Path, typer.Option(help="Folder to write the pages into.")] = Path("gallery"),
    sql: Annotated[
        str | None, typer.Option(help="A statement that yields the trace_id of what to show.")
    ] = None,
    dropped_by: Annotated[
        str | None, typer.Option(help="Show what this filter dropped, and what its reasons name.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most traces, where no --sql is given.")] = 500,
    home: Home = None,
) -> None:
    """Write traces and search trees as pages that open in any browser."""
    from flows.cli import commands

    commands.gallery(out, sql, dropped_by, limit, home)


@dataset.command("publish")
def dataset_publish(
    name: Annotated[str, typer.Argument(help="Name; the version number is given.")],
    sql: Annotated[str, typer.Option(help="A SELECT that yields trace_id.")],
    variant: Variant = None,
    home: Home = None,
) -> None:
    """Cut a new version from the warehouse with SQL; equal content is never published twice."""
    from flows.cli import commands

    commands.publish(name, sql, variant, home)


@dataset.command("list")
def dataset_list(home: Home = None) -> None:
    """List the versions there are."""
    from flows.cli import commands

    commands.list_datasets(home)


@dataset.command("show")
def dataset_show(
    ref: Annotated[str, typer.Argument(help="name@vN, or name for the newest.")],
    home: Home = None,
) -> None:
    """Print a version's card."""
    from flows.cli import commands

    commands.show_dataset(ref, home)


dataset.command("diff")(cli_versions.diff)


dataset.command("export")(cli_versions.export)


@app.command()
def demo(
    limit: Annotated[int, typer.Option(min=1, help="Questions to search.")] = 24,
    home: Home = None,
) -> None:
    """The whole way on the embedded sample and model: questions to a published dataset."""
    from flows.cli import demo as stages

    stages.run(limit, home)


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the Prefect server.")] = 4200,
    home: Home = None,
) -> None:
    """Start a Prefect server and a worker in the background and apply the deployments."""
    from flows.orchestration import local_server as server

    server.up(port, home)


@app.command()
def down(home: Home = None) -> None:
    """Stop what `vigorl up` started, and nothing else."""
    from flows.orchestration import local_server as server

    server.down(home)


app.command()(cli_models.serve)
app.command()(cli_models.ask)
app.command()(judge)
app.command()(cli_evaluate.evaluate)
app.command()(cli_evaluate.lint_reward)
app.command()(cli_versions.lineage)
app.command()(cli_versions.revoke)


def main() -> None:
    """The entry point: runs a command and turns known failures into a sentence and a status."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models and data are named by folder, not fetched
    try:
        app()
    except KeyboardInterrupt:
        _leave("stopped; what was done is kept, the same command continues", 130)
    except Exception as error:
        status = _status(error)
        if status is None:
            raise
        lines = str(error).strip().splitlines()
        _leave(lines[0] if lines else type(error).__name__, status)


def _status(error: Exception) -> int | None:
    """The exit status of a failure that its sentence explains; None for a defect of ours."""
    from flows.settings import Problem

    # OSError: a folder that cannot be written, a full disk; DeltaError: the same, met in a table.
    known: dict[type[Exception], int] = {Problem: 2, OSError: 1}
    # Only what was loaded can have been raised.
    for module, name, status in (
        ("warehouse.storage.home", "WarehouseError", 2),
        ("warehouse.query.sql_guard", "QueryError", 2),
        ("training.errors", "TrainingError", 2),
        ("warehouse.sources.importing", "ImportProblem", 2),
        ("deltalake.exceptions", "DeltaError", 1),
        ("botocore.exceptions", "BotoCoreError", 1),
        ("botocore.exceptions", "ClientError", 1),
        ("mcts.teachers.base", "TeacherUnavailable", 1),
        ("mcts.journal.journal", "JournalError", 1),
        ("mcts.journal.journal", "JournalMismatch", 2),
    ):
        if module in sys.modules:
            known[getattr(sys.modules[module], name)] = status
    return next((s for kind, s in known.items() if isinstance(error, kind)), None)


def _leave(sentence: str, status: int) -> None:
    print(f"vigorl: {sentence}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
