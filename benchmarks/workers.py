"""What more workers bring: trees a second of one and of four Ray workers, with a slow teacher.

    python -m benchmarks.workers                  # needs vigorl[ray]; about two minutes
    python -m benchmarks.workers --kill-every 10  # and one of the four is killed now and then

The teacher is the tests' stub with a fixed time for each answer, so that what is measured is the
handing out of shards and not this machine. Each worker has the same number of trees at once. Time
runs from the first request to the last. The warehouses must hold the same rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from flows.settings import BuildSettings
from flows.stages.build import build
from tests.chaos.contents import compare, read
from tests.support.fixtures import sat_rows, write_sat
from tests.support.stub_server import StubServer
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse

TREES_A_WORKER = 8
QUESTIONS = 128
MANY = 4
ARRIVED: list[float] = []
"""When each request came to the server, by `time.monotonic`."""


def arrive(body: object, attempt: int) -> str:
    """Note the time of a request that the server answers."""
    ARRIVED.append(time.monotonic())
    return "ok"


def actors() -> list[int]:
    """Process ids of this machine's Ray workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"ray::_Actor"):
                found.append(int(path.parent.name))
    return found


def measure(
    home: Path, server: StubServer, workers: int, kill_every: float | None
) -> tuple[float, int, int]:
    """Build once; return the seconds from the first request to the last, how many workers were
    killed in them, and requests asked twice."""
    import_questions(Warehouse(str(home)), "sat2", home / "SAT_train.parquet")
    settings = BuildSettings.checked(
        task="sat2", teacher=server.url, space="qwen3-vl", home=str(home), simulations=4,
        shard=TREES_A_WORKER, on="ray", workers=workers, concurrency=workers * TREES_A_WORKER,
    )  # fmt: skip
    start, killed, done = len(ARRIVED), [], threading.Event()

    def kill() -> None:
        while not done.wait(kill_every):
            if alive := actors():
                os.kill(random.choice(alive), signal.SIGKILL)
                killed.append(time.monotonic())

    killer = threading.Thread(target=kill, daemon=True)
    if kill_every:
        killer.start()
    asyncio.run(build(settings))
    done.set()
    twice = Counter(request["fingerprint"] for request in server.requests[start:])
    first, last = ARRIVED[start], ARRIVED[-1]
    meanwhile = sum(first <= at <= last for at in killed)  # others had nothing to lose
    return last - first, meanwhile, sum(n - 1 for n in twice.values())


def main() -> None:
    """Print the seconds of both, and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=1.0, help="seconds of an answer")
    parser.add_argument("--kill-every", type=float, help="seconds between two kills of a worker")
    given = parser.parse_args()
    # Ray counts a CPU a worker: on a machine of two cores it would have room for two.
    os.environ.setdefault("RAY_OVERRIDE_RESOURCES", json.dumps({"CPU": MANY}))
    took, contents = {}, {}
    server = StubServer(latency_s=given.latency, fault_of=arrive)
    with tempfile.TemporaryDirectory() as folder, server:
        for workers in (1, MANY):
            home = Path(folder) / str(workers)
            home.mkdir()
            write_sat(home / "SAT_train.parquet", sat_rows(QUESTIONS))
            kill_every = given.kill_every if workers == MANY else None
            took[workers], killed, twice = measure(home, server, workers, kill_every)
            contents[workers] = read(home)
            print(
                f"{workers} workers: {QUESTIONS} trees in {took[workers]:.1f} s, {killed} killed, "
                f"{twice} requests asked twice",
                flush=True,
            )
    lost, differing = compare(contents[MANY], contents[1])
    print(f"ratio {took[1] / took[MANY]:.2f}; trees lost {lost}, differing {differing}")


if __name__ == "__main__":
    main()
