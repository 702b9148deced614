"""Keys and values of a batch of sequences, in one tensor that is written to in place.

    kv = KeyValues(layers=4, rows=32, like=Shape(heads=6, width=32), ...)
    kv.target(slots, filled)            # where the next forward pass writes, and how far it sees
    keys, values = kv.update(k, v, layer)       # what a transformers model calls in each layer

A sequence's tokens lie at slots 0, 1, 2, … of its row, so rows of any length stand side by side
without padding, and a row can be overwritten by another one between two steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

STRIDE = 128
"""Slots are added this many at a time: growing copies everything, so it must be rare."""


class KeyValues:
    """(layers, 2, rows, heads, slots, width); looks like a cache to a transformers model."""

    def __init__(self, text: Any, rows: int) -> None:
        """`text` is a transformers text model: its configuration says how much is kept a token."""
        config, weight = text.config, next(text.parameters())
        width = getattr(config, "head_dim", None)
        width = width or config.hidden_size // config.num_attention_heads
        self._store = weight.new_zeros(
            len(text.layers), 2, rows, config.num_key_value_heads, 0, width, requires_grad=False
        )

    def target(self, slots: Tensor, filled: int) -> None:
        """`slots`: (rows, new tokens); attention sees the first `filled` slots of each row."""
        self._reserve(filled)
        self._filled, self._n_rows = filled, slots.shape[0]
        heads, slots_kept = self._store.shape[3:5]
        row = torch.arange(len(slots), device=slots.device)[:, None, None]
        head = torch.arange(heads, device=slots.device)
        # Where each (row, new token, head) lies when rows, heads and slots are one dimension.
        self._at = ((row * heads + head) * slots_kept + slots[:, :, None]).flatten()

    def write(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Store (rows, new tokens, heads, width); return all that may be attended to.

        Both are (rows, heads, filled slots, width), views of what is kept.
        """
        found = []
        for kept, new in zip(self._store[layer], (keys, values), strict=True):
            width = kept.shape[-1]
            kept.view(-1, width).index_copy_(0, self._at, new.reshape(-1, width))
            found.append(kept[: self._n_rows, :, : self._filled])
        return found[0], found[1]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """`write` with the axes as transformers has them: (rows, heads, new tokens, width)."""
        return self.write(keys.transpose(1, 2), values.transpose(1, 2), layer)

    def put(self, rows: slice | int, both: Tensor) -> None:
        """Copy (layers, 2, heads, tokens, width) into the first slots of a row, or of several."""
        self._reserve(both.shape[3])
        if isinstance(rows, slice):
            both = both[:, :, None]
        self._store[:, :, rows, :, : both.shape[-2]] = both

    def take(self, row: int, length: int) -> Tensor:
        """(layers, 2, heads, length, width): a copy of a row's first slots."""
        return self._store[:, :, row, :, :length].clone()

    def move(self, source: int, destination: int, length: int) -> None:
        """Overwrite a row with another's first `length` slots."""
        self._store[:, :, destination, :, :length] = self._store[:, :, source, :, :length]

    def _reserve(self, slots: int) -> None:
        old = self._store
        if old.shape[4] < slots:
            shape = list(old.shape)
            shape[4] = (slots + STRIDE - 1) // STRIDE * STRIDE
            self._store = old.new_zeros(shape)
            self._store[:, :, :, :, : old.shape[4]] = old
