"""The language model's own computation, without masks and caches, and where some of its heads look.

    hidden, looks = language(model, x, positions, layer)
    looks["names"].log_attention(rows, at)      # what tokens `at` of sequences `rows` look at

As `vigorl_nano.pretraining.config.language`, for longer sequences: attention is written out for the
few tokens whose sight is trained, not for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import Qwen3VLForConditionalGeneration

from vigorl_nano.pretraining.config import LOOK_HEADS, LOOK_LAYER, NAME_LAYER, half, norm

LAYERS = {NAME_LAYER: "names", LOOK_LAYER: "looks"}


@dataclass(frozen=True, slots=True)
class Sight:
    """What a layer's first heads look at: queries and keys, each (n, heads, t, width)."""

    queries: torch.Tensor
    keys: torch.Tensor

    def log_attention(self, rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Return (n, heads, t) for n tokens, each of a row and at a place in it."""
        asked = self.queries[rows, :, at].float()
        scores = torch.einsum("rhd,rhtd->rht", asked, self.keys[rows].float())
        future = torch.arange(scores.shape[-1]) > at[:, None]
        return scores.masked_fill(future[:, None], float("-inf")).log_softmax(-1)


def language(
    model: Qwen3VLForConditionalGeneration, x: torch.Tensor, where: torch.Tensor, layer: Any = None
) -> tuple[torch.Tensor, dict[str, Sight]]:
    """Return the last hidden states (n, t, 192) of right-padded embeddings x, and the sights."""
    text = model.model.language_model
    cos, sin = (v[:, None] for v in text.rotary_emb(x, where))
    sights = {}
    for i, each in enumerate(text.layers):
        x, queries, keys = (layer or text_layer)(each, x, cos, sin)
        if i in LAYERS:
            sights[LAYERS[i]] = Sight(queries[:, :LOOK_HEADS], keys[:, :LOOK_HEADS])
    return norm(x, text.norm), sights


def text_layer(
    layer: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return one layer's output, and its queries and keys, the queries scaled."""
    n, t = x.shape[:2]
    attention = layer.self_attn
    future = torch.ones(t, t, dtype=torch.bool).triu(1)
    h = norm(x, layer.input_layernorm)
    q, k, v = (
        p(h).view(n, t, -1, attention.head_dim).transpose(1, 2)
        for p in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    q, k = norm(q, attention.q_norm), norm(k, attention.k_norm)
    q, k = (q * cos + half(q) * sin) * attention.scaling, k * cos + half(k) * sin
    scores = (q @ k.transpose(2, 3)).masked_fill(future, float("-inf"))
    mixed = scores.softmax(-1) @ v
    x = x + attention.o_proj(mixed.transpose(1, 2).reshape(n, t, -1))
    h = norm(x, layer.post_attention_layernorm)
    mlp = layer.mlp
    return x + mlp.down_proj(F.silu(mlp.gate_proj(h)) * mlp.up_proj(h)), q, k
