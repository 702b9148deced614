"""Runs the claim's stages: plain functions of the experiment's folder and the stage.

    outcome = run_stage(experiment, Stage("train/vigorl@0", ("warm/vigorl@0",)), STAGES)

Everything they call can be interrupted and continued (a build replays its journal, a training loads
its checkpoint, an evaluation asks only what is missing), so a stage that was killed is simply run
again. A stage's outcome is all that later stages and the report read of it.
"""

from __future__ import annotations

import asyncio
import os

from flows.progress import TerminalProgress
from flows.settings import BuildSettings, EvaluateSettings, GrpoSettings, SftSettings
from flows.stages.build import build
from vigorl_nano.claims.parts import (
    EVERY_BAND,
    NO_TRACKERS,
    evaluation_outcome,
    publish_kept,
    train_model,
    tree_limits,
)
from vigorl_nano.claims.points.plan import ARMS, CONTROLLED, RATES, SPLITS, TEMPERATURE
from vigorl_nano.claims.stages import Experiment, Stage, Work
from vigorl_nano.rooms.sample import write_split
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row

TASK = "sat2"


def draw_questions(experiment: Experiment, stage: Stage) -> Row:
    """Draw and import the questions of every split, each with random numbers of its own."""
    size, counts = experiment.size, {}
    wanted = {"train": size.questions, "validation": size.validation, "test": size.test}
    drawn = experiment.folder / "rooms"
    drawn.mkdir(parents=True, exist_ok=True)
    for draw_seed, split in zip(size.draw_seeds, SPLITS, strict=True):
        path = drawn / f"rooms-{split}.parquet"
        if not path.exists():
            write_split(
                drawn, split, draw_seed, wanted[split], progress=True,
                families=size.families, workers=os.cpu_count() or 1,  # no other stage runs yet
            )  # fmt: skip
        report = import_questions(Warehouse.at(experiment.home), TASK, path, split=split)
        counts[split] = report.added + report.already_there
    return {"counts": counts}


def search_questions(experiment: Experiment, stage: Stage) -> Row:
    """Search the training questions, or sample chains at equal tokens; publish what is kept."""
    size, seed = experiment.size, stage.seed
    strategy = "best-of-n" if stage.arm == "chains" else "mcts"
    how = tree_limits(experiment, stage)
    settings = BuildSettings.checked(
        task=TASK, seed=seed, strategy=strategy, concurrency=8, home=experiment.home, **how
    )
    summary = asyncio.run(build(settings, progress=TerminalProgress()))
    return publish_kept(
        experiment, stage, strategy, f"AND n_steps <= {size.most_steps} ", kept=summary.kept,
        settings=settings.model_dump(exclude_defaults=True, exclude={"home"}),
    )  # fmt: skip


def train_warm_up(experiment: Experiment, stage: Stage) -> Row:
    """Train the SFT before an arm's GRPO."""
    name = experiment.model_name(stage.arm, stage.seed, "-warm")
    return _sft(experiment, stage, name, experiment.size.warm_steps)


def train_arm(experiment: Experiment, stage: Stage) -> Row:
    """Train the last part of an arm."""
    arm, size = ARMS[stage.arm], experiment.size
    name = experiment.model_name(stage.arm, stage.seed)
    if not arm.rl:
        return _sft(experiment, stage, name, size.all_steps)
    run = stage.name.partition("/")[2]
    warmed = experiment.required_outcome(f"warm/{run}") if arm.data else None
    steps = size.rl_steps if arm.data else size.all_steps
    settings = GrpoSettings.checked(
        recipe=arm.recipes[-1], task=TASK, split="train", name=name,
        model=warmed["model"] if warmed else size.start, home=experiment.home,
        override=(
            f"steps={steps}", f"seed={stage.seed}", f"bands={EVERY_BAND}", NO_TRACKERS,
        ),
    )  # fmt: skip
    return train_model(settings, steps)


def _sft(experiment: Experiment, stage: Stage, name: str, steps: int) -> Row:
    arm = ARMS[stage.arm]
    settings = SftSettings.checked(
        recipe=arm.recipes[0], name=name, model=experiment.size.start,
        home=experiment.home,
        dataset=experiment.required_outcome(f"search/{arm.data}@{stage.seed}")["dataset"],
        override=(
            f"steps={steps}", f"seed={stage.seed}", f"learning_rate={RATES[arm.response_style]}",
            "most_steps=null", NO_TRACKERS,
        ),
    )  # fmt: skip
    return train_model(settings, steps)


def evaluate_validation(experiment: Experiment, stage: Stage) -> Row:
    """Evaluate an arm on the validation split, greedily."""
    return {"evaluations": {"greedy": _evaluate(experiment, stage, "validation")}}


def evaluate_test(experiment: Experiment, stage: Stage) -> Row:
    """Evaluate an arm on the test split, greedily; some arms with blank images as well."""
    found = {"greedy": _evaluate(experiment, stage, "test")}
    if stage.arm in CONTROLLED:
        found["blank"] = _evaluate(experiment, stage, "test", "blank")
    return {"evaluations": found}


def evaluate_sampled(experiment: Experiment, stage: Stage) -> Row:
    """Evaluate an arm on the same test questions, with sampled answers."""
    samples = experiment.size.samples
    found = _evaluate(experiment, stage, "test", temperature=TEMPERATURE, samples=samples)
    return {"evaluations": {"sampled": found}}


def _evaluate(
    experiment: Experiment, stage: Stage, split: str, control: str | None = None, *,
    temperature: float = 0.0, samples: int = 1,
) -> Row:  # fmt: skip
    arm = ARMS[stage.arm]
    trained = arm.recipes and experiment.required_outcome(f"train/{stage.name.partition('/')[2]}")
    settings = EvaluateSettings.checked(
        model=trained["model"] if trained else experiment.size.start, benchmark=TASK, split=split,
        temperature=temperature, samples=samples, control=control, seed=stage.seed,
        response_style=arm.response_style, home=experiment.home,
    )  # fmt: skip
    return evaluation_outcome(settings)


STAGES: dict[str, Work] = {
    "questions": draw_questions,
    "search": search_questions,
    "warm": train_warm_up,
    "train": train_arm,
    "validate": evaluate_validation,
    "test": evaluate_test,
    "sampled": evaluate_sampled,
}
"""Every kind of stage by its name."""
