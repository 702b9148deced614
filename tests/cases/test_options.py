"""Options and gold: nothing that is empty or missing moves a letter or an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.grading.grade import grade
from mcts.data import AnswerKind, Image, Question
from mcts.prompts import choices_line
from tests.support import benchmark_files as files
from tests.support.project import Project, thinking
from warehouse.sources import ReadContext, Reject, tasks
from warehouse.sources.reading.accept_drafts import Accepted, Checker
from warehouse.sources.reading.drafts import Draft, Unusable
from warehouse.sources.reading.options import (
    Options,
    cut_options,
    inline_options,
    letter_of,
    lettered_places,
    read_options,
    whole_number,
)

NAN = float("nan")
COLUMNS = "question=q,image=img,answer=a,choices=A+B+C+D"
FOUR = {"A": "", "B": "cat", "C": "dog", "D": "bird"}


def outcomes(task: str, path: Path) -> list[Accepted | Reject]:
    checker = Checker(task)
    drafts = tasks()[task].formats[path.suffix](path, ReadContext(task))
    return [checker.check(d, "test") if isinstance(d, Draft) else d for d in drafts]


def gold(task: str, path: Path) -> list[tuple[tuple[str, ...], str] | str]:
    """Choices and answer of every row, or why it is none."""
    return [
        (one.question.choices, one.question.answers[0])
        if isinstance(one, Accepted)
        else f"{one.field}: {one.reason}"
        for one in outcomes(task, path)
    ]


def stored(project: Project, rows: list[dict[str, Any]], columns: str = COLUMNS) -> list[Any]:
    """What an import by column stores, in the order of the rows."""
    added = project.add(rows, columns=columns)
    assert added.status == 0, added.text
    found = project.sql("SELECT choices, answers[1] AS gold FROM questions ORDER BY source_row")
    return [(tuple(row["choices"]), row["gold"]) for row in found]


# ---- columns of the user's own ---------------------------------------------------------------


def test_s03_an_empty_option_moves_no_letter(project: Project) -> None:
    rows = [{**FOUR, "a": "B"}, {**FOUR, "q": "C?", "a": "C"}, {**FOUR, "q": "1?", "a": "1"}]
    rest = ("cat", "dog", "bird")
    assert stored(project, rows) == [(rest, "cat"), (rest, "dog"), (rest, "cat")]


def test_a_gold_answer_that_names_an_empty_option_is_refused_with_a_sentence(
    project: Project,
) -> None:
    ran = project.add([{**FOUR, "a": "A"}], columns=COLUMNS)
    assert ran.status == 2
    assert "answer: the answer 'A' names option A, which is empty" in ran.err


@pytest.mark.parametrize("missing", [NAN, None, "", "  ", "\t\n"])
def test_s16_nan_and_null_are_missing(project: Project, missing: Any) -> None:
    row = {"A": "yes", "B": "no", "C": missing, "D": missing, "a": "A"}
    assert stored(project, [row]) == [(("yes", "no"), "yes")]


def test_an_index_counts_from_what_is_declared(project: Project) -> None:
    rows = [{**FOUR, "a": 1}, {**FOUR, "q": "4?", "a": 4}, {**FOUR, "q": "2?", "a": "2.0"}]
    told = project.add(rows[1:2], columns=COLUMNS)
    assert told.status == 2
    assert "the answers are numbers that count choices from 1" in told.err
    assert "count_from=1" in told.err
    rest = ("cat", "dog", "bird")
    found = stored(project, rows[1:], f"{COLUMNS},count_from=1")
    assert found == [(rest, "bird"), (rest, "cat")]
    refused = project.add(rows[:1], columns=f"{COLUMNS},count_from=1")
    assert "names option A, which is empty" in refused.err
    assert project.add(rows, columns=f"{COLUMNS},count_from=2").status == 2


def test_the_word_nan_is_a_word(project: Project) -> None:
    row = {"A": "nan", "B": "naan", "C": "None", "D": "null", "a": "A"}
    assert stored(project, [row]) == [(("nan", "naan", "None", "null"), "nan")]


WRITTEN = [
    ["left", "right"],
    '["left", "right"]',
    "['left', 'right']",
    {"A": "left", "B": "right"},
    '{"A": "left", "B": "right"}',
    "{'A': 'left', 'B': 'right'}",
    {"B": "right", "A": "left"},
    {"label": ["A", "B"], "text": ["left", "right"]},
    [{"label": "A", "text": "left"}, {"label": "B", "text": "right"}],
    {"1": "left", "2": "right"},
    ["(A) left", "(B) right"],
    ["A. left", "B. right"],
    ["a) left", "b) right"],
    ["A：left", "B：right"],
    ["（A）left", "（B）right"],
    "A. left, B. right",
    "A. left; B. right",
    "Options: A. left, B. right.",
    "(A) left (B) right",
    "(A) left, or (B) right",
    "A：left B：right",
    "A、left\nB、right",
    "A. left\nB. right\n",
    "\n(A) left\n\n(B) right",
]  # fmt: skip


@pytest.mark.parametrize("written", WRITTEN, ids=map(str, WRITTEN))
def test_options_are_read_however_they_are_written(written: Any) -> None:
    found = read_options(written)
    assert found.choices == ("left", "right")
    assert found.by_letter("B") == "right" if found.places[0][0] == "A" else True
    assert found.resolve("right") == "right"


@pytest.mark.parametrize("written", WRITTEN, ids=map(str, WRITTEN))
def test_a_cell_of_a_table_is_read_the_same(project: Project, written: Any) -> None:
    if isinstance(written, dict) and "1" in written:
        answer, right = "2", "right"
    else:
        answer, right = "B", "right"
    row = {"c": written, "a": answer}
    found = stored(project, [row], "question=q,image=img,answer=a,choices=c")
    assert found == [(("left", "right"), right)]


@pytest.mark.parametrize("cell", ["left, right", "left", 7, [["a"], ["b"]], "{'here': 'left'}"])
def test_what_is_no_list_of_options_is_refused(cell: Any) -> None:
    with pytest.raises(Unusable, match=r"choices: "):
        read_options(cell)


@pytest.mark.parametrize(
    "written", [["cat", NAN, "dog"], {"A": "cat", "B": None, "C": "dog"}, "A. cat\nB.\nC. dog",
                ["(A) cat", "", "(C) dog"], "(A) cat (B) (C) dog"],
    ids=str,
)  # fmt: skip
def test_a_gap_keeps_the_letters_of_the_others(written: Any) -> None:
    found = read_options(written)
    assert found.choices == ("cat", "dog")
    assert found.by_letter("C") == found.by_letter("(c)") == "dog"
    with pytest.raises(Unusable, match="option B, which is empty"):
        found.by_letter("B")


PLACES = st.lists(st.sampled_from(["cat", "dog", "bird", "two words", ""]), min_size=2, max_size=8)


@given(PLACES, st.data())
def test_whatever_is_empty_a_letter_and_an_index_name_the_same_place(
    places: list[str], data: st.DataObject
) -> None:
    numbered = [f"{text} {i}" if text else "" for i, text in enumerate(places)]
    at = data.draw(st.integers(0, len(places) - 1))
    letter = chr(ord("A") + at)
    forms: list[Options] = [
        read_options([t if t else data.draw(st.sampled_from([None, NAN, "", " "]))
                      for t in numbered]),
        read_options({chr(ord("A") + i): t for i, t in enumerate(numbered)}),
        lettered_places({chr(ord("A") + i): t for i, t in enumerate(numbered)}),
    ]  # fmt: skip
    for found in forms:
        assert found.choices == tuple(filter(None, numbered))
        if numbered[at]:
            assert found.by_letter(letter) == numbered[at]
            assert found.by_letter(f"{letter}. {numbered[at]}") == numbered[at]
            assert found.by_number(at) == found.by_number(f"{at}.0") == numbered[at]
            assert found.resolve(letter, first=0) == numbered[at]
        else:
            with pytest.raises(Unusable):
                found.by_letter(letter)


# ---- published files ---------------------------------------------------------------------------


def tsv_row(**changed: Any) -> dict[str, Any]:
    row = {"index": 0, "image": files.b64(1), "question": "Which?", "A": "ant", "B": "bee",
           "C": "cow", "D": "dog", "answer": "A"}  # fmt: skip
    return {**row, **changed}


@pytest.mark.parametrize("task", ["ai2d", "mmmu", "realworldqa"])
def test_s15_a_column_that_is_empty_ends_nothing(tmp_path: Path, task: str) -> None:
    path = files.tsv(tmp_path / "x.tsv", [
        tsv_row(C=""), tsv_row(C="", answer="D", question="D?"), tsv_row(A="", answer="D"),
        tsv_row(C="", answer="C"),
    ])  # fmt: skip
    without_c, without_a = ("ant", "bee", "dog"), ("bee", "cow", "dog")
    empty = "answer: the answer 'C' names option C, which is empty"
    assert gold(task, path) == [
        (without_c, "ant"), (without_c, "dog"), (without_a, "dog"), empty,
    ]  # fmt: skip


def test_published_lists_keep_their_places_too(tmp_path: Path) -> None:
    row = {**files.AI2D_ROW, "options": ["ant", "", "cow", "dog"], "answer": "2"}
    path = files.parquet(tmp_path / "test.parquet", [row, {**row, "answer": "3.0"}])
    assert gold("ai2d", path) == [(("ant", "cow", "dog"), "cow"), (("ant", "cow", "dog"), "dog")]
    mmmu = {**files.MMMU_ROWS[0], "question": "<image 1> <image 2>?", "answer": "C",
            "options": "['$6', '', '$8']"}  # fmt: skip
    path = files.parquet(tmp_path / "m.parquet", [mmmu], image_3=files.IMAGE)
    assert gold("mmmu", path) == [(("$6", "$8"), "$8")]
    steps = {**files.wemath_rows()[0], "option": "A. 5 cm;B. ; C. 7; D. None", "answer": "C"}
    files.image_file(tmp_path, steps["image_path"], 1)
    path = files.write_json(tmp_path / "w.json", [steps])
    assert gold("wemath", path) == [(("5 cm", "7", "None"), "7")]


def test_a_letter_becomes_the_choice_it_names(tmp_path: Path) -> None:
    """untested.md: MathVision's fixture has options that are the letters themselves."""
    row = {**files.MATH_ROWS[0], "options": ["12", "24", "36"], "answer": "B"}
    path = files.parquet(tmp_path / "test.parquet", [row])
    assert gold("mathvision", path) == [(("12", "24", "36"), "24")]


