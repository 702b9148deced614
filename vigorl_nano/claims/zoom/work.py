"""Runs the claim's stages: plain functions of the experiment's folder and the stage.

outcome = run_stage(experiment, Stage("train/vigorl@0", ("warm/vigorl@0",)), STAGES)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from flows.progress import TerminalProgress
from flows.settings import BuildSettings, EvaluateSettings, GrpoSettings, SftSettings
from flows.stages.build import build
from training.recipes import GrpoRecipe, load_recipe
from vigorl_nano.claims.half_budget import where_sampling_fails
from vigorl_nano.claims.parts import (
    EVERY_BAND,
    NO_TRACKERS,
    evaluation_outcome,
    publish_kept,
    train_model,
    tree_limits,
)
from vigorl_nano.claims.stages import Experiment, Stage, Work
from vigorl_nano.claims.zoom.plan import (
    ARMS,
    CONTROLS,
    HALF_CHAINS,
    LESS,
    PASS_AT,
    PREFIXES,
    RECIPES,
    Arm,
    Size,
)
from vigorl_nano.zoom_world.sample import write_split
from warehouse.query.sql_guard import quoted
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row
from warehouse.versions.versions import publish

TASK = "vstar"
NO_ALARMS = ("alarm.batches=0", "alarm.forced_batches=0", "alarm.controls=0")
"""An arm whose zooming dies is a result, and no reason to end the experiment."""


def home_of(experiment: Experiment, stage: Stage) -> str:
    """Return the warehouse of a stage: one a seed, and another of sampled dialogues.

    Filters drop copies of a task's other traces, and prefixes are of all its trees: in one
    warehouse the arms would depend on one another, and on which was first.
    """
    sampled = "-linear" if stage.arm == "linear" else ""
    return f"{experiment.home}-{stage.seed}{sampled}"


def draw_questions(experiment: Experiment, stage: Stage) -> Row:
    """Draw the questions of both splits, each with random numbers of its own."""
    size: Size = experiment.size
    drawn = zip(size.draw_seeds, (size.questions, size.test), strict=True)
    return {"paths": {split: str(path) for split, path in draw_splits(experiment, drawn).items()}}


def draw_splits(experiment: Experiment, drawn: Iterable[tuple[int, int]]) -> dict[str, Path]:
    """Draw the splits for training and test, of a seed and so many questions each; return their
    files by name."""
    folder = experiment.folder / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    return {
        split: write_split(folder, split, seed, questions)
        for split, (seed, questions) in zip(("train", "test"), drawn, strict=True)
    }


def opened_home(experiment: Experiment, stage: Stage) -> str:
    """Return a stage's warehouse, with the questions in it."""
    home = home_of(experiment, stage)
    for split, path in experiment.required_outcome("questions")["paths"].items():
        import_questions(Warehouse.at(home), TASK, Path(path), split=split)
    return home


def search_questions(experiment: Experiment, stage: Stage) -> Row:
    """Search the training questions, or sample dialogues at equal tokens; publish what is kept."""
    size, home = experiment.size, opened_home(experiment, stage)
    settings = BuildSettings.checked(
        task=TASK, seed=stage.seed, strategy=stage.arm, teacher=size.start, concurrency=8,
        home=home, **tree_limits(experiment, stage),
    )  # fmt: skip
    summary = asyncio.run(build(settings, progress=TerminalProgress()))
    return publish_kept(experiment, stage, stage.arm, home=home, kept=summary.kept)


def solve_questions(experiment: Experiment, stage: Stage) -> Row:
    """Give best-of-n half of a budget; where it fails, give it and a search the other half."""
    pairs = where_sampling_fails(
        TASK, stage.arm, experiment.size.questions, None, seeds=(stage.seed,), less=LESS,
        chains=HALF_CHAINS, home=opened_home(experiment, stage),
        asked={"teacher": experiment.size.start},
    )  # fmt: skip
    return {
        "pairs": [
            {
                "question": q.question_id, "images": [image.image_id for image in q.images],
                "ours": asdict(ours), "theirs": asdict(theirs),
            }
            for q, ours, theirs in pairs
        ]
    }  # fmt: skip


def train_warm_up(experiment: Experiment, stage: Stage) -> Row:
    """Train the SFT before GRPO, on the dialogues that the stage names: one for all such arms."""
    arm = next(arm for arm in ARMS.values() if arm.reward and arm.warm_up == stage.arm)
    return _sft(experiment, stage, arm, "-warm", experiment.size.warm_steps)


