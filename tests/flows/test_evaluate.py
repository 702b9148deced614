"""What is said about an evaluation: the sentence, the comparisons, the tables by family."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from curation.scores.bootstrap import PairedDifference
from flows.settings import EvaluateSettings
from flows.stages.evaluate import Outcome, _Benchmark
from flows.teachers.response_styles import WayOfAsking
from mcts.zoom.config import ZoomConfig
from tests.support.zoom_trees import ZOOM
from tests.training.test_report import reported
from training.evaluation.measure import _evaluation_row
from training.evaluation.report import compare, make_report
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new

NEAR, FAR = ("near", "left"), ("far", "right")
CLEAR = PairedDifference(0.25, 0.125, 0.375, 0.002, 3, 1, 0.625, 8, 6)
UNCLEAR = PairedDifference(-0.5, -1.0, 0.0, 1.0, 0, 2, 0.5, 4, 4)


def test_an_evaluation_is_summed_up_with_its_interval_and_its_control() -> None:
    report = reported({"a": NEAR, "b": NEAR, "c": FAR, "d": FAR}, "m@2")
    sentence = Outcome(report).sentence()
    assert sentence.startswith("m@2 on sat2/test: 50.0% right, 95% interval [")
    assert sentence.endswith("], 4 questions about 4 groups of images")
    low, high = sentence.partition("[")[2].partition("]")[0].split(", ")
    found = report.figures["all"]["accuracy"]
    assert (low, high) == (f"{100 * found.low:.1f}", f"{100 * found.high:.1f}")
    for control, kind in (("blank", "images"), ("noise", "crops"), ("elsewhere", "crops")):
        report.settings["control"] = control
        assert Outcome(report).sentence() == f"{sentence}, {control} {kind}"


def test_an_evaluation_of_which_nothing_can_be_graded_says_so() -> None:
    report = reported({"a": NEAR, "b": FAR}, "m@2")
    drawn = {q: [replace(p, score=None) for p in some] for q, some in report.predictions.items()}
    none = make_report("e", "m@2", "sat2/test", {}, report.questions, drawn)
    outcome = Outcome(none, second=report, differences=compare(none, report))
    assert outcome.sentence() == ("m@2 on sat2/test: no answer to any of 2 questions can be graded")
    assert outcome.comparison() == "m@2 minus m@2: no question was graded of both"
    assert outcome.differences_by_family() == []
    row = _evaluation_row(none)
    assert [row[name] for name in ("accuracy", "low", "high", "n_scenes")] == [None] * 3 + [2]


def test_a_comparison_names_both_models_and_says_where_it_is_not_clear() -> None:
    first, second = reported({"a": NEAR}, "one@1"), reported({"a": NEAR}, "two@1")
    outcome = Outcome(first, second=second, differences={"all": CLEAR}, gain={"all": UNCLEAR})
    assert outcome.comparison() == (
        "one@1 minus two@1: +25.0 points, 95% interval [+12.5, +37.5] (bootstrap over images "
        "p = 0.002; 3 right only by the first, 1 only by the second, McNemar p = 0.62)"
    )
    assert outcome.zoom_gain() == (
        "zoom minus no zoom: -50.0 points, 95% interval [-100.0, +0.0], which includes 0 "
        "(bootstrap over images p = 1; 0 right only with zoom, 2 only without, McNemar p = 0.5)"
    )


@pytest.mark.parametrize(
    ("table", "titles"),
    [
        ("differences_by_family", ("first minus second", "only the first", "only the second")),
        ("gain_by_family", ("zoom minus no zoom", "only with zoom", "only without")),
    ],
)
def test_each_family_has_its_row_in_a_comparison(table: str, titles: tuple[str, str, str]) -> None:
    found = {"all": CLEAR, "near": UNCLEAR}
    outcome = Outcome(reported({"a": NEAR}), differences=found, gain=found)
    rows = getattr(outcome, table)()
    assert [list(row) for row in rows] == [["family", "questions", *titles, "McNemar p"]] * 2
    assert [list(row.values()) for row in rows] == [
        ["all", "8", "+25.0 [+12.5, +37.5]", "3", "1", "0.62"],
        ["near", "4", "-50.0 [-100.0, +0.0]", "0", "2", "0.5"],
    ]


def test_a_table_ends_with_the_same_model_without_zoom() -> None:
    zoomed, plain = reported({"a": NEAR, "b": FAR}), reported({"a": FAR, "b": FAR})
    rows = Outcome(zoomed, no_zoom=plain).rows()
    assert rows[:-1] == zoomed.rows() == Outcome(zoomed).rows()
    assert rows[-1] == plain.rows()[0] | {"family": "no zoom"}


def test_everything_measured_is_in_the_data_of_an_outcome() -> None:
    one, two, three = (reported({"a": NEAR}, f"{n}@1") for n in ("one", "two", "three"))
    assert Outcome(one).reports == [one] and Outcome(one).plain() == one.plain()
    whole = Outcome(one, two, {"all": CLEAR}, three, {"all": UNCLEAR})
    assert whole.reports == [one, three, two]
    data = whole.plain()
    assert (data["against"], data["no_zoom"]) == (two.plain(), three.plain())
    assert data["differences"]["all"]["value"] == 0.25 and data["zoom_gain"]["all"]["n"] == 4


def test_a_student_of_grpo_is_asked_for_the_steps_it_was_trained_with(tmp_path: Path) -> None:
    """Its own recipe's, whatever other models' names begin with the name that was typed."""
    recipes = [
        ("nano-zoom-grpo-1a", {"kind": "grpo", "min_thoughts": 5}),
        ("nano-zoom-grpo-2b", {"kind": "grpo", "min_thoughts": 6}),
        ("imitated", {"kind": "sft", "min_thoughts": 7}),
        ("older", {"kind": "grpo"}),
    ]
    home = Warehouse.at(str(tmp_path))
    insert_new(home, "models", [
        {"model_id": f"{name}@1", "name": name, "base": "b@0", "path": f"models/{name}",
         "recipe": json.dumps(recipe), "metrics": "{}", "run_id": "r"}
        for name, recipe in recipes
    ])  # fmt: skip
    settings = EvaluateSettings.checked(model="x", benchmark="sat2", home=home.root)
    asked = _Benchmark(home, settings, [], "test", print)

    def demanded(name: str, zoom: ZoomConfig | None = None) -> int:
        return asked._demanded(name, WayOfAsking("points", zoom))

    assert demanded("nano-zoom-grpo-1a") == 5 == demanded("nano-zoom-grpo-1a@1", ZOOM)
    assert demanded("vllm:nano-zoom-grpo-2b") == 6
    assert (demanded("imitated"), demanded("older")) == (3, 3)
    assert demanded("nano-zoom-grpo-1a + nano-zoom-grpo-2b@1") == 6
    for other in ("nano-zoom", "http://127.0.0.1:1"):
        assert (demanded(other), demanded(other, ZOOM)) == (3, 1)
