"""A process reward model of a version's trees: what each step of a line of reasoning is worth.

    row = train_prm(warehouse, load_recipe("qwen2.5-vl-3b-prm"), "sat2-sft@v1")    # of `models`
    vigorl train prm qwen2.5-vl-3b-prm --dataset sat2-sft@v1

Soft targets are the values that the search found, as in Math-Shepherd (Wang et al., arXiv
2312.08935) and, for images, VisualPRM (arXiv 2503.10291). Questions about some of the images are
not trained on: at the end they say how well the model is calibrated, depth by depth, against the
constant mean. The same call again continues after a kill, or returns the model that is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from curation.scores.bootstrap import clusters
from mcts.data import content_id
from training.errors import TrainingError
from training.examples import Examples, image_reader
from training.preferences.pairs import version_trees
from training.recipes import PrmRecipe
from training.run_training import Checks, open_start, run_training
from training.runs import Plan, Run, open_run
from training.sft import as_dialogues
from training.students import Student
from training.trainers import TrainingReporter
from training.values.calibration import Scored, calibration
from training.values.lines import LineWriter, Target, ValueLine, value_lines
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row
from warehouse.versions.versions import open_version, resolve


def train_prm(
    warehouse: Warehouse,
    recipe: PrmRecipe,
    dataset: str,
    *,
    model: str | None = None,
    name: str | None = None,
    only_check: bool = False,
    reporter: TrainingReporter | None = None,
    recorded: Row | None = None,
) -> Row | None:
    """Train a value model; return the finished model's row of `models`, or None after checks alone.

    Args:
        dataset: name@vN whose traces' trees have the values, or name for the newest.
        model: the student to start from, instead of the recipe's; best the one that searched.
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
        lines, held_out = line_examples(warehouse, folder, version.ref, student, recipe)
        plan = Plan(
            "prm", recipe.settings(), version.ref, lines_hash(lines), student.model_id, name=name
        )
        run = stack.enter_context(open_run(warehouse, plan, recorded))
        if run.finished is not None:
            reporter.message(f"{run.finished['name']} is trained already")
            return run.finished
        reporter.message(
            f"{plan.model_name}: {_counted(lines)} of the trees of {version.ref}"
            f"{lines.left_out_text}; {_counted(held_out)} held out"
        )
        from training.values.trainer import check_values, value_trainer

        def make(loaded: Any, processor: Any) -> Any:
            return value_trainer(run, recipe, loaded, processor, lines, reporter)

        def measure(trained: Any, trainer: Any) -> None:
            measure_calibration(run, trained, trainer, student, lines, held_out, reporter)

        checks = Checks(recipe.max_tokens, check_values, only_check)
        return run_training(run, student, lines, make, checks, reporter, measure)


def line_examples(
    warehouse: Warehouse, folder: Path, ref: str, student: Student, recipe: PrmRecipe
) -> tuple[Examples, Examples]:
    """Render the lines of the trees that a version's traces were cut from.

    Returns:
        Those to train on, and those of held-out images.

    Raises:
        TrainingError: there are none of either.
    """
    writer = LineWriter.of(warehouse, student, recipe.min_thoughts)
    left_out: Counter[str] = Counter()
    trees = version_trees(warehouse, folder, left_out)
    write = partial(writer.row_or_none, left_out=left_out)
    lines = list(value_lines(trees, recipe, left_out, write))
    held = _held_out(lines, recipe.holdout)
    trained: list[Row] = []
    measured: list[Row] = []
    for line in lines:
        (measured if line.question.question_id in held else trained).append(_row(line, recipe))
    if not trained or not measured:
        reasons = "".join(f"; {n} left out, {reason}" for reason, n in left_out.items())
        raise TrainingError(
            f"{ref} has {len(trained)} lines of steps to train on and {len(measured)} of other "
            f"images to measure on: search more questions, about more images{reasons}"
        )
    read = writer.reader(image_reader(folder))
    return Examples(trained, read, dict(left_out)), Examples(measured, read, {})


def _row(line: ValueLine, recipe: PrmRecipe) -> Row:
    targets = line.targets
    return {
        **line.row,
        "name": line.name,
        "values": [target and target.value for target in targets],
        "weights": [_weight(target, recipe.visit_power) for target in targets],
        "depths": [target and target.depth for target in targets],
        "visits": [target and target.visits for target in targets],
    }


def _weight(target: Target | None, power: float) -> float:
    return 0.0 if target is None else float(target.visits) ** power


def _held_out(lines: Sequence[ValueLine], share: float) -> set[str]:
    """Return the questions of images that a hash draws; of several images together at least one."""
    questions = {line.question.question_id: line.question for line in lines}
    images = [[image.image_id for image in q.images] for q in questions.values()]
    scenes: dict[int, list[str]] = {}
    for name, scene in zip(questions, clusters(images), strict=True):
        scenes.setdefault(scene, []).append(name)
    drawn = sorted(scenes.values(), key=lambda names: content_id("held out", sorted(names)))
    if len(drawn) < 2:
        return set()
    return {name for names in drawn[: max(1, round(share * len(drawn)))] for name in names}


def lines_hash(lines: Examples) -> str:
    """Return a content hash of the lines, their targets, and where values stand behind a crop."""
    rows = []
    for row in lines.rows:
        behind_crops = [turn for turn, characters in row["ends"] if not characters]
        told = (row["question_id"], row["messages"], row["values"], row["weights"])
        rows.append((*told, behind_crops) if behind_crops else told)
    return content_id(rows)


def _counted(lines: Examples) -> str:
    targets = sum(value is not None for row in lines.rows for value in row["values"])
    return f"{targets} values of {len(lines.rows)} lines, {len(lines.question_ids)} questions,"


def measure_calibration(
    run: Run, model: Any, trainer: Any, student: Student, lines: Examples, held_out: Examples,
    reporter: TrainingReporter,
) -> None:  # fmt: skip
    """Hold the values of held-out lines against their targets; log the figures as metrics."""
    from training.values.model import StepScorer
    from training.values.trainer import mean_value

    writer = LineWriter.of(run.warehouse, student, run.plan.recipe["min_thoughts"])
    scorer = StepScorer(model, trainer.processing_class, student, writer)
    scored = _scored(held_out.rows, scorer.values(held_out.rows, held_out.read_image))
    found = calibration(scored, mean_value(lines.rows))
    metrics = {name: value for figures in found for name, value in figures.metrics().items()}
    run.log({"step": trainer.state.global_step, **metrics})
    for figures in found:
        reporter.message(f"on held-out questions, {figures.sentence()}")


def _scored(rows: Sequence[Row], values: Sequence[Sequence[float]]) -> Iterator[Scored]:
    for row, predicted in zip(rows, values, strict=True):
        for depth, value, observed, visits in zip(
            row["depths"], predicted, row["values"], row["visits"], strict=True
        ):
            if observed is not None:
                yield Scored(depth, value, observed, visits)
