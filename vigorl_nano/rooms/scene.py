"""A room with a few coloured objects in it, as numbers: what stands where, and where the camera is.

Metres, x to the right, y up, z away from the camera's starting direction. A `Scene` is all that the
drawing code needs, so the same scene can be drawn twice with one object moved or the camera turned:

    names, count = sample_names(rng, 2, 5)
    scene = furnish(rng, names)
    rendering = draw.draw(scene)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vigorl_nano.rooms.objects import FLOORS, MATERIALS, ON_STAND, SCALES, SIZES, STAND, WALLS

SIDE = 392  # stored images are square, this many pixels a side
FOCAL = 0.8 * SIDE  # pixels at that side: a field of view of about 64 degrees


@dataclass(frozen=True, slots=True)
class Thing:
    """One named object; `x`, `z` are its centre on the floor, `base` the height it stands at."""

    colour: str
    kind: str
    x: float
    z: float
    base: float  # metres above the floor: 0, or the height of the stand it is on
    scale: float  # 1 is the kind's usual size
    yaw: float  # radians about the vertical; at 0 its front faces the camera's starting place
    material: str = "plastic"  # how the coloured surface looks; one of MATERIALS, never named

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True, slots=True)
class Camera:
    yaw: float  # radians, positive turns right
    pitch: float  # radians, positive looks down
    height: float  # metres

    def view(self, points: np.ndarray) -> np.ndarray:
        """World points (n, 3) to camera axes: right, up, forward, in metres."""
        x, y, z = points[:, 0], points[:, 1] - self.height, points[:, 2]
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        right, ahead = x * cos - z * sin, x * sin + z * cos
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        return np.stack([right, y * cos + ahead * sin, ahead * cos - y * sin], axis=1)

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (n, 3), all in front of the camera, to stored-image pixels (n, 2)."""
        return to_pixels(self.view(points))


def to_pixels(seen: np.ndarray) -> np.ndarray:
    depth = seen[:, 2]
    u = SIDE / 2 + FOCAL * seen[:, 0] / depth
    return np.stack([u, SIDE / 2 - FOCAL * seen[:, 1] / depth], axis=1)


@dataclass(frozen=True, slots=True)
class Room:
    """The empty room; `decor` seeds what hangs on the walls, the rug and the floor's pattern."""

    half_width: float
    depth: float
    wall: tuple[int, int, int]
    floor: tuple[int, int, int]
    floor_style: str  # planks, tiles or plain
    light: tuple[float, float, float]  # unit vector towards the lamp outside the image
    decor: int
    plant: tuple[float, float] | None = None  # where on the floor an unnamed potted plant stands


@dataclass(frozen=True, slots=True)
class Scene:
    room: Room
    camera: Camera
    things: tuple[Thing, ...]


def sample_room(rng: np.random.Generator) -> Room:
    light = np.array([rng.choice([-1, 1]) * rng.uniform(0.7, 1.1), 0.9, rng.uniform(-0.6, 0.05)])
    light /= np.linalg.norm(light)
    half, depth = float(rng.uniform(3.2, 4.2)), float(rng.uniform(6.2, 7.4))
    plant = None
    if rng.random() < 0.5:
        plant = float(rng.choice([-1, 1]) * (half - 0.42)), depth - 0.42
    return Room(
        half_width=half,
        depth=depth,
        wall=WALLS[rng.integers(len(WALLS))],
        floor=FLOORS[rng.integers(len(FLOORS))],
        floor_style=("planks", "planks", "tiles", "plain")[rng.integers(4)],
        light=(float(light[0]), float(light[1]), float(light[2])),
        decor=int(rng.integers(2**31)),
        plant=plant,
    )


def corners(thing: Thing) -> np.ndarray:
    """Return the corners (4, 2) of the floor a thing (with its stand) covers, in x and z."""
    width, _, depth = SIZES[thing.kind]
    half = np.array([width, depth]) * thing.scale / 2
    if thing.base:
        half = np.maximum(half, STAND / 2)
    flat = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    cos, sin = np.cos(thing.yaw), np.sin(thing.yaw)
    return flat @ np.array([[cos, -sin], [sin, cos]]) + [thing.x, thing.z]


def are_apart(one: np.ndarray, other: np.ndarray, gap: float = 0.1) -> bool:
    """Return whether two rectangles on the floor (4, 2) are `gap` metres apart."""
    for a, b in ((one, other), (other, one)):
        for axis in (a[1] - a[0], a[2] - a[1]):
            axis = axis / np.hypot(*axis)
            p, q = a @ axis, b @ axis
            if p.max() + gap < q.min() or q.max() + gap < p.min():
                return True
    return False


def outline(camera: Camera, thing: Thing) -> tuple[float, float, float, float]:
    """Return the rectangle in stored pixels that a thing's bounding box covers."""
    flat, height = corners(replace(thing, base=0.0)), SIZES[thing.kind][1] * thing.scale
    points = [(x, thing.base + y, z) for x, z in flat for y in (0.0, height)]
    seen = camera.project(np.array(points))
    (x1, y1), (x2, y2) = seen.min(axis=0), seen.max(axis=0)
    return float(x1), float(y1), float(x2), float(y2)


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how much of the smaller of two rectangles the other one covers, 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    least = min((r[2] - r[0]) * (r[3] - r[1]) for r in (one, other))
    return max(width, 0.0) * max(height, 0.0) / least


