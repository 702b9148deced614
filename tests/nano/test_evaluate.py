"""What evaluation on rooms adds: guessing, grounded answers, whether blind ones are guesses."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from curation.filters import grounding
from curation.grading.grade import grade
from curation.scores.bootstrap import mean_of
from curation.scores.prediction import Prediction
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Box, Image, Question, Trace
from mcts.parsing import parse
from tests.support.fixtures import sat_rows, write_sat
from training.evaluation.report import make_report
from vigorl_nano import BASE, evaluate
from vigorl_nano.evaluate import blind_sentence, make_measurement, markdown, side_by_side

IMAGES = (Image("a" * 64, 400, 400), Image("b" * 64, 400, 400))
QUESTION = Question(
    "sat2", "Which has moved?", IMAGES, AnswerKind.TEXT, ("red box", "blue ball"), ("red box",),
    family="object_moved",
)  # fmt: skip
OBJECTS = (
    [Box(40, 40, 80, 80, label="red box"), Box(200, 200, 240, 240, label="blue ball")],
    [Box(120, 40, 160, 80, label="red box"), Box(200, 200, 240, 240, label="blue ball")],
)
# Thousandths: the red box's middle is (150, 150) in the first image, (350, 150) in the second.
BEFORE = "<think>Before, the red box is at (150, 150) in image 1.</think>\n"
AFTER = "<think>After, the red box is at (350, 150) in image 2.</think>\n"
BALL = "<think>There is also a blue ball at (540, 560).</think>\n"
RIGHT, WRONG = "<answer>red box</answer>", "<answer>blue ball</answer>"


def prediction(text: str, question: Question = QUESTION) -> Prediction:
    parsed = parse(text, Frame.of(CoordinateSpace.qwen3_vl(), question))
    graded = grade(question, parsed.answer)
    trace = Trace(question.question_id, parsed.steps, parsed.answer, graded.score, "direct")
    return Prediction(
        question.question_id, 0, text, "stop", None, parsed.steps, parsed.answer, graded.score,
        graded.reason, parsed.answer in question.choices, (), None,
        tuple(found.grounded for found in grounding.check(trace, OBJECTS)),
    )  # fmt: skip


def shares(*texts: str) -> dict[str, float]:
    return evaluate._shares(QUESTION, [prediction(text) for text in texts])


def test_a_right_answer_with_every_point_on_its_object_is_grounded():
    assert shares(BEFORE + AFTER + BALL + RIGHT)["grounded pass@1"] == 1
    assert shares(BEFORE + AFTER + RIGHT)["grounded pass@1"] == 1


@pytest.mark.parametrize(
    "text",
    [
        BEFORE + AFTER + BALL + WRONG,
        BEFORE + AFTER + BALL.replace("540", "700") + RIGHT,  # beside the ball
        BEFORE + AFTER.replace("image 2", "image 1") + BALL + RIGHT,  # the wrong image
        BEFORE + AFTER + BALL.replace("ball", "box") + RIGHT,  # not in the image
        BEFORE + AFTER + BALL.replace("a blue ball", "it") + RIGHT,  # names nothing
        BEFORE + AFTER + BALL + "<think>So it is the red box.</think>" + RIGHT,
        RIGHT,
        BEFORE + AFTER + BALL,
    ],
)
def test_what_is_not_grounded(text):
    assert shares(text)["grounded pass@1"] == 0


def test_shares_of_a_question():
    found = shares(BEFORE + RIGHT, BALL.replace("540", "700") + RIGHT, BALL + WRONG, RIGHT)
    assert found["grounded pass@1"] == 0.25 and found["grounded pass@k"] == 1.0
    assert found["chance"] == 0.5 and found["guessing"] == 1 - 0.5**4
    assert found["on object"] == pytest.approx(2 / 3)
    assert shares(WRONG) == {
        "chance": 0.5, "guessing": 0.5, "grounded pass@1": 0, "grounded pass@k": 0, "on object": 0,
    }  # fmt: skip


def test_blind_guessing_is_within_the_margin_only_when_the_interval_is():
    def blind(right: int, of: int) -> str:
        gaps = [float(i % of < right) - 0.5 for i in range(3000)]
        return blind_sentence(mean_of(gaps, range(3000), level=0.9))

    assert "+0.0 points" in blind(1, 2) and "which lies within ±3" in blind(1, 2)
    assert "does not lie" in blind(11, 20)  # five points above chance


def test_a_measurement_has_a_row_for_all_and_each_family():
    questions = [
        Question(
            "sat2", f"?{n}", (Image(str(n) * 64, 400, 400),), AnswerKind.TEXT, QUESTION.choices,
            QUESTION.answers, family=family,
        )
        for n, family in enumerate(["closer", "closer", "colour"])
    ]  # fmt: skip

    def report(*texts):
        predictions = {q.question_id: [prediction(text, q) for text in texts] for q in questions}
        return make_report("e", "tiny@1", "sat2/test", {}, questions, predictions)

    found = make_measurement(report(RIGHT, WRONG), report(WRONG, WRONG), 2)
    assert list(found.figures) == ["all", "closer", "colour"]
    row = found.figures["all"]
    assert (row["pass@1"].value, row["pass@k"].value, row["pass@1"].n) == (0.5, 1.0, 3)
    assert (row["blank pass@1"].value, row["guessing"].value, found.gap.value) == (0.0, 0.75, -0.5)
    text = markdown(found)
    assert "3 questions about 3 scenes, 2 samples each" in text
    assert "right in one of 2 (pass@2)" in text and "| colour | 1 |" in text
    assert "90% interval [-50.0, -50.0], which does not lie" in text
    both = side_by_side([found, found]).splitlines()
    assert both[0] == "| in %, with 95% intervals | tiny | tiny |"
    assert "| guessing alone: pass@2 | 75.0 [75.0, 75.0] | 75.0 [75.0, 75.0] |" in both


@pytest.mark.parametrize("apart", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_command_measures_a_checkpoint_once(apart, tmp_path, monkeypatch, capsys):
    parquet = write_sat(tmp_path / "some.parquet", sat_rows(4))
    monkeypatch.setattr(evaluate, "RUNS", tmp_path / "runs")
    options = ["--folders", str(BASE), "--parquet", str(parquet), "--samples", "2", "--limit", "3"]
    files = ["--json", str(tmp_path / "f.json"), "--markdown", str(tmp_path / "f.md")]
    monkeypatch.setattr(sys, "argv", ["evaluate", *options, *files])
    if not apart:  # quicker than in processes of their own
        monkeypatch.setattr(evaluate, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    evaluate.main()
    first = capsys.readouterr().out
    assert "3 questions about" in first and "| left_right |" not in first  # the only family
    (plain,) = json.loads((tmp_path / "f.json").read_text())
    assert plain["figures"]["all"]["pass@1"]["n"] == 3 and plain["samples"] == 2
    assert (tmp_path / "f.md").read_text().strip() == first.strip()
    evaluate.main()  # everything is in the journal
    assert capsys.readouterr().out == first
