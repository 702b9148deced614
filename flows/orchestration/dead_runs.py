"""Marks runs as crashed whose process is gone, so that none stays Running for good.

    crash_dead_runs(url, {"worker": "vigorl"})        # called before a new worker starts

A worker that is killed with -9 takes nothing back: its runs stay Running in Prefect. Prefect does
not store which worker has a run, so a run is ours only where no worker but ours has been seen in
its work pool since it began. Others' are left as they are and named.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from warehouse.tables.schema import Row

_OPEN_STATES = ["RUNNING", "PENDING", "CANCELLING"]
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks servers of this machine, never through a proxy."""


def ask_server(url: str, body: Any = None, *, timeout_s: float = 10.0) -> Any:
    """Ask a server of this machine: GET, or POST with a JSON body; return its JSON,
    or None for an empty answer.

    Raises:
        OSError: it does not answer, or not with a good status.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, login_headers())
    with _DIRECT.open(request, timeout=timeout_s) as answer:
        return json.loads(answer.read() or "null")


def login_headers() -> dict[str, str]:
    """Return the headers of a request to Prefect's API, with the login its own commands use."""
    headers = {"content-type": "application/json"}
    if login := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    elif key := os.environ.get("PREFECT_API_KEY"):
        headers["authorization"] = f"Bearer {key}"
    return headers


def crash_dead_runs(
    api: str, pools: Iterable[str], report: Callable[[str], None] = print
) -> list[str]:
    """Mark the open runs of these pools as crashed whose process is gone; return their ids.

    Call it while no worker of ours runs. Each of our workers is named as its pool is.

    Args:
        api: the address of Prefect's API.
        report: receives a sentence for each run that was marked, or left.
    """
    marked = []
    for run, other in find_dead_runs(api, pools, and_unbegun=True):
        if other is not None:
            report(
                f"run {run['name']} has no process here; it may be that of the worker "
                f"{other}, so it stays {run['state_name']}"
            )
            continue
        state = {
            "type": "CRASHED",
            "name": "Crashed",
            "message": "its process is gone, and so was the worker that started it",
        }
        ask_server(f"{api}/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
        report(f"run {run['name']} was marked as crashed: its worker was killed")
        marked.append(str(run["id"]))
    return marked


def find_dead_runs(
    api: str, pools: Iterable[str], *, and_unbegun: bool = False
) -> Iterator[tuple[Row, str | None]]:
    """Yield the open runs of these pools that have no process here.

    Each comes with another worker that was seen in its pool since it began, and may have it; None
    where there is none.

    Args:
        and_unbegun: also those that a worker took and told no process of; while a worker runs, it
            may be about to.
    """
    for pool in pools:
        wanted = {
            "flow_runs": {"state": {"type": {"any_": _OPEN_STATES}}},
            "work_pools": {"name": {"any_": [pool]}},
        }
        runs: list[Row] = ask_server(f"{api}/flow_runs/filter", wanted)
        if not runs:
            continue
        workers: list[Row] = ask_server(f"{api}/work_pools/{pool}/workers/filter", {})
        for run in runs:
            pid = run.get("infrastructure_pid")
            unbegun = not pid and run.get("state_type") == "PENDING"
            if not (and_unbegun if unbegun else pid and not _runs_flow(pid)):
                continue
            others = [
                worker["name"]
                for worker in workers
                if worker["name"] != pool
                and (worker["last_heartbeat_time"] or "") >= (run["start_time"] or run["created"])
            ]
            yield run, next(iter(others), None)


def _runs_flow(pid: str) -> bool:
    """Whether the process of this id is one of Prefect's; another program may have its number."""
    found = subprocess.run(
        ["ps", "-ww", "-o", "stat=,command=", "-p", pid.rpartition(":")[2]],
        capture_output=True,
        text=True,
    )
    shown = found.stdout.strip()
    return "prefect" in shown and not shown.startswith("Z")
