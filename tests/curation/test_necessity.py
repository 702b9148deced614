"""Steps that are left out or pointed elsewhere, and what answers drawn at once earn."""

from __future__ import annotations

import pytest

from curation.scores.necessity import change_step, mean_reward
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Image, Point, Question, Step
from mcts.policy import Continuation

QUESTION = Question(
    "t", "?", (Image("a", 200, 100), Image("b", 40, 60)), AnswerKind.TEXT, ("left", "right"),
    ("left",),
)  # fmt: skip
STEPS = (
    Step("A lamp (20, 30).", (Point(20, 30),)),
    Step("A box (30, 10) in image 2 and (150, 80).", (Point(30, 10, 1), Point(150, 80))),
    Step("So left."),
)


def test_a_step_is_left_out_unless_it_is_the_only_one() -> None:
    for number in range(3):
        left = change_step(STEPS, number, "without", QUESTION)
        assert left == tuple(step for i, step in enumerate(STEPS) if i != number)
    assert change_step(STEPS[:1], 0, "without", QUESTION) is None


def test_a_moved_point_goes_half_of_its_image_around_the_edges() -> None:
    first = change_step(STEPS, 0, "moved", QUESTION)
    assert first == (Step("A lamp (120, 80).", (Point(120, 80),)), *STEPS[1:])
    second = change_step(STEPS, 1, "moved", QUESTION)
    assert second is not None and second[0] == STEPS[0] and second[2] == STEPS[2]
    assert second[1].points == (Point(10, 40, 1), Point(50, 30))
    assert second[1].thought == "A box (10, 40) in image 2 and (50, 30)."
    assert change_step(STEPS, 2, "moved", QUESTION) is None, "it has no point"
    nowhere = (Step("A lamp (1, 2) in image 3.", (Point(1, 2, 2),)),)
    assert change_step(nowhere, 0, "moved", QUESTION) is None
    with pytest.raises(ValueError, match="no method to change a step is named 'turned'"):
        change_step(STEPS, 0, "turned", QUESTION)


def test_answers_earn_their_mean_and_nothing_where_none_can_be_graded() -> None:
    frame = Frame.of(CoordinateSpace.original(), QUESTION)
    texts = ("left</answer>", "right</answer>", "left", "")
    samples = [Continuation(text, "stop", "") for text in texts]
    assert mean_reward(QUESTION, samples, frame) == 0.5
    assert mean_reward(QUESTION, [], frame) is None
    ungraded = Question("t", "?", QUESTION.images, AnswerKind.TEXT, ("left", "right"), ("behind",))
    assert mean_reward(ungraded, samples[:2], frame) is None
