"""Keys and values of a batch of sequences, in one tensor that is written in place.

    kv = KeyValueCache(model.language_model, rows=32)
    kv.target(slots, filled)            # where the next forward pass writes, and how far it sees
    keys, values = kv.update(k, v, layer)       # what a transformers model calls in each layer

A sequence's tokens are at slots 0, 1, 2, … of its row, so rows of any length need no padding, and a
row can be overwritten by another one between two steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

STRIDE = 128
"""Slots are added this many at a time: growing copies the whole cache, so it must be rare."""


class KeyValueCache:
    """(layers, 2, rows, heads, slots, width); usable as the cache of a transformers model."""

    def __init__(self, text: Any, rows: int) -> None:
        """`text` is a transformers text model: its configuration determines the size per token."""
        config, weight = text.config, next(text.parameters())
        width = getattr(config, "head_dim", None)
        width = width or config.hidden_size // config.num_attention_heads
        self._store = weight.new_zeros(
            len(text.layers), 2, rows, config.num_key_value_heads, 0, width, requires_grad=False
        )

    def target(self, slots: Tensor, filled: int) -> None:
        """Set the slots (rows, new tokens) to write; attention sees `filled` slots of each row."""
        self._reserve(filled)
        self._filled, self._n_rows = filled, slots.shape[0]
        heads, slots_kept = self._store.shape[3:5]
        row = torch.arange(len(slots), device=slots.device)[:, None, None]
        head = torch.arange(heads, device=slots.device)
        # Index of each (row, new token, head) in the flattened (rows, heads, slots) dimension.
        self._at = ((row * heads + head) * slots_kept + slots[:, :, None]).flatten()

    def write(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Store (rows, new tokens, heads, width); return all keys and values to attend to.

        Both are views of the cache: (rows, heads, filled slots, width).
        """
        views = []
        for cache, new in zip(self._store[layer], (keys, values), strict=True):
            width = cache.shape[-1]
            cache.view(-1, width).index_copy_(0, self._at, new.reshape(-1, width))
            views.append(cache[: self._n_rows, :, : self._filled])
        return views[0], views[1]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """As `write`, with the axes of transformers: (rows, heads, new tokens, width)."""
        return self.write(keys.transpose(1, 2), values.transpose(1, 2), layer)

    def put(self, row: int, both: Tensor) -> None:
        """Copy keys and values (layers, 2, heads, tokens, width) into the first slots of a row."""
        self._reserve(both.shape[3])
        self._store[:, :, row, :, : both.shape[-2]] = both

    def take(self, row: int, length: int) -> Tensor:
        """Return a copy of a row's first slots: (layers, 2, heads, length, width)."""
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
