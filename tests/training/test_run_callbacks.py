"""A run that is started again behind its last step, or within a later epoch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from tests.support.trained import grpo, logged, warehouse_with_traces
from training.batches.question_order import QuestionOrder
from training.grpo import train_grpo
from training.run_callbacks import AlreadyTrained, innermost_sampler, run_callbacks
from training.runs import Run
from warehouse.storage.home import Warehouse

ALL = "bands=[unsolved, hard, medium, easy, solved]"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return warehouse_with_traces(tmp_path_factory.mktemp("callbacks"))


def test_a_run_that_was_trained_and_not_stored_takes_no_further_step(
    made: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **more: Any) -> Any:
        raise OSError("no space left on device")

    recipe = grpo("steps=2", "save_every=1", ALL)
    with monkeypatch.context() as patched:
        patched.setattr(Run, "store_model", full)
        with pytest.raises(OSError, match="no space left"):
            train_grpo(made, recipe, task="sat2")
    row = train_grpo(made, recipe, task="sat2")
    assert row is not None and [line["step"] for line in logged(made, row) if "loss" in line] == [
        1, 2,
    ]  # fmt: skip
    whole = train_grpo(made, grpo("steps=2", "save_every=2", ALL), task="sat2", name="whole")
    assert whole is not None
    weights = [str(r["model_id"]).partition("@")[2] for r in (row, whole)]
    assert weights[0] == weights[1], "the model is that of the last step"


def test_a_training_ends_only_behind_its_last_step(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(metrics_file=tmp_path / "metrics.jsonl")
    (callback,) = run_callbacks(run, lambda *given: None)
    for step, steps in ((0, 3), (2, 3), (0, -1)):
        callback.on_train_begin(None, SimpleNamespace(global_step=step, max_steps=steps), None)
    for step in (3, 4):
        with pytest.raises(AlreadyTrained):
            callback.on_train_begin(None, SimpleNamespace(global_step=step, max_steps=3), None)


def test_a_process_that_goes_on_in_a_later_epoch_asks_what_that_epoch_asks(tmp_path: Path) -> None:
    """Of two processes, resumed behind the first batch of the second epoch."""
    run: Any = SimpleNamespace(metrics_file=tmp_path / "metrics.jsonl")
    (callback,) = run_callbacks(run, lambda *given: None)

    def loader() -> Any:
        order = QuestionOrder(range(8), mini_repeat_count=1, batch_size=4, shuffle=True, seed=3)
        plain: Any = DataLoader(range(8), batch_sampler=BatchSampler(order, 2, drop_last=True))
        return prepare_data_loader(plain, num_processes=2, process_index=0, put_on_device=False)

    def asked(found: Any, epoch: float) -> list[list[int]]:
        callback.on_epoch_begin(None, SimpleNamespace(epoch=epoch), None, train_dataloader=found)
        return [batch.tolist() for batch in found]

    whole = loader()
    first, second = asked(whole, 0), asked(whole, 1.0)
    assert first != second and len(second) == 2
    resumed = loader()
    later = skip_first_batches(resumed, 1)
    callback.on_epoch_begin(None, SimpleNamespace(epoch=1.5), None, train_dataloader=resumed)
    assert [batch.tolist() for batch in later] == second[1:]


def test_what_orders_a_loader_lies_below_all_that_wraps_it() -> None:
    order = SequentialSampler(range(4))
    assert innermost_sampler(DataLoader(range(4), sampler=order)) is order  # type: ignore[arg-type]
    assert innermost_sampler(None) is None and innermost_sampler(object()) is None
