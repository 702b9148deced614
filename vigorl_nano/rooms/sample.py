"""Rendered rooms with questions, in exactly SAT-v2's published schema.

    python -m vigorl_nano.rooms --out warehouse/sources/sample    # the committed files
    python -m vigorl_nano.rooms --out runs/rooms --split held-out --questions 4200
    python -m vigorl_nano.rooms --out runs/rooms --split generated --questions 9000 --seed 7

A split is a fixed function of its seed and size, however many workers draw it: it is made in
numbered blocks, each with random numbers of its own. A block looks at more rooms than it needs,
asks every family about them, keeps the questions whose words together tell nothing
(`balance.evened`) and only then draws the images. Beside the questions lies the truth about
the images, `rooms-*.objects.parquet`: for each stored image (by the SHA-256 of its bytes) the
visible extent of each object in pixels (x2 and y2 exclusive), how far it is and how much it shows.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vigorl_nano.rooms.balance import Balance, even_out
from vigorl_nano.rooms.draw import draw
from vigorl_nano.rooms.questions import RoomQuestion, ask
from vigorl_nano.rooms.scene import Scene
from vigorl_nano.rooms.takes import Take, sample_take
from vigorl_nano.rooms.wording import CHANGE, FAMILIES

SPLITS = {"train": (30_251, 180), "test": (30_252, 240), "gate": (30_254, 480)}
"""The committed splits: seed, number of questions."""
SMALL = ("gate",)
"""Splits whose images are stored as WebP, at less than half the size."""
HELD_OUT_SEED = 30_253
TAKEN_SEEDS = (
    30_251,
    30_252,
    30_253,
    30_254,
    40_000,
)  # 40_000: pretraining (vigorl_nano/pretraining/pool.py)
SHARE = 50  # questions of each family in a whole block
SPARE = 1.5  # takes with a candidate for each question that is kept
TRIES = 2  # times a family is asked about one take; once about its change
OVER = 3  # finer than the pixels by this factor before averaging
JPEG_QUALITY = 88
WEBP_QUALITY = 75

QUESTION_SCHEMA = pa.schema(
    [
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("correct_answer", pa.string()),
        ("question_type", pa.string()),
    ]
)
_NUMBERS = ("x1", "y1", "x2", "y2", "depth", "shown")  # pixels; metres; a share from 0 to 1
_OBJECT = [("label", pa.string()), *((name, pa.float64()) for name in _NUMBERS)]
OBJECT_SCHEMA = pa.schema(
    [
        ("image_sha256", pa.string()),
        ("objects", pa.list_(pa.struct(_OBJECT))),
    ]
)


@dataclass(frozen=True, slots=True)
class Block:
    """A numbered part of a split: `share` questions of each family."""

    split: str
    seed: int
    number: int
    share: int
    families: tuple[str, ...] = FAMILIES


def blocks(
    split: str, seed: int, questions: int, families: tuple[str, ...] = FAMILIES
) -> list[Block]:
    """Split a split into blocks; ValueError where families would not get equally many."""
    each, over = divmod(questions, len(families))
    if over or each < 1:
        raise ValueError(f"the number of questions must be a multiple of {len(families)}")
    return [
        Block(split, seed, number, min(SHARE, each - start), families)
        for number, start in enumerate(range(0, each, SHARE))
    ]


def plan_block(block: Block) -> list[tuple[Take, list[RoomQuestion]]]:
    """Plan a block: its takes, not yet drawn, each with the questions kept about it."""
    rng = np.random.default_rng([block.seed, block.number])
    balance = Balance(slack=np.inf)  # guides the drafts; what is kept is chosen below
    wanted = ceil(SPARE * block.share)
    takes: list[Take] = []
    found: dict[str, list[tuple[int, RoomQuestion]]] = {family: [] for family in block.families}
    while True:
        lacking = [f for f in block.families if len(found[f]) < wanted]
        if not lacking:
            break
        needed = min(lacking, key=lambda f: len(found[f]))
        take = sample_take(rng, 2, 8, CHANGE.get(needed), images=False)
        for family in block.families:
            times = 1 if family in CHANGE else TRIES
            drafts = [ask(rng, take, family, balance) for _ in range(times)]
            # Of two questions about the same objects, one: they would be much the same.
            differing = {frozenset(q.about): q for q in drafts if q is not None}
            found[family] += [(len(takes), question) for question in differing.values()]
        takes.append(take)
    kept: list[list[RoomQuestion]] = [[] for _ in takes]
    for pairs in found.values():
        for i in even_out([question.notes for _, question in pairs], block.share):
            kept[pairs[i][0]].append(pairs[i][1])
    return [(take, mine) for take, mine in zip(takes, kept, strict=True) if mine]


def render_image(scene: Scene, small: bool = False) -> tuple[bytes, list[dict[str, Any]]]:
    """Render the stored image, a fixed function of the scene, and list the objects in it."""
    rendering = draw(scene, over=OVER)
    out = io.BytesIO()
    if small:
        rendering.image.save(out, "WEBP", quality=WEBP_QUALITY, method=6)
    else:
        # Colour at half the resolution: no model reads the images finer than that.
        rendering.image.save(out, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0", optimize=True)
    objects = [
        dict(
            zip(
                ("label", *_NUMBERS),
                (name, *box, rendering.depths[name], rendering.shown[name]),
                strict=True,
            )
        )
        for name, box in rendering.boxes.items()
    ]
    return out.getvalue(), objects


def rows_of(block: Block) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make a block's question rows and object rows, with its images."""
    rows, truth = [], {}
    small = block.split in SMALL
    suffix = "webp" if small else "jpg"
    for number, (take, questions) in enumerate(plan_block(block)):
        stored = {}
        for i in sorted({i for question in questions for i in question.frames}):
            data, objects = render_image(take.frames[i].scene, small)
            path = f"rooms-{block.split}-{block.number:04d}-{number:04d}-{i}.{suffix}"
            stored[i] = {"bytes": data, "path": path}
            truth[hashlib.sha256(data).hexdigest()] = objects
        for question in questions:
            rows.append(
                {
                    "images": [stored[i] for i in question.frames],
                    "question": question.text,
                    "answers": list(question.options),
                    "correct_answer": question.answer,
                    "question_type": question.family,
                }
            )
    return rows, [{"image_sha256": digest, "objects": seen} for digest, seen in truth.items()]


