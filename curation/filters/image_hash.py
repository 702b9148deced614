"""Images that look alike: a perceptual hash of 64 bits, and those within a few bits of it.

    phash(data)                                   # 0x9f3a…, the same after re-encoding or resizing
    groups = group_similar({"a": h1, "b": h2, "c": h3})   # {"a": "a", "b": "a", "c": "c"}

The hash is the usual one: the image in 32 x 32 grey values, its cosine transform, and of the 64
lowest frequencies whether each is above their median. It sees how light and dark are laid out, and
neither colour nor detail: two frames of one room in which something small has moved are alike.
For keeping training and evaluation apart that is the safe side to err on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from curation.filters.union_find import UnionFind
from mcts.image_io import decode

METHOD = "dct-phash/1"
"""Name and version of the hash; stored with it."""
SIMILAR_BITS = 6
"""Two images are alike when at most so many of their 64 bits differ. Measured on the embedded
sample: re-encoded to JPEG of quality 20 at half the size, 4; two different rooms, at least 8."""

_SIDE, _KEPT = 32, 8
_FLAT = 2.0  # grey levels; an image that varies less is blank, and all blank ones would be alike
_CELLS = 1 << 22  # distances computed at once
_FEW = 256  # distances that are computed sooner than bands are made

_n = np.arange(_SIDE)
_COSINES = np.cos(np.pi * np.outer(np.arange(_KEPT), 2 * _n + 1) / (2 * _SIDE))  # DCT-II, 8 x 32


def phash(data: bytes) -> int | None:
    """Hash an encoded image; None if it is blank.

    Raises:
        UnreadableImage: it cannot be decoded.
    """
    # A JPEG is decoded no larger than needed.
    grey = decode(data, at_most=(8 * _SIDE, 8 * _SIDE)).convert("L")
    small = grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return hash_of(np.asarray(small, dtype=np.float64))


def hash_of(grey: np.ndarray) -> int | None:
    """Hash 32 x 32 grey values; None if they are all nearly the same."""
    if grey.std() < _FLAT:
        return None
    low = (_COSINES @ grey @ _COSINES.T).ravel()
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def distance(a: int, b: int) -> int:
    """Count the bits in which two hashes differ."""
    return (a ^ b).bit_count()


def close_pairs(
    left: Iterable[int], right: Iterable[int], max_bits: int = SIMILAR_BITS
) -> Iterator[tuple[int, int]]:
    """Yield every (hash of `left`, hash of `right`) at most `max_bits` bits apart, once each.

    Cut into `max_bits + 1` bands, two such hashes agree in one band at least, so that only hashes
    that share a band are compared. No pair is missed.
    """
    a, b = (np.unique(np.fromiter(side, np.uint64)) for side in (left, right))
    edges = np.linspace(0, 64, max_bits + 2).astype(int)
    bands = [
        (np.uint64(start), np.uint64((1 << (end - start)) - 1)) for start, end in pairwise(edges)
    ]
    if len(a) * len(b) <= _FEW:
        yield from _pairs_of_few(a, b, bands, max_bits)
        return
    for n, (shift, mask) in enumerate(bands):
        keys_a, keys_b = (a >> shift) & mask, (b >> shift) & mask
        mine, its = (
            side[np.argsort(keys, kind="stable")] for side, keys in ((a, keys_a), (b, keys_b))
        )
        keys_a, keys_b = np.sort(keys_a), np.sort(keys_b)
        first = np.searchsorted(keys_b, keys_a, "left")
        sharing = np.searchsorted(keys_b, keys_a, "right") - first
        for rows in _chunks(sharing):
            here = np.repeat(mine[rows], sharing[rows])
            there = its[_ranges(first[rows], sharing[rows])]
            differing = here ^ there
            found = np.bitwise_count(differing) <= max_bits
            for before, mask_before in bands[:n]:  # an earlier band has yielded these
                found &= (differing >> before) & mask_before != 0
            yield from zip(here[found].tolist(), there[found].tolist(), strict=True)


def _chunks(sizes: np.ndarray) -> Iterator[slice]:
    """Cut rows into slices whose sizes add up to some `_CELLS`; a larger one is a slice."""
    until = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = until[start] - sizes[start]
        end = max(start + 1, int(np.searchsorted(until, before + _CELLS, "right")))
        yield slice(start, end)
        start = end


def _ranges(first: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return `first`, `first + 1`, … of each row, `sizes` of them, one row behind the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - sizes), sizes)


def _pairs_of_few(
    a: np.ndarray, b: np.ndarray, bands: Sequence[tuple[np.uint64, np.uint64]], max_bits: int
) -> list[tuple[int, int]]:
    """Compare all with all; return the pairs in the order in which the bands yield them."""
    differing = a[:, None] ^ b[None, :]
    found: list[tuple[int, int, int, int]] = []
    for i, j in zip(*np.nonzero(np.bitwise_count(differing) <= max_bits), strict=True):
        one, other = differing[i, j], a[i]
        n = next(n for n, (shift, mask) in enumerate(bands) if not (one >> shift) & mask)
        shift, mask = bands[n]
        found.append((n, int((other >> shift) & mask), int(other), int(b[j])))
    return [(mine, its) for _, _, mine, its in sorted(found)]


def linked(seeds: Iterable[int], known: np.ndarray, max_bits: int = SIMILAR_BITS) -> set[int]:
    """Return the hashes of `known` that are like one of `seeds`, or linked to it by ones that are.

    So the groups of a few images are found without comparing all others with each other.
    """
    found: set[int] = set()
    frontier = set(seeds)
    while frontier:
        frontier = {there for _, there in close_pairs(frontier, known, max_bits)} - found
        found |= frontier
    return found


def group_similar(hashes: Mapping[str, int | None], max_bits: int = SIMILAR_BITS) -> dict[str, str]:
    """Group images that are alike, or linked by ones that are; a group is named by its smallest id.

    A blank image is alone.
    """
    ids: dict[int, list[str]] = {}
    for image_id, value in sorted(hashes.items()):
        if value is not None:
            ids.setdefault(value, []).append(image_id)
    groups = UnionFind(hashes)
    for same in ids.values():
        groups.union(same)
    for a, b in close_pairs(ids, ids, max_bits):
        groups.union((ids[a][0], ids[b][0]))
    return {image_id: groups.find(image_id) for image_id in hashes}
