"""Furniture and decoration as groups of simple solids, in metres.

`furniture(scene)` gives the named objects (owners 1, 2, ...), their stands and the potted plant,
`decoration(room)` what hangs on the walls. Only named objects wear the named colours.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from vigorl_nano.rooms.objects import COLOURS, STAND
from vigorl_nano.rooms.ray_caster import BALL, BOX, CONE, Group, Solid
from vigorl_nano.rooms.scene import Room, Scene, Thing

RGB = tuple[float, float, float]
STEEL: RGB = (120, 119, 122)
DARK: RGB = (58, 53, 52)
WHITE: RGB = (233, 231, 226)
OAK: RGB = (172, 148, 120)
STONE: RGB = (190, 186, 180)
LEAF: RGB = (118, 126, 116)
BOOKS: tuple[RGB, ...] = ((196, 188, 172), (120, 118, 120), (158, 150, 140), (214, 210, 202))


class Maker:
    """Collects solids of one object, its measures given at scale 1."""

    def __init__(self, scale: float, colour: RGB, material: str) -> None:
        self.scale, self.colour, self.material = scale, colour, material
        self.made: list[Solid] = []

    def _add(
        self, shape: int, size: tuple[float, ...], colour: RGB | None, material: str, **look: float
    ) -> None:
        scaled = tuple(float(v) * self.scale for v in size)
        paint, stuff = (self.colour, self.material) if colour is None else (colour, material)
        if "bevel" in look:
            look["bevel"] *= self.scale
        self.made.append(Solid(shape, scaled, paint, stuff, **look))  # type: ignore[arg-type]

    def box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        colour: RGB | None = None,
        material: str = "matt",
        **look: float,
    ) -> None:
        self._add(BOX, (x[0], y[0], z[0], x[1], y[1], z[1]), colour, material, **look)

    def cone(
        self,
        y: tuple[float, float],
        r: tuple[float, float],
        colour: RGB | None = None,
        material: str = "matt",
        at: tuple[float, float] = (0.0, 0.0),
        **look: float,
    ) -> None:
        self._add(CONE, (at[0], y[0], at[1], r[0], y[1], r[1]), colour, material, **look)

    def ball(
        self,
        centre: tuple[float, float, float],
        r: tuple[float, float, float],
        colour: RGB | None = None,
        material: str = "matt",
        **look: float,
    ) -> None:
        self._add(BALL, (*centre, *r), colour, material, **look)

    def legs(self, x: float, z: float, top: float, half: float) -> None:
        for i in (-x, x):
            for j in (-z, z):
                self.box((i - half, i + half), (0, top), (j - half, j + half))


def chair(m: Maker, variant: int) -> None:
    m.legs(0.215, 0.215, 0.43, 0.026)
    m.box((-0.25, 0.25), (0.42, 0.49), (-0.25, 0.25), bevel=0.02)
    for x in (-0.215, 0.215):
        m.box((x - 0.026, x + 0.026), (0.48, 0.95), (0.19, 0.24))
    if variant:
        m.box((-0.2, 0.2), (0.58, 0.94), (0.2, 0.235), bevel=0.02)
    else:
        for y in (0.58, 0.71, 0.84):
            m.box((-0.2, 0.2), (y, y + 0.09), (0.2, 0.23))


def sofa(m: Maker, variant: int) -> None:
    for x in (-0.7, 0.7):
        m.box((x - 0.03, x + 0.03), (0, 0.09), (-0.34, -0.28), DARK)
    m.box((-0.78, 0.78), (0.08, 0.34), (-0.37, 0.4), bevel=0.03)
    m.box((-0.66, 0.66), (0.3, 0.8), (0.2, 0.4), bevel=0.06)
    for x in (-0.8, 0.62):
        m.box((x, x + 0.18), (0.08, 0.58), (-0.4, 0.4), bevel=0.06)
    edges = np.linspace(-0.61, 0.61, 3 + variant)
    for a, b in pairwise(edges):
        m.box((a + 0.006, b - 0.006), (0.33, 0.46), (-0.39, 0.2), bevel=0.05)
        m.box((a + 0.012, b - 0.012), (0.45, 0.77), (0.07, 0.24), bevel=0.07)


def table(m: Maker, variant: int) -> None:
    m.box((-0.6, 0.6), (0.7, 0.75), (-0.375, 0.375), bevel=0.015)
    m.legs(0.54, 0.32, 0.7, 0.032)
    if variant:
        m.box((-0.52, 0.52), (0.6, 0.7), (-0.31, -0.29))
        m.box((-0.52, 0.52), (0.6, 0.7), (0.29, 0.31))


def shelf(m: Maker, variant: int) -> None:
    for x in (-0.45, 0.415):
        m.box((x, x + 0.035), (0, 1.5), (-0.18, 0.18))
    m.box((-0.42, 0.42), (0.03, 1.47), (0.15, 0.175), shade=0.75)
    heights = (0.03, 0.4, 0.77, 1.12, 1.465)
    for y in heights:
        m.box((-0.42, 0.42), (y, y + 0.035), (-0.18, 0.16))
    for i, y in enumerate(heights[:3]):
        x = (-0.4, 0.05, -0.2, 0.12)[(i + variant) % 4]
        for j in range(2 + (i + variant) % 2):
            w, h = (0.07, 0.05, 0.09)[(i + j) % 3], (0.26, 0.23, 0.28)[(i * 2 + j) % 3]
            spine = BOOKS[(i + 2 * j + variant) % 4]
            m.box((x, x + w), (y + 0.035, y + 0.035 + h), (-0.1, 0.14), spine, shade=0.85)
            x += w + 0.004


def lamp(m: Maker, variant: int) -> None:
    m.cone((0, 0.035), (0.16, 0.14), STEEL, "metal")
    m.cone((0.03, 1.14), (0.016, 0.016), STEEL, "metal")
    top = (0.17, 0.2)[variant]
    m.cone((1.1, 1.5), (0.26, top), glow=0.42)


def box(m: Maker, variant: int) -> None:
    m.box((-0.225, 0.225), (0, 0.37), (-0.225, 0.225))
    m.box((-0.24, 0.24), (0.36, 0.46), (-0.24, 0.24))
    if variant:
        m.box((-0.05, 0.05), (0.38, 0.42), (-0.246, -0.23), STEEL, "metal")


def ball(m: Maker, variant: int) -> None:
    m.ball((0, 0.25, 0), (0.25, 0.25, 0.25))


def vase(m: Maker, variant: int) -> None:
    if variant:
        m.cone((0, 0.06), (0.09, 0.1))
        m.ball((0, 0.2, 0), (0.17, 0.18, 0.17))
        m.cone((0.34, 0.44), (0.1, 0.058))
        m.cone((0.44, 0.5), (0.058, 0.1))
        m.cone((0.5, 0.501), (0.085, 0.085), DARK)
    else:
        m.cone((0, 0.3), (0.085, 0.17))
        m.cone((0.3, 0.4), (0.17, 0.1))
        m.cone((0.4, 0.5), (0.1, 0.12))
        m.cone((0.5, 0.501), (0.105, 0.105), DARK)


MAKERS = {
    "ball": ball,
    "box": box,
    "chair": chair,
    "lamp": lamp,
    "shelf": shelf,
    "sofa": sofa,
    "table": table,
    "vase": vase,
}


def solids(thing: Thing) -> tuple[Solid, ...]:
    """Make the parts of one object, standing on y = 0 with its front towards -z."""
    maker = Maker(thing.scale, COLOURS[thing.colour], thing.material)
    MAKERS[thing.kind](maker, int(thing.yaw * 1000) % 2)
    return tuple(maker.made)


def stand(thing: Thing) -> Group:
    """Make what a small thing stands on: an oak block or a stone drum."""
    variant, half = int(thing.yaw * 1000) // 2 % 2, STAND / 2
    m = Maker(1.0, OAK if variant else STONE, "wood" if variant else "matt")
    if variant:
        m.box((-half, half), (0, thing.base), (-half, half))
    else:
        m.cone((0, 0.05), (half, half * 0.96))
        m.cone((0.05, thing.base - 0.04), (half * 0.8, half * 0.8))
        m.cone((thing.base - 0.04, thing.base), (half, half))
    return Group(0, thing.x, 0.0, thing.z, thing.yaw * 0.25, tuple(m.made))


def plant(x: float, z: float, decor: int) -> Group:
    rng, m = np.random.default_rng(decor), Maker(1.0, LEAF, "matt")
    m.cone((0, 0.34), (0.13, 0.18), (146, 142, 138), "ceramic")
    m.cone((0.34, 0.8), (0.02, 0.015), (104, 96, 88))
    for i in range(14):
        angle, y = 2.4 * i, 0.5 + 0.045 * i
        out = (0.19 - 0.009 * i) * rng.uniform(0.7, 1.15)
        spot = (out * np.cos(angle), y, out * np.sin(angle))
        m.ball(spot, (0.085, rng.uniform(0.09, 0.15), 0.085), tint(LEAF, rng.uniform(0.8, 1.2)))
    return Group(0, x, 0.0, z, 0.0, tuple(m.made))


def furniture(scene: Scene) -> list[Group]:
    groups = []
    for i, t in enumerate(scene.things):
        groups.append(Group(i + 1, t.x, t.base, t.z, t.yaw, solids(t)))
        if t.base:
            groups.append(stand(t))
    if scene.room.plant:
        groups.append(plant(*scene.room.plant, scene.room.decor))
    return groups


def tint(colour: RGB, factor: float) -> RGB:
    red, green, blue = (min(255.0, c * factor) for c in colour)
    return red, green, blue


def window(m: Maker, width: float, cloth: RGB) -> None:
    x, y0, y1 = width / 2, 0.95, 2.25
    m.box((-x, x), (y0, y1), (-0.02, 0), (214, 228, 238), "sky", glow=0.9)
    for a in (-x, x):
        m.box((a - 0.04, a + 0.04), (y0, y1), (-0.06, 0), WHITE)
    m.box((-0.02, 0.02), (y0, y1), (-0.045, 0), WHITE)
    m.box((-x, x), (1.7, 1.74), (-0.045, 0), WHITE)
    m.box((-x - 0.04, x + 0.04), (y1 - 0.02, y1 + 0.06), (-0.06, 0), WHITE)
    m.box((-x - 0.1, x + 0.1), (y0 - 0.05, y0 + 0.01), (-0.14, 0), WHITE)
    if cloth[0]:
        m.box((-x - 0.4, x + 0.4), (2.41, 2.435), (-0.075, -0.05), STEEL, "metal")
        for side in (-1, 1):
            for i in range(4):
                at = (side * (x + 0.3 - 0.085 * i), -0.06)
                m.cone((0.1, 2.42), (0.055, 0.045), tint(cloth, 1 - 0.03 * (i % 2)), "fabric", at)


def prints(m: Maker, rng: np.random.Generator, wall: RGB) -> None:
    x = -0.9
    for _ in range(int(rng.integers(1, 4))):
        w, h, y = rng.uniform(0.4, 0.75), rng.uniform(0.45, 0.75), rng.uniform(1.25, 1.45)
        rim = (DARK, WHITE, OAK)[rng.integers(3)]
        m.box((x, x + w), (y, y + h), (-0.035, 0), rim)
        m.box((x + 0.035, x + w - 0.035), (y + 0.035, y + h - 0.035), (-0.037, 0), (226, 223, 216))
        a, b = x + w * 0.24, x + w * 0.76
        tone, low = rng.uniform(0.55, 0.8), y + h * 0.24
        m.box((a, b), (low, y + h * 0.76), (-0.038, 0), tint(wall, tone))
        m.box((a, b), (low, low + h * rng.uniform(0.1, 0.3)), (-0.039, 0), tint(wall, tone * 0.7))
        x += w + rng.uniform(0.15, 0.4)


def door(m: Maker, wood: RGB) -> None:
    m.box((-0.52, 0.52), (0, 2.12), (-0.03, 0), WHITE)
    m.box((-0.44, 0.44), (0, 2.04), (-0.045, 0), wood, "wood")
    for y0, y1 in ((0.2, 0.9), (1.05, 1.85)):
        m.box((-0.3, 0.3), (y0, y1), (-0.06, 0), wood, "wood")
    m.ball((0.37, 1.0, -0.09), (0.035, 0.035, 0.035), STEEL, "metal")


def decoration(room: Room) -> list[Group]:
    """Make window, prints and door by the room's `decor`, in muted tones no named object shares."""
    rng, wall = np.random.default_rng(room.decor), tint(room.wall, 1.0)
    width, depth = room.half_width, room.depth
    walls = [
        (rng.uniform(-1.3, 1.3), depth, 0.0),
        (-width, rng.uniform(3.6, 5.0), -np.pi / 2),
        (width, rng.uniform(3.6, 5.0), np.pi / 2),
    ]
    groups = []
    for what, place in zip(
        rng.permutation(["window", "prints", "door", "none"])[:3], walls, strict=True
    ):
        m = Maker(1.0, wall, "matt")
        if what == "window":
            cloth = tint(wall, rng.uniform(0.6, 0.85)) if rng.random() < 0.6 else (0.0, 0.0, 0.0)
            window(m, rng.uniform(1.1, 1.8), cloth)
        elif what == "prints":
            prints(m, rng, wall)
        elif what == "door":
            door(m, ((222, 218, 210), (150, 134, 118), (128, 126, 124))[rng.integers(3)])
        if m.made:
            groups.append(Group(0, place[0], 0.0, place[1], place[2], tuple(m.made)))
    return groups
