"""A supervised command ends with whoever holds the pipe, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows import supervise


def supervised(patience_s: float, code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", supervise.__file__, str(patience_s)]
    return subprocess.Popen(
        [*command, sys.executable, "-I", "-c", code, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def is_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(7)", 7),
        ("import os; os.kill(os.getpid(), 15)", 143),
        ("import sys; raise SystemExit(len(sys.stdin.read()))", 0),
    ],
)
def test_the_status_is_the_commands_while_the_pipe_is_open(code: str, status: int) -> None:
    with supervised(5, code) as process:
        assert process.wait(60) == status


WAITS = "print('up', flush=True); import time; time.sleep(60)"
STAYS = "import signal; signal.signal(15, signal.SIG_IGN); " + WAITS


@pytest.mark.parametrize(("code", "status"), [(WAITS, 143), (STAYS, 137)])
def test_a_closed_pipe_asks_the_command_to_stop_and_then_kills_it(code: str, status: int) -> None:
    with supervised(0.3 if code == STAYS else 50, code) as process:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == "up\n"
        process.stdin.write("a word on the pipe is no end of it")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.4)
        process.stdin.close()
        assert process.wait(30) == status


LEAVES = (
    "import os, subprocess, sys; "
    "left = subprocess.Popen([sys.executable, '-I', '-c', 'import time; time.sleep(60)']); "
    "print(left.pid, flush=True)"
)


def test_what_a_command_leaves_in_its_group_ends_with_it() -> None:
    with supervised(5, LEAVES) as process:
        assert process.stdout
        left = int(process.stdout.readline())
        assert process.wait(30) == 0
    assert is_gone(left)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_supervisor_that_is_stopped_takes_the_command_along(number: Any) -> None:
    code = "import os; print(os.getpid(), flush=True); import time; time.sleep(60)"
    with supervised(5, code) as process:
        assert process.stdout
        command = int(process.stdout.readline())
        assert os.getpgid(command) == command, "a group of its own"
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert is_gone(command)
