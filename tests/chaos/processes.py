"""Processes of a scenario, forked from one that has everything imported.

    load()                                     # once, before the first fork
    pid = fork(lambda: build(home, url, options, failpoint=""), said=folder / "build.txt")
    pid = serve(port, log, Weather("storm", seed=17))

What forks must have no threads and no open tables: DuckDB, Delta's runtime and Arrow's pools
start theirs at first use, and no thread survives a fork.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.scenarios import Weather
from tests.support.stub_server import StubServer

BACKOFF_S = 0.02
TIMEOUT_S = "2"  # of a request: what hangs costs this much


def load() -> None:
    """Import what a build uses, so that a fork has it at once; nothing is run."""
    import duckdb  # noqa: F401
    import httpx

    import mcts.teachers.reconnect
    import mcts.teachers.server
    import warehouse.sources.importing  # noqa: F401

    httpx.AsyncClient()  # what it imports late, and would import in every fork
    assert threading.active_count() == 1
    defaults = mcts.teachers.server.OpenAITeacher.__init__.__kwdefaults__
    defaults["backoff_s"] = BACKOFF_S
    mcts.teachers.reconnect.ReconnectingTeacher.__init__.__kwdefaults__["retry_s"] = 5 * BACKOFF_S


def fork(work: Callable[[], object], said: Path) -> int:
    """Run `work` in a process of its own, its output appended to `said`; its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        random.seed()  # or all forks would draw the same
        work()
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def build(home: Path, url: str, options: Sequence[str], failpoint: str = "") -> None:
    """The command `vigorl build`, in this process."""
    from flows.cli import app as cli

    os.environ.update(VIGORL_HOME=str(home), VIGORL_FAILPOINT=failpoint, VIGORL_REVISION="chaos")
    sys.argv = ["vigorl", "build", "sat2", "--teacher", url, "--space", "qwen3-vl"]
    sys.argv += ["--timeout", TIMEOUT_S, *options]
    try:
        cli.main()
    except SystemExit as leaving:
        if leaving.code:
            raise


def serve(port: int, log: Path, weather: Weather) -> int:
    """Serve on `port` in a process of its own; its id, once it listens."""

    def work() -> None:
        def fault_of(body: dict, came_before: int) -> str:
            if weather.dies_at and len(server.requests) + 1 >= weather.dies_at:
                return "die"
            return weather.fault_of(body, came_before)

        server = StubServer(port=port, log=log, fault_of=fault_of).start()
        threading.Event().wait()

    pid = fork(work, log.with_suffix(".txt"))
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with socket.socket() as trying:
            if not trying.connect_ex(("127.0.0.1", port)):
                return pid
        time.sleep(0.005)
    raise RuntimeError(f"the stub server does not listen on port {port}: see {log}")


def free_port() -> int:
    """A port to come back to: outside the range from which the system gives them away."""
    while True:
        port = 20_000 + int.from_bytes(os.urandom(2)) % 10_000
        with socket.socket() as trying:
            try:
                trying.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def ended(pid: int) -> int | None:
    """The exit status of a child, 128 + the signal that ended it; None while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def wait(pid: int, limit_s: float = 120.0) -> int:
    """Its exit status; it is killed if it does not end in time."""
    end = time.monotonic() + limit_s
    while (status := ended(pid)) is None:
        if time.monotonic() > end:
            os.kill(pid, 9)
            limit_s, end = 0.0, float("inf")
        time.sleep(0.005)
    return status
