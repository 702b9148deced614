"""Values as tables write them: options, letters, numbers, boxes, polygons; each read in one way."""

from __future__ import annotations

from typing import Any

import pytest

from mcts.data import AnswerKind, Box
from warehouse.sources.reading.box_units import FEW, LARGE, MANY, BoxUnits
from warehouse.sources.reading.boxes import BoxFormat, gold_box, polygon_boxes
from warehouse.sources.reading.columns import (
    Columns,
    as_text,
    parse_boxes,
    parse_list,
    value_at,
)
from warehouse.sources.reading.drafts import ImportProblem, Unusable
from warehouse.sources.reading.options import (
    NO_OPTIONS,
    Options,
    cut_options,
    inline_options,
    letter_of,
    lettered,
    read_options,
    whole_number,
)

AB = Options((("A", "left"), ("B", "right")))

# ---- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "places"),
    [
        (["left", "right"], AB.places),
        (("left", "right"), AB.places),
        ({"A": "left", "B": "right"}, AB.places),
        ({"b": "right", "a": "left"}, AB.places),
        ({"1": "left", "2": "right"}, (("1", "left"), ("2", "right"))),
        ({10: "right", 9: "left"}, (("9", "left"), ("10", "right"))),
        ({"label": ["A", "B"], "text": ["left", "right"]}, AB.places),
        ([{"text": "left"}, {"text": "right"}], AB.places),
        ([{"label": "B", "text": "right"}, {"label": "A", "text": "left"}], AB.places),
        ('["left", "right"]', AB.places),
        ("['left', 'right']", AB.places),
        ('{"A": "left", "B": "right"}', AB.places),
        ("A. left\nB. right", AB.places),
        ("(A) left\n\n(B) right", AB.places),
        ("A. left, B. right", AB.places),
        ("Options: A. left, or B. right.", AB.places),
        (["A. left", "B. right"], AB.places),
        (["A. left", "C. right"], (("A", "A. left"), ("B", "C. right"))),
        (["A. left", "right"], (("A", "A. left"), ("B", "right"))),
        (["left", None, "right"], (("A", "left"), ("B", ""), ("C", "right"))),
        (["left", "right", None, float("nan")], AB.places),
        (["A. left", None, "C. right"], (("A", "left"), ("B", ""), ("C", "right"))),
        ("['left' 'right']", AB.places), ("['left'\n 'right']", AB.places),
        (None, ()), (float("nan"), ()), ("", ()), (" ", ()), ([], ()), ([None], ()),
    ],
)  # fmt: skip
def test_options_are_read_however_they_are_written(value: Any, places: Any) -> None:
    assert read_options(value).places == places


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (7, "this is not a list of choices"),
        (["left", ["right"]], "an option is no text but a list or an object"),
        ([{"a": 1}, {"text": "x"}], "an option is an object of a, without a text"),
        ({"label": ["A"], "text": ["left", "right"]}, "label and text have not the same number of"),
        ({"A": "left", "a": "right"}, "two options have one letter: A, a"),
        ({"left": 1, "B": 2}, "an object of options has letters as its keys, not left"),
        ("left or right", "it should be a list, not 'left or right'"),
        ("['left', 'right' 'up']", "it should be a list, not \"['left', 'right' 'up']\""),
        (["x"] * 27, "there are 27 options, more than letters"),
    ],
)
def test_what_are_no_options_is_a_sentence(value: Any, sentence: str) -> None:
    with pytest.raises(Unusable) as caught:
        read_options(value)
    assert sentence in str(caught.value)
    assert len(read_options(["x"] * 26).places) == 26


