"""The gold answer of an exported row as one text, and rewards that read it in a trainer.

    text = write_gold(question, frame)          # "(100, 100, 300, 500)", in the model's numbers
    score("<think>…</think><answer>(120, 210)</answer>", text)                    # 1.0

A text answer stands as it is, a box is `(x1, y1, x2, y2)`, a point `(x, y)`, with ` ± (dx, dy)`
where it may be missed by so much and ` in image 2` where that is meant. Several right answers are a
JSON list of such texts, and each of them is right. Where more must be known, the text is an object,
`{"gold": ["left"], "choices": ["right", "left"], "kind": "text", "dialect": "pairs"}`: of a model
that writes places in tags or as shares, and, where the trainer hands no other column over, of
options and of a text or an action that would be taken for a place.

Beside an export lies `reward.py`, which hands one of `trl_reward`, `verl_reward` and
`easyr1_reward` to the trainer; all grade as the search did, in the numbers of the trained model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.grading.grade import grade
from mcts.coordinates import CoordinateSpace, Dialect, Frame, SpaceKind
from mcts.data import AnswerKind, Box, Image, Point, Question
from mcts.parsing import parse, sole_point

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_IN_IMAGE = r"(?: in image (\d+))?"
_BOX = re.compile(rf"\({_NUMBER}, {_NUMBER}, {_NUMBER}, {_NUMBER}\){_IN_IMAGE}")
_POINT = re.compile(rf"\({_NUMBER}, {_NUMBER}\)(?: ± \({_NUMBER}, {_NUMBER}\))?{_IN_IMAGE}")
_SIDE = 1 << 20  # pixels of the images that a gold text is about, for all it knows
_PLACES = (AnswerKind.BOX, AnswerKind.POINT)
_MOST_IMAGES = 64
_DIGITS = 7
_NEAR = 10.0**-_DIGITS


def write_gold(question: Question, frame: Frame, *, alone: bool = False) -> str:
    """Return a question's gold answer as one text, places in the frame of the model.

    Args:
        alone: whether a reward is handed nothing else.
    """
    if question.answer_kind is AnswerKind.BOX:
        golds = [_box_text(box, frame) for box in question.boxes]
    elif question.answer_kind is AnswerKind.POINT:
        golds = [_point_text(point, question.tolerance, frame) for point in question.points]
    else:
        golds = list(question.answers)
    kind, dialect = question.answer_kind, frame.space.dialect
    shares = frame.space.kind is SpaceKind.NORMALIZED_1
    special = kind in _PLACES and (shares or dialect is not Dialect.PAIRS)
    if special or (alone and (question.choices or _kind_of(golds) is not kind)):
        about: dict[str, Any] = {
            "gold": golds, "choices": question.choices, "kind": kind, "dialect": dialect
        }  # fmt: skip
        about |= {"shares": True} if shares and special else {}
        return json.dumps(about, ensure_ascii=False)
    # A single text that reads as a list of several would be taken for one.
    if len(golds) == 1 and read_gold(golds[0]) == golds:
        return golds[0]
    return json.dumps(golds, ensure_ascii=False)


def read_gold(text: str) -> list[str]:
    """Return the gold answers in what `write_gold` wrote, each a text."""
    return _read(text).golds


@dataclass(frozen=True, slots=True)
class _Gold:
    """What a gold text says."""

    golds: list[str]
    kind: AnswerKind
    choices: Sequence[str] = ()
    dialect: Dialect = Dialect.PAIRS
    shares: bool = False
    """Whether places are shares of width and height."""


def _read(text: str) -> _Gold:
    if text.startswith(("[", "{")):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if _is_texts(value) and value:
            return _Gold(value, _kind_of(value))
        if isinstance(value, dict) and {"gold", "choices"} <= value.keys():
            kind = AnswerKind(value.get("kind", "text"))
            dialect = Dialect(value.get("dialect", "pairs"))
            shares = bool(value.get("shares"))
            return _Gold(value["gold"], kind, value["choices"], dialect, shares)
    return _Gold([text], _kind_of([text]))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def score(
    response: str, gold: str, answer_kind: str = "", choices: Sequence[str] = ()
) -> float | None:
    """Grade a whole response against an exported gold text; None if that can't be graded.

    Args:
        answer_kind: as in the export; by default the form of the gold text tells it.
        choices: the question's options, so that an answer may name one by its letter.
    """
    read = _read(gold)
    choices = choices or read.choices
    kind = AnswerKind(answer_kind) if answer_kind else AnswerKind.TEXT if choices else read.kind
    question = Question(
        task="",
        text="",
        images=(Image("", _SIDE, _SIDE),) * _MOST_IMAGES,
        answer_kind=kind,
        choices=tuple(choices),
        answers=() if kind in _PLACES else tuple(read.golds),
    )
    # The model's numbers are compared as they are, but for shares: answers keep three decimals.
    unit = SpaceKind.NORMALIZED_1 if read.shares else SpaceKind.ABSOLUTE_ORIGINAL
    space = CoordinateSpace(unit, dialect=read.dialect)
    answer = parse(response, Frame.of(space, question)).answer
    if kind in _PLACES:
        return _score_place(read.golds, kind, answer, _SIDE if read.shares else 1)
    return grade(question, answer).score


def trl_reward(
    completions: Sequence[Any],
    gold: Sequence[str],
    answer_kind: Sequence[str] | None = None,
    choices: Sequence[Sequence[str]] | None = None,
    **_: Any,
) -> list[float | None]:
    """Score completions as TRL's GRPOTrainer hands them over, beside the export's columns."""
    kinds, options = answer_kind or [""] * len(gold), choices or [()] * len(gold)
    texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
    return [
        score(text, right, kind, shown)
        for text, right, kind, shown in zip(texts, gold, kinds, options, strict=True)
    ]


def verl_reward(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    **_: Any,
) -> float:
    """Score one response as verl hands it over."""
    about = extra_info or {}
    choices = about.get("choices")
    choices = () if choices is None else tuple(choices)  # an array, where verl read Parquet
    return score(solution_str, ground_truth, about.get("answer_kind") or "", choices) or 0.0


def easyr1_reward(reward_inputs: Sequence[Mapping[str, Any]], **_: Any) -> list[dict[str, float]]:
    """Score a batch as EasyR1 hands it over; it knows the gold text and no options."""
    scores = [score(one["response"], one["ground_truth"]) or 0.0 for one in reward_inputs]
    return [{"overall": value, "accuracy": value} for value in scores]


def _box_text(box: Box, frame: Frame) -> str:
    """Write a box with its exact edges: rounded to whole units it would be another box."""
    shown = frame.images[box.image]
    width, height = _size(frame, box.image)
    across, down = width / shown.width, height / shown.height
    numbers = [box.x1 * across, box.y1 * down, box.x2 * across, box.y2 * down]
    return _numbers(numbers) + _in_image(box.image)


def _size(frame: Frame, image: int) -> tuple[float, float]:
    """The width and height of an image in the model's units."""
    shown = frame.images[image]
    if frame.space.kind is SpaceKind.ABSOLUTE_ORIGINAL:
        return shown.width, shown.height
    return frame.space.size(shown)


