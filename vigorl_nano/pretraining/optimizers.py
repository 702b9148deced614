"""The optimizers of pretraining: Muon for the blocks' matrices, AdamW for all else.

optimizers = make_optimizers(nn.ModuleDict({"model": model, "auxiliary": head}), vision_rate=0.2)
for group in optimizers[0].param_groups: group["lr"] = rate * group["share"]
"""

from __future__ import annotations

import torch
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
