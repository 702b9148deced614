"""Several processes that train one student: what they are told, and two nodes of which one dies."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.project_files import ROOT
from tests.support.trained import SFT, logged, sft, warehouse_with_traces
from training.errors import TrainingError
from training.recipes import load_recipe
from training.runs import read_metrics
from training.sft import train_sft
from training.trainers import _sharding
from warehouse.models import list_models
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import scan

# ---- what they are told -------------------------------------------------------------------------


@pytest.fixture
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "16")


def test_one_process_holds_the_whole_model_whatever_the_recipe_says() -> None:
    assert _sharding(sft("sharding=fsdp"), gpu=True) == {}


@pytest.mark.usefixtures("sixteen")
def test_each_of_several_processes_holds_the_whole_model_unless_the_recipe_says_otherwise() -> None:
    assert _sharding(sft(), gpu=True) == {}


@pytest.mark.usefixtures("sixteen")
def test_deepspeed_shards_all_three_stages_and_gathers_what_is_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there: list[Any] = [None]
    monkeypatch.setattr("training.trainers.importlib.util.find_spec", lambda name: there[0])
    recipe = sft("sharding=zero3")
    with pytest.raises(TrainingError, match="sharding: zero3 is DeepSpeed's: pip install deepsp"):
        _sharding(recipe, gpu=True)
    there[0] = "found"
    config = _sharding(recipe, gpu=True)["deepspeed"]
    assert config["zero_optimization"] == {
        "stage": 3, "stage3_gather_16bit_weights_on_model_save": True,
    }  # fmt: skip


@pytest.mark.usefixtures("sixteen")
def test_processors_do_not_shard() -> None:
    with pytest.raises(TrainingError, match="sharding: fsdp needs GPUs"):
        _sharding(sft("sharding=fsdp"), gpu=False)


@pytest.mark.parametrize(
    ("recipe", "given", "sentence"),
    [
        ("nano-sft", ["lora.rank=4"], "sharding: .*lora is merged where each process holds the"),
        ("nano-grpo", ["engine=local"], "engine: .*local samples where each process holds the"),
    ],
)
def test_what_needs_whole_weights_is_not_sharded(
    recipe: str, given: list[str], sentence: str
) -> None:
    with pytest.raises(TrainingError, match=sentence):
        load_recipe(recipe, [*given, "sharding=fsdp"])


def test_how_weights_are_held_is_no_part_of_a_runs_identity() -> None:
    assert sft("sharding=zero3").settings() == sft().settings()


# ---- two nodes ----------------------------------------------------------------------------------

STEPS = 12
PATIENCE_S = 1200
GIVEN = ("save_every=4", f"steps={STEPS}", "trackers=[]", "seed=5")


class Node:
    """One of two nodes: torchrun, and the process that it starts."""

    def __init__(self, rank: int, port: int, home: str, name: str) -> None:
        torchrun = (
            *("--nnodes", "2", "--node-rank", rank, "--nproc-per-node", "1"),
            *("--master-addr", "127.0.0.1", "--master-port", port, "-m", "flows.cli"),
        )
        recipe = ("nano-sft", "--dataset", "kept@v1", "--name", name, "--home", home)
        overrides = [word for field in (*SFT, *GIVEN) for word in ("-o", field)]
        words = ("torch.distributed.run", *torchrun, "train", "sft", *recipe, *overrides)
        self.process = subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def kill(self) -> None:
        """End all its processes at once, as a machine that is lost does."""
        agent = psutil.Process(self.process.pid)
        for process in (*agent.children(recursive=True), agent):
            process.kill()

    def end(self) -> tuple[int, str]:
        """Wait for its end; its exit status and what it printed."""
        printed, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, printed


@contextmanager
def two_nodes(*homes: str, name: str) -> Iterator[list[Node]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nodes = [Node(rank, port, home, name) for rank, home in enumerate(homes)]
    try:
        yield nodes
    finally:
        for node in nodes:
            if node.process.poll() is None:
                node.kill()


def wait_for(nodes: list[Node], found: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < end
        assert all(node.process.poll() is None for node in nodes), [n.end() for n in nodes]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_with_traces(tmp_path_factory.mktemp("made"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_nodes_go_on_from_a_checkpoint_when_either_is_lost(made: Warehouse) -> None:
    def steps() -> list[int]:
        files = (Path(made.root) / "training").glob("pair-*/metrics.jsonl")
        return [row["step"] for file in files for row in read_metrics(file) if "loss" in row]

    for lost, step in ((1, 5), (0, 9)):
        with two_nodes(made.root, made.root, name="pair") as nodes:
            wait_for(nodes, lambda step=step: step in steps())
            nodes[lost].kill()
            status, printed = nodes[1 - lost].end()
            assert status and "the same command on each node goes on" in printed, printed
    with two_nodes(made.root, made.root, name="pair") as nodes:
        ended = [node.end() for node in nodes]
    assert [status for status, _ in ended] == [0, 0], ended
    assert ended[0][1].count("going on after step 8") == 1 and "going on" not in ended[1][1]
    assert steps() == list(range(1, STEPS + 1))
    (row,) = list_models(made)
    assert json.loads(row["metrics"])["steps"] == STEPS
    runs = scan(made, "runs").to_pylist()
    assert [run["run_id"] for run in runs].count(row["run_id"]) == 1

    alone = train_sft(made, sft(*GIVEN), "kept@v1", name="alone")
    assert alone is not None
    ours, theirs = (
        [row["loss"] for row in logged(made, model) if "loss" in row] for model in (row, alone)
    )
    assert ours == pytest.approx(theirs, abs=2e-3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nodes_that_share_no_folder_are_told_so(made: Warehouse, tmp_path: Path) -> None:
    apart = tmp_path / "apart"
    shutil.copytree(made.root, apart)
    with two_nodes(made.root, str(apart), name="apart") as nodes:
        for status, printed in (node.end() for node in nodes):
            assert status and "share that folder between the nodes" in printed
