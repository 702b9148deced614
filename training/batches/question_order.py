"""In which order GRPO asks its questions, epoch by epoch.

    sampler = QuestionOrder(dataset, mini_repeat_count=8, batch_size=16, seed=0)
    sampler.set_epoch(2)        # as the trainer does, whichever process begins that epoch

TRL's `RepeatSampler` draws an epoch's order from where its generator stands, so a training that
goes on behind its first epoch begins with the first order again. It also leaves the last questions
out where they fill no batch, in a fixed order always the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from trl.trainer.utils import RepeatSampler


class QuestionOrder(RepeatSampler):
    """TRL's sampler, with an order that is a function of the seed and the epoch.

    In a fixed order, what an epoch leaves out is asked by the next.
    """

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield the number of the question of each answer."""
        order = self._shuffled() if self.shuffle else self._in_order()
        for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
            for _ in range(self.repeat_count):
                for index in order[start : start + self.batch_size]:
                    yield from [index] * self.mini_repeat_count

    def _shuffled(self) -> list[int]:
        generator: Any = torch.Generator()
        if self.seed is not None:
            generator.manual_seed(self.seed)
        for _ in range(self.epoch + 1):
            order = torch.randperm(self.num_samples, generator=generator)
        found: list[int] = order.tolist()
        return found

    def _in_order(self) -> list[int]:
        """Return the questions of this epoch: those that were asked least, in their order."""
        asked = [0] * self.num_samples
        room = self.num_samples // self.batch_size * self.batch_size
        chosen: list[int] = []
        for _ in range(self.epoch + 1):
            chosen = sorted(sorted(range(self.num_samples), key=lambda i: (asked[i], i))[:room])
            for index in chosen:
                asked[index] += 1
        return chosen
