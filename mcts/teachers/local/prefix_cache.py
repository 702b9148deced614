"""The prefix cache: keys and values of earlier prompts, so that common prefixes are run once.

    cache = PrefixCache(max_bytes=2**28)
    prefix, shared = cache.find(names)     # the longest common prefix with any cached prompt
    cache.add(Prefix(names, keys_values, logits, delta))

In a tree search every prompt is its parent's plus a step, and is used twice (rollout, then
expansion), so most tokens of a prompt have been run before.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

BLOCK = 16
"""Prefixes are indexed at multiples of this many tokens; shorter ones are not found."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prompt that has been run."""

    names: tuple[int, ...]
    """The content of each position; see `mcts.teachers.local.decoder.EncodedPrompt`."""
    keys_values: Tensor
    """(layers, 2, heads, length, width)."""
    logits: Tensor
    """(vocabulary,): logits of the token after the prompt."""
    delta: int
    """The next position id minus the length."""

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.keys_values.nbytes + self.logits.nbytes


class PrefixCache:
    """Keeps the most recently used prompts, up to `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._bytes_left = max_bytes
        self._prompts: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self._by_prefix: dict[int, tuple[int, ...]] = {}

    def find(self, names: tuple[int, ...]) -> tuple[Prefix | None, int]:
        """Return the cached prompt with the longest common prefix, and that prefix's length."""
        if names in self._prompts:
            self._prompts.move_to_end(names)
            return self._prompts[names], len(names)
        for end in range(len(names) // BLOCK * BLOCK, 0, -BLOCK):
            cached = self._by_prefix.get(hash(names[:end]))
            if cached is not None and cached[:end] == names[:end]:
                while end < min(len(names), len(cached)) and names[end] == cached[end]:
                    end += 1
                self._prompts.move_to_end(cached)
                return self._prompts[cached], end
        return None, 0

    def add(self, prefix: Prefix) -> None:
        """Cache a prompt; evict the least recently used ones."""
        if prefix.size > self._max_bytes or prefix.names in self._prompts:
            return
        self._prompts[prefix.names] = prefix
        self._bytes_left -= prefix.size
        for end in range(BLOCK, len(prefix.names) + 1, BLOCK):
            self._by_prefix[hash(prefix.names[:end])] = prefix.names
        while self._bytes_left < 0:
            names, oldest = self._prompts.popitem(last=False)
            self._bytes_left += oldest.size
            for end in range(BLOCK, len(names) + 1, BLOCK):
                key = hash(names[:end])
                if self._by_prefix.get(key) == names:
                    del self._by_prefix[key]
