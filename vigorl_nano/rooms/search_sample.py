"""Large images of rooms with small things in them: the sample of the task `vstar`.

    python -m vigorl_nano.rooms.search_sample --out warehouse/sources/sample    # what is committed

Questions have V*Bench's two forms. `direct_attributes`: the colour of the only ball, box or vase
(four options, a guess gets 25%). `relative_position`: whether one thing is on the left or the right
side of another (two options, 50%). The things asked about are small, 30 to 220 pixels of 2048; what
fills the image is furniture, which is never asked about. Beside each question lies what is
visible in its image: each object's box in pixels, x2 and y2 exclusive.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from vigorl_nano.rooms.draw import Box, draw, eye_of, visibility
from vigorl_nano.rooms.objects import COLOURS, MATERIALS, SIZES
from vigorl_nano.rooms.ray_caster import Table, cast
from vigorl_nano.rooms.scene import (
    FOCAL,
    SIDE,
    Scene,
    Thing,
    are_apart,
    corners,
    furnish,
    outline,
    overlap,
)
from vigorl_nano.rooms.shapes import furniture
from vigorl_nano.sample_file import IMAGE, OBJECTS, describe, object_row, write_rows

SPLITS = {"train": (60_251, 14), "test": (60_252, 8)}  # seed, images
ACROSS, DOWN = 2048, 1536  # pixels; drawn square, then cut above and below
SMALL = ("ball", "box", "vase")
LARGE = ("chair", "lamp", "shelf", "sofa", "table")
SIDES = ((30, 110), (130, 300))
"""Pixels of a thing's shorter side, at least, and longer side, at most: even images, odd ones."""
APART = 0.06  # of the width, between two middles that are told apart
OPTIONS = 4
QUALITY = 76  # of the stored WebP
_RAYS = 784  # rows and columns by which a scene is judged before it is drawn

SCHEMA = pa.schema(
    [
        ("image", IMAGE),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("category", pa.string()),
        ("objects", OBJECTS),
    ]
)


@dataclass(frozen=True, slots=True)
class SearchRoom:
    """A room that can be asked about."""

    scene: Scene
    small: tuple[str, ...]
    """The names of the small things, all of them clear."""
    boxes: dict[str, Box]
    """What is visible of each object in the large image, as far as it is judged, in pixels."""


def boxes_of(seen: dict[str, Box], shown: dict[str, float]) -> dict[str, Box]:
    """Turn boxes in stored pixels of the square into boxes in the large image, cut to it."""
    scale, above = ACROSS / SIDE, (ACROSS - DOWN) / 2
    boxes = {}
    for name, (x1, y1, x2, y2) in seen.items():
        top, bottom = max(y1 * scale - above, 0.0), min(y2 * scale - above, float(DOWN))
        if bottom - top >= 1 and shown[name] > 0:
            boxes[name] = (x1 * scale, top, x2 * scale, bottom)
    return boxes


