"""What evaluations of a claim's arms came to: intervals, expectations, tables, plots."""

import dataclasses
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from curation.scores.bootstrap import mean_of
from vigorl_nano.claims import scores
from vigorl_nano.claims.interval_plot import Row, draw_intervals
from vigorl_nano.claims.scores import (
    ArmScores,
    Expectation,
    differences,
    family_table,
    interval,
)
from vigorl_nano.claims.stages import Experiment

TITLES = {"vigorl": "ours", "grpo": "theirs", "sft": "others"}


def scores_of(**scores):
    n = len(next(iter(scores.values()))[0])
    return ArmScores(
        tuple(map(str, range(n))), tuple(range(n)),
        {name: np.array(rows, dtype=float) for name, rows in scores.items()},
    )  # fmt: skip


def test_one_seeds_interval_is_that_of_the_images():
    rng = np.random.default_rng(1)
    scenes = rng.integers(60, size=200)
    scores = rng.random(200).round()
    ours, known = interval(scores[None], list(scenes)), mean_of(list(scores), list(scenes))
    assert ours.value == pytest.approx(known.value)
    assert (ours.low, ours.high) == pytest.approx((known.low, known.high), abs=0.015)


def test_seeds_that_disagree_widen_the_interval():
    scenes = list(range(400))
    agreeing = np.full((3, 400), 0.5)
    differing = agreeing + np.array([[-0.2], [0.0], [0.2]])
    assert interval(agreeing, scenes).high - interval(agreeing, scenes).low == pytest.approx(0)
    apart = interval(differing, scenes)
    assert apart.low == pytest.approx(0.3) and apart.high == pytest.approx(0.7)


def test_the_claim_holds_only_where_the_gap_is_large_and_sure():
    n = 200
    ours = [[1.0] * (n - 20) + [0.0] * 20] * 2
    four_less = [[1.0] * (n - 28) + [0.0] * 28] * 2
    ten_less = [[1.0] * (n - 40) + [0.0] * 40] * 2
    found = scores_of(vigorl=ours, grpo=four_less, sft=ours)
    expected = [Expectation("vigorl", "grpo", least) for least in (0.05, 0.0)]
    expected += [Expectation("vigorl", "sft"), Expectation("vigorl", "nobody")]
    assert [d.held for d in differences(found, expected)] == [False, True, False]
    (one,) = differences(scores_of(vigorl=ours, grpo=ten_less), expected[:1])
    assert one.held and one.row()["held"]
    assert one.sentence(TITLES) == (
        f"- ours, minus theirs: +10.0 [+{100 * one.gap.low:.1f}, +{100 * one.gap.high:.1f}] "
        "points, at least 5 expected; holds."
    )


def test_a_gap_of_the_size_does_not_hold_where_its_interval_has_0():
    found = scores_of(vigorl=[[1.0, 1, 1, 0]], grpo=[[0.0, 0, 1, 1]])
    (one,) = differences(found, [Expectation("vigorl", "grpo", 0.25)])
    assert one.gap.value >= one.expected.least and one.gap.low <= 0 and not one.held
    assert one.sentence(TITLES).endswith("does not hold.")


def test_an_expectation_of_some_kinds_is_about_them_alone():
    found = scores_of(vigorl=[[1.0, 1.0, 0.0, 0.0]], grpo=[[0.0, 0.0, 1.0, 1.0]])
    found = dataclasses.replace(found, families=("side", "side", "search", "search"))
    kinds = [(), ("side",), ("search",)]
    all_, side, search = differences(
        found, [Expectation("vigorl", "grpo", families=some) for some in kinds]
    )
    assert (all_.gap.value, side.gap.value, search.gap.value) == (0, 1, -1)
    assert "on side alone" in side.sentence(TITLES) and "alone" not in all_.sentence(TITLES)


def test_kinds_of_questions_are_separated():
    found = scores_of(vigorl=[[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]])
    found = dataclasses.replace(found, families=("b", "b", "a", "a"))
    head, _, row = family_table(found, TITLES)
    assert head == "| trained as | a | b |"
    assert row.endswith("| 100.0 | 50.0 |") and "ours" in row


def test_the_plot_is_svg_whose_dots_lie_inside_their_intervals():
    found = scores_of(a=[[1.0, 0.0, 1.0, 0.0]], b=[[1.0, 0.0, 1.0, 1.0]])
    half, more = (interval(found.scores[name], found.scenes) for name in "ab")
    svg = ElementTree.fromstring(
        draw_intervals([Row("<a> & b", half), Row("c", more, True)], "t & t")
    )
    space = "{http://www.w3.org/2000/svg}"
    dots = [float(dot.get("cx")) for dot in svg.findall(f"{space}circle")]
    lines = [line for line in svg.findall(f"{space}line") if line.get("stroke-width")]
    for dot, line in zip(dots, lines, strict=True):
        assert float(line.get("x1")) < dot < float(line.get("x2"))
    assert dots[0] < dots[1]
    texts = [text.text for text in svg.findall(f"{space}text")]
    assert {"t & t", "<a> & b", "50.0", "75.0"} <= set(texts)


def test_a_long_label_of_the_plot_has_room_before_its_row():
    figure = interval(np.array([[1.0, 0.0]]), (0, 1))
    svg = ElementTree.fromstring(draw_intervals([Row("m" * 60, figure)], "t"))
    label = next(text for text in svg.iter() if text.text == "m" * 60)
    assert float(label.get("x")) > 60 * 6, "letters of 13 pixels are about as wide"


def test_a_question_that_one_model_left_unanswered_is_left_out_of_all(tmp_path, monkeypatch):
    answered = {"a": {"q1": 1.0, "q2": 0.0, "q3": 1.0}, "b": {"q1": 0.0, "q3": None}}
    asked = []

    def rows(warehouse, sql):
        asked.append((warehouse.root, sql))
        evaluation = "a" if warehouse.root.endswith("one") else "b"
        return pa.Table.from_pylist(
            [
                {
                    "evaluation_id": evaluation, "question_id": q, "images": [f"i{q}"],
                    "family": "search", "score": score, "ungraded": score is None,
                }
                for q, score in answered[evaluation].items()
            ]
        )  # fmt: skip

    monkeypatch.setattr(scores, "query", rows)
    found = scores.scores_of(
        Experiment(tmp_path, None),
        {
            "ours": [{"evaluation_id": "a", "home": str(tmp_path / "one")}],
            "theirs": [{"evaluation_id": "b", "home": str(tmp_path / "two")}],
        },
    )
    assert found.questions == ("q1",) and found.left_out == 2
    assert {name: each.tolist() for name, each in found.scores.items()} == {
        "ours": [[1.0]], "theirs": [[0.0]],
    }  # fmt: skip
    assert [root.rpartition("/")[2] for root, _ in asked] == ["one", "two"]
