"""Run long work so that SIGINT and SIGTERM stop it cleanly, and soon.

    summary = run(stages.build(settings))        # as asyncio.run; Ctrl-C or `kill` end the process

The first signal cancels what is under way: connections close, and what the teacher has answered
already goes into the journal. A commit under way may finish. What is not done after `LIMIT_S`
seconds, or at a second signal, is cut off as `kill -9` would, and that loses nothing either.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

LIMIT_S = 4.0
SENTENCE = "stopped; what was done is kept, the same command continues"

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`; a signal ends the process with 128 + its number."""
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(work)  # signals are the main thread's
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    async def main() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop(number: int, frame: object) -> None:
            if received:
                _leave(number)
            received.append(number)
            late = threading.Timer(LIMIT_S, _leave, (number,))
            late.daemon = True
            late.start()
            loop.call_soon_threadsafe(task.cancel)

        for number in before:
            signal.signal(number, stop)
        return await work

    try:
        return asyncio.run(main())
    except BaseException:
        if not received:
            raise
        # Whatever the error is: cancelled work may end in more than one way.
        print(f"vigorl: {SENTENCE}", file=sys.stderr, flush=True)
        sys.exit(128 + received[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def personal_limits(seconds: float) -> Any:
    """Return the limits of a statement that a person typed; the process ends at worst."""
    from warehouse.query.limits import Limits

    return Limits(seconds, last_resort=_give_up)


def _give_up(sentence: str) -> None:
    os.write(2, f"vigorl: {sentence}\n".encode())
    os._exit(2)


def _leave(number: int) -> None:
    os.write(2, f"vigorl: {SENTENCE}\n".encode())
    os._exit(128 + number)
