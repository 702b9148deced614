"""Right answers are right however they are written, and no other answer becomes right by it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.grading.actions import parse_action
from curation.grading.choices import choice_index
from curation.grading.equality import same_text
from curation.grading.grade import (
    answers_in_kind,
    grade,
    in_box,
    is_wrong_in_content,
    vote_of,
    votes_of,
)
from curation.scores.benchmark_metrics import METRICS
from mcts.data import AnswerKind, Box, Image, Point, Question
from tests.support import official_graders as official
from tests.support.project import Project
from warehouse.sources.reading.boxes import polygon_boxes
from warehouse.sources.reading.drafts import Unusable

IMAGE = Image("a", 320, 240)


def question(*golds: str, choices: tuple[str, ...] = (), kind: AnswerKind = AnswerKind.TEXT):
    return Question("t", "?", (IMAGE,), kind, choices=choices, answers=golds)


def score(gold: str, answer: str, *choices: str) -> float | None:
    return grade(question(gold, choices=choices), answer).score


SAME_FORMULAS = [
    ("2\\pi", "2 \\pi"),
    ("$2 \\pi$", "2\\pi"),
    ("2\\pi", "2π"),
    ("2\\pi", "\\(2\\pi\\)"),
    ("2\\pi", "\\[ 2\\,\\pi \\]"),
    ("$\\frac{3}{4}$", "\\displaystyle\\frac{3}{4}"),
    ("\\frac{3}{4}", "\\dfrac34"),
    ("\\frac{\\sqrt{3}}{2}", "$\\tfrac{\\sqrt3}{2}$"),
    ("(3, 4)", "\\left( 3, 4 \\right)"),
    ("12 cm", "12\\text{ cm}"),
    ("12 \\mathrm{~cm}^{2}", "12cm^2"),
    ("12 cm", "12\\,\\mathrm{cm}"),
    ("none of these", "\\text{None of these}"),
    ("x^2", "x^{2}"),
    ("x^2", "x²"),
    ("60", "\\boxed{60}"),
    ("60", "$\\boxed{\\text{60}}$"),
    ("6 \\times 6", "6\\times6"),
    ("6 \\times 6", "6 · 6"),
    ("a<b<c", "a < b < c"),
    ("1: 2", "1:2"),
    ("1:2", "\\frac{1}{2}"),
    ("\\frac{5}{3} \\pi + 2", "\\frac{5\\pi}{3}+2"),
    ("2\\sqrt2", "\\sqrt8"),
    ("5(\\sqrt{5}-2)", "5\\sqrt{5} - 10"),
    ("\\{1, 2\\}", "\\{1,2\\}"),
    ("\\infty", "∞"),
    ("\\frac{1}{2}", "½"),
    ("1.5", "1½"),
    ("2.5", "2\\frac{1}{2}"),
    ("100", "10^2"),
    ("1200", "1.2 \\times 10^3"),
    ("\\{1, 2\\}", "{1,2}"),
    ("{1, 2}", "$\\{1,2\\}$"),
    ("2\\sqrt3", "2sqrt(3)"),
    ("2\\sqrt{3}", "2*sqrt3"),
    ("x \\geq 3", "x>=3"),
    ("x \\leqslant 3", "x <= 3"),
    ("a \\neq b", "a != b"),
    ("AB \\parallel CD", "AB ∥ CD"),
    ("\\varnothing", "∅"),
]


@pytest.mark.parametrize(("gold", "answer"), SAME_FORMULAS)
def test_f27_latex_is_compared_without_what_is_for_the_eye(gold: str, answer: str) -> None:
    assert score(gold, answer) == 1
    assert score(gold, answer, gold, "something else") == 1
    assert score("something else", answer, gold, "something else") == 0


def test_f27_a_choice_with_latex_is_known_by_its_formula() -> None:
    assert score("$20 \\pi$", "20\\pi", "$20 \\pi$", "$22 \\pi$") == 1
    assert score("$20 \\pi$", "22\\pi", "$20 \\pi$", "$22 \\pi$") == 0


OTHER_FORMULAS = [
    ("2\\pi", "6.283185307179586"),
    ("\\pi", "3.14"),
    ("\\frac{1}{2\\pi}", "\\frac{1}{2}\\pi"),
    ("2\\pi", "2"),
    ("102", "10^2"),
    ("102", "10²"),
    ("11/2", "1½"),
    ("3", "3!"),
    ("x_2", "x^2"),
    ("9", "2+7"),
    ("(3, 4)", "(4, 3)"),
    ("(3, 4)", "[3, 4]"),
    ("(1,000)", "(1, 0)"),
    ("3,400", "3, 400"),
    ("1 2", "12"),
    ("\\frac{3^{1008}-1}{3^{1009}}", "\\frac{1}{3}"),
    ("1:2", "2:1"),
    ("A", "A'"),
    ("5'", '5"'),
    ("{1, 2}", "(1, 2)"),
    ("x>=3", "x>3"),
    ("3!", "3 != "),
]


@pytest.mark.parametrize(("gold", "answer"), OTHER_FORMULAS)
def test_f27_another_formula_stays_another(gold: str, answer: str) -> None:
    assert score(gold, answer) == 0


BY_LETTER = (
    "(B).", '"B"', "[B]", "B;", "（B）", "Ｂ", "B.", "(B)", "b", "B。", "B！", "B؟", "B।", "{B}",
    "【B】", "〔B〕", "「B」", "『B』", "《B》", "«B»", "“B”", "„B“", "‹B›", "**B**", "__B__",
    "`B`", "\\boxed{B}", "$\\mathbf{(B)}$", "\\text{B}", "\\textbf{(B)} dark blue", "Ⓑ", "⒝",
    "(B", "B)", "B) dark blue", "B: dark blue", "B - dark blue", "B、dark blue", "B：dark blue",
    "Ｂ．dark blue", "（B）dark blue", "**B. dark blue**", "dark blue (B)", "(B) B", "Answer: B",
    "ANSWER: (B).", "Final answer: B", "The answer is B.", "the correct answer is (B)",
    "option B", "Option (B): dark blue", "Choice: B", "答案：B", "答案是（B）。", "选B", "我选B",
    "故选B。", "B选项", "正解は B です。", "答え：B", "選択肢B", "정답: B", "정답은 B입니다.",
    "Ответ: B", "La respuesta correcta es B", "réponse : B", "Die Antwort ist B.", "Resposta: B",
    "उत्तर: B", "الإجابة: B", "คำตอบ: B", "Đáp án: B", "B\u200b", "\ufeffB",
    "B is correct.", "(B) is the correct answer", "B is the right option",
)  # fmt: skip


@pytest.mark.parametrize("answer", BY_LETTER)
def test_f29_a_letter_names_its_choice_in_every_dress(answer: str) -> None:
    about = question("dark blue", choices=("red", "dark blue"))
    assert grade(about, answer).score == 1
    assert answers_in_kind(about, answer)
    assert score("red", answer, "red", "dark blue") == 0


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "A or B",
            "A, B",
            "A and B",
            "AB",
            "A/B",
            "A、B",
            "(A)(B)",
            "B. red",
            "(B) red",
            "C",
            "BB",
        ),
        *(
            "not B",
            "The answer is not B",
            "B or red",
            "I think B",
            "B is not correct",
            "B is incorrect",
            "B2",
            "B+",
            "neither",
            "B's",
        ),
        *("red, dark blue", "dark blue (A)", "答案不是B", "B和A"),
    ],
)
def test_f29_what_names_no_choice_or_several_names_none(answer: str) -> None:
    about = question("dark blue", choices=("red", "dark blue"))
    assert grade(about, answer).score == 0
    assert not answers_in_kind(about, answer)


def test_f29_where_the_choices_are_letters_their_text_decides() -> None:
    assert choice_index(("B", "A"), "(A)") == 1
    assert choice_index(("K", "E", "N", "G", "U"), "E") == 1
    assert choice_index(("K", "E", "N", "G", "U"), "D") == 3
    assert choice_index(("A. left", "B. right"), "right") == 1
    assert choice_index(("300, 400", "400, 300"), "400,300") == 1
    assert choice_index(("-3", "3"), "A -3") == 0


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        *(
            ("16.99", "$16.99"),
            ("12", "\\$12"),
            ("12", "€12"),
            ("12", "12 €"),
            ("12", "12 dollars"),
        ),
        *(("1200.50", "US$ 1,200.50"), ("12", "USD 12"), ("500", "₹500"), ("500", "Rs. 500")),
        *(("12", "12元"), ("-5", "-$5"), ("$12", "12 dollars"), ("$12", "USD 12.00")),
    ],
)
def test_f31_money_may_be_named(gold: str, answer: str) -> None:
    assert score(gold, answer) == 1
    action = question(f"stop [{gold}]", kind=AnswerKind.ACTION)
    assert grade(action, f"stop [{answer}]").score == 1


@pytest.mark.parametrize(
    ("gold", "answer"),
    [("€12", "$12"), ("12", "$13"), ("$12", "12"), ("12", "$5 - $12"), ("12", "12 dollars 50")],
)
def test_f31_other_money_is_another_answer(gold: str, answer: str) -> None:
    assert score(gold, answer) == 0


@pytest.mark.parametrize(
    "answer",
    ["90^\\circ", "90^{\\circ}", "90°", "90 °", "90º", "90 degrees", "90$^\\circ$", "90度"],
)
def test_f32_degrees_may_be_named(answer: str) -> None:
    assert score("90", answer) == 1
    assert score("90^\\circ", answer) == 1
    assert score("90°", "90") == 1
    assert score("91", answer) == 0
    assert score("90°C", answer) == 0


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        *(("(3,4)", "(3, 4)"), ("(3,4)", "( 3 , 4 )"), ("(3, 4)", "(3.0,4)"), ("-3", "- 3")),
        *(("-3", "−3"), ("-3", "–3"), ("3", "+3"), ("1000", "1 000"), ("1000", "1\u2009000")),
        *(("1000", "1\u202f000"), ("1000", "1'000"), ("1000", "1’000"), ("1000", "1,000")),
        *(("1000", "1\\,000"), ("1000", "1{,}000"), ("100000", "1,00,000"), ("12", "１２")),
        *(("12", "१२"), ("12", "١٢"), ("12", "๑๒"), ("3.5", "٣٫٥"), ("0.5", ".5"), ("3", "三")),
        *(("12", "x = 12"), ("12", "$x_1=12$"), ("12", "The answer is θ = 12."), ("0.5", "r=1/2")),
        *(("5", "5 units"), ("5", "5 square units"), ("5 units", "5"), ("5", "x = 5 units")),
        *(("50%", "50 %"), ("50%", "50\\%"), ("50%", "50 percent"), ("50%", "５０％")),
    ],
)
def test_f33_numbers_are_equal_as_people_write_them(gold: str, answer: str) -> None:
    assert score(gold, answer) == 1


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        *(("12", "12%"), ("12%", "12"), ("50%", "0.5"), ("1.5", "1,5"), ("15", "1,5")),
        *(("1000", "1,0000"), ("1000", "1.000"), ("12", "12 cm"), ("12 cm", "12"), ("12", "1 2")),
        *(("12", "2x = 12"), ("12", "x = 12 cm"), ("12", "x ≠ 12"), ("5 square units", "5 units")),
        *(("1", "The answer is -1."), ("1", "Answer: - 1"), ("1", "Answer - 1"), ("1", "答案是-1")),
        *(("3.142", "3.14"), ("12", "x = y = 12"), ("12", "12 or 13"), ("12", "at 12")),
    ],
)
def test_f33_what_says_another_number_is_one(gold: str, answer: str) -> None:
    assert score(gold, answer) == 0


def test_f34_an_action_may_end_with_an_end_mark() -> None:
    for text in ("click [12].", "click [12]。", "`click [12]`.", "**click [12]**", "click ［12］"):
        assert grade(question("click [12]", kind=AnswerKind.ACTION), text).score == 1, text
    typed = question("type [7] [a.b]", kind=AnswerKind.ACTION)
    assert grade(typed, "type [7] [a.b].").score == 1
    assert grade(typed, "type [7] [a.b.]").score == 0


NO_ACTIONS = (
    "yes", "none", "noop", "wait [1]", "note [x]", "page_focus [1]", "click", "click []",
    "click [abc]", "type [7] []", "scroll [left]", "scroll", "stop 12", "back",
)  # fmt: skip


@pytest.mark.parametrize("text", NO_ACTIONS)
def test_f35_what_the_environment_does_not_know_is_no_action(text: str) -> None:
    assert parse_action(text) is None
    about = question("click [12]", kind=AnswerKind.ACTION)
    assert not answers_in_kind(about, text)
    figures = METRICS["actions"]([about, about], [text, "click [13]"])
    assert figures["unreadable"] == 0.5


def test_f35_a_gold_answer_that_is_no_action_gives_no_score() -> None:
    about = question("noop", kind=AnswerKind.ACTION)
    assert grade(about, "click [12]").score is None
    assert grade(about, "noop").score is None
    assert METRICS["actions"]([about], ["click [12]"]) == {"action": None, "unreadable": None}


def test_f35_an_import_checks_gold_actions(project: Project) -> None:
    project.image("a.png")
    turns = (
        '"conversations": [{"from": "human", "value": "<image>Go on."}, {"from": "gpt", "value":'
    )
    rows = [f'{{"image": "a.png", {turns} "{gold}"}}]}}' for gold in ("click [12]", "noop")]
    path = project.write("w.jsonl", "\n".join(rows))
    options = ("--image-root", project.data, "--split", "train", "--max-rejects", 1)
    ran = project.run("import", "web-action", path, *options)
    assert ran.status == 0, ran.text
    (told,) = (project.home / "rejects").glob("web-action-*.csv")
    assert "the answer 'noop' is not an action" in told.read_text()
    assert project.sql("SELECT count(*) AS n FROM questions") == [{"n": 1}]


ACTIONS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(
        ["click", "hover", "type", "press", "scroll", "goto", "tab_focus", "stop", "clear", "yes",
         "new_tab", "close_tab", "go_back", "go_forward", "noop", "upload", "page_focus"]
    ),
    st.sampled_from(["", " "]),
    st.sampled_from(["", "[12]", "[up]", "[down]", "[a b]", "[7] [red shoes]", "[7] [x] [0]", "[]",
                     "[enter]", "down", "[left]", "[7] []"]),
    st.sampled_from(["", ".", "。", " "]),
)  # fmt: skip


@settings(max_examples=300)
@given(ACTIONS, ACTIONS)
def test_an_action_here_is_one_of_the_environment(text: str, gold: str) -> None:
    mine, theirs = parse_action(text), official.webarena_action(text)
    if mine is not None and "upload" not in text:
        assert theirs is not None or text.rstrip() != text.rstrip(".。 ")  # `go_back.`
    if theirs is not None and (text.count("[") == len(theirs) - 1 or theirs[0] == "type"):
        # What stands behind the first action does not count there.
        told = tuple(part for part in theirs[1:] if part)
        assert mine is not None and mine.arguments[: len(told)] == told
    if mine is not None and mine == parse_action(gold):
        assert theirs is None or theirs == official.webarena_action(gold)


def test_f36_a_polygon_is_never_larger_than_the_official_one() -> None:
    polygon = [(0.1, 0.1), (0.3, 0.1), (0.2, 0.3)]
    boxes = polygon_boxes(polygon, (320, 240), "answer")
    near = [(x, y) for x in range(24, 104) for y in range(18, 78)]
    here = {place for place in near if any(in_box(Point(*place), box) for box in boxes)}
    theirs = {(x, y) for x, y in near if official.in_polygon(x / 320, y / 240, polygon)}
    assert here <= theirs
    on_its_top = {(x, y) for x, y in theirs if y == 24}
    assert len(theirs - here - on_its_top) < 0.01 * len(theirs)


SHARE = st.integers(0, 100).map(lambda n: n / 100)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SHARE, SHARE), min_size=3, max_size=7), st.randoms(use_true_random=False))
def test_f36_points_in_any_polygon_are_in_the_official_one(polygon, rng: random.Random) -> None:
    try:
        boxes = polygon_boxes(polygon, (64, 48), "answer")
    except Unusable:
        return
    assert all(box.x1 < box.x2 and box.y1 < box.y2 for box in boxes)
    for box in rng.sample(boxes, min(10, len(boxes))):
        for x, y in ((box.x1, box.y1), (box.x2, box.y2), (box.x1 - 0.0004, box.y2 + 0.0004)):
            assert official.in_polygon(x / 64, y / 48, polygon)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        *(
            ("左", 1),
            ("左。", 1),
            ("左！", 1),
            ("「左」", 1),
            ("左です", 1),
            ("A、左", 1),
            ("（A）", 1),
        ),
        *(
            ("Ａ", 1),
            ("A：左", 1),
            ("答案：左", 1),
            ("右。", 0),
            ("B、左", 0),
            ("左右", 0),
            ("B", 0),
        ),
    ],
)
def test_s27_answers_in_chinese_may_end_with_their_marks(answer: str, right: int) -> None:
    assert score("左", answer, "左", "右") == right


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        *(
            ("红色", "红色。"),
            ("left", "left。"),
            ("left", "left？"),
            ("हाँ", "हाँ।"),
            ("نعم", "نعم؟"),
        ),
        *(("sí", "¡Sí!"), ("да", "Да."), ("gauche", "« gauche »"), ("links", "„links“")),
        *(("straße", "STRASSE"), ("σοφός", "ΣΟΦΌΣ"), ("ガラス", "ｶﾞﾗｽ"), ("don't", "don’t")),
        *(("ซ้าย", "ซ้าย "), ("ឆ្វេង", "ឆ្វេង។"), ("ဘယ်", "ဘယ်။"), ("ձախ", "ձախ։"), ("left", "ｌｅｆｔ")),
    ],
)
def test_s27_case_width_quotes_and_end_marks_of_every_script(gold: str, answer: str) -> None:
    assert score(gold, answer) == 1


def test_answers_that_say_the_same_have_one_vote() -> None:
    about = question("left", choices=("left", "right"))
    assert {vote_of(about, text) for text in ("left", "(A)", "A.", "Left。")} == {"choice 0"}
    assert vote_of(about, "neither.") == vote_of(about, "Neither") == "neither"
    assert vote_of(question("12"), "$12$") == vote_of(question("12"), "12.0") == "12"
    same = ("2", "two", "2.0", "**2**", "Answer: two", "x = 2", "2 units", "4/2")
    assert {vote_of(question("2"), text) for text in same} == {"2"}
    assert {vote_of(question("2"), text) for text in ("$2", "2 dollars", "$2.00")} == {"2$"}
    about = question("two", choices=("one", "two"))
    assert {vote_of(about, text) for text in ("2", "two", "B. two", "B")} == {"choice 1"}
    about = question("click [7]", kind=AnswerKind.ACTION)
    assert vote_of(about, "click [7].") == vote_of(about, "`Click [ 7 ]`") == "click [7]"
    assert vote_of(question("√8"), "√8") == vote_of(question("√8"), r"$2\sqrt{2}$")
    assert len({vote_of(question("?"), text) for text in ("2+7", "9", "2%", "-2", "2, 7")}) == 5


def test_points_near_one_another_have_one_vote_in_any_order() -> None:
    images = (Image("a", 1000, 500), Image("b", 100, 100))
    about = Question("any", "Where?", images, AnswerKind.BOX, boxes=(Box(0, 0, 9, 9),))
    answers = [
        "(150, 100)", "(156, 100)", "(162, 100)", "(156, 104)", "(400, 100)",
        "(400, 100) in image 1", "(150, 100) in image 2", "(152, 100) in image 2",
        "(1, 2) in image 7", "nowhere",
    ]  # fmt: skip

    def groups(order: list[str]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for answer, (_, speaker) in zip(order, votes_of(about, order), strict=True):
            found.setdefault(order[speaker], set()).add(answer)
        return found

    together = groups(answers)
    assert together["(156, 100)"] == {*answers[:4]}, "the one that most are near to"
    assert len(together) == 6
    for seed in range(20):
        mixed = random.Random(seed).sample(answers, len(answers))
        assert set(map(frozenset, groups(mixed).values())) == set(map(frozenset, together.values()))
    assert votes_of(question("12"), ["$12$", "13", "12.0"]) == [("12", 0), ("13", 1), ("12", 2)]


@pytest.mark.parametrize(
    ("answer", "first", "second"),
    [
        ("A. -2", None, 0), ("A -2", None, 0), ("(A) -2", None, 0), ("A: -2", None, 0),
        ("B. -2", 1, None), ("A. 2", 0, None), ("B. 2", None, 1), ("A-2", 0, 0), ("A - 2", 0, 0),
    ],
)  # fmt: skip
def test_a_sign_behind_a_letter_belongs_to_the_number(
    answer: str, first: int | None, second: int | None
) -> None:
    assert choice_index(("2", "-2"), answer) == first
    assert choice_index(("-2", "2"), answer) == second


@pytest.mark.parametrize(
    "answer",
    ["B. **dark blue**", "B: *dark blue*.", "(B) **dark blue**", "**B**. **dark blue**",
     "B. `dark blue`", "B. __dark blue__", "Answer: B. **dark blue**"],
)  # fmt: skip
def test_an_options_text_may_be_set_apart_behind_its_letter(answer: str) -> None:
    assert choice_index(("red", "dark blue"), answer) == 1
    assert choice_index(("dark blue", "red"), answer) is None


def test_curly_quotes_around_an_action_are_straight_ones() -> None:
    assert parse_action("“click [7]”") == parse_action('"click [7]"') == parse_action("click [7]")
    assert parse_action("stop [“red”]") == parse_action('stop ["red"]')


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("2024-01-05", "2018"), ("2024 - 1 - 10", "2013"), ("2024-01-05", "2018.0"),
        ("10×20", "200"), (r"$10 \times 20$", "200"), ("2 × 3 × 4", "24"), ("10:30", "1/3"),
        ("1/3", "10:30"), ("7:05", "7/5"), ("01/05", "1/5"), ("1/5", "01/05"), ("2-5", "-3"),
        ("(2–5)", "-3"), ("10 − 20", "-10"),
    ],
)  # fmt: skip
def test_dates_times_sizes_and_ranges_are_no_arithmetic(gold: str, answer: str) -> None:
    assert score(gold, answer) == 0
    assert score(gold, gold) == 1


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("21", "twenty-one", 1), ("forty two", "42", 1), ("Ninety-Nine.", "99", 1),
        ("11", "eleven", 1),
        ("100", "one hundred", 1), ("100", "a hundred", 1), ("20", "二十", 1), ("35", "三十五", 1),
        ("15", "十五", 1), ("20", "twenty-one", 0), ("2", "twenty", 0), ("21", "twentyone", 0),
        ("x=5", "5", 1), ("$x = 5$", "five", 1), ("5", "x=5", 1), ("x=5", "x = 5", 1),
        ("x=5", "y=5", 0), ("x=5", "6", 0), ("f=ma", "ma", 0), ("x=5", "$5", 1), ("x=$5", "5", 0),
    ],
)  # fmt: skip
def test_numbers_in_words_and_behind_a_variable(gold: str, answer: str, right: int) -> None:
    assert score(gold, answer) == right


@pytest.mark.parametrize(
    ("about", "answer", "wrong"),
    [
        (question("left", choices=("left", "right")), "right", True),
        (question("left", choices=("left", "right")), "It is on the left side", False),
        (question("left", choices=("left", "right")), None, False),
        (question("red"), "blue", True), (question("red"), "The ball is red", False),
        (question("5"), "6", True), (question("5"), "5 apples", False), (question("5"), "15", True),
        (question("two"), "2 apples", False), (question("2"), "-2", True),
        (question("12 cm"), "12 m", True), (question("红色"), "球是红色的", False),
        (question("click [7]", kind=AnswerKind.ACTION), "click [8]", True),
        (question("click [7]", kind=AnswerKind.ACTION), "I click [7] now", False),
        (question("(1, 2)", kind=AnswerKind.BOX), "the lamp", False),
        (question("(1, 2)", kind=AnswerKind.BOX), "(3, 4)", True),
    ],
)  # fmt: skip
def test_what_only_misses_the_form_is_not_wrong_in_content(
    about: Question, answer: str | None, wrong: bool
) -> None:
    assert is_wrong_in_content(about, answer) is wrong


# ---- beside the official graders -----------------------------------------------------------------


def test_the_table_of_strictness_in_the_docs_is_that_of_the_graders() -> None:
    with open("docs/scores.md", encoding="utf-8") as page:
        assert official.table() in page.read()


DRESSES = (
    "{}", " {} ", "{}.", "({})", "**{}**", "${}$", "\\boxed{{{}}}", "\\({}\\)", "\\text{{{}}}",
    "\"{}\"", "Answer: {}", "The answer is {}.", "the correct answer is {}", "{}。",
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-2000, 200_000).map(str),
    st.decimals(-50, 50, places=2).map(str),
    st.builds("\\frac{{{}}}{{{}}}".format, st.integers(1, 30), st.integers(1, 30)),
    st.builds("{}\\pi".format, st.integers(2, 60)),
    st.builds("{}\\sqrt{{{}}}".format, st.integers(2, 9), st.sampled_from([2, 3, 5, 7])),
    st.builds("({}, {})".format, st.integers(-9, 9), st.integers(-9, 9)),
)


def _dressed(value: str, rng: random.Random) -> str:
    """A value as somebody may write it."""
    value = rng.choice((
        value, value.replace("\\", " \\"), value.replace(", ", ","), value.replace("-", "- "),
        value.replace("frac", "dfrac"), f"{value}^\\circ" if value.isdigit() else value,
        f"\\${value}" if value.isdigit() else value,
    ))  # fmt: skip
    return rng.choice(DRESSES[:8] if "\\" in value else DRESSES).format(value)


@settings(max_examples=250, deadline=None)
@given(NUMBERS, NUMBERS, st.randoms(use_true_random=False))
def test_a_number_is_right_here_where_mathvision_takes_it(
    gold: str, other: str, rng: random.Random
) -> None:
    answer = _dressed(gold, rng)
    if official.mathvision(answer, (), gold):
        assert score(gold, answer) == 1, (gold, answer)
    wrong = _dressed(other, rng)
    if score(gold, wrong) == 1:  # never another number: to two decimals they are the same
        a, b = official._number(gold), official._number(other)
        assert gold == other or (a is not None and b is not None and abs(a - b) < 1e-9)


TEXTS = st.sampled_from(
    ["red", "dark blue", "left", "the second image", "Point A", "3", "12", "Box B", "yes", "no",
     "2 \\pi", "About the same", "左", "右边", "a dog", "None of these"]
)  # fmt: skip
BY_LETTERS = (
    "{0}", "({0})", "{0}.", "({0}).", "[{0}]", "{0})", "**{0}**", "\\boxed{{{0}}}", "{0};",
    "{0}:", "({0}) {1}", "{0}. {1}", "{0}: {1}", "{0}) {1}.", "Answer: {0}", "{1}", "{1}.",
    "The answer is {0}.", "The correct answer is ({0}) {1}.", "（{0}）{1}", "{0}、{1}",
)  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(
    st.lists(TEXTS, min_size=2, max_size=5, unique=True),
    st.sampled_from(BY_LETTERS),
    st.randoms(use_true_random=False),
)
def test_an_option_is_named_here_where_others_find_it(
    choices: list[str], form: str, rng: random.Random
) -> None:
    index = rng.randrange(len(choices))
    gold, letter = choices[index], "ABCDE"[index]
    answer = form.format(letter, gold)
    graders = (official.options, official.mathvision, official.mmmu)
    if any(grader(answer, choices, gold) for grader in graders):
        assert score(gold, answer, *choices) == 1, (choices, answer)
    for other in choices:
        if other != gold:
            assert score(other, answer, *choices) == 0, (choices, answer, other)


@pytest.mark.slow
def test_thousands_of_forms_beside_the_official_graders() -> None:
    rng = random.Random(5)
    golds = [str(rng.randrange(10_000)) for _ in range(20_000)]
    wrong_here = [
        (gold, answer)
        for gold in golds
        if official.mathvision(answer := _dressed(gold, rng), (), gold) and score(gold, answer) != 1
    ]
    assert wrong_here == []


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_text_equals_itself_and_nothing_breaks_the_grader(a: str, b: str) -> None:
    same_text(a, b)
    choice_index((a, b), b)
    parse_action(a)
    if a.strip():
        assert same_text(a, a)
