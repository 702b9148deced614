"""Behaviors of a student's answers: which are counted, and when one has died."""

from collections import defaultdict
from typing import Any

import pytest

from mcts.coordinates import CoordinateSpace
from mcts.data import AnswerKind, Image, Question, ResponseStyle
from training.batches.behaviors import behavior_shares, lost_behaviors
from training.batches.log_probs import ChunkedTrainer
from training.rewards.completions import parse_completion
from training.rewards.question_column import GradedQuestion, question_column
from training.rollouts import RolloutTrainer

QUESTION = Question(
    "sat2", "Is the lamp left?", (Image("a", 640, 480),), AnswerKind.TEXT, answers=("yes",)
)
LOOK = "I see the lamp at (94, 125)."
CHECK = "Let me double-check the lamp at (94, 126)."
RETREAT = "Wait, that does not fit: the box is at (300, 300)."


def shares(*answers: tuple[str, ...]) -> dict[str, float]:
    texts = ["".join(f"<think>{t}</think>" for t in a) + "<answer>yes</answer>" for a in answers]
    graded, space = GradedQuestion(QUESTION, [None]), CoordinateSpace.qwen3_vl()
    return behavior_shares(
        [
            parse_completion(text, graded, space, ResponseStyle.GROUNDED)
            for text in (*texts, "cut <think>off")
        ]
    )


def test_the_share_of_well_formed_answers_that_check_or_turn_back() -> None:
    assert shares((LOOK,), (LOOK, CHECK), (LOOK, CHECK, CHECK), (LOOK, RETREAT)) == {
        "behaviors/verification": 0.5, "behaviors/backtracking": 0.25,
    }  # fmt: skip
    assert shares() == {}


def test_what_a_prefix_does_is_not_the_students(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChunkedTrainer, "_calculate_rewards", lambda *given: None)
    monkeypatch.setattr(RolloutTrainer, "_whole", lambda self, completions, ids: completions)
    trainer: Any = RolloutTrainer.__new__(RolloutTrainer)
    metrics: dict[str, Any] = {"train": defaultdict(list)}
    trainer.__dict__ |= {"model": None, "_metrics": metrics, "space": CoordinateSpace.qwen3_vl()}
    trainer.__dict__["mask_truncated_completions"] = False
    prefix = f"<think>{LOOK}</think>\n<think>{CHECK}</think>\n"
    own = ["<answer>yes</answer>", f"<think>{RETREAT}</think>\n<answer>yes</answer>"]
    row = {"question": question_column(QUESTION), "min_thoughts": 1, "prefix": prefix}
    said = [[{"role": "assistant", "content": prefix + text}] for text in own]
    trainer._parts([row, row], [None, None], said, [[1], [1]])
    assert metrics["train"]["behaviors/verification"] == [0.0]
    assert metrics["train"]["behaviors/backtracking"] == [0.5]


@pytest.mark.parametrize(
    ("verification", "said"),
    [
        ([0.7] * 5 + [0.1] * 5, "verification died: 70% of answers had it in the first 5 steps,"),
        ([0.7] * 5 + [0.4] * 5, ""),
        ([0.04] * 5 + [0.0] * 5, ""),
        ([0.7] * 5 + [0.0] * 4, ""),
        ([0.7] * 5 + [0.0] * 20 + [0.7] * 5, ""),
    ],
    ids=["died", "less", "never had", "too short", "came back"],
)  # fmt: skip
def test_a_behavior_that_the_student_had_and_lost_is_told(
    verification: list[float], said: str
) -> None:
    lines = [{"behaviors/verification": v, "behaviors/backtracking": 0.2} for v in verification]
    found = lost_behaviors([{"step": 0}, *lines])
    assert found.startswith(said) and bool(found) == bool(said)
