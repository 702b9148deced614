"""Things that belong together, directly or through others.

groups = Groups(["a", "b", "c"])
groups.join(["a", "b"])
groups.name("b")                # "a": a group has the smallest of its names
"""

from __future__ import annotations

from collections.abc import Iterable


class Groups:
    """Names that belong together, directly or through others; a group has its smallest name."""

    def __init__(self, names: Iterable[str]) -> None:
        self._above = {name: name for name in names}

    def name(self, one: str) -> str:
        """The name of the group `one` is in."""
        while (above := self._above[one]) != one:
            self._above[one] = self._above[above]  # shorten the way for the next
            one = above
        return one

    def join(self, names: Iterable[str]) -> None:
        """Make one group of those that hold `names`."""
        smallest, *others = sorted({self.name(one) for one in names})
        for other in others:
            self._above[other] = smallest
