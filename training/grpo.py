"""Reinforcement learning of a student on questions, with rewards from the one grader.

    row = train_grpo(warehouse, recipe, dataset="sat2-sft@v1", model="nano-sft-1a2b")
    row = train_grpo(warehouse, recipe, task="sat2", split="train", limit=1000)
    vigorl train grpo nano-grpo --dataset sat2-sft@v1 --model nano-sft-1a2b

A group of answers to each question is sampled and graded; what is better than its group is made
more likely. The same call again goes on where it was killed, or gives the model that is there.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from training.errors import TrainingError
from training.grpo_questions import content_of, task_questions, version_questions
from training.preflight import check_rollouts
from training.recipes import GrpoRecipe
from training.rewards.rewards import PRESETS, RewardSpec, make_rewards
from training.run_training import Checks, course, taught
from training.runs import Plan, open_run
from training.students import student
from training.trainers import Told, grpo_trainer
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import open_version, resolve

Row = dict[str, Any]


def train_grpo(
    warehouse: Warehouse,
    recipe: GrpoRecipe,
    *,
    dataset: str | None = None,
    task: str | None = None,
    split: str = "train",
    limit: int | None = None,
    model: str | None = None,
    name: str | None = None,
    only_check: bool = False,
    told: Told | None = None,
) -> Row | None:
    """Train; the finished model's row of `models`.

    Args:
        dataset: name@vN whose questions are asked, or name for the newest.
        task: a task whose questions are asked instead; `split` and `limit` are of it.
        model: the student to start from, instead of the recipe's; usually one after SFT.
        name: what to call the model; by default the recipe's name and a hash.
        only_check: check data and model, as before any run, and train nothing.

    Raises:
        TrainingError, WarehouseError: in a sentence, what must be put right.
    """
    told = told or Told()
    if (dataset is None) == (task is None):
        raise TrainingError(
            "grpo asks the questions of a --dataset, or of a --task: give one of both"
        )
    reward = reward_of(recipe)
    with ExitStack() as stack:
        found = stack.enter_context(student(warehouse, model or recipe.model))
        learner = taught(found, recipe)
        if dataset is not None:
            version = resolve(warehouse, dataset)
            folder = stack.enter_context(open_version(warehouse, version))
            asked = version_questions(warehouse, version, folder, learner, recipe)
            ref, what = version.ref, version.ref
        else:
            assert task is not None
            asked = task_questions(warehouse, task, split, learner, recipe, limit)
            ref, what = None, f"task {task}"
        ids = tuple(row["question_id"] for row in asked.rows) if ref is None else ()
        plan = Plan(
            "grpo", recipe.settings(), ref, content_of(asked), found.model_id, task=task,
            name=name, question_ids=ids,
        )  # fmt: skip
        run = stack.enter_context(open_run(warehouse, plan))
        if run.finished is not None:
            told.say(f"{run.finished['name']} is trained already")
            return run.finished
        told.say(f"{plan.model_name}: {len(asked.rows)} questions of {what}{asked.left}")
        rewards = make_rewards(reward, learner.space)
        make = partial(grpo_trainer, run, recipe, asked=asked, rewards=rewards, told=told)
        checks = Checks(recipe.max_prompt, check_rollouts, only_check)
        return course(run, learner, asked, make, checks, told)


def reward_of(recipe: GrpoRecipe) -> RewardSpec:
    """The reward that a recipe names.

    Raises:
        TrainingError: there is none such, or it does not fit the form of the answers.
    """
    form = "direct" if recipe.form == "answers" else recipe.form
    try:
        spec = RewardSpec(recipe.weights, form) if recipe.weights else PRESETS[recipe.reward]
    except KeyError:
        raise TrainingError(
            f"reward: there is no {recipe.reward!r}; there are {', '.join(PRESETS)}"
        ) from None
    except ValueError as error:
        raise TrainingError(str(error)) from None
    if spec.form != form:
        raise TrainingError(
            f"reward: {recipe.reward} is for form {spec.form}, and this recipe's is {form}"
        )
    return spec
