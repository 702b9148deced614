"""What a running build tells: the progress line, and the same figures for Prometheus."""

import asyncio
import logging
import socket
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flows.progress import BuildCounts, ProgressLine, TerminalProgress, short_time
from flows.settings_base import Problem
from flows.stages.prometheus import served
from mcts.teachers.base import Ledger


def counts(**ledger: int) -> BuildCounts:
    found = BuildCounts()
    found.start(10, 2, SimpleNamespace(ledger=Ledger(**ledger)))
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_time_left_counts_parts_of_trees_and_is_not_told_too_soon():
    found = counts()
    assert found.seconds_left is None
    found.began = time.monotonic() - 30.0
    found.grown("a", 0.1)
    assert found.seconds_left is None  # 0.1 of 8 trees
    found.tree("a", True, False)
    found.grown("b", 0.5)
    assert found.seconds_left == pytest.approx(30 / 1.5 * 6.5, rel=0.01)
    assert "about 2 min 10 s left" in found.figures()
    for name in "bcdefgh":
        found.tree(name, False, True)
    assert "left" not in found.figures() and "7 failed" in found.figures()


def test_the_line_tells_cache_hits_only_where_the_teacher_counts_them():
    assert "cached" not in counts(prompt_tokens=100).figures()
    assert "80% of prompts cached" in counts(prompt_tokens=100, cached_tokens=80).figures()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (130, "2 min 10 s"), (3600, "1 h 0 min"),
     (3659, "1 h 0 min"), (90_061, "25 h 1 min")],
)  # fmt: skip
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, shown: str) -> None:
    assert short_time(seconds) == shown


def test_without_a_terminal_a_line_is_told_now_and_then_and_at_the_end() -> None:
    told: list[str] = []
    line = ProgressLine("{done} of {total}", every_s=1e9, report=told.append)
    line.update(1, 3, "1 right", 130)
    line.report("a remark")
    line.update(3, 3, "2 right", 0.0)
    assert told == ["a remark", "3 of 3, 2 right"], "too soon for the first"
    often = ProgressLine("{done} of {total}", every_s=-1, report=told.append, last=False)
    often.update(1, 3, "", 130)
    often.update(3, 3)
    assert told[2:] == ["1 of 3, about 2 min 10 s left", "3 of 3"]
    never = ProgressLine("{done}", every_s=1e9, report=told.append, last=False)
    never.update(3, 3)
    assert len(told) == 4


def test_a_build_shows_what_its_teacher_does_and_grows() -> None:
    found = counts(in_flight=3, completion_tokens=300)
    found.began = time.monotonic() - 30.0
    assert found.figures() == "0 right, 3 in flight, 10 tokens/s"
    found.tree("a", True, False)
    assert found.figures().startswith("1 right, 3 in flight, 10 tokens/s, about ")


def test_a_builds_line_follows_its_trees_and_leaves_the_end_to_the_summary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = TerminalProgress(every_s=-1)
    progress.start(2, 0, None)
    progress.grown("a", 0.5)
    assert capsys.readouterr().err.startswith("0 of 2 trees, 0 right, about ")
    assert progress.growing == {"a": 0.5}
    rarely = TerminalProgress(every_s=1e9)
    rarely.start(1, 0, None)
    rarely.tree("a", True, False)
    rarely.report("a remark")
    rarely.close()
    assert capsys.readouterr().err == "a remark\n"


def test_a_build_says_what_is_there_already(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TerminalProgress(every_s=-1)
    progress.start(10, 0, None)
    assert capsys.readouterr().err == ""
    progress.start(10, 2, None)
    assert capsys.readouterr().err == "2 of 10 trees are in the warehouse already\n"
    progress.tree("a", True, False)
    assert capsys.readouterr().err.startswith("3 of 10 trees, 1 right, about ")


def test_prometheus_reads_the_same_figures_while_the_build_runs():
    found = counts(requests=7, in_flight=3, prompt_tokens=100, cached_tokens=80, failures=1)
    found.tree("a", True, False)
    found.grown("b", 0.5)
    port = free_port()
    with served(port, found):
        with pytest.raises(Problem, match=str(port)), served(port, found):
            pass
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert values["vigorl_trees", "wanted"] == 10 and values["vigorl_trees", "running"] == 1
    assert values["vigorl_requests_in_flight",] == 3
    assert values["vigorl_requests_total", "failed"] == 1
    assert values["vigorl_tokens_total", "prompt_cached"] == 80
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")


async def test_the_newest_share_is_sent_last_however_slow_the_server_is(monkeypatch) -> None:
    from uuid import uuid4

    from flows.orchestration import artifacts

    sent: list[float] = []

    async def slow(artifact: object, progress: float) -> None:
        await asyncio.sleep(0.05 if not sent else 0)  # the first takes longest
        sent.append(progress)

    monkeypatch.setattr(artifacts, "aupdate_progress_artifact", slow)
    progress = artifacts.FlowProgress("build-traces/sat2", uuid4(), logging.getLogger("test"))
    progress.start(2, 0, None)
    await asyncio.sleep(0)
    progress.tree("a", True, False)
    progress.tree("b", True, False)
    await progress.flush()
    assert sent == [0.0, 100.0]


def test_a_bar_shows_what_data_holds_and_neither_obeys_nor_reads_it(monkeypatch):
    from io import StringIO

    from rich.console import Console

    from flows import progress

    class Terminal(StringIO):
        def isatty(self):
            return True

    shown = Terminal()
    console = Console(file=shown, force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    line = progress.ProgressLine("[red]mine[/red] \x1b]0;title\x07: {done} of {total}")
    line.update(1, 2, "half \ud800 way")
    line.report("a name: [bold]\x1b[2J")
    line.update(2, 2)
    assert line._bar is None, "it is left as it is"
    line.close()
    written = shown.getvalue()
    assert "[red]mine[/red] \\u001b]0;title\\u0007: 1 of 2, half \\ud800 way" in written
    assert "a name: [bold]\\u001b[2J" in written
    assert "\x1b[2J" not in written and "\x1b]0" not in written
