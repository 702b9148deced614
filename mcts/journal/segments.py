"""The journal's segments: append-only files, synced before a record is used; and their purge.

    writer = SegmentWriter(folder, segment_bytes=64 * 2**20)
    path, offsets = writer.write([(record, encode(record))], teacher="qwen@1f3a")
    writer.close()
    purge(folder, {"a2f0…", "77c1…"})       # the number of responses removed

A failed write (a full disk) ends its segment: a partial line is cut off, and the next write begins
another segment, so that nothing ever follows a torn line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from mcts import failpoints
from mcts.journal.records import Record, encode, is_intact, search_of


class SegmentWriter:
    """Appends lines to its own segments in `folder`, each at most about `segment_bytes` long."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self._folder, self._segment_bytes = folder, segment_bytes
        self._path: Path | None = None
        self._fd: int | None = None
        self._size = 0

    def write(
        self, entries: list[tuple[Record, bytes]], teacher: str | None = None
    ) -> tuple[Path, list[int]]:
        """Write and sync records with their encoded lines; return the segment and their offsets.

        Args:
            teacher: identity of the teacher, recorded in the first line of a new segment.

        Raises:
            OSError: none of them is stored.
        """
        if self._fd is None or self._size >= self._segment_bytes:
            self._open()
        fd, path = self._fd, self._path
        assert fd is not None and path is not None
        lines = [line for _, line in entries]
        if self._size == 0 and teacher:
            lines[0] = encode(entries[0][0], teacher)
        data = memoryview(b"".join(lines))
        try:
            failpoints.reach("journal_write", lambda: os.write(fd, data[: len(data) // 2]))
            while data:
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        except OSError:
            self._abandon()
            raise
        offsets = []
        for line in lines:
            offsets.append(self._size)
            self._size += len(line)
        return path, offsets

    def _open(self) -> None:
        self.close()
        # Segments sort by time; the rest of the name, with O_EXCL, keeps writers apart.
        name = f"{time.time_ns():020d}-{os.getpid()}-{os.urandom(3).hex()}.jsonl"
        self._path = self._folder / name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._fd, self._size = os.open(self._path, flags, 0o644), 0
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the file name survives a power cut
        finally:
            os.close(folder)

    def _abandon(self) -> None:
        """Close a segment whose last write failed, without its partial line."""
        assert self._fd is not None
        with suppress(OSError):  # otherwise readers skip the torn end, and nothing follows it
            os.ftruncate(self._fd, self._size)
        self.close()

    def close(self) -> None:
        """Close the segment; the next write opens another one."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def purge(folder: Path, search_ids: Set[str]) -> int:
    """Remove every response of some searches for good, so that they cannot be replayed either.

    No writer may have the journal open. Each segment concerned is rewritten and replaced in one
    step; unreadable lines stay as they are.

    Returns:
        The number of responses removed.
    """

    def is_purged(line: bytes) -> bool:
        return is_intact(line) and search_of(line) in search_ids

    removed = 0
    for path in sorted(folder.glob("*.jsonl")) if search_ids else ():
        with path.open("rb") as file:
            found = sum(map(is_purged, file))
        if not found:
            continue
        temporary = path.with_name(f".{path.name}.purged")
        with path.open("rb") as file, temporary.open("wb") as kept:
            kept.writelines(line for line in file if not is_purged(line))
            kept.flush()
            os.fsync(kept.fileno())
        os.replace(temporary, path)
        removed += found
    return removed
