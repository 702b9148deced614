"""Progress and messages for a person, on stderr: one line for builds, evaluations, trainings.

    line = ProgressLine("{done} of {total} trees")
    line.update(3, 24, "2 right", seconds_left=80)     # a bar in a terminal, else a line
    line.close()

    progress = TerminalProgress()                      # the same for a build, which counts trees
    await build(settings, progress=progress)

A remaining time is the time so far scaled by what is left, parts of trees counted, and none is
shown before there is something to scale.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from flows.escape import escape_controls

Report = Callable[[str], None]
"""Receives messages for a person, a sentence each."""


def report_to_stderr(sentence: str) -> None:
    """Print a message beside the results."""
    print(sentence, file=sys.stderr, flush=True)


def ignore(sentence: str) -> None:
    """Drop a message."""


def short_time(seconds: float) -> str:
    """Format a duration: `1 h 5 min`, `2 min 10 s`, `9 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class ProgressLine:
    """A bar where stderr is a terminal; elsewhere a message every `every_s` seconds and at the end.

    Args:
        head: how far it is, a format string of `done` and `total`.
        report: receives the messages; only for the default is there ever a bar.
        last: without a bar, show a line at the end too; a build has its summary instead.
    """

    def __init__(
        self,
        head: str,
        *,
        every_s: float = 15.0,
        report: Report = report_to_stderr,
        last: bool = True,
    ) -> None:
        self._head, self._every_s, self._report, self._last = head, every_s, report, last
        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal and report is report_to_stderr
        self._bar: Bar | None = None
        self._task: Any = None
        self._reported = time.monotonic()

    def update(
        self, done: int, total: int, figures: str = "", seconds_left: float | None = None
    ) -> None:
        """Show that `done` of `total` are done, with some figures."""
        parts = [self._head.format(done=done, total=total), figures]
        if seconds_left is not None and done < total:
            parts.append(f"about {short_time(seconds_left)} left")
        line = escape_controls(", ".join(part for part in parts if part))
        if self._live:
            if self._bar is None:
                text = TextColumn(
                    "{task.fields[line]}", markup=False
                )  # names of data may hold [red]
                columns = (BarColumn(), text, TimeElapsedColumn())
                self._bar = Bar(*columns, console=self._console)
                self._task = self._bar.add_task("", total=total, line=line)
                self._bar.start()
            self._bar.update(self._task, total=total, completed=done, line=line)
            if done >= total:
                self.close()
        elif (self._last and done >= total) or time.monotonic() - self._reported > self._every_s:
            self._reported = time.monotonic()
            self._report(line)

    def report(self, sentence: str) -> None:
        """Show a message; a bar stays below it."""
        if self._bar is not None:
            self._console.print(escape_controls(sentence), markup=False)
        else:
            self._report(sentence)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        sys.stderr.flush()


# ---- a build's -----------------------------------------------------------------------------------


class Progress:
    """Receives how far a build is; this base class shows nothing."""

    def start(self, total: int, already: int, teacher: Any) -> None:
        """`total` questions to answer, `already` of them in the warehouse."""

    def grown(self, name: str, share: float) -> None:
        """A tree that is being searched has come this far, 0 to 1."""

    def tree(self, name: str, right: bool, failed: bool) -> None:
        """One more tree is complete."""

    def report(self, sentence: str) -> None:
        """Show a message."""

    def close(self) -> None:
        """The build has ended."""


class BuildCounts(Progress):
    """Counts a build's trees, for every way of showing its progress."""

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
        """Seconds for the rest at the pace so far; None before a twentieth of it is done."""
        wanted = self.total - self.already
        made = self.done + sum(self.growing.values())
        if not wanted or made < max(wanted / 20, 1e-9):
            return None
        return (time.monotonic() - self.began) / made * (wanted - made)

    def figures(self) -> str:
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


class TerminalProgress(BuildCounts):
    """A build's progress as a `ProgressLine`."""

    def __init__(self, every_s: float = 15.0) -> None:
        super().__init__()
        self._line = ProgressLine("{done} of {total} trees", every_s=every_s, last=False)

    def report(self, sentence: str) -> None:
        self._line.report(sentence)

    def close(self) -> None:
        self._line.close()

    def start(self, total: int, already: int, teacher: Any) -> None:
        super().start(total, already, teacher)
        if already:
            self.report(f"{already} of {total} trees are in the warehouse already")

    def grown(self, name: str, share: float) -> None:
        super().grown(name, share)
        self._show()

    def tree(self, name: str, right: bool, failed: bool) -> None:
        super().tree(name, right, failed)
        self._show()

    def _show(self) -> None:
        self._line.update(self.already + self.done, self.total, self.figures())
