"""The empty room behind the objects: floor boards or tiles, walls, a window or pictures, shadows.

canvas = backdrop(scene)            # twice the stored size
canvas = lit(canvas.reduce(2), scene)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .rooms_draw import CEILING, OVER, parts, plinth
from .rooms_scene import SIDE, Camera, Room, Scene, to_pixels

Fill = Callable[[list, tuple], None]  # paints a flat polygon of the room in one colour
NEAR = 0.25  # metres: nothing nearer to the camera is drawn


def clipped(camera: Camera, corners: list[tuple[float, float, float]]) -> list[tuple] | None:
    """A flat polygon cut off at the near plane and projected; None when nothing is left of it."""
    seen = camera.view(np.array(corners))
    if seen[:, 2].min() < NEAR:
        kept = []
        for a, b in zip(seen, np.roll(seen, -1, axis=0), strict=True):
            if a[2] >= NEAR:
                kept.append(a)
            if (a[2] >= NEAR) != (b[2] >= NEAR):
                kept.append(a + (b - a) * (NEAR - a[2]) / (b[2] - a[2]))
        if len(kept) < 3:
            return None
        seen = np.array(kept)
    return [tuple(p) for p in to_pixels(seen) * OVER]


def tint(colour: tuple, factor: float) -> tuple[int, int, int]:
    red, green, blue = (int(min(255, max(0, c * factor))) for c in colour)
    return red, green, blue


def backdrop(scene: Scene) -> Image.Image:
    room, camera = scene.room, scene.camera
    rng = np.random.default_rng(room.decor)
    canvas = Image.new("RGB", (SIDE * OVER, SIDE * OVER), tint(room.wall, 1.06))
    pen = ImageDraw.Draw(canvas)
    w, d = room.half_width, room.depth

    def fill(corners: list, colour: tuple) -> None:
        polygon = clipped(camera, corners)
        if polygon:
            pen.polygon(polygon, fill=colour)

    # The wall towards the lamp is the darker one.
    left, right = (0.84, 0.98) if room.light[0] < 0 else (0.98, 0.84)
    fill([(-w, 0, -1), (-w, 0, d), (-w, CEILING, d), (-w, CEILING, -1)], tint(room.wall, left))
    fill([(w, 0, -1), (w, 0, d), (w, CEILING, d), (w, CEILING, -1)], tint(room.wall, right))
    fill([(-w, 0, d), (w, 0, d), (w, CEILING, d), (-w, CEILING, d)], tint(room.wall, 0.93))
    ceiling = [(-w, CEILING, -1), (w, CEILING, -1), (w, CEILING, d), (-w, CEILING, d)]
    fill(ceiling, (236, 234, 230))
    fill([(-w, 0, -1), (w, 0, -1), (w, 0, d), (-w, 0, d)], room.floor)
    floor_pattern(fill, room, rng)
    for side in (-w + 0.01, w - 0.01):
        board = [(side, 0, -1), (side, 0, d), (side, 0.12, d), (side, 0.12, -1)]
        fill(board, tint(room.wall, 1.12))
    fill([(-w, 0, d), (w, 0, d), (w, 0.12, d), (-w, 0.12, d)], tint(room.wall, 1.14))
    wall_decor(fill, room, rng)
    cast_shadows(canvas, scene)
    return canvas


def floor_pattern(fill: Fill, room: Room, rng: np.random.Generator) -> None:
    w, d = room.half_width, room.depth
    if room.floor_style == "planks":
        step = 0.32
        for i in range(int(2 * w / step) + 1):
            x = -w + i * step
            colour = tint(room.floor, rng.uniform(0.93, 1.07))
            fill([(x, 0, 0), (x + step - 0.015, 0, 0), (x + step - 0.015, 0, d), (x, 0, d)], colour)
            seam = tint(room.floor, 0.74)
            end = min(w, x + step)
            fill([(end - 0.02, 0, 0), (end, 0, 0), (end, 0, d), (end - 0.02, 0, d)], seam)
    elif room.floor_style == "tiles":
        step = 0.8
        for i in range(int(2 * w / step) + 1):
            for j in range(int(d / step) + 1):
                if (i + j) % 2 == 0:
                    continue
                x, z = -w + i * step, j * step
                x2, z2 = min(w, x + step), min(d, z + step)
                fill([(x, 0, z), (x2, 0, z), (x2, 0, z2), (x, 0, z2)], tint(room.floor, 0.87))
    if rng.random() < 0.45:
        x, z = rng.uniform(-1.2, 1.2), rng.uniform(3.0, 4.6)
        a, b = rng.uniform(1.1, 1.7), rng.uniform(0.8, 1.2)
        wool = tint(room.wall, rng.uniform(0.72, 0.9))
        for grow, colour in ((1.0, tint(wool, 0.86)), (0.92, wool)):
            ring = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            fill([(x + a * grow * np.cos(t), 0.0, z + b * grow * np.sin(t)) for t in ring], colour)


def wall_decor(fill: Fill, room: Room, rng: np.random.Generator) -> None:
    """A window or a few framed prints in muted tones that no named object shares."""
    w, z = room.half_width, room.depth - 0.02

    def rectangle(x: float, y: float, width: float, height: float, colour: tuple) -> None:
        fill([(x, y, z), (x + width, y, z), (x + width, y + height, z), (x, y + height, z)], colour)

    style = rng.integers(3)
    if style == 0:
        x = rng.uniform(-w + 0.4, w - 2.2)
        rectangle(x - 0.08, 0.97, 1.76, 1.36, (238, 236, 230))
        for i in range(2):
            for j in range(2):
                pane = (206, 222, 232) if j else (214, 226, 230)
                rectangle(x + i * 0.82, 1.05 + j * 0.62, 0.78, 0.58, pane)
    elif style == 1:
        for i in range(int(rng.integers(1, 4))):
            x, y = -w + 0.5 + i * 1.9 + rng.uniform(0, 0.7), rng.uniform(1.2, 1.5)
            width, height = rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.8)
            rectangle(x - 0.05, y - 0.05, width + 0.1, height + 0.1, (86, 76, 68))
            rectangle(x, y, width, height, (232, 228, 218))
            motif = tint(room.wall, 0.7)
            rectangle(x + width * 0.2, y + height * 0.2, width * 0.6, height * 0.35, motif)


def cast_shadows(canvas: Image.Image, scene: Scene) -> None:
    """Every mesh flattened onto the floor along the light, blurred, and laid on as shade."""
    light, camera = np.array(scene.room.light), scene.camera
    small = SIDE // 2
    mask = Image.new("L", (small, small), 0)
    pen = ImageDraw.Draw(mask)
    for thing in scene.things:
        meshes = [m[0] for m in plinth(thing)]
        if thing.kind == "ball":
            r = 0.36 * thing.scale
            ring = np.linspace(0, 2 * np.pi, 20, endpoint=False)
            disc = np.column_stack([r * np.cos(ring), np.zeros(20), r * np.sin(ring)])
            meshes.append(disc + np.array([thing.x, thing.base + r, thing.z]))
        else:
            meshes += [m[0] for m in parts(thing)]
        for vertices in meshes:
            flat = vertices - light * (vertices[:, 1] / light[1])[:, None]
            seen = camera.view(flat)
            if seen[:, 2].min() < NEAR:
                continue
            outline = hull(to_pixels(seen) * (small / SIDE))
            if len(outline) >= 3:
                pen.polygon(outline, fill=120)
    mask = mask.filter(ImageFilter.GaussianBlur(1.6)).resize(canvas.size, Image.Resampling.BILINEAR)
    canvas.paste((34, 28, 30), (0, 0), mask)


def hull(points: np.ndarray) -> list[tuple[float, float]]:
    """Convex hull by the monotone chain."""
    ordered = sorted({(float(x), float(y)) for x, y in points})
    halves = []
    for sequence in (ordered, ordered[::-1]):
        chain: list[tuple[float, float]] = []
        for p in sequence:
            while (
                len(chain) >= 2
                and (
                    (chain[-1][0] - chain[-2][0]) * (p[1] - chain[-2][1])
                    - (chain[-1][1] - chain[-2][1]) * (p[0] - chain[-2][0])
                )
                <= 0
            ):
                chain.pop()
            chain.append(p)
        halves += chain[:-1]
    return halves


@lru_cache(maxsize=32)
def glow(bucket: int) -> Image.Image:
    """A soft pool of light; the picture is multiplied by it."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    centre = (0.15 + 0.1 * (bucket % 8), 0.35 + 0.08 * (bucket // 8))
    fall = np.hypot(x - centre[0], (y - centre[1]) * 0.9)
    values = np.clip(1.06 - 0.3 * fall**1.4, 0, 1)
    layer = Image.fromarray((values * 255).astype(np.uint8))
    return Image.merge("RGB", (layer, layer, layer))


def lit(image: Image.Image, scene: Scene) -> Image.Image:
    bucket = scene.room.decor % 4 * 8 + (2 if scene.room.light[0] < 0 else 5)
    return ImageChops.multiply(image, glow(bucket))