@pytest.mark.parametrize(
    ("answer", "first", "named"),
    [
        ("left", None, "left"), (" LEFT ", 0, " LEFT "), ("A", None, "left"), ("(b)", 0, "right"),
        ("B. right", None, "right"), ("0", 0, "left"), ("1", 0, "right"), ("1", 1, "left"),
        ("2.0", 1, "right"), ("1", None, "1"), ("7", 0, "7"), ("C", None, "C"), ("up", 0, "up"),
    ],
)  # fmt: skip
def test_an_answer_names_an_option_by_text_number_or_letter(
    answer: str, first: int | None, named: str
) -> None:
    assert AB.resolve(answer, first) == named


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: AB.by_letter("C"), "the answer 'C' is not a letter of 2 options"),
        (lambda: AB.by_letter("left"), "the answer 'left' is not a letter of 2 options"),
        (lambda: AB.by_letter("A. right"), "the answer 'A. right' names option A, which is 'left'"),
        (lambda: AB.by_number(2), "the answer '2' is not a number of 2 options, counted from 0"),
        (lambda: AB.by_number(0, 1), "the answer '0' is not a number of 2 options, counted from 1"),
        (lambda: AB.by_number("x"), "the answer 'x' is not a number of 2 options, counted from 0"),
        (
            lambda: AB.resolve("2", 0),
            "no index of 2 choices, counted from 0; with --columns, count",
        ),
        (lambda: AB.resolve("3", 1), "the answer '3' is no index of 2 choices, counted from 1"),
        (
            lambda: Options((("A", ""), ("B", "right"))).by_letter("A"),
            "the answer 'A' names option A, which is empty",
        ),
    ],
)
def test_an_answer_that_names_no_option_is_refused(ask: Any, sentence: str) -> None:
    with pytest.raises(Unusable) as caught:
        ask()
    assert sentence in str(caught.value)


def test_options_of_numbers_are_named_by_their_own() -> None:
    numbered = read_options({"1": "left", "2": "right"})
    assert numbered.resolve("1", 0) == "left" and numbered.resolve("2.0") == "right"
    assert AB.by_number("1") == "right" and AB.by_number(1, 1) == "left"
    assert AB.by_letter("Ｂ") == "right" and NO_OPTIONS.resolve("A") == "A"


@pytest.mark.parametrize(
    ("text", "letter"),
    [("b", "B"), ("(C)", "C"), ("d)", "D"), ("E.", "E"), ("AB", None), ("1", None), ("", None)],
)
def test_an_answer_is_a_letter_however_it_is_bracketed(text: str, letter: str | None) -> None:
    assert letter_of(text) == letter


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3), ("3", 3), ("3.0", 3), ("3.", 3), ("1e1", 10), ("+4", 4), ("１２", 12), (" 5 ", 5),
        (True, None), ("3.5", None), ("-1", None), ("x", None), ("1e4", None), ("1234567", None),
    ],
)  # fmt: skip
def test_a_whole_number_is_one_however_tables_write_it(value: Any, number: int | None) -> None:
    assert whole_number(value) == number


@pytest.mark.parametrize(
    ("text", "question", "choices"),
    [
        ("Where?\nA. left\nB. right", "Where?", ("left", "right")),
        ("Where?\n\n(A) left\n\n(B) right\n", "Where?", ("left", "right")),
        ("Where?\nA. left\nC. right", "Where?\nA. left\nC. right", ()),
        ("A. left\nB. right", "A. left\nB. right", ()),  # no question is left
        ("Where?\nA. left", "Where?\nA. left", ()),
        ("Where? Options: A. left, B. right", "Where?", ("left", "right")),
        ("Where is it?", "Where is it?", ()),
    ],
)
def test_options_at_the_end_of_a_question_are_cut_off(
    text: str, question: str, choices: tuple[str, ...]
) -> None:
    asked, options = cut_options(text)
    assert (asked, options.choices) == (question, choices)


def test_options_in_a_line_fill_it() -> None:
    assert inline_options("A. left B. right").choices == ("left", "right")
    assert inline_options("A. left, B. right, C. up.").choices == ("left", "right", "up")
    assert inline_options("A. a st., B. b st.").choices == ("a st.", "b st.")
    assert inline_options("see A. left, B. right") == NO_OPTIONS
    assert inline_options("A. left") == inline_options("A., B.") == NO_OPTIONS
    assert lettered("(b) text") == ("B", "text") and lettered("text") is None


# ---- columns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "boxes", "sentence"),
    [
        ("question", "xyxy", "--columns: 'question' is not ROLE=COLUMN"),
        ("question=a+,image=b,answer=c", "xyxy", "'question=a+' is not ROLE=COLUMN"),
        ("question=a,image=b,answer=c,count_from=2", "xyxy", "count_from is 0 or 1, not '2'"),
        ("question=a,image=b,gold=c", "xyxy", "no role 'gold'; there are: question, image, "),
        ("question=a,image=b,image=c,answer=d", "xyxy", "image is given twice; join columns with"),
        ("question=a+b,image=c,answer=d", "xyxy", "question is one column, not a+b"),
        ("image=c,answer=d", "xyxy", "say which column is the question"),
        ("question=a,answer=d", "xyxy", "say which column is the image"),
        ("question=a,image=b", "xyxy", "say which column is the answer, or the box"),
        (
            "question=a,image=b,answer=c",
            "xyxz",
            "--boxes: it is xyxy or xywh, or such as xywh/1000",
        ),
        ("question=a,image=b,answer=c", "xyxy/0", "--boxes: it is xyxy or xywh, or such as xywh/1"),
    ],
)
def test_columns_that_make_no_sense_are_a_sentence(typed: str, boxes: str, sentence: str) -> None:
    with pytest.raises(ImportProblem) as caught:
        Columns.parsed(typed, boxes)
    assert sentence in str(caught.value)


