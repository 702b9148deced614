"""Runs the zoom claim's stages: plain functions of the experiment's folder and the stage.

outcome = run_stage(experiment, Stage("train/vigorl@0", ("warm/vigorl@0",)), STAGES)
"""

from __future__ import annotations

import asyncio

from flows.progress import TerminalProgress, report_to_stderr
from flows.settings import BuildSettings, EvaluateSettings, GrpoSettings, SftSettings
from flows.stages.build import build
from flows.stages.evaluate import evaluate
from flows.stages.train import train
from vigorl_nano.claim.stages import Experiment, Stage, Work
from vigorl_nano.zoom_claim.plan import ARMS, CONTROLS, Size
from vigorl_nano.zoom_world.sample import write_split
from warehouse.query.run_query import query
from warehouse.query.sql_guard import quoted
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row
from warehouse.versions.versions import publish

TASK = "vstar"
EVERY_BAND = "[unsolved, hard, medium, easy, solved]"


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
    size, seed, warehouse = experiment.size, stage.seed, Warehouse.at(experiment.home)
    how: Row = {"simulations": size.simulations, "wave": 4}
    if stage.arm == "linear":
        trees = experiment.required_outcome(f"search/mcts@{seed}")
        how = {"tree_tokens": max(1, round(trees["tokens"] / trees["trees"]))}
    settings = BuildSettings.checked(
        task=TASK, seed=seed, strategy=stage.arm, teacher=size.start, concurrency=8,
        home=experiment.home, **how,
    )  # fmt: skip
    summary = asyncio.run(build(settings, progress=TerminalProgress()))
    mine = (
        f"SELECT tree_id FROM trees WHERE seed = {seed} "
        f"AND coalesce(config ->> 'strategy', 'mcts') = {quoted(stage.arm)}"
    )
    (spent,) = query(
        warehouse,
        "SELECT count(*) AS trees, sum(completion_tokens)::BIGINT AS tokens, "
        f"sum(any_right::INT)::BIGINT AS right FROM trees WHERE tree_id IN ({mine})",
    ).to_pylist()
    version = publish(
        warehouse,
        f"{size.name}-{stage.arm}-{seed}",
        "SELECT trace_id FROM kept_traces JOIN questions USING (question_id) "
        f"WHERE origin = 'search' AND split = 'train' AND tree_id IN ({mine}) "
        "QUALIFY row_number() OVER (PARTITION BY question_id "
        f"ORDER BY md5(trace_id || {quoted(str(seed))}), trace_id) <= {size.per_question}",
    )
    return {"dataset": version.ref, "traces": version.n_rows, "kept": summary.kept, **spent}


def train_warm_up(experiment: Experiment, stage: Stage) -> Row:
    """Train the SFT before an arm's GRPO."""
    return _sft(experiment, stage, "-warm", experiment.size.warm_steps)


def train_arm(experiment: Experiment, stage: Stage) -> Row:
    """Train the last part of an arm."""
    arm, size = ARMS[stage.arm], experiment.size
    if arm.reward is None:
        return _sft(experiment, stage, "", size.all_steps)
    run = stage.name.partition("/")[2]
    model = experiment.required_outcome(f"warm/{run}")["model"] if arm.data else size.start
    steps = size.rl_steps if arm.data else size.all_steps
    settings = GrpoSettings.checked(
        recipe="nano-zoom-grpo", task=TASK, split="train", model=model, home=experiment.home,
        name=experiment.model_name(stage.arm, stage.seed),
        override=(
            f"steps={steps}", f"seed={stage.seed}", f"bands={EVERY_BAND}", f"reward={arm.reward}",
        ),
    )  # fmt: skip
    return _model_outcome(train(settings), steps)


def _sft(experiment: Experiment, stage: Stage, part: str, steps: int) -> Row:
    data = experiment.required_outcome(f"search/{ARMS[stage.arm].data}@{stage.seed}")
    settings = SftSettings.checked(
        recipe="nano-zoom-sft", name=experiment.model_name(stage.arm, stage.seed, part),
        model=experiment.size.start, home=experiment.home, dataset=data["dataset"],
        override=(f"steps={steps}", f"seed={stage.seed}"),
    )  # fmt: skip
    return _model_outcome(train(settings), steps)


def _model_outcome(row: Row | None, steps: int) -> Row:
    assert row is not None
    return {"model": row["name"], "model_id": row["model_id"], "steps": steps}


def evaluate_test(experiment: Experiment, stage: Stage) -> Row:
    """Evaluate an arm on the test split, greedily, or with what a control shows instead."""
    arm, control = ARMS[stage.arm], stage.kind if stage.kind in CONTROLS else None
    trained = arm.trained and experiment.required_outcome(f"train/{stage.name.partition('/')[2]}")
    settings = EvaluateSettings.checked(
        model=trained["model"] if trained else experiment.size.start, benchmark=TASK, split="test",
        temperature=0.0, samples=1, control=control, seed=stage.seed,
        response_style=arm.response_style, home=experiment.home,
    )  # fmt: skip
    report = asyncio.run(evaluate(settings, report=report_to_stderr)).report
    return {
        "evaluations": {
            stage.kind: {
                "evaluation_id": report.evaluation_id,
                "model_id": report.model_id,
                **{name: found.value for name, found in report.figures["all"].items()},
            }
        }
    }


STAGES: dict[str, Work] = {
    "questions": draw_questions,
    "search": search_questions,
    "warm": train_warm_up,
    "train": train_arm,
    "test": evaluate_test,
    **dict.fromkeys(CONTROLS, evaluate_test),
}
"""Every kind of stage by its name."""
