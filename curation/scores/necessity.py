"""Whether a step is needed: answers with it, without it, and with its point moved.

    changed = change_step(trace.steps, 1, "moved", question)    # step 2 points elsewhere
    change = mean_reward(with_it) - mean_reward(with_change)    # > 0: the step helped

The model reads the reasoning and must answer at once, so that it cannot think the missing step
again: what is measured is what the answer owes to the step as written. The value of a reasoning is
the mean reward of the answers that a model gives to it. Both sides are samples, so a change of one
step is noise unless many are drawn; the number drawn is stored with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from curation.grading.grade import grade
from mcts.coordinates import DECIMALS, Frame
from mcts.data import Point, Question, Step
from mcts.parsing import move_points
from mcts.policy import Continuation, parse_response

VERSION = 1
METHODS = ("without", "moved")


def change_step(
    steps: Sequence[Step], number: int, method: str, question: Question
) -> tuple[Step, ...] | None:
    """Return the steps with step `number` (from 0) left out or pointing elsewhere.

    A moved point goes half the image's width and height on, around the edges, which is the farthest
    from where it was. None where there is nothing to change: the only step, or one without a point.
    """
    before, step, after = steps[:number], steps[number], steps[number + 1 :]
    if method == "without":
        return (*before, *after) if len(steps) > 1 else None
    if method != "moved":
        raise ValueError(f"no method to change a step is named {method!r}")
    if any(not 0 <= point.image < len(question.images) for point in step.points):
        return None

    def away(point: Point) -> Point:
        image = question.images[point.image]
        x, y = (point.x + image.width / 2) % image.width, point.y + image.height / 2
        return replace(point, x=round(x, DECIMALS), y=round(y % image.height, DECIMALS))

    if not step.points:
        return None
    thought = move_points(step.thought, away, step.points)
    return (*before, Step(thought, tuple(map(away, step.points))), *after)


def mean_reward(question: Question, samples: Sequence[Continuation], frame: Frame) -> float | None:
    """Average the rewards of answers drawn at once; None where none could be graded."""
    scores = [
        grade(question, parse_response(sample, frame, answer_opened=True).answer).score
        for sample in samples
    ]
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None
