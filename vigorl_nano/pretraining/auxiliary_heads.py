"""Loss heads that pretraining throws away: what the vision tower must know, read out directly.

    head = AuxiliaryHead(word_ids(tokenizer))
    loss, figures = head(patches, tokens, embedding, objects)

A reply's tokens say little about an image, a list of what is in it says much. The head reads
the colour and kind that cover each patch, and from each merged token the object whose centre lies
in its cell: its place, its depth, and its colour and kind as nearness to the *word embeddings* of
their names. That last loss ties what is seen to the words for it, so that the language model finds
a named object by comparing like with like.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerBase

from vigorl_nano.pretraining.config import CELLS, GRID, HIDDEN, MERGE, VISION
from vigorl_nano.pretraining.data import VisibleObject
from vigorl_nano.pretraining.encode import word_id
from vigorl_nano.rooms.objects import COLOURS, KINDS

OUTPUTS = {"there": 1, "x1": 10, "x2": 10, "y1": 10, "y2": 10, "centre": 2, "depth": 1}
SHARPNESS = 16.0  # of the softmax over cosines with the words
NEAREST, FARTHEST = 1.5, 8.0  # metres; depth is read as its logarithm between these


def word_ids(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return the tokens of all colours, then of all kinds."""
    return torch.tensor([word_id(tokenizer, word) for word in (*COLOURS, *KINDS)])


class AuxiliaryHead(nn.Module):
    """Linear read-outs of patches (n, 196, 128) and of merged tokens (n, 49, 192)."""

    def __init__(self, words: torch.Tensor) -> None:
        super().__init__()
        self.words = words
        self.cover = nn.Linear(VISION["hidden_size"], len(COLOURS) + len(KINDS) + 2)
        self.read = nn.Linear(HIDDEN, sum(OUTPUTS.values()))

    def forward(
        self,
        patches: torch.Tensor,
        tokens: torch.Tensor,
        embedding: torch.Tensor,
        images: list[list[VisibleObject]],
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss, and figures to log: centre error and share of names read right."""
        colours, kinds = cover_maps(images)
        cover = self.cover(patches).float().split([len(COLOURS) + 1, len(KINDS) + 1], -1)
        loss = F.cross_entropy(cover[0].flatten(0, 1), colours.flatten())
        loss = loss + F.cross_entropy(cover[1].flatten(0, 1), kinds.flatten())

        there, cells = centres(images)
        read = self.read(tokens).float().split(list(OUTPUTS.values()), -1)
        out = dict(zip(OUTPUTS, read, strict=True))
        loss = loss + 2 * F.binary_cross_entropy_with_logits(out["there"].squeeze(-1), there)
        at = tuple(torch.tensor(list(cells)).unbind(1))
        seen = list(cells.values())
        words = F.normalize(embedding[self.words].float(), dim=-1)
        near = SHARPNESS * F.normalize(tokens[at].float(), dim=-1) @ words.T
        colour = torch.tensor([list(COLOURS).index(o.name.split()[0]) for o in seen])
        kind = torch.tensor([KINDS.index(o.name.split()[1]) for o in seen])
        by_colour, by_kind = near.split([len(COLOURS), len(KINDS)], -1)
        loss = loss + F.cross_entropy(by_colour, colour) + F.cross_entropy(by_kind, kind)
        right = (by_colour.argmax(-1) == colour) & (by_kind.argmax(-1) == kind)

        target = torch.tensor([o.centre for o in seen], dtype=torch.float32)
        whole = (target * 1000).round().long().clamp(0, 999)
        for i, axis in enumerate("xy"):
            loss = loss + 0.5 * F.cross_entropy(out[axis + "1"][at], whole[:, i] // 100)
            loss = loss + 0.25 * F.cross_entropy(out[axis + "2"][at], whole[:, i] // 10 % 10)
        error = out["centre"][at] - target
        loss = loss + 4 * error.abs().mean()
        metres = torch.tensor([o.depth for o in seen]).clamp(NEAREST, FARTHEST)
        scale = np.log(FARTHEST / NEAREST)
        loss = (
            loss
            + 2 * (out["depth"][at].squeeze(-1) - (metres / NEAREST).log() / scale).abs().mean()
        )
        figures = {
            "centre": float(error.detach().norm(dim=-1).mean()),
            "names": float(right.float().mean()),
        }
        return loss, figures


def cover_maps(images: list[list[VisibleObject]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Colour and kind of the nearest object over each patch, 0 for none; (n, 196) each.

    Boxes stand for outlines: they are drawn in a little, far ones first. Patches are in the order
    in which the tower keeps them, merge blocks of 2 x 2.
    """
    colours = np.zeros((len(images), GRID, GRID), dtype=np.int64)
    kinds = np.zeros_like(colours)
    middles = (np.arange(GRID) + 0.5) / GRID
    for i, objects in enumerate(images):
        for o in sorted(objects, key=lambda o: -o.depth):
            dx, dy = 0.1 * (o.x2 - o.x1), 0.1 * (o.y2 - o.y1)
            columns = np.flatnonzero((middles > o.x1 + dx) & (middles < o.x2 - dx))
            rows = np.flatnonzero((middles > o.y1 + dy) & (middles < o.y2 - dy))
            colour, kind = o.name.split()
            colours[i, rows[:, None], columns] = 1 + list(COLOURS).index(colour)
            kinds[i, rows[:, None], columns] = 1 + KINDS.index(kind)
    blocks = (len(images), CELLS, MERGE, CELLS, MERGE)
    return tuple(  # type: ignore[return-value]
        torch.from_numpy(m.reshape(blocks).transpose(0, 1, 3, 2, 4).reshape(len(images), -1))
        for m in (colours, kinds)
    )


def centres(
    images: list[list[VisibleObject]],
) -> tuple[torch.Tensor, dict[tuple[int, int], VisibleObject]]:
    """Which cells hold an object's centre, (n, 49), and the object of each; the nearest of two."""
    there = torch.zeros(len(images), CELLS * CELLS)
    cells: dict[tuple[int, int], VisibleObject] = {}
    for i, objects in enumerate(images):
        for o in objects:
            x, y = (min(int(v * CELLS), CELLS - 1) for v in o.centre)
            at = (i, y * CELLS + x)
            there[at] = 1
            if at not in cells or (o.clear, -o.depth) > (cells[at].clear, -cells[at].depth):
                cells[at] = o
    return there, cells
