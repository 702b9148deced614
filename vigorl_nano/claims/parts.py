"""What the stages of every claim have in common: limits of trees, datasets, trainings, evaluations.

return publish_kept(experiment, stage, "mcts", kept=summary.kept)
return evaluation_outcome(EvaluateSettings.checked(...))
"""

from __future__ import annotations

import asyncio
from typing import Any

from flows.progress import report_to_stderr
from flows.settings import EvaluateSettings, TrainSettings
from flows.stages.evaluate import evaluate
from flows.stages.train import train
from vigorl_nano.claims.stages import Experiment, Stage
from warehouse.query.run_query import query
from warehouse.query.sql_guard import quoted
from warehouse.storage.home import Warehouse
from warehouse.tables.schema import Row
from warehouse.versions.versions import publish

EVERY_BAND = "[unsolved, hard, medium, easy, solved]"
NO_TRACKERS = "trackers=[]"
"""Of a recipe: stages side by side would wait for one another's tracker."""


def tree_limits(experiment: Experiment, stage: Stage) -> Row:
    """Return what ends a tree: simulations, or of a baseline the mean tokens of the searches."""
    if stage.arm == "mcts":
        return {"simulations": experiment.size.simulations, "wave": 4}
    trees = experiment.required_outcome(f"search/mcts@{stage.seed}")
    return {"tree_tokens": max(1, round(trees["tokens"] / trees["trees"]))}


def publish_kept(
    experiment: Experiment,
    stage: Stage,
    strategy: str,
    only: str = "",
    home: str | None = None,
    **more: Any,
) -> Row:
    """Publish what was kept of a seed's trees of one strategy; return the stage's outcome.

    Args:
        only: further conditions of the statement, each with its AND.
        home: warehouse of the trees; the experiment's own when left out.
        more: what else the outcome has.
    """
    size, seed, warehouse = experiment.size, stage.seed, Warehouse.at(home or experiment.home)
    mine = (
        f"SELECT tree_id FROM trees WHERE seed = {seed} "
        f"AND coalesce(config ->> 'strategy', 'mcts') = {quoted(strategy)}"
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
        f"WHERE origin = 'search' AND split = 'train' {only}"
        f"AND tree_id IN ({mine}) "
        "QUALIFY row_number() OVER (PARTITION BY question_id "
        f"ORDER BY md5(trace_id || {quoted(str(seed))}), trace_id) <= {size.per_question}",
    )
    return {
        "dataset": version.ref, "traces": version.n_rows, "home": warehouse.root, **more, **spent,
    }  # fmt: skip


def train_model(settings: TrainSettings, steps: int) -> Row:
    """Train, and return the stage's outcome."""
    row = train(settings)
    assert row is not None
    return {
        "model": row["name"], "model_id": row["model_id"], "steps": steps, "home": settings.home,
    }  # fmt: skip


def evaluation_outcome(settings: EvaluateSettings) -> Row:
    """Evaluate, and return what the report reads of it."""
    outcome = asyncio.run(evaluate(settings, report=report_to_stderr, beside_no_zoom=False))
    report = outcome.report
    return {
        "evaluation_id": report.evaluation_id,
        "model_id": report.model_id,
        "home": settings.home,
        **{name: found.value for name, found in report.figures["all"].items()},
    }
