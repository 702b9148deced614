"""A room with a few coloured objects in it, as numbers: what stands where, and where the camera is.

Metres, x to the right, y up, z away from the camera's starting direction. A `Scene` is all that the
drawing code needs, so the same scene can be drawn twice with one object moved or the camera turned:

    names, count = sample_names(rng, 2, 5)
    scene = furnish(rng, names)
    picture = rooms_draw.draw(scene)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SIDE = 320  # stored pictures are square, this many pixels a side
FOCAL = 285.0  # pixels at that side: a field of view of about 59 degrees

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 45, 42),
    "orange": (242, 133, 28),
    "yellow": (247, 214, 54),
    "green": (52, 158, 72),
    "blue": (44, 98, 214),
    "purple": (138, 62, 178),
}
KINDS = ("ball", "box", "chair", "cone", "lamp", "table")
PLURALS = {"box": "boxes"}
ON_PLINTH = ("ball", "box", "cone")

# Walls and floors stay pale or greyish: the named colours belong to the objects alone.
WALLS = (
    (201, 194, 182),
    (178, 190, 184),
    (176, 186, 200),
    (208, 200, 206),
    (196, 188, 170),
    (186, 182, 178),
    (166, 178, 178),
    (214, 208, 196),
)
FLOORS = (
    (176, 152, 126),
    (150, 128, 108),
    (196, 178, 152),
    (140, 136, 134),
    (168, 164, 158),
    (122, 108, 98),
)


@dataclass(frozen=True, slots=True)
class Thing:
    """One named object; `x`, `z` are its centre on the floor, `base` the height it stands at."""

    colour: str
    kind: str
    x: float
    z: float
    base: float  # metres above the floor: 0, or the height of the plinth it stands on
    scale: float  # 1 is the kind's usual size
    yaw: float  # radians about the vertical

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
        """World points (n, 3), all in front of the camera, to stored-picture pixels (n, 2)."""
        return to_pixels(self.view(points))


def to_pixels(seen: np.ndarray) -> np.ndarray:
    depth = seen[:, 2]
    u = SIDE / 2 + FOCAL * seen[:, 0] / depth
    return np.stack([u, SIDE / 2 - FOCAL * seen[:, 1] / depth], axis=1)


@dataclass(frozen=True, slots=True)
class Room:
    """The empty room; `decor` seeds what hangs on the walls and how the floor boards vary."""

    half_width: float
    depth: float
    wall: tuple[int, int, int]
    floor: tuple[int, int, int]
    floor_style: str  # planks, tiles or plain
    light: tuple[float, float, float]  # unit vector towards the lamp outside the picture
    decor: int


@dataclass(frozen=True, slots=True)
class Scene:
    room: Room
    camera: Camera
    things: tuple[Thing, ...]


@dataclass(frozen=True, slots=True)
class Count:
    """The one counting question a scene is built around, so that its answer is balanced."""

    attribute: str  # "kind" or "colour"
    value: str
    low: int
    high: int
    answer: int  # low or high


def footprint(thing: Thing) -> float:
    """Radius in metres of the floor that a thing (with its plinth) needs to itself."""
    radius = {"ball": 0.4, "box": 0.5, "chair": 0.45, "cone": 0.42, "lamp": 0.36, "table": 0.66}
    return max(radius[thing.kind] * thing.scale, 0.52 if thing.base else 0.0)


def sample_room(rng: np.random.Generator) -> Room:
    light = np.array([rng.choice([-1, 1]) * rng.uniform(0.25, 0.7), 1.0, rng.uniform(-0.7, -0.2)])
    light /= np.linalg.norm(light)
    return Room(
        half_width=float(rng.uniform(3.2, 4.4)),
        depth=float(rng.uniform(6.2, 7.6)),
        wall=WALLS[rng.integers(len(WALLS))],
        floor=FLOORS[rng.integers(len(FLOORS))],
        floor_style=("planks", "planks", "tiles", "plain")[rng.integers(4)],
        light=(float(light[0]), float(light[1]), float(light[2])),
        decor=int(rng.integers(2**31)),
    )


def sample_names(
    rng: np.random.Generator, low: int, high: int
) -> tuple[list[tuple[str, str]], Count]:
    """Distinct (colour, kind) pairs with a counting question whose two options are equally likely.

    The pair of options is drawn first and then which of them is true, so the options alone tell
    nothing about the answer.
    """
    pairs = [(a, a + 1, p) for a, p in ((1, 0.4), (2, 0.4), (3, 0.2)) if a + 1 <= high]
    weights = np.array([p for *_, p in pairs])
    first, second, _ = pairs[rng.choice(len(pairs), p=weights / weights.sum())]
    answer = int(rng.choice([first, second]))
    attribute = ("kind", "colour")[rng.integers(2)]
    values, others = (KINDS, tuple(COLOURS)) if attribute == "kind" else (tuple(COLOURS), KINDS)
    value = values[rng.integers(6)]
    total = int(rng.integers(max(low, answer), high + 1))
    chosen = [(value, others[i]) for i in rng.choice(6, answer, replace=False)]
    rest = [(v, o) for v in values if v != value for o in others]
    chosen += [rest[i] for i in rng.choice(len(rest), total - answer, replace=False)]
    rng.shuffle(chosen)
    names = [(o, v) if attribute == "kind" else (v, o) for v, o in chosen]
    return names, Count(attribute, value, first, second, answer)


def place(rng: np.random.Generator, scene: Scene, colour: str, kind: str) -> Thing | None:
    """A free spot for one more object, or None when forty tries find none.

    The spot is drawn in the picture (a column and a depth) and carried back to the floor, so that
    objects fill the frame evenly rather than crowding its middle.
    """
    camera, room = scene.camera, scene.room
    taken = camera.project(np.array([middle(t) for t in scene.things])) if scene.things else None
    for _ in range(40):
        depth, column = rng.uniform(2.5, 5.6), rng.uniform(30, SIDE - 30)
        right = (column - SIDE / 2) / FOCAL * depth
        cos, sin = np.cos(camera.yaw), np.sin(camera.yaw)
        base = 0.0
        if kind in ON_PLINTH and rng.random() < 0.45:
            base = float(rng.uniform(0.4, 1.1))
        scale = float(rng.uniform(0.88, 1.15)) * (0.85 if base and kind == "box" else 1.0)
        thing = Thing(
            colour,
            kind,
            float(right * cos + depth * sin),
            float(depth * cos - right * sin),
            base,
            scale,
            float(rng.uniform(0, 2 * np.pi)),
        )
        room_left = footprint(thing)
        if abs(thing.x) > room.half_width - room_left or thing.z > room.depth - room_left:
            continue
        if any(
            np.hypot(thing.x - t.x, thing.z - t.z) < room_left + footprint(t) for t in scene.things
        ):
            continue
        if taken is not None:
            spot = camera.project(np.array([middle(thing)]))[0]
            if np.min(np.hypot(*(taken - spot).T)) < 0.13 * SIDE:
                continue
        return thing
    return None


def middle(thing: Thing) -> tuple[float, float, float]:
    height = {"ball": 0.7, "box": 0.65, "chair": 1.05, "cone": 0.95, "lamp": 1.4, "table": 0.65}
    return thing.x, thing.base + height[thing.kind] * thing.scale / 2, thing.z


def furnish(rng: np.random.Generator, names: list[tuple[str, str]]) -> Scene | None:
    """A new room with the named objects in free spots, or None when they did not all fit."""
    camera = Camera(
        float(rng.uniform(-0.22, 0.22)), float(rng.uniform(0.2, 0.3)), float(rng.uniform(1.6, 1.9))
    )
    scene = Scene(sample_room(rng), camera, ())
    for colour, kind in names:
        thing = place(rng, scene, colour, kind)
        if thing is None:
            return None
        scene = replace(scene, things=(*scene.things, thing))
    return scene


def moved(rng: np.random.Generator, scene: Scene, index: int) -> Scene | None:
    """The same scene after one object (with its plinth) was carried to another free spot."""
    old = scene.things[index]
    others = tuple(t for i, t in enumerate(scene.things) if i != index)
    new = place(rng, replace(scene, things=others), old.colour, old.kind)
    if new is None:
        return None
    new = replace(new, base=old.base, scale=old.scale, yaw=old.yaw)
    things = tuple(new if i == index else t for i, t in enumerate(scene.things))
    return replace(scene, things=things)


def turned(scene: Scene, radians: float) -> Scene:
    """The same scene after the camera turned; positive is to the right."""
    camera = scene.camera
    return replace(scene, camera=replace(camera, yaw=camera.yaw + radians))


def distance(scene: Scene, thing: Thing) -> float:
    """Metres from the camera to the middle of a thing."""
    return float(np.linalg.norm(np.array(middle(thing)) - [0.0, scene.camera.height, 0.0]))