def test_spaces_around_a_cell_are_no_part_of_it(project: Project) -> None:
    """untested.md: the strip of a cell."""
    row = {"q": "  Is it?  ", "A": " yes", "B": "no ", "a": " B "}
    columns = "question=q,image=img,answer=a,choices=A+B"
    assert stored(project, [row], columns) == [(("yes", "no"), "no")]
    assert project.sql("SELECT text FROM questions") == [{"text": "Is it?"}]


# ---- options within a question's text ----------------------------------------------------------


def talk(project: Project, text: str, answer: str, task: str = "sat2") -> str | dict[str, Any]:
    """Import one line of the reference implementation; the stored question or the refusal."""
    project.image("a.png")
    row = {"image": "a.png", "conversations": [{"from": "human", "value": f"<image>{text}"},
                                               {"from": "gpt", "value": answer}]}  # fmt: skip
    path = project.write("train.jsonl", json.dumps(row))
    ran = project.run("import", task, path, "--image-root", project.data)
    if ran.status:
        return ran.err
    names = "text, choices, answers, boxes, answer_kind"
    (found,) = project.sql(f"SELECT {names} FROM questions")
    return found


@pytest.mark.parametrize(
    "text",
    ["Where? Options: A. left, B. right", "Where?\nOptions: (A) left (B) right",
     "Where? (A) left (B) right", "Where?\nA. left\nB. right", "Where? Choices: A) left; B) right.",
     "Where?\nA：left\nB：right", "Where? A. left B. right",
     "Where?\n(a) left\n(b) right\nPlease answer with the option's letter."],
)  # fmt: skip
@pytest.mark.parametrize("answer", ["left", "A", "(A)", "A. left", "a)", "（A）", "Ａ", "A：left"])
def test_f40_f41_options_lose_their_letters_and_letters_name_them(
    project: Project, text: str, answer: str
) -> None:
    found = talk(project, text, answer)
    assert isinstance(found, dict), found
    assert (found["text"], found["choices"]) == ("Where?", ["left", "right"])
    assert found["answers"] == ["left"]


