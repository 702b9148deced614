"""Work that a signal stops: what is under way may end, the status says by which signal, and a
second signal, or too much time, cuts it off."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from flows.cli import interrupts
from flows.cli.interrupts import SENTENCE, personal_limits, run

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Left(BaseException):
    """The process would have ended here."""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Checks that the process handles signals as before; none of its ends comes late."""
    before = [signal.getsignal(number) for number in NUMBERS]
    yield
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()
            assert thread.daemon, "the end of the process does not wait for it"
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Statuses with which the process would have ended at once."""
    statuses: list[int] = []

    def leave(status: int) -> None:
        statuses.append(status)
        raise Left

    monkeypatch.setattr(os, "_exit", leave)
    return statuses


async def works() -> int:
    return 7


async def waits(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)
    await asyncio.sleep(30)


def test_work_that_nobody_stops_gives_its_result_in_any_thread() -> None:
    assert run(works()) == 7
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(run(works())))
    thread.start()
    thread.join()
    assert found == [7]


def test_a_failure_is_the_works_own() -> None:
    async def fails() -> None:
        raise ValueError("of ours")

    with pytest.raises(ValueError, match="of ours"):
        run(fails())


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_cancels_the_work_which_may_end_in_good_order(
    number: signal.Signals, ended: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    closed: list[bool] = []

    async def works_on() -> None:
        try:
            await waits(number)
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    with pytest.raises(SystemExit) as left:
        run(works_on())
    assert left.value.code == 128 + number and closed and not ended
    assert capsys.readouterr().err == f"vigorl: {SENTENCE}\n"


def test_a_second_signal_ends_the_process_at_once(
    ended: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((Left, SystemExit)):
        run(waits(signal.SIGINT, signal.SIGTERM))
    assert ended == [128 + signal.SIGTERM]
    assert capfd.readouterr().err.startswith(f"vigorl: {SENTENCE}\n")


def test_work_that_does_not_end_in_time_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cut = threading.Event()
    statuses: list[int] = []

    def leave(status: int) -> None:
        statuses.append(status)
        cut.set()

    async def stubborn() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        cut.wait(5)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(interrupts, "LIMIT_S", 0.05)
    run(stubborn())
    assert statuses == [128 + signal.SIGTERM]
    assert f"vigorl: {SENTENCE}\n" in capfd.readouterr().err


def test_a_statement_that_never_ends_ends_the_command(
    ended: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    limits = personal_limits(2.5)
    assert limits.seconds == 2.5
    with pytest.raises(Left):
        limits.last_resort("it took longer")
    assert ended == [2] and capfd.readouterr().err == "vigorl: it took longer\n"
