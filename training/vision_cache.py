"""What a frozen vision tower makes of a picture, computed once for as long as it is frozen.

    seen = remember_pictures(model)          # model.model.get_image_features now remembers
    remember_pictures(reference, seen)       # a reference with the same tower shares what is known

A group of answers is about one picture, and each training step looks at it several times over:
while sampling, for the reference, and for the loss. The tensors are the same ones.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

ROOM_BYTES = 2**29


class Seen:
    """Features of pictures by a hash of their pixels, those used last within `room` bytes."""

    def __init__(self, room: int = ROOM_BYTES) -> None:
        self.room, self.bytes = room, 0
        self.kept: OrderedDict[bytes, tuple[Tensor, ...]] = OrderedDict()
        self.computed = 0
        """Pictures that went through the tower."""

    def get(self, name: bytes) -> tuple[Tensor, ...] | None:
        if name in self.kept:
            self.kept.move_to_end(name)
        return self.kept.get(name)

    def put(self, name: bytes, features: tuple[Tensor, ...]) -> None:
        self.kept[name] = features
        self.computed += 1
        self.bytes += sum(part.nbytes for part in features)
        while self.bytes > self.room and len(self.kept) > 1:
            _, oldest = self.kept.popitem(last=False)
            self.bytes -= sum(part.nbytes for part in oldest)


def remember_pictures(model: Any, seen: Seen | None = None) -> Seen:
    """Have a model whose vision tower is frozen remember pictures; what remembers them."""
    seen = seen or Seen()
    inner = model.model
    compute = inner.get_image_features

    def get_image_features(pixel_values: Tensor, image_grid_thw: Tensor, **options: Any) -> Any:
        pieces = pixel_values.split(image_grid_thw.prod(-1).tolist())
        names = [pixels_name(p, g) for p, g in zip(pieces, image_grid_thw, strict=True)]
        known = {name: found for name in set(names) if (found := seen.get(name)) is not None}
        missing = {name: i for i, name in enumerate(names) if name not in known}
        if missing:
            wanted = list(missing.values())
            with torch.no_grad():
                out = compute(
                    torch.cat([pieces[i] for i in wanted]), image_grid_thw[wanted],
                    **{**options, "return_dict": True},
                )  # fmt: skip
            deep = getattr(out, "deepstack_features", None) or []
            for at, name in enumerate(missing):
                known[name] = (out.pooler_output[at], *(layer[at] for layer in deep))
                seen.put(name, tuple(part.detach().clone() for part in known[name]))
        layers = list(zip(*(known[name] for name in names), strict=True))
        return _Features(layers[0], list(layers[1:]))

    inner.get_image_features = get_image_features
    return seen


class _Features:
    """The two fields of the library's own output that its models read."""

    def __init__(self, pooler_output: Any, deepstack_features: list[Any]) -> None:
        self.pooler_output, self.deepstack_features = pooler_output, deepstack_features


def pixels_name(pixels: Tensor, grid: Tensor) -> bytes:
    """A hash of a picture's patches."""
    data = pixels.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy().tobytes()
    digest = hashlib.blake2b(data, digest_size=16)
    digest.update(repr(grid.tolist()).encode())
    return digest.digest()