def measure_difficulty(experiment: Experiment, stage: Stage) -> Row:
    """Measure how often the student after SFT solves each training question, then its prefixes.

    It is sampled at the temperature of the GRPO that asks these questions.
    """
    model = experiment.required_outcome(f"warm/{stage.arm}@{stage.seed}")["model"]
    recipe, found = load_recipe(RECIPES[1]), {}
    assert isinstance(recipe, GrpoRecipe)
    for name, prefixes in (("whole", None), ("prefixes", PREFIXES)):
        settings = EvaluateSettings.checked(
            model=model, benchmark=TASK, pass_at=PASS_AT, prefixes=prefixes, seed=stage.seed,
            temperature=recipe.temperature, home=home_of(experiment, stage),
        )  # fmt: skip
        found[name] = evaluation_outcome(settings)
    return {"evaluations": found}


def train_arm(experiment: Experiment, stage: Stage) -> Row:
    """Train the last part of an arm."""
    arm, size = ARMS[stage.arm], experiment.size
    if arm.reward is None:
        return _sft(experiment, stage, arm, "", size.all_steps)
    model, steps, home = size.start, size.all_steps, opened_home(experiment, stage)
    questions = {"task": TASK, "split": "train"}
    if arm.data:
        warm = experiment.required_outcome(f"warm/{arm.warm_up}@{stage.seed}")
        model, steps = warm["model"], size.rl_steps
    if arm.without:
        questions = {"dataset": _questions_without(arm.without, home, stage)}
    settings = GrpoSettings.checked(
        recipe=RECIPES[1], model=model, home=home, **questions,
        name=experiment.model_name(stage.arm, stage.seed),
        override=(
            f"steps={steps}", f"seed={stage.seed}", f"reward={arm.reward}",
            f"prefixes={arm.prefixes}", f"dead_group_tokens={arm.dead_group_tokens}",
            "pass_rates=student" if arm.difficulty else f"bands={EVERY_BAND}",
            *size.grpo, *NO_ALARMS, NO_TRACKERS,
        ),
    )  # fmt: skip
    return train_model(settings, steps)


def _questions_without(family: str, home: str, stage: Stage) -> str:
    """Publish a trace of every searched question of other kinds, kept or not; GRPO asks them."""
    version = publish(
        Warehouse.at(home),
        f"questions-{stage.seed}",
        "SELECT trace_id FROM latest_traces JOIN questions USING (question_id) "
        f"WHERE origin = 'search' AND split = 'train' AND family <> {quoted(family)} "
        "QUALIFY row_number() OVER (PARTITION BY question_id ORDER BY trace_id) = 1",
    )
    return version.ref


def _sft(experiment: Experiment, stage: Stage, arm: Arm, part: str, steps: int) -> Row:
    data = experiment.required_outcome(f"search/{arm.data}@{stage.seed}")
    if arm.without:
        only = f"AND family <> {quoted(arm.without)} "
        data = publish_kept(experiment, stage, str(arm.data), only, data["home"])
    settings = SftSettings.checked(
        recipe=RECIPES[0], name=experiment.model_name(stage.arm, stage.seed, part),
        model=experiment.size.start, home=data["home"], dataset=data["dataset"],
        override=(f"steps={steps}", f"seed={stage.seed}", *experiment.size.sft, NO_TRACKERS),
    )  # fmt: skip
    return train_model(settings, steps)


def evaluate_test(experiment: Experiment, stage: Stage) -> Row:
    """Evaluate an arm on the test split, greedily, or with what a control shows instead."""
    arm, control = ARMS[stage.arm], stage.kind if stage.kind in CONTROLS else None
    trained = arm.trained and experiment.required_outcome(f"train/{stage.name.partition('/')[2]}")
    settings = EvaluateSettings.checked(
        model=trained["model"] if trained else experiment.size.start, benchmark=TASK, split="test",
        temperature=0.0, samples=1, control=control, seed=stage.seed,
        response_style=arm.response_style, home=opened_home(experiment, stage),
    )  # fmt: skip
    return {"evaluations": {stage.kind: evaluation_outcome(settings)}}


STAGES: dict[str, Work] = {
    "questions": draw_questions,
    "search": search_questions,
    "solve": solve_questions,
    "difficulty": measure_difficulty,
    "warm": train_warm_up,
    "train": train_arm,
    "test": evaluate_test,
    **dict.fromkeys(CONTROLS, evaluate_test),
}
"""Every kind of stage by its name."""
