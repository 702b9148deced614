"""The forward pass of a small Qwen3-VL text model, reduced to its arithmetic.

    if SmallText.fits(model):
        hidden = SmallText(model)(kv, embeds, positions, slots, visual, deep)

A model of a few million weights spends most of a decoding step in Python, between operations of
microseconds. This is the computation of transformers' `Qwen3VLTextModel` (version 5.19) alone, with
projections of the same input fused and rotary angles looked up; a test compares the two. Larger
models and other families use the library's own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mcts.teachers.local.kv_cache import KeyValueCache

MAX_PARAMETERS = 50_000_000
"""A larger model would gain little, and its weights would be copied."""


@dataclass(frozen=True, slots=True)
class _Layer:
    before_attention: Tensor
    qkv: Tensor
    """(query, key and value heads x width, model width)."""
    qk_norm: Tensor
    """(query and key heads, width)."""
    out: Tensor
    before_mlp: Tensor
    gate_up: Tensor
    down: Tensor


class SmallText:
    """Computes the text model of `model`, with copies of some of its weights."""

    def __init__(self, model: Any) -> None:
        self._text = text = model.model.language_model
        config = text.config
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._width, self._eps = text.layers[0].self_attn.head_dim, config.rms_norm_eps
        self._scaling = text.layers[0].self_attn.scaling
        self._layers = [self._fuse(layer) for layer in text.layers]
        # A generated token has one position id instead of three: its angles are looked up.
        where = torch.arange(config.max_position_embeddings, device=text.norm.weight.device)
        self._angles = self._rotary(text.norm.weight, where[None, None].expand(3, -1, -1))

    @staticmethod
    def fits(model: Any) -> bool:
        """Return whether this class can compute `model`."""
        text = model.model.language_model
        config = text.config
        return (
            config.model_type == "qwen3_vl_text"
            and config.hidden_act == "silu"
            and not config.attention_bias
            and config.rope_parameters["rope_type"] == "default"
            and sum(weights.numel() for weights in text.parameters()) < MAX_PARAMETERS
            and all(weights.dtype == torch.float32 for weights in text.parameters())
        )

    def _fuse(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        heads = [attention.q_norm.weight] * self._heads + [attention.k_norm.weight] * self._kv_heads
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        return _Layer(
            layer.input_layernorm.weight.detach(),
            torch.cat([p.weight for p in projections]).detach(),
            torch.stack(heads).detach(),
            attention.o_proj.weight.detach(),
            layer.post_attention_layernorm.weight.detach(),
            torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).detach(),
            mlp.down_proj.weight.detach(),
        )

    def _rotary(self, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines, and sines signed for the swapped halves of a head: (rows, n, w)."""
        cos, sin = self._text.rotary_emb(like, positions)
        half = sin.shape[-1] // 2
        return cos, torch.cat((-sin[..., :half], sin[..., half:]), -1)

    def __call__(
        self,
        kv: KeyValueCache,
        embeds: Tensor,
        positions: Tensor,
        slots: Tensor,
        visual: Tensor | None = None,
        deep: Sequence[Tensor] = (),
    ) -> Tensor:
        """Compute the hidden states of new tokens; see `mcts.teachers.local.decoder.Decoder`.

        Args:
            embeds: (rows, new tokens, model width).
            positions: (3, rows, new tokens); (rows,) for one generated token per row.
            slots: (rows, new tokens): where the new tokens go; each sees all slots up to its own.
            visual: (rows, new tokens) bool: positions of images.
            deep: what the first layers add at image tokens: (visual tokens, model width).
        """
        if positions.ndim == 1:
            cos, sin = (table[0, positions, None] for table in self._angles)
        else:
            cos, sin = self._rotary(embeds, positions)
        cos, sin = cos[:, :, None], sin[:, :, None]
        filled = int(slots.max()) + 1
        kv.target(slots, filled)
        seen = torch.arange(filled, device=slots.device) <= slots[:, None, :, None]
        mask = torch.zeros_like(seen, dtype=embeds.dtype).masked_fill_(~seen, float("-inf"))
        x, eps, size = embeds, self._eps, (embeds.shape[-1],)
        for i, layer in enumerate(self._layers):
            h = F.rms_norm(x, size, layer.before_attention, eps)
            x = x + F.linear(self._attend(kv, i, h, cos, sin, mask), layer.out)
            h = F.rms_norm(x, size, layer.before_mlp, eps)
            gate, up = F.linear(h, layer.gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
            if visual is not None and i < len(deep):
                x[visual] += deep[i]
        return F.rms_norm(x, size, self._text.norm.weight, eps)

    def _attend(
        self, kv: KeyValueCache, i: int, h: Tensor, cos: Tensor, sin: Tensor, mask: Tensor
    ) -> Tensor:
        rows, n = h.shape[:2]
        layer, heads, width = self._layers[i], self._heads, self._width
        both = F.linear(h, layer.qkv).view(rows, n, -1, width)
        turned = heads + self._kv_heads
        qk = F.rms_norm(both[:, :, :turned], (width,), None, self._eps) * layer.qk_norm
        a, b = qk.chunk(2, -1)
        qk = qk * cos + torch.cat((b, a), -1) * sin
        keys, values = kv.write(qk[:, :, heads:], both[:, :, turned:], i)
        q = qk[:, :, :heads]
        if n > 1:
            mixed = F.scaled_dot_product_attention(
                q.transpose(1, 2), keys, values, mask, scale=self._scaling,
                enable_gqa=heads != self._kv_heads,
            )  # fmt: skip
            return mixed.transpose(1, 2).reshape(rows, n, -1)
        # For one query per row the fused kernel is slower than two matrix products.
        q = q.view(rows, self._kv_heads, -1, width) * self._scaling
        scores = torch.matmul(q, keys.transpose(2, 3)).add_(mask)
        return torch.matmul(scores.softmax(-1), values).view(rows, 1, -1)
