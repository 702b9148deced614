"""Prompts that have been run, kept while there is room, so that what they begin with is run once.

    cache = PrefixCache(room_bytes=2**28)
    prefix, shared = cache.find(names)     # the longest common beginning with any kept prompt
    cache.add(Prefix(names, keys_values, logits, delta))

In a tree search every prompt is its parent's plus a step, and is asked for twice (rollout, then
expansion): most of what a search would run, it has run.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 16
"""Beginnings are indexed at multiples of this many tokens, so shorter ones are not found."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prompt that has been run."""

    names: tuple[int, ...]
    """What stands at each position; see `mcts.teachers.local.decoder.Prompt`."""
    keys_values: Tensor
    """(layers, 2, heads, length, width)."""
    logits: Tensor
    """(vocabulary,): of the token after the prompt."""
    delta: int
    """The next position id minus the length."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.keys_values.nbytes + self.logits.nbytes


class PrefixCache:
    """Keeps the prompts used last, up to `room_bytes`."""

    def __init__(self, room_bytes: int) -> None:
        self._most = self._room = room_bytes
        self._kept: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self._beginnings: dict[int, tuple[int, ...]] = {}

    def find(self, names: tuple[int, ...]) -> tuple[Prefix | None, int]:
        """The kept prompt with the longest common beginning, and its length in tokens."""
        if names in self._kept:
            self._kept.move_to_end(names)
            return self._kept[names], len(names)
        for end in range(len(names) // BLOCK * BLOCK, 0, -BLOCK):
            found = self._beginnings.get(hash(names[:end]))
            if found is not None and found[:end] == names[:end]:
                while end < min(len(names), len(found)) and names[end] == found[end]:
                    end += 1
                self._kept.move_to_end(found)
                return self._kept[found], end
        return None, 0

    def add(self, prefix: Prefix) -> None:
        """Keep a prompt, at the cost of those not used for longest."""
        if prefix.size > self._most or prefix.names in self._kept:
            return
        self._kept[prefix.names] = prefix
        self._room -= prefix.size
        for end in range(BLOCK, len(prefix.names) + 1, BLOCK):
            self._beginnings[hash(prefix.names[:end])] = prefix.names
        while self._room < 0:
            names, oldest = self._kept.popitem(last=False)
            self._room += oldest.size
            for end in range(BLOCK, len(names) + 1, BLOCK):
                beginning = hash(names[:end])
                if self._beginnings.get(beginning) == names:
                    del self._beginnings[beginning]
