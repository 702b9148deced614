"""One grader for each kind of answer; search, filters, GRPO rewards and evaluation all call it.

    grade(question, "left")        # Grade(score=1.0, reason="the right choice")
    grade(question, None)          # Grade(score=0.0, reason="no answer was given")

Grading is strict: an answer is right when it *is* a gold answer, never when it contains one or is
contained in one. An answer's coordinates are original pixels, like every point's.
"""

from __future__ import annotations

import math
import re
import unicodedata

from mcts.data import AnswerKind, Grade, Point, Question
from mcts.parsing import points_in

_LETTERED = re.compile(r"^\(?([A-Za-z])(?:\)|\.|:)?(?:\s+(.*))?$", re.DOTALL)
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_ACTION = re.compile(r"^\s*(\w+)\s*((?:\[[^\]]*\]\s*)*)$", re.DOTALL)


def grade(question: Question, answer: str | None) -> Grade:
    """Score `answer` in [0, 1] against the question's gold answer."""
    if answer is None or not answer.strip():
        return Grade(0.0, "no answer was given")
    return _GRADERS[question.answer_kind](question, answer)


def normalize(text: str) -> str:
    """A text as it is compared: NFKC, case folded, single spaces, no quotes or end mark, digits."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    folded = folded.strip("\"'`“”‘’ ").rstrip(".!").strip()
    if folded in _NUMBER_WORDS:
        return _NUMBER_WORDS[folded]
    # Commas only where thousands are: `1,2` is two numbers, not twelve.
    if len(folded) < 20 and re.fullmatch(r"[+-]?(\d+|\d{1,3}(,\d{3})+)(\.\d+)?", folded):
        number = float(folded.replace(",", ""))
        return str(int(number)) if number == int(number) else repr(number)
    return folded


def chosen(question: Question, answer: str) -> int | None:
    """The index of the choice that `answer` names by its text, its letter or both; else None.

    Text comes first, so that where the choices are themselves letters, the text decides.
    `B. left` names a choice only when choice B is `left`.
    """
    choices = [normalize(choice) for choice in question.choices]
    said = normalize(answer)
    if choices.count(said) == 1:
        return choices.index(said)
    if match := _LETTERED.match(answer.strip()):
        index = ord(match[1].upper()) - ord("A")
        rest = match[2]
        if index < len(choices) and (not rest or normalize(rest) == choices[index]):
            return index
    return None


def answers_in_kind(question: Question, answer: str | None) -> bool:
    """Whether `answer` is one at all, right or wrong: an option, one point, one action."""
    if answer is None or not answer.strip():
        return False
    if question.answer_kind is AnswerKind.TEXT:
        return not question.choices or chosen(question, answer) is not None
    if question.answer_kind is AnswerKind.ACTION:
        return _action(answer) is not None
    return _answer_point(answer) is not None


def _grade_text(question: Question, answer: str) -> Grade:
    if question.choices:
        picked = chosen(question, answer)
        if picked is None:
            return Grade(0.0, "not one of the choices")
        gold = {chosen(question, text) for text in question.answers}
        right = picked in gold
        return Grade(float(right), "the right choice" if right else "another choice is right")
    if normalize(answer) in {normalize(gold) for gold in question.answers}:
        return Grade(1.0, "equals a gold answer")
    return Grade(0.0, "differs from every gold answer")


def _answer_point(answer: str) -> Point | None:
    points = points_in(answer)
    return points[0] if len(points) == 1 else None


def _grade_box(question: Question, answer: str) -> Grade:
    point = _answer_point(answer)
    if point is None:
        return Grade(0.0, "the answer is not one point (x, y)")
    if any(box.contains(point) for box in question.boxes):
        return Grade(1.0, "the point is in a gold box")
    return Grade(0.0, "the point is outside every gold box")


def _grade_point(question: Question, answer: str) -> Grade:
    point = _answer_point(answer)
    if point is None:
        return Grade(0.0, "the answer is not one point (x, y)")
    distances = [
        math.hypot(gold.x - point.x, gold.y - point.y)
        for gold in question.points
        if gold.image == point.image
    ]
    if not distances:
        return Grade(0.0, "no gold point is in that image")
    nearest = min(distances)
    right = nearest <= question.tolerance
    return Grade(float(right), f"{nearest:.1f} px from the nearest gold point")


def _action(text: str) -> tuple[str, tuple[str, ...]] | None:
    """An action's name and bracketed arguments, as compared; None when it is not an action."""
    match = _ACTION.match(text)
    if match is None:
        return None
    arguments = re.findall(r"\[([^\]]*)\]", match[2])
    return match[1].casefold(), tuple(normalize(argument) for argument in arguments)


def _grade_action(question: Question, answer: str) -> Grade:
    said = _action(answer)
    if said is None:
        return Grade(0.0, "the answer is not an action")
    if any(said == _action(gold) for gold in question.answers):
        return Grade(1.0, "the right action")
    same_name = any(said[0] == (_action(gold) or ("",))[0] for gold in question.answers)
    return Grade(0.0, "right action, wrong target or text" if same_name else "another action")


_GRADERS = {
    AnswerKind.TEXT: _grade_text,
    AnswerKind.BOX: _grade_box,
    AnswerKind.POINT: _grade_point,
    AnswerKind.ACTION: _grade_action,
}
