"""A benchmark's own figures beside accuracy: functions of its questions and what was answered.

    def yes_ratio(questions: Sequence[Question], predictions: Sequence[Prediction]) -> Figures:
        said = [prediction.answer for prediction in predictions]
        return {"yes ratio": sum(answer == "yes" for answer in said) / len(said)}

    Task("pope", ..., metrics=yes_ratio)            # warehouse.sources.tasks: a task is data

A function gets one question beside each prediction, in one order; with several samples a question
comes several times. Its figures go into the table `evaluations` under their names, as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mcts.data import Question, Step

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model said to one question, once."""

    question_id: str
    sample: int
    """Number of the sample, from 0."""
    response: str
    """The text as the model wrote it, in its own coordinates."""
    finish_reason: str
    """`stop`, or `length` when it was cut off."""
    error: str | None
    """Kind of the failure where the request failed for good; None where it was answered."""
    steps: tuple[Step, ...]
    answer: str | None
    """In original pixels; None if none was given."""
    score: float | None
    """The grader's; None where the request failed."""
    reason: str
    """The grader's words."""
    valid: bool
    """Whether the answer is of the form asked for: one of the options, one point, one action."""
    problems: tuple[str, ...]
    """What the parser found wrong, one word each."""
    looked_at: float | None
    """Share of the objects the question names that a point lies on; None if none is known."""
    grounded: tuple[bool | None, ...]
    """Step by step, whether it points at what it names."""


Metric = Callable[[Sequence[Question], Sequence[Prediction]], Figures]
