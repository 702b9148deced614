"""Trainings under Prefect: the same parameters, the chain of events, and what a run shows."""

from __future__ import annotations

import importlib
import inspect
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from flows.cli import train as cli_train
from flows.orchestration import events
from flows.orchestration.curves import curves
from flows.orchestration.training_process import _too_few, command
from flows.settings import Problem
from flows.stages.train import TrainSettings, run_training
from tests.support.project_files import ROOT
from tests.support.trained import warehouse_with_traces
from training.runs import Plan, open_run
from warehouse.models import Made, keep_model, list_models
from warehouse.storage.home import Warehouse

DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_command_deployment_and_settings_take_the_same(kind: str) -> None:
    flow = getattr(importlib.import_module(f"flows.train_{kind}"), f"train_{kind}")
    fields = set(TrainSettings.model_fields) - {"kind", "preflight"}
    fields -= {"task", "split", "limit"} if kind == "sft" else set()
    assert set(inspect.signature(flow.fn).parameters) - {"min_new_rows"} == fields
    options = set(inspect.signature(getattr(cli_train, kind)).parameters)
    assert options - {"preflight"} == fields


def waits_for(entrypoint: str) -> list[dict[str, Any]]:
    return [
        trigger
        for deployment in DEPLOYMENTS
        if deployment["entrypoint"].endswith(entrypoint)
        for trigger in deployment.get("triggers", [])
    ]


def test_a_version_sets_off_sft_sft_sets_off_grpo_and_both_an_evaluation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(
        events, "emit_event", lambda event, **rest: told.append({"event": event, **rest})
    )
    (sft,), (grpo,), (measure,) = map(waits_for, ("train_sft", "train_grpo", "evaluate_model"))
    version = type("V", (), {"name": "sat2-sft", "ref": "sat2-sft@v2", "n_rows": 9})()
    events.published(version)
    for kind in ("sft", "grpo"):
        events.trained(
            {"name": f"m-{kind}", "dataset": "d@v1", "recipe": json.dumps({"kind": kind})}
        )

    def fires(trigger: dict[str, Any], event: dict[str, Any]) -> bool:
        def alike(pattern: str, value: str | None) -> bool:
            return value is not None and (
                value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern
            )

        matches = trigger["match"].items()
        return event["event"] in trigger["expect"] and all(
            alike(pattern, event["resource"].get(label)) for label, pattern in matches
        )

    assert [[fires(t, e) for e in told] for t in (sft, grpo, measure)] == [
        [True, False, False], [False, True, False], [False, True, True],
    ]  # fmt: skip
    for trigger, event in ((sft, told[0]), (grpo, told[1]), (measure, told[2])):
        for value in trigger["parameters"].values():
            if str(value).startswith("{{ event.payload."):
                assert event["payload"][value.split(".")[2].rstrip(" }")]


def test_a_flow_runs_what_a_person_would_type() -> None:
    settings = TrainSettings.checked(
        kind="grpo", recipe="nano-grpo", task="sat2", limit=9, override=("steps=2",), home="/h"
    )
    _, *words = command(settings)
    assert words == [
        "-m", "flows.cli", "train", "grpo", "nano-grpo", "--task", "sat2", "--split", "train",
        "--limit", "9", "--home", "/h", "-o", "steps=2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "sft", "recipe": "nano-grpo", "dataset": "a"}, "is for `vigorl train grpo`"),
        ({"kind": "sft", "recipe": "nano-sft"}, "dataset: sft needs a data set version"),
        ({"kind": "sft", "recipe": "nano-sft", "limit": 0}, "limit: .*greater than or equal"),
    ],
)
def test_a_bad_training_is_a_sentence(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem, match=said):
        run_training(TrainSettings.checked(**fields))


def test_nothing_is_trained_before_enough_rows_are_new(tmp_path: Path) -> None:
    warehouse = warehouse_with_traces(tmp_path)
    settings = TrainSettings.checked(kind="sft", recipe="nano-sft", dataset="kept")
    assert _too_few(warehouse, settings, 1) is None, "nothing was trained on yet"
    said = _too_few(warehouse, settings, 10_000)
    assert said is not None and "10000 are wanted" in said
    trained_on(warehouse, tmp_path / "model")
    assert len(list_models(warehouse)) == 1
    assert "kept@v1 has 0 rows more" in (_too_few(warehouse, settings, 1) or "")


def trained_on(warehouse: Warehouse, folder: Path) -> None:
    """A model's row, as if it had been trained on kept@v1."""
    from mcts.coordinates import CoordinateSpace

    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    recipe = {"name": "nano-sft", "kind": "sft"}
    space = CoordinateSpace.qwen3_vl()
    keep_model(warehouse, folder, Made("m", None, "kept@v1", recipe, space, {}, "r"))


def test_curves_are_a_picture_of_what_was_logged() -> None:
    rows = [{"step": i, "loss": 1 / i, "reward": i / 9} for i in range(1, 9)]
    data = curves(rows)
    assert data is not None
    picture = Image.open(io.BytesIO(data))
    assert picture.size == (840, 200)
    assert (0x1F, 0x5F, 0xBF) in {colour for _, colour in picture.convert("RGB").getcolors(99999)}
    assert curves([{"step": 1, "loss": 1.0}]) is None


def test_only_the_first_of_several_processes_holds_the_run_and_keeps_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = Warehouse(str(tmp_path / "home"))
    plan = Plan("sft", {"name": "r"}, None, "d", "p")
    with open_run(warehouse, plan):
        monkeypatch.setenv("RANK", "1")
        with open_run(warehouse, plan) as other:
            assert other.keep(None, None, {}) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["fsdp", "zero3"])
def test_configurations_for_several_gpus_are_ones_that_accelerate_reads(name: str) -> None:
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
    from accelerate.utils import FullyShardedDataParallelPlugin

    path = ROOT / "training" / "accelerate" / f"{name}.yaml"
    assert path.read_text().startswith("# Untried")
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    assert config.num_processes == 8
    if name == "fsdp":
        known = set(inspect.signature(FullyShardedDataParallelPlugin).parameters)
        given = {key.removeprefix("fsdp_") for key in config.fsdp_config}
        renamed = {"version": "fsdp_version", "offload_params": "cpu_offload"}
        assert {renamed.get(key, key) for key in given} <= known
