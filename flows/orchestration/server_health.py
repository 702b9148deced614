"""Whether Prefect is well: its server, workers, deployments, and runs that nobody has.

    for diagnosis in check_prefect(home): ...        # a part of `vigorl doctor`

Asks the server by its REST API and changes nothing. Prefect itself is not imported, which would
take seconds and write to its folder.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from flows.orchestration.dead_runs import find_dead_runs, login_headers
from flows.orchestration.local_server import (
    PROCESSES,
    PROJECT,
    WORKERS,
    running_processes,
    server_address,
    state_folder,
)
from flows.stages.doctor.checkup import Diagnosis
from flows.stages.doctor.machine import clock_diagnosis
from flows.teachers.vllm_command import has_gpu
from warehouse.tables.schema import Row

_ANSWER_S = 5.0
_LOCAL = ("127.0.0.1", "localhost", "::1")
_GOES_UP = "vigorl up"


def check_prefect(home: str | None) -> Iterator[Diagnosis]:
    """Look at what `vigorl up` started, or at the server that PREFECT_API_URL names."""
    state = state_folder(home)
    running = running_processes(state)
    dead = [name for name in PROCESSES if (state / f"{name}.json").exists()]
    for name in dead:
        if name not in running:
            sentence = f"the {name} that vigorl up started is gone; its log is {state}/{name}.log"
            yield Diagnosis("Prefect", "problem", sentence, _GOES_UP)
    api = server_address(home)
    if api is None:
        if "server" not in dead:
            yield Diagnosis("Prefect", "note", "no server was started here", _GOES_UP)
        return
    try:
        version, date = _ask(f"{api}/admin/version")
    except urllib.error.HTTPError as error:
        yield Diagnosis(
            "Prefect", "problem", f"{api} answers HTTP {error.code}",
            "export PREFECT_API_AUTH_STRING=USER:PASSWORD, or PREFECT_API_KEY=..."
            if error.code in (401, 403) else "export PREFECT_API_URL=http://HOST:4200/api",
        )  # fmt: skip
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        sentence = f"no server answers at {api} ({reason})"
        remedy = _GOES_UP if _is_local(api) else "export PREFECT_API_URL=http://HOST:4200/api"
        yield Diagnosis("Prefect", "problem", sentence, remedy)
        return
    yield _versions(api, version)
    if not _is_local(api) and date:
        yield clock_diagnosis(time.time() - parsedate_to_datetime(date).timestamp(), api)
    yield from _workers(api)
    yield from _deployments(api)
    if _is_local(api):
        yield _runs(api)


def _is_local(api: str) -> bool:
    return urlsplit(api).hostname in _LOCAL


def _ask(url: str, body: Any = None) -> tuple[Any, str]:
    """Return what the server answers, and its date."""
    data = None if body is None else json.dumps(body).encode()
    # A server of this machine is never behind a proxy.
    proxies = [urllib.request.ProxyHandler({})] if _is_local(url) else []
    opener = urllib.request.build_opener(*proxies)
    request = urllib.request.Request(url, data, login_headers())
    with opener.open(request, timeout=_ANSWER_S) as answer:
        return json.load(answer), answer.headers.get("date", "")


def _versions(api: str, server: str) -> Diagnosis:
    ours = metadata.version("prefect")
    if server == ours:
        return Diagnosis("Prefect", "ok", f"{server} at {api}")
    sentence = f"the server at {api} is Prefect {server}, this is {ours}"
    return Diagnosis("Prefect", "problem", sentence, "vigorl down && vigorl up")


def _workers(api: str) -> Iterator[Diagnosis]:
    for name, pool in WORKERS.items():
        try:
            found, _ = _ask(f"{api}/work_pools/{pool}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            yield Diagnosis("workers", "problem", f"there is no work pool {pool}", _GOES_UP)
            continue
        if found["is_paused"]:
            remedy = f"prefect work-pool resume {pool}"
            yield Diagnosis("workers", "problem", f"the work pool {pool} is paused", remedy)
        workers, _ = _ask(f"{api}/work_pools/{pool}/workers/filter", {})
        alive = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
        late, _ = _ask(
            f"{api}/flow_runs/count",
            {
                "flow_runs": {"state": {"name": {"any_": ["Late"]}}},
                "work_pools": {"name": {"any_": [pool]}},
            },
        )
        wait = f", and {late} runs wait for one" if late else ""
        if alive:
            yield Diagnosis("workers", "ok", f"{', '.join(alive)} serves the pool {pool}")
        elif name == "worker" or has_gpu() or late:
            yield Diagnosis(
                "workers", "problem", f"no worker serves the pool {pool}{wait}", _GOES_UP
            )


def _deployments(api: str) -> Iterator[Diagnosis]:
    """Compare the deployments that were applied with those of `prefect.yaml`."""
    path = PROJECT / "prefect.yaml"
    if not path.is_file():
        return
    wanted = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
    applied: dict[tuple[str, str], Row] = {
        (row["entrypoint"], row["name"]): row for row in _ask(f"{api}/deployments/filter", {})[0]
    }
    missing, differing, elsewhere = [], [], set()
    for stated in wanted:
        name = f"{stated['entrypoint'].rpartition('.')[2].replace('_', '-')}/{stated['name']}"
        row = applied.get((stated["entrypoint"], stated["name"]))
        if row is None:
            missing.append(name)
            continue
        if row["parameters"] != stated.get("parameters", {}):
            differing.append(name)
        elsewhere |= _folders(row) - {str(PROJECT)}
    for names, what in ((missing, "are not applied"), (differing, "were applied otherwise")):
        if names:
            sentence = f"{', '.join(names)} of prefect.yaml {what}"
            yield Diagnosis("deployments", "problem", sentence, _GOES_UP)
    for folder in sorted(elsewhere):
        sentence = f"runs begin in {folder}, and this is {PROJECT}"
        yield Diagnosis("deployments", "problem", sentence, _GOES_UP)
    if not (missing or differing or elsewhere):
        yield Diagnosis("deployments", "ok", f"all {len(wanted)} of prefect.yaml are applied")


def _folders(row: Row) -> set[str]:
    """Return where runs of a deployment begin, as far as it says."""
    steps = [step for step in row.get("pull_steps") or () if isinstance(step, dict)]
    return {
        str(Path(inputs["directory"]))
        for step in steps
        for inputs in step.values()
        if isinstance(inputs, dict) and "directory" in inputs
    }


def _runs(api: str) -> Diagnosis:
    dead = [run["name"] for run, other in find_dead_runs(api, WORKERS.values()) if other is None]
    if not dead:
        return Diagnosis("runs", "ok", "none is marked as running whose process is gone")
    sentence = f"{', '.join(dead)}: marked as running, and the process is gone"
    return Diagnosis("runs", "problem", sentence, _GOES_UP)
