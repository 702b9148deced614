"""What a run may spend, shared out in the order of its questions; and what a kept trace has cost.

    budget = RunBudget(Budget(tokens=1_000_000), run_seconds=3600)
    budget.begin(shard, costs)                   # costs: of trees that are in the warehouse already
    tree = await search(..., between=budget.between(tree_id))     # or OutOfBudget
    budget.allows(tree_id)                       # may it be committed?
    budget.end(shard)

A run's tokens and requests are those of the searches its command names, whenever they were paid
for: what is in the warehouse and in the journal counts. So a run that is killed and started again
has one budget, not two, and a stopped one goes on only with a larger budget. What is committed is
the first questions whose trees use the budget up, whatever ran at once: a tree is allowed exactly
if all before it together leave something. Searches beyond that point end between two waves, as soon
as it is known; what they were answered stays in the journal for later. Time is this run's own, by
the clock: every tree that is whole when it is up is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mcts.budget import Budget, Usage
from warehouse.query.read_back import rows_about
from warehouse.storage.home import Warehouse


class OutOfBudget(Exception):
    """The run's budget does not reach to a search; the responses it has are kept."""


class RunBudget:
    """Tracks spending per tree against the run's limits."""

    def __init__(
        self,
        budget: Budget,
        run_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget, self._clock = budget, clock
        self._ends = None if run_seconds is None else clock() + run_seconds
        self._before = Usage()
        self._open: dict[str, Usage] = {}
        self.stopped_by: str | None = None
        """The budget that a search was refused for: `tokens`, `requests` or `seconds`."""

    def begin(self, tree_ids: Sequence[str], costs: Mapping[str, Usage]) -> None:
        """Begin a shard of searches, which come after all that were begun before."""
        self._open |= {tree_id: costs.get(tree_id) or Usage() for tree_id in tree_ids}

    def end(self, tree_ids: Sequence[str]) -> None:
        """End the oldest shard that has begun: what it spent comes before all others."""
        self._before = _total([self._before, *(self._open.pop(name) for name in tree_ids)])

    @property
    def spent(self) -> Usage:
        """What the searches of all shards that were begun have used."""
        return _total([self._before, *self._open.values()])

    def between(self, tree_id: str) -> Callable[[Usage], None]:
        """Return what a search calls between its waves; it raises OutOfBudget to end the search."""

        def check(spent: Usage) -> None:
            self._open[tree_id] = spent  # the search's own count, which grows as it is answered
            if self._ends is not None and self._clock() >= self._ends:
                self.stopped_by = self.stopped_by or "seconds"
                raise OutOfBudget("seconds")
            if not self.allows(tree_id):
                raise OutOfBudget(self.stopped_by)

        return check

    def allows(self, tree_id: str) -> bool:
        """Return whether all searches before this one together leave something of the budget."""
        if self._budget == Budget():
            return True
        earlier = [self._before]
        for other, spent in self._open.items():
            if other == tree_id:
                break
            earlier.append(spent)
        reason = self._budget.reached(_total(earlier))
        self.stopped_by = self.stopped_by or reason
        return reason is None


def _total(several: Iterable[Usage]) -> Usage:
    """Sum up, without times: those of one run are the clock's."""
    total = Usage()
    for spent in several:
        total.requests += spent.requests
        total.prompt_tokens += spent.prompt_tokens
        total.completion_tokens += spent.completion_tokens
    return total


def describe_stop(reason: str, limit: float, done: int, total: int) -> str:
    """Describe a run that its budget stopped, in one sentence."""
    more = "the same command" if reason == "seconds" else "the same command with a larger budget"
    return (
        f"stopped by --run-{reason} {limit:.15g}: {done} of {total} questions have their trees; "
        f"{more} goes on from here"
    )


def spent_on(warehouse: Warehouse, tree_ids: Sequence[str]) -> dict[str, Any]:
    """Sum up what the trees of these ids cost: requests, tokens, crops, and seconds of requests."""
    tokens = ("prompt_tokens", "completion_tokens", "image_tokens")
    columns = ("requests", *tokens, "crops", "seconds")
    rows = rows_about(warehouse, tree_ids, f"SELECT tree_id, {', '.join(columns)} FROM trees")
    return {column: sum(row[column] or 0 for row in rows) for column in columns}


def describe_cost(
    spent: Mapping[str, Any],
    kept: int,
    price_in: float | None,
    price_out: float | None,
    estimated: int = 0,
) -> str:
    """Describe in one sentence what a kept trace cost, searches that found nothing included.

    Args:
        estimated: responses whose tokens the server did not count.
        price_in, price_out: money per million prompt and completion tokens. Prompt tokens are
            priced in full, also those that a server's prefix cache may have made cheaper.
    """
    prompt, written = spent["prompt_tokens"], spent["completion_tokens"]
    money = None
    if price_in is not None and price_out is not None:
        money = (prompt * price_in + written * price_out) / 1e6
    whole = f"{written} tokens written, {prompt} prompt tokens, {spent['requests']} requests"
    if spent.get("crops"):
        whole += f", {spent['crops']} crops shown, {spent['image_tokens']} image tokens"
    whole += f", {money:.4g} in money" if money is not None else ""
    if estimated:
        whole += "; tokens are estimated, as the server does not count them"
    if not kept:
        return f"the searches cost {whole}; no trace was kept"
    each = f"{written / kept:.4g} tokens written, {prompt / kept:.4g} prompt tokens, "
    each += f"{spent['seconds'] / kept:.3g} s of requests"
    each += f", {money / kept:.4g} in money" if money is not None else ""
    return f"a kept trace cost {each} (all searches: {whole})"
