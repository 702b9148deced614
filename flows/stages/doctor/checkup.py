"""Checks side by side, each given up after a while: what `vigorl doctor` runs.

    for diagnosis in examine({"disk": lambda: check_disk(warehouse)}, limit_s=20):
        print(diagnosis.state, diagnosis.sentence, diagnosis.remedy)

A check yields what it finds and writes nothing. Each has a thread of its own, so that one which
waits for a server or a disk that is away neither delays the others nor holds up the end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal, TypeAlias

from warehouse.storage.failures import describe
from warehouse.storage.home import first_line


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found out about one thing."""

    subject: str
    state: Literal["ok", "note", "problem"]
    """A note is worth knowing, and nothing is wrong."""
    sentence: str
    remedy: str = ""
    """What to type; empty where nothing needs to be done."""


Check: TypeAlias = Callable[[], Iterable[Diagnosis]]


def examine(checks: Mapping[str, Check], limit_s: float) -> Iterator[Diagnosis]:
    """Run all checks at once; yield what they find in the order of the checks.

    Args:
        checks: by the subject that is named where one fails or does not end.
        limit_s: seconds after which a check that is not done is a problem.
    """
    end = time.monotonic() + limit_s
    found = {subject: _start(subject, check) for subject, check in checks.items()}
    for subject, queue in found.items():
        while True:
            try:
                diagnosis = queue.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                yield Diagnosis(subject, "problem", f"no answer within {limit_s:g} s")
                break
            if diagnosis is None:
                break
            yield diagnosis


def _start(subject: str, check: Check) -> SimpleQueue[Diagnosis | None]:
    queue: SimpleQueue[Diagnosis | None] = SimpleQueue()

    def work() -> None:
        try:
            for diagnosis in check():
                queue.put(diagnosis)
        except Exception as error:
            queue.put(Diagnosis(subject, "problem", describe(error) or first_line(error)))
        queue.put(None)

    threading.Thread(target=work, name=f"doctor-{subject}", daemon=True).start()
    return queue
