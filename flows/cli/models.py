"""Commands about trained models and which of them is current: `vigorl models …`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from flows.cli.printing import Home
from flows.settings_base import Problem

models = typer.Typer(
    help="Trained models, and which of them is current for a task.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
Task = Annotated[str, typer.Argument(help="The task, such as sat2.")]
Model = Annotated[str, typer.Argument(help="Its name, id, or champion:TASK.")]
Why = Annotated[str, typer.Option("--reason", help="Why; it is kept with the decision.")]
By = Annotated[str, typer.Option("--by", help="Who decides; the user's name when left out.")]
Number = Annotated[int | None, typer.Argument(help="Which cycle; the newest when left out.")]
AsOf = Annotated[
    str | None, typer.Option("--as-of", help="A day or a time in UTC, such as 2026-11-28T02:30.")
]


@models.command("list")
def list_(home: Home = None) -> None:
    """List the trained models, and what they are current for.

    vigorl models list
    """
    from warehouse.models import list_models
    from warehouse.registry import champions
    from warehouse.storage.home import Warehouse

    warehouse = Warehouse.at(home)
    found, current = list_models(warehouse), champions(warehouse)
    if not found:
        print("nothing has been trained yet; `vigorl train sft RECIPE --dataset NAME` does")
    for row in found:
        tasks = [task for task, model_id in sorted(current.items()) if model_id == row["model_id"]]
        role = f"  champion of {', '.join(tasks)}" if tasks else ""
        print(f"{row['model_id']:<44} {row['dataset'] or 'questions of a task':<20}{role}")


@models.command()
def show(model: Model, home: Home = None) -> None:
    """Print how a model was trained, and every decision about it.

    vigorl models show champion:sat2
    """
    from warehouse.models import require_model
    from warehouse.registry import history, takes_back
    from warehouse.storage.home import Warehouse

    warehouse = Warehouse.at(home)
    row = require_model(warehouse, model)
    recipe = json.loads(row["recipe"])
    print(row["model_id"])
    print(f"trained {row['created_at']:%Y-%m-%d %H:%M} UTC from {row['base']}")
    print(f"on {row['dataset'] or 'questions of a task'}, by {recipe.get('kind', '?')}")
    for name, value in json.loads(row["metrics"] or "{}").items():
        if isinstance(value, int | float):
            print(f"{name}: {value:.4g}")
    for decision in history(warehouse):
        if row["model_id"] == decision["model_id"] or takes_back(decision, row["model_id"]):
            print(_line(decision))


@models.command()
def promote(task: Task, model: Model, reason: Why, by: By = "", home: Home = None) -> None:
    """Make a model the champion of a task, whatever a gate says; the decision is recorded.

    vigorl models promote sat2 sat2-grpo-1a2b --reason "the first one"
    """
    from warehouse.models import require_model
    from warehouse.registry import Decision, champion_id, decide
    from warehouse.sources import task_of
    from warehouse.storage.home import Warehouse

    warehouse = Warehouse.at(home)
    row = require_model(warehouse, model)
    if not reason.strip():
        raise Problem("--reason: say why")
    if champion_id(warehouse, task_of(task).name) == row["model_id"]:
        raise Problem(f"{row['model_id']} is the champion of {task} already")
    made = Decision(task, row["model_id"], "promoted", reason, by, dataset=row["dataset"])
    print(_line(decide(warehouse, made)))


@models.command()
def rollback(task: Task, reason: Why = "", by: By = "", home: Home = None) -> None:
    """Make the champion before this one current again; behind the first, the task has none.

    vigorl models rollback sat2
    """
    from warehouse import registry
    from warehouse.sources import task_of
    from warehouse.storage.home import Warehouse

    print(_line(registry.rollback(Warehouse.at(home), task_of(task).name, by, reason)))


@models.command()
def history(task: Task, as_of: AsOf = None, home: Home = None) -> None:
    """Print every decision about a task, the newest first: by whom, when, why.

    vigorl models history sat2 --as-of 2026-11-28
    """
    from warehouse.registry import champion_id
    from warehouse.registry import history as decisions
    from warehouse.sources import task_of
    from warehouse.storage.home import Warehouse

    task = task_of(task).name
    warehouse, until = Warehouse.at(home), _time(as_of)
    rows = decisions(warehouse, task, until)
    if not rows:
        print(f"nothing has been decided about {task}{f' until {as_of}' if as_of else ''}")
        return
    print(f"champion: {champion_id(warehouse, task, until) or 'none'}")
    for row in rows:
        print(_line(row))


@models.command()
def report(task: Task, cycle: Number = None, home: Home = None) -> None:
    """Make the report of a retraining cycle again, from what is stored, and print where it is.

    vigorl models report sat2 7
    """
    from flows.stages.retrain.cycle import cycle_of
    from flows.stages.retrain.report import write_report
    from warehouse.sources import task_of
    from warehouse.storage.home import Warehouse

    print(write_report(cycle_of(Warehouse.at(home), task_of(task).name, cycle)))


def _line(row: dict[str, object]) -> str:
    return (
        f"{row['promotion_id']}  {row.get('created_at') or datetime.now(UTC):%Y-%m-%d %H:%M} UTC  "
        f"{row['outcome'] or ('promoted' if row['promoted'] else 'refused')}  "
        f"{'to ' * bool(row['outcome'] == 'rolled_back' and row['promoted'])}{row['model_id']}  "
        f"by {row['decided_by']}: {row['reason']}"
    )


def _time(text: str | None) -> datetime | None:
    """Read a day, meant to its end, or a time; in UTC where it doesn't say.

    Raises:
        Problem: it is neither.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(
            f"--as-of {text!r} is no day or time such as 2026-11-28 or 2026-11-28T02:30"
        ) from None
    if len(text) <= len("2026-11-28"):
        found = found.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
