"""One grader for each kind of answer; search, filters, GRPO rewards and evaluation all call it.

    grade(question, "left")        # Grade(score=1.0, reason="the right choice")
    grade(question, None)          # Grade(score=0.0, reason="no answer was given")

Grading is strict: an answer is right when it *is* a gold answer, never when it contains one or is
contained in one. An answer's coordinates are original pixels, like every point's: a model's own
frame was left when its text was parsed. A point is in a box when it is on an edge or between them,
both kept to `DECIMALS` places, so that what conversion leaves in the last digits decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache

import regex

from curation.grading.actions import Action, parse_action, same_action
from curation.grading.choices import choice_index
from curation.grading.equality import same_text
from curation.grading.exact_numbers import UNSAID_UNITS, quantity_in
from curation.grading.formula_values import value_in
from curation.grading.formulas import spelling, unwrap, without_brackets
from curation.grading.lead_ins import without_lead_in, without_variable
from curation.grading.normalize import LONGEST, normalize
from mcts.coordinates import DECIMALS
from mcts.data import AnswerKind, Box, Grade, Point, Question
from mcts.parsing import sole_point

# A sign each of scripts that put no spaces between words.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"[{_UNSPACED}]|[\w--[{_UNSPACED}]]+(?:[-.,:'/]\w+)*", regex.V1)

VOTE_RADIUS = 0.01
"""Share of an image's longer side within which points have one vote."""


def grade(question: Question, answer: str | None) -> Grade:
    """Score `answer` in [0, 1] against the question's gold answer.

    Whether there is a score depends on the question alone: without a gold answer that an answer can
    equal, no answer to it has one.
    """
    if reason := _ungradable(question):
        return Grade(None, reason)
    if answer is None or not answer.strip():
        return Grade(0.0, "no answer was given")
    return _GRADERS[question.answer_kind](question, answer)


def _ungradable(question: Question) -> str:
    """Say why no answer to the question can be graded; nothing where one can."""
    if question.answer_kind is AnswerKind.TEXT and question.choices:
        known = _gold_choices(question.choices, question.answers)
        return "" if known else "no gold answer is one of the choices"
    if question.answer_kind is AnswerKind.ACTION:
        return "" if _gold_actions(question.answers) else "no gold answer is an action"
    return ""


@lru_cache(maxsize=4096)
def _gold_choices(choices: tuple[str, ...], answers: tuple[str, ...]) -> frozenset[int]:
    """Return the indices of the choices that gold answers name."""
    return frozenset(i for text in answers if (i := choice_index(choices, text)) is not None)


@lru_cache(maxsize=4096)
def _gold_actions(answers: tuple[str, ...]) -> tuple[Action, ...]:
    return tuple(gold for text in answers if (gold := parse_action(text)) is not None)


def choice_of(question: Question, answer: str) -> int | None:
    """Find the index of the choice that `answer` names by text, letter or both; else None."""
    return choice_index(question.choices, answer)


def answers_in_kind(question: Question, answer: str | None) -> bool:
    """Return whether `answer` is one at all, right or wrong: an option, one point, one action."""
    if answer is None or not answer.strip():
        return False
    if question.answer_kind is AnswerKind.TEXT:
        return not question.choices or choice_of(question, answer) is not None
    if question.answer_kind is AnswerKind.ACTION:
        return parse_action(answer) is not None
    return _answer_point(question, answer) is not None


def is_wrong_in_content(question: Question, answer: str | None) -> bool:
    """Return whether an answer that the grader gave no full marks says something else than a gold
    answer, and does not only miss the form.

    What is no answer of the question's kind says nothing; a free answer in more words than a gold
    one, which stands in it, may mean that.
    """
    if answer is None or not answers_in_kind(question, answer):
        return False
    if question.answer_kind is not AnswerKind.TEXT or question.choices:
        return True
    said = _plain_words(answer)
    return not any(_stands_in(_plain_words(gold), said) for gold in question.answers)


def _plain_words(text: str) -> list[str]:
    return [normalize(word) for word in _WORD.findall(unwrap(without_variable(text)))]


def _stands_in(words: Sequence[str], said: Sequence[str]) -> bool:
    n = len(words)
    return 0 < n < len(said) and any(said[i : i + n] == words for i in range(len(said) - n + 1))


def vote_of(question: Question, answer: str) -> str:
    """Return a text that is the same for answers that say the same: the choice, the action, the
    number, else the words.

    Two answers have one vote where the grader takes one for the other, whatever the gold answer.
    """
    if question.choices and (index := choice_of(question, answer)) is not None:
        return f"choice {index}"
    if question.answer_kind is AnswerKind.ACTION and (action := parse_action(answer)):
        said = [normal_answer(part) for part in action.arguments]
        return " ".join([action.name, *(f"[{part}]" for part in said)])
    return normal_answer(answer)


