"""The pretraining pictures: drawn once, shrunk to the model's frame, kept as plain arrays.

A shard is a fixed function of its seed, so the same call continues an interrupted pool:

    make_pool(Path("runs/nano/pool"), shards=56, workers=2)
    frames, takes = load_shard(Path("runs/nano/pool"), 0)

`frames` is uint8 (n, 160, 160, 3); each take lists its frames with the objects in them (name,
centre as shares of the side, clearly visible or not) and some questions about them.
"""

from __future__ import annotations

import argparse
import json
import os
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from warehouse.sources.rooms_questions import CHANGE, FAMILIES, Balance, ask, sample_take
from warehouse.sources.rooms_scene import SIDE

MODEL_SIDE = 160  # pixels a side that the model sees; its processor resizes to the same
TAKES_PER_SHARD = 500
TRAIN_SEED = 40_000  # far from the seeds of the committed sample and of the tests


def make_shard(folder: Path, index: int) -> None:
    done = folder / f"{index:04d}.json"
    if done.exists():
        return
    rng = np.random.default_rng([TRAIN_SEED, index])
    balance = Balance(slack=2)
    frames: list[np.ndarray] = []
    takes: list[dict] = []
    for _ in range(TAKES_PER_SHARD):
        change = (None, None, "moved", "moved", "turned")[rng.integers(5)]
        easy = bool(rng.random() < 0.3)
        take = sample_take(rng, *((1, 3) if easy else (2, 5)), change)
        row: dict[str, Any] = {"easy": easy, "frames": [], "questions": []}
        for frame in take.frames:
            small = frame.image.resize((MODEL_SIDE, MODEL_SIDE), Image.Resampling.BICUBIC)
            objects = [
                (name, *(round(c / SIDE, 4) for c in frame.centre(name)), name in frame.clear)
                for name in frame.boxes
            ]
            row["frames"].append({"at": len(frames), "objects": objects})
            frames.append(np.asarray(small))
        plan = [(family, 0) for family in FAMILIES]
        if len(take.frames) == 2:
            plan += [(family, 1) for family in FAMILIES if family not in CHANGE]
        for family, which in plan:
            question = ask(rng, take, family, balance, which)
            if question:
                row["questions"].append(
                    {
                        "family": family,
                        "text": question.text,
                        "options": question.options,
                        "answer": question.answer,
                        "frames": question.frames,
                        "about": question.about,
                    }
                )
        takes.append(row)
    part = folder / f"{index:04d}.npy.part"
    with part.open("wb") as file:
        np.save(file, np.stack(frames))
    os.replace(part, folder / f"{index:04d}.npy")
    part = folder / f"{index:04d}.json.part"
    part.write_text(json.dumps(takes))
    os.replace(part, done)  # last: a shard with its .json is whole


def make_pool(folder: Path, shards: int, workers: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(shards) if not (folder / f"{i:04d}.json").exists()]
    if not missing:
        return
    with get_context("spawn").Pool(workers) as pool:
        jobs = [pool.apply_async(make_shard, (folder, i)) for i in missing]
        for done, job in enumerate(jobs, 1):
            job.get()
            print(f"pool: {done}/{len(missing)} shards drawn", flush=True)


def load_shard(folder: Path, index: int) -> tuple[np.ndarray, list[dict]]:
    frames = np.load(folder / f"{index:04d}.npy", mmap_mode="r", allow_pickle=False)
    return frames, json.loads((folder / f"{index:04d}.json").read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the pretraining pictures.")
    parser.add_argument("--out", type=Path, default=Path("runs/nano/pool"))
    parser.add_argument("--shards", type=int, default=56)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    make_pool(options.out, options.shards, options.workers)
