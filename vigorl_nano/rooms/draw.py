"""Draws a scene, and says exactly which pixels of each object can be seen.

    sight = look(scene)             # coarse and quick: enough to turn down a scene
    rendering = draw(scene, 196)      # the finished image
    rendering.image, rendering.boxes["red ball"], rendering.clear

An image is a pure function of its scene: the same bytes on every call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from vigorl_nano.rooms.ray_caster import Hits, PerspectiveProjection, Table, cast
from vigorl_nano.rooms.scene import FOCAL, SIDE, Scene, distance
from vigorl_nano.rooms.shading import shade
from vigorl_nano.rooms.shapes import decoration, furniture

LOOK = 140  # rows and columns that `look` casts
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Sight:
    """What the camera sees of each named object; pixels are those of the stored side, 392."""

    boxes: dict[str, Box]  # visible extent in pixels, x2 and y2 exclusive; absent when unseen
    clear: frozenset[str]  # names that are wholly in the frame, mostly unhidden and not too small
    shown: dict[str, float]  # share of the object's own pixels that nothing hides, 0 to 1
    depths: dict[str, float]  # metres from the camera to the object's middle


@dataclass(frozen=True, slots=True)
class Rendering(Sight):
    """A sight with its image, RGB, as many pixels a side as were asked for."""

    image: Image.Image


def eye_of(scene: Scene, side: int) -> PerspectiveProjection:
    camera = scene.camera
    return PerspectiveProjection(side, FOCAL * side / SIDE, camera.height, camera.yaw, camera.pitch)


def visibility(scene: Scene, table: Table, hits: Hits, strict: float) -> Sight:
    """Find boxes and clear names; `strict` stored pixels more are needed to be clear."""
    scale = SIDE / hits.solid.shape[0]
    boxes: dict[str, Box] = {}
    shown: dict[str, float] = {}
    clear = set()
    for number, thing in enumerate(scene.things, 1):
        name = thing.name
        shown[name] = 0.0
        if not hits.own.get(number):
            continue
        rows, columns = hits.areas[number]
        mine = table.owner[hits.solid[rows, columns]] == number
        shown[name] = float(np.count_nonzero(mine)) / hits.own[number]
        if not shown[name]:
            continue
        down, across = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
        x1, x2 = (columns.start + across[0]) * scale, (columns.start + across[-1] + 1) * scale
        y1, y2 = (rows.start + down[0]) * scale, (rows.start + down[-1] + 1) * scale
        boxes[name] = (float(x1), float(y1), float(x2), float(y2))
        whole = min(x1, y1) >= 3 + strict and max(x2, y2) <= SIDE - 3 - strict
        large = min(x2 - x1, y2 - y1) >= 24 + strict
        if whole and large and shown[name] >= 0.6 + 0.01 * strict:
            clear.add(name)
    depths = {thing.name: distance(scene, thing) for thing in scene.things}
    return Sight(boxes, frozenset(clear), shown, depths)


def look(scene: Scene) -> Sight:
    """Find what the camera sees, without the cost of a finished image.

    Boxes are good to about three stored pixels. `clear` is a little stricter than that of `draw`,
    so that what is clear here is clear there.
    """
    table = Table.of(furniture(scene))
    return visibility(scene, table, cast(table, eye_of(scene, LOOK)), strict=3.0)


def draw(scene: Scene, side: int = SIDE, over: int = 2) -> Rendering:
    """Draw the finished image, `side` pixels a side, from `over` x `over` rays a pixel.

    Boxes are exact to one ray and in pixels of the stored side, whatever `side` is.
    """
    things = furniture(scene)
    table = Table.of([*things, *decoration(scene.room)])
    eye = eye_of(scene, side * over)
    hits = cast(table, eye)
    sight = visibility(scene, table, hits, strict=0.0)
    light = shade(scene, table, Table.of(things), eye, hits)
    image = Image.fromarray(tone_map(light, over))
    return Rendering(sight.boxes, sight.clear, sight.shown, sight.depths, image)


@lru_cache(maxsize=8)
def vignette(side: int) -> np.ndarray:
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side - 0.5
    return (1.06 - 0.42 * (x * x + y * y)).astype(np.float32)


def tone_map(light: np.ndarray, over: int) -> np.ndarray:
    """Average rays to pixels and turn linear light (3, n, n) into bytes (side, side, 3).

    What is too bright is dimmed as a whole, so that an orange never turns yellow.
    """
    mean = np.zeros((3, light.shape[1] // over, light.shape[2] // over), np.float32)
    for i in range(over):
        for j in range(over):
            mean += light[:, i::over, j::over]
    mean *= vignette(mean.shape[1]) / np.float32(over**2)
    top = np.maximum(mean.max(axis=0), np.float32(1e-6))
    high = np.float32(0.75) + np.float32(0.25) * np.tanh(
        (top - np.float32(0.75)) / np.float32(0.45)
    )
    mean *= np.where(top > 0.75, high / top, np.float32(1))
    return (np.sqrt(mean) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0).copy()