def test_columns_are_read_as_they_are_typed() -> None:
    found = Columns.parsed(
        " question = a , image=b+c, answer=d.e,choices=f+g, count_from=1", "xywh/9"
    )
    assert found.of == {
        "question": ("a",), "image": ("b", "c"), "answer": ("d.e",), "choices": ("f", "g"),
    }  # fmt: skip
    assert (found.corners, found.whole, found.count_from) == ("xywh", 9.0, 1)
    plain = Columns.parsed("question=a,image=b,box=c+d")
    assert (plain.corners, plain.whole, plain.kind) == ("xyxy", None, AnswerKind.TEXT)
    assert plain.boxes_in == "box" and found.boxes_in is None
    by_kind = Columns.parsed("question=a,image=b,answer=c", kind=AnswerKind.BOX)
    assert by_kind.boxes_in == "answer" and by_kind.count_from is None


@pytest.mark.parametrize(
    ("name", "found"),
    [("a", 1), ("b.c", 2), ("d.e", 3), ("f.1", "y"), ("f.0", "x"), ("g.h.0", 9)],
)
def test_a_dotted_name_leads_into_a_value(name: str, found: Any) -> None:
    row = {"a": 1, "b": {"c": 2}, "d.e": 3, "d": {"e": 4}, "f": ["x", "y"], "g": {"h": [9]}}
    assert value_at(row, "image", name) == found


def test_a_name_that_leads_nowhere_is_a_sentence() -> None:
    row = {"a": {"b": 1}, "f": ["x"]}
    with pytest.raises(Unusable, match="the row has no z; it has: a, f"):
        value_at(row, "image", "z")
    for name in ("a.c", "f.1", "f.x", "a.b.c"):
        with pytest.raises(Unusable, match=f"the row has no {name}$"):
            value_at(row, "image", name)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "yes"), (False, "no"), (3.0, "3"), (3.5, "3.5"), (None, ""), (float("nan"), ""),
     (" a ", "a"), (0, "0")],
)  # fmt: skip
def test_a_value_is_a_text_as_people_write_it(value: Any, text: str) -> None:
    assert as_text(value) == text


def test_a_list_in_a_text_is_read() -> None:
    assert parse_list('["a", 1]') == ["a", 1] and parse_list("['a']") == ["a"]
    assert parse_list(" [1]") == [1]
    for text in ("a", "[a", "{}", '{"a": [1]}', "[" * 99_999):
        assert parse_list(text) == text


