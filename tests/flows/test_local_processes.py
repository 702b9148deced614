"""What `vigorl up` records of its processes, and what `down` stops."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.orchestration import local_server
from flows.orchestration.local_server import (
    PROCESSES,
    down,
    running_processes,
    server_address,
    state_folder,
    up,
)
from flows.settings import Problem

SLEEPS = [sys.executable, "-I", "-c", "import time; time.sleep(60)"]


@pytest.fixture(autouse=True)
def no_server_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "NO_PROXY", "no_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def test_what_was_started_is_found_and_stopped_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = str(tmp_path)
    state = state_folder(home)
    assert state == tmp_path / "prefect"
    down(home)
    assert capsys.readouterr().out == f"nothing that was started from {state} is running\n"
    assert server_address(home) is None
    for name, port in (("server", ["--port", "4321"]), ("worker", [])):
        local_server._start(state, name, [*SLEEPS, *port], dict(os.environ))
    note = json.loads((state / "worker.json").read_text())
    other = {"pid": os.getpid(), "started": "another time"}  # an id that this process has now
    (state / "watcher.json").write_text(json.dumps(other))
    (state / "gpu-worker.json").write_text("{")
    running = running_processes(state)
    assert list(running) == [name for name in PROCESSES if name in ("worker", "server")]
    assert running["worker"] == note["pid"] and os.getpgid(note["pid"]) == note["pid"]
    assert server_address(home) == "http://127.0.0.1:4321/api"
    down(home)
    assert capsys.readouterr().out == "worker stopped\nserver stopped\n"
    assert running_processes(state) == {} and not list(state.glob("*.json"))
    assert sorted(path.name for path in state.glob("*.log")) == ["server.log", "worker.log"]
    assert server_address(home) is None


def test_a_named_server_is_the_one_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://host:1/api/")
    assert server_address(str(tmp_path)) == "http://host:1/api"


def test_a_port_of_another_program_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Problem, match=f"port {port} is taken by another program"):
            up(port, str(tmp_path))
    assert not local_server._taken(port)
    assert not (tmp_path / "prefect" / "server.json").exists()


def test_a_server_that_ends_at_once_is_told_with_its_log(tmp_path: Path) -> None:
    state = state_folder(str(tmp_path))
    local_server._start(state, "server", [sys.executable, "-c", ""], dict(os.environ))
    with pytest.raises(Problem, match=rf"did not start; its log is {state / 'server.log'}"):
        local_server._wait_until_healthy(state, "http://127.0.0.1:9")
    with pytest.raises(Problem, match=rf"the worker did not start; its log is {state}/worker.log"):
        local_server._wait_for_workers(state, ["worker"])


def test_a_command_that_fails_is_told_by_its_last_line(tmp_path: Path) -> None:
    env = dict(os.environ)
    fine, fails = ([sys.executable, "-c", code] for code in (
        "print('fine')", "import sys; sys.exit('one\\ntwo')"))  # fmt: skip
    local_server._quietly(fine, env, tmp_path)
    with pytest.raises(Problem, match=r"` failed: two; see .*setup\.log"):
        local_server._quietly(fails, env, tmp_path)
    assert "fine\n" in (tmp_path / "setup.log").read_text()
    assert local_server._succeeds(fine, env) and not local_server._succeeds(fails, env)


def test_what_is_started_knows_its_server_and_reaches_it_without_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(**given: str) -> dict[str, Any]:
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        return local_server._environment(tmp_path / "state", "http://127.0.0.1:1", str(tmp_path))

    env = told()
    assert env["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
    assert (env["PREFECT_HOME"], env["VIGORL_HOME"]) == (f"{tmp_path}/state", str(tmp_path))
    assert env["NO_PROXY"] == env["no_proxy"] == "127.0.0.1,localhost"
    assert env["HF_HUB_OFFLINE"] == "1" and env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert told(no_proxy="here")["NO_PROXY"] == "here,127.0.0.1,localhost"
    env = told(NO_PROXY="there", HF_HUB_OFFLINE="0")
    assert env["no_proxy"] == "there,127.0.0.1,localhost" and env["HF_HUB_OFFLINE"] == "0"


def test_a_task_that_a_deployment_retrains_has_a_folder_for_its_files(tmp_path: Path) -> None:
    stated = yaml.safe_load((local_server.PROJECT / "prefect.yaml").read_text())["deployments"]
    tasks = {one["parameters"]["task"] for one in stated
             if one["entrypoint"] == "flows.retrain.retrain"}  # fmt: skip
    made = local_server._make_inboxes(str(tmp_path))
    assert {Path(folder).name for folder in made} == tasks and made == sorted(made)
    assert all(Path(folder).is_dir() for folder in made)
    assert local_server._make_inboxes("s3://bucket")[0].startswith("s3://bucket/")


def test_what_to_type_next_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local_server._say_what_to_type("http://127.0.0.1:1", tmp_path, ["worker"], ["inbox/sat2"])
    said = capsys.readouterr().out
    assert "PREFECT_API_URL=http://127.0.0.1:1/api prefect worker start --pool vigorl-gpu" in said
    assert "drop them into inbox/sat2" in said and said.endswith("vigorl down\n")
    local_server._say_what_to_type("http://127.0.0.1:1", tmp_path, ["gpu-worker"], [])
    assert "no GPU here" not in capsys.readouterr().out
