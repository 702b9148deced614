"""`vigorl serve` and a build's own server, with a real process in vLLM's place."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest

from flows.settings import BuildSettings, ServeSettings, TeacherSettings
from flows.settings_base import Problem
from flows.stages import build as stages
from flows.teachers import vllm as serving
from flows.teachers import vllm_command as serving_command
from flows.teachers.resolve import resolve
from mcts.teachers.base import Message, Request, TeacherUnavailable, TextPart
from mcts.teachers.local.teacher import checkpoint_identity
from mcts.teachers.openai_client import OpenAITeacher
from tests.support.fixtures import sat_rows, write_sat
from warehouse.query.run_query import query
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """A `vllm` beside a Python, a checkpoint, and where what it was started with is written."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/support/fake_vllm.py "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("VIGORL_VLLM", str(program.with_name("python")))
    monkeypatch.setenv("FAKE_VLLM_NOTE", str(tmp_path / "note.json"))
    monkeypatch.setenv("VIGORL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VIGORL_VLLM_ARGS", raising=False)
    checkpoint = tmp_path / "student"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text('{"model_type": "qwen3_vl"}')
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def note(folder, limit_s=20.0):
    """What the started server wrote down about itself."""
    end = time.monotonic() + limit_s
    while not (folder / "note.json").exists() and time.monotonic() < end:
        time.sleep(0.05)
    return json.loads((folder / "note.json").read_text())


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(folder, limit_s=6.0):
    """Whether server and engine end within the limit."""
    pids = [note(folder)[name] for name in ("server", "engine")]
    end = time.monotonic() + limit_s
    while any(map(running, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(running, pids))


def _signals():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests may run in a shell's background


def start_serve(folder, *options, how=""):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "flows.cli", "serve", str(folder / "student"), "--cpu"]
    command += ["--port", str(port), "--home", str(folder / "home"), *options]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"FAKE_VLLM": how}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=_signals,
    )  # fmt: skip


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_the_url_once_it_answers_and_ends_all_it_started_when_told(vllm, sign):
    serve = start_serve(vllm, how="slow")
    url = serve.stdout.readline().strip()
    serve.send_signal(signal.SIGHUP)
    with urllib.request.urlopen(f"{url}/v1/models") as answer:
        (card,) = json.load(answer)["data"]
    assert card["id"].startswith("student@")  # the name holds the hash of the weights
    began = time.monotonic()
    serve.send_signal(sign)
    _, said = serve.communicate(timeout=10)
    assert time.monotonic() - began < 5
    assert serve.returncode == 0 and gone(vllm, 0.5)
    assert "--space qwen3-vl --min-pixels 65536 --max-pixels 16777216" in said
    (log,) = (vllm / "home" / "logs").glob("serve-*.log")
    assert "INFO loading weights" in log.read_text() and str(log) in said


def test_a_server_that_does_not_listen_is_killed_with_its_engine(vllm):
    serve = start_serve(vllm, how="deaf")
    assert serve.stdout.readline().startswith("http://127.0.0.1:")
    serve.send_signal(signal.SIGINT)
    assert serve.wait(10) == 0 and gone(vllm, 0.5)


def test_a_server_does_not_outlive_a_killed_parent(vllm):
    serve = start_serve(vllm, how="deaf")
    serve.stdout.readline()
    serve.kill()
    serve.wait()
    assert gone(vllm, 8)


def test_a_server_that_dies_while_it_starts_tells_why_in_one_sentence(vllm):
    serve = start_serve(vllm, how="dies")
    printed, said = serve.communicate(timeout=30)
    assert serve.returncode == 2 and printed == ""
    last = said.splitlines()[-1]
    assert last.startswith("vigorl: vLLM ended while it started (status 1): INFO loading weights /")
    assert "no room for the weights / RuntimeError: engine failed (its log is " in last
    assert gone(vllm, 0.5)


def test_a_server_that_never_answers_is_given_up_and_ended(vllm, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "silent")
    settings = ServeSettings(
        model=str(vllm / "student"), cpu=True, timeout=0.5, home=str(vllm / "home")
    )
    with (
        pytest.raises(Problem, match=r"vLLM does not answer after 0.5 s \(--timeout\)"),
        serving.Server(settings) as server,
    ):
        server.wait()
    assert gone(vllm, 0.5)