def test_f41_a_letter_beside_another_option_s_words_is_refused(project: Project) -> None:
    refused = talk(project, "Which?\nA. red\nB. blue", "A. blue")
    assert isinstance(refused, str)
    assert "names option A, which is 'red'" in refused


@pytest.mark.parametrize(
    "text",
    ["Is it by A. Smith or B. Jones?", "Is point (A) left of point (B)?", "Compare (a) with (b).",
     "What does option A. mean?", "Which?\nA. red\nC. blue"],
)  # fmt: skip
def test_letters_within_a_sentence_are_no_options(text: str) -> None:
    found, options = cut_options(text)
    assert (found, options.choices) in [(text, ()), (text, ())]


def test_indexes_and_letters_as_tables_write_them() -> None:
    assert [whole_number(x) for x in ("3", 3, "3.0", 3.0, "1e0", "３", " 2 ")] == [3] * 4 + [
        1,
        3,
        2,
    ]
    assert [whole_number(x) for x in ("3.5", "-1", True, "x", "", None, "1e9")] == [None] * 7
    assert {letter_of(x) for x in ("B", "(B)", "b)", "[B]", "B.", "B:", "（Ｂ）", "B、", '"B"',
                                   "**B**", "Option B", "Answer: B")} == {"B"}  # fmt: skip
    assert [letter_of(x) for x in ("BB", "left", "", "1", "B C")] == [None] * 5
    assert inline_options("left and right").choices == ()


