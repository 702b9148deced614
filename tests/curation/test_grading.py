"""Grading is strict: the traps that made other graders give marks for wrong answers."""

import pytest

from curation.grading.grade import grade
from curation.grading.lead_ins import without_lead_in
from curation.grading.normalize import normalize
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Box, Image, Point, Question
from mcts.parsing import parse

IMAGE = Image("a", 320, 240)


def question(kind=AnswerKind.TEXT, **fields):
    return Question("t", "?", (IMAGE,), kind, **fields)


LEFT = question(choices=("left", "right"), answers=("left",))
NO = question(choices=("yes", "no"), answers=("no",))


@pytest.mark.parametrize(
    ("about", "answer", "score"),
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
        (question(answers=("12",)), "twelve", 1),
        (question(answers=("12",)), "十二", 1),
        (question(answers=("forty-two",)), "42", 1),
        (question(answers=("42",)), "Forty two.", 1),
        (question(answers=("20",)), "二十", 1),
        (question(answers=("100",)), "one hundred", 1),
        (question(answers=("10",)), "十", 1),
        (question(answers=("7",)), "seventeen", 0),
        (question(answers=("x = 5",)), "5", 1),
        (question(answers=("5",)), "x=5", 1),
        (question(answers=("x = 5",)), "y = 5", 0),
        (question(answers=("x = 5",)), "6", 0),
        (question(answers=("1,200",)), "1200.0", 1),
        (question(answers=("12",)), "1,2", 0),
        (question(answers=("12",)), "1" * 400, 0),
        (question(answers=("grey", "gray")), "Gray", 1),
        (question(answers=("gray",)), "dark gray", 0),
        # A letter is never a word that begins with it, and a text is never a part of another.
        (LEFT, "B", 0),
        (LEFT, "A left", 1),
        (LEFT, "(A) right", 0),
        (LEFT, "A or B", 0),
        (LEFT, "AB", 0),
        (LEFT, "left right", 0),
        (LEFT, "**A**", 1),
        (LEFT, "\\boxed{A}", 1),
        (question(choices=("Tt", "TT", "tt"), answers=("TT",)), "TT", 1),
        (question(choices=("Tt", "TT", "tt"), answers=("TT",)), "tT", 0),
        (question(choices=("1", "1.0", "2"), answers=("1.0",)), "1.0", 1),
        (question(choices=("1", "1.0", "2"), answers=("1.0",)), "1", 0),
        (question(choices=("1", "1.0", "2"), answers=("1.0",)), "B", 1),
        (question(choices=("C", "A", "B"), answers=("A",)), "(A)", 1),
        (question(choices=("C", "A", "B"), answers=("A",)), "A. C", 0),
        (NO, "No.", 1),
        (NO, "not", 0),
        (NO, "no, there is one", 0),
        (NO, "yes and no", 0),
        # Numbers are exact, however they are written.
        (question(answers=("\\frac{1}{2}",)), "0.5", 1),
        (question(answers=("1/2",)), "$\\frac{1}{2}$", 1),
        (question(answers=("-3",)), "−3.00", 1),
        (question(answers=("3",)), "3/1", 1),
        (question(answers=("3.14",)), "3.142", 0),
        (question(answers=("0.3333",)), "1/3", 0),
        (question(answers=("50%",)), "50", 0),
        (question(answers=("3",)), "3 cars", 0),
        (question(answers=("3",)), "3 or 4", 0),
        (question(answers=("1/0",)), "1/0", 1),
        (question(answers=("24/7", "3.429")), "3.429", 1),
        (question(answers=("24/7", "3.429")), "3.43", 0),
    ],
)
def test_text(about, answer, score):
    assert grade(about, answer).score == score


