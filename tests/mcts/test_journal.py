"""The journal against real files, torn lines, full disks and processes killed between two steps."""

import asyncio
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mcts.journal.journal import (
    Journal,
    JournaledTeacher,
    JournalError,
    JournalMismatch,
    ReplayMiss,
)
from mcts.journal.records import Key, Record
from mcts.journal.segments import SegmentWriter
from mcts.teachers.base import (
    Completion,
    Message,
    Reply,
    Request,
    TeacherError,
    TeacherUnavailable,
    TextPart,
)
from mcts.teachers.openai_client import OpenAITeacher
from tests.support.stub_server import StubServer

ROOT = Path(__file__).parents[2]


def record(sample: int = 0, *, search: str = "s1", node: str = "0.1", text: str = "x") -> Record:
    completion = Completion(f"{text} é \n \ud83d {sample}", "stop", 3)  # half a surrogate pair too
    reply = Reply((completion, completion), 10, 4, 6, 0.25)
    return Record.of_reply(Key(search, node, "expand", sample), "f" * 32, reply, 1000.5)


async def fill(folder: Path, *records: Record, **options) -> Path:
    """A folder with one more segment that holds `records`; the segment."""
    before = set(folder.glob("*.jsonl"))
    with Journal(folder, **options) as journal:
        for item in records:
            await journal.append(item)
    (segment, *_) = sorted(set(folder.glob("*.jsonl")) - before)
    return segment


def found(folder: Path, *records: Record) -> list[bool]:
    with Journal(folder) as journal:
        return [journal.find(r.key, r.fingerprint) == r for r in records]


async def test_what_was_appended_is_found_after_reopening(tmp_path):
    records = [record(i, node=node) for i in range(3) for node in ("", "0", "0.10")]
    await fill(tmp_path, *records)
    assert all(found(tmp_path, *records))
    with Journal(tmp_path) as journal:
        assert journal.find(Key("s1", "0", "rollout", 0), "f" * 32) is None
        assert journal.find(Key("s2", "0", "expand", 0), "f" * 32) is None


async def test_a_record_keeps_what_was_told_of_probabilities(tmp_path):
    alternatives = (("Yes", -0.1), ("No", -2.5))
    said = [
        Completion("x", "stop", 3, mean_logprob=-0.25), Completion("x", "stop", 3, alternatives),
        Completion("x", "stop", 3, alternatives, -0.5), Completion("x", "stop", 3),
    ]  # fmt: skip
    told = Record.of_reply(Key("s1", "", "expand", 0), "f" * 32, Reply((*said,), 1, 0, 1, 1.0), 1.0)
    await fill(tmp_path, told)
    with Journal(tmp_path) as journal:
        kept = journal.find(told.key, told.fingerprint)
    assert kept == told and [c.mean_logprob for c in kept.completions] == [-0.25, None, -0.5, None]


async def test_a_torn_last_line_costs_that_record_only(tmp_path):
    segment = await fill(tmp_path, record(0), record(1))
    os.truncate(segment, segment.stat().st_size - 5)
    assert found(tmp_path, record(0), record(1)) == [True, False]
    with Journal(tmp_path) as journal:
        assert journal.damage == []
        await journal.append(record(1))  # goes to another segment, not behind the torn line
    assert found(tmp_path, record(0), record(1)) == [True, True]


async def test_a_broken_line_in_the_middle_is_reported_and_skipped(tmp_path):
    segment = await fill(tmp_path, record(0), record(1), record(2))
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"stop"', b'"stap"', 1)
    segment.write_bytes(b"".join(lines))
    assert found(tmp_path, record(0), record(1), record(2)) == [True, False, True]
    with Journal(tmp_path) as journal:
        assert journal.damage == [f"{segment}:2"]


