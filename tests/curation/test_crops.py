"""Which objects a question asks about, whether a crop shows one, and how a text names them."""

from __future__ import annotations

import pytest

from curation.filters.crops import asked_boxes, shows_asked
from curation.filters.naming import labels_in
from mcts.data import AnswerKind, Box, Image, Observation, Question

IMAGES = (Image("a", 100, 100), Image("b", 100, 100))
LAMP, BOX = Box(0, 0, 10, 10, label="lamp"), Box(50, 50, 70, 70, label="Red Box")
OTHER = Box(20, 20, 30, 30, label="lamp")


def asked(text: str, *choices: str, boxes: tuple[Box, ...] = ()) -> Question:
    kind = AnswerKind.BOX if boxes else AnswerKind.TEXT
    answers = choices[:1] or ("yes",)
    return Question("t", text, IMAGES, kind, choices, () if boxes else answers, boxes)


def places(*boxes: Box) -> list[tuple[float, int]]:
    return [(box.x1, box.image) for box in boxes]


def test_gold_boxes_are_what_is_asked_about() -> None:
    gold = (Box(5, 5, 9, 9, 1),)
    assert asked_boxes(asked("Where is the lamp?", boxes=gold), [(LAMP,), None]) == gold


def test_a_questions_target_counts_for_more_than_the_objects_it_names() -> None:
    beside = Question("t", "What is left of the lamp?", IMAGES, AnswerKind.TEXT, (), ("a",), (BOX,))
    assert asked_boxes(beside, [(LAMP, BOX), None]) == (BOX,)


def test_the_objects_that_the_question_names_count_in_every_image() -> None:
    objects = [(LAMP, BOX), (OTHER,)]
    assert places(*asked_boxes(asked("Is the lamp on?"), objects)) == [(0, 0), (20, 1)]
    assert places(*asked_boxes(asked("Is the red box open?"), objects)) == [(50, 0)]
    assert places(*asked_boxes(asked("Which?", "lamp", "red box"), objects)) == [
        (0, 0), (50, 0), (20, 1),
    ]  # fmt: skip
    assert places(*asked_boxes(asked("Is the lamp on?", "red box"), objects)) == [(0, 0), (20, 1)]
    assert asked_boxes(asked("What is it?"), objects) == ()
    assert asked_boxes(asked("Is the lamp on?"), [None, None]) == ()


def test_where_no_box_has_a_label_they_are_all_asked_about() -> None:
    bare = [(Box(1, 1, 2, 2), Box(3, 3, 4, 4, label=" ")), (Box(5, 5, 6, 6),)]
    assert places(*asked_boxes(asked("What is it?"), bare)) == [(1, 0), (3, 0), (5, 1)]
    one = [(Box(1, 1, 2, 2), LAMP), None]
    assert places(*asked_boxes(asked("Is the lamp on?"), one)) == [(0, 0)]


@pytest.mark.parametrize(
    ("crop", "shows"),
    [
        (Box(0, 0, 5, 5), True),  # the middle, on the edge
        (Box(0, 0, 4, 9), False),
        (Box(0, 0, 9, 4), False),
        (Box(0, 0, 9, 9, 1), False),  # of another image
        (Box(55, 55, 65, 65), True),  # one of them is enough
    ],
)
def test_a_crop_shows_an_object_whose_middle_lies_in_it(crop: Box, shows: bool) -> None:
    assert shows_asked(Observation(crop, 9, 9), (LAMP, BOX)) is shows


def test_what_was_not_shown_or_not_known_is_neither() -> None:
    shown = Observation(Box(0, 0, 9, 9), 9, 9)
    assert shows_asked(None, (LAMP,)) is None and shows_asked(shown, ()) is None
    assert shows_asked(Observation(None, 0, 0, problem="malformed"), (LAMP,)) is None


@pytest.mark.parametrize(
    ("text", "labels", "named"),
    [
        ("A red box stands by a box.", ["box", "red box"], ["red box", "box"]),
        ("A red box.", ["box", "red box", "red"], ["red box"]),
        ("A lamp, a box, a lamp.", ["box", "lamp"], ["lamp", "box"]),
        ("Boxes and LAMPS.", ["box", "lamp"], ["box", "lamp"]),
        ("Two berries, two shelves, two knives.", ["berry", "shelf", "knife"],
         ["berry", "shelf", "knife"]),
        ("Two monkeys.", ["monkey"], ["monkey"]),
        ("A boxer.", ["box"], []),
        ("Inbox.", ["box"], []),
        ("A red   box.", ["red box"], ["red box"]),
        ("A lamp.", [], []),
        # Signs are written without spaces; one alone may be a part of any word.
        ("我看到红色的盒子在左边。", ["红色的盒子"], ["红色的盒子"]),
        ("我看到红盒在左边。", ["红盒"], ["红盒"]),
        ("我看到红盒在左边。", ["盒"], []),
        ("red盒子是", ["red盒子"], ["red盒子"]),
        ("xred盒子是", ["red盒子"], []),
        ("是盒子red", ["盒子red"], ["盒子red"]),
        ("是盒子redx", ["盒子red"], []),
        # Where a sentence points, what it names counts alone.
        ("There is a lamp. The box is at (5, 5).", ["lamp", "box"], ["box"]),
        ("There is a lamp. It is at (5, 5).", ["lamp", "box"], ["lamp"]),
    ],
)  # fmt: skip
def test_a_label_is_named_as_whole_words_the_longest_first(
    text: str, labels: list[str], named: list[str]
) -> None:
    assert labels_in(text, labels) == named
