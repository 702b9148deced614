"""An event loop whose clock jumps to the next timer: an hour of waiting costs no time.

    result, seconds = run(main())          # seconds of virtual time that `main` took

Nothing else is changed, so code that sleeps, times out and overlaps runs as it is. What is given to
another thread runs at once, in the loop's own, and takes no virtual time: with no real thread there
is no real time, and two runs of the same work come out the same to the last digit.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class Stuck(Exception):
    """Everything waits, and no timer is set: on a virtual clock nothing can ever happen again."""


class _Jumping(selectors.DefaultSelector):
    """A selector that does not wait for files: it lets the time pass that it was to wait for."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Stuck("every task waits for something that no timer will bring")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time is virtual; it begins at 0."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now

    def run_in_executor(
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call `func` now; a thread would bring real time in."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


def run(main: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
    """The result of `main`, and the virtual seconds it took."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(main)
        return result, runner.get_loop().time()
