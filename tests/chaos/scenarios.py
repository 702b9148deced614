"""What goes wrong in a scenario, as a function of its seed.

    scenario(17).runs[0]      # Run(ending="failpoint", point="journal_write", count=9, …)
    weather = Weather("storm", seed=17)
    server = StubServer(fault_of=weather.fault_of)

Where processes die is fixed to the passage or request; when the answers arrive is not.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from tests.support.stub_server import digest

# What a search is, and so what its undisturbed reference is.
VARIANTS = {
    "mcts": ("--simulations", "2", "--max-depth", "4"),
    "waves": ("--simulations", "3", "--wave", "3", "--children", "2", "--max-depth", "4"),
    "linear": ("--strategy", "linear", "--samples", "3", "--max-depth", "4"),
}
# Failpoints, and about how often a build of these passes them; a later count lets it finish.
POINTS = {
    "after_response": 40,
    "journal_write": 25,
    "after_journal": 40,
    "before_commit": 6,
    "between_tables": 15,
    "after_commit": 6,
}
_PASSING = ("429", "500", "503", "reset", "malformed", "cut", "empty", "hang")


@dataclass(frozen=True, slots=True)
class Run:
    """One disturbed run of the build."""

    ending: str
    """`failpoint`, `full` (the disk, at a failpoint), `kill`, `term`, `int`, or `none`."""
    point: str
    """The failpoint."""
    count: int
    """At which passage of the point, or after which request to the server, the end comes."""
    weather: str
    """The server is `calm`, a `storm`, `dies` and comes back, or is `absent`."""
    dies_at: int
    """At which of its requests a server that dies does so."""
    away_s: float
    """After how many seconds it is back."""
    rival: bool
    """Whether a second build runs at the same time, undisturbed by signals and failpoints."""
    options: tuple[str, ...]
    """Options that decide how, and not what, is searched."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Some disturbed runs over one warehouse."""

    seed: int
    variant: str
    runs: tuple[Run, ...]


def scenario(seed: int) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(f"scenario {seed}")
    runs = tuple(_run(rng) for _ in range(rng.choice([1, 1, 2, 3])))
    return Scenario(seed, rng.choice(list(VARIANTS)), runs)


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
    """Concurrency and shard size, which may be others in each run."""
    return ("--concurrency", rng.choice("148"), "--shard", rng.choice("1234"))


@dataclass(frozen=True, slots=True)
class Weather:
    """The faults of a server: of each request the first few tries, never so many that it fails."""

    kind: str
    seed: int
    dies_at: int = 0

    def fault_of(self, body: dict[str, Any], came_before: int) -> str:
        """The fault a request meets at its first, second, ... coming."""
        if self.kind != "storm":
            return "ok"
        rng = random.Random(f"{self.seed} {digest(body)}")
        faults = [rng.choice(_PASSING) for _ in range(rng.choice([0, 0, 1, 2, 3]))]
        # An answer that stays empty is final, and a hanging server takes the time-out each time.
        once = [f for i, f in enumerate(faults) if f not in ("empty", "hang") or not i]
        return once[came_before] if came_before < len(once) else "ok"
