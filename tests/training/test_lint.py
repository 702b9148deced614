"""What the lint hands to a reward: the form of the completions is as it was asked for."""

from __future__ import annotations

from typing import Any

from mcts.coordinates import CoordinateSpace
from training.rewards.lint import lint

SPACE = CoordinateSpace.qwen3_vl()


def handed(**options: Any) -> list[Any]:
    """The completions that a reward sees which finds all alike."""
    seen: list[Any] = []

    def reward(prompts: Any, completions: list[Any], **columns: Any) -> list[float]:
        seen.extend(completions)
        return [0.5] * len(completions)

    lint(reward, SPACE, **options)
    return seen


def test_thoughts_are_in_one_block_where_the_reward_wants_them_so() -> None:
    honest = [texts[0] for texts in (handed(), handed(one_block=True))]
    assert [text.count("<think>") for text in honest] == [honest[0].count("</think>"), 1]
    assert honest[0].count("<think>") > 1


def test_completions_are_texts_or_messages_and_of_dialogues_always_messages() -> None:
    assert all(isinstance(text, str) for text in handed())
    for options in ({"messages": True}, {"dialogues": True}):
        turns = [len(turns) for turns in handed(**options) if turns[0]["role"] == "assistant"]
        assert (max(turns) > 1) == ("dialogues" in options)


def test_attempts_of_another_seed_are_others() -> None:
    assert handed(seed=1) == handed(seed=1) != handed()
