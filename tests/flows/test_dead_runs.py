"""Runs whose process is gone, against an imitation of Prefect's API; the real one is in
`test_local_server`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flows.orchestration.dead_runs import ask_server, crash_dead_runs, find_dead_runs

BEGAN = "2026-11-28T10:00:00Z"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, Any]]]:
    """The address of the API, and what it holds: runs and workers of a pool, states that were set.

    A proxy is named that nothing answers at.
    """
    held: dict[str, Any] = {"runs": [], "workers": [], "set": {}}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def do_POST(self) -> None:
            held["login"] = self.headers["authorization"]
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path.endswith("/set_state"):
                held["set"][self.path.split("/")[-2]] = body
            found = held["workers" if "workers" in self.path else "runs"]
            data = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    yield f"http://127.0.0.1:{server.server_port}/api", held
    server.shutdown()
    server.server_close()


def run(name: str, pid: str | None) -> dict[str, Any]:
    return {
        "id": f"id-{name}", "name": name, "infrastructure_pid": pid, "state_name": "Running",
        "start_time": BEGAN, "created": BEGAN,
    }  # fmt: skip


@pytest.fixture
def dead() -> str:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return str(process.pid)


def test_s52_a_run_without_a_process_is_marked_as_crashed(api, dead) -> None:
    url, held = api
    held["runs"] = [run("gone", dead), run("unknown", None)]
    held["workers"] = [{"name": "vigorl", "last_heartbeat_time": BEGAN}]
    told: list[str] = []
    assert crash_dead_runs(url, ["vigorl"], told.append) == ["id-gone"]
    assert held["set"]["id-gone"]["state"]["type"] == "CRASHED"
    assert told == ["run gone was marked as crashed: its worker was killed"]


def test_a_run_that_was_taken_and_never_begun_is_marked_as_crashed(api) -> None:
    url, held = api
    taken = {"state_type": "PENDING", "state_name": "Submitting", "start_time": None}
    held["runs"] = [run("taken", None) | taken, run("begun", None) | {"state_type": "RUNNING"}]
    assert list(find_dead_runs(url, ["vigorl"])) == [], "a worker may be about to begin it"
    assert crash_dead_runs(url, ["vigorl"]) == ["id-taken"]
    held["set"].clear()
    held["workers"] = [{"name": "other", "last_heartbeat_time": "2026-11-28T11:00:00Z"}]
    told: list[str] = []
    assert crash_dead_runs(url, ["vigorl"], told.append) == [] and not held["set"]
    assert "worker other, so it stays Submitting" in told[0]


def test_a_run_that_goes_on_is_left(api) -> None:
    url, held = api
    code = "import sys; sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code, "prefect"], stdin=subprocess.PIPE)
    try:
        held["runs"] = [run("alive", str(process.pid))]
        assert crash_dead_runs(url, ["vigorl"]) == []
        # Another program may have the number by now.
        held["runs"] = [run("reused", str(os.getppid()))]
        assert crash_dead_runs(url, ["vigorl"]) == ["id-reused"]
    finally:
        process.communicate()


def test_a_run_that_may_be_another_workers_is_left_and_named(api, dead) -> None:
    url, held = api
    held["runs"] = [run("theirs", dead)]
    held["workers"] = [{"name": "ProcessWorker 7", "last_heartbeat_time": "2026-11-28T11:00:00Z"}]
    told: list[str] = []
    assert crash_dead_runs(url, ["vigorl"], told.append) == []
    assert not held["set"]
    assert told == [
        "run theirs has no process here; it may be that of the worker ProcessWorker 7, so it "
        "stays Running"
    ]


@pytest.mark.parametrize(
    ("name", "sent"),
    [("PREFECT_API_AUTH_STRING", "Basic bWU6d29yZA=="), ("PREFECT_API_KEY", "Bearer me:word")],
)
def test_a_server_behind_a_password_is_asked_with_it(
    api, monkeypatch: pytest.MonkeyPatch, name: str, sent: str
) -> None:
    url, held = api
    for other in ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"):
        monkeypatch.delenv(other, raising=False)
    ask_server(f"{url}/events", [])
    assert held["login"] is None
    monkeypatch.setenv(name, "me:word")
    ask_server(f"{url}/events", [])
    assert held["login"] == sent


def test_s40_servers_of_this_machine_are_not_asked_through_a_proxy(api) -> None:
    url, held = api
    assert ask_server(f"{url}/flow_runs/filter", {}) == held["runs"]