async def test_segments_copied_together_are_merged(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    await fill(one, record(0), record(1))
    for segment in [await fill(two, record(1), record(2)), await fill(two, record(3))]:
        shutil.copy(segment, one)
    assert all(found(one, *(record(i) for i in range(4))))
    with Journal(one) as journal:
        assert [r.key.sample for r in journal.records("s1")] == [0, 1, 2, 3]


async def test_of_two_answers_to_one_key_the_first_counts_every_time(tmp_path):
    await fill(tmp_path, record(0, text="first"))
    await fill(tmp_path, record(0, text="second"))
    assert found(tmp_path, record(0, text="first")) == [True]


async def test_another_request_under_the_same_key_is_refused(tmp_path):
    await fill(tmp_path, record(0))
    with Journal(tmp_path) as journal, pytest.raises(JournalMismatch, match="have changed"):
        journal.find(record(0).key, "0" * 32)


async def test_segments_rotate_and_concurrent_appends_all_arrive(tmp_path):
    records = [record(i) for i in range(200)]
    with Journal(tmp_path, segment_bytes=2000) as journal:
        await asyncio.gather(*(journal.append(r) for r in records))
        await asyncio.gather(*(journal.append(record(i, node="0")) for i in range(200)))
        assert all(journal.find(r.key, r.fingerprint) == r for r in records)
    assert all(found(tmp_path, *records))


def test_a_segment_that_has_its_length_is_followed_by_another(tmp_path):
    writer = SegmentWriter(tmp_path, segment_bytes=20)
    paths = [writer.write([(record(i), b"ten bytes\n")])[0] for i in range(4)]
    writer.close()
    assert paths[0] == paths[1] != paths[2] == paths[3]


async def test_appends_made_together_share_one_fsync_and_keep_their_order(tmp_path, monkeypatch):
    syncs = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (syncs.append(fd), fsync(fd)))
    with Journal(tmp_path) as journal:
        await journal.append(record(999))
        syncs.clear()
        await asyncio.gather(*(journal.append(record(i)) for i in range(100)))
    assert len(syncs) <= 2
    (segment,) = tmp_path.glob("*.jsonl")
    samples = [int(line.split(b'"expand",')[1].split(b"]")[0]) for line in segment.open("rb")]
    assert samples == [999, *range(100)]


async def test_append_returns_only_after_the_fsync(tmp_path, monkeypatch):
    durable = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync(fd), durable.append(fd)))
    with Journal(tmp_path) as journal:
        await journal.append(record(0))
        assert len(durable) == 2  # the folder's entry and the line


