"""What `vigorl train` does once its arguments are read; the same for the deployments.

settings = TrainSettings.checked(kind="sft", recipe="nano-sft", dataset="sat2-sft@v1")
row = run_training(settings, told)          # the trained model's row
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, Literal

from pydantic import Field

from flows.cli.interrupts import SENTENCE
from flows.settings import Problem, Settings
from training.errors import TrainingError
from training.recipes import GrpoRecipe, SftRecipe, load_recipe, recipe_names
from warehouse.storage.home import Warehouse

Row = dict[str, Any]
_SAY_EVERY_S = 2.0


class TrainSettings(Settings):
    """What `vigorl train` and the deployments `train-sft/*` and `train-grpo/*` take."""

    kind: Literal["sft", "grpo"]
    recipe: str = Field(min_length=1, description="a recipe that comes along, or a YAML file")
    dataset: str | None = Field(None, description="data set version, as name@vN or name")
    task: str | None = Field(None, description="grpo: a task whose questions are asked instead")
    split: str = "train"
    limit: int | None = Field(None, ge=1)
    model: str | None = Field(None, description="model to start from; else the recipe's")
    name: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9._-]*$", description="of the model")
    override: tuple[str, ...] = Field((), description="key=value in place of the recipe's")
    preflight: bool = Field(False, description="only check data and model")
    home: str | None = None


def train(kind: str, values: Row) -> None:
    settings = TrainSettings.checked(
        kind=kind, **{**values, "override": tuple(values.get("override") or ())}
    )
    _stop_with_a_sentence()
    row = run_training(settings)
    if row is None:
        return
    print(f"model {row['name']} ({row['model_id']})")
    print(f"asked about its origin: vigorl lineage {row['name']}", file=sys.stderr)


def recipe_of(settings: TrainSettings) -> SftRecipe | GrpoRecipe:
    """The recipe with its overrides.

    Raises:
        Problem: it is for the other kind of training.
        TrainingError: there is none such, or a field is wrong.
    """
    recipe = load_recipe(settings.recipe, settings.override)
    if recipe.kind != settings.kind:
        raise Problem(f"recipe {recipe.name} is for `vigorl train {recipe.kind}`")
    return recipe


def run_training(settings: TrainSettings, told: Any = None) -> Row | None:
    """Train as the settings say; the model's row, or None where only checks were wanted."""
    recipe = recipe_of(settings)
    if settings.kind == "sft" and not settings.dataset:
        raise Problem("dataset: sft needs a data set version, such as sat2-sft@v1")
    warehouse = Warehouse.at(settings.home)
    from training.trainers import Told

    told = told or Told(Line(), _say)
    if isinstance(recipe, SftRecipe):
        from training.sft import train_sft

        assert settings.dataset
        return train_sft(
            warehouse, recipe, settings.dataset, model=settings.model, name=settings.name,
            only_check=settings.preflight, told=told,
        )  # fmt: skip
    from training.grpo import train_grpo

    return train_grpo(
        warehouse, recipe, dataset=settings.dataset, task=settings.task, split=settings.split,
        limit=settings.limit, model=settings.model, name=settings.name,
        only_check=settings.preflight, told=told,
    )  # fmt: skip


def list_training(home: str | None) -> None:
    for name in recipe_names():
        print(f"{name:<24} {load_recipe(name).about}")
    from warehouse.models import list_models

    for row in list_models(Warehouse.at(home)):
        print(f"{row['name']:<24} from {row['base']}, on {row['dataset'] or 'questions of a task'}")


class Line:
    """Progress of a training on stderr: figures now and then, and what is left."""

    def __init__(self) -> None:
        self.started: tuple[float, int] | None = None
        self.said = 0.0

    def __call__(self, step: int, of: int, figures: Row) -> None:
        now = time.monotonic()
        self.started = self.started or (now, step)
        if not figures or (step < of and now - self.said < _SAY_EVERY_S):
            return
        self.said = now
        begun, first = self.started
        left = ""
        if step > first:
            left = f", {_duration((now - begun) / (step - first) * (of - step))} to go"
        shown = {k: figures[k] for k in ("loss", "reward", "entropy", "kl") if k in figures}
        told = "".join(f", {name} {value:.4g}" for name, value in shown.items())
        _say(f"step {step} of {of}{told}{left}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _stop_with_a_sentence() -> None:
    """SIGTERM and Ctrl-C end the process at once: what the last checkpoint holds is kept."""

    def stop(number: int, frame: object) -> None:
        os.write(2, f"vigorl: {SENTENCE}\n".encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


__all__ = ["TrainSettings", "TrainingError", "list_training", "run_training", "train"]
