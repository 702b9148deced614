"""Training text from rooms: a question, then steps that each name an object and point at it.

    example = make_example(rng, take, question)          # plain text and the points in it, in order
    batch = collate([encode(tokenizer, e) for e in ...])  # padded arrays for one training step

The text is exactly what the chat template renders, so a model trained here is prompted correctly by
any program that uses the template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from training.nano.config import CELLS, TOKENS_PER_IMAGE
from training.nano.phrases import OTHER, REFERRED_FIRST, REFERRED_ONE, REFERRED_SECOND, VERIFY
from warehouse.sources.rooms_scene import KINDS

DIRECT_SHARE = 0.18  # of the sequences answer without steps, so that both ways were practised
STEP_WEIGHTS = {3: 0.6, 4: 0.2, 5: 0.1, 6: 0.06, 7: 0.04}  # how often k steps are asked for
IMAGE = "<|vision_start|>" + "<|image_pad|>" * TOKENS_PER_IMAGE + "<|vision_end|>"

# What a token's error counts. Names are largely a free choice and the last digit of a coordinate
# is under one per cent of the side; the leading digits and the answer mean reading the picture.
TEXT_WEIGHT, ANSWER_WEIGHT = 0.4, 6.0
DIGIT_WEIGHTS = (2.0, 1.0, 0.25)


@dataclass(frozen=True, slots=True)
class Spot:
    """One point of a text: where it is (0-1 of the side) and in which of the question's images."""

    x: float
    y: float
    image: int


@dataclass(frozen=True, slots=True)
class Example:
    prompt: str
    reply: str
    spots: tuple[Spot, ...]
    frames: tuple[int, ...]  # places of the pictures in the shard


def make_example(
    rng: np.random.Generator, take: dict, question: dict, direct: bool | None = None
) -> Example:
    """A worked answer to one question of a take (as `pool.load_shard` gives them)."""
    frames = [take["frames"][i] for i in question["frames"]]
    objects = [{name: (x, y, clear) for name, x, y, clear in f["objects"]} for f in frames]
    two = len(frames) == 2
    a, b = question["options"]
    text = f"{question['text']} Choices: {a} or {b}.\n"
    head, tail = f"<|im_start|>user\n{IMAGE * len(frames)}", "<|im_end|>\n<|im_start|>assistant\n"
    final = f"<answer>{question['answer']}</answer><|im_end|>"
    places = tuple(f["at"] for f in frames)
    if direct if direct is not None else rng.random() < DIRECT_SHARE:
        return Example(f"{head}{text}Answer directly.{tail}", final, (), places)
    k = int(rng.choice(list(STEP_WEIGHTS), p=list(STEP_WEIGHTS.values())))
    about = [(name, i) for name, i in question["about"]]
    names = list(dict.fromkeys(name for name, _ in about))
    if question["family"] == "count":
        # From left to right, as people count, so that what is still to come can be told.
        names.sort(key=lambda n: objects[0][n][0])
    elif question["family"] not in ("left_right", "above_below"):
        # There the object asked about comes first, then the one it is compared with: who is who
        # stays plain. Elsewhere the order is free.
        rng.shuffle(names)
    order = [(n, i) for n in names for i in range(len(frames)) if (n, i) in about]
    steps = [(n, i, "referred") for n, i in order]
    rest = [
        (n, i)
        for i in range(len(frames))
        for n, (*_, clear) in objects[i].items()
        if clear and (n, i) not in about
    ]
    rng.shuffle(rest)
    wanted = max(k + int(rng.random() < 0.15), len(steps))
    steps += [(n, i, "other") for n, i in rest[: wanted - len(steps)]]
    again: list[tuple[str, int]] = []
    while len(steps) < wanted:
        if not again:
            again = [(n, i) for n, i, kind in steps if kind != "verify"]
            rng.shuffle(again)
        steps.append((*again.pop(), "verify"))
    lines, spots = [], []
    for name, i, kind in steps:
        x, y, _ = objects[i][name]
        if kind == "verify":  # a second look lands close by, not on the same digits
            x, y = (float(np.clip(v + rng.uniform(-0.004, 0.004), 0, 1)) for v in (x, y))
        if kind == "referred":
            options = (REFERRED_FIRST, REFERRED_SECOND)[i] if two else REFERRED_ONE
        else:
            options = OTHER if kind == "other" else VERIFY
        phrase = str(rng.choice(options))
        if two and kind != "referred":  # say which picture is meant before pointing into it
            phrase = f"In the {('first', 'second')[i]} picture, " + phrase[0].lower() + phrase[1:]
        point = f"({round(x * 1000)}, {round(y * 1000)})" + (f" in image {i + 1}" if two else "")
        article = "an" if name[0] in "aeiou" else "a"
        lines.append(f"<think>{phrase.format(name=name, a=article, point=point)}</think>\n")
        spots.append(Spot(x, y, i))
    prompt = f"{head}{text}Think in at least {k} steps.{tail}"
    return Example(prompt, "".join(lines) + final, tuple(spots), places)


