"""The faults of a scenario, as a function of its seed.

    scenario(17).runs[0]      # Run(ending="failpoint", point="journal_write", count=9, …)
    weather = Weather("storm", seed=17)
    server = StubServer(fault_of=weather.fault_of)

Where a process dies is fixed to the failpoint's count or the request; arrival times are not.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from tests.support.stub_server import digest

# Options of the searches; each has a reference built without faults.
SEARCHES = {
    "mcts": ("--simulations", "2", "--max-depth", "4"),
    "waves": ("--simulations", "3", "--wave", "3", "--children", "2", "--max-depth", "4"),
    "linear": ("--strategy", "linear", "--samples", "3", "--max-depth", "4"),
}
# Failpoints, and about how often such a build reaches them; with a later count it finishes.
POINTS = {
    "after_response": 40,
    "journal_write": 25,
    "after_journal": 40,
    "before_commit": 6,
    "between_tables": 15,
    "after_commit": 6,
}
_TRANSIENT_FAULTS = ("429", "500", "503", "reset", "malformed", "cut", "empty", "hang")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the build, with its faults."""

    ending: str
    """`failpoint`, `full` (the disk, at a failpoint), `kill`, `term`, `int`, or `none`."""
    point: str
    """The failpoint."""
    count: int
    """It ends when it reaches the point for this time, or after this request to the server."""
    weather: str
    """The server is `calm`, a `storm`, `dies` and comes back, or is `absent`."""
    dies_at: int
    """The request at which a server that dies does so."""
    away_s: float
    """Seconds until it is back."""
    rival: bool
    """Whether a second build runs at the same time, without signals and failpoints."""
    options: tuple[str, ...]
    """Options that affect how the search runs, not its result."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Some runs with faults on one warehouse."""

    seed: int
    search: str
    runs: tuple[Run, ...]


def scenario(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    rng = random.Random(f"scenario {seed}")
    runs = tuple(_run(rng) for _ in range(rng.choice([1, 1, 2, 3])))
    return Scenario(seed, rng.choice(list(SEARCHES)), runs)


def _run(rng: random.Random) -> Run:
    ending = rng.choice(["failpoint"] * 5 + ["full", "kill", "kill", "term", "int", "none"])
    point = rng.choice(list(POINTS))
    if ending == "full":
        point = rng.choice(["journal_write", "before_commit", "between_tables"])
    most = POINTS[point] if ending in ("failpoint", "full") else POINTS["after_response"]
    weather = rng.choice(["calm"] * 4 + ["storm"] * 4 + ["dies"] * 3 + ["absent"])
    return Run(
        ending=ending,
        point=point,
        count=rng.randint(1, most),
        weather=weather,
        dies_at=rng.randint(1, 30),
        away_s=rng.uniform(0.05, 0.5),
        rival=rng.random() < 0.1,
        options=options(rng),
    )


def options(rng: random.Random) -> tuple[str, ...]:
    """Draw concurrency and shard size, which may differ between runs."""
    return ("--concurrency", rng.choice("148"), "--shard", rng.choice("1234"))


@dataclass(frozen=True, slots=True)
class Weather:
    """The faults of a server: on the first few attempts of a request, never enough to fail it."""

    kind: str
    seed: int
    dies_at: int = 0

    def fault_of(self, body: dict[str, Any], attempt: int) -> str:
        """Return the fault of a request at its attempt 0, 1, ..."""
        if self.kind != "storm":
            return "ok"
        rng = random.Random(f"{self.seed} {digest(body)}")
        faults = [rng.choice(_TRANSIENT_FAULTS) for _ in range(rng.choice([0, 0, 1, 2, 3]))]
        # A repeated empty answer is final, and every hang costs a time-out.
        once = [f for i, f in enumerate(faults) if f not in ("empty", "hang") or not i]
        return once[attempt] if attempt < len(once) else "ok"
