"""Examples as training arrays: token ids, what each token's error counts, where to look.

encoder = Encoder(tokenizer)
batch = collate([encoder(e) for e in examples], tokenizer.pad_token_id, image_token)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from vigorl_nano.pretraining.config import CELLS, LOOK_HEADS, TOKENS_PER_IMAGE
from vigorl_nano.pretraining.data import Example
from vigorl_nano.rooms.objects import COLOURS, KINDS

# What a token's error counts. How a step is worded is largely a free choice and the last digit of
# a coordinate is under one per cent of the side; names, leading digits and the answer mean reading
# the image.
TEXT_WEIGHT, NAME_WEIGHT, ANSWER_WEIGHT = 0.15, 1.0, 5.0
DIGIT_WEIGHTS = (2.0, 1.0, 0.25)
# Where a step holds what may decide an answer. What ends a number has seen all its digits.
EVIDENCE_PATTERNS = {
    "x": re.compile(r" at \((\d+,)"),
    "y": re.compile(r" at \(\d+, (\d+\))"),
    "depth": re.compile(r" ([\d.]+ m) away"),
    "colour": re.compile(rf"<think>[^<]*\b({'|'.join(COLOURS)})\b"),
    "name": re.compile(rf"<think>[^<]*\b((?:{'|'.join(COLOURS)}) (?:{'|'.join(KINDS)}))\b"),
}


@dataclass(frozen=True, slots=True)
class Encoded:
    ids: list[int]
    weights: list[float]  # of each token as a target; 0 for the prompt
    looks: list[tuple[int, int]]  # (token inside a coordinate, image token it should look at)
    names: list[tuple[int, int]]  # (last word of the name before it, the same image token)
    evidence: list[tuple[int, int, int, int]]  # (head, token, first and last it should look at)
    frames: tuple[int, ...]
    blind: bool


class Encoder:
    """Turns examples into ids, target weights and the places where attention should go."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        ids: Any = tokenizer.convert_tokens_to_ids
        self.tokenizer = tokenizer
        self.open, self.image = tokenizer.encode(" (")[0], ids("<|image_pad|>")
        self.answer = ids("<answer>")
        self.comma = tokenizer.encode("1, 2")[1]
        self.kinds = {word_id(tokenizer, kind) for kind in KINDS}
        self.words = {*self.kinds, *(word_id(tokenizer, colour) for colour in COLOURS)}
        self.digits = {ids(str(d)) for d in range(10)}

    def __call__(self, example: Example) -> Encoded:
        texts = [example.prompt, example.reply]
        read = self.tokenizer(texts, return_offsets_mapping=True)
        prompt, reply = read["input_ids"]
        ids, start = prompt + reply, len(prompt)
        weights = [0.0] * start + [
            NAME_WEIGHT if t in self.words else 2 * TEXT_WEIGHT if t in self.digits else TEXT_WEIGHT
            for t in reply
        ]
        answer = ids.index(self.answer, start) if self.answer in reply else len(ids) - 1
        if answer < len(ids) - 1:  # not the end marks
            weights[answer + 1 : -2] = [ANSWER_WEIGHT] * (len(ids) - answer - 3)
        pads = [i for i, t in enumerate(prompt) if t == self.image]
        openings = [i for i in range(start, answer) if ids[i] == self.open]
        looks, names = [], []
        for at, spot in zip(openings, example.spots, strict=True):
            column, row = (min(int(v * CELLS), CELLS - 1) for v in (spot.x, spot.y))
            target = pads[spot.image * TOKENS_PER_IMAGE + row * CELLS + column]
            names.append((max(i for i in range(start, at) if ids[i] in self.kinds), target))
            place = 0
            while ids[at + 1] in self.digits or ids[at + 1] == self.comma:
                looks.append((at, target))
                at += 1
                weights[at] = DIGIT_WEIGHTS[min(place, 2)]
                place = 0 if ids[at] == self.comma else place + 1
        if example.blind:
            # Nothing to read: names and digits are made up, and count little. Were their weight
            # nothing at all, the answers' large one would put answers where names should be.
            weights[start:answer] = [min(w, 2 * TEXT_WEIGHT) for w in weights[start:answer]]
            looks, names = [], []
        evidence = self.spans(example, answer, read["offset_mapping"])
        return Encoded(ids, weights, looks, names, evidence, example.frames, example.blind)

    def spans(
        self, example: Example, answer: int, read: list[list[tuple[int, int]]]
    ) -> list[tuple[int, int, int, int]]:
        """Find where the answer should look: at what decides it, in each of the first steps.

        `read` holds the characters of each token, of the prompt and of the reply.
        """
        if not example.evidence or example.blind:
            return []
        before = len(example.prompt)
        offsets = read[0] + [(a + before, b + before) for a, b in read[1]]
        found = []
        steps = EVIDENCE_PATTERNS[example.evidence].finditer(example.prompt + example.reply)
        for head, match in enumerate(steps):
            if head == LOOK_HEADS:
                break
            inside = [
                i for i, (a, b) in enumerate(offsets) if a < match.end(1) and b > match.start(1)
            ]
            found.append((head, answer, inside[0], inside[-1]))
        return found


def word_id(tokenizer: PreTrainedTokenizerBase, word: str) -> int:
    """Return the one token of a word inside a sentence."""
    (token,) = tokenizer.encode(f" {word}")
    return token


def positions(ids: np.ndarray, image: int) -> np.ndarray:
    """Return Qwen3-VL's position rows for a sequence of single-size images, (3, n)."""
    out = np.empty((3, len(ids)), dtype=np.int64)
    at = now = 0
    cell = np.arange(TOKENS_PER_IMAGE)
    while at < len(ids):
        if ids[at] == image:
            out[0, at : at + TOKENS_PER_IMAGE] = now
            out[1, at : at + TOKENS_PER_IMAGE] = now + cell // CELLS
            out[2, at : at + TOKENS_PER_IMAGE] = now + cell % CELLS
            at, now = at + TOKENS_PER_IMAGE, now + CELLS
        else:
            out[:, at] = now
            at, now = at + 1, now + 1
    return out


def collate(rows: list[Encoded], pad: int, image: int) -> dict[str, torch.Tensor]:
    """Right-padded tensors; with causal attention the padding needs no mask."""
    length = max(len(r.ids) for r in rows)
    ids = np.full((len(rows), length), pad)
    weights = np.zeros((len(rows), length), dtype=np.float32)
    where = np.zeros((3, len(rows), length), dtype=np.int64)
    looks, names, evidence = [], [], []
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n], weights[i, :n] = row.ids, row.weights
        where[:, i, :n] = positions(ids[i, :n], image)
        looks += [(i, at, to) for at, to in row.looks]
        names += [(i, at, to) for at, to in row.names]
        evidence += [(i, *where) for where in row.evidence]
    return {
        "ids": torch.from_numpy(ids),
        "weights": torch.from_numpy(weights),
        "positions": torch.from_numpy(where),
        "looks": torch.tensor(looks, dtype=torch.long).reshape(-1, 3),
        "names": torch.tensor(names, dtype=torch.long).reshape(-1, 3),
        "evidence": torch.tensor(evidence, dtype=torch.long).reshape(-1, 5),
    }