@pytest.mark.parametrize(
    ("value", "corners", "boxes"),
    [
        ([1, 2, 3, 4], "xyxy", [[1, 2, 3, 4]]),
        ("(1, 2.5, -3, 4e1)", "xyxy", [[1, 2.5, -3, 40]]),
        ("1 2 3 4", "xyxy", [[1, 2, 3, 4]]),
        ([[1, 2, 3, 4], [5, 6, 7, 8]], "xyxy", [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ({"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}, "xyxy", [[1, 2, 3, 4]]),
        ({"x": 1, "y": 2, "width": 3, "height": 4, "z": 0}, "xywh", [[1, 2, 3, 4]]),
        ({"left": 1, "top": 2, "right": 3, "bottom": 4}, "xyxy", [[1, 2, 3, 4]]),
        ([{"bbox_2d": [1, 2, 3, 4], "label": "x"}], "xyxy", [[1, 2, 3, 4]]),
        ('```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "x"}]\n```', "xyxy", [[1, 2, 3, 4]]),
        ("<|box_start|>(1,2),(3,4)<|box_end|>", "xyxy", [[1, 2, 3, 4]]),
        ('["(1, 2, 3, 4)", "(5, 6, 7, 8)"]', "xyxy", [[1, 2, 3, 4], [5, 6, 7, 8]]),
        (["(1, 2, 3, 4)"], "xyxy", [[1, 2, 3, 4]]),
        (["1", "2", "3", "4"], "xyxy", [[1, 2, 3, 4]]),
    ],
)
def test_boxes_are_read_however_they_are_written(value: Any, corners: str, boxes: Any) -> None:
    assert parse_boxes(value, corners) == boxes


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "there is no box"), ("", "there is no box"), ([], "there is no box"),
        ([1, 2, 3], "a box is four numbers, not '[1, 2, 3]'"),
        ([1, 2, 3, float("inf")], "a box is four numbers"),
        ([1, 2, 3, "x"], "a box is four numbers"), (7, "a box is four numbers, not '7'"),
        ({"x": 1, "y": 2, "w": 3, "h": 4}, "a struct of x, y, w, h is not xyxy"),
    ],
)  # fmt: skip
def test_what_is_no_box_is_a_sentence(value: Any, sentence: str) -> None:
    with pytest.raises(Unusable) as caught:
        parse_boxes(value, "xyxy")
    assert sentence in str(caught.value)


# ---- gold boxes ---------------------------------------------------------------------------------

SIZE = (200, 100)


@pytest.mark.parametrize(
    ("values", "kind", "box"),
    [
        ([10, 20, 30, 40], BoxFormat.XYXY, Box(10, 20, 30, 40)),
        ([10, 20, 30, 40], BoxFormat.XYWH, Box(10, 20, 40, 60)),
        ([0.1, 0.2, 0.3, 0.4], BoxFormat.SHARES, Box(20, 20, 60, 40)),
        ([0, 0, 200, 100], BoxFormat.XYXY, Box(0, 0, 200, 100)),
        ([-2, -1, 202, 102], BoxFormat.XYXY, Box(0, 0, 200, 100)),
        ([0, 0, 1.01, 1], BoxFormat.SHARES, Box(0, 0, 200, 100)),
        ([0, 0, 1, 1.5], BoxFormat.XYXY, Box(0, 0, 1, 1.5)),
        (["1.23456", 0, 9, 9], BoxFormat.XYXY, Box(1.235, 0, 9, 9)),
    ],
)
def test_a_gold_box_is_in_pixels_of_its_image(values: Any, kind: BoxFormat, box: Box) -> None:
    assert gold_box(values, kind, SIZE) == box
    assert gold_box(values, kind, SIZE, label="\ud800").label == "?"


@pytest.mark.parametrize(
    ("values", "kind", "sentence"),
    [
        ([1, 2, 3], BoxFormat.XYXY, "a box has four numbers, this has 3"),
        ([1, 2, 3, True], BoxFormat.XYXY, "True in the box is not a number"),
        ([1, 2, 3, "x"], BoxFormat.XYXY, "'x' in the box is not a number"),
        ([1, 2, 3, float("nan")], BoxFormat.XYXY, "nan in the box is not a number"),
        ([0.1, 0.2, 0.3, 1], BoxFormat.XYXY, "should be pixels: are they shares from 0 to 1?"),
        ([0.1, 0.2, 0.3, 1.02], BoxFormat.SHARES, "should be shares from 0 to 1: are they pixels?"),
        ([10, 20, 203, 40], BoxFormat.XYXY, "is not in 200x100 pixels"),
        ([-3, 20, 30, 40], BoxFormat.XYXY, "is not in 200x100 pixels"),
        ([30, 20, 30, 40], BoxFormat.XYXY, "is not in 200x100 pixels"),
        ([10, 20, 30, 20], BoxFormat.XYXY, "is not in 200x100 pixels"),
        ([10, 20, 30, 103], BoxFormat.XYXY, "is not in 200x100 pixels"),
    ],
)
def test_what_is_no_gold_box_is_refused(values: Any, kind: BoxFormat, sentence: str) -> None:
    with pytest.raises(Unusable) as caught:
        gold_box(values, kind, SIZE)
    assert sentence in str(caught.value)


def covers(boxes: tuple[Box, ...], x: float, y: float) -> bool:
    return any(box.x1 <= x <= box.x2 and box.y1 <= y <= box.y2 for box in boxes)


def test_a_polygon_is_boxes_that_lie_inside_it() -> None:
    whole = polygon_boxes([[0, 0], [1, 0], [1, 1], [0, 1]], SIZE, "polygon")
    area = sum((box.x2 - box.x1) * (box.y2 - box.y1) for box in whole)
    assert 0.999 * 20_000 <= area < 20_000 and len(whole) < 9
    corner = polygon_boxes([[0, 0], [1, 0], [0, 1]], SIZE, "polygon")
    area = sum((box.x2 - box.x1) * (box.y2 - box.y1) for box in corner)
    assert 0.97 * 10_000 < area < 10_000
    assert covers(corner, 20, 20) and not covers(corner, 150, 80)
    u_shape = [[0, 0], [0.2, 0], [0.2, 0.8], [0.8, 0.8], [0.8, 0], [1, 0], [1, 1], [0, 1]]
    found = polygon_boxes(u_shape, SIZE, "polygon")
    assert covers(found, 20, 20) and covers(found, 180, 20) and covers(found, 100, 90)
    assert not covers(found, 100, 40)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ([[0, 0], [1, 1]], "a polygon has at least three points, this has 2"),
        ([[0, 0]] * 1001, "the polygon has 1001 points, more than 1000"),
        ([[0, 0], [1, 1], [1]], "[1] is not a point of a polygon"),
        ([[0, 0], [1, 1], "ab"], "'ab' is not a point of a polygon"),
        ([[0, 0], [1, 1], [0.5, 1.1]], "[0.5, 1.1] should be shares of width and height"),
        ([[0, 0], [1, 1], [-0.1, 0.5]], "[-0.1, 0.5] should be shares of width and height"),
        ([[0, 0], [1, 1], [0.5, 0.5]], "the polygon covers no pixel"),
    ],
)
def test_what_is_no_polygon_is_refused(points: Any, sentence: str) -> None:
    with pytest.raises(Unusable) as caught:
        polygon_boxes(points, SIZE, "polygon")
    assert sentence in str(caught.value)


