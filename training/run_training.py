"""Runs one training: load the student, check, train, store the model.

    with open_start(warehouse, recipe, model) as student:       # as the recipe prompts it
        row = run_training(run, student, examples, make_trainer, checks, reporter)

`sft.py`, `grpo.py`, `preferences/dpo.py` and `values/prm.py` choose the examples, the trainer, and
what is checked before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from mcts.teachers.checkpoints import recorded_process_reward
from training.errors import TrainingError
from training.examples import Examples
from training.preflight import check_rows
from training.recipes import Recipe
from training.runs import Run, read_metrics
from training.students import (
    Student,
    load_model,
    open_student,
    with_pixel_limit,
    with_text_tags,
)
from training.trainers import TrainingReporter, train, training_template
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row


@dataclass(frozen=True, slots=True)
class Checks:
    """What is checked before the first step; a training that continues was checked before."""

    limit: int | None
    """Most tokens of a row, images included; None for the model's context alone."""
    works: Callable[[Any, Examples], str]
    """Checks that trainer and model work together; returns a sentence or raises TrainingError."""
    only: bool = False
    """Whether to check and train nothing."""


def student_name(recipe: Recipe, given: str | None) -> str:
    """Return the name of the model to start from: the given one, or the recipe's.

    Raises:
        TrainingError: neither is there.
    """
    if name := given or recipe.model:
        return name
    raise TrainingError(f"recipe {recipe.name} names no model to start from: give --model")


@contextmanager
def open_start(warehouse: Warehouse, recipe: Recipe, given: str | None) -> Iterator[Student]:
    """Yield the student to start from, prompted and tokenized as the recipe says.

    Args:
        given: its name, where it isn't the recipe's.

    Raises:
        TrainingError, WarehouseError: there is none, or it can't be trained so.
    """
    with (
        open_student(warehouse, student_name(recipe, given)) as found,
        with_text_tags(found, recipe.text_tags) as start,
    ):
        if recorded_process_reward(found.folder) is not None:
            raise TrainingError(
                f"model {found.model_id} is a process reward model: it values steps, and no "
                "training starts from it; name the student that it was made of"
            )
        prepared = prepare_student(start, recipe)
        if getattr(recipe, "engine", "") == "vllm" and recipe.max_pixels is not None:
            with with_pixel_limit(prepared) as limited:  # vLLM reads the folder by itself
                yield limited
        else:
            yield prepared


def prepare_student(start: Student, recipe: Recipe) -> Student:
    """Return the student with the recipe's response style and image size."""
    student = start.with_response_style(recipe.response_style)
    if recipe.max_pixels is None:
        return student
    least = student.space.min_pixels
    if least is not None and least > recipe.max_pixels:
        raise TrainingError(f"max_pixels: the model's images have at least {least} pixels")
    return replace(student, space=replace(student.space, max_pixels=recipe.max_pixels))


def run_training(
    run: Run,
    student: Student,
    examples: Examples,
    make_trainer: Callable[[Any, Any], Any],
    checks: Checks,
    reporter: TrainingReporter,
    measure: Callable[[Any, Any], None] | None = None,
) -> Row | None:
    """Load, check, train and store one run; return the model's row, or None after checks alone.

    Args:
        make_trainer: builds the trainer from a loaded model and its processor.
        measure: is given the trained model and the trainer, to log more figures.

    Raises:
        TrainingError: one sentence that says what to put right.
    """
    model, processor = load_model(student)
    _limit_image_size(processor, student)
    begins = checks.only or run.checkpoint() is None
    if begins:  # before the trainer is built, which fails on such templates in its own words
        template = None if run.plan.kind == "grpo" else training_template(processor)
        reporter.message(check_rows(examples, student, processor, checks.limit, template))
    trainer = make_trainer(model, processor)
    if begins and trainer.accelerator.num_processes == 1:  # else no process has all weights
        reporter.message(checks.works(trainer, examples))
    if checks.only:
        return None
    run.begin()
    trained = train(run, trainer, reporter)
    if measure is not None:
        measure(trained, trainer)
    return run.store_model(trained, student, _last_metrics(run, trainer))


def _limit_image_size(processor: Any, student: Student) -> None:
    """Have the processor resize images as the student's coordinates say."""
    images, most = processor.image_processor, student.space.max_pixels
    if most is None:
        return
    size = dict(images.size)
    size["longest_edge"] = most
    images.size = size
    if hasattr(images, "max_pixels"):
        images.max_pixels = most


def _last_metrics(run: Run, trainer: Any) -> Row:
    """Return the newest value of everything that was logged; of groups and trees the mean of all
    steps, since a batch has few."""
    metrics: Row = {}
    of_groups: dict[str, list[float]] = {}
    for row in read_metrics(run.metrics_file):
        metrics.update(row)
        for name in (name for name in row if name.startswith(("groups/", "tree/"))):
            of_groups.setdefault(name, []).append(row[name])
    metrics |= {name: fmean(values) for name, values in of_groups.items()}
    metrics.pop("step", None)
    return {**metrics, "steps": int(trainer.state.global_step)}
