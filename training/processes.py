"""Several processes, on one machine or on many, that train one student together.

    arguments = sharding_arguments(recipe, gpu)                   # of TRL's configurations
    checkpoint = agree_on_checkpoint(run, trainer.accelerator)    # before the first step
    with lost_peers_named(trainer.accelerator):
        trainer.train(checkpoint)

A launcher (torchrun, Slurm, Ray Train) starts the same command in each and says who is who in RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. The first one holds the run's lock, writes its
checkpoints, metrics and rows, and stores the model; all of them read the run's folder.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.errors import TrainingError
from training.recipes import Recipe
from training.runs import PLAN, Run, is_complete
from warehouse.tables.schema import Row

_FSDP: Row = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "reshard_after_forward": True,
    "state_dict_type": "FULL_STATE_DICT",  # a checkpoint that any number of processes can load
}
_ZERO3: Row = {
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    "bf16": {"enabled": "auto"},
    "gradient_clipping": "auto",
    "gradient_accumulation_steps": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}


def process_count() -> int:
    """Return how many processes train together, as the launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharding_arguments(recipe: Recipe, gpu: bool) -> Row:
    """Return what TRL's configurations take for the recipe's `sharding`; nothing for one process.

    Raises:
        TrainingError: it can't be had here.
    """
    if recipe.sharding == "none" or process_count() == 1:
        return {}
    if not gpu:
        raise TrainingError(f"sharding: {recipe.sharding} needs GPUs; none does without")
    if recipe.sharding == "fsdp":
        return {"fsdp": True, "fsdp_config": dict(_FSDP)}
    if importlib.util.find_spec("deepspeed") is None:
        raise TrainingError("sharding: zero3 is DeepSpeed's: pip install deepspeed, or take fsdp")
    return {"deepspeed": dict(_ZERO3)}


@contextmanager
def lost_peers_named(accelerator: Any) -> Iterator[None]:
    """Name the cause where the block fails since another process is gone.

    Raises:
        OSError: one is; all that are left are to be ended and started again.
    """
    from torch.distributed import DistError

    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, DistError) or "/gloo/" in str(
            error
        )  # which has no type of its own
        if accelerator.num_processes == 1 or not lost:
            raise
        raise OSError(
            "another process of this training is gone: the same command on each node goes on "
            "from the last checkpoint"
        ) from error


def agree_on_checkpoint(run: Run, accelerator: Any) -> Path | None:
    """Return the checkpoint that all processes go on from, the first one's; None for the start.

    Raises:
        TrainingError: not all of them see the run's folder, or they train different things.
    """
    found = run.checkpoint()
    if accelerator.num_processes == 1:
        return found
    from accelerate.utils import broadcast_object_list, gather_object

    folder, name = broadcast_object_list([run.folder.name, found.name if found else None])
    same = run.folder.name == folder and (run.folder / PLAN).is_file()
    if not all(gather_object([same and (name is None or is_complete(run.checkpoints / name))])):
        raise TrainingError(
            f"not every process of this training sees {run.folder}, where checkpoints are: share "
            "that folder between the nodes, and type the same command on each"
        )
    return run.checkpoints / name if name else None