# ---- in which units they are --------------------------------------------------------------------


def counted(*boxes: Box, size: tuple[int, int] | None = SIZE) -> BoxUnits:
    units = BoxUnits()
    units.add([Box(0, 0, 9, 9, 7), *boxes], [size])  # of an image that is not there
    return units


def test_boxes_are_counted_by_what_is_odd_about_them() -> None:
    odd = [
        Box(-3, 0, 9, 9), Box(0, 0, 203, 9), Box(0, 0, 9, 103),  # outside
        Box(-2, 0, 9, 9), Box(0, 0, 202, 9), Box(0, 0, 9, 102),  # by what is clipped there
        Box(0, 0, 1, 1), Box(50, 50, 50, 60), Box(50, 50, 60, 50), Box(0, 0, 200, 91),
    ]  # fmt: skip
    found = counted(*odd, Box(0, 0, 200, 90), Box(1, 1, 2, 2), Box(0, 0, 200, 9), Box(0, 0, 9, 100))
    assert (found.boxes, found.outside, found.shares, found.crossed) == (14, 3, 1, 2)
    assert found.whole == 1
    assert (found.on_large, found.far) == (0, 0)
    assert counted(Box(0, 0, 9, 9), size=None) == BoxUnits()
    assert counted(Box(0, 0, 1, 1), size=(1, 1)).shares == 0, "a pixel is all there is"
    large = counted(Box(0, 0, 1000, 9), Box(0, 0, 1001, 9), size=(LARGE, 1200))
    assert (large.on_large, large.far) == (2, 1)
    assert counted(Box(0, 0, 9, 9), size=(LARGE - 1, 9)).on_large == 0


@pytest.mark.parametrize(
    ("units", "said"),
    [
        (BoxUnits(), []),
        (BoxUnits(boxes=10, shares=5), []),
        (BoxUnits(boxes=10, shares=6, outside=2, on_large=MANY), ["6 of 10 gold boxes have no nu"]),
        (BoxUnits(boxes=40, crossed=2), []),
        (BoxUnits(boxes=39, crossed=2), ["2 of 39 gold boxes end left of or above where they be"]),
        (BoxUnits(boxes=9, outside=1), ["1 of 9 gold boxes lie outside their image: they may be"]),
        (BoxUnits(boxes=99, on_large=MANY), [f"none of {MANY} gold boxes on large images has a "]),
        (BoxUnits(boxes=99, on_large=MANY - 1), []),
        (BoxUnits(boxes=99, on_large=MANY, far=1), []),
        (
            BoxUnits(boxes=FEW, whole=FEW // 2 + 1),
            [f"{FEW // 2 + 1} of {FEW} gold boxes cover nea"],
        ),
        (BoxUnits(boxes=FEW, whole=FEW // 2), []),
        (BoxUnits(boxes=FEW - 1, whole=FEW - 1), []),
    ],
)
def test_what_looks_like_other_units_is_told(units: BoxUnits, said: list[str]) -> None:
    found = units.warnings()
    assert len(found) == len(said)
    assert all(one.startswith(start) for one, start in zip(found, said, strict=True))
