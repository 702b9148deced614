"""Supervised fine-tuning of a student on a dataset version.

    row = train_sft(warehouse, load_recipe("qwen3-vl-4b-sft"), "sat2-sft@v1")   # of `models`
    vigorl train sft qwen3-vl-4b-sft --dataset sat2-sft@v1

The loss is next-token cross-entropy on the assistant's tokens only; nothing is truncated or packed,
and points are written in the student's own coordinates (ViGoRL, section 3: the warm start on traces
of a search). The same call again continues after a kill, or returns the model that is there.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from mcts.data import ResponseStyle
from training.examples import read_dialogues, sft_examples
from training.preflight import check_sft
from training.recipes import Recipe, SftRecipe
from training.run_training import Checks, open_start, run_training
from training.runs import Plan, open_run
from training.students import Student
from training.trainers import TrainingReporter, sft_trainer
from training.zoom_rows import R, as_taught, called_tool, shown_lens, with_zoom
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row
from warehouse.versions.versions import open_version, resolve


def train_sft(
    warehouse: Warehouse,
    recipe: SftRecipe,
    dataset: str,
    *,
    model: str | None = None,
    name: str | None = None,
    only_check: bool = False,
    reporter: TrainingReporter | None = None,
    recorded: Row | None = None,
) -> Row | None:
    """Train a student; return the finished model's row of `models`, or None after checks alone.

    Args:
        dataset: name@vN, or name for the newest.
        model: the student to start from, instead of the recipe's.
        name: the new model's name; by default the recipe's name and a hash.
        only_check: check data and model, as before any run, and train nothing.
        recorded: what `runs.params` keeps beside the plan.

    Raises:
        TrainingError, WarehouseError: one sentence that says what to put right.
    """
    reporter = reporter or TrainingReporter()
    version = resolve(warehouse, dataset)
    with ExitStack() as stack:
        student = stack.enter_context(open_start(warehouse, recipe, model))
        folder = stack.enter_context(open_version(warehouse, version))
        student, recipe = as_dialogues(student, recipe, folder)
        plan = Plan(
            "sft", recipe.settings(), version.ref, version.content_hash, student.model_id, name=name
        )
        run = stack.enter_context(open_run(warehouse, plan, recorded))
        if run.finished is not None:
            reporter.message(f"{run.finished['name']} is trained already")
            return run.finished
        examples = sft_examples(
            warehouse, folder, version.ref, student, recipe.min_thoughts, recipe.most_steps,
            recipe.wrong_attempts == "trained",
        )  # fmt: skip
        reporter.message(
            f"{plan.model_name}: {len(examples.rows)} traces of {version.ref}"
            f"{examples.left_out_text}"
        )
        make = partial(sft_trainer, run, recipe, examples=examples, reporter=reporter)
        checks = Checks(recipe.max_tokens, check_sft, only_check)
        return run_training(run, student, examples, make, checks, reporter)


def as_dialogues(student: Student, recipe: R, folder: Path) -> tuple[Student, R]:
    """Return a student and its recipe as they zoom in an opened version's dialogues; as they are
    where the recipe has no student zoom.

    Raises:
        TrainingError: see `zooming`.
    """
    if recipe.response_style is not ResponseStyle.ZOOM:
        return student, recipe
    student = zooming(student, recipe, folder)
    return student, as_taught(recipe, student)


def zooming(student: Student, recipe: Recipe, folder: Path) -> Student:
    """Return the student with what its calls show, and the tool it calls: those of the dialogues of
    an opened version.

    Raises:
        TrainingError: they show several things, and the recipe does not choose.
    """
    named = recipe.zoom.lens if recipe.zoom else None
    lens = named or shown_lens(read_dialogues(folder))
    return with_zoom(student, recipe, lens, called_tool(read_dialogues(folder)))
