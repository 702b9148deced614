"""The pretraining images: drawn once at the model's size, kept as plain arrays.

A shard is a fixed function of its seed, so the same call continues an interrupted pool:

    make_pool(Path("runs/nano/pool"), shards=40, workers=2)
    frames, takes = load_shard(Path("runs/nano/pool"), 0)

`frames` is uint8 (n, 196, 196, 3); each take lists its frames with the objects seen in them, and
some questions about them, whose frames are places among the take's.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import astuple
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from vigorl_nano.pretraining.config import SIDE as MODEL_SIDE
from vigorl_nano.pretraining.data import VisibleObject
from vigorl_nano.rooms.balance import Balance
from vigorl_nano.rooms.draw import draw
from vigorl_nano.rooms.questions import ask
from vigorl_nano.rooms.scene import SIDE
from vigorl_nano.rooms.takes import Take, sample_take
from vigorl_nano.rooms.wording import CHANGE, FAMILIES

TAKES_PER_SHARD = 400
TRAIN_SEED = 40_000  # far from the seeds of the samples and of the tests
EASY_SHARE = 0.25  # of the takes have few objects: what is read first is what stands alone


def make_shard(folder: Path, index: int) -> None:
    done = folder / f"{index:04d}.json"
    if done.exists():
        return
    rng = np.random.default_rng([TRAIN_SEED, index])
    balance = Balance(slack=2)
    frames: list[np.ndarray] = []
    takes: list[dict[str, Any]] = []
    for _ in range(TAKES_PER_SHARD):
        change = (None, None, None, "moved", "turned")[rng.integers(5)]
        easy = bool(rng.random() < EASY_SHARE)
        take = sample_take(rng, *((2, 3) if easy else (3, 8)), change, images=False)
        row: dict[str, Any] = {
            "easy": easy,
            "frames": [],
            "questions": questions(rng, take, balance),
        }
        for frame in take.frames:
            rendering = draw(frame.scene, side=MODEL_SIDE)
            seen = []
            for name, box in rendering.boxes.items():
                x1, y1, x2, y2 = (round(edge / SIDE, 4) for edge in box)
                depth = round(rendering.depths[name], 2)
                seen.append(VisibleObject(name, x1, y1, x2, y2, name in rendering.clear, depth))
            row["frames"].append({"at": len(frames), "objects": [astuple(o) for o in seen]})
            frames.append(np.asarray(rendering.image))
        takes.append(row)
    part = folder / f"{index:04d}.npy.part"
    with part.open("wb") as file:
        np.save(file, np.stack(frames))
    os.replace(part, folder / f"{index:04d}.npy")
    part = folder / f"{index:04d}.json.part"
    part.write_text(json.dumps(takes))
    os.replace(part, done)  # last: a shard with its .json is whole


def questions(rng: np.random.Generator, take: Take, balance: Balance) -> list[dict[str, Any]]:
    """Ask one question of each family that the take allows, about each of its frames."""
    plan = [(family, 0) for family in FAMILIES]
    if len(take.frames) == 2:
        plan += [(family, 1) for family in FAMILIES if family not in CHANGE]
    rows = []
    for family, which in plan:
        question = ask(rng, take, family, balance, which)
        if question:
            rows.append(
                {
                    "family": family,
                    "text": question.text,
                    "options": question.options,
                    "answer": question.answer,
                    "frames": question.frames,
                    "about": question.about,
                }
            )
    return rows


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


def load_shard(folder: Path, index: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Load a shard's frames, memory-mapped, and its takes with their `VisibleObject`s."""
    frames = np.load(folder / f"{index:04d}.npy", mmap_mode="r", allow_pickle=False)
    takes = json.loads((folder / f"{index:04d}.json").read_text())
    for take in takes:
        for frame in take["frames"]:
            frame["objects"] = [VisibleObject(*values) for values in frame["objects"]]
    return frames, takes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the pretraining images.")
    parser.add_argument("--out", type=Path, default=Path("runs/nano/pool"))
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    make_pool(options.out, options.shards, options.workers)
