"""Supervised fine-tuning of a student on a data set version.

    row = train_sft(warehouse, load_recipe("nano-sft"), "sat2-sft@v1")       # its row in `models`
    vigorl train sft nano-sft --dataset sat2-sft@v1

The student learns the assistant's tokens and nothing else, points in its own coordinates. The same
call again goes on where it was killed, or gives the model that is there.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from training.examples import traces_told
from training.preflight import check_overfit
from training.recipes import SftRecipe
from training.run_training import Checks, course, taught
from training.runs import Plan, open_run
from training.students import student
from training.trainers import Told, sft_trainer
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import open_version, resolve

Row = dict[str, Any]


def train_sft(
    warehouse: Warehouse,
    recipe: SftRecipe,
    dataset: str,
    *,
    model: str | None = None,
    name: str | None = None,
    only_check: bool = False,
    told: Told | None = None,
) -> Row | None:
    """Train; the finished model's row of `models`.

    Args:
        dataset: name@vN, or name for the newest.
        model: the student to start from, instead of the recipe's.
        name: what to call the model; by default the recipe's name and a hash.
        only_check: check data and model, as before any run, and train nothing.

    Raises:
        TrainingError, WarehouseError: in a sentence, what must be put right.
    """
    told = told or Told()
    version = resolve(warehouse, dataset)
    with ExitStack() as stack:
        found = stack.enter_context(student(warehouse, model or recipe.model))
        learner = taught(found, recipe)
        plan = Plan(
            "sft", recipe.settings(), version.ref, version.content_hash, found.model_id, name=name
        )
        run = stack.enter_context(open_run(warehouse, plan))
        if run.finished is not None:
            told.say(f"{run.finished['name']} is trained already")
            return run.finished
        folder = stack.enter_context(open_version(warehouse, version))
        examples = traces_told(warehouse, folder, version.ref, learner, recipe.min_thoughts)
        told.say(f"{plan.model_name}: {len(examples.rows)} traces of {version.ref}{examples.left}")
        make = partial(sft_trainer, run, recipe, examples=examples, told=told)
        checks = Checks(recipe.max_tokens, check_overfit, only_check)
        return course(run, learner, examples, make, checks, told)
