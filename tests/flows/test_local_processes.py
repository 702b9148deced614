"""What `vigorl up` records of its processes, and what `down` stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from flows.cli import app
from flows.orchestration import local_server
from flows.orchestration.local_server import (
    PROCESSES,
    down,
    running_processes,
    server_address,
    state_folder,
    up,
)
from flows.settings_base import Problem

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


def test_what_a_background_job_started_is_stopped_by_an_interrupt(tmp_path: Path) -> None:
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    state = state_folder(str(tmp_path))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for `vigorl up &`
    try:
        local_server._start(state, "worker", [sys.executable, "-I", "-c", code], dict(os.environ))
    finally:
        signal.signal(signal.SIGINT, before)
    os.waitpid(json.loads((state / "worker.json").read_text())["pid"], 0)
    assert (state / "worker.log").read_text() == "False\n"


def test_a_server_without_a_port_is_at_prefects_usual_one(tmp_path: Path) -> None:
    local_server._start(state_folder(str(tmp_path)), "server", SLEEPS, dict(os.environ))
    assert server_address(str(tmp_path)) == "http://127.0.0.1:4200/api"
    down(str(tmp_path))


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
    assert "PREFECT_API_URL=http://127.0.0.1:1/api " in said.partition("run a deployment:")[2]
    assert "drop them into inbox/sat2" in said and said.endswith("vigorl down\n")
    local_server._say_what_to_type("http://127.0.0.1:1", tmp_path, ["gpu-worker"], [])
    assert "no GPU here" not in capsys.readouterr().out
    local_server._say_what_to_type("http://127.0.0.1:4200", tmp_path, ["gpu-worker"], [])
    assert "PREFECT_API_URL" not in capsys.readouterr().out


# ---- `up`, without what it starts ----------------------------------------------------------------


class Started:
    """What `up` did, in order; nothing of it is really started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.did: list[tuple[Any, ...]] = []
        self.running: dict[str, int] = {}
        self.healthy = True
        for name in ("_start", "_stop", "_wait_until_healthy", "_quietly", "_wait_for_workers"):
            monkeypatch.setattr(local_server, name, getattr(self, name.removeprefix("_")))
        monkeypatch.setattr(local_server, "running_processes", lambda state: dict(self.running))
        monkeypatch.setattr(local_server, "crash_dead_runs", self.crash)
        self.has_gpu(monkeypatch, False)

    def has_gpu(self, monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
        monkeypatch.setattr(local_server, "has_gpu", lambda: has)

    def start(self, state: Path, name: str, command: list[str], env: dict[str, str]) -> None:
        self.running[name] = len(self.running) + 1
        self.did.append(("start", name, *command[3:]))
        assert env["PREFECT_HOME"] == str(state)

    def stop(self, pid: int) -> None:
        self.did.append(("stop", pid))

    def wait_until_healthy(self, state: Path, url: str) -> None:
        if not self.healthy:
            raise Problem("it did not start")

    def quietly(self, command: list[str], env: dict[str, str], state: Path) -> None:
        self.did.append(("apply", *command[2:], env["PREFECT_API_URL"]))

    def wait_for_workers(self, state: Path, names: tuple[str, ...]) -> None:
        self.did.append(("wait", *names))

    def crash(self, api: str, pools: list[str]) -> None:
        self.did.append(("crash", api, *pools))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    return Started(monkeypatch)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def worker(pool: str) -> tuple[str, ...]:
    return ("worker", "start", "--pool", pool, "--name", pool)


def test_up_starts_a_server_ends_dead_runs_applies_deployments_and_starts_workers(
    started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    up(port, str(tmp_path))
    api = f"http://127.0.0.1:{port}/api"
    server = ("server", "start", "--host", "127.0.0.1", "--port", str(port))
    assert started.did == [
        ("start", "server", *server),
        ("crash", api, "vigorl", "vigorl-gpu"),
        ("apply", "flows.orchestration.deployments", api),
        ("start", "worker", *worker("vigorl")),
        ("start", "watcher", "inbox", "--watch"),
        ("wait", "worker", "watcher"),
    ]
    said = capsys.readouterr().out
    assert said.startswith(f"starting the Prefect server at http://127.0.0.1:{port} ...")
    assert "server and worker are up" in said and "no GPU here" in said


def test_up_again_asks_the_server_that_runs_whatever_its_port(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started.running = {"server": 1}
    monkeypatch.setattr(local_server, "_port_of", lambda pid: 4201)
    up(4200, str(tmp_path))
    assert ("crash", "http://127.0.0.1:4201/api", "vigorl", "vigorl-gpu") in started.did
    assert ("apply", "flows.orchestration.deployments", "http://127.0.0.1:4201/api") in started.did


def test_up_again_starts_only_what_is_gone(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started.running = {"server": 1, "worker": 2}
    started.has_gpu(monkeypatch, True)
    with socket.socket() as taken:  # by our own server, which is no reason to stop
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up(taken.getsockname()[1], str(tmp_path))
    assert [did[:2] for did in started.did if did[0] == "start"] == [
        ("start", "gpu-worker"), ("start", "watcher"),
    ]  # fmt: skip
    assert started.did[0][2:] == ("vigorl-gpu",), "only where no worker of ours runs"
    assert started.did[-1] == ("wait", "worker", "gpu-worker", "watcher")


@pytest.mark.parametrize("before", [True, False])
def test_a_server_that_does_not_get_well_is_stopped_if_up_started_it(
    started: Started, tmp_path: Path, before: bool
) -> None:
    started.healthy = False
    started.running = {"server": 7} if before else {}
    with pytest.raises(Problem, match="it did not start"):
        up(free_port(), str(tmp_path))
    assert [did[0] for did in started.did] == ([] if before else ["start", "stop"])


def test_up_needs_a_checkout(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_server, "PROJECT", tmp_path)
    with pytest.raises(Problem, match=f"there is no prefect.yaml in {tmp_path}"):
        up(free_port(), str(tmp_path))
    assert not started.did


def test_a_process_runs_in_the_checkout_reads_nothing_and_writes_to_its_log(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys; print(os.getcwd(), os.environ['MARK'], len(sys.stdin.read())); "
        "sys.stdout.flush(); print('wrong', file=sys.stderr)"
    )
    state, env = tmp_path / "a" / "state", {**os.environ, "MARK": "ours"}
    for _ in range(2):
        local_server._start(state, "worker", [sys.executable, "-I", "-c", code], env)
        os.waitpid(json.loads((state / "worker.json").read_text())["pid"], 0)
    once = f"{local_server.PROJECT} ours 0\nwrong\n"
    assert (state / "worker.log").read_text() == once * 2


def test_without_proc_a_process_is_known_by_what_ps_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent() -> str:
        raise OSError

    monkeypatch.setattr(local_server, "Path", lambda name: SimpleNamespace(read_text=absent))
    began = local_server._started_at(os.getpid())
    assert began and began == local_server._started_at(os.getpid())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert local_server._started_at(ended.pid) is None, "it only waits to be collected"
    ended.wait()
    assert local_server._started_at(ended.pid) is None


def test_a_server_is_waited_for_until_it_says_that_it_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [OSError("not yet"), False, ValueError("no JSON"), True]
    asked: list[str] = []

    def ask(url: str, timeout_s: float) -> Any:
        asked.append(url)
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(local_server, "ask_server", ask)
    monkeypatch.setattr(local_server.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(local_server, "running_processes", lambda state: {"server": 1, "worker": 2})
    local_server._wait_until_healthy(tmp_path, "http://127.0.0.1:1")
    assert asked == ["http://127.0.0.1:1/api/health"] * 4
    local_server._wait_for_workers(tmp_path, ["worker"])
    monkeypatch.setattr(local_server, "START_S", 0.0)
    with pytest.raises(Problem, match="the Prefect server did not start"):
        local_server._wait_until_healthy(tmp_path, "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("port", "status"), [("0", 2), ("65536", 2), ("99999", 2), ("1", 0), ("65535", 0)]
)
def test_a_port_is_one_that_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], port: str, status: int
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(local_server, "up", lambda port, home: begun.append(port))
    monkeypatch.setattr("sys.argv", ["vigorl", "up", "--port", port])
    with pytest.raises(SystemExit) as left:
        app.main()
    assert left.value.code == status and begun == ([] if status else [int(port)])
    assert ("'--port'" in capsys.readouterr().err) == bool(status)
