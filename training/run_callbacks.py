"""What a run does while transformers' loop trains: metrics, complete checkpoints, where it goes on.

callbacks = run_callbacks(run, reporter.progress)
trainer.train(resume_from_checkpoint=…)      # AlreadyTrained where nothing is left to do
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from training.runs import Run, mark_complete, read_metrics
from warehouse.tables.schema import Row

_ROUNDING = 1e-6
"""An epoch's end is counted in shares of it."""


class AlreadyTrained(Exception):
    """The checkpoint is of the last step: the model is loaded, and no step is left."""


def run_callbacks(run: Run, progress: Callable[[int, int, Row], None]) -> list[Any]:
    """Return the callbacks of a run.

    Args:
        progress: called after a step with its number, how many there are, and the newest metrics.
    """
    from accelerate import PartialState
    from transformers import TrainerCallback

    before = max((row.get("seconds", 0.0) for row in read_metrics(run.metrics_file)), default=0.0)
    began = time.monotonic()

    class RunCallback(TrainerCallback):
        """Writes metrics as they come, and marks checkpoints that are complete."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """End a training that had ended: the loop asks only behind a step whether to."""
            if state.global_step >= state.max_steps > 0:
                raise AlreadyTrained

        def on_epoch_begin(
            self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any
        ) -> None:
            """Tell the innermost sampler its epoch: behind a checkpoint, in several processes, it
            lies deeper than the loop looks, and would ask the first epoch's questions again."""
            sampler = innermost_sampler(train_dataloader)
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(int((state.epoch or 0) + _ROUNDING))

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not state.is_world_process_zero or not logs:
                return
            metrics = {k: v for k, v in logs.items() if isinstance(v, int | float)}
            seconds = round(before + time.monotonic() - began, 3)  # over all starts of the run
            run.log({"step": state.global_step, "seconds": seconds, **metrics})
            progress(state.global_step, state.max_steps, metrics)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            PartialState().wait_for_everyone()  # each process writes its random state into it
            if state.is_world_process_zero:
                mark_complete(run.checkpoints / f"checkpoint-{state.global_step}")

    return [RunCallback()]


def innermost_sampler(loader: Any) -> Any:
    """Return what decides the order of a data loader, below all that wraps it; None without one."""
    found = None
    while loader is not None:
        loader = getattr(loader, "batch_sampler", None) or getattr(loader, "sampler", None)
        found = loader if loader is not None else found
    return found
