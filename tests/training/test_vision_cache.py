"""Image features are kept up to a size; those that nobody asked for the longest go first."""

from __future__ import annotations

import torch

from training.vision_cache import FeatureCache


def features(count: int) -> tuple[torch.Tensor, ...]:
    """Features of `count` bytes in two parts."""
    return torch.zeros(count - 1, dtype=torch.uint8), torch.zeros(1, dtype=torch.uint8)


def test_the_least_recently_used_go_over_the_size() -> None:
    cache = FeatureCache(30)
    for name in (b"a", b"b", b"c"):
        cache.put(name, features(10))
    assert list(cache.kept) == [b"a", b"b", b"c"] and cache.bytes == 30, "just full"
    assert cache.get(b"a") is not None and cache.get(b"z") is None
    cache.put(b"d", features(10))
    assert list(cache.kept) == [b"c", b"a", b"d"] and cache.bytes == 30
    assert cache.computed == 4


def test_what_is_too_large_for_the_cache_is_kept_until_the_next() -> None:
    cache = FeatureCache(5)
    cache.put(b"a", features(10))
    assert list(cache.kept) == [b"a"]
    cache.put(b"b", features(7))
    assert list(cache.kept) == [b"b"] and cache.bytes == 7
