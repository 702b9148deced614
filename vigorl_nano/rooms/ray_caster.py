"""A ray caster in numpy: which solid each pixel sees, and how far away it is.

Solids are axis-aligned boxes, upright cone frusta and ellipsoids, gathered in groups that stand
somewhere and are turned about the vertical. Each is met by rays only within the rectangle of pixels
that its bounding box covers, so an image costs what its objects cover:

    eye = PerspectiveProjection(side, focal, height, yaw, pitch)      # a camera's image
    hits = cast(Table.of(groups), eye)
    hits.solid, hits.depth, hits.own

A `ParallelProjection` is what a far light sees; all it does not see lies in shadow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

BOX, CONE, BALL = 0, 1, 2
Array = np.ndarray
Vector = tuple[Any, ...]
"""x, y and z: numbers, or arrays of one shape."""
NEAR = 0.05  # metres: nothing nearer is met
FAR = np.float32(1e9)


@dataclass(frozen=True, slots=True)
class Solid:
    """One primitive in its group's own metres.

    `size` is (x0, y0, z0, x1, y1, z1) of a box; (x, y0, z, r0, y1, r1) of a frustum whose radius
    goes from r0 at y0 to r1 at y1; (x, y, z, rx, ry, rz) of an ellipsoid.
    """

    shape: int
    size: tuple[float, float, float, float, float, float]
    colour: tuple[float, float, float]  # 0 to 255
    material: str
    bevel: float = 0.012  # metres over which a box's shading bends round its edges
    glow: float = 0.0  # light of its own, as a share of its colour
    shade: float = 1.0  # how much of the ambient light reaches it


@dataclass(frozen=True, slots=True)
class Group:
    """Solids that stand at (x, y, z) turned by `yaw`; `owner` is a named object's number, or 0."""

    owner: int
    x: float
    y: float
    z: float
    yaw: float
    solids: tuple[Solid, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """All groups of a scene with each one's solids numbered from 1, as arrays over the solids."""

    groups: list[Group]
    shape: Array  # (n + 1,), entry 0 is "no solid"
    size: Array  # (n + 1, 6)
    pose: Array  # (n + 1, 5): x, y, z, cos and sin of the yaw
    corners: Array  # (n, 8, 3): bounding boxes in the world
    owner: Array  # (n + 1,)
    bevel: Array  # (n + 1,) metres

    @classmethod
    def of(cls, groups: list[Group]) -> Table:
        solids = [s for g in groups for s in g.solids]
        shape = np.array([-1, *(s.shape for s in solids)], np.int8)
        size = np.array([(0.0,) * 6, *(s.size for s in solids)], np.float32)
        pose = np.array(
            [
                (0.0, 0.0, 0.0, 1.0, 0.0),
                *((g.x, g.y, g.z, np.cos(g.yaw), np.sin(g.yaw)) for g in groups for _ in g.solids),
            ],
            np.float32,
        )
        owner = np.array([0, *(g.owner for g in groups for _ in g.solids)], np.uint8)
        bevel = np.array([1.0, *(s.bevel for s in solids)], np.float32)
        low, high = bounds(shape[1:], size[1:])
        pick = np.array([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], np.float32)
        local = low[:, None] + pick * (high - low)[:, None]
        x, y, z, cos, sin = (pose[1:, i, None] for i in range(5))
        corners = np.stack(
            [
                x + local[..., 0] * cos + local[..., 2] * sin,
                y + local[..., 1],
                z + local[..., 2] * cos - local[..., 0] * sin,
            ],
            axis=2,
        )
        return cls(groups, shape, size, pose, corners, owner, bevel)


def bounds(shape: Array, size: Array) -> tuple[Array, Array]:
    """Return the lowest and highest corner (n, 3) of each solid in its group's metres."""
    low, high = size[:, :3].copy(), size[:, 3:].copy()
    cone, ball = shape == CONE, shape == BALL
    low[ball], high[ball] = size[ball, :3] - size[ball, 3:], size[ball, :3] + size[ball, 3:]
    radius = np.maximum(size[cone, 3], size[cone, 5])
    for axis in (0, 2):
        low[cone, axis], high[cone, axis] = size[cone, axis] - radius, size[cone, axis] + radius
    low[cone, 1], high[cone, 1] = size[cone, 1], size[cone, 4]
    return low, high


class Projection(Protocol):
    """Rays of an image. Along a ray the parameter is the depth in metres."""

    shape: tuple[int, int]  # rows, columns
    origin: Vector  # three numbers, or three arrays of `shape`
    ahead: Vector  # three arrays of `shape`, or three numbers

    def rectangles(self, corners: Array) -> Array:
        """Return top, left, bottom, right (n, 4) of what bounding boxes (n, 8, 3) cover."""
        ...


class PerspectiveProjection:
    """A perspective projection: `side` x `side` rays, `focal` pixels of that side long."""

    def __init__(self, side: int, focal: float, height: float, yaw: float, pitch: float) -> None:
        self.shape = (side, side)
        self.side, self.focal = side, focal
        self.origin = (np.float32(0), np.float32(height), np.float32(0))
        cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
        self.axes = np.array(  # rows: right, up, forward in the world
            [[cy, 0, -sy], [sp * sy, cp, sp * cy], [cp * sy, -sp, cp * cy]], np.float32
        )
        step = ((np.arange(side) + 0.5 - side / 2) / focal).astype(np.float32)
        right, up, forward = self.axes
        self.ahead = tuple(
            (right[i] * step)[None, :] + (forward[i] - up[i] * step)[:, None] for i in range(3)
        )

    def rectangles(self, corners: Array) -> Array:
        seen = (corners - np.array([0, self.origin[1], 0], np.float32)) @ self.axes.T
        depth = np.maximum(seen[..., 2], NEAR)
        u = self.side / 2 + self.focal * seen[..., 0] / depth
        v = self.side / 2 - self.focal * seen[..., 1] / depth
        found = frames(v, u, self.shape)
        found[seen[..., 2].max(axis=1) <= NEAR] = 0
        return found


class ParallelProjection:
    """Parallel rays against `light` over everything in `points` (n, 3), `side` rays a side."""

    def __init__(self, side: int, light: Array, points: Array, margin: float = 0.25) -> None:
        self.shape = (side, side)
        right = np.array([light[2], 0.0, -light[0]])
        right /= np.linalg.norm(right)
        self.axes = np.stack([right, np.cross(light, right), -light]).astype(np.float32)
        flat = points @ self.axes.T
        low, high = flat[:, :2].min(axis=0) - margin, flat[:, :2].max(axis=0) + margin
        self.low = low.astype(np.float32)
        self.step = ((high - low) / side).astype(np.float32)
        self.start = np.float32(flat[:, 2].min() - 1)
        u, v = ((np.arange(side) + 0.5) * self.step[i] + self.low[i] for i in range(2))
        a, b, c = self.axes
        self.origin = tuple(
            (a[i] * u)[None, :] + (b[i] * v + c[i] * self.start)[:, None] for i in range(3)
        )
        self.ahead = tuple(np.float32(v) for v in c)

    def rectangles(self, corners: Array) -> Array:
        flat = corners @ self.axes.T
        u, v = ((flat[..., i] - self.low[i]) / self.step[i] for i in range(2))
        return frames(v, u, self.shape)


def frames(v: Array, u: Array, shape: tuple[int, int]) -> Array:
    """Return whole-pixel rectangles round points (n, 8), kept within the image."""
    edges = [np.floor(v.min(1)), np.floor(u.min(1)), np.ceil(v.max(1)) + 1, np.ceil(u.max(1)) + 1]
    limits = (shape[0], shape[1], shape[0], shape[1])
    return np.stack([np.clip(e, 0, n) for e, n in zip(edges, limits, strict=True)], 1).astype(int)


@dataclass(frozen=True, slots=True)
class Hits:
    solid: Array  # int16 (rows, columns): number of the nearest solid, 0 for none
    depth: Array  # float32 (rows, columns): its depth, FAR for none
    own: dict[int, int]  # by owner: how many pixels it would cover with nothing before it
    areas: dict[int, tuple[slice, slice]]  # by owner: rows and columns that hold all its pixels


def cast(table: Table, projection: Projection) -> Hits:
    """Find the nearest solid at each pixel of a projection; nearer than NEAR is not seen."""
    solid = np.zeros(projection.shape, np.int16)
    depth = np.full(projection.shape, FAR, np.float32)
    own: dict[int, int] = {}
    areas: dict[int, tuple[slice, slice]] = {}
    spots, number = projection.rectangles(table.corners), 0
    for group in table.groups:
        first = number
        number += len(group.solids)
        mine = spots[first:number]
        mine = mine[(mine[:, 2] > mine[:, 0]) & (mine[:, 3] > mine[:, 1])]
        if len(mine) == 0:
            continue
        (top, left), (bottom, right) = mine[:, :2].min(axis=0), mine[:, 2:].max(axis=0)
        area = slice(top, bottom), slice(left, right)
        rays = Rays.to_group(projection, group, area)
        near = np.full((bottom - top, right - left), FAR, np.float32)
        which = np.zeros(near.shape, np.int16)
        for i, part in enumerate(group.solids):
            up, start, down, end = spots[first + i]
            if down <= up or end <= start:
                continue
            here = slice(up - top, down - top), slice(start - left, end - left)
            hit = (box_hit, cone_hit, ball_hit)[part.shape](rays.cut(here), part.size)
            closer = hit < near[here]
            np.copyto(near[here], hit, where=closer)
            np.copyto(which[here], np.int16(first + i + 1), where=closer)
        if group.owner:
            own[group.owner] = int(np.count_nonzero(which))
            areas[group.owner] = area
        closer = near < depth[area]
        np.copyto(depth[area], near, where=closer)
        np.copyto(solid[area], which, where=closer)
    return Hits(solid, depth, own, areas)


@dataclass(frozen=True, slots=True)
class Rays:
    """Rays in a group's own axes: origins and directions, either of them the same for all."""

    o: Vector
    d: Vector
    over: Vector  # 1 / d

    @classmethod
    def to_group(cls, projection: Projection, group: Group, area: tuple[slice, slice]) -> Rays:
        cos, sin = np.float32(np.cos(group.yaw)), np.float32(np.sin(group.yaw))
        x, y, z = projection.origin
        if isinstance(x, np.ndarray):
            x, y, z = x[area], y[area], z[area]
        x, y, z = x - np.float32(group.x), y - np.float32(group.y), z - np.float32(group.z)
        a, b, c = projection.ahead
        if isinstance(a, np.ndarray):
            a, b, c = a[area], b[area], c[area]
        d = (a * cos - c * sin, b, a * sin + c * cos)
        tiny = np.float32(1e-7)  # keeps a ray along a face finite
        return cls((x * cos - z * sin, y, x * sin + z * cos), d, tuple(1 / (v + tiny) for v in d))

    def cut(self, here: tuple[slice, slice]) -> Rays:
        def part(values: Vector) -> Vector:
            return tuple(v[here] if isinstance(v, np.ndarray) else v for v in values)

        return Rays(part(self.o), part(self.d), part(self.over))


def box_hit(rays: Rays, size: Sequence[float]) -> Array:
    """Return depths where rays enter a box, FAR if none: the slab method (Kay, Kajiya 1986).

    From outside a slab only its near face can be the way in; so the faces are chosen once for all
    rays, by where the common origin is or else by where the common direction points.
    """
    enter: list[Array] = []
    leave: list[Array] = []
    for axis in range(3):
        o, over = rays.o[axis], rays.over[axis]
        low, high = np.float32(size[axis]), np.float32(size[axis + 3])
        if isinstance(o, np.ndarray):
            forward = rays.d[axis] > 0
        elif low < o < high:
            leave.append(np.maximum((low - o) * over, (high - o) * over))
            continue
        else:
            forward = o <= low
        first, last = (low, high) if forward else (high, low)
        enter.append((first - o) * over)
        leave.append((last - o) * over)
    start, end = enter[0], leave[0]
    for more in enter[1:]:
        start = np.maximum(start, more)
    for more in leave[1:]:
        end = np.minimum(end, more)
    return np.where((start < end) & (start > NEAR), start, FAR)


def ball_hit(rays: Rays, size: Sequence[float]) -> Array:
    """Return depths at which rays enter an ellipsoid, FAR where they miss it."""
    o = [(rays.o[i] - np.float32(size[i])) * np.float32(1 / size[i + 3]) for i in range(3)]
    d = [rays.d[i] * np.float32(1 / size[i + 3]) for i in range(3)]
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - np.float32(1)
    under = b * b - a * c
    start = (-b - np.sqrt(np.maximum(under, np.float32(0)))) / a
    return np.where((under > 0) & (start > NEAR), start, FAR)


def cone_hit(rays: Rays, size: Sequence[float]) -> Array:
    """Return depths at which rays enter a frustum; they must be flatter than its sides."""
    cx, y0, cz, r0, y1, r1 = (np.float32(v) for v in size)
    slope = (r1 - r0) / (y1 - y0)
    ox, oz = rays.o[0] - cx, rays.o[2] - cz
    dx, dy, dz = rays.d
    wide = r0 + slope * (rays.o[1] - y0)  # the side's radius at the origin's height
    thin = slope * dy
    a = dx * dx + dz * dz - thin * thin
    b = ox * dx + oz * dz - wide * thin
    c = ox * ox + oz * oz - wide * wide
    under = b * b - a * c
    start = (-b - np.sqrt(np.maximum(under, np.float32(0)))) / a
    height = rays.o[1] + start * dy
    good = (under > 0) & (start > NEAR) & (height >= y0) & (height <= y1)
    found = np.where(good, start, FAR)
    for level, radius, sign in ((y1, r1, -1), (y0, r0, 1)):
        facing = rays.d[1] * sign > 0
        if not np.any(facing):
            continue
        flat = (level - rays.o[1]) * rays.over[1]
        x, z = ox + flat * dx, oz + flat * dz
        good = facing & (flat > NEAR) & (x * x + z * z <= radius * radius)
        found = np.where(good, np.minimum(found, flat), found)
    return found