@dataclass(frozen=True, slots=True)
class Encoded:
    ids: list[int]
    weights: list[float]  # of each token as a target; 0 for the prompt
    looks: list[tuple[int, int]]  # (token inside a coordinate, image token it should look at)
    names: list[tuple[int, int]]  # (last word of the name before it, the same image token)
    frames: tuple[int, ...]


class Encoder:
    """Turns examples into ids, target weights and the places where attention should go."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        ids: Any = tokenizer.convert_tokens_to_ids
        self.tokenizer = tokenizer
        self.open, self.image = tokenizer.encode(" (")[0], ids("<|image_pad|>")
        self.answer = ids("<answer>")
        self.comma = tokenizer.encode("1, 2")[1]
        self.kinds = {tokenizer.encode(f" {kind}")[0] for kind in KINDS}
        self.inside = {self.comma, *(ids(str(d)) for d in range(10))}

    def __call__(self, example: Example) -> Encoded:
        prompt, reply = (self.tokenizer.encode(t) for t in (example.prompt, example.reply))
        ids, start = prompt + reply, len(prompt)
        pads = [i for i, t in enumerate(prompt) if t == self.image]
        weights, looks, names = [0.0] * start + [TEXT_WEIGHT] * len(reply), [], []
        answer = ids.index(self.answer, start)
        weights[answer + 1 : -2] = [ANSWER_WEIGHT] * (len(ids) - answer - 3)  # not the end marks
        openings = [i for i in range(start, answer) if ids[i] == self.open]
        for at, spot in zip(openings, example.spots, strict=True):
            column, row = (min(int(v * CELLS), CELLS - 1) for v in (spot.x, spot.y))
            target = pads[spot.image * TOKENS_PER_IMAGE + row * CELLS + column]
            named = max(i for i in range(start, at) if ids[i] in self.kinds)
            names.append((named, target))
            place = 0
            while ids[at + 1] in self.inside:  # up to the closing bracket
                looks.append((at, target))
                at += 1
                weights[at] = DIGIT_WEIGHTS[min(place, 2)]
                place = 0 if ids[at] == self.comma else place + 1
        return Encoded(ids, weights, looks, names, example.frames)


def positions(ids: np.ndarray, image: int) -> np.ndarray:
    """Qwen3-VL's three position rows for one sequence of single-size pictures, (3, n)."""
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
    looks, names = [], []
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n], weights[i, :n] = row.ids, row.weights
        where[:, i, :n] = positions(ids[i, :n], image)
        looks += [(i, at, to) for at, to in row.looks]
        names += [(i, at, to) for at, to in row.names]
    return {
        "ids": torch.from_numpy(ids),
        "weights": torch.from_numpy(weights),
        "positions": torch.from_numpy(where),
        "looks": torch.tensor(looks, dtype=torch.long).reshape(-1, 3),
        "names": torch.tensor(names, dtype=torch.long).reshape(-1, 3),
    }
