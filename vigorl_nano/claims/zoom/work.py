"""Runs the zoom claim's stages: plain functions of the experiment's folder and the stage.

outcome = run_stage(experiment, Stage("train/vigorl@0", ("warm/vigorl@0",)), STAGES)
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from flows.progress import TerminalProgress
from flows.settings import BuildSettings, EvaluateSettings, GrpoSettings, SftSettings
from flows.stages.build import build
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
    HALF_TOKENS,
    LESS,
    PASS_AT,
    PREFIXES,
    Arm,
    Size,
)
from vigorl_nano.zoom_world.sample import write_split
from warehouse.query.sql_guard import quoted
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row

TASK = "vstar"
SAMPLED_AT = 0.7
"""The temperature at which `nano-zoom-grpo` samples, and so at which difficulty is measured."""


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


def solve_questions(experiment: Experiment, stage: Stage) -> Row:
    """Give best-of-n half of a budget; where it fails, give it and a search the other half."""
    pairs = where_sampling_fails(
        TASK, stage.arm, experiment.size.questions, HALF_TOKENS, seeds=(stage.seed,), less=LESS,
        home=experiment.home, asked={"teacher": experiment.size.start},
    )  # fmt: skip
    return {
        "pairs": [
            {"images": [i.image_id for i in q.images], "ours": asdict(ours), "theirs": asdict(they)}
            for q, ours, they in pairs
        ]
    }


def train_warm_up(experiment: Experiment, stage: Stage) -> Row:
    """Train the SFT before GRPO, on the dialogues that the stage names: one for all such arms."""
    arm = next(arm for arm in ARMS.values() if arm.reward and arm.warm_up == stage.arm)
    return _sft(experiment, stage, arm, "-warm", experiment.size.warm_steps)


def measure_difficulty(experiment: Experiment, stage: Stage) -> Row:
    """Measure how often the student after SFT solves each training question, then its prefixes."""
    model = experiment.required_outcome(f"warm/{stage.arm}@{stage.seed}")["model"]
    found = {}
    for name, prefixes in (("whole", None), ("prefixes", PREFIXES)):
        settings = EvaluateSettings.checked(
            model=model, benchmark=TASK, pass_at=PASS_AT, prefixes=prefixes, temperature=SAMPLED_AT,
            seed=stage.seed, home=experiment.home,
        )  # fmt: skip
        found[name] = evaluation_outcome(settings)
    return {"evaluations": found}


def train_arm(experiment: Experiment, stage: Stage) -> Row:
    """Train the last part of an arm."""
    arm, size = ARMS[stage.arm], experiment.size
    if arm.reward is None:
        return _sft(experiment, stage, arm, "", size.all_steps)
    model, steps, questions = size.start, size.all_steps, {"task": TASK, "split": "train"}
    if arm.data:
        warm = experiment.required_outcome(f"warm/{arm.warm_up}@{stage.seed}")
        model, steps = warm["model"], size.rl_steps
        questions = {"dataset": warm["dataset"]} if arm.without else questions
    settings = GrpoSettings.checked(
        recipe="nano-zoom-grpo", model=model, home=experiment.home, **questions,
        name=experiment.model_name(stage.arm, stage.seed),
        override=(
            f"steps={steps}", f"seed={stage.seed}", f"reward={arm.reward}",
            f"prefixes={arm.prefixes}", f"dead_group_tokens={arm.dead_group_tokens}",
            "pass_rates=student" if arm.difficulty else f"bands={EVERY_BAND}", NO_TRACKERS,
        ),
    )  # fmt: skip
    return train_model(settings, steps)


def _sft(experiment: Experiment, stage: Stage, arm: Arm, part: str, steps: int) -> Row:
    data = experiment.required_outcome(f"search/{arm.data}@{stage.seed}")
    if arm.without:
        only = f"AND family <> {quoted(arm.without)} "
        data = publish_kept(experiment, stage, str(arm.data), only)
    settings = SftSettings.checked(
        recipe="nano-zoom-sft", name=experiment.model_name(stage.arm, stage.seed, part),
        model=experiment.size.start, home=experiment.home, dataset=data["dataset"],
        override=(f"steps={steps}", f"seed={stage.seed}", NO_TRACKERS),
    )  # fmt: skip
    return {**train_model(settings, steps), "dataset": data["dataset"]}


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
    "solve": solve_questions,
    "difficulty": measure_difficulty,
    "warm": train_warm_up,
    "train": train_arm,
    "test": evaluate_test,
    **dict.fromkeys(CONTROLS, evaluate_test),
}
"""Every kind of stage by its name."""
