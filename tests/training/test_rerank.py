"""Best-of-n: the sample of the highest value is chosen, and held against voting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from flows.settings import EvaluateSettings
from flows.settings_base import Problem
from flows.stages.evaluate import Outcome
from mcts.data import AnswerKind, Box, Image, Question
from tests.flows.test_cli import run
from tests.support.trained import warehouse_with_traces
from tests.training.test_prm import prm
from tests.training.test_report import prediction, question
from training.evaluation.report import EvaluationReport, make_report
from training.values.prm import train_prm
from training.values.rerank import RULES, WEIGHTED, Values, choose

RIGHT, WRONG = "left", "right"


def report_of(*answers: Sequence[str | None]) -> EvaluationReport:
    asked = [question(str(i), "") for i in range(len(answers))]
    drawn = {
        q.question_id: [prediction(q.question_id, one or "", i) for i, one in enumerate(some)]
        for q, some in zip(asked, answers, strict=True)
    }
    return make_report("e", "m@1", "sat2/test", {}, asked, drawn)


def values_of(report: EvaluationReport, *values: Sequence[Values]) -> dict[str, Sequence[Values]]:
    return {q.question_id: some for q, some in zip(report.questions, values, strict=True)}


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        ("last", ([0.1, 0.9], [0.9, 0.5], [0.9, 0.8])),
        ("min", ([0.5, 0.4], [0.9, 0.2], [0.3, 0.9])),
        ("product", ([0.9, 0.9], [1.0, 0.5], [0.8, 1.0])),
        ("mean", ([0.6, 0.6], [1.0, 0.1], [0.2, 0.9])),
    ],
)
def test_the_sample_of_the_highest_value_is_chosen(rule: str, values: Sequence[Values]) -> None:
    report = report_of([RIGHT, WRONG, WRONG])
    found = choose(report, "judge@1", values_of(report, values))
    assert found.chosen[rule].value == 1.0, "by that rule the first is the best"
    shifted = choose(report, "judge@1", values_of(report, (*values[1:], values[0])))
    assert shifted.chosen[rule].value == 0.0
    assert set(found.chosen) == {*RULES, WEIGHTED}


def test_it_is_held_against_voting_and_one_sample_question_by_question() -> None:
    report = report_of([RIGHT, WRONG, WRONG], [RIGHT, RIGHT, WRONG], [WRONG, WRONG, WRONG])
    values = values_of(
        report,
        ([0.9], [0.4], [0.4]), ([0.3], [0.3], [0.5]), ([0.1], [0.2], [0.3]),
    )  # fmt: skip
    found = choose(report, "judge@1", values)
    assert found.pass_at_1.value == pytest.approx(1 / 3)
    assert (found.majority.value, found.pass_at_k.value) == pytest.approx((1 / 3, 2 / 3))
    assert found.chosen["last"].value == pytest.approx(1 / 3), "right once, misled once"
    assert found.chosen[WEIGHTED].value == pytest.approx(2 / 3)
    gap = found.over_majority[WEIGHTED]
    assert (gap.value, gap.only_first, gap.only_second) == (pytest.approx(1 / 3), 1, 0)
    assert gap.low <= gap.value <= gap.high
    table = {row["chosen by"]: row for row in found.rows()}
    assert table["voting"]["right"].startswith("33.3") and not table["voting"]["minus voting"]
    assert table[WEIGHTED]["minus voting"].startswith("+33.3 [")
    assert found.sentence().startswith("best of 3 by judge@1 minus voting: +0.0 points")
    assert Outcome(report, reranking=found).plain()["rerank"]["chosen"]["last"]["n"] == 3


def test_points_a_pixel_apart_vote_together() -> None:
    asked = Question(
        "any", "Where?", (Image("a", 640, 480),), AnswerKind.BOX, boxes=(Box(140, 90, 160, 110),)
    )
    answers = [*(f"({x}, 100)" for x in range(150, 155)), *["(400, 300)"] * 3]
    drawn = [
        prediction(asked.question_id, answer, i, score=float(i < 5))
        for i, answer in enumerate(answers)
    ]
    report = make_report("e", "m@1", "any/test", {}, [asked], {asked.question_id: drawn})
    assert report.figures["all"]["majority"].value == 1.0
    assert report.figures["all"]["accuracy"].value == 0.625
    values = {asked.question_id: [[0.3]] * 5 + [[0.4]] * 3}
    assert choose(report, "judge@1", values).chosen[WEIGHTED].value == 1.0


def test_an_answer_without_a_value_is_never_chosen() -> None:
    report = report_of([WRONG, RIGHT], [WRONG, WRONG])
    found = choose(report, "judge@1", values_of(report, (None, [0.01]), (None, None)))
    assert found.chosen["last"].value == found.chosen[WEIGHTED].value == 0.5


@pytest.mark.parametrize(
    "given",
    [{"samples": 1}, {"samples": 2, "temperature": 1.0, "control": "blank"},
     {"pass_at": 2, "prefixes": 1}],
)  # fmt: skip
def test_what_cannot_be_reranked_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(Problem, match="rerank: give several samples, and neither prefixes nor"):
        EvaluateSettings.checked(model="m", benchmark="sat2", rerank="judge", **given)


def test_a_trained_model_reranks_an_evaluation_and_is_no_student(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = warehouse_with_traces(tmp_path)
    assert train_prm(warehouse, prm("steps=2"), "kept", name="judge") is not None
    home = Path(warehouse.root)
    asked = ("evaluate", "nano-base", "sat2", "--pass-at", "3", "--limit", "4")
    assert run(*asked, "--rerank", "judge", home=home) == 0
    said = capsys.readouterr().out
    assert "best of 3 by judge@" in said and "minus voting" in said and WEIGHTED in said
    for arguments, sentence in (
        ((*asked, "--rerank", "nano-base"), "has no value head: `vigorl train prm` makes one"),
        (("evaluate", "judge", "sat2", "--split", "train"),
         "judge is a process reward model: it values steps"),
        (("train", "sft", "nano-sft", "--dataset", "kept", "--model", "judge"),
         "is a process reward model: it values steps, and no training starts from it"),
        (("build", "sat2", "--value-model", "nano-base"), "no model 'nano-base' was trained here"),
        (("build", "sat2", "--value-model", "judge", "--response-style", "zoom"), "value_model: "),
        (("build", "sat2", "--value-model", "judge", "--strategy", "linear"),
         "value_model: only for the strategies mcts and auto"),
    ):  # fmt: skip
        assert run(*arguments, home=home) == 2, arguments
        assert sentence in capsys.readouterr().err, arguments


@pytest.mark.slow
def test_a_guided_build_that_is_killed_goes_on_and_is_replayed_to_the_same_trees(
    tmp_path: Path,
) -> None:
    import shutil

    from tests.flows.test_build import contents, vigorl

    begun = tmp_path / "begun"
    begun.mkdir()
    warehouse = warehouse_with_traces(begun)
    assert train_prm(warehouse, prm("steps=2"), "kept", name="judge") is not None
    homes = [Path(warehouse.root), Path(shutil.copytree(warehouse.root, tmp_path / "killed"))]
    guided = ("build", "sat2", "--simulations", 2, "--limit", 2, "--value-model", "judge",
              "--value-rollouts", 1, "--concurrency", 1)  # fmt: skip
    vigorl(*guided, home=homes[0])
    killed = vigorl(*guided, home=homes[1], failpoint="after_journal:5", check=False)
    assert killed.returncode == 137, killed.stderr
    vigorl(*guided, home=homes[1])
    # What was cached of a prompt is in the other tables, and differs after a start.
    straight, resumed = (contents(home, ("nodes", "rollouts")) for home in homes)
    assert straight == resumed
    replayed = vigorl(*guided, "--replay", home=homes[1])
    assert "2 of 2 trees rebuilt" in replayed.stdout
    assert "2 are those of the warehouse, 0 are new, 0 differ" in replayed.stdout
