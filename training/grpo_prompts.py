"""Prompts for GRPO, from a dataset version or a task, chosen by how often searches solved them.

    prompts = version_prompts(warehouse, version, folder, student, recipe)
    prompts = task_prompts(warehouse, "sat2", "train", student, recipe, limit=1000)

A group of answers that are all right or all wrong has nothing to learn from, so where pass rates
are known (from searches, see `curation.traces.grpo_prompts`), only the recipe's bands are used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from mcts.data import Question, content_id
from training.errors import TrainingError
from training.examples import Examples, image_reader
from training.recipes import GrpoRecipe
from training.rewards.question_column import question_column
from training.students import Student
from warehouse.exports.dialogues import ConversationRenderer
from warehouse.query.read_back import read_pass_rates
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_image, read_objects, read_questions
from warehouse.tables.schema import Row
from warehouse.versions.bundle import question_of, read_rows
from warehouse.versions.versions import Version, read_tables


def version_prompts(
    warehouse: Warehouse, version: Version, folder: Path, student: Student, recipe: GrpoRecipe
) -> Examples:
    """Return each question of a version's opened `folder` once; pass rates as when it was cut."""
    questions: dict[str, Question] = {}
    for row in read_rows(folder / "rows.parquet"):
        if row["question_id"] not in questions:
            questions[row["question_id"]] = question_of(row)
    rates = read_pass_rates(warehouse, list(questions), read_tables(version))
    rows, left_out = _prompt_rows(warehouse, questions.values(), rates, student, recipe)
    prompts = Examples(rows, image_reader(folder), left_out)
    return _require_enough(prompts, version.ref, recipe)


def task_prompts(
    warehouse: Warehouse,
    task: str,
    split: str,
    student: Student,
    recipe: GrpoRecipe,
    limit: int | None = None,
) -> Examples:
    """Return the questions of a task, in the order of their ids."""
    questions = list(read_questions(warehouse, task, split=split, limit=limit))
    rates = read_pass_rates(warehouse, [question.question_id for question in questions])
    rows, left_out = _prompt_rows(warehouse, questions, rates, student, recipe)
    prompts = Examples(rows, lambda image_id: read_image(warehouse, image_id), left_out)
    return _require_enough(prompts, f"task {task}, split {split}", recipe)


def prompts_hash(prompts: Examples) -> str:
    """Return a content hash of the prompts."""
    return content_id([(row["question_id"], row["prompt"]) for row in prompts.rows])


def _prompt_rows(
    warehouse: Warehouse,
    questions: Iterable[Question],
    rates: Mapping[str, tuple[float, str]],
    student: Student,
    recipe: GrpoRecipe,
) -> tuple[list[Row], dict[str, int]]:
    """Return rows as TRL and the rewards read them, and how many were left out by reason."""
    renderer = ConversationRenderer(
        warehouse, student.space, student.prompt_style.prompt, recipe.min_thoughts
    )
    left_out: Counter[str] = Counter()
    kept: list[tuple[float, Question]] = []
    for question in questions:
        rate, band = rates.get(question.question_id, (0.5, "unknown"))
        if question.split not in ("", "train"):
            left_out[f"of the split {question.split}"] += 1
        elif band != "unknown" and band not in recipe.bands:
            left_out[f"{band} by the search"] += 1
        else:
            kept.append((rate, question))
    if recipe.curriculum == "easy_first":
        kept.sort(key=lambda pair: (-pair[0], pair[1].question_id))
    ids = [image.image_id for _, question in kept for image in question.images]
    objects = read_objects(warehouse, ids)
    rows = [
        {
            "prompt": renderer.prompt(question),
            "image_ids": [image.image_id for image in question.images],
            "image_sizes": [[image.width, image.height] for image in question.images],
            "question_id": question.question_id,
            "question": question_column(
                question, [objects.get(image.image_id) for image in question.images]
            ),
            "min_thoughts": recipe.min_thoughts,
        }
        for _, question in kept
    ]
    return rows, dict(left_out)


def _require_enough(prompts: Examples, source: str, recipe: GrpoRecipe) -> Examples:
    needed = recipe.questions * recipe.updates
    if len(prompts.rows) < needed:
        left_out = "".join(f", {n} {reason}" for reason, n in prompts.left_out.items())
        raise TrainingError(
            f"{source} has {len(prompts.rows)} questions to ask{left_out}; a batch of answers "
            f"takes {needed} (questions times updates of the recipe)"
        )
    return prompts
