"""What a search spends, counted from its responses, and the limits on it.

    budget = Budget(tokens=20_000)
    policy = Meter(policy)                      # asks as before, and counts
    ...                                         # between two waves:
    budget.reached(policy.spent)                # None, or "tokens": stop here

Everything is counted from what came back, time included: a journal keeps when a request was sent
and how long it took. So a search that is replayed, or resumed after a crash, has spent what it
had spent the first time, and stops at the same place. Budgets are looked at between waves only,
when no request is under way: nothing that was paid for is thrown away, and the order in which
answers arrived plays no part. The last wave may therefore overshoot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mcts.teachers.base import TeacherError

if TYPE_CHECKING:
    from mcts.data import Step
    from mcts.samples import Policy, Sample


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request cost."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Tokens written, over all its samples."""
    began: float = 0.0
    """Unix time in seconds at which it was asked."""
    seconds: float = 0.0
    """Wall time until the answer, waiting included."""


@dataclass(slots=True)
class Spent:
    """The sum of many requests; also of those that failed, whose tokens nobody tells."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    spans: list[tuple[float, float]] = field(default_factory=list)
    """When each request was asked and answered, Unix time in seconds."""

    def add(self, cost: Cost) -> None:
        """Count one request's tokens and time; `requests` is counted by who asks."""
        self.prompt_tokens += cost.prompt_tokens
        self.completion_tokens += cost.completion_tokens
        # As precise as a journal keeps them, or a replay would come out otherwise.
        began = round(cost.began, 6)
        self.spans.append((began, began + round(cost.seconds, 6)))

    @property
    def seconds(self) -> float:
        """Time in which at least one request was under way; a pause between two runs is none."""
        total, reached = 0.0, float("-inf")
        for began, ended in sorted(self.spans):
            total += max(0.0, ended - max(began, reached))
            reached = max(reached, ended)
        return total


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent; None is no limit."""

    tokens: int | None = None
    """Tokens the teacher writes (completion tokens). Prompts are counted, not limited."""
    requests: int | None = None
    seconds: float | None = None

    def reached(self, spent: Spent) -> str | None:
        """The limit that `spent` has used up: `tokens`, `requests`, `seconds`, or None."""
        if self.tokens is not None and spent.completion_tokens >= self.tokens:
            return "tokens"
        if self.requests is not None and spent.requests >= self.requests:
            return "requests"
        if self.seconds is not None and spent.seconds >= self.seconds:
            return "seconds"
        return None

    def share(self, spent: Spent) -> float:
        """How much of it `spent` has used, 0 to 1, by the limit that is nearest."""
        used = [
            (self.tokens, spent.completion_tokens),
            (self.requests, spent.requests),
            (self.seconds, spent.seconds if self.seconds else 0.0),
        ]
        return max(min(1.0, n / limit) if limit else 0.0 for limit, n in used)


class Meter:
    """A policy that counts what another one's answers cost."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.spent = Spent()
        self.places: set[tuple[str, str, int]] = set()
        """Node, purpose and first sample of everything asked."""

    async def sample(
        self, node: str, purpose: str, steps: Sequence[Step], n: int, first: int = 0
    ) -> Sequence[Sample]:
        """The other policy's answer; a policy that tells no cost counts as one request."""
        self.places.add((node, purpose, first))
        try:
            samples = await self._policy.sample(node, purpose, steps, n, first)
        except TeacherError as error:
            self.spent.requests += 1  # one that failed was asked as well
            self.spent.add(Cost(began=error.began, seconds=error.seconds))
            raise
        costs = [cost for sample in samples for cost in sample.costs]
        self.spent.requests += max(1, len(costs))
        for cost in costs:
            self.spent.add(cost)
        return samples