def turn_plausibly(rng: np.random.Generator, scene: Scene, thing: Thing) -> Thing:
    """Turn a thing plausibly; a sofa or a shelf is mostly pushed against a wall."""
    room, kind = scene.room, thing.kind
    to_camera = float(np.arctan2(thing.x, thing.z))
    if kind in ("sofa", "shelf") and rng.random() < 0.7:
        back = SIZES[kind][2] * thing.scale / 2 + 0.04
        side = (room.half_width - abs(thing.x)) < (room.depth - thing.z)
        if side:
            sign = 1.0 if thing.x > 0 else -1.0
            return replace(thing, x=sign * (room.half_width - back), yaw=sign * np.pi / 2)
        return replace(thing, z=room.depth - back, yaw=0.0)
    if kind in ("sofa", "shelf"):
        return replace(thing, yaw=to_camera + float(rng.uniform(-0.7, 0.7)))
    if kind == "chair":
        return replace(thing, yaw=to_camera + float(rng.uniform(-2.2, 2.2)))
    return replace(thing, yaw=float(rng.uniform(-np.pi, np.pi)))


def place(
    rng: np.random.Generator, scene: Scene, colour: str, kind: str, like: Thing | None = None
) -> Thing | None:
    """Find a free spot for one more object; None when sixty tries find none.

    The spot is drawn in the image (a column and a depth) and carried back to the floor, so that
    objects fill the frame evenly rather than crowding its middle. `like` gives the scale, yaw,
    height and material to keep.
    """
    camera, room = scene.camera, scene.room
    taken = camera.project(np.array([middle(t) for t in scene.things])) if scene.things else None
    floors = [corners(t) for t in scene.things]
    if room.plant:
        floors.append(np.array(room.plant) + 0.3 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]))
    outlines = [outline(camera, t) for t in scene.things]
    cos, sin = np.cos(camera.yaw), np.sin(camera.yaw)
    for _ in range(60):
        base = 0.0
        if kind in ON_STAND and rng.random() < 0.45:
            base = float(rng.uniform(0.35, 0.85))
        scale = float(rng.uniform(*SCALES.get(kind, (0.92, 1.08))))
        if base:
            scale = min(scale, 0.95)
        if like:
            base, scale = like.base, like.scale
        # Far things must still be large enough to be named.
        far = min(6.6, FOCAL * min(SIZES[kind][:2]) * scale / 27)
        depth, column = rng.uniform(2.3, far), rng.uniform(30, SIDE - 30)
        right = (column - SIDE / 2) / FOCAL * depth
        x, z = float(right * cos + depth * sin), float(depth * cos - right * sin)
        thing = Thing(colour, kind, x, z, base, scale, 0.0, str(rng.choice(MATERIALS[kind])))
        if like:
            thing = replace(thing, yaw=like.yaw, material=like.material)
        else:
            thing = turn_plausibly(rng, scene, thing)
        floor = corners(thing)
        if abs(floor[:, 0]).max() > room.half_width - 0.02 or floor[:, 1].max() > room.depth - 0.02:
            continue
        if floor[:, 1].min() < 1.2 or not all(are_apart(floor, other) for other in floors):
            continue
        rim = outline(camera, thing)
        if (
            min(rim[:2]) < 4
            or max(rim[2:]) > SIDE - 4
            or any(overlap(rim, o) > 0.4 for o in outlines)
        ):
            continue
        if taken is not None:
            spot = camera.project(np.array([middle(thing)]))[0]
            if np.min(np.hypot(*(taken - spot).T)) < 0.11 * SIDE:
                continue
        return thing
    return None


def middle(thing: Thing) -> tuple[float, float, float]:
    return thing.x, thing.base + SIZES[thing.kind][1] * thing.scale / 2, thing.z


def furnish(rng: np.random.Generator, names: list[tuple[str, str]]) -> Scene | None:
    """Make a room with the named objects in free spots; None when they do not all fit."""
    camera = Camera(
        float(rng.uniform(-0.22, 0.22)),
        float(rng.uniform(0.22, 0.32)),
        float(rng.uniform(1.6, 1.9)),
    )
    scene = Scene(sample_room(rng), camera, ())
    for colour, kind in names:
        thing = place(rng, scene, colour, kind)
        if thing is None:
            return None
        scene = replace(scene, things=(*scene.things, thing))
    return scene


def move_thing(rng: np.random.Generator, scene: Scene, index: int) -> Scene | None:
    """Carry one object (with its stand) to another free spot."""
    old = scene.things[index]
    others = tuple(t for i, t in enumerate(scene.things) if i != index)
    new = place(rng, replace(scene, things=others), old.colour, old.kind, old)
    if new is None:
        return None
    things = tuple(new if i == index else t for i, t in enumerate(scene.things))
    return replace(scene, things=things)


def turn_camera(scene: Scene, radians: float) -> Scene:
    """Turn the camera; positive is to the right."""
    camera = scene.camera
    return replace(scene, camera=replace(camera, yaw=camera.yaw + radians))


def distance(scene: Scene, thing: Thing) -> float:
    """Return the metres from the camera to the middle of a thing."""
    return float(np.linalg.norm(np.array(middle(thing)) - [0.0, scene.camera.height, 0.0]))
