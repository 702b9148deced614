"""Commands that train: `vigorl train sft`, `dpo`, `prm` and `grpo`, and `vigorl train list`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from flows.cli.interrupts import SENTENCE
from flows.cli.printing import Home
from flows.parameters import takes
from flows.settings import DpoSettings, GrpoSettings, PrmSettings, SftSettings, TrainSettings

train = typer.Typer(
    help="Train students; the same command again continues.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Preflight = Annotated[
    bool, typer.Option("--preflight", help="Only check data and model, as is done before any run.")
]


@train.command()
@takes(SftSettings)
def sft(settings: SftSettings, preflight: Preflight = False) -> None:
    """Teach a student the traces of a dataset version.

    vigorl train sft my-sft.yaml --dataset sat2-sft@v1 -o steps=200
    """
    _train(settings, preflight)


@train.command()
@takes(DpoSettings)
def dpo(settings: DpoSettings, preflight: Preflight = False) -> None:
    """Have a student prefer the better of two ways on from one place of a tree.

    vigorl train dpo my-dpo.yaml --dataset sat2-sft@v1 --model my-sft-1a2b3c4d
    """
    _train(settings, preflight)


@train.command()
@takes(PrmSettings)
def prm(settings: PrmSettings, preflight: Preflight = False) -> None:
    """Teach a process reward model what the steps of a version's trees are worth.

    vigorl train prm my-prm.yaml --dataset sat2-sft@v1 --model my-sft-1a2b3c4d
    """
    _train(settings, preflight)


@train.command()
@takes(GrpoSettings)
def grpo(settings: GrpoSettings, preflight: Preflight = False) -> None:
    """Reward a student for right answers in the right response style.

    vigorl train grpo my-grpo.yaml --dataset sat2-sft@v1 --model my-sft-1a2b3c4d
    """
    _train(settings, preflight)


@train.command("list")
def list_(home: Home = None) -> None:
    """List the built-in recipes, and the models trained so far.

    vigorl train list
    """
    from training.recipes import load_recipe, recipe_names
    from warehouse.models import list_models
    from warehouse.storage.home import Warehouse

    for name in recipe_names():
        print(f"{name:<24} {load_recipe(name).about}")
    for row in list_models(Warehouse.at(home)):
        print(f"{row['name']:<24} from {row['base']}, on {row['dataset'] or 'questions of a task'}")


def _train(settings: TrainSettings, only_check: bool) -> None:
    from flows.stages.train import train as train_student

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    row = train_student(settings, only_check=only_check)
    if row:
        print(f"model {row['name']} ({row['model_id']})")
        print(f"where it comes from: vigorl lineage {row['model_id']}", file=sys.stderr)


def _leave(number: int, frame: object) -> None:
    """End at once: what the last checkpoint holds is kept."""
    os.write(2, f"vigorl: {SENTENCE}\n".encode())
    os._exit(128 + number)
