"""Taking searches out of a journal for good: what must not be kept must not be replayed either.

    gone = purge(folder, {"a2f0…", "77c1…"})      # how many responses were in it, and are no longer

No writer may have the journal open. A segment that holds some is written anew without them and put
in its place in one step; lines that cannot be read stay as they are.
"""

from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path

from mcts.journal.records import intact, search_of


def purge(folder: Path, search_ids: Set[str]) -> int:
    """Remove every response of the searches named from the segments in `folder`."""
    gone = 0
    for path in sorted(folder.glob("*.jsonl")) if search_ids else ():
        with path.open("rb") as file:
            held = sum(_of(line, search_ids) for line in file)
        if not held:
            continue
        temporary = path.with_name(f".{path.name}.purged")
        with path.open("rb") as file, temporary.open("wb") as left:
            left.writelines(line for line in file if not _of(line, search_ids))
            left.flush()
            os.fsync(left.fileno())
        os.replace(temporary, path)
        gone += held
    return gone


def _of(line: bytes, search_ids: Set[str]) -> bool:
    return intact(line) and search_of(line) in search_ids
