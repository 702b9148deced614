"""`vigorl up` and `down` with a real Prefect server, behind a proxy that nothing answers at.

The chain of events, the nightly run, a deployment that a worker runs, the watched folder, and a
worker that is killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.orchestration.dead_runs import ask_server
from tests.support.fixtures import sat_rows, write_sat
from tests.support.project_files import ROOT

pytestmark = pytest.mark.slow

VERSION = "sat2-sft@v1"


class Server:
    """A server that `vigorl up` started, and its API."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.home, self.api = home, f"http://127.0.0.1:{self.port}/api"
        self.state = home / "prefect"

    def vigorl(self, *words: object) -> subprocess.CompletedProcess[str]:
        proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *map(str, words), "--home", str(self.home)],
            capture_output=True, text=True, cwd=ROOT, env={**os.environ, **proxies},
        )  # fmt: skip

    def ask(self, path: str, body: Any = None) -> Any:
        return ask_server(f"{self.api}{path}", body, timeout_s=60)

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        wanted = {"deployments": {"id": {"any_": [self.deployment(deployment)]}}}
        found: list[dict[str, Any]] = self.ask("/flow_runs/filter", wanted)
        return found

    def deployment(self, name: str) -> str:
        return str(self.ask(f"/deployments/name/{name}")["id"])

    def emit(self, event: str, resource: dict[str, str], payload: dict[str, str]) -> None:
        from uuid import uuid4

        told = {
            "id": str(uuid4()), "event": event, "resource": resource, "payload": payload,
            "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip
        body = json.dumps([told]).encode()
        import urllib.request

        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(
            f"{self.api}/events", body, {"content-type": "application/json"}
        )
        opener.open(request, timeout=60).close()

    def pid(self, name: str) -> int:
        return int(json.loads((self.state / f"{name}.json").read_text())["pid"])


def eventually(found: Callable[[], Any], seconds: float = 240.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(1)
    return value


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("prefect") / "home")
    try:
        began = started.vigorl("up", "--port", started.port)
        assert began.returncode == 0, began.stderr + began.stdout
        assert f"server and worker are up: http://127.0.0.1:{started.port}" in began.stdout
        yield started
    finally:
        notes = [started.state / f"{name}.json" for name in ("server", "worker", "watcher")]
        pids = [started.pid(note.stem) for note in notes if note.exists()]
        ended = started.vigorl("down")
    assert ended.returncode == 0, ended.stderr
    assert {"server stopped", "worker stopped", "watcher stopped"} <= set(ended.stdout.splitlines())
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_deployment_runs_the_body_of_its_flow(server: Server) -> None:
    created = server.ask(
        f"/deployments/{server.deployment('build-traces/sat2')}/create_flow_run",
        {"parameters": {"task": "sat2", "limit": 1, "simulations": 2, "home": str(server.home)}},
    )

    def state() -> str:
        return str(server.ask(f"/flow_runs/{created['id']}")["state_type"])

    eventually(lambda: state() in ("COMPLETED", "FAILED", "CRASHED"))
    assert state() == "COMPLETED"
    curated = server.ask(
        f"/deployments/{server.deployment('curate-traces/sat2')}/create_flow_run",
        {"parameters": {"task": "sat2", "home": str(server.home)}},
    )
    eventually(lambda: server.ask(f"/flow_runs/{curated['id']}")["state_type"] == "COMPLETED")
    shown = server.ask("/artifacts/filter", {})
    assert {"progress", "table"} <= {artifact["type"] for artifact in shown}


def test_s52_runs_of_a_worker_that_was_killed_are_marked_and_a_chain_of_events_begins(
    server: Server,
) -> None:
    created = server.ask(
        f"/deployments/{server.deployment('build-traces/sat2')}/create_flow_run",
        {"parameters": {"task": "sat2", "limit": 24, "seed": 5, "home": str(server.home)}},
    )
    process = eventually(lambda: server.ask(f"/flow_runs/{created['id']}")["infrastructure_pid"])
    for pid in (server.pid("worker"), int(process)):
        os.kill(pid, signal.SIGKILL)

    # No worker runs now, so what the events set off stays scheduled.
    server.emit(
        "vigorl.dataset.published",
        {"prefect.resource.id": "vigorl.dataset.sat2-sft"},
        {"version": VERSION},
    )
    server.emit(
        "vigorl.model.trained",
        {
            "prefect.resource.id": "vigorl.model.m",
            "vigorl.kind": "sft",
            "vigorl.dataset": "sat2-sft",
        },
        {"model": "m", "dataset": VERSION},
    )
    (sft,) = eventually(lambda: server.runs("train-sft/sat2"))
    assert sft["parameters"]["dataset"] == VERSION
    assert sft["parameters"]["min_new_rows"] == 100
    (grpo,) = eventually(lambda: server.runs("train-grpo/sat2"))
    assert (grpo["parameters"]["model"], grpo["parameters"]["dataset"]) == ("m", VERSION)
    (measured,) = eventually(lambda: server.runs("evaluate-model/sat2"))
    assert measured["parameters"]["model"] == "m"
    nightly = eventually(lambda: server.runs("train-sft/nightly"))
    assert all(run["expected_start_time"][11:16] == "02:30" for run in nightly)

    inbox = server.home / "inbox" / "sat2"
    (inbox / "bad.parquet").write_bytes(b"nothing")
    write_sat(inbox / "new.parquet", sat_rows(3))
    (retrain,) = eventually(lambda: server.runs("retrain/on-new-data"))
    assert retrain["parameters"]["leave_paused"] and (inbox / "bad.parquet.rejected.txt").exists()

    for run in (sft, grpo, measured, retrain):
        cancelled = {"state": {"type": "CANCELLED", "name": "Cancelled"}, "force": True}
        server.ask(f"/flow_runs/{run['id']}/set_state", cancelled)
    again = server.vigorl("up", "--port", server.port)
    assert again.returncode == 0, again.stderr
    assert f"run {created['name']} was marked as crashed" in again.stdout
    assert server.ask(f"/flow_runs/{created['id']}")["state_type"] == "CRASHED"