def find_room(rng: np.random.Generator, number: int) -> SearchRoom:
    """Find a furnished room with one small ball, box and vase, all seen clearly.

    Over six numbers each of the three has each colour once.
    """
    colours, sides = list(COLOURS), SIDES[number % 2]
    while True:
        names = [
            (colours[int(rng.integers(len(colours)))], LARGE[int(kind)])
            for kind in rng.permutation(len(LARGE))[: int(rng.integers(3, 6))]
        ]
        scene = furnish(rng, names)
        if scene is None:
            continue
        small = []
        for place, kind in enumerate(SMALL):
            colour = colours[(number + (place + number // 6) * 2) % len(colours)]
            thing = place_small(rng, scene, colour, kind, sides)
            if thing is None:
                break
            scene = replace(scene, things=(*scene.things, thing))
            small.append(thing.name)
        if len(small) < len(SMALL):
            continue
        table = Table.of(furniture(scene))
        sight = visibility(scene, table, cast(table, eye_of(scene, _RAYS)), strict=0.0)
        boxes = boxes_of(sight.boxes, sight.shown)
        if all(name in boxes and is_clear(boxes[name], sight.shown[name], sides) for name in small):
            return SearchRoom(scene, tuple(small), boxes)


def is_clear(box: Box, shown: float, sides: tuple[int, int]) -> bool:
    """Return whether a small thing is wholly seen, in the image, and of an allowed size."""
    x1, y1, x2, y2 = box
    inside = x1 > 12 and y1 > 12 and x2 < ACROSS - 12 and y2 < DOWN - 12
    width, height = x2 - x1, y2 - y1
    return (
        shown > 0.93
        and inside
        and min(width, height) >= sides[0]
        and max(width, height) <= sides[1]
    )


def place_small(
    rng: np.random.Generator, scene: Scene, colour: str, kind: str, sides: tuple[int, int]
) -> Thing | None:
    """Place a small thing on a free spot of the floor; None when forty tries find none."""
    camera, room = scene.camera, scene.room
    floors = [corners(thing) for thing in scene.things]
    outlines = [outline(camera, thing) for thing in scene.things]
    if room.plant:
        floors.append(np.array(room.plant) + 0.3 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]))
    cos, sin = np.cos(camera.yaw), np.sin(camera.yaw)
    material = str(rng.choice([m for m in MATERIALS[kind] if m != "metal"]))
    for _ in range(40):
        pixels = float(np.exp(rng.uniform(*np.log([sides[0], 0.8 * sides[1]]))))
        depth = rng.uniform(2.4, 6.4)
        right = rng.uniform(-0.5, 0.5) * SIDE / FOCAL * depth
        scale = pixels / (ACROSS / SIDE * FOCAL) * depth / min(SIZES[kind][:2])
        if not 0.12 <= scale <= 1:
            continue
        x, z = float(right * cos + depth * sin), float(depth * cos - right * sin)
        yaw = float(rng.uniform(-np.pi, np.pi))
        thing = Thing(colour, kind, x, z, 0.0, float(scale), yaw, material)
        floor = corners(thing)
        if abs(floor[:, 0]).max() > room.half_width - 0.05 or floor[:, 1].max() > room.depth - 0.05:
            continue
        rim = outline(camera, thing)
        free = all(are_apart(floor, other, 0.05) for other in floors)
        if free and not any(overlap(rim, other) > 0.02 for other in outlines):
            return thing
    return None


def render_image(found: SearchRoom, over: int = 1) -> tuple[bytes, list[dict]]:
    """Render the stored image, and list the objects seen in it."""
    rendering = draw(found.scene, ACROSS, over)
    above = (ACROSS - DOWN) // 2
    image: Image.Image = rendering.image.crop((0, above, ACROSS, above + DOWN))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY, method=6)
    boxes = boxes_of(rendering.boxes, rendering.shown)
    return out.getvalue(), [object_row(name, box) for name, box in boxes.items()]


def questions(rng: np.random.Generator, found: SearchRoom, number: int) -> Iterator[dict]:
    """Ask each small thing's colour, and the sides of each two that are clearly apart."""
    for place, name in enumerate(found.small):
        colour, kind = name.split()
        others = [other for other in COLOURS if other != colour]
        options = [others[int(i)] for i in rng.permutation(len(others))[: OPTIONS - 1]]
        options.insert((number + place) % OPTIONS, colour)
        yield {
            "question": f"What is the color of the {kind}?",
            "options": options,
            "answer": colour,
            "category": "direct_attributes",
        }
    order = [found.small[int(i)] for i in rng.permutation(len(found.small))]
    for a, b in pairwise(order):
        (left, _, right, _), (far_left, _, far_right, _) = found.boxes[a], found.boxes[b]
        between = (left + right) / 2 - (far_left + far_right) / 2
        if abs(between) < APART * ACROSS:
            continue
        options = ["left", "right"][:: 1 if number % 2 else -1]
        yield {
            "question": f"Is the {a} on the left or right side of the {b}?",
            "options": options,
            "answer": "left" if between < 0 else "right",
            "category": "relative_position",
        }


def rows_of(split: str, seed: int, images: int) -> Iterator[list[dict]]:
    """Make the rows about each image; an image depends only on its number."""
    for number in range(images):
        rng = np.random.default_rng([seed, number])
        found = find_room(rng, number)
        data, objects = render_image(found)
        stored = {"bytes": data, "path": f"search-{split}-{number:03}.webp"}
        yield [
            {"image": stored, **question, "objects": objects}
            for question in questions(rng, found, number)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write large rooms with small things in them.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the Parquet files")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for split, (seed, images) in SPLITS.items():
        path = args.out / f"search-{split}.parquet"
        print(describe(write_rows(path, SCHEMA, rows_of(split, seed, images))))


if __name__ == "__main__":
    main()
