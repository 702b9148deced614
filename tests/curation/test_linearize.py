"""Trees become traces: every direct chain, and corrected ones that tell what is shared once."""

from dataclasses import replace

import pytest

from curation.filters.base import Context, apply_filters
from curation.filters.rules import FILTERS, NoRepeatedPoint
from curation.traces.linearize import linearize
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Origin, Point, Step, Trace
from mcts.parsing import parse, render
from tests.support.grown import FORK, grow, think
from tests.support.scripted import QUESTION, seeded_teacher

PIXELS = Frame(CoordinateSpace.original(), QUESTION.images)


def xs(trace):
    return [step.point.x for step in trace.steps]


def test_every_answer_is_a_direct_chain_right_or_wrong():
    traces = linearize(grow(FORK, simulations=1, children=2))
    direct = [trace for trace in traces if trace.kind == "direct"]
    assert [(xs(t), t.answer, t.reward) for t in direct] == [
        ([100, 110], "right", 0),
        ([100, 120], "left", 1),
        ([200, 210], "left", 1),
        ([200, 220], "left", 1),
    ]
    assert direct[0].origins == (Origin(1, None, "/expand/0"), Origin(1, 0, "0/rollout/0"))


def test_a_corrected_chain_tells_the_shared_prefix_once():
    corrected = [t for t in linearize(grow(FORK, simulations=1, children=2)) if t.wrong_from]
    (same_node,) = corrected
    assert xs(same_node) == [100, 110, 120]
    assert (same_node.wrong_from, same_node.turns_back_at) == (1, 2)
    assert same_node.steps[2].thought.endswith("Thing at (120, 120).")
    assert same_node.steps[2].thought != "Thing at (120, 120)."
    assert same_node.answer == "left" and same_node.reward == 1


def test_the_wrong_attempt_may_be_a_sibling():
    traces = linearize(grow(FORK, simulations=1, children=2))
    siblings = [t for t in traces if t.kind == "corrected" and t.wrong_from == 0]
    assert [xs(t) for t in siblings] == [[100, 110, 200, 210], [100, 110, 200, 220]]
    assert all(t.turns_back_at == 2 for t in siblings)
    assert siblings[0].origins[0].node_id == 1 and siblings[0].origins[2].node_id == 2


def test_steps_that_two_rollouts_share_are_told_once():
    script = {
        **FORK,
        ("0", "rollout", 0): f"{think(300)}\n{think(310)}\n<answer>right</answer>",
        ("0", "rollout", 1): f"{think(300)}\n{think(320)}\n<answer>left</answer>",
    }
    found = [t for t in linearize(grow(script, simulations=1, children=2)) if t.wrong_from == 2]
    assert [xs(trace) for trace in found] == [[100, 300, 310, 320]]
    assert found[0].turns_back_at == 3 and found[0].origins[1] == Origin(1, 1, "0/rollout/1")
    same = {("0", "rollout", i): f"{think(300)}\n<answer>{a}</answer>"
            for i, a in enumerate(("right", "left"))}  # fmt: skip
    found = linearize(grow({**FORK, **same}, simulations=1, children=2))
    assert not [t for t in found if t.wrong_from and xs(t).count(300) > 1], "nothing was looked at"


def test_nothing_is_turned_back_from_that_only_misses_the_form():
    for missed in ("It is on the left", "left or so"):
        script = {key: text.replace(">right<", f">{missed}<") for key, text in FORK.items()}
        traces = linearize(grow(script, simulations=1, children=2))
        assert {trace.kind for trace in traces} == {"direct"}
        assert any(trace.reward == 0 for trace in traces)


def test_a_tree_without_a_wrong_answer_has_nothing_to_correct():
    script = {key: text.replace("right", "left") for key, text in FORK.items()}
    assert {t.kind for t in linearize(grow(script, simulations=1, children=2))} == {"direct"}


def test_the_same_reasoning_is_told_once():
    script = {**FORK, ("1", "rollout", 0): "<answer>left</answer>"}
    script["1", "rollout", 1] = "<answer>left</answer>"
    traces = linearize(grow(script, simulations=1, children=2))
    assert [xs(t) for t in traces if t.kind == "direct"] == [[100, 110], [100, 120], [200]]


def test_traces_are_canonical_and_named_by_content():
    tree = grow({}, seeded_teacher, simulations=12)
    traces = linearize(tree)
    assert traces == linearize(tree)
    assert len({trace.trace_id for trace in traces}) == len(traces) > 20
    assert {trace.kind for trace in traces} == {"direct", "corrected"}
    for trace in traces:
        for one_block in (False, True):
            text = render(trace.steps, trace.answer, PIXELS, one_block=one_block)
            assert parse(text, PIXELS).steps == trace.steps
        assert len(trace.origins) == len(trace.steps)


def test_remarks_behind_a_point_move_to_the_next_step_as_the_parser_reads_them():
    remark = "<think>Box at (100, 100). So it is far.</think>"
    script = {("", "expand", 0): remark, ("0", "rollout", 0): think(300) + "<answer>left</answer>"}
    (trace,) = linearize(grow(script, simulations=1, children=1, rollouts=1))
    assert [s.thought for s in trace.steps] == [
        "Box at (100, 100).",
        "So it is far.\nThing at (300, 300).",
    ]


def trace_of(*thoughts, answer="left", reward=1.0, **fields):
    steps = parse("".join(f"<think>{t}</think>" for t in thoughts), PIXELS).steps
    kind = fields.pop("kind", "direct")
    return Trace(QUESTION.question_id, steps, answer, reward, kind, **fields)


GOOD = trace_of("Box (10, 10).", "Ball (500, 500).")


