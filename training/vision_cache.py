"""Caches what a frozen vision tower computes of an image, for as long as it is frozen.

    cache = cache_image_features(model)        # model.model.get_image_features now looks here first
    cache_image_features(reference, cache)     # a reference with the same tower shares the cache

A group of answers is about one image, and each training step looks at it several times over: while
sampling, for the reference, and for the loss. The tensors are the same ones.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes seconds to import, and `vigorl train list` needs none of it
    from torch import Tensor

CACHE_BYTES = 2**29


class FeatureCache:
    """Image features by a hash of the pixels; the least recently used go over `max_bytes`."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self.kept: OrderedDict[bytes, tuple[Tensor, ...]] = OrderedDict()
        self.computed = 0
        """Images that went through the tower."""

    def get(self, key: bytes) -> tuple[Tensor, ...] | None:
        """Return the features of an image, or None."""
        if key in self.kept:
            self.kept.move_to_end(key)
        return self.kept.get(key)

    def put(self, key: bytes, features: tuple[Tensor, ...]) -> None:
        """Add the features of an image that went through the tower."""
        self.kept[key] = features
        self.computed += 1
        self.bytes += sum(part.nbytes for part in features)
        while self.bytes > self.max_bytes and len(self.kept) > 1:
            _, oldest = self.kept.popitem(last=False)
            self.bytes -= sum(part.nbytes for part in oldest)


def cache_image_features(model: Any, cache: FeatureCache | None = None) -> FeatureCache:
    """Make a model whose vision tower is frozen use a cache; return the cache."""
    import torch

    cache = cache or FeatureCache()
    inner = model.model
    compute = inner.get_image_features

    def get_image_features(pixel_values: Tensor, image_grid_thw: Tensor, **options: Any) -> Any:
        pieces = pixel_values.split(image_grid_thw.prod(-1).tolist())
        keys = [pixels_hash(p, g) for p, g in zip(pieces, image_grid_thw, strict=True)]
        known = {key: found for key in set(keys) if (found := cache.get(key)) is not None}
        missing = {key: i for i, key in enumerate(keys) if key not in known}
        if missing:
            wanted = list(missing.values())
            with torch.no_grad():
                out = compute(
                    torch.cat([pieces[i] for i in wanted]), image_grid_thw[wanted],
                    **{**options, "return_dict": True},
                )  # fmt: skip
            deep = getattr(out, "deepstack_features", None) or []
            for at, key in enumerate(missing):
                known[key] = (out.pooler_output[at], *(layer[at] for layer in deep))
                cache.put(key, tuple(part.detach().clone() for part in known[key]))
        layers = list(zip(*(known[key] for key in keys), strict=True))
        # The two fields of the library's output that its models read.
        return SimpleNamespace(pooler_output=layers[0], deepstack_features=list(layers[1:]))

    inner.get_image_features = get_image_features
    return cache


def pixels_hash(pixels: Tensor, grid: Tensor) -> bytes:
    """Return a hash of an image's patches."""
    data = pixels.detach().cpu().float().contiguous().numpy().tobytes()
    digest = hashlib.blake2b(data, digest_size=16)
    digest.update(repr(grid.tolist()).encode())
    return digest.digest()


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image as the model takes it."""

    pixels: Any
    """(patches, values): what the processor makes of it."""
    grid: Any
    """(3,): frames, rows and columns of patches."""
    key: bytes
    """A hash of both."""

    @classmethod
    def of(cls, pixels: Any, grid: Any) -> ImageInput:
        """Return an image's input from its part of the processor's output."""
        return cls(pixels, grid, pixels_hash(pixels, grid))
