"""What keeps retraining going unattended: Prefect on PostgreSQL, failures that are told, and a
whole cycle on an object store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flows.stages.retrain.cycle import Cycle
from tests.flows.test_cli import run
from tests.flows.test_local_server import Server, eventually
from tests.flows.test_retrain import SMALL
from tests.support.fixtures import sat_rows, write_sat
from tests.support.postgres import postgres_program, postgres_server
from tests.support.project_files import ROOT
from tests.support.receivers import Receiver
from tests.support.stub_server import StubServer
from tests.warehouse.test_objects import s3  # noqa: F401
from warehouse.registry import history
from warehouse.storage.home import Warehouse

pytestmark = pytest.mark.slow

DATABASE = "PREFECT_API_DATABASE_CONNECTION_URL"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What `vigorl up` starts, with its state in PostgreSQL where that is installed."""
    started = Server(tmp_path_factory.mktemp("operations") / "home")
    with ExitStack() as stack:
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        if postgres_program("initdb"):
            patched.setenv(DATABASE, stack.enter_context(postgres_server()))
        stack.callback(started.vigorl, "down")
        began = started.vigorl("up", "--port", started.port)
        assert began.returncode == 0, began.stderr + began.stdout
        yield started


def begin(server: Server, **parameters: object) -> str:
    """Start a run of `retrain/sat2`; its id."""
    found = server.ask(
        f"/deployments/{server.deployment('retrain/sat2')}/create_flow_run",
        {"parameters": {"task": "sat2", "home": str(server.home), **parameters}},
    )
    return str(found["id"])


@pytest.mark.skipif(not postgres_program("initdb"), reason="PostgreSQL is not installed")
def test_prefect_keeps_its_state_in_postgresql_and_doctor_finds_all_well(server: Server) -> None:
    psql = [str(postgres_program("psql")), "-At", "-c", "SELECT count(*) FROM deployment"]
    address = os.environ[DATABASE].replace("+asyncpg", "")
    counted = subprocess.run([*psql, address], capture_output=True, text=True, check=True)
    deployments = server.ask("/deployments/filter", {})
    assert int(counted.stdout) == len(deployments) > 10
    assert not list(server.state.glob("*.db"))
    examined = server.vigorl("doctor", "--json")
    found = {check["subject"]: check for check in json.loads(examined.stdout)["checks"]}
    for subject in ("Prefect", "workers", "deployments", "runs"):
        assert found[subject]["state"] == "ok", found[subject]


def test_a_run_of_retraining_that_fails_or_is_killed_is_told(server: Server) -> None:
    with Receiver() as receiver:
        told = subprocess.run(
            [
                *(sys.executable, "-m", "flows.orchestration.notifications", "--test"),
                *("--webhook", receiver.webhook),
                *("--email", f"mailto://{receiver.smtp}?from=a@example.com&to=team@example.com"),
            ],
            env={**os.environ, "PREFECT_API_URL": server.api}, cwd=ROOT, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        assert "a run that fails is told to: vigorl-webhook, vigorl-email" in told.stdout
        assert len(receiver.called) == len(receiver.mail) == 1

        # A task without questions for the gate fails ...
        failed = begin(server, task="vstar")
        eventually(lambda: len(receiver.called) > 1, 600)
        assert receiver.called[1]["flow"] == "retrain" and receiver.called[1]["state"] == "Failed"
        assert failed in receiver.called[1]["url"]
        eventually(lambda: len(receiver.mail) > 1, 600)
        assert "Subject: retrain/sat2: Failed" in receiver.mail[1]

        # ... and one whose process is killed has crashed.
        killed = begin(server)
        process = eventually(lambda: server.ask(f"/flow_runs/{killed}")["infrastructure_pid"], 600)
        os.kill(int(process), signal.SIGKILL)
        eventually(lambda: len(receiver.called) > 2, 600)
        assert receiver.called[2]["state"] == "Crashed" and killed in receiver.called[2]["url"]


def test_a_silent_run_is_ended_by_an_automation_of_prefect(server: Server) -> None:
    automations = {found["name"]: found for found in server.ask("/automations/filter", {})}
    silent = automations["vigorl: a run went silent"]
    assert silent["enabled"] and silent["actions"][0]["state"] == "CRASHED"
    assert silent["trigger"]["posture"] == "Proactive"
    assert silent["trigger"]["after"] == ["prefect.flow-run.heartbeat"]


def test_a_whole_cycle_on_an_object_store(
    s3: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": s3, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="retraining")
    home = "s3://retraining/home"
    rows = sat_rows(22)
    with StubServer() as teacher:
        options = ("--teacher", teacher.url, "--space", "qwen3-vl", "--simulations", 6)
        path = write_sat(tmp_path / "SAT_train.parquet", rows[:6])
        assert run("import", "sat2", path, home=home) == 0
        assert run("build", "sat2", *options, home=home) == 0
        path = write_sat(tmp_path / "SAT_gate.parquet", rows[10:])
        assert run("import", "sat2", path, "--split", "gate", home=home) == 0
        assert run(*SMALL, home=home) == 0
    warehouse = Warehouse(home)
    (decision,) = history(warehouse, "sat2")
    assert decision["outcome"] == "refused"
    gate = Cycle(warehouse, "sat2", 1).outcome("gate")
    assert gate is not None and gate["gain"]["n"] == 12
    capsys.readouterr()
    assert run("doctor", home=home) == 0
    said = capsys.readouterr().out
    assert "6 questions" not in said and "18 questions, 6 trees" in said
    assert "of the object store's" in said and "sat2: no cycle is open" in said
