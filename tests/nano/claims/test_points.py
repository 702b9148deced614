"""The claim for points: a fair plan, stages that are run once, its tables."""

import dataclasses
import json
import sys

import pytest

from tests.nano.claims.test_scores import scores_of
from training.recipes import load_recipe
from vigorl_nano.claims.points import report
from vigorl_nano.claims.points.__main__ import default_folder, main
from vigorl_nano.claims.points.plan import ARMS, FULL, QUICK, TRAINED, size_identity, stages
from vigorl_nano.claims.points.report import by_places
from vigorl_nano.claims.points.work import STAGES
from vigorl_nano.claims.stages import Experiment, needed, open_experiment


@pytest.fixture(params=[FULL, QUICK], ids=["full", "quick"])
def size(request):
    return request.param


def test_every_stage_comes_after_those_it_needs_and_has_a_function(size):
    seen = set()
    for stage in stages(size):
        assert stage.kind in STAGES
        assert seen.issuperset(stage.after), stage
        assert stage.name not in seen
        seen.add(stage.name)


def test_nothing_is_asked_of_the_test_split_before_every_model_is_trained(size):
    plan = {stage.name: stage for stage in stages(size)}
    trained = {name for name, stage in plan.items() if stage.kind == "train"}
    assert len(trained) == len(TRAINED) * len(size.seeds)
    tested = {name for name, stage in plan.items() if stage.kind in ("test", "sampled")}
    assert len(tested) == 2 * (len(trained) + len(ARMS) - len(TRAINED))
    for name in plan:
        if name in tested:
            assert trained <= needed(plan, name)
        else:
            assert not tested & needed(plan, name)


def test_every_arm_takes_as_many_steps(size):
    plan = stages(size)
    for name in TRAINED:
        arm = ARMS[name]
        warmed = any(s.kind == "warm" and s.arm == name for s in plan)
        last = size.rl_steps if arm.rl and arm.data else size.all_steps
        assert last + (size.warm_steps if warmed else 0) == size.all_steps


def test_arms_differ_in_what_their_names_say():
    for arm in ARMS.values():
        for name in arm.recipes:
            recipe = load_recipe(name)
            assert (recipe.response_style, recipe.model) == (arm.response_style, "nano-reader")
    assert ARMS["ungrounded"].recipes != ARMS["vigorl"].recipes
    assert load_recipe("nano-grpo").reward == "grounded"
    assert load_recipe("nano-grpo-ungrounded").reward == "ungrounded"
    paid = load_recipe("nano-grpo-verified")
    assert paid.reward == "verified"
    assert paid.settings() | {"name": "", "reward": ""} == (
        load_recipe("nano-grpo").settings() | {"name": "", "reward": ""}
    )
    same = {"name", "response_style", "reward"}
    for kind in ("sft", "grpo"):
        ours, theirs = (
            load_recipe(f"nano-{kind}{suffix}").settings() for suffix in ("", "-ungrounded")
        )
        assert {k: v for k, v in ours.items() if k not in same} == {
            k: v for k, v in theirs.items() if k not in same
        }


def test_sampled_answers_are_shown_beside_greedy_ones_where_they_are_there(monkeypatch):
    right, half = [[1.0] * 40], [[1.0] * 20 + [0.0] * 20]
    found = {
        "greedy": scores_of(grpo=half, vigorl=right),
        "sampled": scores_of(grpo=right, vigorl=half),
    }
    monkeypatch.setattr(
        report, "read_scores", lambda experiment, kind, sampling: found.get(sampling)
    )
    monkeypatch.setattr(report, "evaluations", lambda *_: [])
    experiment = Experiment(None, dataclasses.replace(QUICK, seeds=(0,)))
    _, _, head, _, *rows = report.arm_table(experiment, "test", "test", found["greedy"])
    assert "| right, greedy | right at T = 0.5 | by seed |" in head
    cells = {row.split(" | ")[0].strip("| "): row.split(" | ")[2:4] for row in rows}
    assert [cell.split()[0] for cell in cells[ARMS["vigorl"].title]] == ["100.0", "50.0"]
    greedy, sampled = report.differences_by_sampling(experiment, found["greedy"]).items()
    assert greedy[0] == "greedy" and greedy[1][0].held
    assert sampled[0] == "at T = 0.5" and not sampled[1][0].held
    del found["sampled"]
    assert "at T" not in report.arm_table(experiment, "test", "test", found["greedy"])[2]
    assert list(report.differences_by_sampling(experiment, found["greedy"])) == ["greedy"]


def test_a_gap_is_shown_where_places_decide_and_elsewhere():
    found = scores_of(vigorl=[[1.0, 1.0, 0.0, 1.0]], grpo=[[0.0, 0.0, 0.0, 1.0]])
    found = dataclasses.replace(found, families=("left_right", "goal_aim", "colour", "colour"))
    head, _, row = by_places(found)
    assert "where places decide (2 questions) | elsewhere (2 questions)" in head
    assert row.startswith(f"| {ARMS['grpo'].title} | +100.0 [")
    assert "| +0.0 [" in row


def begin(folder, size):
    return open_experiment(folder, size, size_identity(size))


def test_a_folder_of_another_size_is_left_alone(tmp_path):
    begin(tmp_path, QUICK)
    written = (tmp_path / "plan.json").stat().st_mtime_ns
    begin(tmp_path, QUICK)
    assert (tmp_path / "plan.json").stat().st_mtime_ns == written, "others may be reading it"
    with pytest.raises(SystemExit, match="another size"):
        begin(tmp_path, FULL)
    with pytest.raises(SystemExit, match="another size, start or plan"):
        begin(tmp_path, dataclasses.replace(QUICK, start="nano-base"))
    assert json.loads((tmp_path / "plan.json").read_text())["questions"] == QUICK.questions


def test_more_seeds_go_on_from_fewer(tmp_path):
    more = dataclasses.replace(QUICK, seeds=(0, 1))
    begin(tmp_path, QUICK)
    assert begin(tmp_path, more).size.seeds == (0, 1)
    assert more.name == QUICK.name
    assert {s.name for s in stages(QUICK)} < {s.name for s in stages(more)}


def test_more_samples_of_the_same_models_are_no_other_experiment(tmp_path):
    begin(tmp_path, QUICK)
    more = dataclasses.replace(QUICK, samples=QUICK.samples + 1)
    assert begin(tmp_path, more).size.name == QUICK.name


def test_each_start_has_a_folder_of_its_own():
    other = dataclasses.replace(FULL, start="runs/x/nano-base")
    assert default_folder(FULL, quick=False).as_posix() == "runs/claim-points"
    assert default_folder(other, quick=True).as_posix() == "runs/claim-points-quick-from-nano-base"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seeds", "0"], "--seeds 0: at least one is needed"),
        (["--from", "nobody"], "--from nobody is neither nano,"),
    ],
)
def test_a_bad_option_is_reported_before_anything_is_done(
    words, sentence, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["claim", "--folder", str(tmp_path / "made"), *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and sentence in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
