"""The lint finds what is wrong with a reward, and nothing wrong with ours."""

import json
import random

import pytest

from flows.cli import app as cli
from mcts.coordinates import CoordinateSpace
from tests.support import faulty_rewards
from training.rewards import lint as linting
from training.rewards.exploits import probes
from training.rewards.lint import lint, load_reward
from training.rewards.rewards import PRESETS, make_rewards

SPACE = CoordinateSpace.qwen3_vl()


@pytest.mark.parametrize("name", PRESETS)
def test_no_trick_raises_one_of_our_rewards(name):
    report = lint(make_rewards(PRESETS[name], SPACE).total, SPACE)
    assert not report.findings, [finding.sentence() for finding in report.findings]
    assert report.sees_answers and report.completions > 2000
    assert max(report.honest.values()) == 1.0
    assert report.sees_boxes is (name == "verified")


@pytest.mark.parametrize("part", ["correctness", "format", "grounding", "verified"])
def test_no_trick_raises_a_part_taken_alone(part):
    rewards = make_rewards(PRESETS["verified" if part == "verified" else "grounded"], SPACE)
    reward = rewards.functions[rewards.names.index(part)]
    report = lint(reward, SPACE, messages=True)
    assert not report.findings, [finding.sentence() for finding in report.findings]
    assert report.sees_answers is (part == "correctness")


def test_points_in_pixels_of_a_resized_image_are_read_as_such():
    space = CoordinateSpace.qwen25_vl()
    assert lint(make_rewards(PRESETS["verified"], space).total, space).clean
    # The same completions, taken for thousandths, point at nothing they name.
    mixed_up = lint(make_rewards(PRESETS["verified"], SPACE).total, space)
    assert mixed_up.honest["right"] < 1.0


@pytest.mark.parametrize(
    ("name", "kind", "trick"),
    [
        ("substring_grading", "raised", "an answer that lists every choice"),
        ("substring_grading", "beats right", "an answer that contains the right one"),
        ("unbounded_format", "bounds", "honest (right)"),
        ("unbounded_format", "raised", "64 steps on a grid"),
        ("unbounded_format", "beats right", "64 steps on a grid"),
        ("points_never_checked", "raised", "points pasted outside the image"),
        ("tags_counted", "raised", "empty thoughts added"),
        ("tags_counted", "raised", "tags opened 50 times"),
        ("more_is_better", "raised", "an endless text"),
        ("last_of_several_answers", "raised", "the right answer hidden"),
        ("form_beats_truth", "beats right", "praise for the grader"),
        ("not_a_number", "bounds", "next to nothing"),
        ("chokes_on_no_answer", "error", "no answer"),
        ("one_score_for_all", "error", "honest (right)"),
        ("never_the_same", "unsteady", "honest (right)"),
    ],
)
def test_a_planted_fault_is_found(name, kind, trick):
    report = lint(getattr(faulty_rewards, name), SPACE)
    found = {(finding.kind, finding.trick) for finding in report.findings}
    assert (kind, trick) in found, sorted(found)


def test_a_strict_reward_of_someone_else_passes():
    report = lint(load_reward("tests.support.faulty_rewards:fair"), SPACE)
    assert report.clean, [finding.sentence() for finding in report.findings]


def test_a_reward_that_takes_for_ever_is_told(monkeypatch):
    monkeypatch.setattr(linting, "SECONDS", 0.2)

    def slow(prompts, completions, **columns):
        while len(completions[0]) > 50_000:
            pass
        return [0.0]

    report = lint(slow, SPACE)
    assert {f.kind for f in report.findings} == {"slow"}
    assert "an endless text" in {f.trick for f in report.findings}


def test_tricks_are_the_same_for_a_seed():
    first, again, other = (list(probes(SPACE, random.Random(seed))) for seed in (3, 3, 4))
    assert first == again != other


def test_the_command_says_what_works_and_ends_with_1(capsys, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["vigorl", "lint-reward", *arguments])
        try:
            cli.main()
        except SystemExit as left:
            return left.code or 0
        return 0

    assert run("verified") == 0
    assert "verified: nothing found in " in capsys.readouterr().out
    assert run("tests.support.faulty_rewards:substring_grading", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["clean"] and report["findings"][0]["kind"] in linting.KINDS
    assert run("direct") == 0
    assert "reward direct is called answer_only now" in capsys.readouterr().err
    for name, sentence in (
        ("nonsense", "there is no 'nonsense'; there are grounded, "),
        ("no_such_module:f", "No module named"),
        ("tests.support.faulty_rewards:nothing", "has no 'nothing'"),
    ):
        assert run(name) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
