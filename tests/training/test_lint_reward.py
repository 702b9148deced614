"""The lint finds what is wrong with a reward, and nothing wrong with ours."""

import hashlib
import json
import random
from dataclasses import asdict

import pytest

from flows.cli import app as cli
from mcts.coordinates import CoordinateSpace
from tests.support import faulty_rewards
from training.rewards import lint as linting
from training.rewards.exploits import probes
from training.rewards.lint import lint, load_reward
from training.rewards.rewards import PRESETS, make_rewards
from training.rewards.zoom_exploits import dialogue_probes

SPACE = CoordinateSpace.qwen3_vl()


ALIKE = {"evidence", "ungrounded", "answer_only", "zoom_no_bonus"}  # made of parts the others have


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ALIKE else n for n in PRESETS]
)
def test_no_trick_raises_one_of_our_rewards(name):
    dialogues = PRESETS[name].response_style == "zoom"
    report = lint(make_rewards(PRESETS[name], SPACE).total, SPACE, dialogues=dialogues)
    assert not report.findings, [finding.sentence() for finding in report.findings]
    assert report.sees_answers and report.completions > (1000 if dialogues else 2000)
    assert max(report.honest.values()) == 1.0
    assert report.sees_boxes is (name in ("verified", "corrected"))


@pytest.mark.parametrize(
    "part",
    [
        "verified",
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("correctness", "format", "grounding")),
    ],
)
def test_no_trick_raises_a_part_taken_alone(part):
    rewards = make_rewards(PRESETS["verified" if part == "verified" else "grounded"], SPACE)
    reward = rewards.functions[rewards.names.index(part)]
    report = lint(reward, SPACE, messages=True)
    assert not report.findings, [finding.sentence() for finding in report.findings]
    assert report.sees_answers is (part == "correctness")


@pytest.mark.slow
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
        ("second_looks_paid", "raised", "mistakes made up to be corrected"),
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


def test_a_bonus_for_looking_that_nothing_bounds_is_found():
    report = lint(faulty_rewards.looking_beats_reading, SPACE, dialogues=True)
    found = {(finding.kind, finding.trick) for finding in report.findings}
    assert {
        ("raised", "places a few pixels apart"),
        ("raised", "calls outside the image"),
        ("raised", "several calls in one turn"),
    } <= found, sorted(found)


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


def test_the_attempts_of_a_seed_stay_the_same():
    """Findings and figures of two releases are comparable only while they try the same texts.

    An attempt that is added or changed on purpose changes a digest here, and nothing else does.
    """

    def digest(attempts):
        found = hashlib.sha256()
        for p in attempts:
            told = [p.known, p.column, p.zoom, p.honest, *map(asdict, p.tricks)]
            found.update(json.dumps(told).encode())
        return found.hexdigest()[:12]

    pixels = CoordinateSpace.qwen25_vl()
    assert digest(probes(SPACE, random.Random(0))) == "34874fab6125"
    assert digest(probes(pixels, random.Random(0), one_block=True)) == "2dd0231b82c6"
    assert digest(dialogue_probes(SPACE, random.Random(0))) == "02e6f3accfc6"


def test_the_command_says_what_works_and_ends_with_1(capsys, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["vigorl", "lint-reward", *arguments])
        try:
            cli.main()
        except SystemExit as left:
            return left.code or 0
        return 0

    assert run("direct") == 0
    said = capsys.readouterr()
    assert "reward direct is called answer_only now" in said.err
    assert "direct: nothing found in " in said.out
    assert run("tests.support.faulty_rewards:substring_grading", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["clean"] and report["findings"][0]["kind"] in linting.KINDS
    for name, sentence in (
        ("nonsense", "there is no 'nonsense'; there are grounded, "),
        ("no_such_module:f", "No module named"),
        ("tests.support.faulty_rewards:nothing", "has no 'nothing'"),
    ):
        assert run(name) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("score", "against", "said"),
    [
        (0.75, 0.5, "raised: a trick earns 0.75 where honest work earns 0.5 (why): 'text'"),
        (1.5, None, "raised: a trick earns 1.5 (why): 'text'"),
        (None, None, "raised: a trick (why): 'text'"),
    ],
)
def test_a_finding_says_what_cheating_earns_and_what_honest_work_does(score, against, said):
    found = linting.Exploit("raised", "a trick", "which?", "text", score, against, "why")
    assert found.sentence() == said
    assert linting.Exploit("raised", "t", "q", "c", 0.5, 0.25).sentence() == (
        "raised: t earns 0.5 where honest work earns 0.25: 'c'"
    )


def test_the_worst_of_a_tricks_finds_is_shown():
    linter = linting._Linter(lambda **columns: [0.0], False)
    probe = next(probes(SPACE, random.Random(0)))
    for score, against in ((0.6, 0.5), (0.9, 0.2), (0.7, 0.5), (1.0, 0.9)):
        linter._add("raised", "a trick", probe, "x" * 500, score, against)
    (found,) = linter.report(1.0).findings
    assert (found.score, found.against) == (0.9, 0.2)
    assert found.completion == "x" * 100 + " ... " + "x" * 50
    assert found.question == probe.question.text


def test_a_reward_that_gives_none_is_linted_without_what_it_does_not_score():
    fair = load_reward("tests.support.faulty_rewards:fair")

    def partly(prompts, completions, **columns):
        scores = fair(prompts=prompts, completions=completions, **columns)
        return [None if len(c) > 300 else s for c, s in zip(completions, scores, strict=True)]

    whole, some = lint(fair, SPACE), lint(partly, SPACE)
    assert some.clean and whole.clean
    assert some.honest["right"] == whole.honest["right"] > 0
    assert some.completions == whole.completions
    nothing = lint(lambda prompts, completions, **columns: [None] * len(completions), SPACE)
    assert nothing.clean and nothing.honest == {} and not nothing.sees_answers
