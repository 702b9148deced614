"""Adds screens of a launcher to the sample of the task `web-grounding`: tiles to click.

    python -m vigorl_nano.zoom_world.tiles --into warehouse/sources/sample    # what is committed

The embedded model that zooms can't read the words of real pages; it knows colours, shapes and a few
icons. Two questions are asked about a screen: `tile` names a tile by what shows from afar, and
`tile_icon` by its colour and an icon that shows only in a crop. Rows have the columns of
`vigorl_nano.browser.screens`, which writes the real pages; tiles that a file holds already are
replaced.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vigorl_nano.sample_file import describe, write_rows
from vigorl_nano.zoom_world.sample import render_picture
from vigorl_nano.zoom_world.scene import CLICK_KINDS, ask, make_scene

SPLITS = {"train": (61_253, 24), "test": (61_254, 8)}
"""Seed and number of screens of each."""
SIDES = (1024, 1280)
"""Pixels a side of a screen."""
FAMILIES = {"click_tile": "tile", "click_icon": "tile_icon"}
"""`data_type` of each kind of question."""
NAMED = "tiles-"
"""How the names of these screens begin."""


def rows_of(split: str, seed: int, screens: int) -> Iterator[list[dict[str, Any]]]:
    """Make the rows about each screen, a question of each kind; none is asked twice."""
    number = made = 0
    used: set[str] = set()
    while made < screens:
        rng = np.random.default_rng([seed, number])
        scene = make_scene(rng, screen=True)
        asked = [found for kind in CLICK_KINDS if (found := ask(rng, scene, kind)) is not None]
        texts = {question.text for question in asked}
        if len(asked) == len(CLICK_KINDS) and not texts & used:
            used |= texts
            side = int(rng.choice(SIDES))
            data, objects = render_picture(scene, side)
            stored = {"bytes": data, "path": f"{NAMED}{split}-{number:04}.webp"}
            yield [
                {
                    "image": stored,
                    "instruction": question.text,
                    "bbox": [round(edge * side, 1) for edge in question.meant[0].box],
                    "data_type": FAMILIES[question.kind],
                    "objects": objects,
                }
                for question in asked
            ]
            made += 1
        number += 1


def add_tiles(folder: Path, split: str, seed: int, screens: int) -> Path:
    """Write a split's file anew with its real pages and these screens; return its path."""
    path = folder / f"screens-{split}.parquet"
    before = pq.read_table(path)
    return write_rows(path, before.schema, _groups(before, rows_of(split, seed, screens)))


def _groups(
    before: pa.Table, tiles: Iterator[list[dict[str, Any]]]
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each real page together, then those of each screen."""
    page: list[dict[str, Any]] = []
    for row in before.to_pylist():
        if row["image"]["path"].startswith(NAMED):
            continue
        if page and page[0]["image"]["path"] != row["image"]["path"]:
            yield page
            page = []
        page.append(row)
    if page:
        yield page
    yield from tiles


def main() -> None:
    parser = argparse.ArgumentParser(description="Add screens of a launcher to the sample.")
    parser.add_argument("--into", type=Path, required=True, help="folder of screens-*.parquet")
    folder = parser.parse_args().into
    for split, (seed, screens) in SPLITS.items():
        if not (folder / f"screens-{split}.parquet").is_file():
            parser.error(f"{folder} holds no screens-{split}.parquet")
        print(describe(add_tiles(folder, split, seed, screens)))


if __name__ == "__main__":
    main()
