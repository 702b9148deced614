"""A cycle's page: the decision first, nothing fetched, and no text that becomes code."""

import random
import re

import pytest

from curation.render.charts import Axis, Curve
from curation.render.cycle_report import (
    Compared,
    ComparedExample,
    Control,
    CycleReport,
    FamilyChange,
    FamilyCount,
    Gate,
    StageLine,
    TrainingCurves,
    answered,
    duration,
    render_page,
    render_summary,
)
from curation.scores.bootstrap import difference, mean_of
from curation.scores.collapse import CollapseCheck
from curation.scores.gate import GatePolicy, Paired, decide
from mcts.data import Point
from tests.curation.test_gallery import EVIL, encoded, question_about, traced


def paired(n, gain, seed=0, family="side"):
    """Questions of `n` images, some of which only the challenger has right."""
    rng = random.Random(seed)
    before = [float(rng.random() < 0.5) for _ in range(n)]
    after = [max(score, float(rng.random() < gain)) for score in before]
    return [Paired(a, b, i, family) for i, (a, b) in enumerate(zip(before, after, strict=True))]


def compared(family, some):
    before, after = [p.champion for p in some], [p.challenger for p in some]
    scenes = [p.scene for p in some]
    return Compared(
        family, mean_of(before, scenes), mean_of(after, scenes), difference(after, before, scenes)
    )


def example(image, text="Is the box left or right?"):
    question = question_about(image, text=text)
    answers = (
        answered(traced(question, Point(20, 30), Point(60, 10), answer=answer), right,
                 question, [image])
        for answer, right in (("right", False), ("left", True))
    )  # fmt: skip
    return ComparedExample(question, *answers)


def decided(**more):
    """The report of a cycle that came to a decision."""
    side, depth = paired(40, 0.1), paired(60, 0.1, 1, "depth")
    gate = decide(GatePolicy(), [*side, *depth], 2)
    return CycleReport(
        "sat2", 7, str(gate.outcome) + "d", gate.reason, "28 November 2026, 02:10 UTC",
        "28 November 2026, 02:31 UTC", "sat2-cycle-6-grpo@1a2b", "sat2-cycle-7-grpo@3c4d",
        stages=(
            StageLine("look", True, None, None, "60 questions without a search"),
            StageLine("build", True, 754.0, 41230, "60 questions searched, 402 traces kept"),
            StageLine("gate", True, 3.2, None, gate.reason),
        ),
        steps={"new questions": 60, "kept by every filter": 402},
        sources={"rooms.parquet": 60}, rejects=("3 rows of rooms.parquet: r.csv says why",),
        arrived=(FamilyCount("depth", 24, 24, 20, 160),), teachers={"nano-teacher@9f": 60},
        funnel=({"filter": "grounding", "kept": 500, "dropped": 90, "dropped_by_it_alone": 40},),
        dataset="sat2-cycle@v7", before="sat2-cycle@v6",
        changes=(FamilyChange("depth", 24, 1, 160, 12, 900),),
        trainings=(TrainingCurves("sft", "m@1", (Curve.of("loss", [(1, 2.5), (9, 1.0)]),)),),
        gate=Gate(gate.p, gate.spent, 2, 0.05, 0.01, 0.1, gate.enough,
                  (Control("format", 0.99, 0.95, 0.02), Control("blank", 0.4, 0.42, 0.05)),
                  {"tokens": (61.2, 74.8), "seconds": (0.21, 0.34)}),
        compared=(compared("all", [*side, *depth]), compared("side", side)),
        behaviors=(("regions", 2.1, 2.4),),
        commands=(("The dataset", "vigorl dataset show sat2-cycle@v7"),),
        settings={"alpha": 0.05}, **more,
    )  # fmt: skip


def words_of(html):
    """What a reader sees."""
    body = re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", body)


def test_the_page_begins_with_the_decision_and_shows_the_numbers_behind_it():
    report = decided()
    page = render_page(report)
    seen = words_of(page)
    assert seen.index(report.verdict) < seen.index(report.reason[1:]) < seen.index("The decision")
    all_, gate = report.compared[0], report.gate
    assert f"{100 * all_.gain.value:+.1f}" in seen and "100" in seen
    assert gate.enough and f"With {gate.enough:,} questions a gain of this size" in seen
    assert "✗ fails" in seen and "✓ holds" in seen, "format fell by 4 points, blank rose by 2"
    for told in (
        "41,230",
        "12 min 34 s",
        "sat2-cycle@v6",
        "+160",
        "-12",
        "vigorl dataset show",
        "An answer takes 75 tokens and 0.34 s of the challenger, 61 and 0.21 s",
    ):
        assert told in seen, told
    assert 'points="0.00,0.00 100.00,40.00"' in page, "the loss falls from top to bottom"


