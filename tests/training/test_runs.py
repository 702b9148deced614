"""A run's folder without a trainer: its key, its lock, whole checkpoints, metrics that go back."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.runs import (
    COMPLETE,
    Plan,
    Run,
    is_complete,
    limit_pixels,
    mark_complete,
    open_run,
    read_metrics,
    runs_folder,
)
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new

PLAN = Plan("sft", {"name": "mine", "seed": 3}, "kept@v1", "data", "parent", task="sat2")


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "home"))


@pytest.fixture
def run(warehouse: Warehouse, tmp_path: Path) -> Run:
    return Run(warehouse, PLAN, tmp_path, None)


def test_a_runs_key_hashes_what_decides_its_outcome_and_no_name() -> None:
    others = [
        replace(PLAN, kind="dpo"), replace(PLAN, recipe={"name": "mine", "seed": 4}),
        replace(PLAN, data="other"), replace(PLAN, parent="other"),
    ]  # fmt: skip
    assert len({PLAN.key, *(plan.key for plan in others)}) == 5 and len(PLAN.key) == 8
    for same in (replace(PLAN, name="named"), replace(PLAN, dataset="other@v2")):
        assert same.key == PLAN.key
    assert PLAN.model_name == f"mine-{PLAN.key}" and replace(PLAN, name="n").model_name == "n"


def checkpoint(run: Run, step: object, *files: str) -> Path:
    folder = run.checkpoints / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text(name * 9)
    return folder


def test_the_newest_whole_checkpoint_counts_and_half_written_ones_go(run: Run) -> None:
    assert run.checkpoint() is None
    for step in (9, 10, 100):
        mark_complete(checkpoint(run, step, "a", "b"))
    half = checkpoint(run, 200, "a")
    assert run.checkpoint() == run.checkpoints / "checkpoint-100" and not half.exists()
    (run.checkpoints / "checkpoint-100" / "b").write_text("torn")
    assert run.checkpoint() == run.checkpoints / "checkpoint-10"
    assert not (run.checkpoints / "checkpoint-100").exists()
    odd = checkpoint(run, "last", "a")
    mark_complete(odd)
    assert run.checkpoint() == run.checkpoints / "checkpoint-10", "a number is newer than none"


def test_another_process_of_a_training_deletes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = checkpoint(run, 5, "a")
    run.log({"step": 1})
    monkeypatch.setenv("RANK", "1")
    assert run.checkpoint() is None and half.exists()
    run.rewind(0)
    assert read_metrics(run.metrics_file) == [{"step": 1}]


def test_a_checkpoint_is_whole_with_every_file_in_its_size(run: Run) -> None:
    folder = checkpoint(run, 1, "a", "b")
    (folder / "more").mkdir()
    assert not is_complete(folder)
    mark_complete(folder)
    mark_complete(folder)  # what it says of itself is not counted
    assert is_complete(folder)
    assert json.loads((folder / COMPLETE).read_text()) == {"a": 9, "b": 9}
    (folder / "new").write_text("x")
    assert is_complete(folder)
    (folder / "a").unlink()
    assert not is_complete(folder)
    (folder / COMPLETE).write_text("{")
    assert not is_complete(folder)


def test_what_was_logged_behind_a_checkpoint_is_logged_again(run: Run) -> None:
    assert read_metrics(run.metrics_file) == []
    for step in range(4):
        run.log({"step": step, "loss": 1.5})
    run.log({"note": 1})
    with run.metrics_file.open("a") as file:
        file.write('{"step": 4, "lo')
    assert len(read_metrics(run.metrics_file)) == 5, "a torn line is skipped"
    run.rewind(2)
    assert [row.get("step") for row in read_metrics(run.metrics_file)] == [0, 1, 2, None]
    assert run.metrics_file.read_text().startswith('{"loss": 1.5, "step": 0}\n')
    run.rewind(0)
    assert [row.get("step") for row in read_metrics(run.metrics_file)] == [0, None]


def test_a_run_is_locked_and_recorded_once(warehouse: Warehouse) -> None:
    plan = replace(PLAN, question_ids=("q",))
    with open_run(warehouse, plan, {"more": 1}) as run:
        assert run.finished is None and run.run_id == f"train-sft-{plan.key}"
        assert run.folder == runs_folder(warehouse) / f"mine-{plan.key}-{plan.key}"
        run.begin()
        stored = json.loads((run.folder / "plan.json").read_text())
        assert stored["recipe"] == PLAN.recipe and stored["task"] == "sat2" and stored["revision"]
        sentence = f"mine-{plan.key} is being trained by another process"
        with pytest.raises(TrainingError, match=sentence), open_run(warehouse, plan):
            pass
        with open_run(warehouse, replace(plan, data="other")):
            pass  # another run
    with open_run(warehouse, plan, {"more": 1}) as again:
        again.begin()
    rows = query(warehouse, f"FROM runs WHERE run_id = '{run.run_id}'").to_pylist()
    params = json.loads(rows[0]["params"])
    assert (rows[0]["kind"], rows[0]["task"], params["more"]) == ("train-sft", "sat2", 1)
    assert "question_ids" not in params and params["dataset"] == "kept@v1"


def test_what_is_refused_before_it_begins_leaves_nothing(warehouse: Warehouse) -> None:
    def refused(begun: bool) -> Run:
        with suppress(TrainingError), open_run(warehouse, PLAN) as run:
            run.checkpoints.mkdir(exist_ok=True)
            if begun:
                run.begin()
            raise TrainingError("no")
        return run

    of_run = f"FROM runs WHERE run_id = '{refused(begun=False).run_id}'"
    assert not query(warehouse, of_run).num_rows
    assert [f.name for f in runs_folder(warehouse).iterdir() if f.suffix != ".lock"] == []
    refused(begun=True)
    went_on = refused(begun=False)
    assert query(warehouse, of_run).num_rows == 1 and went_on.checkpoints.is_dir()


def test_a_name_belongs_to_one_model(warehouse: Warehouse) -> None:
    def store(name: str, run_id: str) -> None:
        row = {"model_id": f"{name}@1", "name": name, "run_id": run_id, "path": "p", "recipe": "{}"}
        insert_new(warehouse, "models", [row])

    named = replace(PLAN, name="taken")
    store("taken-too", "other")
    with open_run(warehouse, named) as run:
        assert run.finished is None, "a name that another one begins with is free"
    store("taken", "other")
    sentence = "there is another model called taken: choose another --name"
    with pytest.raises(TrainingError, match=sentence), open_run(warehouse, named):
        pass
    again = replace(PLAN, name="done")
    store("done", f"train-sft-{again.key}")
    with open_run(warehouse, again) as run:
        assert run.finished is not None and run.finished["model_id"] == "done@1"


@pytest.mark.parametrize(
    ("settings", "most", "written"),
    [
        ({"max_pixels": 9, "size": {"longest_edge": 9, "a": 1}}, 4,
         {"max_pixels": 4, "size": {"longest_edge": 4, "a": 1}}),
        ({"max_pixels": 9}, 4, {"max_pixels": 4}),
        ({"max_pixels": 9}, None, {"max_pixels": 9}),
        ({"size": {"longest_edge": 9}}, 4, {"size": {"longest_edge": 4}}),
        ({"size": {"height": 9}}, 4, {"size": {"height": 9}}),  # it counts otherwise
        ({"max_pixels": 4, "size": {"longest_edge": 9}}, 4,
         {"max_pixels": 4, "size": {"longest_edge": 4}}),
    ],
)  # fmt: skip
def test_a_models_images_keep_the_pixels_it_was_trained_with(
    tmp_path: Path, settings: dict[str, object], most: int | None, written: dict[str, object]
) -> None:
    limit_pixels(tmp_path, most)  # without a file there is nothing to do
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(settings))
    whole = tmp_path / "processor_config.json"
    whole.write_text(json.dumps({"image_processor": settings, "other": 1}))
    limit_pixels(tmp_path, most)
    assert json.loads(path.read_text()) == written
    assert json.loads(whole.read_text()) == {"image_processor": written, "other": 1}


def test_a_name_is_trained_once_at_a_time_whatever_the_plan(warehouse: Warehouse) -> None:
    first = replace(PLAN, name="student")
    other = replace(first, recipe={"name": "mine", "seed": 4})
    with open_run(warehouse, first):
        told = "student is being trained by another process"
        with pytest.raises(TrainingError, match=told), open_run(warehouse, other):
            pytest.fail("both would end under one name")
        with open_run(warehouse, replace(other, name="another")):
            pass
    with open_run(warehouse, other):
        pass
