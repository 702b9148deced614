"""Shade of a room: soft shadows cast along one light, and the dimness where things meet the floor.

shadows = Shadows(table, light, side)
shadows.on_room(points), shadows.on_things(points, normals)      # 0 lit to 1 in shadow
dim = Contact(scene).at(x, z)                                    # 0 to 1, on the floor
"""

from __future__ import annotations

import numpy as np

from vigorl_nano.rooms.objects import SIZES, STAND
from vigorl_nano.rooms.ray_caster import FAR, ParallelProjection, Table, cast
from vigorl_nano.rooms.scene import Scene

Array = np.ndarray
COARSE = 4  # texels of the light's image to one of its wide blur


def blur(values: Array, radius: int) -> Array:
    """Box blur applied twice along both axes: nearly a Gaussian."""
    for axis in (0, 1, 0, 1):
        n = 2 * radius + 1
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(values, pad), axis=axis, dtype=np.float32)
        size = values.shape[axis]
        values = (total.take(range(n, n + size), axis) - total.take(range(size), axis)) / n
    return values


def downsample(values: Array) -> Array:
    side = len(values) // COARSE
    return values.reshape(side, COARSE, side, COARSE).mean(axis=(1, 3), dtype=np.float32)


def bilinear(grid: Array, u: Array, v: Array) -> Array:
    """Bilinear look-up at (column, row) places; `grid`'s edge stands for all that lies outside."""
    rows, columns = grid.shape
    u, v = (np.clip(w, np.float32(0), np.float32(n - 1.001)) for w, n in ((u, columns), (v, rows)))
    i, j = np.floor(v), np.floor(u)
    a, b = v - i, u - j
    at, flat = (i * np.float32(columns) + j).astype(np.intp), grid.ravel()
    top = flat.take(at)
    top += (flat[1:].take(at) - top) * b
    low = flat[columns:].take(at)
    low += (flat[columns + 1 :].take(at) - low) * b
    low -= top
    low *= a
    return top + low


class Shadows:
    """What the light sees, blurred narrowly and widely: shadows soften with the distance."""

    def __init__(self, table: Table, light: Array, side: int) -> None:
        self.empty = len(table.corners) == 0
        if self.empty:
            return
        self.light = light.astype(np.float32)
        self.sun = ParallelProjection(side, light, table.corners.reshape(-1, 3), 0.6)
        hits = cast(table, self.sun)
        texel = float(self.sun.step.mean())
        self.depth = hits.depth
        covered = (hits.solid > 0).astype(np.float32)
        wide = max(1, round(0.055 / texel / COARSE))
        self.sharp = blur(covered, max(1, round(0.018 / texel)))
        self.soft = blur(downsample(covered), wide)
        total = blur(downsample(np.where(covered > 0, hits.depth, np.float32(0))), wide)
        self.blocker = np.where(self.soft > 1e-4, total / np.maximum(self.soft, 1e-4), FAR)
        self.texel = np.float32(texel)

    def places(self, points: Array) -> Array:
        """Column and row in the light's image, and depth, of points (3, n)."""
        u, v, depth = self.sun.axes @ points
        return np.stack(
            [
                (u - self.sun.low[0]) / self.sun.step[0] - np.float32(0.5),
                (v - self.sun.low[1]) / self.sun.step[1] - np.float32(0.5),
                depth - self.sun.start,
            ]
        )

    def on_room(self, points: Array) -> Array:
        """Shadow at points (3, n) of floor and walls, which have every object before them."""
        result = np.zeros(points.shape[1], np.float32)
        if self.empty:
            return result
        u, v, depth = self.places(points)
        rows, columns = self.depth.shape
        shift = np.float32(0.5 - 0.5 / COARSE)
        near = np.flatnonzero((u > 0) & (v > 0) & (u < columns - 1) & (v < rows - 1))
        u, v = u.take(near), v.take(near)
        cell = (v.astype(np.intp) // COARSE) * len(self.soft) + u.astype(np.intp) // COARSE
        some = np.flatnonzero(self.blocker.take(cell) < FAR)
        near, u, v = near[some], u[some], v[some]
        soft = bilinear(self.soft, u / COARSE - shift, v / COARSE - shift)
        away = depth.take(near) - self.blocker.take(cell[some])
        away = np.clip(away / np.float32(2.4), np.float32(0), np.float32(1))
        result[near] = soft * away + bilinear(self.sharp, u, v) * (1 - away)
        return result

    def on_things(self, points: Array, normals: Array) -> Array:
        """Shadow at points (3, n) of objects with unit normals (3, n).

        Percentage-closer filtering (Reeves, Salesin, Cook 1987): the weighted share of the sixteen
        nearest texels at which something is nearer to the light.
        """
        if self.empty:
            return np.zeros(points.shape[1], np.float32)
        u, v, depth = self.places(points + normals * (self.texel * np.float32(1.4)))
        depth -= np.float32(0.012) + self.texel * np.float32(0.4)
        rows, columns = self.depth.shape
        u, v = (
            np.clip(u, np.float32(1), np.float32(columns - 3.01)),
            np.clip(v, np.float32(1), np.float32(rows - 3.01)),
        )
        i, j = v.astype(np.intp), u.astype(np.intp)
        a, b = (v - i).astype(np.float32), (u - j).astype(np.float32)
        flat, at = self.depth.ravel(), (i - 1) * columns + j - 1
        result = np.zeros(points.shape[1], np.float32)
        for row, weight in enumerate((1 - a, None, None, a)):
            here = at + row * columns
            line = (flat.take(here) < depth) * (1 - b) + (flat.take(here + 3) < depth) * b
            line += flat.take(here + 1) < depth
            line += flat.take(here + 2) < depth
            result += line if weight is None else line * weight
        return result / np.float32(9)


class Contact:
    """Darkness of the floor under and round what stands on it, on a grid of seven centimetres."""

    def __init__(self, scene: Scene) -> None:
        room, self.cell = scene.room, np.float32(0.07)
        self.half = np.float32(room.half_width)
        x = np.arange(-room.half_width, room.half_width + 0.07, 0.07).astype(np.float32)[None, :]
        z = np.arange(0.0, room.depth + 0.07, 0.07).astype(np.float32)[:, None]
        light = np.ones((len(z), x.shape[1]), np.float32)
        feet = []
        for t in scene.things:
            width, _, depth = SIZES[t.kind]
            w, d = width * t.scale / 2, depth * t.scale / 2
            strength = {"table": 0.28, "chair": 0.36, "sofa": 0.75}.get(t.kind, 0.6)
            if t.kind in ("ball", "lamp", "vase"):
                w = d = 0.3 * w
            if t.base:
                w = d = STAND / 2
            feet.append((t.x, t.z, t.yaw * (0.25 if t.base else 1.0), w, d, strength))
        if room.plant:
            feet.append((*room.plant, 0.0, 0.12, 0.12, 0.5))
        for fx, fz, yaw, w, d, strength in feet:
            cos, sin = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
            dx, dz = x - np.float32(fx), z - np.float32(fz)
            a = np.maximum(np.abs(dx * cos - dz * sin) - np.float32(w), 0)
            b = np.maximum(np.abs(dx * sin + dz * cos) - np.float32(d), 0)
            out = a * a + b * b
            light *= 1 - np.float32(strength) / (1 + out * np.float32(90))
        self.grid = 1 - light

    def at(self, x: Array, z: Array) -> Array:
        return bilinear(self.grid, (x + self.half) / self.cell, z / self.cell)
