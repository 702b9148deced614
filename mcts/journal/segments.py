"""Writing a journal's segments: files that only grow, synced before anyone relies on them.

    writer = SegmentWriter(folder, segment_bytes=64 * 2**20)
    path, offsets = writer.write([(record, encode(record))], teacher="qwen@1f3a")
    writer.close()

A write that fails (a full disk) ends its segment: what may be half written is cut off, and the
next write begins another one, so that nothing ever follows a torn line.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from mcts import failpoints
from mcts.journal.records import Record, encode


class SegmentWriter:
    """Appends lines to segments of its own in `folder`, each of about `segment_bytes` at most."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self._folder, self._segment_bytes = folder, segment_bytes
        self._path: Path | None = None
        self._fd: int | None = None
        self._size = 0

    def write(
        self, entries: list[tuple[Record, bytes]], teacher: str | None = None
    ) -> tuple[Path, list[int]]:
        """Write and sync the lines of some records; the segment, and where in it each begins.

        Args:
            entries: records with their encoded lines.
            teacher: identity of who answers, told in the first line of a new segment.

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
        # The time sorts them, the rest keeps writers apart; O_EXCL makes sure of it.
        name = f"{time.time_ns():020d}-{os.getpid()}-{os.urandom(3).hex()}.jsonl"
        self._path = self._folder / name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._fd, self._size = os.open(self._path, flags, 0o644), 0
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # or the file's name might not survive a power cut
        finally:
            os.close(folder)

    def _abandon(self) -> None:
        """Leave a segment whose last write failed: cut off what may be half written."""
        assert self._fd is not None
        with suppress(OSError):  # if not: readers skip a torn end, and nothing follows it
            os.ftruncate(self._fd, self._size)
        self.close()

    def close(self) -> None:
        """Close the segment; another write opens a new one."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
