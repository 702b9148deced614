"""A small warehouse to train from, and a training as a process of its own that can be killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcts.data import ResponseStyle
from tests.flows.test_cli import run, searched
from tests.support.fixtures import sat_rows, write_sat
from tests.warehouse.test_versions import KEPT
from training.examples import Examples, task_prompts
from training.grpo import reward_of, zooming
from training.recipes import GrpoRecipe, SftRecipe, load_recipe
from training.rewards.rewards import make_rewards
from training.run_training import prepare_student
from training.runs import Plan, open_run, read_metrics
from training.students import load_model, open_student
from training.trainers import TrainingReporter, grpo_trainer
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import publish

SFT = ("model=nano-base", "most_steps=null", "batch=4", "micro_batch=2", "learning_rate=1e-3")
ZOOM = (
    "response_style=zoom", "reward=zoom", "max_completion=400", "turn_tokens=200", "min_thoughts=1",
    "zoom.max_calls=2", "trackers=[]", "alarm.controls=0",
)  # fmt: skip
GRPO = ("model=nano-base", "questions=2", "group=2", "micro_batch=4", "max_completion=48")


def warehouse_with_traces(folder: Path) -> Warehouse:
    """Six searched questions, two of two images, and the version `kept@v1` of them."""
    warehouse = Warehouse(str(searched(folder, 6, simulations=6)))
    publish(warehouse, "kept", KEPT)
    return warehouse


def warehouse_with_questions(folder: Path) -> Warehouse:
    """Six questions, none of them searched."""
    sample, home = write_sat(folder / "SAT_train.parquet", sat_rows(6)), folder / "home"
    assert run("import", "sat2", sample, home=home) == 0
    return Warehouse(str(home))


def publish_dialogues(warehouse: Warehouse) -> None:
    """Publish twelve direct chains as dialogues that zoom, `looked@v1`."""
    chosen = f"SELECT trace_id FROM ({KEPT}) JOIN traces USING (trace_id) WHERE kind = 'direct' "
    chosen += "ORDER BY trace_id LIMIT 12"
    publish(warehouse, "looked", chosen, response_style=ResponseStyle.ZOOM)


def sft(*overrides: str, recipe: str = "nano-sft") -> SftRecipe:
    found = load_recipe(recipe, [*SFT, *overrides])
    assert isinstance(found, SftRecipe)
    return found


def grpo(*overrides: str, recipe: str = "nano-grpo") -> GrpoRecipe:
    found = load_recipe(recipe, [*GRPO, *overrides])
    assert isinstance(found, GrpoRecipe)
    return found


@contextmanager
def built_trainer(folder: Path, *overrides: str) -> Iterator[Any]:
    """A GRPO trainer of `nano-base` on two questions of SAT-2, before its first step."""
    sample, home = write_sat(folder / "SAT_train.parquet", sat_rows(2)), folder / "home"
    assert run("import", "sat2", sample, home=home) == 0
    warehouse, recipe = Warehouse(str(home)), grpo("trackers=[]", *overrides)
    with open_student(warehouse, "nano-base") as found:
        student = prepare_student(found, recipe)
        asked = task_prompts(warehouse, "sat2", "train", student, recipe)
        model, processor = load_model(student)
        rewards = make_rewards(reward_of(recipe), student.space)
        plan = Plan("grpo", recipe.settings(), None, "trainer", "x", name="trainer")
        with open_run(warehouse, plan) as opened:
            yield grpo_trainer(opened, recipe, model, processor, asked, rewards, TrainingReporter())


@contextmanager
def zoom_trainer(made: Warehouse, name: str, *overrides: str) -> Iterator[tuple[Any, Examples]]:
    """A GRPO trainer of `nano-base` that zooms, before its first step, and its prompts."""
    recipe = grpo(*ZOOM, *overrides)
    with open_student(made, "nano-base") as found:
        prompts = {**found.prompt_style.prompts, ResponseStyle.ZOOM: "nano-zoom"}
        found = replace(found, prompt_style=replace(found.prompt_style, prompts=prompts))
        student = zooming(prepare_student(found, recipe), recipe, "sat2")
        asked = task_prompts(made, "sat2", "train", student, recipe)
        model, processor = load_model(student)
        rewards = make_rewards(reward_of(recipe), student.space)
        with open_run(made, Plan("grpo", recipe.settings(), None, name, "x", name=name)) as opened:
            yield (
                grpo_trainer(opened, recipe, model, processor, asked, rewards, TrainingReporter()),
                asked,
            )


def logged(warehouse: Warehouse, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of the training that made a model."""
    (folder,) = (Path(warehouse.root) / "training").glob(f"{row['name']}-*")
    return read_metrics(folder / "metrics.jsonl")
