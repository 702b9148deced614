"""A reader of words alone: how often do question and options give the answer away?

    guesses = fitted(training_questions)          # one small model for one family
    right = guesses(questions)                    # True where the guess is the answer

A logistic regression over the options: each is scored by hashed features of the question's words,
word pairs and named things in order of mention, crossed with the option's own words, its place and
what stands beside it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch

from vigorl_nano.rooms.objects import COLOURS, KINDS
from vigorl_nano.rooms.questions import RoomQuestion

SIZE = 1 << 13
NAMED = {*COLOURS, *KINDS}


def features(question: RoomQuestion, place: int) -> list[int]:
    words = "".join(c if c.isalnum() else " " for c in question.text.lower()).split()
    named = [w for w in words if w.rstrip("s") in NAMED or w in NAMED]
    hints = [*words, *(f"{a} {b}" for a, b in pairwise(words))]
    hints += [f"{i}:{w}" for i, w in enumerate(named)]
    hints += [
        f"beside {w}" for i, o in enumerate(question.options) if i != place for w in o.split()
    ]
    option = question.options[place]
    own = [str(place), option, *option.split()]
    own += [f"{place} {option}"]
    crossed = own + [f"{hint}|{o}" for hint in dict.fromkeys(hints) for o in own]
    return [zlib.crc32(text.encode()) % SIZE for text in crossed]


def tensor_of(questions: Sequence[RoomQuestion]) -> torch.Tensor:
    """(questions, options, SIZE), 1 where a feature is present."""
    table = torch.zeros(len(questions), len(questions[0].options), SIZE)
    for i, question in enumerate(questions):
        for place in range(len(question.options)):
            table[i, place, features(question, place)] = 1.0
    return table


def fitted(
    questions: Sequence[RoomQuestion], strength: float = 0.02, steps: int = 60
) -> Callable[[Sequence[RoomQuestion]], np.ndarray]:
    """A model of one family's questions, its weights held small by `strength`."""
    seen = tensor_of(questions)
    right = torch.tensor([q.options.index(q.answer) for q in questions])
    used = seen.flatten(0, 1).sum(0) > 0
    seen = seen[:, :, used]
    weights = torch.zeros(int(used.sum()), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(seen @ weights, right)
        value = value + strength * weights.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    final = weights.detach()

    def guess(questions: Sequence[RoomQuestion]) -> np.ndarray:
        best = (tensor_of(questions)[:, :, used] @ final).argmax(1).numpy()
        return best == np.array([q.options.index(q.answer) for q in questions])

    return guess
