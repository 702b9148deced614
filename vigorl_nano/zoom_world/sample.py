"""Large pictures of signs with questions about them: the sample of the task `vstar`.

    python -m vigorl_nano.zoom_world.sample --out warehouse/sources/sample      # what is committed
    python -m vigorl_nano.zoom_world.sample --out runs/signs --questions 2000 --seed 7

Questions are of V*Bench's two kinds and of two more, and ask for a number that can't be read before
zooming in: eight or ten answers each. `direct_attributes` names the sign, `relative_position` its
neighbour, `search` a mark that shows only in a crop, `compare` a colour of two or three signs.
Beside each question lies what is in its picture: each sign's box in pixels, x2 and y2 exclusive;
and `target`, the boxes of the signs whose numbers are the answer.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vigorl_nano.sample_file import IMAGE, OBJECTS, describe, object_row, write_rows
from vigorl_nano.zoom_world.draw import draw
from vigorl_nano.zoom_world.scene import KINDS, Scene, ask, make_scene

SPLITS = {"train": (61_251, 320), "test": (61_252, 120)}
"""Committed: seed and number of questions of each."""
TAKEN_SEEDS = (41, 61_253, 61_254, *(seed for seed, _ in SPLITS.values()))
"""Of the committed splits, of training (`zoom.yaml`), and of `tiles`."""
SIDES = (1024, 1280, 1536, 1792, 2048)
"""Pixels a side of a picture."""
QUALITY = 80
"""Of the stored WebP."""

SCHEMA = pa.schema(
    [
        ("image", IMAGE),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("category", pa.string()),
        ("objects", OBJECTS),
        ("target", OBJECTS),
    ]
)


def render_picture(scene: Scene, side: int) -> tuple[bytes, list[dict[str, Any]]]:
    """Render the stored picture, and list the signs in it."""
    out = io.BytesIO()
    draw(scene, side).save(out, "WEBP", quality=QUALITY, method=6)
    boxes = ([round(edge * side, 1) for edge in sign.box] for sign in scene.signs)
    rows = [object_row(sign.name, box) for sign, box in zip(scene.signs, boxes, strict=True)]
    return out.getvalue(), rows


def rows_of(split: str, seed: int, questions: int) -> Iterator[list[dict[str, Any]]]:
    """Make the rows about each picture, a question of each kind.

    A picture depends on its number alone.
    """
    number, left = 0, questions
    while left > 0:
        rng = np.random.default_rng([seed, number])
        scene = make_scene(rng)
        asked = [found for kind in KINDS if (found := ask(rng, scene, kind)) is not None]
        if len(asked) == len(KINDS):
            side = int(rng.choice(SIDES))
            data, objects = render_picture(scene, side)
            stored = {"bytes": data, "path": f"signs-{split}-{number:04}.webp"}
            yield [
                {
                    "image": stored,
                    "question": question.text,
                    "options": [],
                    "answer": question.answer,
                    "category": question.kind,
                    "objects": objects,
                    "target": [
                        row for row in objects if row["label"] in {s.name for s in question.meant}
                    ],
                }
                for question in asked[:left]
            ]
            left -= len(asked)
        number += 1


def write_split(out: Path, split: str, seed: int, questions: int) -> Path:
    """Write a split's file and return its path."""
    return write_rows(out / f"signs-{split}.parquet", SCHEMA, rows_of(split, seed, questions))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write large pictures of signs with questions.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the Parquet files")
    parser.add_argument("--questions", type=int, help="write a split `generated` with this many")
    parser.add_argument("--seed", type=int, help="of the split `generated`")
    args = parser.parse_args()
    jobs = dict(SPLITS)
    if args.questions is not None or args.seed is not None:
        if not args.questions or args.seed is None or args.seed in TAKEN_SEEDS:
            parser.error(
                f"a generated split needs --questions, and a --seed that is none of {TAKEN_SEEDS}"
            )
        jobs = {"generated": (args.seed, args.questions)}
    args.out.mkdir(parents=True, exist_ok=True)
    for split, (seed, questions) in jobs.items():
        print(describe(write_split(args.out, split, seed, questions)))


if __name__ == "__main__":
    main()
