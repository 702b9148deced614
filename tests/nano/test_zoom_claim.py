"""The zoom claim: its plan, what it expects, and its tables."""

import dataclasses

import numpy as np
import pytest

from training.rewards.rewards import PRESETS
from vigorl_nano.claim.report import ArmScores
from vigorl_nano.claim.stages import Experiment, needed
from vigorl_nano.zoom_claim import report
from vigorl_nano.zoom_claim.plan import (
    ARMS,
    CONTROLLED,
    CONTROLS,
    EXPECTED,
    FULL,
    QUICK,
    size_identity,
    stages,
)
from vigorl_nano.zoom_claim.report import arm_table, differences, ledger_table, sentence


def test_every_model_is_trained_before_a_test_question_is_asked():
    plan = {stage.name: stage for stage in stages(FULL)}
    trained = {name for name in plan if name.startswith("train/")}
    asked = {n for n, stage in plan.items() if stage.kind in ("test", *CONTROLS)}
    assert len(trained) == len(FULL.seeds) * sum(arm.trained for arm in ARMS.values())
    for name in plan:
        if name in asked:
            assert trained <= needed(plan, name)
        else:
            assert not asked & needed(plan, name)


def test_five_seeds_and_every_control_are_planned():
    names = {stage.name for stage in stages(FULL)}
    assert len(FULL.seeds) >= 5
    for control in CONTROLS:
        assert f"{control}/base" in names
        assert {f"{control}/vigorl@{seed}" for seed in FULL.seeds} <= names
    assert {name for _, name, _ in EXPECTED} <= {
        *ARMS, *(f"{arm}+{control}" for arm in CONTROLLED for control in CONTROLS)
    }  # fmt: skip


def test_arms_that_differ_in_their_grpo_go_on_from_one_sft():
    plan = {stage.name: stage for stage in stages(FULL)}
    warm = [name for name in plan if name.startswith("warm/")]
    assert warm == [f"warm/mcts@{seed}" for seed in FULL.seeds]
    for name in ("vigorl", "live", "plain"):
        assert plan[f"train/{name}@2"].after == ("warm/mcts@2",)
    assert plan["train/grpo@2"].after == ("questions",)
    assert plan["train/linear@2"].after == ("search/linear@2",)


def test_more_seeds_go_on_from_fewer():
    more = dataclasses.replace(QUICK, seeds=(0, 1))
    assert more.name == QUICK.name and size_identity(more) == size_identity(QUICK)
    assert {s.name for s in stages(QUICK)} < {s.name for s in stages(more)}


def test_every_arm_has_a_reward_that_there_is():
    assert {arm.reward for arm in ARMS.values() if arm.reward} <= set(PRESETS)


@pytest.fixture
def scores():
    """Four questions about two pictures; the trained arm has two seeds."""
    scores = {"base": np.array([[1.0, 0, 1, 0]]), "no-zoom": np.array([[0.0, 0, 0, 0]])}
    scores["vigorl"] = np.array([[1.0, 1, 1, 1], [1.0, 1, 1, 0]])
    return ArmScores(tuple("abcd"), (0, 0, 1, 1), scores, ("search", "compare") * 2)


def test_a_difference_holds_only_with_its_size_and_an_interval_above_0(scores):
    found, _ = differences(scores)  # the other: trained against the base
    assert (found["arm"], found["than"], found["held"]) == ("base", "no-zoom", True)
    assert "the claim holds" in sentence(found)
    scores.scores["no-zoom"] = scores.scores["base"]
    found, _ = differences(scores)  # the other: trained against the base
    assert not found["held"] and "does not hold" in sentence(found)


def test_a_difference_of_the_size_does_not_hold_where_its_interval_has_0(scores):
    scores.scores["base"] = np.array([[1.0, 1, 1, 0]])
    scores.scores["no-zoom"] = np.array([[0.0, 0, 1, 1]])
    found, _ = differences(scores)
    assert found["gap"].value >= found["least"] and found["gap"].low <= 0
    assert not found["held"]


def test_the_table_has_a_row_an_arm_and_a_column_a_kind(scores, tmp_path):
    head, _, *rows = arm_table(Experiment(tmp_path, QUICK), scores)
    assert "compare" in head and "search" in head
    assert len(rows) == 3 and "87.5" in rows[-1] and "100.0, 75.0" in rows[-1]


def test_the_ledger_leaves_out_arms_that_never_could_call():
    found = {"no-zoom": [{"accuracy": 0.1}], "base": [{"accuracy": 0.5, "calls": 2.25}]}
    rows = ledger_table(found)
    assert len(rows) == 3 and "2.25" in rows[-1]


@pytest.mark.parametrize("size", [QUICK, FULL])
def test_only_the_small_size_says_that_it_tells_nothing(
    size, scores, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(report, "read_evaluations", lambda _: {})
    monkeypatch.setattr(report, "scores_of", lambda *_: scores)
    report.write_report(Experiment(tmp_path, size))
    assert capsys.readouterr().out.startswith(report.TOO_SMALL) is (size is QUICK)
