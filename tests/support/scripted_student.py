"""A student whose turns are written in advance, in the sampler of the trainer that trains it.

    wrote = script(monkeypatch, tokenizer, lambda place, turn: "<answer>left</answer>")

The model runs all the same: only which token comes next is not its choice. `wrote` has, for each
turn, the log-probabilities that the sampler gave the tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from mcts.teachers.local.decoder import BatchRow, Decoder

CALL = '<tool_call>{"name": "search_coordinate", "arguments": {"coordinate": [%d, %d]}}</tool_call>'


def look(x: int, y: int, thought: str = "It is too small to tell here.") -> str:
    """Return a turn that calls a place, in thousandths."""
    return f"<think>{thought}</think>\n{CALL % (x, y)}"


def say(answer: str, thought: str = "That shows what was asked.") -> str:
    """Return a turn that answers."""
    return f"<think>{thought}</think>\n<answer>{answer}</answer>"


def turns(*episodes: tuple[str, ...]) -> Callable[[int, int], str]:
    """Return what `script` takes: these episodes, in turns."""
    return lambda place, turn: episodes[place % len(episodes)][turn]


def script(
    monkeypatch: pytest.MonkeyPatch, tokenizer: Any, turns: Callable[[int, int], str]
) -> dict[tuple[int, int], list[float]]:
    """Have the local sampler write `turns(place in the batch, number of the turn)`."""
    wrote: dict[tuple[int, int], list[float]] = {}

    def draw(self: Decoder, rows: list[BatchRow], logits: Tensor) -> None:
        for row, scores in zip(rows, logits, strict=True):
            place, episode = row.owner
            turn = len(episode.texts)
            tokens = tokenizer(turns(place, turn), add_special_tokens=False)["input_ids"]
            at = len(row.tokens)
            token = tokens[at] if at < len(tokens) else tokenizer.eos_token_id
            if at == 0:
                wrote[place, turn] = []
            wrote[place, turn].append(float(scores.float().log_softmax(-1)[token]))
            row.tokens.append(token)
            if row.entropies is not None:
                row.entropies.append(float(turn + 1))  # later turns are the less certain

    monkeypatch.setattr(Decoder, "_draw", draw)
    return wrote