@pytest.mark.parametrize(
    ("trace", "filter", "reason"),
    [
        (replace(GOOD, reward=0.0), "right_answer", "the answer is wrong"),
        (replace(GOOD, reward=None), "right_answer", "the answer was not graded"),
        (replace(GOOD, problems=("unclosed_think",)), "well_formed", "unclosed_think"),
        (replace(GOOD, steps=()), "well_formed", "no thought"),
        (replace(GOOD, steps=(Step("Hm."), *GOOD.steps)), "point_in_every_step", "step 1"),
        (trace_of("Box (10, 1010)."), "inside_image", "(10, 1010) is outside image 1"),
        (trace_of("Box (10, 10).", "It (12, 9)."), "no_repeated_point", "step 2 cites the place"),
        (
            trace_of(*(f"I check again ({x}, 10)." for x in (9, 10, 11))),
            "no_repeated_point",
            "step 3 cites the place of step 2",
        ),
        (
            trace_of("Check again. Check again. Check again. Box (10, 10)."),
            "well_formed",
            "it says 'Check again.' again and again",
        ),
        (
            trace_of("Is it? No. Is it? No. Is it? No. Box (10, 10)."),
            "well_formed",
            "it says 'Is it?' again and again",
        ),
        (trace_of(*["Wait, look again (10, 10)."] * 3), "well_formed", "again and again"),
    ],
)
def test_a_filter_rejects_with_its_reason(trace, filter, reason):
    verdicts = {verdict.filter: verdict for verdict in apply_filters(trace, QUESTION, FILTERS)}
    assert not verdicts[filter].keep and reason in verdicts[filter].reason
    assert len(verdicts) == len(FILTERS), "every filter speaks"


@pytest.mark.parametrize(
    ("trace", "filter", "measured"),
    [
        (GOOD, "right_answer", 1.0),
        (replace(GOOD, reward=0.5), "right_answer", 0.5),
        (replace(GOOD, reward=None), "right_answer", None),
        (
            replace(GOOD, problems=("unclosed_think", "empty_think", "empty_think")),
            "well_formed",
            2,
        ),
        (replace(GOOD, problems=("answer_forced",)), "well_formed", 0),
        (GOOD, "point_in_every_step", 1.0),
        (replace(GOOD, steps=(Step("Hm."), *GOOD.steps)), "point_in_every_step", 2 / 3),
        (replace(GOOD, steps=()), "point_in_every_step", None),
        (trace_of("Box (10, 1010), (20, 1010) and (5, 5)."), "inside_image", 2),
        (GOOD, "no_repeated_point", 0),
        (trace_of(*["Box (10, 10)."] * 3, "It (12, 9)."), "no_repeated_point", 3),
        (
            trace_of("Box (10, 10).", "Looking again (11, 10).", "It (12, 9)."),
            "no_repeated_point",
            1,
        ),
    ],
)
def test_a_verdict_holds_what_was_measured(trace, filter, measured):
    verdicts = {verdict.filter: verdict for verdict in apply_filters(trace, QUESTION, FILTERS)}
    assert verdicts[filter].score == (measured if measured is None else pytest.approx(measured))


def test_repeated_points_are_allowed_up_to_their_number():
    trace = trace_of(*["Box (10, 10)."] * 3)
    assert [NoRepeatedPoint(max_repeats=n).apply(trace, QUESTION, Context()).keep
            for n in (0, 1, 2)] == [False, False, True]  # fmt: skip


@pytest.mark.parametrize(
    "trace",
    [
        GOOD,
        trace_of("Box (10, 10).", "Looking again, it is at (11, 10)."),
        trace_of("Box (10, 10).", "So it is left."),
        trace_of("A cup (10, 10).", "A cup (50, 50).", "A cup (90, 90).", "So there are 3."),
        trace_of("Box (10, 10).", "I check the box (11, 10).", "I check it again (10, 11)."),
        trace_of("Left? No. Right? No. Then it is here (10, 10)."),
        replace(
            trace_of("Shared (1, 1).", "Box (10, 90).", "Wait. Look (90, 90).", "Box (10, 90)."),
            kind="corrected",
            wrong_from=1,
            turns_back_at=2,
        ),
        replace(GOOD, problems=("answer_forced",)),
    ],
)
def test_good_traces_are_kept_by_every_filter(trace):
    assert [v for v in apply_filters(trace, QUESTION, FILTERS) if not v.keep] == []


def test_returning_into_the_shared_part_is_a_repeat_even_after_turning_back():
    trace = replace(
        trace_of("Shared (1, 1).", "Box (10, 90).", "Wait. Look (90, 90).", "It (1, 2)."),
        kind="corrected", wrong_from=1, turns_back_at=2,
    )  # fmt: skip
    rejected = [v.reason for v in apply_filters(trace, QUESTION, FILTERS) if not v.keep]
    assert rejected == ["step 4 cites the place of step 1 again"]
    assert Point(1, 1) in trace.points


@pytest.mark.parametrize(
    ("said", "turns_back"), [("right", True), ("Left, I think", False), ("behind", False)]
)
def test_nothing_turns_back_from_an_answer_that_only_misses_its_form(said, turns_back):
    choices = replace(QUESTION, choices=("left", "right"))
    script = {
        ("", "expand", 0): think(100), ("", "expand", 1): think(200),
        ("0", "rollout", 0): f"{think(300)}<answer>{said}</answer>",
        ("1", "rollout", 0): f"{think(400)}<answer>left</answer>",
    }  # fmt: skip
    tree = grow(script, question=choices, simulations=1, children=2, rollouts=1)
    assert ("corrected" in {trace.kind for trace in linearize(tree)}) == turns_back
