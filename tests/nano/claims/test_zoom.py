"""The claim on questions that need a look: its plan, what it expects, and its tables."""

import dataclasses
import json

import numpy as np
import pytest

from training.rewards.rewards import PRESETS
from vigorl_nano.claims import scores as scores_module
from vigorl_nano.claims.scores import ArmScores
from vigorl_nano.claims.stages import Experiment, Stage, needed
from vigorl_nano.claims.zoom import checks, plan, report
from vigorl_nano.claims.zoom.checks import besides
from vigorl_nano.claims.zoom.plan import (
    ARMS,
    CONTROLLED,
    CONTROLS,
    EXPECTED,
    FULL,
    PARTS,
    QUICK,
    size_identity,
    stages,
)
from vigorl_nano.claims.zoom.report import arm_table, ledger_table, solved_lines
from vigorl_nano.claims.zoom.work import STAGES, home_of


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


def test_every_stage_comes_after_those_it_needs_and_has_a_function():
    seen = set()
    for stage in stages(FULL):
        assert stage.kind in STAGES and seen.issuperset(stage.after) and stage.name not in seen
        seen.add(stage.name)


def test_a_part_has_stages_of_the_whole_and_what_they_need():
    whole, zoom = ({s.name for s in stages(FULL, part)} for part in (None, "zoom"))
    assert zoom < whole
    kinds = {name.partition("/")[0] for name in zoom}
    assert not kinds & {"solve", "difficulty"} and "noise" in kinds
    assert {f"train/{name}@4" for name in ("vigorl", "plain", "grpo")} <= zoom
    assert not {"train/whole@4", "test/unseen@4"} & zoom
    for part in PARTS:
        plan = {stage.name: stage for stage in stages(FULL, part)}
        for name in plan:
            assert needed(plan, name) <= set(plan)


def test_five_seeds_and_every_control_are_planned():
    names = {stage.name for stage in stages(FULL)}
    assert len(FULL.seeds) >= 5
    for control in CONTROLS:
        assert f"{control}/base" in names
        assert {f"{control}/vigorl@{seed}" for seed in FULL.seeds} <= names
    rows = {*ARMS, *(f"{arm}+{control}" for arm in CONTROLLED for control in CONTROLS)}
    assert {name for one in EXPECTED for name in (one.arm, one.than)} <= rows


def test_arms_that_differ_in_their_grpo_go_on_from_one_sft():
    plan = {stage.name: stage for stage in stages(FULL)}
    warm = [name for name in plan if name.startswith("warm/")]
    both = ("mcts", "mcts-unseen")
    assert warm == [f"warm/{which}@{seed}" for seed in FULL.seeds for which in both]
    for name in ("vigorl", "live", "plain"):
        assert plan[f"train/{name}@2"].after == ("warm/mcts@2",)
    for name in ("difficulty", "prefixes", "whole"):
        assert plan[f"train/{name}@2"].after == ("difficulty/mcts@2",)
    assert plan["difficulty/mcts@2"].after == ("warm/mcts@2",)
    assert plan["train/unseen@2"].after == ("warm/mcts-unseen@2",)
    assert plan["train/grpo@2"].after == ("questions",)
    assert plan["train/linear@2"].after == ("search/linear@2",)


def test_more_seeds_go_on_from_fewer():
    more = dataclasses.replace(QUICK, seeds=(0, 1))
    assert more.name == QUICK.name and size_identity(more) == size_identity(QUICK)
    assert "sft" in size_identity(QUICK) and "sft" not in size_identity(plan.FULL), "as before it"
    assert {s.name for s in stages(QUICK)} < {s.name for s in stages(more)}


def test_every_arm_has_a_reward_that_there_is():
    assert {arm.reward for arm in ARMS.values() if arm.reward} <= set(PRESETS)


@pytest.fixture
def scores():
    """Four questions about two pictures; the trained arm has two seeds."""
    scores = {"base": np.array([[1.0, 0, 1, 0]]), "no-zoom": np.array([[0.0, 0, 0, 0]])}
    scores["vigorl"] = np.array([[1.0, 1, 1, 1], [1.0, 1, 1, 0]])
    return ArmScores(tuple("abcd"), (0, 0, 1, 1), scores, ("search", "compare") * 2)


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
    svg = (tmp_path / "claim.svg").read_text()
    assert svg.count("<circle") == len(scores.scores) and ARMS["vigorl"].title in svg