async def test_a_full_disk_is_told_and_what_was_half_written_poisons_nothing(tmp_path, monkeypatch):
    write = os.write

    def half(fd: int, data: bytes) -> int:
        if len(data) > 100:
            return write(fd, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(tmp_path) as journal:
        await journal.append(record(0))
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(JournalError, match="No space left"):
            await journal.append(record(1))
        assert journal.find(record(1).key, "f" * 32) is None
        monkeypatch.setattr(os, "write", write)
        await journal.append(record(2))
        assert journal.find(record(2).key, "f" * 32) == record(2)
    assert found(tmp_path, record(0), record(1), record(2)) == [True, False, True]
    with Journal(tmp_path) as journal:
        assert journal.damage == []


async def test_a_folder_that_cannot_be_made_is_a_journal_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(JournalError, match="cannot open the journal"):
        Journal(tmp_path / "file" / "journal")


async def test_forgetting_a_finished_search_frees_it_and_leaves_the_others(tmp_path):
    with Journal(tmp_path) as journal:
        await journal.append(record(0))
        await journal.append(record(0, search="s2"))
        journal.forget("s1")
        assert journal.find(record(0).key, "f" * 32) is None
        assert journal.find(record(0, search="s2").key, "f" * 32)
    assert found(tmp_path, record(0)) == [True]


async def test_a_journal_at_rest_finds_what_it_found_and_what_came_since(tmp_path):
    with Journal(tmp_path) as journal:
        for search in ("s1", "s2"):
            assert journal.find(record(0, search=search).key, "f" * 32) is None
            await journal.append(record(0, search=search))
            assert list(journal.records(search)) == [record(0, search=search)]
        journal.rest()
        assert not journal._by_key, "what it holds of many searches is where they are"
        await journal.append(record(1))
        assert all(journal.find(r.key, "f" * 32) == r for r in (record(0), record(1)))
        assert list(journal.records("nowhere")) == [] and set(journal._by_key) == {"s1"}


async def test_records_come_in_tree_order_whatever_order_they_were_written_in(tmp_path):
    nodes = ["0.10", "1", "0.2", "", "0"]
    await fill(tmp_path, *(record(0, node=node) for node in nodes))
    with Journal(tmp_path) as journal:
        assert [r.key.node for r in journal.records("s1")] == ["", "0", "0.2", "0.10", "1"]


async def test_a_refreshed_journal_has_what_others_stored_meanwhile(tmp_path):
    with Journal(tmp_path) as mine, Journal(tmp_path) as other:
        await mine.append(record(0))
        assert mine.find(record(0).key, "f" * 32)
        await other.append(record(1))
        await other.append(record(0, search="s2"))
        assert mine.find(record(1).key, "f" * 32) is None
        for _ in range(2):
            await mine.refresh()
            assert mine.find(record(1).key, "f" * 32) == record(1)
            assert mine.find(record(0, search="s2").key, "f" * 32)
            assert mine.find(record(0).key, "f" * 32) == record(0)
        await other.append(record(2))
        await mine.refresh()
        assert mine.find(record(2).key, "f" * 32) == record(2), "of a segment that has grown"


def test_the_response_id_names_the_content_and_not_the_time():
    base = record(0)
    later = Record.of_reply(base.key, base.fingerprint, Reply(base.completions, 9, 9, 9, 9.0), 5.0)
    assert later.response_id == base.response_id != record(0, text="y").response_id


# --- the teacher behind the journal ---


def question(seed: int) -> Request:
    text = TextPart("Which? Choices: a or b.\nThink in at least 3 steps.")
    return Request((Message("user", (text,)),), 2, 1.0, 1.0, 200, ("</think>",), seed)


async def ask_all(journal: Journal, url: str, count: int, **options) -> JournaledTeacher:
    teacher = OpenAITeacher(url, retries=0, backoff_s=0.01, can={"n": True})
    journaled = JournaledTeacher(teacher, journal, **options)
    for i in range(count):
        await journaled.ask(Key("s", str(i), "expand", 0), question(i), {})
    await teacher.close()
    return journaled


async def test_an_answered_request_is_not_sent_again(tmp_path):
    with StubServer() as server:
        with Journal(tmp_path) as journal:
            await ask_all(journal, server.url, 5)
        with Journal(tmp_path) as journal:
            journaled = await ask_all(journal, server.url, 8)
        assert (journaled.replayed, journaled.requested) == (5, 3)
        assert server.request_count() == 8
        assert server.repeated() == []


async def test_a_replay_needs_no_server(tmp_path):
    with StubServer() as server, Journal(tmp_path) as journal:
        await ask_all(journal, server.url, 2)
        answers = [r.completions for r in journal.records("s")]
    with Journal(tmp_path) as journal:
        replay = JournaledTeacher(None, journal, "replay", identity="stub-teacher")
        again = [await replay.ask(Key("s", str(i), "expand", 0), question(i), {}) for i in (0, 1)]
        assert [r.completions for r in again] == answers
        with pytest.raises(ReplayMiss, match="node '2'"):
            await replay.ask(Key("s", "2", "expand", 0), question(2), {})
        with pytest.raises(JournalMismatch):
            await replay.ask(Key("s", "1", "expand", 0), question(7), {})


async def test_a_final_failure_is_replayed_identically(tmp_path):
    with StubServer(faults=["400"]) as server:
        errors = []
        for _ in range(2):
            with Journal(tmp_path) as journal:
                with pytest.raises(TeacherError) as caught:
                    await ask_all(journal, server.url, 1)
                errors.append((caught.value.kind, caught.value.message, str(caught.value)))
        assert errors[0] == errors[1]
        assert server.request_count() == 1


async def test_a_missing_server_and_a_cancelled_request_leave_no_record(tmp_path):
    with StubServer() as server:
        pass
    with Journal(tmp_path) as journal:
        with pytest.raises(TeacherUnavailable):
            await ask_all(journal, server.url, 1)
        with StubServer(faults=["hang"]) as slow:
            task = asyncio.create_task(ask_all(journal, slow.url, 1))
            while not slow.request_count():
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert list(journal.records("s")) == []


RUN = """
import asyncio, sys
from tests.mcts.test_journal import Journal, ask_all
with Journal(sys.argv[1]) as journal:
    asyncio.run(ask_all(journal, sys.argv[2], 6))
"""


@pytest.mark.parametrize(("point", "lost"), [("after_response", 1), ("after_journal", 0)])
def test_a_killed_process_repeats_only_requests_not_journaled(tmp_path, point, lost):
    with StubServer() as server:
        command = [sys.executable, "-c", RUN, str(tmp_path), server.url]
        killed = os.environ | {"VIGORL_FAILPOINT": f"{point}:4"}
        assert subprocess.run(command, cwd=ROOT, env=killed).returncode == 137
        assert server.request_count() == 4
        assert subprocess.run(command, cwd=ROOT).returncode == 0
        assert server.request_count() == 6 + lost
        assert len(server.repeated()) == lost


async def test_a_record_whose_bytes_changed_after_it_was_found_is_refused(tmp_path):
    whole = record()
    segment = await fill(tmp_path, whole)
    with Journal(tmp_path) as journal:
        assert journal.find(whole.key, whole.fingerprint) == whole
        data = bytearray(segment.read_bytes())
        data[-20] ^= 1
        segment.write_bytes(bytes(data))
        with pytest.raises(JournalError, match="has changed: no whole record"):
            journal.find(whole.key, whole.fingerprint)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
async def test_a_closed_journal_gives_its_descriptors_back(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await fill(tmp_path, record(1), record(2), segment_bytes=1)
    assert len(os.listdir("/proc/self/fd")) == before
