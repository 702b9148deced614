"""Supervised fine-tuning of a student on a data set version.

    row = train_sft(warehouse, load_recipe("nano-sft"), "sat2-sft@v1")       # its row in `models`
    vigorl train sft nano-sft --dataset sat2-sft@v1

The student learns the assistant's tokens and nothing else, points in its own coordinates. The same
call again goes on where it was killed, or gives the model that is there.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from training.errors import TrainingError
from training.examples import traces_told
from training.preflight import check_overfit, check_rows
from training.recipes import SftRecipe
from training.runs import Plan, Run, open_run, read_metrics
from training.students import Student, load, student
from training.trainers import Told, sft_trainer, train
from warehouse.home import Warehouse
from warehouse.versions import open_version, resolve

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
        left = "".join(f"; {n} left out, {reason}" for reason, n in examples.left_out.items())
        told.say(f"{run.plan.model_name}: {len(examples.rows)} traces of {version.ref}{left}")
        trained, processor = load(learner)
        shrink(processor, learner)
        trainer = sft_trainer(run, recipe, trained, processor, examples, told)
        if only_check or run.checkpoint() is None:
            told.say(check_rows(examples, learner, processor, recipe.max_tokens))
            if trainer.accelerator.num_processes == 1:  # else no process has all weights
                told.say(check_overfit(trainer, examples))
        if only_check:
            return None
        final = train(run, trainer, told)
        return run.keep(final, learner, last_figures(run, trainer))


def taught(found: Student, recipe: Any) -> Student:
    """The student as the recipe asks it: the form of its answers, the pictures' size."""
    learner = found.speaking(recipe.form)
    if recipe.max_pixels is None:
        return learner
    least = learner.space.min_pixels
    if least is not None and least > recipe.max_pixels:
        raise TrainingError(f"max_pixels: the model's pictures have at least {least} pixels")
    return replace(learner, space=replace(learner.space, max_pixels=recipe.max_pixels))


def shrink(processor: Any, learner: Student) -> None:
    """Have the processor resize pictures as the student's coordinates say."""
    images, most = processor.image_processor, learner.space.max_pixels
    if most is None:
        return
    size = dict(images.size)
    size["longest_edge"] = most
    images.size = size
    if hasattr(images, "max_pixels"):
        images.max_pixels = most


def last_figures(run: Run, trainer: Any) -> Row:
    """The newest value of everything that was logged."""
    figures: Row = {}
    for row in read_metrics(run.metrics_file):
        figures.update(row)
    figures.pop("step", None)
    return {**figures, "steps": int(trainer.state.global_step)}