def test_vllm_gets_the_flags_a_tree_search_wants_and_the_users_own_last(vllm, monkeypatch):
    monkeypatch.setenv("VIGORL_VLLM_ARGS", "--dtype float32")
    settings = ServeSettings(
        model="Qwen/Qwen2.5-VL-7B-Instruct", tensor_parallel=2, data_parallel=4, images=3, seed=7,
        context=9000, max_pixels=501760, extra=("--max-num-seqs", "64"),
    )  # fmt: skip
    line = serving_command.flags(settings, "qwen", 8123)
    assert line[:2] == ["serve", "Qwen/Qwen2.5-VL-7B-Instruct"]
    given = dict(pairwise(line))
    assert json.loads(given["--limit-mm-per-prompt"]) == {"image": 3, "video": 0}
    assert json.loads(given["--mm-processor-kwargs"]) == {"max_pixels": 501760}
    wanted = {"--port": "8123", "--served-model-name": "qwen", "--seed": "7",
              "--tensor-parallel-size": "2", "--data-parallel-size": "4", "--host": "127.0.0.1",
              "--max-model-len": "9000", "--generation-config": "vllm"}  # fmt: skip
    assert {key: given[key] for key in wanted} == wanted
    assert {"--enable-prefix-caching", "--enable-prompt-tokens-details"} <= set(line)
    assert line[-4:] == ["--dtype", "float32", "--max-num-seqs", "64"]
    assert "--max-model-len auto" in " ".join(
        serving_command.flags(ServeSettings(model=str(vllm / "student")), "s", 1)
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    program = serving_command.program()
    assert "HF_HUB_OFFLINE" not in serving_command.environment(settings, program)


def test_what_is_missing_is_a_sentence_before_anything_starts(vllm, monkeypatch):
    student = str(vllm / "student")
    monkeypatch.setattr(serving, "has_gpu", lambda: False)
    with pytest.raises(Problem, match=r"vLLM needs a GPU and this machine shows none: .*--cpu"):
        serving.Server(ServeSettings(model=student))
    with pytest.raises(Problem, match=r"neither a folder with a config\.json"):
        serving.Server(ServeSettings(model="./nowhere", cpu=True))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Problem, match=f"port {port} is taken"):
            serving.Server(ServeSettings(model=student, cpu=True, port=port))
    (vllm / "bin" / "vllm").unlink()
    with pytest.raises(Problem, match=r"VIGORL_VLLM=.* there is no vLLM"):
        serving.Server(ServeSettings(model=student, cpu=True))
    monkeypatch.delenv("VIGORL_VLLM")
    monkeypatch.setenv("PATH", str(vllm))
    monkeypatch.setattr(serving_command, "PROJECT", vllm)
    with pytest.raises(Problem, match="vLLM is not installed: `make vllm`"):
        resolve(TeacherSettings(teacher=f"vllm-cpu:{student}"))
    assert not (vllm / "note.json").exists()


def test_the_program_is_the_named_one_ours_or_the_one_on_the_path(vllm, monkeypatch):
    named = vllm / "bin" / "vllm"
    assert serving_command.program() == named, "beside the Python that is named"
    monkeypatch.setenv("VIGORL_VLLM", str(named))
    assert serving_command.program() == named
    monkeypatch.delenv("VIGORL_VLLM")
    monkeypatch.setattr(serving_command, "PROJECT", vllm)
    monkeypatch.setenv("PATH", str(named.parent))
    assert serving_command.program() == named
    ours = vllm / ".venv-vllm" / "bin" / "vllm"
    ours.parent.mkdir(parents=True)
    shutil.copy(named, ours)
    assert serving_command.program() == ours


