"""A supervised command ends with whoever holds the pipe, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
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


# ---- in this process -----------------------------------------------------------------------------

Supervise = Callable[[float, str], int]


@pytest.fixture
def pipe() -> Iterator[int]:
    """The end to close of a pipe that is the standard input meanwhile."""
    signals = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    kept, handlers = os.dup(0), {number: signal.getsignal(number) for number in signals}
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    yield writer
    os.dup2(kept, 0)
    os.close(kept)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def supervise_here(monkeypatch: pytest.MonkeyPatch, pipe: int) -> Supervise:
    """Supervises a line of the shell, which is a group of its own."""

    def run(patience_s: float, line: str) -> int:
        monkeypatch.setattr(sys, "argv", ["supervise", str(patience_s), "sh", "-c", line])
        return supervise.main()

    return run


def once_there(path: Path, act: Callable[[], object]) -> None:
    """Act, in a thread, once a file is there."""

    def wait() -> None:
        while not path.exists():
            time.sleep(0.01)
        act()

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.parametrize(
    ("line", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("exit $(wc -c)", 0)],
)
def test_the_status_says_how_the_command_ended(
    supervise_here: Supervise, pipe: int, line: str, status: int
) -> None:
    os.write(pipe, b"a word on the pipe is for nobody")
    assert supervise_here(5, line) == status
    os.close(pipe)


@pytest.mark.parametrize(
    ("trap", "patience_s", "status"),
    [("sleep 0.2; exit 5", 20, 5), ("", 0.1, 137)],
    ids=["ends in good order", "does not listen"],
)
def test_a_command_has_its_patience_to_end_in_good_order(
    supervise_here: Supervise, pipe: int, tmp_path: Path, trap: str, patience_s: float, status: int
) -> None:
    up = tmp_path / "up"
    once_there(up, lambda: os.close(pipe))
    line = f"trap '{trap}' TERM; touch {up}; while :; do sleep 0.02; done"
    assert supervise_here(patience_s, line) == status


def test_what_is_left_in_the_group_is_killed_when_the_command_ends(
    supervise_here: Supervise, tmp_path: Path
) -> None:
    note = tmp_path / "left"
    assert supervise_here(5, f"sleep 60 & echo $! > {note}; exit 3") == 3
    assert is_gone(int(note.read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_signal_to_the_supervisor_ends_the_command_first(
    supervise_here: Supervise, tmp_path: Path, number: int
) -> None:
    note = tmp_path / "command"
    once_there(note, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as left:
        supervise_here(5, f"echo $$ > {note}.part; mv {note}.part {note}; sleep 60")
    assert left.value.code == 128 + number
    assert is_gone(int(note.read_text()))
