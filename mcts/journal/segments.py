"""The journal's segments: append-only files, synced before a record is used; and their purge.

    writer = SegmentWriter(folder, segment_bytes=64 * 2**20)
    path, offsets = writer.write([(record, encode(record))], teacher="qwen@1f3a")
    writer.close()
    purge(folder, {"a2f0…", "77c1…"})       # the number of responses removed

A failed write (a full disk) ends its segment: a partial line is cut off, and the next write begins
another segment, so that nothing ever follows a torn line.

Where the folder is one machine's own, a store that all machines reach holds the journal too. What
is written at once is put there as an object, `journal/SEGMENT-OFFSET.jsonl`, before it counts as
stored; a segment that is closed takes the place of its parts. `fetch` brings what others put there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from mcts import failpoints
from mcts.journal.records import Record, encode, is_intact, search_of


class Store(Protocol):
    """Objects that every machine reaches; a warehouse's are such."""

    def put(self, key: str, data: bytes) -> bool:
        """Store `data` under `key` unless it is taken."""

    def put_file(self, key: str, path: Path, replace: bool = False) -> bool:
        """Store a file under `key`."""

    def get(self, key: str) -> bytes:
        """Return the bytes of `key`; KeyError where it is not there."""

    def keys(self, prefix: str) -> list[str]:
        """List the keys below the folder `prefix`."""

    def delete(self, key: str) -> None:
        """Delete `key` if it is there."""


SHARED = "journal"
"""The folder of a store that holds a journal's segments."""
_READERS = 8  # threads that fetch: each mostly waits for the store


class SegmentWriter:
    """Appends lines to its own segments in `folder`, each at most about `segment_bytes` long.

    Args:
        store: holds them too, where the folder is this machine's own.
    """

    def __init__(self, folder: Path, segment_bytes: int, store: Store | None = None) -> None:
        self._folder, self._segment_bytes, self._store = folder, segment_bytes, store
        self._parts: list[str] = []  # of the open segment, in the store
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
            OSError: none of them is stored, or they are on this machine only.
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
        self._share(path, b"".join(lines))
        offsets = []
        for line in lines:
            offsets.append(self._size)
            self._size += len(line)
        return path, offsets

    def _share(self, path: Path, data: bytes) -> None:
        """Put what was just written into the store; the segment ends where that fails."""
        if self._store is None:
            return
        key = f"{SHARED}/{path.stem}-{self._size:012d}.jsonl"
        try:
            self._store.put(key, data)
        except Exception as reason:  # whatever the store's client raises
            self.close()  # the lines stay: the next build on this machine has them
            raise OSError(f"the store did not take {key}: {reason}") from reason
        self._parts.append(key)

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
        if fd is None:
            return
        os.close(fd)
        parts, self._parts = self._parts, []
        if self._store is not None and self._path is not None and parts:
            with suppress(Exception):  # its parts hold the same
                self._store.put_file(f"{SHARED}/{self._path.name}", self._path)
                for key in parts:
                    self._store.delete(key)


def fetch(folder: Path, store: Store) -> None:
    """Bring what other machines put into the store and `folder` does not have."""

    def bring(name: str) -> bool:
        try:
            data = store.get(f"{SHARED}/{name}")
        except KeyError:  # its segment was closed since it was listed
            return False
        # Containers that share the folder may also share a process number.
        temporary = folder / f".{name}.{uuid.uuid4().hex}"
        try:
            temporary.write_bytes(data)
            os.replace(temporary, folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def is_here(name: str) -> bool:
        # A part's segment is named by what comes before the last of its three hyphens.
        whole = f"{name.rsplit('-', 1)[0]}.jsonl" if name.count("-") == 3 else name
        return (folder / name).exists() or (folder / whole).exists()

    for _ in range(2):  # a segment that took the place of its parts is in the second list
        names = [key.removeprefix(f"{SHARED}/") for key in _shared(store)]
        with ThreadPoolExecutor(_READERS) as pool:
            if all(pool.map(bring, [name for name in names if not is_here(name)])):
                return


def _shared(store: Store) -> list[str]:
    """Return the keys of the segments in a store, and of parts of such."""
    return [key for key in store.keys(SHARED) if "/" not in key.removeprefix(f"{SHARED}/")]


def purge(folder: Path, search_ids: Set[str], store: Store | None = None) -> int:
    """Remove every response of some searches for good, so that they cannot be replayed either.

    No writer may have the journal open. Each segment concerned is rewritten and replaced in one
    step, in the store before `folder`, so that repeating a purge that broke off finds the rest;
    unreadable lines stay as they are. What other machines have fetched stays there.

    Returns:
        The number of responses removed.
    """
    if not search_ids:
        return 0
    removed: set[bytes] = set()

    def left(lines: Iterable[bytes]) -> Iterator[bytes]:
        for line in lines:
            if is_intact(line) and search_of(line) in search_ids:
                removed.add(hashlib.sha256(line).digest())  # the same here and in the store
            else:
                yield line

    if store is not None:
        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(partial(_purge_shared, store, left), _shared(store)))
    for unfinished in folder.glob(".*.jsonl.*"):  # what a killed process was writing
        unfinished.unlink(missing_ok=True)
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            if sum(map(len, left(file))) == path.stat().st_size:
                continue
        temporary = path.with_name(f".{path.name}.purged")
        with path.open("rb") as file, temporary.open("wb") as kept:
            kept.writelines(left(file))
            kept.flush()
            os.fsync(kept.fileno())
        os.replace(temporary, path)
    return len(removed)


def _purge_shared(
    store: Store, left: Callable[[Iterable[bytes]], Iterator[bytes]], key: str
) -> None:
    """Replace an object of the store by what is `left` of its lines, if that is less."""
    try:
        data = store.get(key)
    except KeyError:  # another purge had nothing left of it
        return
    kept = b"".join(left(data.splitlines(keepends=True)))
    if not kept and data:
        store.delete(key)
    elif len(kept) < len(data):
        with tempfile.NamedTemporaryFile() as file:
            file.write(kept)
            file.flush()
            store.put_file(key, Path(file.name), replace=True)