def test_what_a_search_solves_where_sampling_fails_is_told_of_all_seeds(tmp_path):
    experiment = Experiment(tmp_path, dataclasses.replace(QUICK, seeds=(0, 1)))
    assert solved_lines(experiment) == []

    def pair(image, ours, theirs):
        done = {"right": True, "tokens": 60}, {"right": False, "tokens": 120}
        return {
            "question": image,
            "images": [image],
            "ours": done[not ours],
            "theirs": done[not theirs],
        }

    (tmp_path / "stages").mkdir()
    some = [pair(f"i{n}", n % 4 > 0, n % 2) for n in range(40)]
    for seed, pairs in enumerate((some[:20], some[20:])):
        experiment.file(f"solve/mcts@{seed}").write_text(json.dumps({"pairs": pairs}))
    _, line = solved_lines(experiment)
    assert (
        "Of 40 questions" in line
        and "(40 times in all)" in line
        and "solves 30 and best-of-n 20" in line
    )
    assert "1.50 times as many [1." in line and "for 0.83 times its tokens" in line
    assert line.endswith("; holds.")
    # As many: no gain. A few more: the interval reaches below 1. Surely more, but not 1.3 times.
    for few in ((20, 20), (13, 10), (25, 22)):
        total = 25
        pairs = [pair(f"i{n}", n < few[0], n < few[1]) for n in range(total)]
        for seed in (0, 1):
            experiment.file(f"solve/mcts@{seed}").write_text(json.dumps({"pairs": pairs}))
        assert solved_lines(experiment)[1].endswith("; does not hold."), few


def test_another_recipe_or_arm_is_another_experiment(monkeypatch):
    known = size_identity(QUICK)
    monkeypatch.setattr(plan, "PASS_AT", 8)
    assert size_identity(QUICK) != known
    monkeypatch.undo()
    other = {**ARMS, "live": dataclasses.replace(ARMS["live"], dead_group_tokens=2)}
    monkeypatch.setattr(plan, "ARMS", other)
    assert size_identity(QUICK) != known and dataclasses.replace(QUICK).name != plan.FULL.name
    monkeypatch.undo()
    assert size_identity(QUICK) == known


def test_no_arm_reads_what_another_seed_or_plain_sampling_made(tmp_path):
    experiment = Experiment(tmp_path, FULL)
    homes = {
        name: {home_of(experiment, Stage(f"{kind}/{name}", ())) for kind in ("train", "test")}
        for name in ("search@0", "vigorl@0", "linear@0", "vigorl@1", "base")
    }
    assert all(len(home) == 1 for home in homes.values())
    assert homes["search@0"] == homes["vigorl@0"] == homes["base"]
    assert len({home for some in homes.values() for home in some}) == 3


def test_figures_beside_right_answers_are_held_against_what_is_expected(tmp_path, monkeypatch):
    experiment = Experiment(tmp_path, QUICK)
    found = {
        "search": [{"on_asked": 0.8, "looked_again": 0.9, "evaluation_id": "s"}],
        "vigorl": [{"on_asked": 0.78, "looked_again": 0.46, "evaluation_id": "v"}],
        "vigorl+noise": [{"on_asked": 0.1, "evaluation_id": "n"}],
    }
    rows = [("verification", 0.2), ("backtracking", 0.9), ("regions", 3.0)]
    monkeypatch.setattr(checks, "dialogue_behaviors", lambda _: dict(rows) | {"verification": 0.5})
    monkeypatch.setattr(
        scores_module, "rows_about",
        lambda *_: [{"evaluation_id": "v", "behavior": b, "mean_count": n} for b, n in rows],
    )  # fmt: skip
    dead = {"live": [{"groups/dead": 0.2}], "vigorl": [{"groups/dead": 0.5}]}
    said = [line.rpartition("; ") for line in besides(experiment, found, dead)[1:]]
    assert [(line.split(": ")[1][:5], verdict) for line, _, verdict in said] == [
        ("20.0%", "does not hold."),
        ("78.0%", "holds."),
        ("78.0%", "does not hold."),
        ("46.0%", "holds."),
        ("0.20 ", "does not hold."),
        ("0.90 ", "holds."),
    ]
    assert besides(experiment, {}, {}) == []
