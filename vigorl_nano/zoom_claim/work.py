"""Runs the zoom claim's stages: plain functions of the experiment's folder and the stage.

outcome = run_stage(experiment, Stage("train/vigorl@0", ("warm/vigorl@0",)), STAGES)
"""

from __future__ import annotations

import asyncio

from flows.progress import TerminalProgress
from flows.settings import BuildSettings, EvaluateSettings, GrpoSettings, SftSettings
from flows.stages.build import build
from vigorl_nano.claim.parts import (
    EVERY_BAND,
    evaluation_outcome,
    publish_kept,
    train_model,
    tree_limits,
)
from vigorl_nano.claim.stages import Experiment, Stage, Work
from vigorl_nano.zoom_claim.plan import ARMS, CONTROLS, Size
from vigorl_nano.zoom_world.sample import write_split
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row

TASK = "vstar"


def draw_questions(experiment: Experiment, stage: Stage) -> Row:
    """Draw and import the questions of both splits, each with random numbers of its own."""
    size: Size = experiment.size
    drawn = experiment.folder / "pictures"
    drawn.mkdir(parents=True, exist_ok=True)
    counts = {}
    splits = (("train", size.questions), ("test", size.test))
    for draw_seed, (split, questions) in zip(size.draw_seeds, splits, strict=True):
        path = write_split(drawn, split, draw_seed, questions)
        report = import_questions(Warehouse.at(experiment.home), TASK, path, split=split)
        counts[split] = report.added + report.already_there
    return {"counts": counts}


def search_questions(experiment: Experiment, stage: Stage) -> Row:
    """Search the training questions, or sample dialogues at equal tokens; publish what is kept."""
    size = experiment.size
    settings = BuildSettings.checked(
        task=TASK, seed=stage.seed, strategy=stage.arm, teacher=size.start, concurrency=8,
        home=experiment.home, **tree_limits(experiment, stage),
    )  # fmt: skip
    summary = asyncio.run(build(settings, progress=TerminalProgress()))
    return publish_kept(experiment, stage, stage.arm, kept=summary.kept)


def train_warm_up(experiment: Experiment, stage: Stage) -> Row:
    """Train the SFT before GRPO, on the dialogues that the stage names: one for all such arms."""
    return _sft(experiment, stage, stage.arm, "-warm", experiment.size.warm_steps)


def train_arm(experiment: Experiment, stage: Stage) -> Row:
    """Train the last part of an arm."""
    arm, size = ARMS[stage.arm], experiment.size
    if arm.reward is None:
        assert arm.data is not None, f"{stage.arm} is not trained"
        return _sft(experiment, stage, arm.data, "", size.all_steps)
    warm = f"warm/{arm.data}@{stage.seed}"
    model = experiment.required_outcome(warm)["model"] if arm.data else size.start
    steps = size.rl_steps if arm.data else size.all_steps
    settings = GrpoSettings.checked(
        recipe="nano-zoom-grpo", task=TASK, split="train", model=model, home=experiment.home,
        name=experiment.model_name(stage.arm, stage.seed),
        override=(
            f"steps={steps}", f"seed={stage.seed}", f"bands={EVERY_BAND}", f"reward={arm.reward}",
            f"dead_group_tokens={arm.dead_group_tokens}",
        ),
    )  # fmt: skip
    return train_model(settings, steps)


def _sft(experiment: Experiment, stage: Stage, strategy: str, part: str, steps: int) -> Row:
    data = experiment.required_outcome(f"search/{strategy}@{stage.seed}")
    settings = SftSettings.checked(
        recipe="nano-zoom-sft", name=experiment.model_name(stage.arm, stage.seed, part),
        model=experiment.size.start, home=experiment.home, dataset=data["dataset"],
        override=(f"steps={steps}", f"seed={stage.seed}"),
    )  # fmt: skip
    return train_model(settings, steps)


def evaluate_test(experiment: Experiment, stage: Stage) -> Row:
    """Evaluate an arm on the test split, greedily, or with what a control shows instead."""
    arm, control = ARMS[stage.arm], stage.kind if stage.kind in CONTROLS else None
    trained = arm.trained and experiment.required_outcome(f"train/{stage.name.partition('/')[2]}")
    settings = EvaluateSettings.checked(
        model=trained["model"] if trained else experiment.size.start, benchmark=TASK, split="test",
        temperature=0.0, samples=1, control=control, seed=stage.seed,
        response_style=arm.response_style, home=experiment.home,
    )  # fmt: skip
    return {"evaluations": {stage.kind: evaluation_outcome(settings)}}


STAGES: dict[str, Work] = {
    "questions": draw_questions,
    "search": search_questions,
    "warm": train_warm_up,
    "train": train_arm,
    "test": evaluate_test,
    **dict.fromkeys(CONTROLS, evaluate_test),
}
"""Every kind of stage by its name."""
