"""The entropy of what a token is drawn from, by which forks of a tree are chosen."""

from __future__ import annotations

import math

import pytest
import torch

from mcts.teachers.local.decoder import entropies


def test_entropies_are_in_nats_at_each_rows_temperature() -> None:
    certain, even, two = [50.0, 0, 0, 0], [1.0] * 4, [math.log(3), 0, -50, -50]
    logits = torch.tensor([certain, even, two, two])
    found = entropies(logits, [1.0, 1.0, 1.0, 0.5], [0, 1, 2, 3])
    hot = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    cold = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert found == pytest.approx([0, math.log(4), hot, cold], abs=1e-5)
    assert entropies(logits, [1.0] * 4, [3, 1]) == pytest.approx([hot, math.log(4)], abs=1e-5)
    assert entropies(logits, [1.0] * 4, []) == []
    assert entropies(logits, [0.0] * 4, [2]) == pytest.approx([hot], abs=1e-5)
