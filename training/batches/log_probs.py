"""Log-probabilities of a batch of answers, computed in chunks of similar length.

    class RolloutTrainer(ChunkedTrainer): ...

TRL pads every row of a batch to its longest prompt and its longest answer. Where answers differ
much in length (a dialogue with four crops beside one with none) most of what is then computed is
padding. Here rows are sorted by length and computed a few at a time without the columns that none
of them uses; what is returned has the batch's order and shape, with zeros where nothing was read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from trl import GRPOTrainer

CHUNK = 8
"""Rows computed at once."""
A_TOKEN_EACH = ("token_type_ids", "mm_token_type_ids")
_AN_IMAGE_EACH = ("pixel_values", "image_grid_thw", "num_images")


class ChunkedTrainer(GRPOTrainer):
    """TRL's trainer; `chunked` is set after it is made, where a chunk fills the device."""

    chunked = False

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int,
        batch_size: int | None = None, **fields: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        """Return as TRL: log-probabilities and entropies, (rows, logits_to_keep); a loss of none.

        Args:
            input_ids: (rows, tokens), prompts padded on the left and answers on the right.
            attention_mask: (rows, tokens).
            logits_to_keep: width of the answers.
        """
        compute = super()._get_per_token_logps_and_entropies
        given = {name: value for name, value in fields.items() if value is not None}
        known = {"compute_entropy", "compute_aux_loss", *A_TOKEN_EACH, *_AN_IMAGE_EACH}
        if not self.chunked or given.get("compute_aux_loss") or not known.issuperset(given):
            return compute(model, input_ids, attention_mask, logits_to_keep, batch_size, **fields)
        width = input_ids.size(1)
        order, found = [], []
        for rows in _similar(attention_mask, CHUNK):
            used = attention_mask[rows].any(0).nonzero().squeeze(1)
            begin = min(int(used[0]), width - logits_to_keep - 1)
            end = max(int(used[-1]) + 1, width - logits_to_keep + 1)
            columns = slice(begin, end)
            parts = compute(
                model, input_ids[rows, columns], attention_mask[rows, columns],
                logits_to_keep - (width - end), None, **_chunk(given, rows, columns),
            )  # fmt: skip
            order += rows
            found.append([None if part is None else pad(part, (0, width - end)) for part in parts])
        back = torch.tensor(order, device=input_ids.device).argsort()
        logps, entropies, _ = (
            None if of[0] is None else torch.cat(of)[back] for of in zip(*found, strict=True)
        )
        assert logps is not None
        return logps, entropies, None


def _similar(attention_mask: Tensor, size: int) -> Iterator[list[int]]:
    """Yield the numbers of rows whose last tokens are near each other, `size` at a time."""
    ends = attention_mask * torch.arange(attention_mask.size(1), device=attention_mask.device)
    order = ends.amax(1).argsort(stable=True).tolist()
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _chunk(fields: dict[str, Any], rows: list[int], columns: slice) -> dict[str, Any]:
    """Return what some rows and columns of a batch have of the model's other inputs."""
    found = dict(fields)
    for name in A_TOKEN_EACH:
        if name in fields:
            found[name] = fields[name][rows, columns]
    if "image_grid_thw" in fields:
        counts = fields["num_images"]
        ends = torch.tensor([0, *counts]).cumsum(0).tolist()
        images = [i for row in rows for i in range(ends[row], ends[row + 1])]
        grids = fields["image_grid_thw"]
        patches = fields["pixel_values"].split(grids.prod(-1).tolist())
        of_rows = (
            (torch.cat([patches[i] for i in images]), grids[images]) if images else (None,) * 2
        )
        found["pixel_values"], found["image_grid_thw"] = of_rows
        found["num_images"] = [counts[row] for row in rows] if images else None
    return found
