"""Grading is strict: the traps that made other graders give marks for wrong answers."""

import pytest

from curation.grading import grade, normalize
from mcts.data import AnswerKind, Box, Image, Point, Question

IMAGE = Image("a", 320, 240)


def question(kind=AnswerKind.TEXT, **fields):
    return Question("t", "?", (IMAGE,), kind, **fields)


LEFT = question(choices=("left", "right"), answers=("left",))
NO = question(choices=("yes", "no"), answers=("no",))


@pytest.mark.parametrize(
    ("asked", "answer", "score"),
    [
        (LEFT, "left", 1),
        (LEFT, " Left. ", 1),
        (LEFT, "A", 1),
        (LEFT, "(A)", 1),
        (LEFT, "A. left", 1),
        (LEFT, "B. left", 0),
        (LEFT, "right", 0),
        (LEFT, "left or right", 0),
        (LEFT, "it is left of the box", 0),
        (LEFT, "C", 0),
        (LEFT, "", 0),
        (LEFT, None, 0),
        (NO, "cannot tell", 0),
        (NO, "no", 1),
        (NO, "none", 0),
        (question(choices=("B", "A"), answers=("A",)), "A", 1),
        (question(choices=("B", "A"), answers=("A",)), "B", 0),
        (question(answers=("2",)), "two", 1),
        (question(answers=("2",)), "12", 0),
        (question(answers=("1,200",)), "1200.0", 1),
        (question(answers=("12",)), "1,2", 0),
        (question(answers=("12",)), "1" * 400, 0),
        (question(answers=("grey", "gray")), "Gray", 1),
        (question(answers=("gray",)), "dark gray", 0),
    ],
)
def test_text(asked, answer, score):
    assert grade(asked, answer).score == score


BOX = question(AnswerKind.BOX, boxes=(Box(10, 10, 20, 20), Box(100, 100, 120, 120)))


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("(10, 20)", 1),
        ("(20.4, 20)", 0),
        ("(110, 105)", 1),
        ("(110, 105) in image 2", 0),
        ("(15, 15) or (300, 300)", 0),
        ("the button", 0),
    ],
)
def test_a_point_must_lie_in_a_gold_box_edges_included(answer, score):
    assert grade(BOX, answer).score == score


def test_a_point_must_lie_within_the_tolerance():
    asked = question(AnswerKind.POINT, points=(Point(100, 100),), tolerance=50)
    assert grade(asked, "(130, 140)").score == 1
    assert grade(asked, "(131, 140)").score == 0


@pytest.mark.parametrize(
    ("gold", "answer", "score"),
    [
        ("click [12]", "click [12]", 1),
        ("click [12]", "click [123]", 0),
        ("click [123]", "click [12]", 0),
        ("type [7] [red wine glass]", "type [7] [red wine glass]", 1),
        ("type [7] [red wine glass]", "type [7] [red]", 0),
        ("type [7] [red wine glass]", "type [8] [red wine glass]", 0),
        ("scroll [down]", "scroll [up]", 0),
        ("go_back", "go_back", 1),
        ("stop [42]", "stop [41]", 0),
        ("stop [42]", "stop [42]", 1),
        ("click [12]", "I would click [12]", 0),
    ],
)
def test_an_action_must_be_the_same_in_every_part(gold, answer, score):
    assert grade(question(AnswerKind.ACTION, answers=(gold,)), answer).score == score


def test_every_grade_gives_its_reason():
    assert grade(LEFT, "perhaps").reason == "not one of the choices"
    assert normalize("  “Three.” ") == "3"
