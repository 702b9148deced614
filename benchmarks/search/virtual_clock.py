"""An event loop whose clock jumps to the next timer: an hour of waiting takes no time.

    result, seconds = run(main())          # seconds of virtual time that `main` took

Code that sleeps, times out and overlaps runs unchanged. Work for another thread runs at once in the
loop's own thread and takes no virtual time: without real threads there is no real time, and two
runs of the same work give the same figures to the last digit.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class Deadlock(Exception):
    """Every task waits, and no timer is set: nothing can happen any more."""


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that advances the clock instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Deadlock("every task waits, and no timer is set")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with virtual time, which begins at 0."""

    def __init__(self) -> None:
        self._selector_clock = _JumpingSelector()
        super().__init__(self._selector_clock)

    def time(self) -> float:
        """Return the virtual seconds since the loop was created."""
        return self._selector_clock.now

    def run_in_executor(
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call `func` at once; a thread would introduce real time."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


def run(main: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
    """Run `main`; return its result and the virtual seconds it took."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(main)
        return result, runner.get_loop().time()
