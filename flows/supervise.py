"""Runs a command until stdin closes, then stops its process group.

    python -I flows/supervise.py 5 vllm serve MODEL     # standard input: a pipe

However the process that holds the pipe ends, by returning, by an exception or by `kill -9`, the
system closes it, and the command is asked to stop (SIGTERM), then, after so many seconds, killed.
It runs in a process group of its own, and whatever it leaves behind in that group is killed with
it: a vLLM front end that is killed leaves engines that keep the GPU's memory (vLLM issue 55510).
Nothing outside that group is ever touched. Standard library only, so that it starts at once.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

_LOOK_S = 0.1  # how often it is looked whether the command still runs


def main() -> int:
    """Run the command of the arguments; its exit status, 128 + the signal if one ended it."""
    patience_s, command = float(sys.argv[1]), sys.argv[2:]
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        # Handled rather than ignored: what is ignored, the command would inherit.
        signal.signal(number, _end)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    try:
        while child.poll() is None:
            readable, _, _ = select.select([0], [], [], _LOOK_S)
            if readable and not os.read(0, 4096):
                break
        if child.poll() is None:
            child.terminate()
            end = time.monotonic() + patience_s
            while child.poll() is None and time.monotonic() < end:
                time.sleep(_LOOK_S / 2)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        status = child.wait()
    return status if status >= 0 else 128 - status


def _end(number: int, frame: object) -> None:
    sys.exit(128 + number)  # through `finally`: the command does not outlive its supervisor


if __name__ == "__main__":
    sys.exit(main())
