"""Union-find: which names belong together, directly or through others.

groups = UnionFind(["a", "b", "c"])
groups.union(["a", "b"])
groups.find("b")                # "a": a group has the smallest of its names
"""

from __future__ import annotations

from collections.abc import Iterable


class UnionFind:
    """Disjoint groups of names; each group is named by its smallest member."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parent = {name: name for name in names}

    def find(self, name: str) -> str:
        """Return the name of the group that `name` is in."""
        while (parent := self._parent[name]) != name:
            self._parent[name] = self._parent[parent]  # halves the path for the next search
            name = parent
        return name

    def union(self, names: Iterable[str]) -> None:
        """Merge the groups that hold `names`."""
        smallest, *others = sorted({self.find(name) for name in names})
        for other in others:
            self._parent[other] = smallest