def test_the_page_fetches_nothing_and_no_text_becomes_code():
    report = decided(gained=(example(encoded("red"), text=EVIL),), since=(EVIL,))
    page = render_page(report)
    assert "<script" not in page and "onerror=alert" not in page.replace("onerror=alert(2)&gt;", "")
    sources = re.findall(r"""(?:src|href)="([^"]*)""", page)
    assert len(sources) == 3 and all(source.startswith("data:") for source in sources)
    assert "url(" not in page and "@import" not in page


def test_a_cycle_that_ended_early_has_a_page_of_what_there_is():
    report = CycleReport(
        "sat2", 1, "too_few", "12 new traces were kept, 50 are wanted",
        stages=(StageLine("look", True), StageLine("publish", False)),
    )  # fmt: skip
    seen = words_of(render_page(report))
    assert "Too few new traces 12 new traces were kept, 50 are wanted." in seen
    assert "publish not reached" in seen
    assert "The decision" not in seen and "Training" not in seen and "Examples" not in seen
    assert render_summary(report).startswith("## Too few new traces: sat2, cycle 1\n")


def test_a_collapse_names_the_measure_on_the_page_and_in_the_summary():
    checks = (
        CollapseCheck("places", 0.9, 0.5, 0.13, 0.02, True, "sat2-cycle-1"),
        CollapseCheck("grounded", 0.9, 0.89, 0.05, 0.02, False, "sat2-cycle-1"),
    )
    report = CycleReport("sat2", 2, "collapsed", checks[0].sentence, collapse=checks)
    assert "places sat2-cycle-1 0.9 0.5 0.13 ✗ fails" in words_of(render_page(report))
    assert "Stopped: places falls from 0.9 to 0.5" in render_summary(report)


def test_the_summary_is_short_and_has_the_table():
    text = render_summary(decided(gained=(example(encoded("red")),)))
    assert "| side | 40 |" in text and len(text) < 1500 and "data:" not in text


def test_an_image_that_cannot_be_read_is_left_out():
    shown = example(encoded("red"))
    assert len(shown.champion.images) == 1
    question = shown.question
    trace = traced(question, Point(1, 1))
    drawn = answered(trace, True, question, [b""])
    assert drawn.images == () and drawn.answer == "left"
    assert drawn.thoughts == ("A thing at (1, 1).",)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([-0.04, 0.11], [-0.05, 0.0, 0.05, 0.1, 0.15]),
        ([0.0, 0.0], [0.0, 0.5, 1.0]),
        ([0.02, 0.021], [0.0, 0.01, 0.02, 0.03]),
    ],
)
def test_an_axis_has_round_ends_and_holds_every_value(values, ticks):
    axis = Axis.around(values, also=[0.0])
    assert axis.ticks == ticks or (axis.ticks[0] <= min(values) and axis.ticks[-1] >= max(values))
    assert 0 <= axis.at(min(values)) <= axis.at(max(values)) <= 100
    assert axis.at(axis.low) == 0 and axis.at(axis.high + 1) == 100


def test_a_long_series_is_thinned_and_keeps_its_ends():
    curve = Curve.of("loss", [(step, 1000.0 - step) for step in range(1000)])
    assert len(curve.line.split()) == 200
    assert (curve.first, curve.last, curve.steps) == (1000.0, 1.0, 999)
    with pytest.raises(ValueError, match="two points"):
        Curve.of("loss", [(1, 2.0)])


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "–"), (3.2, "3 s"), (125, "2 min 5 s"), (7260, "2 h 1 min")]
)
def test_times_have_two_units_at_most(seconds, said):
    assert duration(seconds) == said


def test_a_control_is_harmed_where_the_gate_says_so_to_the_point() -> None:
    """0.99 - 0.97 is more than 0.02 to a float."""
    assert not Control("format", 0.99, 0.97, 0.02).harmed
    assert not Control("blank", 0.97, 0.99, 0.02).harmed
    assert Control("format", 0.99, 0.969, 0.02).harmed