def _point_text(point: Point, tolerance: float, frame: Frame) -> str:
    shown = frame.images[point.image]
    width, height = _size(frame, point.image)
    across, down = width / shown.width, height / shown.height
    text = _numbers([point.x * across, point.y * down])
    if tolerance:
        text += f" ± {_numbers([tolerance * across, tolerance * down])}"
    return text + _in_image(point.image)


def _numbers(numbers: Sequence[float]) -> str:
    # Never 1e+06, which is no place.
    return f"({', '.join(f'{value:.{_DIGITS}f}'.rstrip('0').rstrip('.') for value in numbers)})"


def _in_image(image: int) -> str:
    return f" in image {image + 1}" if image else ""


def _kind_of(golds: Sequence[str]) -> AnswerKind:
    """What gold texts look like, where nothing says what they are."""
    if all(map(_BOX.fullmatch, golds)):
        return AnswerKind.BOX
    return AnswerKind.POINT if all(map(_POINT.fullmatch, golds)) else AnswerKind.TEXT


def _score_place(golds: Sequence[str], kind: AnswerKind, answer: str | None, unit: int) -> float:
    point = sole_point(answer or "")
    if point is None:
        return 0.0
    x, y = point.x / unit, point.y / unit
    form, shape = (_POINT, "point (x, y)")
    if kind is AnswerKind.BOX:
        form, shape = (_BOX, "box (x1, y1, x2, y2)")
    for gold in golds:
        match = form.fullmatch(gold)
        if match is None:
            raise ValueError(f"the gold answer {gold!r} is not a {shape}")
        a, b, c, d = (float(number or 0) for number in match.groups()[:4])
        if kind is AnswerKind.BOX:
            hit = a - _NEAR <= x <= c + _NEAR and b - _NEAR <= y <= d + _NEAR
        else:
            hit = math.hypot(_share(x - a, c), _share(y - b, d)) <= 1 + _NEAR
        if hit and point.image == int(match[5] or 1) - 1:
            return 1.0
    return 0.0


def _share(distance: float, allowed: float) -> float:
    """Return a distance as a share of what is allowed."""
    if allowed:
        return distance / allowed
    return math.inf if abs(distance) > _NEAR else 0.0
