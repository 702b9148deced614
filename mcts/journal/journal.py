"""The journal: every model response, stored once and durably, so that a search can be replayed.

A response is written here before it is used, under the place in the search that requested it
(`Key`), with the fingerprint of its request. Killed anywhere and started again, the same search
finds what it had and requests only what is missing.

    with Journal(folder) as journal:
        teacher = JournaledTeacher(teacher, journal)             # mode="replay": no requests
        record = await teacher.ask(Key(search_id, "0.2", "expand", 0), request, images)
        record.completions                                       # or TeacherError, also replayed

A folder holds `*.jsonl` segments (`mcts.journal.segments`). Each writer appends to segments of its
own, so processes may share a folder, and copying the segments of two folders into one merges them.
A line is `checksum search_id json`: the CRC-32 (8 hex digits) of all that follows it. A line torn
by a crash fails its checksum, and that response is requested again. Of several records with one key
the first to the same request counts (segments in order of their names, which begin with the time
they were opened). Prompts are not stored, only their fingerprints.

Where an answer is lost (a broken line, a segment that was not copied), the new one may lead
elsewhere: what was answered below the old one is then no answer to what is asked there now. It
stays, and its place is asked again.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal

from mcts import failpoints
from mcts.journal.records import Key, Record, decode, encode, is_intact, search_of, teacher_of
from mcts.journal.segments import SegmentWriter, Store, fetch
from mcts.teachers.base import Reply, Request, Teacher, TeacherError
from mcts.teachers.shared_refusal import SharedRefusal


class JournalError(Exception):
    """A response could not be stored or read back; it must not be used."""


class JournalMismatch(Exception):
    """The journal holds a response under this key, but to another request."""


class ReplayMiss(Exception):
    """A replay needs a response that the journal does not hold."""


class Journal:
    """The responses in `folder`, which is created if it is missing.

    Raises:
        JournalError: the folder cannot be created or read.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        segment_bytes: int = 64 * 2**20,
        store: Store | None = None,
    ) -> None:
        self.folder, self._store = Path(folder), store
        self.damage: list[str] = []
        """`file:line` of every broken line that a crash does not explain; each is skipped."""
        self._segments: list[Path] = []
        self._own: set[Path] = set()  # segments that this journal writes
        self._read_to: dict[Path, int] = {}  # bytes of the others' that were indexed
        # The positions of a search's records: (segment, offset) pairs, and by key once it is used.
        # A finished search costs nothing after `forget`, an unused one 16 bytes per record.
        self._positions: dict[str, array[int]] = {}
        self._by_key: dict[str, dict[Key, list[tuple[int, int]]]] = {}
        self.teachers: set[str] = set()
        """Identities of the teachers whose answers it holds, as far as its segments name them."""
        self._teacher: str | None = None
        self._writer = SegmentWriter(self.folder, segment_bytes, store)
        self._waiting: list[tuple[Record, bytes, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None
        # One thread: writes keep their order, and an fsync never waits behind other work.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._load_all()
        except OSError as error:
            raise JournalError(f"cannot open the journal in {self.folder}: {error}") from error

    async def refresh(self) -> None:
        """Index what other writers have stored since: a lost worker's responses are used again.

        Raises:
            JournalError: the folder can't be read.
        """
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._load_all)
        except OSError as error:
            raise JournalError(f"cannot read the journal in {self.folder}: {error}") from error

    def _load_all(self) -> None:
        if self._store is not None:
            fetch(self.folder, self._store)
        for path in sorted(self.folder.glob("*.jsonl")):
            if path not in self._own and path.stat().st_size > self._read_to.get(path, 0):
                self._load(path)

    def _load(self, path: Path) -> None:
        """Index a segment, or what came to it since it was."""
        segment = len(self._segments)
        self._segments.append(path)
        offset, broken = self._read_to.get(path, 0), 0
        with path.open("rb") as file:
            file.seek(offset)
            for number, line in enumerate(file, 1):
                if broken:  # a line follows, so it is not the torn end of a crash
                    self.damage.append(f"{path}:{broken}")
                    broken = 0
                if is_intact(line):
                    if not offset and (teacher := teacher_of(line)):
                        self.teachers.add(teacher)
                    self._place(search_of(line), None, segment, offset)
                elif not line.endswith(b"\n"):
                    break  # the torn end of a crash, or a line that is being written
                else:
                    broken = number
                offset += len(line)
        self._read_to[path] = offset

    def _place(self, search_id: str, key: Key | None, segment: int, offset: int) -> None:
        """Index a record; its `key` is read where it is not given."""
        self._positions.setdefault(search_id, array("q")).extend((segment, offset))
        if search_id in self._by_key:
            key = key or self._read(segment, offset).key
            self._by_key[search_id].setdefault(key, []).append((segment, offset))

    def name_teacher(self, identity: str) -> None:
        """Set the teacher that answers from now on; new segments name it in their first line."""
        self._teacher = identity
        self.teachers.add(identity)

    def find(self, key: Key, fingerprint: str) -> Record | None:
        """Return the first record at `key` that answers the request, or None where there is none
        at `key`.

        Raises:
            JournalMismatch: all there are have another fingerprint.
            JournalError: one can no longer be read.
        """
        index = self._index(key.search_id)
        positions = index.get(key, [])
        for position in positions:
            record = self._read(*position)
            if record.fingerprint == fingerprint:
                index[key] = _first(position, positions)
                return record
        if not positions:
            return None
        raise JournalMismatch(
            f"the journal's answer for node '{key.node}' ({key.purpose}, sample {key.sample}) "
            f"of search {key.search_id} was given to another request: the prompts, settings or "
            "code have changed since; search under a new id or remove the journal"
        )

    def records(self, search_id: str) -> Iterator[Record]:
        """Yield the records of a search in the order of their keys: of each key the one that was
        found or appended last, else the first."""
        for _, at in sorted(self._index(search_id).items(), key=lambda item: item[0].order):
            yield self._read(*at[0])

    def forget(self, search_id: str) -> None:
        """Drop a finished search from memory; its records stay on disk, for the next opening."""
        self._positions.pop(search_id, None)
        self._by_key.pop(search_id, None)

    def rest(self) -> None:
        """Keep only where records are, of every search, until it is used again.

        For many small searches of which each may be asked for later; no request may be in flight.
        """
        self._by_key.clear()

    def _index(self, search_id: str) -> dict[Key, list[tuple[int, int]]]:
        flat = self._positions.get(search_id)
        if flat is None:
            return {}
        if search_id not in self._by_key:
            index: dict[Key, list[tuple[int, int]]] = {}
            for position in zip(flat[::2], flat[1::2], strict=True):
                index.setdefault(self._read(*position).key, []).append(position)
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
        if not is_intact(line):
            raise JournalError(f"{path} has changed: no whole record at byte {offset}")
        return decode(line)

    async def append(self, record: Record) -> None:
        """Store `record`; return when it is on disk. Concurrent appends share one fsync.

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
                    if not done.done():  # its caller may have been cancelled
                        done.set_exception(error) if error else done.set_result(None)

    def _write(self, entries: list[tuple[Record, bytes]]) -> None:
        """Write, sync and index `entries`; runs in the journal's own thread."""
        path, offsets = self._writer.write(entries, self._teacher)
        self._own.add(path)
        if not self._segments or self._segments[-1] != path:
            self._segments.append(path)
        segment = len(self._segments) - 1
        for (record, _), offset in zip(entries, offsets, strict=True):
            self._place(record.key.search_id, record.key, segment, offset)
            if index := self._by_key.get(record.key.search_id):
                index[record.key] = _first(index[record.key][-1], index[record.key])

    def close(self) -> None:
        """Store all that was appended, by cancelled callers too; close the segment."""
        self._thread.shutdown(wait=True)
        left, self._waiting = self._waiting, []
        if left:
            with suppress(OSError):  # no caller waits for it; it would be requested again
                self._write([(record, line) for record, line, _ in left])
        self._writer.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _first(one: tuple[int, int], positions: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return positions with `one` of them in front: the record that `records` yields."""
    return [one, *(other for other in positions if other != one)]


class JournaledTeacher:
    """A teacher behind a journal: no request that was answered is sent again.

    In mode `resume` a missing response is requested from the teacher; in mode `replay` it raises
    `ReplayMiss`, and instead of a teacher only the `identity` of the one that answered is needed.

    With `refusals` a failure is journaled only when it is known to be its request's own: once a
    later request is answered, or by `settle`.
    """

    def __init__(
        self,
        teacher: Teacher | None,
        journal: Journal,
        mode: Literal["resume", "replay"] = "resume",
        *,
        identity: str | None = None,
        refusals: SharedRefusal | None = None,
    ) -> None:
        if teacher is None and (mode != "replay" or identity is None):
            raise ValueError("without a teacher only replay is possible, and it needs the identity")
        self._teacher, self._journal, self._mode = teacher, journal, mode
        self._identity = identity
        self._refusals = refusals
        self._held: dict[int, Record] = {}  # failures that may be everybody's, by number
        self.requested = 0
        """Requests answered by the teacher."""
        self.replayed = 0
        """Requests answered from the journal."""

    async def ask(
        self,
        key: Key,
        request: Request,
        images: Mapping[str, bytes],
        subject: str | None = None,
        *,
        follows: bool = False,
    ) -> Record:
        """Return the response at `key`: from the journal, or from the teacher and then journaled.

        Args:
            subject: what is asked about, where several searches are about one thing.
            follows: whether the request holds an earlier answer. Another answer may have taken
                that one's place, so it is sent where the journal's answer is to another request.

        Raises:
            TeacherError: the request failed for good, now or when it was first sent.
            TeacherUnavailable: no server, or one that refuses everybody; nothing is journaled.
            JournalMismatch, JournalError, ReplayMiss: see these classes.
        """
        if self._teacher is not None and self._identity is None:
            await self._teacher.open()
            self._identity = self._teacher.identity
            self._journal.name_teacher(self._identity)
        assert self._identity is not None
        fingerprint = request.fingerprint(self._identity)
        record = self._find(key, fingerprint, follows) or next(
            (held for held in self._held.values() if held.key == key), None
        )
        if record is not None:
            self.replayed += 1
        elif self._mode == "replay" or self._teacher is None:
            raise ReplayMiss(
                f"the journal has no answer for node '{key.node}' ({key.purpose}, sample "
                f"{key.sample}) of search {key.search_id}; resume instead of replaying"
            )
        else:
            asking = self._teacher.complete(request, images)
            record = await self._request(asking, key, fingerprint, subject or key.search_id)
        if record.failure is not None:
            error = TeacherError(record.failure.kind, record.failure.message)
            error.started_at, error.seconds = record.started_at, record.seconds
            raise error
        return record

    def _find(self, key: Key, fingerprint: str, follows: bool) -> Record | None:
        try:
            return self._journal.find(key, fingerprint)
        except JournalMismatch:
            if not follows or self._mode == "replay":
                raise
            return None

    async def _request(
        self, asking: Awaitable[Reply], key: Key, fingerprint: str, subject: str
    ) -> Record:
        """Await the teacher and journal the outcome, except a failure that is held back."""
        refusals = self._refusals or SharedRefusal(0)
        start, number, held = time.perf_counter(), refusals.sent(), False
        try:
            reply = await asking
            record = Record.of_reply(key, fingerprint, reply, time.time() - reply.seconds)
            refusals.answered(number)
        except TeacherError as failure:
            # A teacher that waited for its server excludes the waiting from its time.
            seconds = failure.seconds or time.perf_counter() - start
            record = Record.of_failure(key, fingerprint, failure, seconds, time.time() - seconds)
            held = refusals.failed(number, subject, failure)
        except BaseException:
            refusals.withdrawn(number)
            raise
        self.requested += 1
        failpoints.reach("after_response")
        if held:
            self._held[number] = record
        else:
            await self._journal.append(record)  # first: it is paid for, and this may be cancelled
            if record.failure is None and self._held:
                await self._journal_held(n for n in sorted(self._held) if n < number)
        failpoints.reach("after_journal")
        return record

    async def settle(self, search_ids: Iterable[str] | None = None) -> None:
        """Journal the failures that were held back, of some searches or of all: they are theirs.

        Raises:
            TeacherUnavailable: they are everybody's; nothing is journaled.
        """
        if self._refusals is not None:
            self._refusals.ended()
        wanted = None if search_ids is None else set(search_ids)
        await self._journal_held(
            number
            for number, record in sorted(self._held.items())
            if wanted is None or record.key.search_id in wanted
        )

    async def _journal_held(self, numbers: Iterable[int]) -> None:
        records = [self._held.pop(number) for number in list(numbers)]
        await asyncio.gather(*(self._journal.append(record) for record in records))
