"""Whether Prefect is well, asked of an imitation of its API; `test_operations` has the real one."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
from base64 import b64encode
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from flows.orchestration import server_health
from flows.orchestration.server_health import check_prefect
from flows.stages.doctor.checkup import Diagnosis

BEGAN = "2026-11-28T10:00:00Z"
STATED = {
    "deployments": [
        {"entrypoint": "flows.train_sft.train_sft", "name": "sat2", "parameters": {"limit": 3}},
        {"entrypoint": "flows.retrain.retrain", "name": "nightly"},
    ]
}
Problems = list[tuple[str, str, str]]


class Refusal(int):
    """An HTTP status, in the place of an answer."""


class Api:
    """What the server answers by path, and what it was asked."""

    def __init__(self, url: str, project: Path) -> None:
        self.url, self.project = url, project
        self.asked: list[tuple[str, str, Any]] = []
        """Path, authorization and body of each request."""
        self.date = formatdate(usegmt=True)
        self.answers: dict[str, Any] = {
            "/admin/version": metadata.version("prefect"),
            "/flow_runs/count": 0,
            "/flow_runs/filter": [],
            "/deployments/filter": [
                {"parameters": {}, "pull_steps": None} | stated for stated in STATED["deployments"]
            ],
        }
        for pool, workers in (("vigorl", ["here"]), ("vigorl-gpu", [])):
            self.answers[f"/work_pools/{pool}"] = {"is_paused": False}
            self.answers[f"/work_pools/{pool}/workers/filter"] = [
                {"name": name, "status": "ONLINE", "last_heartbeat_time": BEGAN} for name in workers
            ]

    def found(self) -> list[Diagnosis]:
        return list(check_prefect(str(self.project)))

    def wrong(self) -> Problems:
        """Subject, sentence and remedy of all that is not well."""
        return [(d.subject, d.sentence, d.remedy) for d in self.found() if d.state != "ok"]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    """A server on which all is well, of a machine without a GPU, behind a proxy that is away."""
    held: Api

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def date_time_string(self, timestamp: float | None = None) -> str:
            return held.date

        def do_GET(self) -> None:
            self.answer(None)

        def do_POST(self) -> None:
            self.answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def answer(self, body: Any) -> None:
            path = self.path.removeprefix("/api")
            held.asked.append((path, self.headers.get("authorization", ""), body))
            found = held.answers.get(path, Refusal(404))
            status = found if isinstance(found, Refusal) else 200
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    held = Api(f"http://127.0.0.1:{server.server_port}/api", tmp_path)
    (tmp_path / "prefect.yaml").write_text(json.dumps(STATED))
    monkeypatch.setattr(server_health, "PROJECT", tmp_path)
    monkeypatch.setattr(server_health, "has_gpu", lambda: False)
    monkeypatch.setenv("PREFECT_API_URL", held.url)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield held
    server.shutdown()
    server.server_close()


def test_a_server_that_is_well_is_asked_for_all_that_can_go_wrong(api: Api) -> None:
    assert [(d.subject, d.state, d.sentence) for d in api.found()] == [
        ("Prefect", "ok", f"{metadata.version('prefect')} at {api.url}"),
        ("workers", "ok", "here serves the pool vigorl"),
        ("deployments", "ok", "all 2 of prefect.yaml are applied"),
        ("runs", "ok", "none is marked as running whose process is gone"),
    ]
    late = [body for path, _, body in api.asked if path == "/flow_runs/count"]
    assert [body["work_pools"]["name"]["any_"] for body in late] == [["vigorl"], ["vigorl-gpu"]]
    assert all(body["flow_runs"]["state"]["name"]["any_"] == ["Late"] for body in late)


def test_another_version_of_the_server_is_a_problem(api: Api) -> None:
    api.answers["/admin/version"] = "2.0.0"
    ((subject, sentence, remedy),) = api.wrong()
    assert (subject, remedy) == ("Prefect", "vigorl down && vigorl up")
    assert f"is Prefect 2.0.0, this is {metadata.version('prefect')}" in sentence


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(401, "PREFECT_API_AUTH_STRING"), (403, "PREFECT_API_AUTH_STRING"), (404, "PREFECT_API_URL")],
)
def test_a_server_that_refuses_is_told_with_what_it_may_want(
    api: Api, code: int, remedy: str
) -> None:
    api.answers["/admin/version"] = Refusal(code)
    ((_, sentence, what),) = api.wrong()
    assert sentence == f"{api.url} answers HTTP {code}" and f"export {remedy}=" in what
    assert len(api.asked) == 1


def test_what_is_no_prefect_is_not_asked_further(api: Api) -> None:
    api.answers["/admin/version"] = b"<html>"
    ((_, sentence, remedy),) = api.wrong()
    assert sentence.startswith(f"no server answers at {api.url} (") and remedy == "vigorl up"


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("PREFECT_API_AUTH_STRING", "me:word", f"Basic {b64encode(b'me:word').decode()}"),
        ("PREFECT_API_KEY", "pnu_1", "Bearer pnu_1"),
    ],
)
def test_the_server_is_shown_the_login_that_prefect_takes(
    api: Api, monkeypatch: pytest.MonkeyPatch, name: str, value: str, sent: str
) -> None:
    monkeypatch.setenv(name, value)
    assert not api.wrong()
    assert api.asked[0][1] == sent


def test_a_pool_that_is_missing_or_paused_is_named(api: Api) -> None:
    del api.answers["/work_pools/vigorl"]
    api.answers["/work_pools/vigorl-gpu"] = {"is_paused": True}
    assert api.wrong() == [
        ("workers", "there is no work pool vigorl", "vigorl up"),
        ("workers", "the work pool vigorl-gpu is paused", "prefect work-pool resume vigorl-gpu"),
    ]
    api.answers["/work_pools/vigorl"] = Refusal(500)
    with pytest.raises(urllib.error.HTTPError):
        api.found()


def test_a_pool_without_a_worker_is_a_problem_where_somebody_may_wait_for_one(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answers["/work_pools/vigorl/workers/filter"][0]["status"] = "OFFLINE"
    assert api.wrong() == [("workers", "no worker serves the pool vigorl", "vigorl up")]
    api.answers["/flow_runs/count"] = 2
    assert [sentence for _, sentence, _ in api.wrong()] == [
        f"no worker serves the pool {pool}, and 2 runs wait for one"
        for pool in ("vigorl", "vigorl-gpu")
    ]
    api.answers["/flow_runs/count"] = 0
    monkeypatch.setattr(server_health, "has_gpu", lambda: True)
    assert len(api.wrong()) == 2


def test_deployments_are_held_to_the_file(api: Api) -> None:
    sft, nightly = api.answers["/deployments/filter"]
    sft["pull_steps"] = [
        {"prefect.deployments.steps.set_working_directory": {"directory": "/elsewhere"}},
        {"prefect.deployments.steps.set_working_directory": {"directory": str(api.project)}},
        {"prefect.deployments.steps.run_shell_script": {"script": "true"}},
        "a text",
    ]
    assert api.wrong() == [
        ("deployments", f"runs begin in /elsewhere, and this is {api.project}", "vigorl up")
    ]
    assert [d.state for d in api.found() if d.subject == "deployments"] == ["problem"]
    api.answers["/deployments/filter"] = [nightly | {"parameters": {"limit": 4}}]
    assert api.wrong() == [
        ("deployments", "train-sft/sat2 of prefect.yaml are not applied", "vigorl up"),
        ("deployments", "retrain/nightly of prefect.yaml were applied otherwise", "vigorl up"),
    ]
    (api.project / "prefect.yaml").unlink()
    assert not api.wrong(), "an installed package has no such file"


def test_a_run_whose_process_is_gone_is_named_unless_it_may_be_elsewhere(api: Api) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run = {"infrastructure_pid": str(gone.pid), "start_time": BEGAN, "created": BEGAN}
    api.answers["/flow_runs/filter"] = [run | {"id": "1", "name": "left"}]
    api.answers["/work_pools/vigorl/workers/filter"][0]["name"] = "vigorl"
    ((subject, sentence, remedy),) = api.wrong()
    assert (subject, remedy) == ("runs", "vigorl up")
    assert sentence == "left, left: marked as running, and the process is gone", "in both pools"
    for pool in ("vigorl", "vigorl-gpu"):
        workers = [{"name": "theirs", "status": "ONLINE", "last_heartbeat_time": BEGAN}]
        api.answers[f"/work_pools/{pool}/workers/filter"] = workers
    assert not api.wrong()


def test_a_server_of_another_machine_has_a_clock_and_processes_of_its_own(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_health, "_LOCAL", ())
    monkeypatch.setattr(server_health, "_ANSWER_S", 1.0)
    ((_, sentence, remedy),) = api.wrong()
    assert "no server answers" in sentence, "the proxy is asked, and is away"
    assert remedy == "export PREFECT_API_URL=http://HOST:4200/api"
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name)
    assert [d.subject for d in api.found()] == ["Prefect", "clock", "workers", "deployments"]
    api.date = formatdate(time.time() - 100, usegmt=True)
    ((subject, sentence, _),) = api.wrong()
    assert subject == "clock" and f" s ahead of {api.url}" in sentence
