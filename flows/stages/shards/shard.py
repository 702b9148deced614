"""A shard of a build as a value: any process that reaches the warehouse can run it.

    shard = Shard(run_id, settings.model_dump(mode="json"), question_ids, tree_ids, share)
    outcome = ShardOutcome.of(await worker.run(shard.text()))       # here, or on another machine

Both are JSON in between. A shard's trees have names that hash question, settings, prompt and model,
so that a process which would search otherwise refuses the shard instead.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from mcts.budget import Budget
from mcts.data import content_id


@dataclass(frozen=True, slots=True)
class Share:
    """A shard's part of what its run may still spend; None is unlimited."""

    tokens: int | None = None
    requests: int | None = None
    seconds: float | None = None
    """From the moment it is handed out (`Shard.handed_out_at`)."""

    @property
    def budget(self) -> Budget:
        """The part that is counted, and not timed."""
        return Budget(self.tokens, self.requests)


@dataclass(frozen=True, slots=True)
class Shard:
    """Questions that are searched and committed together."""

    run_id: str
    settings: dict[str, Any]
    """The fields of the run's `BuildSettings`, as JSON has them."""
    question_ids: tuple[str, ...]
    tree_ids: tuple[str, ...]
    """The searches' ids, in the same order."""
    share: Share = Share()
    handed_out_at: float | None = None
    """Unix time at which it was given its share, of seconds as well."""

    def seconds_left(self) -> float | None:
        """Return what is left of its seconds: it may have waited for a worker, or lost some.

        By two machines' clocks, of which none is believed to have run backwards.
        """
        if self.share.seconds is None or self.handed_out_at is None:
            return self.share.seconds
        return max(0.0, self.share.seconds - max(0.0, time.time() - self.handed_out_at))

    @property
    def name(self) -> str:
        """A hash of its searches: the same shard of another run has the same name."""
        return content_id(list(self.tree_ids))

    def text(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Shard:
        """Read it from JSON."""
        fields = json.loads(text)
        return cls(
            fields["run_id"],
            fields["settings"],
            tuple(fields["question_ids"]),
            tuple(fields["tree_ids"]),
            Share(**fields["share"]),
            fields["handed_out_at"],
        )


@dataclass(slots=True)
class ShardOutcome:
    """What came of a shard."""

    tree_ids: list[str] = field(default_factory=list)
    """Its trees that are in the warehouse, now or before."""
    found: list[tuple[str, bool, bool]] = field(default_factory=list)
    """Trees searched this time: id, whether an answer is right, whether it failed."""
    spent: tuple[int, int] = (0, 0)
    """Requests and completion tokens of all its searches, whenever they were paid."""
    stopped_by: str | None = None
    """The part of its share that was used up: `tokens`, `requests` or `seconds`."""
    requested: int = 0
    """Requests answered by the teacher this time."""
    replayed: int = 0
    """Requests answered from the journal this time."""
    estimated: int = 0
    """Responses this time whose tokens the server did not count."""
    prefetched: tuple[int, int] = (0, 0)
    """Requests that were prefetched and not used, and the tokens written for them."""
    reports: list[str] = field(default_factory=list)
    """Sentences for a person."""
    problem: str | None = None
    """Why it could not be run, in a sentence; nothing is lost."""
    status: int = 1
    """Exit status that the problem stands for."""

    def text(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> ShardOutcome:
        """Read it from JSON."""
        fields = json.loads(text)
        for name in ("spent", "prefetched"):
            fields[name] = tuple(fields[name])
        fields["found"] = [tuple(tree) for tree in fields["found"]]
        return cls(**fields)
