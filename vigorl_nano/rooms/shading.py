"""Light on what a room's pixels see: colour by colour, in linear light.

light = shade(scene, table, casting, eye, hits)      # float32 (3, rows, columns)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vigorl_nano.rooms.ray_caster import BALL, BOX, CONE, Array, Hits, PerspectiveProjection, Table
from vigorl_nano.rooms.scene import Room, Scene
from vigorl_nano.rooms.shadows import Contact, Shadows
from vigorl_nano.rooms.texture import floor_factor, surface_factor

CEILING = 2.8
REAR = 1.5  # metres behind the camera to the wall that is never seen
SUNLIGHT = np.array([1.22, 1.09, 0.92], np.float32)[:, None]
SKYLIGHT = np.array([0.38, 0.40, 0.43], np.float32)[:, None]
# Pattern of texture.SURFACES, strength and sharpness of the highlight, mirror, diffuse share.
MATERIALS = {
    "matt": (0, 0.0, 8, 0.0, 1.0),
    "sky": (0, 0.0, 8, 0.0, 0.3),
    "plastic": (0, 0.32, 60, 0.05, 1.0),
    "wood": (1, 0.10, 22, 0.02, 1.0),
    "fabric": (2, 0.0, 8, 0.0, 1.0),
    "metal": (3, 0.55, 45, 0.5, 0.72),
    "ceramic": (0, 0.55, 140, 0.10, 1.0),
}


def linear(colour: Sequence[float]) -> Array:
    return (np.array(colour, np.float32) / 255) ** 2


def shade(
    scene: Scene, table: Table, casting: Table, eye: PerspectiveProjection, hits: Hits
) -> Array:
    """Compute linear light (3, rows, columns); `casting` holds the groups that throw shadows."""
    light = np.array(scene.room.light)
    shadows = Shadows(casting, light, int(np.clip(eye.side // 7, 40, 150)) * 4)
    rows, columns = eye.shape
    result = np.empty((3, rows * columns), np.float32)
    ahead = [a.ravel() for a in eye.ahead]
    solid = hits.solid.ravel()
    for empty in (True, False):
        at = np.flatnonzero((solid == 0) == empty)
        rays = np.stack([a.take(at) for a in ahead])
        if empty:
            lit = room_light(scene, shadows, eye, rays)
        else:
            depth = hits.depth.ravel()[at]
            lit = thing_light(scene, table, shadows, eye, rays, depth, solid[at])
        for channel, values in zip(result, lit, strict=True):
            channel[at] = values
    return result.reshape(3, rows, columns)


def room_light(scene: Scene, shadows: Shadows, eye: PerspectiveProjection, rays: Array) -> Array:
    """Light floor, walls and ceiling seen along rays (3, n)."""
    room, height = scene.room, np.float32(scene.camera.height)
    a, b, c = rays
    with np.errstate(divide="ignore"):  # a ray along a wall never meets it
        to_x = np.float32(room.half_width) / np.abs(a)
        to_y = np.where(b < 0, height, np.float32(CEILING) - height) / np.abs(b)
        to_z = np.where(c > 0, np.float32(room.depth), np.float32(REAR)) / np.abs(c)
    t = np.minimum(np.minimum(to_x, to_y), to_z)
    points = rays * t
    points[1] += height
    shadow = shadows.on_room(points)
    result = np.empty_like(rays)
    sun = np.array(room.light, np.float32)
    side = t == to_x
    flat = ~side & (t == to_y)
    floor = np.flatnonzero(flat & (b < 0))
    x, y, z = points
    if len(floor):
        result[:, floor] = floor_light(scene, eye, points[:, floor], t[floor], shadow[floor])
    roof = np.flatnonzero(flat & (b >= 0))
    near = np.float32(0.86) - np.float32(0.035) * z[roof]
    result[:, roof] = near * (SKYLIGHT + SUNLIGHT * np.float32(0.4))
    wall = np.flatnonzero(~flat)
    x, y, z, side = x[wall], y[wall], z[wall], side[wall]
    normal = np.where(side, -np.sign(x) * sun[0], -sun[2] * np.sign(z))
    edge = np.where(side, np.float32(room.depth) - z, np.float32(room.half_width) - np.abs(x))
    corner = np.float32(0.28) * np.exp(-edge * np.float32(3.2))
    corner += np.float32(0.22) * np.exp(-y * 4) + np.float32(0.12) * np.exp((y - CEILING) * 4)
    sky = (np.float32(1.3) + np.float32(0.06) * y) * (1 - corner)
    direct = np.maximum(normal, 0) * (1 - shadow[wall]) * (np.float32(0.75) * falloff(room, x, z))
    paint = linear(room.wall)[:, None] * wall_tone(room, y)
    result[:, wall] = paint * (SKYLIGHT * sky + SUNLIGHT * direct)
    return result


def wall_tone(room: Room, y: Array) -> Array:
    """Return a factor by height: a skirting board, in some rooms a darker lower half as well."""
    tone = np.ones_like(y)
    if room.decor % 3 == 0:
        tone[y < 0.95] = 0.72
        tone[(y > 0.92) & (y < 0.98)] = 1.16
    board = y < 0.12
    tone[board] = 1.24
    tone[(y > 0.1) & board] = 0.98
    return tone


def floor_light(
    scene: Scene, eye: PerspectiveProjection, points: Array, t: Array, shadow: Array
) -> Array:
    room = scene.room
    x, _, z = points
    pixel = t * np.float32(1.6 / eye.focal)
    paint = linear(room.floor)[:, None] * floor_factor(room.floor_style, x, z, pixel) ** 2
    rug(room, x, z, pixel, paint)
    edge = np.minimum(np.float32(room.half_width) - np.abs(x), np.float32(room.depth) - z)
    dim = 1 - np.float32(0.3) * np.exp(-edge * 4)
    dim *= 1 - np.float32(0.75) * Contact(scene).at(x, z)
    direct = (1 - shadow) * np.float32(room.light[1])
    direct *= falloff(room, x, z) * np.float32(0.85) + sunbeam(room, points) * np.float32(0.6)
    return paint * (SKYLIGHT * (dim * np.float32(1.12)) + SUNLIGHT * direct)


def falloff(room: Room, x: Array, z: Array) -> Array:
    """Return how light falls off across the room, away from the side it comes in at."""
    return (
        np.float32(1.0) + np.float32(np.sign(room.light[0]) * 0.09) * x - (z - 3) * np.float32(0.02)
    )


def sunbeam(room: Room, points: Array) -> Array:
    """Return how much sun comes through the window beside the camera, 0 to 1."""
    rng = np.random.default_rng([room.decor, 2])
    start, size = np.float32(rng.uniform(1.0, 3.2)), np.float32(rng.uniform(1.2, 1.9))
    if rng.random() < 0.35:
        return np.zeros(points.shape[1], np.float32)
    a, b, c = (np.float32(v) for v in room.light)
    away = (np.sign(a) * np.float32(room.half_width) - points[0]) / a
    y, z = points[1] + away * b - np.float32(1.75), points[2] + away * c - start
    inside = np.minimum(np.float32(0.75) - np.abs(y), size / 2 - np.abs(z - size / 2))
    inside = np.minimum(inside, np.minimum(np.abs(y), np.abs(z - size / 2)) - np.float32(0.03))
    return np.clip(inside * np.float32(16) + np.float32(0.3), 0, 1)


def rug(room: Room, x: Array, z: Array, pixel: Array, paint: Array) -> None:
    """Lay a muted rug over `paint` in half of the rooms."""
    rng = np.random.default_rng([room.decor, 1])
    if rng.random() < 0.45:
        return
    cx, cz, angle = rng.uniform(-0.9, 0.9), rng.uniform(3.2, 4.6), rng.uniform(-0.25, 0.25)
    a, b = rng.uniform(1.1, 1.7), rng.uniform(0.8, 1.2)
    round_one, stripes = rng.random() < 0.35, int(rng.integers(0, 3))
    wool = linear(room.wall) * np.float32(rng.uniform(0.45, 0.8))
    reach = np.float32(np.hypot(a, b))
    at = np.flatnonzero((np.abs(x - np.float32(cx)) < reach) & (np.abs(z - np.float32(cz)) < reach))
    dx, dz = x[at] - np.float32(cx), z[at] - np.float32(cz)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = dx * cos - dz * sin, dx * sin + dz * cos
    if round_one:
        inner = np.float32(b) * (1 - np.sqrt((u / np.float32(a)) ** 2 + (v / np.float32(b)) ** 2))
    else:
        inner = np.minimum(np.float32(a) - np.abs(u), np.float32(b) - np.abs(v))
    on = np.flatnonzero(inner > 0)
    at, u, v, inner = at[on], u[on], v[on], inner[on]
    tone = floor_factor("plain", u, v, pixel[at])
    tone *= np.where((inner > 0.06) & (inner < 0.12), np.float32(0.7), np.float32(1))
    if stripes and not round_one:
        band = np.abs((u if stripes == 1 else v) * 3 % 1 - 0.5) < 0.12
        tone *= np.where(band & (inner > 0.2), np.float32(1.18), np.float32(1))
    paint[:, at] = wool[:, None] * tone


def thing_light(
    scene: Scene,
    table: Table,
    shadows: Shadows,
    eye: PerspectiveProjection,
    rays: Array,
    depth: Array,
    solid: Array,
) -> Array:
    """Light solids number `solid` (n,) seen along rays (3, n) at `depth` (n,)."""
    world = rays * depth
    world[1] += eye.origin[1]
    gx, gy, gz, cos, sin = table.pose[solid].T
    dx, dz = world[0] - gx, world[2] - gz
    local = np.stack([dx * cos - dz * sin, world[1] - gy, dx * sin + dz * cos])
    bent, u, v = normals(table, solid, local)
    normal = np.stack([bent[0] * cos + bent[2] * sin, bent[1], bent[2] * cos - bent[0] * sin])
    looks = surface_properties(table)[:, solid]
    paint, (pattern, gloss, sharp, mirror, diffuse, glow, open_) = looks[:3], looks[3:]
    factor = surface_factor(pattern, u, v)
    paint = paint * (factor * factor)
    sun = np.array(scene.room.light, np.float32)
    facing = sun @ normal
    lit = np.maximum(facing, 0)
    bright = np.flatnonzero(lit > 0)
    lit[bright] *= 1 - shadows.on_things(world[:, bright], normal[:, bright])
    lit *= np.float32(0.9) + np.float32(0.4) * sunbeam(scene.room, world)
    # The sky above is the ceiling, the floor throws some light back, and little of either
    # reaches what is close to the floor.
    sky = np.float32(1.2) + np.float32(0.26) * normal[1]
    sky *= open_ * (np.float32(0.7) + np.float32(0.3) * np.minimum(world[1] * np.float32(2.6), 1))
    result = paint * ((SKYLIGHT * sky + SUNLIGHT * lit) * diffuse + glow * np.float32(1.35))
    shiny = np.flatnonzero(mirror > 0)
    if len(shiny):
        ray = rays[:, shiny]
        ray = ray / np.sqrt((ray * ray).sum(axis=0))
        n = normal[:, shiny]
        slant = (ray * n).sum(axis=0)
        bounce = ray - 2 * slant * n
        edge = (1 - np.minimum(np.abs(slant), 1)) ** 4
        sky = (
            environment_light(bounce[1]) * open_[shiny] * (mirror[shiny] + np.float32(0.25) * edge)
        )
        spark = np.maximum(sun @ bounce, 1e-3) ** sharp[shiny] * gloss[shiny]
        spark *= lit[shiny] > 0.02
        metal = mirror[shiny] > 0.3
        tint = np.where(metal, paint[:, shiny] * np.float32(1.3) + np.float32(0.04), np.float32(1))
        result[:, shiny] += tint * (sky + spark)
    return result


def environment_light(up: Array) -> Array:
    """Return the room's brightness in a direction with that upward part."""
    return (
        np.float32(0.34)
        + np.float32(0.75) * np.clip(up * 2.2, 0, 1)
        - 0.16 * np.clip(-up * 2, 0, 1)
    )


