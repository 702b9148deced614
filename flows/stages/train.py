"""Training a student, as a plain function: `vigorl train` and the claim's stages.

row = train(SftSettings.checked(recipe="my-sft.yaml", dataset="sat2-sft@v1"))   # of `models`
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flows.progress import ProgressLine
from flows.settings import GrpoSettings, TrainSettings
from flows.settings_base import Problem
from training.recipes import DpoRecipe, PrmRecipe, Recipe, SftRecipe, load_recipe
from training.runs import is_main
from training.trainers import TrainingReporter
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row

SHOWN = ("loss", "reward", "rewards/accuracies", "rewards/margins", "entropy", "kl")
"""Metrics on the progress line, where they were logged."""


def recipe_of(settings: TrainSettings) -> Recipe:
    """Load the recipe with its overrides.

    Raises:
        Problem: it is for another kind of training.
        TrainingError: there is none of that name, or a field is wrong.
    """
    recipe = load_recipe(settings.recipe, settings.override)
    if said := other_kind(recipe, settings.kind):
        raise Problem(said)
    return recipe


def other_kind(recipe: Recipe, kind: str) -> str | None:
    """Say that a recipe is for another training than `kind`; None where it is not."""
    return (
        None if recipe.kind == kind else f"recipe {recipe.name} is for `vigorl train {recipe.kind}`"
    )


def train(settings: TrainSettings, *, only_check: bool = False) -> Row | None:
    """Train as the settings say; return the model's row, or None where only checks are made.

    Of several processes the first returns the row, the others an empty one.
    """
    recipe, warehouse = recipe_of(settings), Warehouse.at(settings.home)
    line = ProgressLine("step {done} of {total}", every_s=2.0)
    reporter = TrainingReporter(step_progress(line), line.report)
    if not is_main():  # the first of several processes speaks for all
        reporter = TrainingReporter()
    common: dict[str, Any] = {
        "recorded": {"settings": settings.params()},
        "model": settings.model,
        "name": settings.name,
        "only_check": only_check,
    }
    try:
        if isinstance(recipe, SftRecipe):
            from training.sft import train_sft

            assert settings.dataset
            return train_sft(warehouse, recipe, settings.dataset, reporter=reporter, **common)
        if isinstance(recipe, DpoRecipe):
            from training.preferences.dpo import train_dpo

            assert settings.dataset
            return train_dpo(warehouse, recipe, settings.dataset, reporter=reporter, **common)
        if isinstance(recipe, PrmRecipe):
            from training.values.prm import train_prm

            assert settings.dataset
            return train_prm(warehouse, recipe, settings.dataset, reporter=reporter, **common)
        from training.grpo import train_grpo

        assert isinstance(settings, GrpoSettings)
        return train_grpo(
            warehouse, recipe, dataset=settings.dataset, task=settings.task, split=settings.split,
            limit=settings.limit, reporter=reporter, **common,
        )  # fmt: skip
    finally:
        line.close()


def step_progress(line: ProgressLine) -> Callable[[int, int, Row], None]:
    """Return what a training calls after each step."""
    begun: tuple[float, int] | None = None

    def progress(step: int, steps: int, metrics: Row) -> None:
        nonlocal begun
        begun = begun or (time.monotonic(), step)
        if not metrics:
            return
        began, first = begun
        pace = (time.monotonic() - began) / (step - first) if step > first else None
        shown = ", ".join(f"{name} {metrics[name]:.4g}" for name in SHOWN if name in metrics)
        line.update(step, steps, shown, None if pace is None else pace * (steps - step))

    return progress