@pytest.mark.parametrize(
    "about",
    [
        question(choices=("left", "right"), answers=("above",)),
        question(AnswerKind.ACTION, answers=("nothing to do",)),
    ],
)
@pytest.mark.parametrize("answer", [None, "", "left", "above", "zebra", "click [3]"])
def test_whether_there_is_a_score_depends_on_the_question_alone(about, answer):
    assert grade(about, answer).score is None


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
        ("(9.999, 20)", 0),
        ("(10.0004, 20.0004)", 1),
        ("(20.0006, 20)", 0),
        ("(15, 15) and (16, 16)", 0),
        ("[15, 15]", 0),
        ("(15, 15, 16, 16)", 0),
        ("(115, 15)", 0),
        ("[700, 700] (15, 15)", 0),
        ("(15, 15) or 700 700", 0),
        ("2 (15, 15)", 0),
        ("The point is (15, 15).", 1),
        ("(15, 15) in image 1", 1),
        ("in the first image, (15, 15)", 1),
        ("(15, 15) in image 1, not 7", 0),
    ],
)
def test_a_point_must_lie_in_a_gold_box_edges_included(answer, score):
    assert grade(BOX, answer).score == score


@pytest.mark.parametrize(
    "space", [CoordinateSpace.qwen2_vl(), CoordinateSpace.qwen25_vl(), CoordinateSpace.original()]
)
def test_the_middle_of_a_gold_box_is_right_in_every_models_coordinates(space):
    image = Image("a", 1919, 1079)  # divisible by nothing
    about = Question("t", "?", (image,), AnswerKind.BOX, boxes=(Box(700.3, 500.7, 712.3, 512.7),))
    frame = Frame(space, (image,))
    x, y = frame.to_model(Point(706.3, 506.7))
    answer = parse(f"<answer>({x}, {y})</answer>", frame).answer
    assert grade(about, answer).score == 1


def test_what_conversion_leaves_in_the_last_digits_decides_nothing():
    edge = 0.1 * 3 * 1000  # 300.00000000000006
    about = question(AnswerKind.BOX, boxes=(Box(edge, 0, 310, 10),))
    assert Box(edge, 0, 310, 10).contains(Point(300, 5)) is False
    assert grade(about, "(300, 5)").score == 1


def test_a_point_must_lie_within_the_tolerance():
    about = question(AnswerKind.POINT, points=(Point(100, 100),), tolerance=50)
    assert grade(about, "(130, 140)").score == 1
    assert grade(about, "(131, 140)").score == 0


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
        ("click [12]", "hover [12]", 0),
        ("hover [12]", "click [12]", 0),
        ("click [12]", "```click [12]```", 1),
        ("click [12]", "Click[12]", 1),
        ("click [12]", "click 12", 0),
        ("click [12]", "click [12] [13]", 0),
        ("click [12]", "click [12]\nclick [13]", 0),
        ("click [12]", "click []", 0),
        ("type [7] [red wine glass]", "type [7] [Red  wine glass]", 1),
        ("type [7] [red wine glass]", "type [7] [red wine glasses]", 0),
        ("type [7] [red wine glass]", "type [7] [red wine glass] [1]", 1),
        ("type [7] [red wine glass]", "type [7] [red wine glass] [0]", 0),
        ("type [7] [red wine glass]", "type [7]", 0),
        ("type [7] [3.]", "type [7] [3]", 0),
        ("type [7] [two]", "type [7] [2]", 0),
        ("type [7] [a [b] c]", "type [7] [a [b] c]", 1),
        ("type [7] [1]", "type [7] [1]", 1),
        ("scroll [down]", "scroll down", 1),
        ("scroll [down]", "scroll", 0),
        ("scroll [down]", "scroll [sideways]", 0),
        ("go_back", "go_back []", 1),
        ("go_back", "go_forward", 0),
        ("go_back", "go_back [2]", 0),
        ("stop", "stop", 1),
        ("stop", "stop []", 1),
        ("stop", "stop [42]", 0),
        ("stop [42]", "stop", 0),
        ("stop [42]", "stop [42.0]", 1),
        ("stop [42]", "stop [it is 42]", 0),
        ("stop [a [b] c]", "stop [a [b] c]", 1),
        ("press [Enter]", "press [enter]", 1),
    ],
)
def test_an_action_must_be_the_same_in_every_part(gold, answer, score):
    assert grade(question(AnswerKind.ACTION, answers=(gold,)), answer).score == score