@lru_cache(maxsize=1 << 14)
def normal_answer(answer: str) -> str:
    """Return a free answer in its normal form: a number without what the question leaves open,
    else the words, without what announces them."""
    text = without_variable(without_lead_in(answer))
    words = normalize(unwrap(text))
    if len(text) > LONGEST:
        return words
    if (quantity := quantity_in(words)) is not None:
        unit = "" if quantity.unit in UNSAID_UNITS else quantity.unit
        return f"{quantity.number}{unit}"
    if isinstance(value := value_in(text), Decimal):
        return f"{value:.40f}"
    return without_brackets(spelling(text))


def votes_of(question: Question, answers: Sequence[str]) -> list[tuple[str, int]]:
    """Return for each answer its vote, and the position of the answer that speaks for that vote.

    Answers that are points vote together where they are within `VOTE_RADIUS` of the one that most
    are near to; it speaks for them. Any other answer speaks for itself. The order decides nothing.
    """
    votes = [(vote_of(question, answer), i) for i, answer in enumerate(answers)]
    if question.answer_kind not in (AnswerKind.BOX, AnswerKind.POINT):
        return votes
    told = [_answer_point(question, answer) for answer in answers]
    left = {i: point for i, point in enumerate(told) if point is not None}
    near = {i: _near(question, point, left) for i, point in left.items()}
    while left:
        near = {i: {j: away for j, away in near[i].items() if j in left} for i in left}
        ranks = {
            (-len(near[i]), math.fsum(near[i].values()), point.image, point.x, point.y, i)
            for i, point in left.items()
        }
        centre = min(ranks)[-1]
        vote = f"point {left[centre]}"
        for i in near[centre]:
            votes[i] = vote, centre
            del left[i]
    return votes


def _near(question: Question, point: Point, others: Mapping[int, Point]) -> dict[int, float]:
    """Return the distances of those points that have one vote with `point`; itself is one."""
    radius = 0.0
    if 0 <= point.image < len(question.images):
        image = question.images[point.image]
        radius = VOTE_RADIUS * max(image.width, image.height)
    apart = {
        i: math.hypot(other.x - point.x, other.y - point.y)
        for i, other in others.items()
        if other.image == point.image
    }
    return {i: distance for i, distance in apart.items() if distance <= radius}


def _grade_text(question: Question, answer: str) -> Grade:
    if question.choices:
        picked = choice_of(question, answer)
        if picked is None:
            return Grade(0.0, "not one of the choices")
        right = picked in _gold_choices(question.choices, question.answers)
        return Grade(float(right), "the right choice" if right else "another choice is right")
    if any(_same_free(answer, gold) for gold in question.answers):
        return Grade(1.0, "equals a gold answer")
    return Grade(0.0, "differs from every gold answer")


def _same_free(answer: str, gold: str) -> bool:
    """Return whether a free answer is a gold one; either may name the variable, `x = 12`."""
    if same_text(answer, gold):
        return True
    value = without_variable(answer)
    if value != answer:
        return same_text(value, gold)
    wanted = without_variable(gold)
    return wanted != gold and quantity_in(wanted) is not None and same_text(answer, wanted)


def _answer_point(question: Question, answer: str) -> Point | None:
    return sole_point(answer, len(question.images))


def _grade_box(question: Question, answer: str) -> Grade:
    point = _answer_point(question, answer)
    if point is None:
        return Grade(0.0, "the answer is not one point (x, y)")
    if any(in_box(point, box) for box in question.boxes):
        return Grade(1.0, "the point is in a gold box")
    return Grade(0.0, "the point is outside every gold box")


def in_box(point: Point, box: Box) -> bool:
    """Return whether a point is in a box, its edges included, both kept to `DECIMALS` places."""
    x, y = round(point.x, DECIMALS), round(point.y, DECIMALS)
    x1, y1, x2, y2 = (round(edge, DECIMALS) for edge in (box.x1, box.y1, box.x2, box.y2))
    return point.image == box.image and x1 <= x <= x2 and y1 <= y <= y2


def _grade_point(question: Question, answer: str) -> Grade:
    point = _answer_point(question, answer)
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


def _grade_action(question: Question, answer: str) -> Grade:
    golds = _gold_actions(question.answers)
    action = parse_action(answer)
    if action is None:
        return Grade(0.0, "the answer is not an action")
    if any(same_action(action, gold, same_text) for gold in golds):
        return Grade(1.0, "the right action")
    alike = [gold for gold in golds if gold.name == action.name]
    return Grade(0.0, _difference(action, alike[0]) if alike else "another action is right")


def _difference(action: Action, gold: Action) -> str:
    """Return what two actions of one name differ in."""
    if action.name == "stop":
        return "it stops with another answer"
    if action.name == "scroll":
        return "it scrolls in another direction"
    if action.arguments[:1] != gold.arguments[:1]:
        return "the right action on another element"
    return "the right action with another text"


_GRADERS = {
    AnswerKind.TEXT: _grade_text,
    AnswerKind.BOX: _grade_box,
    AnswerKind.POINT: _grade_point,
    AnswerKind.ACTION: _grade_action,
}
