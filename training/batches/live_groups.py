"""Replaces GRPO's dead groups, whose answers all earn the same, by groups about further questions.

    groups, extra = live_groups(first, sample, rows, most=1.0)
    batch = joined(groups)                  # as TRL's `_generate` returns it, and its rewards

A group without variance in reward has no advantage, so its tokens teach nothing; late in a
training that is a third of them and more. Yu et al. 2025 (DAPO, section 3.2) sample on until a
batch is full. Here what that may cost is bounded: further questions are asked while the tokens that
their answers write fit the budget, and dead groups that are left then stay.

Which questions those are depends on the seed and the step alone (`further_rows`), so a training
that was killed asks the same ones again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mcts.teachers.base import seed_of
from warehouse.tables.schema import Row

DEAD_FIRST = "groups/dead_first"
"""Metric: share of a batch's groups that were dead as they were sampled."""
DEAD = "groups/dead"
"""Metric: share that is dead after replacing."""
EXTRA_TOKENS = "groups/extra_tokens"
"""Metric: tokens written for further questions, counted."""
EXTRA_SHARE = "groups/extra_share"
"""Metric: the same as a share of the tokens that the batch wrote as sampled."""
FIRST_REWARD = "groups/first_reward"
"""Metric: mean reward as sampled; TRL's `reward` is of the groups that are learned from."""

_EQUAL = 1e-6
_AT_ONCE = 0.25
"""Share of the questions that would fit which are asked at once."""

Generated = tuple[Any, ...]
"""What TRL's `_generate` returns: lists with an item an answer, or None or nothing at all."""


@dataclass(frozen=True, slots=True)
class SampledGroup:
    """The answers to one question, and what they earned."""

    rows: Sequence[Row]
    """The question's row, once an answer."""
    generated: Generated
    parts: Tensor
    """Parts of the rewards, answers x parts; NaN where one has none."""
    rewards: Tensor
    """The weighted sums; NaN where an answer has none."""
    tokens: int
    """That its answers wrote."""

    @property
    def dead(self) -> bool:
        """Whether no two answers earned different rewards."""
        return all_equal(self.rewards.tolist())


def all_equal(rewards: Sequence[float]) -> bool:
    """Return whether no two rewards differ by more than rounding; NaN is none."""
    earned = [reward for reward in rewards if not math.isnan(reward)]
    return not earned or max(earned) - min(earned) < _EQUAL


def weighted_sums(parts: Tensor, weights: Tensor) -> Tensor:
    """Return the reward of each answer, (answers,), of its parts, (answers, parts).

    A part that is NaN counts nothing; an answer has NaN where all of its parts are.
    """
    rewards = (parts * weights.to(parts.device)).nansum(1)
    rewards[parts.isnan().all(1)] = torch.nan
    return rewards


def some_of(generated: Generated, own: slice) -> Generated:
    """Return what TRL's `_generate` returned, of some of its answers."""
    return tuple(part[own] if isinstance(part, list) else part for part in generated)


def split(
    rows: Sequence[Row], generated: Generated, parts: Tensor, weights: Tensor, size: int,
    written: Sequence[int] | None = None,
) -> list[SampledGroup]:  # fmt: skip
    """Split what was sampled, a group behind the other, into groups of `size` answers.

    Args:
        written: how many tokens each answer wrote, where its mask does not say.
    """
    rewards = weighted_sums(parts, weights)
    if written is None:
        _, completions, masks, *_ = generated
        written = [sum(mask) for mask in masks] if masks else [len(own) for own in completions]
    groups = []
    for at in range(0, len(rows), size):
        own = slice(at, at + size)
        some, tokens = some_of(generated, own), sum(written[own])
        groups.append(SampledGroup(rows[own], some, parts[own], rewards[own], tokens))
    return groups


def live_groups(
    first: Sequence[SampledGroup],
    sample: Callable[[list[Row]], list[SampledGroup]],
    further: Iterable[Row],
    most: float,
) -> tuple[list[SampledGroup], int]:
    """Replace dead groups while the budget lasts; return the groups, and the tokens that cost.

    Args:
        sample: answers questions, a group each.
        further: questions to ask, in order.
        most: the budget, as a multiple of the tokens that `first` wrote. A question is asked if it
            fits by what a group wrote on average, so all together may write a little more. Few are
            asked at once, so that the average is soon that of further groups too.
    """
    groups, rows = list(first), iter(further)
    written = sum(group.tokens for group in first)
    extra, answered = 0, 0
    while dead := [place for place, group in enumerate(groups) if group.dead]:
        left = most * written - extra
        fit = int(left * (len(first) + answered) / max(1, written + extra))
        asked = list(islice(rows, max(0, min(math.ceil(fit * _AT_ONCE), len(dead)))))
        if not asked:
            break
        found = sample(asked)
        extra += sum(group.tokens for group in found)
        answered += len(found)
        for place, group in zip(dead, (g for g in found if not g.dead), strict=False):
            groups[place] = group
    return groups, extra


def joined(groups: Sequence[SampledGroup]) -> tuple[list[Row], Generated, Tensor]:
    """Return rows, answers and parts of rewards of all groups as those of one batch."""
    rows = [row for group in groups for row in group.rows]
    columns = zip(*(group.generated for group in groups), strict=True)
    generated = tuple(_joined(column, groups) for column in columns)
    return rows, generated, torch.cat([group.parts for group in groups])


def _joined(column: Sequence[Any], groups: Sequence[SampledGroup]) -> Any:
    """Join one list of several groups; a group without images has None, others' then stay."""
    if not any(isinstance(part, list) for part in column):
        return column[0]
    return [
        item
        for part, group in zip(column, groups, strict=True)
        for item in ([None] * len(group.rows) if part is None else part)
    ]


def further_rows(dataset: Any, asked: Iterable[str], seed: int, step: int) -> Iterator[Row]:
    """Yield the rows of questions that a step has not `asked`, each question once, shuffled."""
    seen = set(asked)
    order = list(range(len(dataset)))
    random.Random(seed_of(seed, step, "further questions")).shuffle(order)
    for place in order:
        row = dataset[place]
        if row["question_id"] not in seen:
            seen.add(row["question_id"])
            yield row
