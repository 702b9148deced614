"""Processes of a scenario, forked from one that has imported everything.

    load()                                     # once, before the first fork
    pid = fork(lambda: build(home, url, options, failpoint=""), output=folder / "build.txt")
    pid = serve(port, log, Weather("storm", seed=17))

The parent must have no threads and no open tables: DuckDB, Delta's runtime and Arrow's pools start
theirs at first use, and threads do not survive a fork.
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
TIMEOUT_S = "2"  # of a request: the cost of one that hangs


def load() -> None:
    """Import what a build uses, so that forks need not; run nothing."""
    import duckdb  # noqa: F401

    import mcts.teachers.openai_client
    import mcts.teachers.reconnect
    import warehouse.sources.importing  # noqa: F401

    assert threading.active_count() == 1
    defaults = mcts.teachers.openai_client.OpenAITeacher.__init__.__kwdefaults__
    defaults["backoff_s"] = BACKOFF_S
    mcts.teachers.reconnect.ReconnectingTeacher.__init__.__kwdefaults__["retry_s"] = 5 * BACKOFF_S


def fork(work: Callable[[], object], output: Path) -> int:
    """Run `work` in a process of its own, its output appended to `output`; return its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        random.seed()  # otherwise all forks would draw the same
        work()
        status = 0
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def build(home: Path, url: str, options: Sequence[str], failpoint: str = "") -> None:
    """Run `vigorl build` in this process."""
    from flows.cli import app as cli

    os.environ.update(VIGORL_HOME=str(home), VIGORL_FAILPOINT=failpoint, VIGORL_REVISION="chaos")
    sys.argv = ["vigorl", "build", "sat2", "--teacher", url, "--space", "qwen3-vl"]
    sys.argv += ["--timeout", TIMEOUT_S, *options]
    try:
        cli.main()
    except SystemExit as exit:
        if exit.code:
            raise


def serve(port: int, log: Path, weather: Weather) -> int:
    """Serve on `port` in a process of its own; return its id once it listens."""

    def work() -> None:
        def fault_of(body: dict, attempt: int) -> str:
            if weather.dies_at and len(server.requests) + 1 >= weather.dies_at:
                return "die"
            return weather.fault_of(body, attempt)

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
    """Find a port that a restarted server can use: outside the system's ephemeral range."""
    while True:
        port = 20_000 + int.from_bytes(os.urandom(2)) % 10_000
        with socket.socket() as trying:
            try:
                trying.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def exit_status(pid: int) -> int | None:
    """Return a child's exit status, 128 + the signal that ended it; None while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def wait(pid: int, limit_s: float = 120.0) -> int:
    """Wait for a child and return its exit status; kill it after `limit_s`."""
    end = time.monotonic() + limit_s
    while (status := exit_status(pid)) is None:
        if time.monotonic() > end:
            os.kill(pid, 9)
            limit_s, end = 0.0, float("inf")
        time.sleep(0.005)
    return status
