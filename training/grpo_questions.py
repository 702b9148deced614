"""Questions to be answered in GRPO: of a version or of a task, by how often they are solved.

    asked = version_questions(warehouse, version, folder, learner, recipe)
    asked = task_questions(warehouse, "sat2", "train", learner, recipe, limit=1000)

A group of answers that are all right or all wrong has nothing to learn from, so where pass rates
are known (from searches, see `curation.traces.grpo_prompts`), only the recipe's bands are asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mcts.data import Question, content_id
from training.errors import TrainingError
from training.examples import Examples, version_picture
from training.recipes import GrpoRecipe
from training.rewards.question_column import question_column
from training.students import Student
from warehouse.exports.dialogues import Telling
from warehouse.query.catalog import connect
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_image, read_objects, read_questions
from warehouse.versions.bundle import question_of, read_rows
from warehouse.versions.versions import Version, read_tables

Row = dict[str, Any]


def version_questions(
    warehouse: Warehouse, version: Version, folder: Path, learner: Student, recipe: GrpoRecipe
) -> Examples:
    """Each question of a version's opened `folder` once, with pass rates as when it was cut."""
    questions: dict[str, Question] = {}
    for row in read_rows(folder / "rows.parquet"):
        if row["question_id"] not in questions:
            questions[row["question_id"]] = question_of(row)
    rates = pass_rates(warehouse, list(questions), read_tables(version))
    rows, left_out = _asked(warehouse, questions.values(), rates, learner, recipe)
    return _some(Examples(rows, version_picture(folder), left_out), version.ref, recipe)


def task_questions(
    warehouse: Warehouse,
    task: str,
    split: str,
    learner: Student,
    recipe: GrpoRecipe,
    limit: int | None = None,
) -> Examples:
    """The questions of a task, in the order of their ids."""
    questions = list(read_questions(warehouse, task, split=split, limit=limit))
    rates = pass_rates(warehouse, [question.question_id for question in questions])
    rows, left_out = _asked(warehouse, questions, rates, learner, recipe)
    asked = Examples(rows, lambda image_id: read_image(warehouse, image_id), left_out)
    return _some(asked, f"task {task}, split {split}", recipe)


def pass_rates(
    warehouse: Warehouse, ids: list[str], versions: dict[str, int | None] | None = None
) -> dict[str, tuple[float, str]]:
    """Pass rate and band of each question that was searched, by the model searched most with."""
    import pyarrow as pa

    with connect(warehouse, versions, names=["grpo_prompts"]) as con:
        con.register("_wanted", pa.table({"question_id": pa.array(ids, pa.string())}))
        rows = con.sql(
            "SELECT question_id, pass_rate, band FROM grpo_prompts SEMI JOIN _wanted "
            "USING (question_id) QUALIFY row_number() OVER (PARTITION BY question_id "
            "ORDER BY outcomes DESC, model) = 1"
        )
        return {
            r["question_id"]: (r["pass_rate"], r["band"]) for r in rows.to_arrow_table().to_pylist()
        }


def content_of(asked: Examples) -> str:
    """A hash of what is asked."""
    return content_id([(row["question_id"], row["prompt"]) for row in asked.rows])


def _asked(
    warehouse: Warehouse,
    questions: Iterable[Question],
    rates: dict[str, tuple[float, str]],
    learner: Student,
    recipe: GrpoRecipe,
) -> tuple[list[Row], dict[str, int]]:
    telling = Telling(warehouse, learner.space, learner.prompt_style.prompt, recipe.min_thoughts)
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
            "prompt": telling.asked(question),
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


def _some(asked: Examples, what: str, recipe: GrpoRecipe) -> Examples:
    if len(asked.rows) < recipe.questions * recipe.updates:
        left = "".join(f", {n} {reason}" for reason, n in asked.left_out.items())
        raise TrainingError(
            f"{what} has {len(asked.rows)} questions to ask{left}; a batch of answers takes "
            f"{recipe.questions * recipe.updates} (questions times updates of the recipe)"
        )
    return asked