def make_blocks(
    parts: list[Block], workers: int
) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    if workers < 2 or len(parts) < 2:
        yield from map(rows_of, parts)
        return
    with get_context("spawn").Pool(min(workers, len(parts))) as pool:
        yield from pool.imap(rows_of, parts)


def write_split(
    out: Path,
    split: str,
    seed: int,
    questions: int,
    workers: int = 1,
    progress: bool = False,
    families: tuple[str, ...] = FAMILIES,
) -> dict[str, int]:
    """Write one split's two files; return the numbers of questions, images and bytes.

    Each block is a row group, written as soon as it is drawn: memory does not grow with the split.
    The files appear under their names only when they are whole.
    """
    parts = blocks(split, seed, questions, families)
    paths = [out / f"rooms-{split}.parquet", out / f"rooms-{split}.objects.parquet"]
    unfinished = [path.with_name(path.name + ".part") for path in paths]
    counts = [0, 0]
    # An image that several questions share is stored once: the dictionary holds them all.
    settings = {
        "compression": "zstd",
        "dictionary_pagesize_limit": 64 << 20,
        "data_page_size": 64 << 20,
    }
    schemas = (QUESTION_SCHEMA, OBJECT_SCHEMA)
    files = [pq.ParquetWriter(p, s, **settings) for p, s in zip(unfinished, schemas, strict=True)]
    for done, both in enumerate(make_blocks(parts, workers), 1):
        for i, rows in enumerate(both):
            table = pa.Table.from_pylist(rows, schemas[i])
            files[i].write_table(table, row_group_size=len(table))
            counts[i] += len(rows)
        if progress:
            print(f"{split}: {counts[0]}/{questions} questions, block {done}", file=sys.stderr)
    for file, part, path in zip(files, unfinished, paths, strict=True):
        file.close()
        os.replace(part, path)
    size = sum(path.stat().st_size for path in paths)
    return {"questions": counts[0], "images": counts[1], "bytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write rendered rooms with questions.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the Parquet files")
    parser.add_argument(
        "--split",
        choices=("committed", "held-out", "generated"),
        default="committed",
        help="committed: the embedded train, test and gate files",
    )
    parser.add_argument("--questions", type=int, default=4200, help="a multiple of 12")
    parser.add_argument("--seed", type=int, help="of a generated split")
    parser.add_argument("--workers", type=int, default=2, help="processes; the files stay the same")
    args = parser.parse_args()
    jobs = dict(SPLITS)
    if args.split == "held-out":
        jobs = {"held-out": (HELD_OUT_SEED, args.questions)}
    elif args.split == "generated":
        if args.seed is None or args.seed in TAKEN_SEEDS:
            parser.error(f"a generated split needs a --seed other than {TAKEN_SEEDS}")
        jobs = {"generated": (args.seed, args.questions)}
    try:
        for split, (seed, size) in jobs.items():
            blocks(split, seed, size)
    except ValueError as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    for split, (seed, size) in jobs.items():
        counts = write_split(args.out, split, seed, size, args.workers, progress=True)
        print(f"{split}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))


if __name__ == "__main__":
    main()
