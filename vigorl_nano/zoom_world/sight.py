"""A head that training throws away: what the vision tower must know, read from its tokens.

    head = SightHead(tokenizer)
    loss, figures = head(tokens, embedding, spots)

The token whose cell holds a sign's middle must be near the word embeddings of its colour and shape,
and tell where the middle is; in a crop, the tokens at mark and number must be near their words.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerBase

from vigorl_nano.pretraining.config import CELLS, HIDDEN
from vigorl_nano.pretraining.encode import word_id
from vigorl_nano.rooms.objects import COLOURS
from vigorl_nano.zoom_world.scene import MARKS, NUMBERS, SHAPES

SHARPNESS = 16.0
VOCABULARY = {"colour": tuple(COLOURS), "shape": SHAPES, "mark": MARKS, "number": tuple(NUMBERS)}


@dataclass(frozen=True, slots=True)
class Spot:
    """What a picture of a batch shows at a place, by word lists of `VOCABULARY`."""

    picture: int
    x: float
    y: float
    words: dict[str, str]


class SightHead(nn.Module):
    """Linear read-outs of merged tokens (n, 49, 192)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.ids = {
            what: torch.tensor(
                [
                    tokenizer.convert_tokens_to_ids(w) if w in NUMBERS else word_id(tokenizer, w)
                    for w in words
                ]
            )
            for what, words in VOCABULARY.items()
        }
        self.read = nn.Linear(HIDDEN, 1 + 2 + 4 * 10)

    def forward(
        self, tokens: torch.Tensor, embedding: torch.Tensor, spots: list[Spot]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss, and figures to log: centre error and the share of words read right."""
        cells = torch.tensor([cell(s.x, s.y) for s in spots])
        pictures = torch.tensor([s.picture for s in spots])
        out = self.read(tokens)
        there = torch.zeros(tokens.shape[:2])
        there[pictures, cells] = 1
        loss = 2 * F.binary_cross_entropy_with_logits(out[..., 0], there)
        at = tokens[pictures, cells]
        read = out[pictures, cells]
        target = torch.tensor([(s.x, s.y) for s in spots], dtype=torch.float32)
        error = read[:, 1:3] - target
        whole = (target * 1000).round().long().clamp(0, 999)
        for i in range(2):
            first, second = read[:, 3 + 20 * i :][:, :20].split(10, -1)
            loss = loss + 0.5 * F.cross_entropy(first, whole[:, i] // 100)
            loss = loss + 0.25 * F.cross_entropy(second, whole[:, i] // 10 % 10)
        loss = loss + 4 * error.abs().mean()
        figures = {"centre": float(error.detach().norm(dim=-1).mean())}
        for what, words in VOCABULARY.items():
            rows = [i for i, spot in enumerate(spots) if what in spot.words]
            if not rows:
                continue
            named = F.normalize(embedding[self.ids[what]], dim=-1)
            near = SHARPNESS * F.normalize(at[rows], dim=-1) @ named.T
            gold = torch.tensor([words.index(spots[i].words[what]) for i in rows])
            loss = loss + F.cross_entropy(near, gold)
            figures[what] = float((near.detach().argmax(-1) == gold).float().mean())
        return loss, figures


def cell(x: float, y: float) -> int:
    column, row = (min(max(int(v * CELLS), 0), CELLS - 1) for v in (x, y))
    return row * CELLS + column
