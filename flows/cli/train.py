"""Commands that train students on what was kept.

vigorl train sft nano-sft --dataset sat2-sft@v1
vigorl train grpo nano-grpo --dataset sat2-sft@v1 --model nano-sft-1a2b3c4d -o steps=20
"""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.build import Home

train = typer.Typer(
    help="Train students; the same command again continues.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe that comes along, or a YAML file.")
]
Start = Annotated[
    str | None,
    typer.Option("--model", help="Model to start from: nano-base, a trained one, a folder, ..."),
]
Name = Annotated[
    str | None, typer.Option(help="What to call the model. Default: the recipe, and a hash.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("-o", help="key=value in place of the recipe's; repeatable.")
]
Preflight = Annotated[
    bool, typer.Option("--preflight", help="Only check data and model, as is done before any run.")
]


@train.command()
def sft(
    recipe: RecipeName,
    dataset: Annotated[str, typer.Option(help="name@vN, or name for the newest.")],
    model: Start = None,
    name: Name = None,
    override: Overrides = None,
    preflight: Preflight = False,
    home: Home = None,
) -> None:
    """Teach a student the traces of a dataset version."""
    values = dict(locals())
    from flows.stages import train as training_commands

    training_commands.train("sft", values)


@train.command()
def grpo(
    recipe: RecipeName,
    dataset: Annotated[
        str | None, typer.Option(help="Ask its questions: name@vN, or name for the newest.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Ask the questions of a task instead.")] = None,
    split: Annotated[str, typer.Option(help="Split of the task's questions.")] = "train",
    limit: Annotated[int | None, typer.Option(help="Most questions of the task.")] = None,
    model: Start = None,
    name: Name = None,
    override: Overrides = None,
    preflight: Preflight = False,
    home: Home = None,
) -> None:
    """Reward a student for right answers in the right form."""
    values = dict(locals())
    from flows.stages import train as training_commands

    training_commands.train("grpo", values)


@train.command("list")
def list_(home: Home = None) -> None:
    """List the recipes that come along, and the models trained so far."""
    from flows.stages import train as training_commands

    training_commands.list_training(home)
