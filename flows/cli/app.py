"""The command line: every command checks its settings, then calls one plain function.

    vigorl import sat2 SAT_val.parquet
    vigorl build sat2 --limit 100 --teacher http://localhost:8000 --space qwen2.5-vl
    vigorl sql "SELECT kind, count(*), avg(reward) FROM traces GROUP BY kind"

A command's body is in the file of its subject beside this one; its parameters are a model of
`flows.settings`, or a few typer options. What a person can correct ends with one sentence on stderr
and status 2; a teacher that does not answer with status 1. Heavy libraries load inside the commands
that use them, so that `--help` is quick.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from flows.cli import (
    browse,
    build,
    curate,
    datasets,
    doctor,
    imports,
    inbox,
    inference,
    models,
    retrain,
    review,
    train,
    warehouse,
)
from flows.cli.interrupts import SENTENCE
from flows.cli.printing import Home, escaping

app = typer.Typer(
    name="vigorl",
    help="Search, curate and train visual reasoning that points.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(datasets.dataset, name="dataset")
app.add_typer(warehouse.warehouse, name="warehouse")
app.add_typer(train.train, name="train")
app.add_typer(models.models, name="models")

app.command("import")(imports.import_)
app.command()(build.build)
app.command()(curate.curate)
app.command()(curate.filters)
# A statement may begin with a comment.
app.command(context_settings={"ignore_unknown_options": True})(browse.sql)
app.command()(browse.gallery)
app.command()(review.review)


@app.command()
def demo(
    limit: Annotated[int, typer.Option(min=1, help="Questions to search.")] = 24,
    home: Home = None,
) -> None:
    """Go the whole way on the embedded sample and model: questions to a published dataset.

    vigorl demo --limit 8
    """
    from flows.cli.demo import run_demo

    run_demo(limit, home)


@app.command()
def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Prefect server.")] = 4200,
    home: Home = None,
) -> None:
    """Start a Prefect server and a worker in the background and apply the deployments.

    vigorl up --port 4201
    """
    from flows.orchestration import local_server

    local_server.up(port, home)


@app.command()
def down(home: Home = None) -> None:
    """Stop what `vigorl up` started, and nothing else.

    vigorl down
    """
    from flows.orchestration import local_server

    local_server.down(home)


app.command()(doctor.doctor)
app.command()(inference.serve)
app.command()(inference.ask)
app.command()(curate.judge)
app.command()(retrain.retrain)
app.command()(inbox.inbox)
app.command()(inference.evaluate)
app.command()(inference.lint_reward)
app.command()(datasets.lineage)
app.command()(datasets.revoke)


def main() -> None:
    """Run a command; known failures become a sentence and a status."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models and data are named by folder, not fetched
    with escaping():
        _run()


def _run() -> None:
    try:
        app()
    except KeyboardInterrupt:
        _leave(SENTENCE, 130)
    except Exception as error:
        from warehouse.storage.failures import describe

        status = _status(error)
        sentence = describe(error) if status in (None, 1) else None
        if status is None and sentence is None:
            raise
        lines = (sentence or str(error)).strip().splitlines()
        _leave(lines[0] if lines else type(error).__name__, status or 1)


def _status(error: Exception) -> int | None:
    """Return the exit status of a failure that its sentence explains; None for a defect of ours."""
    from flows.settings_base import Problem

    # OSError: a folder that cannot be written, a full disk; DeltaError: the same, met in a table.
    known: dict[type[Exception], int] = {Problem: 2, OSError: 1}
    # Only what was loaded can have been raised.
    for module, name, status in (
        ("warehouse.storage.home", "WarehouseError", 2),
        ("warehouse.storage.objects", "UnsafeStore", 2),
        ("warehouse.query.sql_guard", "QueryError", 2),
        ("curation.filters.base", "FilterProblem", 2),
        ("training.errors", "TrainingError", 2),
        ("warehouse.sources.importing", "ImportProblem", 2),
        ("deltalake.exceptions", "DeltaError", 1),
        ("botocore.exceptions", "BotoCoreError", 1),
        ("botocore.exceptions", "ClientError", 1),
        ("mcts.teachers.base", "UnusableModel", 2),
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
