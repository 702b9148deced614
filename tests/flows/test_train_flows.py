"""Trainings under Prefect: the same parameters, the chain of events, and what a run shows."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.server.events.schemas.automations import EventTrigger, Posture
from prefect.server.events.schemas.events import ReceivedEvent

from flows.orchestration import events
from flows.orchestration.training_process import command, too_few_rows
from flows.settings import DpoSettings, GrpoSettings, PrmSettings, SftSettings, TrainSettings
from flows.settings_base import Problem
from flows.stages.train import train
from tests.flows.test_cli import run
from tests.support.project_files import ROOT
from tests.support.trained import warehouse_with_traces
from training.runs import Plan, open_run
from warehouse.models import ModelInfo, list_models, store_model
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import publish

DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


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
    emitted: list[dict[str, Any]] = []
    monkeypatch.setattr(
        events, "emit_event", lambda event, **rest: emitted.append({"event": event, **rest})
    )
    (sft,), (grpo,), (measure,) = map(waits_for, ("train_sft", "train_grpo", "evaluate_model"))
    version = type("V", (), {"name": "sat2-sft", "ref": "sat2-sft@v2", "n_rows": 9})()
    events.emit_published(version)
    for kind, dataset in (
        ("sft", "sat2-sft@v2"), ("grpo", "sat2-sft@v2"), ("prm", "sat2-sft@v2"),
        ("sft", "looks@v1"), ("grpo", None),
    ):  # fmt: skip
        recipe = json.dumps({"kind": kind})
        events.emit_trained({"name": f"m-{kind}", "dataset": dataset, "recipe": recipe})

    def fires(trigger: dict[str, Any], event: dict[str, Any]) -> bool:
        """Whether Prefect itself starts the deployment at this event."""
        posture = EventTrigger(posture=Posture.Reactive, threshold=1, within=timedelta(), **{
            name: trigger[name] for name in ("match", "expect")
        })  # fmt: skip
        received = ReceivedEvent(
            id=uuid4(), occurred=datetime.now(UTC), received=datetime.now(UTC),
            event=event["event"], resource=event["resource"], payload=event.get("payload", {}),
        )  # fmt: skip
        return bool(posture.covers(received))

    assert [[fires(t, e) for e in emitted] for t in (sft, grpo, measure)] == [
        [True, False, False, False, False, False],
        [False, True, False, False, False, False],
        [False, True, True, False, False, False],  # nor for a student of another task's version
    ]
    for trigger, event in ((sft, emitted[0]), (grpo, emitted[1]), (measure, emitted[2])):
        for value in trigger["parameters"].values():
            if str(value).startswith("{{ event.payload."):
                assert event["payload"][value.split(".")[2].rstrip(" }")]


def test_a_flow_runs_what_a_person_would_type() -> None:
    settings = GrpoSettings.checked(
        recipe="nano-grpo", task="sat2", limit=9, override=("steps=2",), home="/h"
    )
    _, *words = command(settings)
    assert words == [
        "-m", "flows.cli", "train", "grpo", "nano-grpo", "--home", "/h", "--task", "sat2",
        "--limit", "9", "-o", "steps=2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        (SftSettings, {"recipe": "nano-grpo", "dataset": "a"}, "is for `vigorl train grpo`"),
        (SftSettings, {"recipe": "nano-sft"}, "dataset: sft needs a dataset version"),
        (DpoSettings, {"recipe": "nano-sft", "dataset": "a"}, "is for `vigorl train sft`"),
        (DpoSettings, {"recipe": "nano-dpo"}, "dataset: dpo needs a dataset version"),
        (PrmSettings, {"recipe": "nano-dpo", "dataset": "a"}, "is for `vigorl train dpo`"),
        (PrmSettings, {"recipe": "nano-prm"}, "dataset: prm needs a dataset version"),
        (GrpoSettings, {"recipe": "nano-grpo", "limit": 0}, "limit: .*greater than or equal"),
        (GrpoSettings, {"recipe": "nano-grpo", "name": "My model"}, "name: .*pattern"),
    ],
)
def test_a_bad_training_is_a_sentence(
    kind: type[TrainSettings], fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Problem, match=sentence):
        train(kind.checked(**fields))


def test_nothing_is_trained_before_enough_rows_are_new(tmp_path: Path) -> None:
    warehouse = warehouse_with_traces(tmp_path)
    settings = SftSettings.checked(recipe="nano-sft", dataset="kept")
    assert too_few_rows(warehouse, settings, 1) is None, "nothing was trained on yet"
    said = too_few_rows(warehouse, settings, 10_000)
    assert said is not None and "10000 are wanted" in said
    trained_on(warehouse, tmp_path / "model")
    assert len(list_models(warehouse)) == 1
    assert "kept@v1 has 0 rows more" in (too_few_rows(warehouse, settings, 1) or "")
    another = SftSettings.checked(recipe="nano-sft-answers", dataset="kept")
    assert too_few_rows(warehouse, another, 1) is None, "no model was trained so"
    (tmp_path / "nano-sft.yaml").write_text("like: nano-sft\nabout: mine\n")
    mine = SftSettings.checked(recipe=str(tmp_path / "nano-sft.yaml"), dataset="kept")
    assert "0 rows more" in (too_few_rows(warehouse, mine, 1) or ""), "by its name, not its path"
    second = publish(warehouse, "kept", "SELECT trace_id FROM traces")
    shutil.rmtree(Path(warehouse.root) / "datasets" / "kept" / "v1")  # as after a deletion by force
    assert too_few_rows(warehouse, settings, 1) is None
    assert f"{second.n_rows} rows more" in (too_few_rows(warehouse, settings, 10_000) or "")


def trained_on(warehouse: Warehouse, folder: Path) -> None:
    """A model's row, as if it had been trained on kept@v1."""
    from mcts.coordinates import CoordinateSpace

    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    recipe = {"name": "nano-sft", "kind": "sft"}
    space = CoordinateSpace.qwen3_vl()
    store_model(warehouse, folder, ModelInfo("m", None, "kept@v1", recipe, space, {}, "r"))


def test_only_the_first_of_several_processes_holds_the_run_and_keeps_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = Warehouse(str(tmp_path / "home"))
    plan = Plan("sft", {"name": "r"}, None, "d", "p")
    with open_run(warehouse, plan):
        monkeypatch.setenv("RANK", "1")
        with open_run(warehouse, plan) as other:
            assert other.store_model(None, None, {}) == {}  # type: ignore[arg-type]


def test_a_trained_models_origin_is_asked_for_by_what_names_nothing_else(
    tmp_path, capsys, monkeypatch
):
    row = {"name": "looks", "model_id": "looks@f413"}  # `looks` may be a dataset, too
    monkeypatch.setattr("flows.stages.train.train", lambda *_, **__: row)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert run("train", "sft", "nano-sft", "--dataset", "looks@v1", home=tmp_path) == 0
    assert capsys.readouterr().err.endswith("where it comes from: vigorl lineage looks@f413\n")
