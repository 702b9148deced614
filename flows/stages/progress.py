"""How far a build is, for a person: a live line in the terminal, or plain lines in a log.

    progress = TerminalProgress()
    await build(settings, progress=progress)

The remaining time is the time so far scaled by what is left, parts of trees counted, and nothing
is said of it before there is something to scale.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import (
    Progress as Bar,
)


class Progress(Protocol):
    """Who is told how far a build is."""

    def start(self, total: int, already: int, teacher: Any) -> None:
        """`total` questions to answer for, `already` of them in the warehouse."""

    def grown(self, name: str, share: float) -> None:
        """A tree that is being searched has come this far, 0 to 1."""

    def tree(self, name: str, right: bool, failed: bool) -> None:
        """One more tree is complete."""

    def say(self, sentence: str) -> None:
        """Something a person would want to know."""

    def close(self) -> None: ...


class Quiet:
    """Tells nobody."""

    def start(self, total: int, already: int, teacher: Any) -> None: ...
    def grown(self, name: str, share: float) -> None: ...
    def tree(self, name: str, right: bool, failed: bool) -> None: ...
    def say(self, sentence: str) -> None: ...
    def close(self) -> None: ...


class Counts:
    """What every way of showing progress counts."""

    def __init__(self) -> None:
        self.total = self.already = self.done = self.right = self.failed = 0
        self.teacher: Any = None
        self.began = time.monotonic()
        self.growing: dict[str, float] = {}
        """Trees that are being searched, with how far each has come."""

    def start(self, total: int, already: int, teacher: Any) -> None:
        self.total, self.already, self.teacher = total, already, teacher
        self.began = time.monotonic()

    def grown(self, name: str, share: float) -> None:
        self.growing[name] = share

    def tree(self, name: str, right: bool, failed: bool) -> None:
        self.growing.pop(name, None)
        self.done += 1
        self.right += right
        self.failed += failed

    @property
    def seconds_left(self) -> float | None:
        """What the rest may take at the pace so far; None before a twentieth of it is done."""
        wanted = self.total - self.already
        made = self.done + sum(self.growing.values())
        if not wanted or made < max(wanted / 20, 1e-9):
            return None
        return (time.monotonic() - self.began) / made * (wanted - made)

    def line(self) -> str:
        """Right answers so far, requests in flight, tokens a second, cache hits, time left."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        parts = [f"{self.right} right"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.teacher is not None:
            ledger = self.teacher.ledger
            parts.append(f"{ledger.in_flight} in flight")
            parts.append(f"{ledger.completion_tokens / seconds:.0f} tokens/s")
            if ledger.cached_tokens:
                parts.append(f"{ledger.cached_tokens / ledger.prompt_tokens:.0%} of prompts cached")
        left = self.seconds_left
        if left is not None and self.already + self.done < self.total:
            parts.append(f"about {short_time(left)} left")
        return ", ".join(parts)


def short_time(seconds: float) -> str:
    """A length of time as a person says it: `1 h 5 min`, `2 min 10 s`, `9 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class TerminalProgress(Counts):
    """A bar on stderr where that is a terminal, a line every now and then where it is not."""

    def __init__(self, every_s: float = 15.0) -> None:
        super().__init__()
        self._console = Console(stderr=True, highlight=False)
        self._bar: Bar | None = None
        self._task: Any = None
        self._every_s, self._said = every_s, time.monotonic()

    def start(self, total: int, already: int, teacher: Any) -> None:
        super().start(total, already, teacher)
        if already:
            self.say(f"{already} of {total} trees are in the warehouse already")
        if self._console.is_terminal and total > already:
            self._bar = Bar(
                TextColumn("searching"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("trees, {task.fields[line]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=total, completed=already, line=self.line())
            self._bar.start()

    def grown(self, name: str, share: float) -> None:
        super().grown(name, share)
        self._show()

    def tree(self, name: str, right: bool, failed: bool) -> None:
        super().tree(name, right, failed)
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self.already + self.done, line=self.line())
        elif time.monotonic() - self._said > self._every_s:
            self._said = time.monotonic()
            self.say(f"{self.already + self.done} of {self.total} trees, {self.line()}")

    def say(self, sentence: str) -> None:
        self._console.print(sentence, markup=False)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        sys.stderr.flush()