# ---- gold that is a box --------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["[100, 40, 150, 70]", "(100, 40, 150, 70)", "[[100,40,150,70]]",
                                    " [100.0, 40, 150, 70] "])  # fmt: skip
def test_f37_a_box_in_any_brackets_is_a_box(project: Project, answer: str) -> None:
    found = talk(project, "the button", answer, "web-grounding")
    assert isinstance(found, dict), found
    assert (found["text"], found["answer_kind"], found["answers"]) == (
        "the button", "point_in_box", [],
    )  # fmt: skip
    assert [(b["x1"], b["y1"], b["x2"], b["y2"]) for b in found["boxes"]] == [(100, 40, 150, 70)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("the red one", "answers of this task are boxes"), ("(12, 40)", "task are boxes"),
     ("[0.1, 0.2, 0.3, 0.4]", "are they shares from 0 to 1"), ("[1, 2, 3]", "are boxes")],
)  # fmt: skip
def test_f37_what_no_point_can_answer_is_refused(
    project: Project, answer: str, reason: str
) -> None:
    refused = talk(project, "the button", answer, "web-grounding")
    assert isinstance(refused, str)
    assert reason in refused


def test_several_gold_boxes_are_all_read(project: Project) -> None:
    found = talk(project, "a ball", "[[10, 10, 20, 20], [60, 60, 110, 110]]", "web-grounding")
    assert isinstance(found, dict), found
    assert [b["x1"] for b in found["boxes"]] == [10, 60]


# ---- how options are asked -------------------------------------------------------------------


def asked(choices: tuple[str, ...], answer: str, right: str) -> float | None:
    image = Image("0" * 64, 64, 48)
    question = Question("t", "Which?", (image,), AnswerKind.TEXT, choices, (right,))
    return grade(question, answer).score


def test_f15_options_with_commas_are_asked_a_line_each() -> None:
    choices = ("300, 400", "400, 300", "3000, 4000", "No correct answer")
    assert choices_line(choices) == (
        " Choices:\nA. 300, 400\nB. 400, 300\nC. 3000, 4000\nD. No correct answer"
    )
    for answer in ("B", "(B)", "B.", "B. 400, 300", "400, 300", "b"):
        assert asked(choices, answer, "400, 300") == 1, answer
    assert asked(choices, "A", "400, 300") == 0


@pytest.mark.parametrize(
    "text", ["a, b", "a or b", "a OR b", "a\nb", "a、b", "a，b", "a；b", "甲或乙"]
)
def test_f15_whatever_separates_lists_asks_a_line_each(text: str) -> None:
    assert choices_line((text, "c")) == f" Choices:\nA. {text}\nB. c"
    assert choices_line((text, "b")) == f" Choices:\n- {text}\n- b"


@pytest.mark.parametrize("text", ["or", "color", "orange", "Oregon or", "for"])
def test_or_is_a_word_of_its_own(text: str) -> None:
    lettered = text in ("or", "Oregon or")
    assert choices_line((text, "b")).startswith(" Choices:\n") == lettered


def test_ordinary_options_are_asked_as_ever() -> None:
    assert choices_line(()) == ""
    assert choices_line(("yes", "no")) == " Choices: yes or no."
    assert choices_line(("left", "right", "no correct answer")) == (
        " Choices: left, right or no correct answer."
    )


def test_options_that_are_letters_themselves_get_no_letters() -> None:
    choices = ("A, B", "A", "B")
    assert choices_line(choices) == " Choices:\n- A, B\n- A\n- B"
    assert asked(choices, "A", "A") == 1


def test_f15_the_teacher_is_asked_in_that_form(project: Project) -> None:
    row = {"A": "300, 400", "B": "400, 300", "a": "B"}
    _, requests = project.ask(
        [row], thinking("<think>The cup is at {p}.</think>", end="B"),
        columns="question=q,image=img,answer=a,choices=A+B",
    )  # fmt: skip
    (text,) = {part["text"] for part in requests[0]["messages"][1]["content"] if "text" in part}
    assert "Is it? Choices:\nA. 300, 400\nB. 400, 300" in text
    assert {row["reward"] for row in project.sql("SELECT reward FROM traces")} == {1.0}
