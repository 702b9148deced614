"""Reinforcement learning of a student with GRPO; rewards come from the one grader.

    row = train_grpo(warehouse, recipe, dataset="sat2-sft@v1", model="sat2-sft-1a2b")
    row = train_grpo(warehouse, recipe, task="sat2", split="train", limit=1000)
    vigorl train grpo qwen3-vl-4b-grpo --dataset sat2-sft@v1 --model sat2-sft-1a2b

Which GRPO this is: TRL's `GRPOTrainer`. For each question a group of answers is sampled and scored;
an answer's advantage is its reward minus the group's mean, divided by the group's standard
deviation (`scale_rewards`), and the loss is PPO's clipped ratio a token. It departs from the paper
(ViGoRL, table A2), and from Shao et al. 2024, where a recipe says so, and by default in these:

- the clip is asymmetric (0.2 below, 0.28 above) and the loss is averaged over all tokens of the
  batch, not answer by answer (`loss_type: dapo`, Yu et al. 2025); the paper's recipes say `grpo`;
- there is no KL term unless `beta` is set, and answers cut off at the limit are masked;
- questions that searches, or the student, always or never solved are left out (`bands`,
  `pass_rates`); groups whose answers all earn the same can be replaced (`dead_group_tokens`);
- an answer may begin with steps of a search, which are masked (`prefixes`);
- the reward is in parts that no wrong answer can outweigh (`training.rewards.rewards`).

A student that zooms is trained on whole episodes (`training.zoom.rollouts`): what it was shown is
masked, and so are episodes that hit a limit, where every call of theirs showed something.

The same call again continues after a kill, or returns the model that is there.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from mcts.data import ResponseStyle
from mcts.zoom.lenses import HALF_WIDTH_SHARE, VISUAL_SEARCH_LENS, Lens
from training.batches.behaviors import lost_behaviors
from training.errors import TrainingError
from training.examples import Examples, prompts_hash, task_prompts, version_prompts
from training.preflight import check_episodes, check_rollouts
from training.recipes import GrpoRecipe
from training.rewards.rewards import RewardSpec, make_rewards, preset
from training.run_training import Checks, open_start, run_training
from training.runs import Plan, open_run, read_metrics
from training.students import Student
from training.trainers import TrainingReporter, grpo_trainer
from training.zoom_rows import as_taught, with_zoom
from warehouse.sources import task_of
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row
from warehouse.versions.bundle import read_rows
from warehouse.versions.versions import open_version, resolve


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
    reporter: TrainingReporter | None = None,
    recorded: Row | None = None,
) -> Row | None:
    """Train a student; return the finished model's row of `models`, or None after checks alone.

    Args:
        dataset: name@vN whose questions are the prompts, or name for the newest.
        task: a task whose questions are the prompts instead; `split` and `limit` are of it.
        model: the student to start from, instead of the recipe's; usually one after SFT.
        name: the new model's name; by default the recipe's name and a hash.
        only_check: check data and model, as before any run, and train nothing.
        recorded: what `runs.params` keeps beside the plan.

    Raises:
        TrainingError, WarehouseError: one sentence that says what to put right.
    """
    reporter = reporter or TrainingReporter()
    if (dataset is None) == (task is None):
        raise TrainingError("grpo takes questions of a --dataset or of a --task: give one of both")
    reward = reward_of(recipe)
    with ExitStack() as stack:
        student = stack.enter_context(open_start(warehouse, recipe, model))
        student, ref, prompts = _asked(
            stack, warehouse, recipe, student, dataset or (task or "", split, limit)
        )
        recipe = as_taught(recipe, student)
        ids = prompts.question_ids if ref is None else ()
        plan = Plan("grpo", recipe.settings(), ref, prompts_hash(prompts), student.model_id,
                    task=task, name=name, question_ids=ids)  # fmt: skip
        run = stack.enter_context(open_run(warehouse, plan, recorded))
        if run.finished is not None:
            reporter.message(f"{run.finished['name']} is trained already")
            return run.finished
        chosen = f"{asked_text(prompts)} of {ref or f'task {task}'}"
        reporter.message(f"{plan.model_name}: {chosen}{prompts.left_out_text}")
        rewards = make_rewards(reward, student.space)
        make = partial(
            grpo_trainer, run, recipe, prompts=prompts, rewards=rewards, reporter=reporter
        )
        agree = check_rollouts if student.zoom is None else check_episodes
        checks = Checks(recipe.max_prompt, agree, only_check)
        trained = run_training(run, student, prompts, make, checks, reporter)
        if trained and (lost := lost_behaviors(read_metrics(run.metrics_file))):
            reporter.message(lost)
        return trained


def _asked(
    stack: ExitStack, warehouse: Warehouse, recipe: GrpoRecipe, student: Student,
    source: str | tuple[str, str, int | None],
) -> tuple[Student, str | None, Examples]:  # fmt: skip
    """Return the student as it is asked, the version's name if it is one, and the prompts.

    Args:
        stack: keeps a version open.
        source: a version, or task, split and limit.
    """
    if isinstance(source, tuple):
        task, split, limit = source
        student = zooming(student, recipe, task)
        return student, None, task_prompts(warehouse, task, split, student, recipe, limit)
    version = resolve(warehouse, source)
    folder = stack.enter_context(open_version(warehouse, version))
    student = zooming(student, recipe, first_task(folder))
    return student, version.ref, version_prompts(warehouse, version, folder, student, recipe)


def asked_text(prompts: Examples) -> str:
    """Say how many questions are asked, and behind how many prefixes."""
    begun = sum(bool(row.get("prefix")) for row in prompts.rows)
    whole = f"{len(prompts.rows) - begun} questions"
    return f"{whole} and {begun} prefixes" if begun else whole


def first_task(folder: Path) -> str:
    """Return the task of a version's first row."""
    return str(next(iter(read_rows(folder / "rows.parquet")))["task"])


def zooming(student: Student, recipe: GrpoRecipe, task: str) -> Student:
    """Return the student with what its calls show, if the recipe has it zoom: as the recipe says,
    else as it learned to, else as the task does."""
    if recipe.response_style is not ResponseStyle.ZOOM:
        return replace(student, zoom=None)
    lens = student.zoom.lens if student.zoom else task_of(task).lens
    share = Lens(HALF_WIDTH_SHARE, VISUAL_SEARCH_LENS.shown_side, share=True)
    return with_zoom(student, recipe, lens or share)


def reward_of(recipe: GrpoRecipe) -> RewardSpec:
    """Return the reward that a recipe names.

    Raises:
        TrainingError: there is none of that name, or it is for another response style.
    """
    style = recipe.response_style
    try:
        spec = RewardSpec(recipe.weights, style) if recipe.weights else preset(recipe.reward)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    if spec.response_style is not style:
        raise TrainingError(
            f"reward: {recipe.reward} is for response style {spec.response_style}, and this "
            f"recipe's is {style}"
        )
    return spec
