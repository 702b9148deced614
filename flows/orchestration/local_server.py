"""A Prefect server and its workers in the background, for `vigorl up` and `vigorl down`.

    vigorl up                 # server, worker, deployments; says where the pages are
    prefect deployment run build-traces/sat2
    vigorl down

Their state and logs are in `<warehouse>/prefect/`, apart from any other Prefect of the user's.
Only processes recorded there are ever stopped.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import yaml

from flows.orchestration.dead_runs import ask_server, crash_dead_runs
from flows.settings_base import Problem
from flows.stages.retrain.inbox import inbox_of
from flows.teachers.vllm_command import has_gpu
from warehouse.storage.home import Warehouse

PROJECT = Path(__file__).resolve().parents[2]
WORKERS = {"worker": "vigorl", "gpu-worker": "vigorl-gpu"}
"""Each worker's work pool; the second is started only where there is a GPU."""
WATCHER = "watcher"
"""The process that looks into the watched folder."""
PROCESSES = (*WORKERS, WATCHER, "server")
"""Everything that `up` starts, in the order in which it is stopped."""
RETRAIN = "flows.retrain.retrain"
START_S = 120.0  # the first start makes the database, which takes a while on a slow disk


def up(port: int, home: str | None) -> None:
    """Start what is not running yet, and apply the deployments of `prefect.yaml`.

    Raises:
        Problem: the port is taken by something else, or the server does not start.
    """
    if not (PROJECT / "prefect.yaml").is_file():
        raise Problem(f"there is no prefect.yaml in {PROJECT}: run this from a checkout")
    state = state_folder(home)
    recorded = running_processes(state).get("server")
    begun = recorded is None
    if recorded is not None:
        port = _port_of(recorded)
    url = f"http://127.0.0.1:{port}"
    env = _environment(state, url, home)
    if begun:
        if _taken(port):
            raise Problem(
                f"port {port} is taken by another program; stop that, or choose one with --port "
                f"and set PREFECT_API_URL=http://127.0.0.1:PORT/api for prefect commands"
            )
        command = [*_prefect(), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        _start(state, "server", command, env)
        print(f"starting the Prefect server at {url} ...")
    try:
        _wait_until_healthy(state, url)
    except BaseException:
        if begun:  # else it would be left running, unknown to everybody
            _stop_recorded(state, ["server"])
        raise
    running = running_processes(state)
    crash_dead_runs(f"{url}/api", [pool for name, pool in WORKERS.items() if name not in running])
    _quietly([sys.executable, "-m", "flows.orchestration.deployments"], env, state)
    mine = {name: pool for name, pool in WORKERS.items() if name == "worker" or has_gpu()}
    for name, pool in mine.items():
        if name not in running_processes(state):
            command = [*_prefect(), "worker", "start", "--pool", pool, "--name", pool]
            _start(state, name, command, env)
    if WATCHER not in running_processes(state):
        _start(state, WATCHER, [sys.executable, "-m", "flows.cli", "inbox", "--watch"], env)
    _wait_for_workers(state, (*mine, WATCHER))
    _say_what_to_type(url, state, mine, _make_inboxes(home))


def _say_what_to_type(url: str, state: Path, mine: Iterable[str], inboxes: Iterable[str]) -> None:
    bin_ = Path(sys.executable).parent
    here = "" if str(bin_) in os.environ.get("PATH", "").split(os.pathsep) else f"{bin_}/"
    print(f"server and worker are up: {url} (logs and state in {state})")
    if "gpu-worker" not in mine:
        print(
            "no GPU here: deployments ending in -gpu wait for a machine that has one and runs\n"
            f"                   PREFECT_API_URL={url}/api prefect worker start --pool "
            f"{WORKERS['gpu-worker']}"
        )
    # prefect.toml names the usual port.
    there = "" if url.endswith(":4200") else f"PREFECT_API_URL={url}/api "
    print(f"run a deployment:  {there}{here}prefect deployment run build-traces/sat2 -p limit=24")
    for folder in inboxes:
        print(f"retrain on files:  drop them into {folder}")
    print(f"stop them:         {here}vigorl down")


def down(home: str | None) -> None:
    """Stop the worker and the server that `up` started here."""
    state = state_folder(home)
    stopped = _stop_recorded(state, PROCESSES)
    if not stopped:
        print(f"nothing that was started from {state} is running")
    for name in stopped:
        print(f"{name} stopped")


def _stop_recorded(state: Path, names: Iterable[str]) -> list[str]:
    """Stop those of these processes that run; return their names."""
    running, stopped = running_processes(state), []
    for name in names:
        if name in running:
            _stop(running[name])
            stopped.append(name)
        (state / f"{name}.json").unlink(missing_ok=True)
    return stopped


def state_folder(home: str | None) -> Path:
    """Return the folder of the state and the logs of what `up` starts."""
    warehouse = Warehouse.at(home)
    return warehouse.journal_dir.parent / "prefect"


def server_address(home: str | None) -> str | None:
    """Return the API of PREFECT_API_URL, or of the server that `up` started here; None without."""
    if named := os.environ.get("PREFECT_API_URL"):
        return named.rstrip("/")
    pid = running_processes(state_folder(home)).get("server")
    if pid is None:
        return None
    return f"http://127.0.0.1:{_port_of(pid)}/api"


def _port_of(pid: int) -> int:
    """Return the port that a Prefect server was started with."""
    shown = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True
    )
    words = shown.stdout.split()
    return int(words[words.index("--port") + 1]) if "--port" in words else 4200


