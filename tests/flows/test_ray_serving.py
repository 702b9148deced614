"""Servers on a Ray cluster: found in the warehouse, replaced when lost, ended with all else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.settings import ServeSettings, TeacherSettings
from flows.settings_base import Problem
from flows.teachers import ray_replicas
from flows.teachers.resolve import resolve
from flows.teachers.served import forget_servers, note_servers, served_urls
from mcts.teachers.base import Message, Request, TeacherUnavailable, TextPart
from tests.support.stub_server import StubServer
from warehouse.storage.home import Warehouse

ROOT = Path(__file__).resolve().parents[2]


def ask(tree):
    return Request((Message("user", (TextPart(f"tree {tree}"),)),), 1, 1.0, 1.0, 100, (), 1)


def settings(home):
    return TeacherSettings.checked(teacher="served:student", space="qwen3-vl", home=str(home))


async def test_a_teacher_learns_where_servers_are_when_one_is_lost(tmp_path):
    warehouse = Warehouse(str(tmp_path))
    with pytest.raises(Problem, match="no servers of 'student' are noted in the warehouse"):
        resolve(settings(tmp_path))
    with StubServer() as first, StubServer() as second:
        note_servers(warehouse, "student", "stub", [first.url])
        teacher = resolve(settings(tmp_path)).teacher
        teacher._retry_s = 0.0
        await teacher.complete(ask(0), {})
        first.stop()
        with pytest.raises(TeacherUnavailable):
            await teacher.complete(ask(1), {})
        note_servers(warehouse, "student", "stub", [second.url])
        for tree in range(3):
            await teacher.complete(ask(tree), {})
        assert second.request_count() == 3
        assert teacher.ledger.requests >= 4, "what the lost one answered still counts"
        await teacher.close()
    forget_servers(warehouse, "student")
    assert served_urls(warehouse, "student") == []


async def test_a_server_of_another_model_is_not_asked(tmp_path):
    warehouse = Warehouse(str(tmp_path))
    with StubServer() as first, StubServer(model="another") as second:
        note_servers(warehouse, "student", "stub", [first.url])
        teacher = resolve(settings(tmp_path)).teacher
        teacher._retry_s = 0.0
        await teacher.complete(ask(0), {})
        first.stop()
        note_servers(warehouse, "student", "another", [second.url])
        for tree in range(2):
            with pytest.raises(TeacherUnavailable):
                await teacher.complete(ask(tree), {})
        assert second.request_count() == 0
        await teacher.close()


def test_who_ends_removes_no_note_of_another(tmp_path):
    warehouse = Warehouse(str(tmp_path))
    note_servers(warehouse, "qwen", "m", ["http://old:1"], "first")
    note_servers(warehouse, "qwen", "m", ["http://new:1"], "second")
    forget_servers(warehouse, "qwen", "first")
    assert served_urls(warehouse, "qwen") == ["http://new:1"]
    forget_servers(warehouse, "qwen", "second")
    assert served_urls(warehouse, "qwen") == []


def test_an_address_that_cannot_be_noted_ends_no_server_and_is_tried_again(tmp_path, monkeypatch):
    said, away = [], [False]

    def note(*given):
        if away[0]:
            raise OSError(28, "No space left on device", "/warehouse")
        note_servers(*given)

    class Ray:
        """One actor, that answers at once."""

        exceptions = SimpleNamespace(RayActorError=OSError)
        url, killed = "http://a:1", False

        def remote(self, **options):
            actor = SimpleNamespace(address=SimpleNamespace(remote=lambda: "asked"))
            return lambda cls: SimpleNamespace(remote=lambda given: actor)

        def wait(self, asked, timeout):
            return asked, []

        def get(self, asked):
            return self.url, "m", ""

        def kill(self, actor):
            self.killed = True

        def shutdown(self):
            pass

    ray, warehouse = Ray(), Warehouse(str(tmp_path))
    monkeypatch.setattr(ray_replicas, "join_ray", lambda *given, **options: ray)
    monkeypatch.setattr(ray_replicas, "note_servers", note)
    given = ServeSettings.checked(model="org/model", ray=True, home=str(tmp_path))
    servers = ray_replicas.RayServers(given, "qwen", said.append)
    servers.wait()
    away[0], ray.url = True, "http://b:1"
    servers.look()
    servers.look()
    (failed,) = [sentence for sentence in said if "noted" in sentence]
    assert "/warehouse: the disk is full" in failed and not ray.killed
    away[0] = False
    servers.look()
    assert served_urls(warehouse, "qwen") == ["http://b:1"]
    servers.stop()
    assert served_urls(warehouse, "qwen") == [] and ray.killed


def test_several_servers_want_a_cluster():
    with pytest.raises(Problem, match="replicas: several servers are started with --ray"):
        ServeSettings.checked(model="org/model", replicas=2)


# ---- on a cluster --------------------------------------------------------------------------------


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """A `vllm` beside a Python that notes each start, and a checkpoint."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nFAKE_VLLM_NOTE={tmp_path}/note-$$.json "
        f'exec {sys.executable} {ROOT}/tests/support/fake_vllm.py "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("VIGORL_VLLM", str(program.with_name("python")))
    monkeypatch.delenv("VIGORL_VLLM_ARGS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    checkpoint = tmp_path / "student"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text('{"model_type": "qwen3_vl"}')
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def start_serve(folder, how=""):
    command = [sys.executable, "-m", "flows.cli", "serve", str(folder / "student"), "--cpu"]
    command += ["--name", "student", "--ray", "--replicas", "2", "--home", str(folder / "home")]
    return subprocess.Popen(
        command, cwd=ROOT, text=True,
        # Ray gives up after half a minute on a machine that does other work.
        env=os.environ | {"FAKE_VLLM": how, "RAY_raylet_start_wait_time_s": "240"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def server_pids(folder):
    """Process ids of the servers that were ever started, by their port."""
    found = {}
    for path in folder.glob("note-*.json"):
        pid = int(path.stem.rpartition("-")[2])
        with path.open() as file:
            arguments = json.load(file)["arguments"]
        found[arguments[arguments.index("--port") + 1]] = pid
    return found


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(holds, limit_s=240.0):
    end = time.monotonic() + limit_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return holds()


async def test_a_lost_server_is_replaced_and_its_trees_move(vllm):
    pytest.importorskip("ray")
    serve = start_serve(vllm)
    warehouse = Warehouse(str(vllm / "home"))
    try:
        urls = serve.stdout.readline().strip().split(",")
        assert serve.poll() is None, serve.stderr.read()
        assert len(urls) == 2 and served_urls(warehouse, "student") == urls
        teacher = resolve(settings(vllm / "home")).teacher
        teacher._retry_s = 0.0
        for tree in range(16):
            await teacher.complete(ask(tree), {})
        asked = {r.teacher.url: r.teacher.ledger.requests for r in teacher._replicas}
        assert set(asked) == set(urls) and all(asked.values())
        os.kill(server_pids(vllm)[urls[0].rpartition(":")[2]], signal.SIGKILL)
        for tree in range(16):
            await teacher.complete(ask(tree), {})
        assert wait_for(lambda: urls[0] not in served_urls(warehouse, "student"))
        (new,) = set(served_urls(warehouse, "student")) - set(urls)
        os.kill(server_pids(vllm)[urls[1].rpartition(":")[2]], signal.SIGKILL)
        for tree in range(16):
            await teacher.complete(ask(tree), {})
        (found,) = (r for r in teacher._replicas if r.teacher.url == new)
        assert found.teacher.ledger.requests >= 16, "the build asks the one that came later"
        await teacher.close()
    finally:
        serve.send_signal(signal.SIGTERM)
        _, said = serve.communicate(timeout=120)
    assert serve.returncode == 0, said
    assert wait_for(lambda: not any(map(running, server_pids(vllm).values())), 20)
    assert served_urls(warehouse, "student") == []


def test_what_a_server_said_when_it_did_not_start_is_told(vllm):
    pytest.importorskip("ray")
    serve = start_serve(vllm, how="dies")
    printed, said = serve.communicate(timeout=400)
    assert serve.returncode != 0 and printed == ""
    assert "vLLM ended while it started (status 1)" in said and "engine failed" in said


def test_without_ray_one_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    given = ServeSettings.checked(model="org/model", ray=True, home=str(tmp_path))
    with pytest.raises(Problem, match=r"pip install 'vigorl\[ray\]'"):
        ray_replicas.RayServers(given, "model")
