"""The optimizers of pretraining: Muon for the blocks' matrices, AdamW for all else.

optimizers = make_optimizers(nn.ModuleDict({"model": model, "auxiliary": head}), vision_rate=0.2)
take_step(modules, optimizers, loss, rate, workers=2)
save_checkpoint(out / "checkpoint", modules, optimizers, {"stage": 1, "step": 250})
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn


def make_optimizers(
    modules: nn.ModuleDict, vision_rate: float = 1.0
) -> list[torch.optim.Optimizer]:
    """Make Muon for the blocks' matrices, AdamW for embeddings, heads and vectors.

    Args:
        modules: `model` and `auxiliary`.
        vision_rate: share of the rate at which the vision tower and the auxiliary head learn.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, p in modules.named_parameters():
        matrix = p.ndim == 2 and (".blocks." in name or ".layers." in name)
        sees = name.startswith(("model.model.visual.", "auxiliary."))
        groups.setdefault((matrix, sees), []).append(p)
    matrices, others = (
        [
            {"params": groups[kind, sees], "share": vision_rate if sees else 1.0}
            for sees in (True, False)
        ]
        for kind in (True, False)
    )
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.97), weight_decay=0.01, fused=True),
    ]


def take_step(
    modules: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    loss: torch.Tensor,
    rate: float,
    workers: int,
) -> None:
    """Take one step of all optimizers, on the mean gradient of all workers.

    Frozen weights have no gradient, and must not decay either: the optimizers pass them by.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        optimizer.zero_grad()
    loss.backward()
    learning = [p for p in modules.parameters() if p.grad is not None]
    if workers > 1:
        flat = torch.cat([p.grad.flatten() for p in learning if p.grad is not None])
        dist.all_reduce(flat)
        parts = (flat / workers).split([p.numel() for p in learning])
        for p, part in zip(learning, parts, strict=True):
            p.grad = part.view_as(p)
    nn.utils.clip_grad_norm_(learning, 1.0)
    for optimizer in optimizers:
        optimizer.step()


def save_checkpoint(
    folder: Path,
    modules: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    progress: dict[str, int],
) -> None:
    """Write a checkpoint in place of the one in `folder`, which stays whole if this is killed."""
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    state = {k: v for k, v in modules.state_dict().items() if "lm_head" not in k}
    save_file(state, part / "weights.safetensors")
    states = [optimizer.state_dict() for optimizer in optimizers]
    torch.save({"optimizers": states, **progress}, part / "state.pt")
    for old in folder.glob("*"):
        old.unlink()
    part.replace(folder)