def _make_inboxes(home: str | None) -> list[str]:
    """Make a folder for each task that a deployment retrains; return them all."""
    stated = yaml.safe_load((PROJECT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    flows = ((one["entrypoint"], one.get("parameters", {}).get("task")) for one in stated)
    root = inbox_of(Warehouse.at(home))
    made = [f"{root}/{task}" for task in sorted({t for e, t in flows if e == RETRAIN and t})]
    for folder in made if not root.startswith("s3://") else ():
        Path(folder).mkdir(parents=True, exist_ok=True)
    return made


def _environment(state: Path, url: str, home: str | None) -> dict[str, str]:
    env = dict(os.environ)
    env["PREFECT_API_URL"] = f"{url}/api"
    env["PREFECT_HOME"] = str(state)
    env["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    env["DO_NOT_TRACK"] = "1"
    # Seconds between a run's signs of life: `notifications.py` ends those that give none.
    env.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    env["VIGORL_HOME"] = Warehouse.at(home).root
    env.setdefault("HF_HUB_OFFLINE", "1")
    # What talks to a server of this machine must not do so through a proxy.
    past = [env.get("NO_PROXY") or env.get("no_proxy") or "", "127.0.0.1", "localhost"]
    env["NO_PROXY"] = env["no_proxy"] = ",".join(filter(None, past))
    return env


def _prefect() -> list[str]:
    return [sys.executable, "-m", "prefect"]


def _start(state: Path, name: str, command: list[str], env: dict[str, str]) -> None:
    """Start a process that outlives this one, in a group of its own, and record it."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=_heed_interrupts,
        )  # fmt: skip
    note = {"pid": process.pid, "started": _started_at(process.pid)}
    (state / f"{name}.json").write_text(json.dumps(note), encoding="utf-8")


def _heed_interrupts() -> None:
    """Let SIGINT stop a new process: it would be ignored as it is where a script began `up &`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def running_processes(state: Path) -> dict[str, int]:
    """Return the recorded processes that are alive; an id that another program has now is not."""
    alive = {}
    for name in PROCESSES:
        try:
            note = json.loads((state / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        started = _started_at(note["pid"])
        if started is not None and started == note["started"]:
            alive[name] = note["pid"]
    return alive


def _started_at(pid: int) -> str | None:
    """Return when a process was started, in the system's own count; None if it is not running."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        found = subprocess.run(
            ["ps", "-ww", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True
        )
        state, _, started = found.stdout.strip().partition(" ")
        return started.strip() or None if not state.startswith("Z") else None
    return None if fields[0] == "Z" else fields[19]


def _stop(pid: int) -> None:
    """Stop a process group: SIGINT, SIGTERM, then SIGKILL."""
    for sign, patience_s in ((signal.SIGINT, 15), (signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        try:
            os.killpg(pid, sign)
        except ProcessLookupError:
            return
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            if _started_at(pid) is None:
                return
            time.sleep(0.2)


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until_healthy(state: Path, url: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            if ask_server(f"{url}/api/health", timeout_s=5):
                return
        except (OSError, ValueError):
            pass
        if "server" not in running_processes(state):
            break
        time.sleep(0.5)
    raise Problem(f"the Prefect server did not start; its log is {state / 'server.log'}")


def _wait_for_workers(state: Path, names: Iterable[str]) -> None:
    """Check for some seconds that workers run: one that cannot start ends within its first."""
    for _ in range(10):
        time.sleep(0.5)
        for name in names:
            if name not in running_processes(state):
                raise Problem(f"the {name} did not start; its log is {state / f'{name}.log'}")


def _quietly(command: list[str], env: dict[str, str], state: Path) -> None:
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True)
    with (state / "setup.log").open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Problem(f"`{' '.join(command[2:])}` failed: {' '.join(last)}; see {log.name}")
