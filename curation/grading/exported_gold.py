"""The gold answer of an exported row as one text, and rewards that read it in a trainer.

    text = write_gold(question, frame)          # "(100, 100, 300, 500)", in the model's numbers
    score("<think>…</think><answer>(120, 210)</answer>", text)                    # 1.0

A text answer stands as it is, a box is `(x1, y1, x2, y2)`, a point `(x, y)`, with ` ± (dx, dy)`
where it may be missed by so much and ` in image 2` where that is meant. Several right answers are a
JSON list of such texts, and each of them is right. Where the options were shown with letters and
the trainer hands no other column over, the text is `{"gold": ["left"], "choices": ["right",
"left"]}`, or the letter would be wrong.

Beside an export lies `reward.py`, which hands one of `trl_reward`, `verl_reward` and
`easyr1_reward` to the trainer; all grade as the search did, in the numbers of the trained model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from curation.grading.grade import grade
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Box, Image, Point, Question
from mcts.parsing import answer_points, parse
from mcts.prompts import choices_line

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_IN_IMAGE = r"(?: in image (\d+))?"
_BOX = re.compile(rf"\({_NUMBER}, {_NUMBER}, {_NUMBER}, {_NUMBER}\){_IN_IMAGE}")
_POINT = re.compile(rf"\({_NUMBER}, {_NUMBER}\)(?: ± \({_NUMBER}, {_NUMBER}\))?{_IN_IMAGE}")
_SIDE = 1 << 20  # pixels of the images that a gold text is about, for all it knows
_MOST_IMAGES = 64


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
    if alone and "\nA. " in choices_line(question.choices):
        return json.dumps({"gold": golds, "choices": question.choices}, ensure_ascii=False)
    # A single text that reads as a list of several would be taken for one.
    if len(golds) == 1 and read_gold(golds[0]) == golds:
        return golds[0]
    return json.dumps(golds, ensure_ascii=False)


def read_gold(text: str) -> list[str]:
    """Return the gold answers in what `write_gold` wrote, each a text."""
    return _read(text)[0]


def _read(text: str) -> tuple[list[str], list[str]]:
    """Return gold answers and options."""
    if text.startswith(("[", "{")):
        try:
            value = json.loads(text)
        except ValueError:
            return [text], []
        if _is_texts(value):
            return value, []
        if isinstance(value, dict) and value.keys() == {"gold", "choices"}:
            gold, choices = value["gold"], value["choices"]
            if _is_texts(gold) and _is_texts(choices):
                return gold, choices
    return [text], []


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def score(
    response: str, gold: str, answer_kind: str = "", choices: Sequence[str] = ()
) -> float | None:
    """Grade a whole response against an exported gold text; None if that can't be graded.

    Args:
        answer_kind: as in the export; by default the form of the gold text tells it.
        choices: the question's options, so that an answer may name one by its letter.
    """
    golds, options = _read(gold)
    choices = choices or options
    kind = AnswerKind(answer_kind) if answer_kind else _kind_of(golds, choices)
    question = _question(golds, kind, choices)
    answer = parse(response, Frame.of(CoordinateSpace.original(), question)).answer
    if kind is AnswerKind.POINT:
        return _score_point(golds, answer)
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
    corners = (Point(box.x1, box.y1, box.image), Point(box.x2, box.y2, box.image))
    numbers = [value for corner in corners for value in frame.to_model(corner)]
    return _numbers(numbers) + _in_image(box.image)


def _point_text(point: Point, tolerance: float, frame: Frame) -> str:
    text = _numbers(frame.to_model(point))
    if tolerance:
        shown = frame.images[point.image]
        width, height = frame.space.size(shown)
        around = (tolerance * width / shown.width, tolerance * height / shown.height)
        text += f" ± {_numbers([round(value, 4) for value in around])}"
    return text + _in_image(point.image)


def _numbers(numbers: Sequence[float]) -> str:
    # Never 1e+06, which is no place.
    return f"({', '.join(f'{value:.4f}'.rstrip('0').rstrip('.') for value in numbers)})"


def _in_image(image: int) -> str:
    return f" in image {image + 1}" if image else ""


def _kind_of(golds: Sequence[str], choices: Sequence[str]) -> AnswerKind:
    if choices:
        return AnswerKind.TEXT
    if all(map(_BOX.fullmatch, golds)):
        return AnswerKind.BOX
    return AnswerKind.POINT if all(map(_POINT.fullmatch, golds)) else AnswerKind.TEXT


def _question(golds: Sequence[str], kind: AnswerKind, choices: Sequence[str]) -> Question:
    boxes = []
    for gold in golds if kind is AnswerKind.BOX else ():
        match = _BOX.fullmatch(gold)
        if match is None:
            raise ValueError(f"the gold answer {gold!r} is not a box (x1, y1, x2, y2)")
        x1, y1, x2, y2 = map(float, match.groups()[:4])
        boxes.append(Box(x1, y1, x2, y2, int(match[5] or 1) - 1))
    return Question(
        task="",
        text="",
        images=(Image("", _SIDE, _SIDE),) * _MOST_IMAGES,
        answer_kind=kind,
        choices=tuple(choices),
        answers=() if boxes or kind is AnswerKind.POINT else tuple(golds),
        boxes=tuple(boxes),
    )


def _score_point(golds: Sequence[str], answer: str | None) -> float:
    points = answer_points(answer or "")
    if len(points) != 1:
        return 0.0
    for gold in golds:
        match = _POINT.fullmatch(gold)
        if match is None:
            raise ValueError(f"the gold answer {gold!r} is not a point (x, y)")
        x, y, dx, dy = (float(number or 0) for number in match.groups()[:4])
        missed = math.hypot(_share(points[0].x - x, dx), _share(points[0].y - y, dy))
        if missed <= 1 and points[0].image == int(match[5] or 1) - 1:
            return 1.0
    return 0.0


def _share(distance: float, allowed: float) -> float:
    """Return a distance as a share of what is allowed."""
    if allowed:
        return distance / allowed
    return math.inf if distance else 0.0
