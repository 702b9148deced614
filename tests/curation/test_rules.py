"""The rules that follow from a trace alone: where each begins to drop, its reason and its score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from curation.filters.base import Context
from curation.filters.rules import (
    FILTERS,
    InsideImage,
    NoRepeatedPoint,
    PointInEveryStep,
    RightAnswer,
    WellFormed,
)
from mcts.data import (
    AnswerKind,
    Box,
    Image,
    Observation,
    Point,
    Question,
    Step,
    Trace,
    Verdict,
    ZoomCall,
)

QUESTION = Question(
    "t", "?", (Image("a", 1000, 500), Image("b", 100, 100)), AnswerKind.TEXT, answers=("a",)
)
CONTEXT = Context(())


def at(x: float, y: float, image: int = 0, thought: str = "A thing.") -> Step:
    return Step(thought, (Point(x, y, image),))


def looking(x: float, y: float, crop: Box | None) -> Step:
    problem = "" if crop else "malformed"
    seen = Observation(crop, 9, 9, problem=problem)
    return Step("I look.", (Point(x, y),), ZoomCall(Point(x, y)), seen)


def trace(*steps: Step, **changed: Any) -> Trace:
    fields = {"answer": "a", "reward": 1.0, "kind": "direct"} | changed
    return Trace(QUESTION.question_id, steps, **fields)


def verdict(rule: Any, given: Trace) -> tuple[bool, str, float | None]:
    found: Verdict = rule.apply(given, QUESTION, CONTEXT)
    assert found.filter == rule.name
    return found.keep, found.reason, found.score


REMARK = Step("So it is a.")
FAR = at(900, 400)


def test_a_right_answer_is_one_with_full_marks() -> None:
    assert verdict(RightAnswer(), trace(reward=1.0)) == (True, "", 1.0)
    assert verdict(RightAnswer(), trace(reward=0.99)) == (False, "the answer is wrong", 0.99)
    assert verdict(RightAnswer(min_reward=0.5), trace(reward=0.5)) == (True, "", 0.5)
    assert verdict(RightAnswer(), trace(reward=None)) == (False, "the answer was not graded", None)
    none = verdict(RightAnswer(min_reward=0), trace(answer=None, reward=0.0))
    assert none == (False, "no answer was given", 0.0)


@pytest.mark.parametrize(
    ("problems", "keep"),
    [
        ((), True),
        (("answer_forced", "point_outside_image", "thought_without_point"), True),
        (("unread_shares",), True),  # no point, and its own filter's business
        (("unclosed_answer",), False),
    ],
)
def test_a_trace_is_well_formed_where_only_harmless_problems_were(
    problems: tuple[str, ...], keep: bool
) -> None:
    found = verdict(WellFormed(), trace(FAR, problems=problems))
    assert found == (keep, "" if keep else "the responses had: unclosed_answer", float(not keep))


@pytest.mark.parametrize(
    ("thought", "held"),
    [
        ("The <|vision_start|> and check again.", "'<|vision_start|>'"),
        ('It is tall, and {"coordinate": noomething', "'{\"coordinate'"),
        ("I think </think> so.", "'</think>'"),
        ("The sign is at (499, 71 at (771.072, 93)", "'(499, 71 at ('"),
        ("It stands at (499, 71 by the door.", "'(499, 71 by the door.'"),
        ("The lamp (499, 71) is left of the cup at (5, 6).", ""),
        ("A set {1, 2} and f(3, 4 apples) are no places, nor is a < b | c > d.", ""),
        ("In the image (3 cups, 2 plates) it is (499, 71).", ""),
        ('The page shows {"price": 3} as JSON at (4, 5).', ""),
        ("Es liegt bei (499,5, 71,0).", ""),
    ],
)
def test_a_thought_that_broke_off_inside_is_not_well_formed(thought: str, held: str) -> None:
    reason = f"step 2 holds {held}" if held else ""
    found = verdict(WellFormed(), trace(FAR, at(1, 1, thought=thought)))
    assert found == (not held, reason, 0.0)


def test_what_is_not_well_formed_is_listed_and_counted() -> None:
    bad = trace(FAR, problems=("unclosed_think", "no_answer", "no_answer"))
    assert verdict(WellFormed(), bad) == (
        False, "the responses had: no_answer, unclosed_think", 2.0,
    )  # fmt: skip
    assert verdict(WellFormed(), trace()) == (False, "it has no thought", 0.0)
    assert verdict(WellFormed(min_steps=0), trace()) == (True, "", 0.0)
    assert verdict(WellFormed(min_steps=2), trace(FAR)) == (False, "it has 1 steps", 0.0)
    assert verdict(WellFormed(min_steps=2), trace(FAR, REMARK))[0]
    forced = trace(looking(5, 5, Box(0, 0, 9, 9)), problems=("answer_forced",))
    assert verdict(WellFormed(), forced) == (False, "the responses had: answer_forced", 1.0)


@pytest.mark.parametrize(
    ("steps", "share", "reason"),
    [
        ((FAR, REMARK), 1.0, ""),
        ((FAR,), 1.0, ""),
        ((REMARK,), 0.0, "step 1 cites no point"),
        ((FAR, REMARK, REMARK), 0.5, "step 2 cites no point"),
        ((REMARK, FAR), 0.5, "step 1 cites no point"),
        ((), None, "it has no thought"),
        ((looking(5, 5, Box(0, 0, 9, 9)), REMARK, REMARK), 1.0, ""),  # about the crop before
        ((replace(looking(5, 5, None), points=()), REMARK, FAR), 1.0, ""),
    ],
)
def test_every_step_but_a_last_remark_cites_a_point(
    steps: tuple[Step, ...], share: float | None, reason: str
) -> None:
    assert verdict(PointInEveryStep(), trace(*steps)) == (not reason, reason, share)


def test_a_share_of_the_steps_may_be_enough() -> None:
    half = trace(FAR, REMARK, REMARK, problems=("unread_shares", "unread_dialect"))
    assert verdict(PointInEveryStep(min_share=0.5), half)[0]
    assert verdict(PointInEveryStep(min_share=0.51), half)[1] == (
        "step 2 cites no point (unread_dialect, unread_shares)"
    )
    hidden = trace(FAR, REMARK, problems=("thought_without_point",))
    assert verdict(PointInEveryStep(), hidden) == (False, "a thought cites no point", 1.0)
    assert verdict(PointInEveryStep(min_share=0.9), hidden)[0]
    zoomed = trace(looking(5, 5, Box(0, 0, 9, 9)), problems=("thought_without_point",))
    assert verdict(PointInEveryStep(), zoomed)[0]


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ((0, 0, 0), True), ((1000, 500, 0), True), ((1000.1, 5, 0), False), ((5, 500.1, 0), False),
        ((-0.1, 5, 0), False), ((100, 100, 1), True), ((101, 5, 1), False), ((5, 5, 2), False),
    ],
)  # fmt: skip
def test_a_point_lies_in_its_image_edges_included(
    point: tuple[float, float, int], inside: bool
) -> None:
    keep, reason, count = verdict(InsideImage(), trace(FAR, at(*point)))
    assert (keep, count) == (inside, float(not inside))
    x, y, image = point
    assert reason == ("" if inside else f"({x:g}, {y:g}) is outside image {image + 1}")


def test_so_many_points_may_lie_outside() -> None:
    two = trace(at(-5, 5), FAR, at(5, -5))
    assert verdict(InsideImage(max_outside=2), two) == (True, "", 2.0)
    assert verdict(InsideImage(max_outside=1), two) == (False, "(-5, 5) is outside image 1", 2.0)


@pytest.mark.parametrize(
    ("steps", "repeats", "reason"),
    [
        ((at(100, 100), at(109, 100)), 1, "step 2 cites the place of step 1 again"),
        ((at(100, 100), at(111, 100)), 0, ""),  # a hundredth of the longer side
        ((at(50, 50), at(50, 50, 1)), 0, ""),  # in another image
        ((at(100, 100), FAR, at(100, 100), at(900, 400)), 2,
         "step 3 cites the place of step 1 again"),
        ((at(100, 100), at(100, 100, thought="Looking again, a thing.")), 0, ""),
        ((at(100, 100), REMARK, at(100, 101)), 1, "step 3 cites the place of step 1 again"),
        ((at(100, 100), looking(100, 100, Box(90, 90, 110, 110))), 0, ""),
        ((at(100, 100), looking(100, 100, None)), 1, "step 2 cites the place of step 1 again"),
        ((looking(100, 100, Box(90, 90, 110, 110)), at(100, 100)), 0, ""),  # what the crop shows
        ((at(300, 300), looking(100, 100, Box(90, 90, 110, 110)), at(300, 300)), 1,
         "step 3 cites the place of step 1 again"),
    ],
)  # fmt: skip
def test_no_step_goes_back_to_a_place_unless_it_says_so(
    steps: tuple[Step, ...], repeats: int, reason: str
) -> None:
    assert verdict(NoRepeatedPoint(), trace(*steps)) == (not repeats, reason, float(repeats))
    assert verdict(NoRepeatedPoint(max_repeats=repeats), trace(*steps))[:2] == (True, "")


def test_the_two_attempts_of_a_corrected_chain_are_branches() -> None:
    """Step 1 is shared, 2 and 3 are wrong, 4 turns back."""
    shared, wrong, right = at(100, 100), at(300, 300), at(600, 300)
    corrected = {"kind": "corrected", "wrong_from": 1, "turns_back_at": 3}
    again = trace(shared, wrong, FAR, wrong, right, **corrected)
    assert verdict(NoRepeatedPoint(), again)[0], "the right attempt may go where the wrong one was"
    for steps, reason in (
        ((shared, wrong, FAR, shared), "step 4 cites the place of step 1 again"),
        ((shared, wrong, FAR, right, right), "step 5 cites the place of step 4 again"),
        ((shared, wrong, wrong, right), "step 3 cites the place of step 2 again"),
    ):
        assert verdict(NoRepeatedPoint(), trace(*steps, **corrected))[1] == reason


def test_distances_and_defaults_of_the_rules() -> None:
    near = trace(at(100, 100), at(140, 100))
    assert verdict(NoRepeatedPoint(min_distance=0.05), near)[0] is False
    assert verdict(NoRepeatedPoint(min_distance=0), trace(at(1, 1), at(1, 1)))[0]
    assert [rule.model_dump() for rule in FILTERS] == [
        {"min_reward": 1.0},
        {"ignored_problems": ("answer_forced", "point_outside_image", "thought_without_point"),
         "min_steps": 1},
        {"min_share": 1.0},
        {"max_outside": 0},
        {"min_distance": 0.01, "max_repeats": 0},
    ]  # fmt: skip
