"""The faults of a cycle of retraining, as a function of its seed, and how they are made.

    scenario(17)                        # Scenario(stage="sft", fault="before", share=0.4, …)
    Faults(log, at=12, fault="full").install()       # in a process of its own, before it begins

What a cycle writes is counted: objects, commits of tables, lines of journals, steps of trainings. A
run without faults logs which stage each write belongs to; a scenario's fault comes at one of them.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.stages.retrain.cycle import STAGES

TRAININGS = ("sft", "grpo")
AT_A_WRITE = ("before", "after", "full", "refused")
"""Killed before or after it; the disk full, or the object store refusing, from there on."""
TASK = "sat2"
_CYCLE = f"retrain/{TASK}/000001/"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault of a cycle, after which it is run again."""

    seed: int
    stage: str
    fault: str
    """One of `AT_A_WRITE`; `training`: its process is killed; `worker`: the one that runs the cycle
    is, while the training goes on in a process of its own; `server`: the teacher's dies for a
    while."""
    share: float
    """Where in the stage, from 0 to 1."""
    again: bool
    """Whether the second run is killed as well, before a third."""

    @property
    def on_s3(self) -> bool:
        """Whether the warehouse is on an object store."""
        return self.fault == "refused"


_PAIRS = [
    *((stage, fault) for fault in AT_A_WRITE for stage in STAGES),
    *((stage, fault) for fault in ("training", "worker") for stage in TRAININGS),
    ("build", "server"),
]
random.Random(0).shuffle(_PAIRS)  # so that the first few are of all kinds


def scenario(seed: int) -> Scenario:
    """Return the scenario of a seed; the first 41 hold every fault in every stage."""
    rng = random.Random(f"retrain {seed}")
    stage, fault = _PAIRS[seed % len(_PAIRS)]
    return Scenario(seed, stage, fault, rng.random(), rng.random() < 0.25)


@dataclass(slots=True)
class Faults:
    """Counts what this process writes, and makes one fault."""

    log: Path
    """Receives a line a write: its stage, what wrote, and the process."""
    at: int = 0
    """The number of the write in its stage, from 1; 0 for no fault."""
    fault: str = ""
    stage: str = ""
    """The stage; the number is among all writes where there is none."""
    store: str = ""
    """Address of the object store that can be told to refuse."""
    _count: int = 0
    _now: str = STAGES[0]
    _lock: Any = None

    def install(self) -> None:
        """Have every write of this process go by here."""
        import mcts.journal.segments
        import training.runs
        import warehouse.storage.objects
        import warehouse.tables.delta

        self._lock = threading.RLock()
        objects, tables = warehouse.storage.objects, warehouse.tables.delta
        for owner, name in (
            (objects.LocalObjects, "_place"),
            (objects.S3Objects, "_put"),
            (tables, "_write"),
            (mcts.journal.segments.SegmentWriter, "write"),
            (training.runs, "_write"),
            (training.runs.Run, "log"),
        ):
            setattr(owner, name, self._by_here(name, getattr(owner, name)))

    def _by_here(self, name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def by_here(*args: Any, **options: Any) -> Any:
            key = args[1] if len(args) > 1 and isinstance(args[1], str) else ""
            if "/lease/" in key:  # renewed when time has come, not at a place
                return write(*args, **options)
            with self._lock:
                self._count += self.stage in ("", self._now)
                mine = self._count == self.at and self.stage in ("", self._now)
                after = self._count >= self.at > 0
                line = [self._now, f"{name} {key}".strip(), os.getpid()]
                with self.log.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            if mine and self.fault == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            if after and self.fault == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if mine and self.fault == "refused":
                tell(self.store, "refuse")
            done = write(*args, **options)
            if mine and self.fault == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            stage = key.removeprefix(_CYCLE).removesuffix(".json")
            if key.startswith(_CYCLE) and stage in STAGES:
                self._now = STAGES[min(STAGES.index(stage) + 1, len(STAGES) - 1)]
            return done

        return by_here


def write_of(scenario: Scenario, log: Path) -> int:
    """Return the number of the write, in the scenario's stage, that its fault comes at.

    Args:
        log: of the writes of a run without faults.
    """
    count = sum(json.loads(line)[0] == scenario.stage for line in log.read_text().splitlines())
    return 1 + int(scenario.share * count)


def tell(store: str, word: str) -> None:
    """Tell the object store to `refuse` all that is put from now on, or to `allow` it."""
    urllib.request.urlopen(f"{store}/-/{word}", timeout=30).close()


def serve_store(port: int) -> None:
    """Serve an imitation of S3 that refuses when it is told to; never returns."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    inner, refusing = DomainDispatcherApplication(create_backend_app), threading.Event()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path.startswith("/-/"):
            (refusing.set if path == "/-/refuse" else refusing.clear)()
            start_response("200 OK", [])
            return [b""]
        if refusing.is_set() and method in ("PUT", "POST", "DELETE"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("403 Forbidden", [("content-type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"]
        return inner(environ, start_response)

    make_server("127.0.0.1", port, application, threaded=True).serve_forever()
