"""The claim about trees: its plan, what it keeps of a training, and its tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from vigorl_nano.claims.points.report import ArmScores
from vigorl_nano.claims.stages import Experiment, needed
from vigorl_nano.claims.trees import (
    ARMS,
    FULL,
    QUICK,
    STAGES,
    compared,
    sampled,
    size_identity,
    stages,
    tables,
    zooming,
)
from vigorl_nano.claims.zoom.plan import FULL as ZOOM_CLAIM
from vigorl_nano.zoom_world.sample import TAKEN_SEEDS

CHAINS = {"loss": 0.1, "completions/mean_length": 50.0, "frac_reward_zero_std": 0.0, "reward": 0.5}
TREES = {
    "loss": 0.1, "completions/mean_length": 50.0, "groups/dead_first": 0.125, "reward": 0.5,
    "tree/tokens": 3190.0, "tree/leaves": 12.0, "tree/trees": 8.0, "tree/shared": 0.4,
}  # fmt: skip


def test_both_arms_are_trained_and_tested_with_every_seed() -> None:
    plan = {stage.name: stage for stage in stages(FULL)}
    assert {stage.kind for stage in plan.values()} == set(STAGES)
    for seed in FULL.seeds:
        for arm in ARMS:
            assert f"train/{arm}@{seed}" in needed(plan, f"test/{arm}@{seed}")
    more = replace(QUICK, seeds=(0, 1))
    assert size_identity(more) == size_identity(QUICK) and more.name == QUICK.name
    assert {s.name for s in stages(QUICK)} < {s.name for s in stages(more)}


def test_the_model_that_zooms_has_an_experiment_of_its_own() -> None:
    size = zooming(QUICK)
    assert (size.recipe, size.start, size.task) == ("nano-zoom-grpo", "nano-zoom", "vstar")
    assert [count for _, count in size.draw] == [160, 24]
    assert size_identity(size) == json.loads(json.dumps(size_identity(size)))
    assert "draw" not in size_identity(QUICK) and size.name != QUICK.name
    assert not {seed for seed, _ in size.draw} & {*TAKEN_SEEDS, *ZOOM_CLAIM.draw_seeds}


def test_what_a_step_sampled_is_kept_of_either_arm() -> None:
    chains, trees = sampled([CHAINS, CHAINS], 64), sampled([TREES, TREES], 64)
    assert (chains["tokens"], chains["completions"], chains["dead"]) == (3200, 64, None)
    assert (trees["tokens"], trees["completions"], trees["shared"]) == (3190, 96, 0.4)
    assert compared([CHAINS]) == {} and compared([{"comparison/a": 1.0}]) == {"comparison/a": 1.0}


def test_the_table_says_what_trees_are_worth_beside_chains(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path, QUICK)
    names = ("tokens", "completions", "live", "distinct", "right", "solved")
    figures = {f"comparison/{way}/{name}": 0.5 for way in ("chains", "trees") for name in names}
    for arm, kept in (("chains", sampled([CHAINS], 64)), ("tree", sampled([TREES], 64))):
        file = experiment.file(f"train/{arm}@0")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({**kept, **figures, "comparison/questions": 4}))
    found = {"base": [[1, 0, 0, 0]], "chains": [[1, 0, 1, 0]], "tree": [[1, 1, 1, 1]]}
    scores = {name: np.array(rows, dtype=float) for name, rows in found.items()}
    lines, kept = tables(experiment, ArmScores(tuple("abcd"), (0, 0, 1, 1), scores), [0])
    text = "\n".join(lines)
    assert "| GRPO on chains | 50.0" in text and "| GRPO on trees | 100.0" in text
    assert "3190 | 96 | 12.5%" in text and "Trees minus chains: +50.0" in text
    assert kept["trees minus chains"]["value"] == 0.5
    assert "| trees | 0.50 |" in text
