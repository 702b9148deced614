"""The two lenses of the ray caster: the camera's perspective, and the light's parallel rays.

eye = Eye(side, focal, height, yaw, pitch)      # for ray_caster.cast
sun = Sun(side, light, points)
"""

from __future__ import annotations

import numpy as np

from vigorl_nano.rooms.ray_caster import NEAR, Array


class Eye:
    """A perspective lens: `side` x `side` rays, `focal` pixels of that side long."""

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


class Sun:
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
    """Whole-pixel rectangles round points (n, 8), kept within the picture."""
    edges = [np.floor(v.min(1)), np.floor(u.min(1)), np.ceil(v.max(1)) + 1, np.ceil(u.max(1)) + 1]
    limits = (shape[0], shape[1], shape[0], shape[1])
    return np.stack([np.clip(e, 0, n) for e, n in zip(edges, limits, strict=True)], 1).astype(int)