@pytest.mark.parametrize(
    ("gold", "answer", "reason"),
    [
        ("click [12]", "click [123]", "the right action on another element"),
        ("type [7] [a b]", "type [7] [a]", "the right action with another text"),
        ("scroll [down]", "scroll [up]", "it scrolls in another direction"),
        ("stop [1]", "stop [2]", "it stops with another answer"),
        ("go_back", "click [1]", "another action is right"),
        ("go_back", "back", "the answer is not an action"),
        ("go_back", "go back!", "the answer is not an action"),
    ],
)
def test_a_wrong_action_is_told_what_is_wrong_with_it(gold, answer, reason):
    assert grade(question(AnswerKind.ACTION, answers=(gold,)), answer).reason == reason


def test_every_grade_gives_its_reason():
    assert grade(LEFT, "perhaps").reason == "not one of the choices"
    assert normalize("  “Three.” ") == "3"


@pytest.mark.parametrize(
    ("answer", "rest"),
    [
        ("letter box", "letter box"), ("option key", "option key"), ("choice of 2", "choice of 2"),
        ("option B", "B"), ("Option (B)", "(B)"), ("option 3", "3"), ("the option is left", "left"),
        ("best choice: left", "left"), ("answer: option B", "B"), ("Final answer 12", "12"),
    ],
)  # fmt: skip
def test_a_word_for_an_option_announces_only_what_marks_one(answer: str, rest: str) -> None:
    assert without_lead_in(answer) == rest


COLOURS = ("red", "dark blue")
NUMBERED = ("Only I is correct", "Only II is correct")


@pytest.mark.parametrize(
    ("gold", "answer", "choices", "score"),
    [
        *(("5", said, (), 1) for said in (
            "The answer is **5**.", "Answer: __5__", r"\boxed{5}.", r"$\boxed{5}$.", "**5**.",
        )),
        ("left", "**Answer: left**", (), 1),
        *(("red", said, COLOURS, 1) for said in (
            "Answer: **red**", "**Answer: red**", "**Answer:** red", "**Answer**: red",
        )),
        *(("dark blue", said, COLOURS, 1) for said in (
            "**The answer is dark blue.**", "Answer: **B. dark blue**", r"The answer is \boxed{B}.",
        )),
        ("5", "**6**", (), 0),
        ("Option A", "The answer is Option A", ("Option B", "Option A"), 1),
        ("Option B", "The answer is Option A", ("Option B", "Option A"), 0),
        ("Option 2", "The answer is Option 2", (), 1),
        (NUMBERED[0], f"Answer: {NUMBERED[0]}", NUMBERED, 1),
        (NUMBERED[0], f"Answer: A. {NUMBERED[0]}", NUMBERED, 1),
        ("The map is correct", "The answer is: the map is correct", (), 1),
        ("(0,100)", "(0, 100)", (), 1), ("[100, 200]", "[100,200]", (), 1),
        ("(0,100)", "(0, 100)", ("(0,100)", "(100,0)"), 1),
        ("手", "选手", (), 0), ("มือ", "ข้อมือ", (), 0), ("장", "답장", (), 0),
        ("手", "答：手", (), 1), ("B", "选B", ("A", "B"), 1),
        ("2-1", "1", (), 0), ("1990-2000", "-10", (), 0), ("2+7", "9", (), 1),
        ("AB'", "AB", (), 0), ("no", "no'", (), 1),
    ],
)  # fmt: skip
def test_how_an_answer_is_set_apart_changes_nothing_of_it(
    gold: str, answer: str, choices: tuple[str, ...], score: int
) -> None:
    asked = question(answers=(gold,), choices=choices)
    assert grade(asked, answer).score == score
