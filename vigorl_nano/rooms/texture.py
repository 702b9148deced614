"""Grey patterns that repeat: floor boards, tiles and carpet, wood grain, cloth and brushed metal.

A pattern multiplies a colour; it is made once from a fixed seed, so images stay the same:

    factor = floor_factor("planks", x, z, texel)
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Array = np.ndarray
ROUNDS = 9
SIDE = 2**ROUNDS  # texels of a floor pattern
FLOOR_METRES = {"planks": 2.4, "tiles": 2.4, "plain": 1.6}  # that many metres a repeat
LEVELS = 5
SURFACES = ("flat", "wood", "cloth", "brushed")
SURFACE_SIDE, SURFACE_METRES = 256, 1.0


def cloud(seed: int, shape: tuple[int, int], across: float, along: float) -> Array:
    """Make noise of mean 0 and deviation 1 that repeats, blurred over so many rows and columns."""
    noise = np.fft.rfft2(np.random.default_rng(seed).normal(size=shape))
    v, u = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    soft = np.fft.irfft2(
        noise * np.exp(-2 * np.pi**2 * ((v * across) ** 2 + (u * along) ** 2)), shape
    )
    return (soft - soft.mean()) / soft.std()


def planks() -> Array:
    """Make fifteen boards along z (the rows), each with its tone, joints and grain."""
    rng, count = np.random.default_rng(5), 15
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    board = columns * count // SIDE
    within = columns * count / SIDE - board
    start = rng.integers(0, SIDE, count)[board]
    step = (rows - start) % SIDE
    half = (step >= SIDE // 2).astype(int)
    tone = rng.uniform(0.88, 1.06, (count, 2))[board, half]
    grain = cloud(1, (SIDE, SIDE), 30, 0.7) * 0.022 + cloud(2, (SIDE, SIDE), 60, 2.5) * 0.03
    rolled = np.stack([np.roll(grain, s) for s in rng.integers(0, SIDE * SIDE, 4)])
    made = tone * (1 + np.take_along_axis(rolled, (board * 2 + half)[None] % 4, 0)[0])
    made[(within < 0.05) | (within > 0.97)] *= 0.74
    made[step % (SIDE // 2) < 2] *= 0.72
    return made


def tiles() -> Array:
    """Make six square tiles a side with grout, each a little different."""
    rng, count = np.random.default_rng(6), 6
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    i, j = rows * count // SIDE, columns * count // SIDE
    made = rng.uniform(0.9, 1.06, (count, count))[i, j] * np.where((i + j) % 2, 0.94, 1.02)
    made *= 1 + 0.035 * cloud(3, (SIDE, SIDE), 9, 9) + 0.02 * cloud(4, (SIDE, SIDE), 2, 2)
    a, b = rows * count / SIDE - i, columns * count / SIDE - j
    made[(np.minimum(a, b) < 0.02) | (np.maximum(a, b) > 0.98)] = 0.68
    return made


def carpet() -> Array:
    coarse, fine = cloud(7, (SIDE, SIDE), 14, 14), cloud(8, (SIDE, SIDE), 1.2, 1.2)
    return 0.98 + 0.02 * coarse + 0.05 * fine


@lru_cache(maxsize=4)
def floor_map(style: str) -> tuple[Array, Array]:
    """Return all sizes of a floor pattern end to end, and where each of them starts."""
    level = {"planks": planks, "tiles": tiles, "plain": carpet}[style]()
    flat, starts = [level.ravel()], [0]
    for _ in range(LEVELS - 1):
        level = (level[::2, ::2] + level[1::2, ::2] + level[::2, 1::2] + level[1::2, 1::2]) / 4
        starts.append(starts[-1] + flat[-1].size)
        flat.append(level.ravel())
    return np.concatenate(flat).astype(np.float32), np.array(starts, np.intp)


def floor_factor(style: str, x: Array, z: Array, pixel: Array) -> Array:
    """Return the pattern at floor points in metres; `pixel` is the width of a pixel there."""
    flat, starts = floor_map(style)
    scale = np.float32(SIDE / FLOOR_METRES[style])
    level = np.zeros(len(x), np.intp)
    for step in range(1, LEVELS):
        level += pixel > np.float32(2 ** (step - 0.5) / scale)
    u = (x * scale + np.float32(64 * SIDE)).astype(np.intp) & (SIDE - 1)
    v = (z * scale + np.float32(64 * SIDE)).astype(np.intp) & (SIDE - 1)
    place = (v >> level) << (ROUNDS - level)
    place += u >> level
    place += starts.take(level)
    return flat.take(place)


@lru_cache(maxsize=1)
def surfaces() -> Array:
    """Make the patterns of SURFACES end to end, flat; wood grain runs along the columns."""
    shape = (SURFACE_SIDE, SURFACE_SIDE)
    bend = cloud(11, shape, 14, 60)
    rings = np.sin(2 * np.pi * (np.arange(SURFACE_SIDE)[:, None] * 22 / SURFACE_SIDE + 0.9 * bend))
    wood = 0.95 + 0.04 * rings + 0.03 * cloud(12, shape, 0.9, 25) + 0.025 * cloud(13, shape, 12, 60)
    cloth = 0.97 + 0.022 * cloud(14, shape, 9, 9) + 0.035 * cloud(15, shape, 1.1, 1.1)
    brushed = 0.97 + 0.05 * cloud(16, shape, 1.5, 50)
    made = np.stack([np.ones(shape), wood, cloth, brushed]).astype(np.float32)
    return np.clip(made, 0.7, 1.12).ravel()


def surface_factor(which: Array, u: Array, v: Array) -> Array:
    """Return pattern number `which` of SURFACES at (u, v) metres; grain runs along u."""
    scale, size = np.float32(SURFACE_SIDE / SURFACE_METRES), SURFACE_SIDE
    i = (v * scale + np.float32(64 * size)).astype(np.intp) & (size - 1)
    j = (u * scale + np.float32(64 * size)).astype(np.intp) & (size - 1)
    return surfaces().take((which.astype(np.intp) * size + i) * size + j)
