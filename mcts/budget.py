"""What a search uses, counted from its responses, and the limits on it.

    budget = Budget(tokens=20_000)
    budget.reached(run.policy.usage)        # None, or "tokens": stop here

Everything is counted from what came back, time included: a journal keeps when a request was sent
and how long it took. So a search that is replayed, or resumed after a crash, has used what it had
used the first time, and stops at the same place. Budgets are checked between waves only, when no
request is in flight: nothing that was paid for is lost, and the order in which answers arrive does
not matter. The last wave may therefore overshoot.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Tokens generated, over all its samples."""
    started_at: float = 0.0
    """When it was sent: Unix time in seconds."""
    seconds: float = 0.0
    """Wall time until the answer, waiting included."""
    image_tokens: int = 0
    """Prompt tokens that are images, crops included."""


@dataclass(slots=True)
class Usage:
    """The sum of many requests; failed ones count too, though their tokens are unknown."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    spans: list[tuple[float, float]] = field(default_factory=list)
    """When each request was sent and answered: Unix time in seconds."""
    image_tokens: int = 0
    """Prompt tokens that are images, crops included."""

    def add(self, cost: Cost) -> None:
        """Add one request's tokens and time; the caller counts `requests`."""
        self.prompt_tokens += cost.prompt_tokens
        self.completion_tokens += cost.completion_tokens
        self.image_tokens += cost.image_tokens
        # Rounded as in the journal, or a replay would come out differently.
        start = round(cost.started_at, 6)
        self.spans.append((start, start + round(cost.seconds, 6)))

    @property
    def seconds(self) -> float:
        """Time with at least one request in flight; pauses between two runs don't count."""
        total, covered = 0.0, float("-inf")
        for start, end in sorted(self.spans):
            total += max(0.0, end - max(start, covered))
            covered = max(covered, end)
        return total


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper limits of a search; None is no limit. The field names are part of search ids."""

    tokens: int | None = None
    """Completion tokens. Prompt tokens are counted, not limited."""
    requests: int | None = None
    seconds: float | None = None

    def reached(self, usage: Usage) -> str | None:
        """Return the limit that `usage` has reached: `tokens`, `requests`, `seconds`, or None."""
        if self.tokens is not None and usage.completion_tokens >= self.tokens:
            return "tokens"
        if self.requests is not None and usage.requests >= self.requests:
            return "requests"
        if self.seconds is not None and usage.seconds >= self.seconds:
            return "seconds"
        return None

    def share(self, usage: Usage) -> float:
        """Return how much of the nearest limit is used, from 0 to 1."""
        used = [
            (self.tokens, usage.completion_tokens),
            (self.requests, usage.requests),
            (self.seconds, usage.seconds if self.seconds else 0.0),
        ]
        return max(min(1.0, n / limit) if limit else 0.0 for limit, n in used)
