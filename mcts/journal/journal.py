"""Every response of a model, once, in durable segments on the local disk; a search replays them.

A response is written here before anyone uses it, under the place in the search that asked for it
(`Key`), with the fingerprint of the request that made it. Killed anywhere and started again, the
same search finds what it had and asks only for what is missing.

    with Journal(folder) as journal:
        asking = JournaledTeacher(teacher, journal)              # mode="replay": never asks
        record = await asking.ask(Key(search_id, "0.2", "expand", 0), request, images)
        record.completions                                       # or TeacherError, also replayed

A folder holds `*.jsonl` segments. Each writer appends to segments of its own, so processes may
share a folder, and copying the segments of two folders into one merges them. A line is
`checksum search_id json`: the CRC-32 (8 hex digits) of all that follows it. A line torn by a
crash fails its checksum, and that response is asked for again. Of several records with one key
the first counts (segments in order of their names, which begin with the time they were opened).
Prompts are not in it, only their fingerprints.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal

from mcts import failpoints
from mcts.journal.records import (
    Failure,
    Key,
    Record,
    decode,
    encode,
    intact,
    search_of,
    teacher_of,
)
from mcts.journal.segments import SegmentWriter
from mcts.teachers.base import Request, Teacher, TeacherError

__all__ = [
    "Failure", "Journal", "JournalError", "JournalMismatch", "JournaledTeacher", "Key", "Record",
    "ReplayMiss",
]  # fmt: skip


class JournalError(Exception):
    """A response could not be stored or read back; it must not be used."""


class JournalMismatch(Exception):
    """The journal holds a response at this place in the search, but to another request."""


class ReplayMiss(Exception):
    """A replay needs a response that the journal does not hold."""


class Journal:
    """The responses in `folder`, made if it is not there.

    Raises JournalError if the folder cannot be made or read.
    """

    def __init__(self, folder: Path | str, *, segment_bytes: int = 64 * 2**20) -> None:
        self.folder = Path(folder)
        self.damage: list[str] = []
        """`file:line` of every broken line that a crash does not explain; each is skipped."""
        self._segments: list[Path] = []
        # All records of a search as (segment, offset) pairs, and, for searches in use, by key.
        # A finished search costs nothing after `forget`, an untouched one 16 bytes a record.
        self._places: dict[str, array[int]] = {}
        self._by_key: dict[str, dict[Key, tuple[int, int]]] = {}
        self.teachers: set[str] = set()
        """Identities of the teachers whose answers it holds, as far as its segments tell."""
        self._teacher: str | None = None
        self._writer = SegmentWriter(self.folder, segment_bytes)
        self._waiting: list[tuple[Record, bytes, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        # One thread: writes keep their order, and an fsync never waits behind other work.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self.folder.glob("*.jsonl")):
                self._load(path)
        except OSError as error:
            raise JournalError(f"cannot open the journal in {self.folder}: {error}") from error

    def _load(self, path: Path) -> None:
        segment = len(self._segments)
        self._segments.append(path)
        offset, broken = 0, 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if broken:  # something follows it, so it was not a crash's torn end
                    self.damage.append(f"{path}:{broken}")
                    broken = 0
                if intact(line):
                    if not offset and (teacher := teacher_of(line)):
                        self.teachers.add(teacher)
                    self._places.setdefault(search_of(line), array("q")).extend((segment, offset))
                else:
                    broken = number
                offset += len(line)

    def name_teacher(self, identity: str) -> None:
        """Say who answers from here on; every new segment tells it in its first line."""
        self._teacher = identity
        self.teachers.add(identity)

    def find(self, key: Key, fingerprint: str) -> Record | None:
        """The record at `key`, or None.

        Raises:
            JournalMismatch: there is one, made by a request with another fingerprint.
            JournalError: it can no longer be read.
        """
        place = self._index(key.search_id).get(key)
        if place is None:
            return None
        record = self._read(*place)
        if record.fingerprint != fingerprint:
            raise JournalMismatch(
                f"the journal's answer for node '{key.node}' ({key.purpose}, sample {key.sample}) "
                f"of search {key.search_id} was given to another request: the prompts, settings or "
                "code have changed since; search under a new id or remove the journal"
            )
        return record

    def records(self, search_id: str) -> Iterator[Record]:
        """Every record of a search, one a key, in the order of their keys."""
        for _, place in sorted(self._index(search_id).items(), key=lambda item: item[0].order):
            yield self._read(*place)

    def forget(self, search_id: str) -> None:
        """Drop a finished search from memory; its records stay on disk, for the next opening."""
        self._places.pop(search_id, None)
        self._by_key.pop(search_id, None)

    def _index(self, search_id: str) -> dict[Key, tuple[int, int]]:
        if search_id not in self._by_key:
            index: dict[Key, tuple[int, int]] = {}
            places = self._places.get(search_id, array("q"))
            for place in zip(places[::2], places[1::2], strict=True):
                index.setdefault(self._read(*place).key, place)
            self._by_key[search_id] = index
        return self._by_key[search_id]

    def _read(self, segment: int, offset: int) -> Record:
        path = self._segments[segment]
        try:
            with path.open("rb") as file:
                file.seek(offset)
                line = file.readline()
        except OSError as error:
            raise JournalError(f"cannot read {path} at byte {offset}: {error}") from error
        if not intact(line):
            raise JournalError(f"{path} has changed: no whole record at byte {offset}")
        return decode(line)

    async def append(self, record: Record) -> None:
        """Store `record`; returns when it is on the disk. Appends made together share one fsync.

        Raises:
            JournalError: it could not be written (disk full, say) and is not stored.
        """
        loop = asyncio.get_running_loop()
        line = encode(record)
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((record, line, done))
        if self._flusher is None or self._flusher.done():
            self._flusher = loop.create_task(self._flush())
        await done

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            error: BaseException | None = None
            try:
                entries = [(record, line) for record, line, _ in batch]
                await loop.run_in_executor(self._thread, self._write, entries)
            except OSError as reason:
                error = JournalError(f"cannot write the journal in {self.folder}: {reason}")
                error.__cause__ = reason
            except BaseException as reason:
                error = reason
                raise
            finally:
                for _, _, done in batch:
                    if not done.done():  # its caller may have been cancelled meanwhile
                        done.set_exception(error) if error else done.set_result(None)

    def _write(self, entries: list[tuple[Record, bytes]]) -> None:
        """Write and sync `entries`; they are found from then on. In the journal's own thread."""
        path, offsets = self._writer.write(entries, self._teacher)
        if not self._segments or self._segments[-1] != path:
            self._segments.append(path)
        segment = len(self._segments) - 1
        for (record, _), offset in zip(entries, offsets, strict=True):
            key = record.key
            self._places.setdefault(key.search_id, array("q")).extend((segment, offset))
            if key.search_id in self._by_key:
                self._by_key[key.search_id].setdefault(key, (segment, offset))

    def close(self) -> None:
        """Store all that was appended, for callers that were cancelled too; close the segment."""
        self._thread.shutdown(wait=True)
        left, self._waiting = self._waiting, []
        if left:
            with suppress(OSError):  # nobody waits for it any more; it would be asked for again
                self._write([(record, line) for record, line, _ in left])
        self._writer.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JournaledTeacher:
    """A teacher asked through a journal: what was answered once is never asked again.

    In mode `resume` a missing response is asked for; in mode `replay` it raises `ReplayMiss`, and
    no teacher is needed, only the `identity` of the one that answered.
    """

    def __init__(
        self,
        teacher: Teacher | None,
        journal: Journal,
        mode: Literal["resume", "replay"] = "resume",
        *,
        identity: str | None = None,
    ) -> None:
        if teacher is None and (mode != "replay" or identity is None):
            raise ValueError("only a replay can do without a teacher, and it needs its identity")
        self._teacher, self._journal, self._mode = teacher, journal, mode
        self._identity = identity
        self.asked = 0
        """Requests answered by the teacher."""
        self.replayed = 0
        """Requests answered from the journal."""

    async def ask(self, key: Key, request: Request, images: Mapping[str, bytes]) -> Record:
        """The response at `key`, from the journal or else from the teacher, then journaled.

        Raises:
            TeacherError: the request failed for good, now or when it was first asked.
            TeacherUnavailable: no server; nothing is journaled.
            JournalMismatch, JournalError, ReplayMiss: see there.
        """
        if self._teacher is not None and self._identity is None:
            await self._teacher.open()
            self._identity = self._teacher.identity
            self._journal.name_teacher(self._identity)
        assert self._identity is not None
        fingerprint = request.fingerprint(self._identity)
        record = self._journal.find(key, fingerprint)
        if record is not None:
            self.replayed += 1
        elif self._mode == "replay" or self._teacher is None:
            raise ReplayMiss(
                f"the journal has no answer for node '{key.node}' ({key.purpose}, sample "
                f"{key.sample}) of search {key.search_id}; resume instead of replaying"
            )
        else:
            record = await self._answer(self._teacher, key, request, fingerprint, images)
            self.asked += 1
            failpoints.reach("after_response")
            await self._journal.append(record)
            failpoints.reach("after_journal")
        if record.failure is not None:
            error = TeacherError(record.failure.kind, record.failure.message)
            error.began, error.seconds = record.started_at, record.seconds
            raise error
        return record

    async def _answer(
        self,
        teacher: Teacher,
        key: Key,
        request: Request,
        fingerprint: str,
        images: Mapping[str, bytes],
    ) -> Record:
        """The teacher's answer or final failure; its time is that of the try that brought it."""
        clock = time.perf_counter()
        try:
            reply = await teacher.complete(request, images)
            return Record.of_reply(key, fingerprint, reply, time.time() - reply.seconds)
        except TeacherError as error:
            # A teacher that waited for a server that was gone does not count the waiting.
            seconds = error.seconds or time.perf_counter() - clock
            return Record.of_failure(key, fingerprint, error, seconds, time.time() - seconds)
