"""What every training does once its data is chosen: load, check, train, keep.

    learner = taught(found, recipe)                       # how the student is asked here
    row = course(run, learner, examples, make, checks, told)   # its row of `models`

`sft.py` and `grpo.py` say what is learned from, with which trainer, and what is checked before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from training.errors import TrainingError
from training.examples import Examples
from training.preflight import check_rows
from training.recipes import GrpoRecipe, SftRecipe
from training.runs import Run, read_metrics
from training.students import Student, load
from training.trainers import Told, train

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checks:
    """What is looked at before the first step; a training that goes on was looked at before."""

    limit: int | None
    """Most tokens of a row, pictures included; None for the model's context alone."""
    works: Callable[[Any, Examples], str]
    """Whether trainer and model work together: a sentence for people, or a TrainingError."""
    only: bool = False
    """Whether to check and train nothing."""


def taught(found: Student, recipe: SftRecipe | GrpoRecipe) -> Student:
    """The student as the recipe asks it: the form of its answers, the pictures' size."""
    learner = found.with_response_style(recipe.form)
    if recipe.max_pixels is None:
        return learner
    least = learner.space.min_pixels
    if least is not None and least > recipe.max_pixels:
        raise TrainingError(f"max_pixels: the model's pictures have at least {least} pixels")
    return replace(learner, space=replace(learner.space, max_pixels=recipe.max_pixels))


def course(
    run: Run,
    learner: Student,
    examples: Examples,
    make: Callable[[Any, Any], Any],
    checks: Checks,
    told: Told,
) -> Row | None:
    """Take a run to its end; the finished model's row, or None after checks alone.

    Args:
        make: the trainer of a loaded model and its processor.

    Raises:
        TrainingError: in a sentence, what must be put right.
    """
    model, processor = load(learner)
    _shrink(processor, learner)
    trainer = make(model, processor)
    if checks.only or run.checkpoint() is None:
        told.say(check_rows(examples, learner, processor, checks.limit))
        if trainer.accelerator.num_processes == 1:  # else no process has all weights
            told.say(checks.works(trainer, examples))
    if checks.only:
        return None
    final = train(run, trainer, told)
    return run.keep(final, learner, _last_figures(run, trainer))


def _shrink(processor: Any, learner: Student) -> None:
    """Have the processor resize pictures as the student's coordinates say."""
    images, most = processor.image_processor, learner.space.max_pixels
    if most is None:
        return
    size = dict(images.size)
    size["longest_edge"] = most
    images.size = size
    if hasattr(images, "max_pixels"):
        images.max_pixels = most


def _last_figures(run: Run, trainer: Any) -> Row:
    """The newest value of everything that was logged."""
    figures: Row = {}
    for row in read_metrics(run.metrics_file):
        figures.update(row)
    figures.pop("step", None)
    return {**figures, "steps": int(trainer.state.global_step)}
