"""Parts of a corpus that several processes judge: the same tables, whatever happens to those."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from flows.stages.corpus import workers
from flows.stages.corpus.filter_part import Beside, CorpusPart
from flows.stages.corpus.workers import filtered

NUMBERS = list(range(9))


def part(number: int) -> CorpusPart:
    return CorpusPart(pa.table({"number": [number]}), pa.table({}), {}, Beside({}, {}, {}, {}))


def judge(asking: int, fatal: int, failing: int, part: CorpusPart) -> pa.Table:
    """Say which part it was, and whether another process judged it; die of one, fail at another."""
    number, elsewhere = part.rows["number"][0].as_py(), os.getpid() != asking
    if number == fatal and elsewhere:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == failing:
        raise ValueError(f"part {number}")
    return pa.table({"number": [number], "elsewhere": [elsewhere]})


def ask(numbers, *, fatal=-1, failing=-1, processes=2):
    found = filtered(map(part, numbers), partial(judge, os.getpid(), fatal, failing), processes)
    return [tuple(row.values()) for table in found for row in table.to_pylist()]


def test_other_processes_judge_the_parts_in_order():
    assert ask(NUMBERS) == [(number, True) for number in NUMBERS]


@pytest.mark.parametrize(("numbers", "processes"), [([0, 1], 4), (NUMBERS, 1), ([], 4)])
def test_few_parts_or_one_processor_need_no_other_process(numbers, processes):
    assert ask(numbers, processes=processes) == [(number, False) for number in numbers]


def test_what_cannot_be_sent_to_another_process_is_judged_here():
    held = threading.Lock()

    def judge_with_a_lock(part: CorpusPart) -> pa.Table:
        with held:
            return judge(os.getpid(), -1, -1, part)

    found = [table.to_pylist() for table in filtered(map(part, NUMBERS), judge_with_a_lock, 2)]
    assert found == [[{"number": number, "elsewhere": False}] for number in NUMBERS]


def test_what_a_killed_process_had_is_judged_here():
    found = ask(NUMBERS, fatal=4)
    assert [number for number, _ in found] == NUMBERS
    assert (0, True) in found
    assert (4, False) in found and (8, False) in found


def test_what_goes_wrong_with_a_part_is_told():
    with pytest.raises(ValueError, match="part 5"):
        ask(NUMBERS, failing=5)


def test_no_more_parts_are_held_than_there_is_work_for():
    """They are large: the reader of a corpus must not run ahead of its judges."""
    read, ahead = [], []

    def parts():
        for number in range(20):
            read.append(number)
            yield part(number)

    for done, _ in enumerate(filtered(parts(), partial(judge, os.getpid(), -1, -1), 2), 1):
        ahead.append(len(read) - done)
    assert len(ahead) == 20
    assert max(ahead) <= 2 + 1 + workers._HERE


_ASKS = """
import os, sys, time
from functools import partial
from pathlib import Path
from tests.flows.test_corpus_workers import part, wait
from flows.stages.corpus.workers import filtered
list(filtered(map(part, range(4)), partial(wait, sys.argv[1]), 2))
"""


def wait(noted: str, part: CorpusPart) -> pa.Table:
    Path(noted, str(os.getpid())).touch()
    time.sleep(300)
    return pa.table({})


def test_they_end_with_the_process_that_asks_however_it_ends(tmp_path):
    asking = subprocess.Popen([sys.executable, "-c", _ASKS, str(tmp_path)])
    try:
        ids = eventually(
            lambda: [int(one.name) for one in tmp_path.iterdir()], lambda ids: len(ids) == 2
        )
    finally:
        asking.kill()
        asking.wait()
    eventually(lambda: [pid for pid in ids if alive(pid)], lambda left: not left)


def alive(pid: int) -> bool:
    """Return whether a process is there and is no zombie that nobody asks about."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(found, good):
    deadline = time.monotonic() + 60
    while not good(value := found()):
        assert time.monotonic() < deadline, value
        time.sleep(0.1)
    return value
