"""Random access to the pool, and the batches that the two stages of pretraining learn from.

pool = FramePool(Path("runs/nano/pool"), shards=40)
batch = pool.pick(rng, takes=16, easy=0.2)     # mirrored and dimmed at random
groups = make_replies(rng, batch, encoder, plan)        # encoded answers, one-image ones first
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vigorl_nano.pretraining.data import (
    PRACTICE,
    RESPONSE_MODES,
    VisibleObject,
    make_example,
    mirror_take,
)
from vigorl_nano.pretraining.encode import Encoded, Encoder
from vigorl_nano.pretraining.pool import load_shard

GREY = 128


@dataclass(frozen=True, slots=True)
class Batch:
    """Some takes and their images, one take after the other."""

    takes: list[dict[str, Any]]
    starts: list[int]  # where each take's images begin
    frames: torch.Tensor  # uint8 (n, 196, 196, 3)
    objects: list[list[VisibleObject]]  # what each image shows


class FramePool:
    """Every shard's frames stay on disk, its takes in memory."""

    def __init__(self, folder: Path, shards: int) -> None:
        loaded = [load_shard(folder, i) for i in range(shards)]
        self.frames = [frames for frames, _ in loaded]
        self.takes = [(s, take) for s, (_, takes) in enumerate(loaded) for take in takes]
        self.easy = [row for row in self.takes if row[1]["easy"]]

    def pick(self, rng: np.random.Generator, takes: int, easy: float) -> Batch:
        """Draw takes at random, each from the easy ones with the given probability."""
        picked: list[dict[str, Any]] = []
        starts: list[int] = []
        frames: list[np.ndarray] = []
        objects: list[list[VisibleObject]] = []
        for _ in range(takes):
            rows = self.easy if rng.random() < easy else self.takes
            shard, take = rows[rng.integers(len(rows))]
            starts.append(len(frames))
            flip, light = rng.random() < 0.5, rng.uniform(0.88, 1.12)
            if flip:
                take = mirror_take(take)
            for frame in take["frames"]:
                pixels = np.asarray(self.frames[shard][frame["at"]])
                pixels = pixels[:, ::-1] if flip else pixels
                frames.append(np.minimum(pixels * np.float32(light), 255).astype(np.uint8))
                objects.append(frame["objects"])
            picked.append(take)
        return Batch(picked, starts, torch.from_numpy(np.stack(frames)), objects)


def make_replies(
    rng: np.random.Generator, batch: Batch, encoder: Encoder, plan: dict[str, Any]
) -> list[list[tuple[Encoded, list[int]]]]:
    """Make worked answers to a few questions of each take, with the batch's images that each shows.

    Those with one image and those with two come apart, so that little is padded.
    """
    shares = [plan["response_modes"].get(mode, 0.0) for mode in RESPONSE_MODES]
    one: list[tuple[Encoded, list[int]]] = []
    two: list[tuple[Encoded, list[int]]] = []
    for take, start in zip(batch.takes, batch.starts, strict=True):
        questions = take["questions"]
        odds = np.array([plan["families"].get(q["family"], 1.0) for q in questions], dtype=float)
        few = min(len(questions), plan["questions"])
        chosen = rng.choice(len(questions), few, False, odds / odds.sum()) if few else []
        for i in chosen:
            mode = RESPONSE_MODES[rng.choice(len(RESPONSE_MODES), p=shares)]
            if mode != "pointing" and questions[i]["family"] in plan.get("reading_only", ()):
                mode = "reading"
            blind = bool(rng.random() < plan["blind"]) and mode not in PRACTICE
            row = encoder(make_example(rng, take, questions[i], mode, blind))
            if mode == "reading" and rng.random() < plan["hidden"]:
                row = replace(row, blind=True)  # only the steps can tell
            shown = [start + f for f in row.frames]
            (one if len(shown) == 1 else two).append((row, shown))
    return [group for group in (one, two) if group]
