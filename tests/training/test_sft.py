"""SFT on the embedded student: what is learned, what stays, what is kept of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trackio.sqlite_storage import SQLiteStorage

from mcts.teachers.checkpoints import prompt_style
from mcts.teachers.local.teacher import checkpoint_identity
from tests.support.trained import logged, publish_dialogues, sft, warehouse_with_traces
from training.errors import TrainingError
from training.examples import sft_examples
from training.run_training import prepare_student
from training.runs import Plan, open_run
from training.sft import train_sft
from training.students import load_model, open_student
from training.trainers import TrainingReporter, sft_trainer
from vigorl_nano import BASE
from warehouse.lineage.lineage import Walker
from warehouse.models import find_model, open_model
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import open_version, resolve


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    warehouse = warehouse_with_traces(tmp_path_factory.mktemp("made"))
    publish_dialogues(warehouse)
    return warehouse


@pytest.fixture(scope="module")
def row(made: Warehouse) -> dict[str, Any]:
    """A student after three steps."""
    found = train_sft(made, sft("steps=3"), "kept")
    assert found is not None
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize("style", ["grounded", "ungrounded", "answer_only"])
def test_only_the_assistants_tokens_are_learned_token_by_token(made: Warehouse, style: str) -> None:
    recipe = sft(f"response_style={style}", "name=mask")
    version = resolve(made, "kept")
    with open_student(made, "nano-base") as found, open_version(made, version) as folder:
        student = prepare_student(found, recipe)
        examples = sft_examples(made, folder, version.ref, student, 3)
        model, processor = load_model(student)
        plan = Plan("sft", recipe.settings(), version.ref, style, found.model_id)
        with open_run(made, plan) as run:
            trainer = sft_trainer(run, recipe, model, processor, examples, TrainingReporter())
            dataset = examples.dataset()
            some = [dataset[i] for i in range(len(dataset))]
            batch = trainer.data_collator(some)
    tokenizer = processor.tokenizer
    assert len(some) == len(examples.rows) > 1
    for i, example in enumerate(some):
        ids, labels = batch["input_ids"][i].tolist(), batch["labels"][i].tolist()
        answer = example["messages"][-1]["content"]
        wanted = tokenizer.encode(f"{answer}<|im_end|>", add_special_tokens=False)
        prompt = tokenizer.apply_chat_template(
            [{"role": m["role"], "content": m["content"]} for m in example["messages"][:-1]],
            add_generation_prompt=True, tokenize=False,
        )  # fmt: skip
        pads = 49 * len(example["image_ids"]) + 2 * len(example["image_ids"])
        start = len(tokenizer.encode(prompt, add_special_tokens=False)) + pads
        assert ids[start : start + len(wanted)] == wanted
        assert [k for k, label in enumerate(labels) if label != -100] == list(
            range(start, start + len(wanted))
        )
        assert labels[start : start + len(wanted)] == wanted


def test_a_recipe_leaves_out_traces_of_more_steps_and_says_how_many(made: Warehouse) -> None:
    version, told = resolve(made, "kept"), []
    with open_student(made, "nano-base") as found, open_version(made, version) as folder:
        student = prepare_student(found, sft())
        every = sft_examples(made, folder, version.ref, student, 3)
        steps = [row["messages"][-1]["content"].count("<think>") for row in every.rows]
        few = sorted(steps)[len(steps) // 2]
        short = sft_examples(made, folder, version.ref, student, 3, few)
        assert len(short.rows) == sum(n <= few for n in steps) < len(steps)
        assert short.left_out == {f"of more than {few} steps": sum(n > few for n in steps)}
    recipe = sft(f"most_steps={few}", "name=short")
    reporter = TrainingReporter(message=told.append)
    train_sft(made, recipe, "kept", only_check=True, reporter=reporter)
    assert f"{len(short.rows)} traces of kept@v1; {len(steps) - len(short.rows)} left" in told[0]


def test_a_trained_student_differs_where_it_should_and_loads_again(
    made: Warehouse, row: dict[str, Any]
) -> None:
    with open_model(made, row) as folder:
        after, before = weights(folder), weights(BASE)
        assert set(after) == set(before)
        moved = {name for name in after if not torch.equal(after[name], before[name])}
        assert moved and not [name for name in moved if ".visual." in name]
        assert any(".language_model." in name for name in moved)
        style = prompt_style(folder)
        assert (style.response_style, style.prompt) == ("grounded", "nano")
        assert checkpoint_identity(folder) == row["model_id"]
        assert not [p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
        assert row["name"] in (folder / "README.md").read_text()
        with open_student(made, row["name"]) as found:
            assert load_model(found)[0].config.model_type == "qwen3_vl"


def test_the_curve_is_in_trackio_and_stdout_is_left_alone(
    made: Warehouse, capfd: pytest.CaptureFixture[str]
) -> None:
    row = train_sft(made, sft("steps=2", "seed=11"), "kept")
    assert row is not None
    steps = [f for f in logged(made, row) if "loss" in f]
    drawn = [m for m in SQLiteStorage.get_logs("vigorl", row["name"]) if "train/loss" in m]
    assert [m["train/loss"] for m in drawn] == [f["loss"] for f in steps]
    assert [m["train/global_step"] for m in drawn] == [1, 2]
    printed = capfd.readouterr()
    assert printed.out == "" and "Created new run" in printed.err


def test_a_tracker_that_is_not_there_is_named(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="trackers: wandb is not installed"):
        train_sft(made, sft("trackers=[wandb]"), "kept")


def test_a_model_knows_what_it_was_made_from(made: Warehouse, row: dict[str, Any]) -> None:
    assert row["dataset"] == "kept@v1"
    assert row["base"] == checkpoint_identity(BASE)
    assert json.loads(row["recipe"])["data"] == resolve(made, "kept").content_hash
    assert json.loads(row["metrics"])["steps"] == 3
    with Walker(made) as walker:
        found = walker.lineage(walker.find(row["name"])[0])
    kinds = {thing.kind for thing in found.ancestors}
    assert {"model", "dataset", "trace", "tree", "question", "image"} <= kinds


def test_training_again_gives_the_model_that_is_there(made: Warehouse, row: dict[str, Any]) -> None:
    steps: list[int] = []
    reporter = TrainingReporter(lambda step, steps_, metrics: steps.append(step))
    again = train_sft(made, sft("steps=3"), "kept", reporter=reporter)
    assert again is not None and again["model_id"] == row["model_id"]
    assert not steps
    assert len(query(made, f"FROM models WHERE name = '{row['name']}'").to_pylist()) == 1


def test_another_training_may_not_take_a_models_name(made: Warehouse, row: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="another model called"):
        train_sft(made, sft("steps=2"), "kept", name=row["name"])


def test_a_student_of_a_student_says_so(made: Warehouse, row: dict[str, Any]) -> None:
    child = train_sft(
        made, sft("steps=1", "response_style=answer_only"), "kept", model=row["name"], name="child"
    )
    assert child is not None and child["base"] == row["model_id"]
    found = find_model(made, "child")
    assert found is not None and found["model_id"] == child["model_id"]
    with open_student(made, "child") as opened:
        assert opened.prompt_style.prompt == "nano-answer"


def test_adapters_are_merged_into_plain_weights(made: Warehouse) -> None:
    found = train_sft(made, sft("steps=2", "lora.rank=4"), "kept", name="merged")
    assert found is not None
    with open_model(made, found) as folder:
        after, before = weights(folder), weights(BASE)
    assert set(after) == set(before)
    moved = {name for name in after if not torch.allclose(after[name], before[name], atol=1e-7)}
    assert moved and all("_proj." in name and ".language_model." in name for name in moved)


KILLED = """
import os, signal, sys
from tests.support.trained import sft
from training.sft import train_sft
from training.trainers import TrainingReporter
from warehouse.storage.home import Warehouse
home, name, dataset, *overrides = sys.argv[1:]
reporter = TrainingReporter(lambda step, *_: step == 2 and os.kill(os.getpid(), signal.SIGKILL))
train_sft(Warehouse(home), sft(*overrides), dataset, name=name, reporter=reporter)
"""


@pytest.mark.parametrize(
    ("dataset", "steps", "model", "style"),
    [
        pytest.param("kept", 3, "nano-base", "grounded", marks=pytest.mark.slow),
        pytest.param("looked", 2, "nano-zoom", "zoom", marks=pytest.mark.slow),
    ],
)
def test_a_killed_training_goes_on_and_ends_where_one_that_was_not_does(
    made: Warehouse, dataset: str, steps: int, model: str, style: str
) -> None:
    given = ("save_every=1", "seed=5", f"steps={steps}")
    given = (*given, f"model={model}", f"response_style={style}")
    command = [sys.executable, "-c", KILLED, made.root, f"killed-{style}", dataset, *given]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    trained, said = list[int](), list[str]()
    reporter = TrainingReporter(lambda step, steps, metrics: trained.append(step), said.append)
    one = train_sft(made, sft(*given), dataset, name=f"killed-{style}", reporter=reporter)
    assert "going on after step 1" in said and trained[0] == 2
    other = train_sft(made, sft(*given), dataset, name=f"whole-{style}")
    assert one is not None and other is not None
    assert [r["step"] for r in logged(made, one) if "loss" in r] == list(range(1, steps + 1))
    assert [r["loss"] for r in logged(made, one) if "loss" in r] == pytest.approx(
        [r["loss"] for r in logged(made, other) if "loss" in r], abs=1e-4
    )
    with open_model(made, one) as a, open_model(made, other) as b:
        ours, theirs = weights(a), weights(b)
    assert all(torch.allclose(ours[k], theirs[k], atol=1e-4) for k in ours)


def test_two_processes_never_train_the_same(made: Warehouse) -> None:
    plan = Plan("sft", sft().settings(), None, "x", "y", name="locked")
    with (
        open_run(made, plan),
        pytest.raises(TrainingError, match="another process"),
        open_run(made, plan),
    ):
        pass


def test_half_a_checkpoint_is_none(made: Warehouse) -> None:
    plan = Plan("sft", sft().settings(), None, "x", "z", name="torn")
    with open_run(made, plan) as run:
        half = run.checkpoints / "checkpoint-4"
        half.mkdir(parents=True)
        (half / "model.safetensors").write_bytes(b"torn")
        assert run.checkpoint() is None
        assert not half.exists()