def test_a_gpu_is_a_device_that_this_process_may_see(tmp_path, monkeypatch):
    monkeypatch.setattr(serving_command, "Path", lambda name: tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not serving_command.has_gpu()
    for name in ("nvidiactl", "null"):
        (tmp_path / name).touch()
    assert not serving_command.has_gpu()
    for name in ("nvidia0", "nvidia1", "kfd"):
        (tmp_path / name).touch()
        assert serving_command.has_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert serving_command.has_gpu()
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert not serving_command.has_gpu()


def test_a_server_for_cpus_and_of_a_folder_is_started_otherwise(vllm, monkeypatch):
    student, program = str(vllm / "student"), serving_command.program()
    for name in ("VLLM_CPU_KVCACHE_SPACE", "VLLM_NO_USAGE_STATS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cpu = ServeSettings(model=student, cpu=True, min_pixels=9)
    line = serving_command.flags(cpu, "s", 1)
    assert line[-3:] == ["--enforce-eager", "--block-size", "32"]
    assert line[line.index("--mm-processor-kwargs") + 1] == '{"min_pixels": 9}'
    env = serving_command.environment(cpu, program)
    assert (env["VLLM_CPU_KVCACHE_SPACE"], env["VLLM_NO_USAGE_STATS"]) == ("4", "1")
    assert env["PATH"].split(os.pathsep)[0] == str(program.parent)
    assert env["HF_HUB_OFFLINE"] == "1", "a folder needs no hub"
    gpu = ServeSettings(model=student)
    line = serving_command.flags(gpu, "s", 1)
    assert "--enforce-eager" not in line and "--mm-processor-kwargs" not in line
    assert "VLLM_CPU_KVCACHE_SPACE" not in serving_command.environment(gpu, program)
    for name in ("./away", "away", "student"):
        with pytest.raises(Problem, match="neither a folder with a config"):
            serving_command.checkpoint_folder(name)
    assert serving_command.checkpoint_folder("Qwen/Qwen2.5-VL-7B-Instruct") is None


def test_the_end_of_a_log_is_told_in_one_line(tmp_path):
    log = tmp_path / "serve.log"
    assert serving._tail(log, 3) == ""
    log.write_text("$ vllm serve\none\n\n two   words \nthree\nfour\n")
    assert serving._tail(log, 3) == "two words / three / four"
    assert serving._tail(log, 9) == "one / two words / three / four"
    log.write_text("x" * 2**14 + "\n" + "y" * 700 + "\n")
    assert serving._tail(log, 1) == "y" * 600


@pytest.fixture
def settings(vllm):
    """A small build that serves its own teacher."""
    home, student = str(vllm / "home"), vllm / "student"
    import_questions(Warehouse(home), "sat2", write_sat(vllm / "SAT_train.parquet", sat_rows(2)))
    return BuildSettings(task="sat2", teacher=f"vllm-cpu:{student}", simulations=2, home=home)


def test_a_build_starts_its_server_uses_it_and_stops_it(vllm, settings):
    asyncio.run(stages.build(settings))
    assert gone(vllm, 0.5)
    trees = query(Warehouse(settings.home), "SELECT model, status FROM trees").to_pylist()
    model = checkpoint_identity(vllm / "student")  # what the same folder is called in this process
    assert trees == [{"model": model, "status": "complete"}] * 2
    assert list((vllm / "home" / "logs").glob("serve-*.log"))


def test_a_build_that_fails_stops_its_server(vllm, settings):
    def failing(stage):
        async def step(*arguments):
            if stage.__name__ == "search_shard":
                assert running(note(vllm)["server"])
                raise RuntimeError("of ours")
            return await stage(*arguments)

        return step

    with pytest.raises(RuntimeError, match="of ours"):
        asyncio.run(stages.build(settings, step=failing))
    assert gone(vllm, 0.5)


async def test_a_build_told_to_stop_while_its_server_starts_leaves_none(vllm, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "silent")
    settings = TeacherSettings(teacher=f"vllm-cpu:{vllm / 'student'}")
    opening = asyncio.create_task(resolve(settings).teacher.open())
    await asyncio.to_thread(note, vllm)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert gone(vllm, 0.5)


async def test_a_build_whose_server_dies_while_it_starts_has_no_teacher(vllm, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "dies")
    with pytest.raises(TeacherUnavailable, match="no room for the weights"):
        await resolve(TeacherSettings(teacher=f"vllm-cpu:{vllm / 'student'}")).teacher.open()


async def test_a_server_that_dies_during_a_build_tells_why(vllm):
    settings = ServeSettings(model=str(vllm / "student"), cpu=True, home=str(vllm / "home"))
    teacher = serving.ServedTeacher(
        settings, lambda url, name: OpenAITeacher(url, name, retries=1, backoff_s=0.3)
    )
    await teacher.open()
    os.kill(note(vllm)["server"], signal.SIGKILL)
    request = Request((Message("user", (TextPart("?"),)),), 1, 0.0, 1.0, 9, (), 0)
    with pytest.raises(TeacherUnavailable, match=r"vLLM ended by itself \(status 137\): INFO load"):
        await teacher.complete(request, {})
    assert gone(vllm, 0.5)  # the engine as well
    await teacher.close()