def surface_properties(table: Table) -> Array:
    """(10, n + 1): linear colour, then MATERIALS' five numbers, glow and share of ambient light."""
    solids = [s for g in table.groups for s in g.solids]
    columns = [(*linear(s.colour), *MATERIALS[s.material], s.glow, s.shade) for s in solids]
    return np.array([(0.0,) * 10, *columns], np.float32).T


def normals(table: Table, solid: Array, local: Array) -> tuple[Array, Array, Array]:
    """Return normals (3, n) in group axes and surface coordinates (u along the grain, v)."""
    shape, size = table.shape[solid], table.size[solid].T
    normal = np.zeros_like(local)
    u, v = local[0] + np.float32(0.6) * local[2], local[1].copy()
    at = np.flatnonzero(shape == BOX)
    if len(at):
        p, s = local[:, at], size[:, at]
        half = (s[3:] - s[:3]) / 2
        from_middle = p - (s[3:] + s[:3]) / 2
        bevel = np.minimum(table.bevel[solid[at]], half.min(axis=0))
        inside = np.maximum(half - np.abs(from_middle), 0)
        bend = np.maximum(1 - inside / bevel, 0) ** 2
        bend += inside <= inside.min(axis=0)  # the face itself
        bent = np.copysign(bend, from_middle)
        normal[:, at] = bent / np.sqrt((bent * bent).sum(axis=0))
        face = inside.argmin(axis=0)
        across = np.where(face == 0, p[2], p[0])
        down = np.where(face == 1, p[2], p[1])
        upright = half[1] > np.maximum(half[0], half[2])
        u[at], v[at] = np.where(upright, down, across), np.where(upright, across, down)
    at = np.flatnonzero(shape == CONE)
    if len(at):
        p, s = local[:, at], size[:, at]
        x, z = p[0] - s[0], p[2] - s[2]
        slope = (s[5] - s[3]) / (s[4] - s[1])
        radius = s[3] + slope * (p[1] - s[1])
        lid = x * x + z * z < (radius * np.float32(0.99)) ** 2
        upward = np.where(p[1] > (s[1] + s[4]) / 2, np.float32(1), np.float32(-1))
        bent = np.where(lid, np.stack([x * 0, upward, z * 0]), np.stack([x, -slope * radius, z]))
        normal[:, at] = bent / np.sqrt((bent * bent).sum(axis=0))
    at = np.flatnonzero(shape == BALL)
    if len(at):
        bent = (local[:, at] - size[:3, at]) / size[3:, at] ** 2
        normal[:, at] = bent / np.sqrt((bent * bent).sum(axis=0))
    return normal, u, v
