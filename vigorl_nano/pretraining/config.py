"""The architecture of vigorl-nano: Qwen3-VL's, made small enough to train and run on two CPU cores.

model = build_model(tokenizer)          # random weights, Qwen3VLForConditionalGeneration
sees  = features(model, frames)         # uint8 (n, 196, 196, 3) -> (n, 49, 192), batched
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    apply_rotary_pos_emb_vision,
    get_vision_position_ids,
)

SIDE = 196  # pixels a side after the processor's resize
PATCH, MERGE = 14, 2
GRID = SIDE // PATCH  # patches a side
CELLS = GRID // MERGE  # tokens a side: each covers 28 x 28 pixels
TOKENS_PER_IMAGE = CELLS * CELLS
HIDDEN = 192
# In pretraining three heads of a layer are shown an object's cell at its name, three of the next
# layer at each token of its coordinate.
NAME_LAYER, LOOK_LAYER, LOOK_HEADS = 1, 2, 3
HAS_BFLOAT16: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
"""Whether this processor multiplies bfloat16."""

VISION: dict[str, Any] = {
    "depth": 4,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_heads": 4,
    "patch_size": PATCH,
    "spatial_merge_size": MERGE,
    "temporal_patch_size": 2,
    "out_hidden_size": HIDDEN,
    # One learned position for each patch: no interpolation, so a point can be told to the pixel.
    "num_position_embeddings": GRID * GRID,
    "deepstack_visual_indexes": [],
}
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 576,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [6, 5, 5],
        "mrope_interleaved": True,
    },
    "tie_word_embeddings": True,
}


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:

    def ids(token: str) -> Any:
        return tokenizer.convert_tokens_to_ids(token)

    end = ids("<|im_end|>")
    config = Qwen3VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": end,
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config=VISION,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    config.dtype = torch.float32
    return Qwen3VLForConditionalGeneration(config)


def to_patches(frames: torch.Tensor) -> torch.Tensor:
    """Turn uint8 images (n, 196, 196, 3) into patches (n, 196, 588) in merge-block order."""
    n = frames.shape[0]
    x = frames.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    x = x.reshape(n, 3, CELLS, MERGE, PATCH, CELLS, MERGE, PATCH)
    return x.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(n, GRID * GRID, 3 * PATCH * PATCH)


def blocks_output(
    model: Qwen3VLForConditionalGeneration, frames: torch.Tensor, block: Any = None
) -> torch.Tensor:
    """Return the vision blocks' output before merging, (n, 196, 128), in merge-block order.

    The same computation as the model's own vision tower, for images of one size as one batch
    (the library's version attends to each image in a Python loop). `block` may be a compiled
    `vision_block`.
    """
    visual = model.model.visual
    grid = torch.tensor([[1, GRID, GRID]])
    where = get_vision_position_ids(grid, MERGE)
    weight = visual.patch_embed.proj.weight.sum(dim=2).flatten(1)  # both time steps see one frame
    x = F.linear(to_patches(frames), weight, visual.patch_embed.proj.bias).float()
    rows, columns = where.unbind(0) if where.shape[0] == 2 else where.unbind(1)
    x = x + visual.pos_embed(rows * GRID + columns)
    cos, sin = visual.rotary_pos_emb(x, where)
    for layer in visual.blocks:
        x = (block or vision_block)(layer, x, cos, sin)
    return x


def vision_block(block: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    n, t = x.shape[:2]
    qkv = block.attn.qkv(block.norm1(x)).reshape(n, t, 3, block.attn.num_heads, -1)
    q, k, v = qkv.unbind(2)
    q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    scores = (q @ k.transpose(2, 3)).float() * q.shape[-1] ** -0.5
    mixed = scores.softmax(-1) @ v
    x = x + block.attn.proj(mixed.transpose(1, 2).reshape(n, t, -1))
    return x + block.mlp(block.norm2(x))


def merge(model: Qwen3VLForConditionalGeneration, x: torch.Tensor) -> torch.Tensor:
    """Merge the blocks' output (n, 196, 128) to vision tokens (n, 49, 192), row by row."""
    return model.model.visual.merger(x.flatten(0, 1)).view(len(x), TOKENS_PER_IMAGE, HIDDEN)


def features(model: Qwen3VLForConditionalGeneration, frames: torch.Tensor) -> torch.Tensor:
    """Return the merged vision tokens of uint8 images, (n, 49, 192)."""
    return merge(model, blocks_output(model, frames))


def language(
    model: Qwen3VLForConditionalGeneration, x: torch.Tensor, where: torch.Tensor, layer: Any = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the language model's last hidden states, and where some heads look.

    The same computation as the model's own, without its masks and caches, so that it compiles into
    few passes over memory: on a CPU those cost more than the matrix products.

    Args:
        x: input embeddings (n, t, 192), padded on the right.
        where: the three rows of positions, (3, n, t).
        layer: may be a compiled `text_layer`.

    Returns:
        (n, t, 192), and log attention (n, LOOK_HEADS, t, t) of the name layer and the look layer.
    """
    text = model.model.language_model
    cos, sin = (v[:, None] for v in text.rotary_emb(x, where))
    looks = []
    for i, each in enumerate(text.layers):
        x, sight = (layer or text_layer)(each, x, cos, sin)
        if i in (NAME_LAYER, LOOK_LAYER):
            looks.append(sight)
    return norm(x, text.norm), looks[0], looks[1]


def text_layer(
    layer: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one layer's output, and the log attention of its first heads."""
    n, t = x.shape[:2]
    attention = layer.self_attn
    future = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
    h = norm(x, layer.input_layernorm)
    q, k, v = (
        p(h).view(n, t, -1, attention.head_dim).transpose(1, 2)
        for p in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    q, k = norm(q, attention.q_norm), norm(k, attention.k_norm)
    q, k = q * cos + half(q) * sin, k * cos + half(k) * sin
    # Written out: the library's fused attention is slow backwards for sequences this short.
    scores = ((q @ k.transpose(2, 3)) * attention.scaling).float()
    scores = scores.masked_fill(future, float("-inf"))
    mixed = scores.softmax(-1) @ v
    x = x + attention.o_proj(mixed.transpose(1, 2).reshape(n, t, -1))
    h = norm(x, layer.post_attention_layernorm)
    mlp = layer.mlp
    x = x + mlp.down_proj(F.silu(mlp.gate_proj(h)) * mlp.up_proj(h))
    return x, scores[:, :LOOK_HEADS].log_softmax(-1)


def norm(x: torch.Tensor, layer: Any) -> torch.Tensor:
    x = x.float()
    scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + layer.variance_epsilon)
    return layer.weight * scaled


def half(x: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


def half_precision() -> torch.autocast:
    """Compute matrix products in bfloat16, weights staying float32, where the processor can.

    In software they take many times as long as in float32. So do those of Muon (`optimizers`),
    which are in bfloat16 wherever it runs.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=HAS_BFLOAT16)
