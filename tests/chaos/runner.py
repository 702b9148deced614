"""Play one scenario and count its failures.

    prepare(folder, SEARCHES)                # the questions, and a reference for each search
    outcome = play(scenario(17), folder)
    outcome.problems                         # empty, or sentences

The output of every run and every request to its server are kept in the scenario's folder.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

from tests.chaos import processes
from tests.chaos.contents import compare, journaled, logged, read
from tests.chaos.scenarios import SEARCHES, Run, Scenario, Weather, options

QUESTIONS = 4
STOP_S = 5.0
_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}


@dataclass(slots=True)
class Outcome:
    """The result of a scenario."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    """Injected faults, by kind."""
    lost: int = 0
    """Trees of the reference that are not in the warehouse."""
    differing: int = 0
    """Trees that differ from the reference's."""
    duplicates: int = 0
    """Requests whose answers were journaled before the run began."""
    problems: list[str] = field(default_factory=list)
    """Other failures, as sentences."""
    slowest_stop_s: float = 0.0
    """Longest time from SIGINT or SIGTERM to the process's end."""

    @property
    def bad(self) -> bool:
        return bool(self.lost or self.differing or self.duplicates or self.problems)

    def line(self) -> str:
        """Format as a line of JSON."""
        return json.dumps({f.name: getattr(self, f.name) for f in fields(self)})


def prepare(folder: Path, searches: Iterable[str]) -> None:
    """Import the questions once, and build each search once without faults."""

    def questions() -> None:
        from tests.support.fixtures import sat_rows, write_sat
        from warehouse.sources.importing import import_questions
        from warehouse.storage.home import Warehouse

        path = write_sat(folder / "SAT_train.parquet", sat_rows(QUESTIONS))
        import_questions(Warehouse(str(folder / "template")), "sat2", path)

    _require_success(processes.fork(questions, folder / "prepare.txt"), folder / "prepare.txt")
    for search in searches:
        place = folder / f"reference-{search}"
        place.mkdir()
        home = _home(folder, place)
        port = processes.free_port()
        server = processes.serve(port, place / "requests.jsonl", Weather("calm", 0))
        try:
            _finish(home, port, SEARCHES[search], place)
        finally:
            _end(server)


def play(scenario: Scenario, folder: Path, keep: bool = False) -> Outcome:
    """Run a scenario in a folder of its own, which is kept if it fails, or if `keep` is true."""
    outcome, place = Outcome(scenario.seed), folder / f"scenario-{scenario.seed}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    home, port, arguments = _home(folder, place), processes.free_port(), SEARCHES[scenario.search]
    for number, run in enumerate(scenario.runs):
        before, log = journaled(home), place / f"run{number}.jsonl"
        _run_with_faults(run, arguments, home, port, log, scenario.seed * 10 + number, outcome)
        requests = logged(log)
        outcome.duplicates += sum(request["seed"] in before for request in requests)
        outcome.faults.update(r["fault"] for r in requests if r["fault"] != "ok")
    before, log = journaled(home), place / "last.jsonl"
    server = processes.serve(port, log, Weather("calm", 0))
    try:
        rng = random.Random(f"last {scenario.seed}")
        _finish(home, port, (*arguments, *options(rng)), place)
    except RuntimeError as error:
        outcome.problems.append(str(error))
        return outcome
    finally:
        _end(server)
    sent = Counter(request["seed"] for request in logged(log))
    outcome.duplicates += sum(n for seed, n in sent.items() if seed in before)
    outcome.duplicates += sum(n - 1 for seed, n in sent.items() if seed not in before)
    contents = json.loads((place / "contents.json").read_text())
    reference = json.loads((folder / f"reference-{scenario.search}/contents.json").read_text())
    outcome.lost, outcome.differing = compare(contents, reference)
    if not outcome.bad and not keep:
        shutil.rmtree(place)
    return outcome


def _home(folder: Path, place: Path) -> Path:
    return Path(shutil.copytree(folder / "template", place / "home"))


def _finish(home: Path, port: int, arguments: tuple[str, ...], place: Path) -> None:
    """Build to the end without faults; write the warehouse's contents to `contents.json`."""

    def work() -> None:
        processes.build(home, f"http://127.0.0.1:{port}", arguments)
        (place / "contents.json").write_text(json.dumps(read(home)))

    _require_success(processes.fork(work, place / "last.txt"), place / "last.txt")


def _require_success(pid: int, output: Path) -> None:
    if status := processes.wait(pid):
        raise RuntimeError(f"a run without faults ended with status {status}: see {output}")


def _end(server: int) -> None:
    os.kill(server, signal.SIGKILL)
    processes.wait(server)


def _run_with_faults(
    run: Run, search: tuple[str, ...], home: Path, port: int, log: Path, seed: int, outcome: Outcome
) -> None:
    """Run a build with faults to its end."""
    weather = Weather(run.weather, seed, run.dies_at if run.weather == "dies" else 0)
    server = None if run.weather == "absent" else processes.serve(port, log, weather)
    point = f"{run.point}:{run.count}" if run.ending in ("failpoint", "full") else ""
    point += ":full" if run.ending == "full" else ""
    url, output = f"http://127.0.0.1:{port}", log.with_suffix(".build.txt")
    arguments = (*search, *run.options)
    pids = [processes.fork(lambda: processes.build(home, url, arguments, point), output)]
    if run.rival:
        pids.append(processes.fork(lambda: processes.build(home, url, arguments), output))
    statuses: dict[int, int] = {}
    sent_at = back_at = 0.0
    end = time.monotonic() + 90
    while len(statuses) < len(pids):
        for pid in [pid for pid in pids if pid not in statuses]:
            if (status := processes.exit_status(pid)) is not None:
                statuses[pid] = status
                if pid == pids[0] and sent_at and run.ending != "kill":
                    took = time.monotonic() - sent_at
                    outcome.slowest_stop_s = max(outcome.slowest_stop_s, took)
        now = time.monotonic()
        waiting = run.ending in _SIGNALS and not sent_at and pids[0] not in statuses
        if waiting and len(logged(log)) >= run.count:
            os.kill(pids[0], _SIGNALS[run.ending])
            sent_at = now
        if server and processes.exit_status(server) is not None:
            server, back_at = None, now + run.away_s
        if back_at and now >= back_at:
            server, back_at = processes.serve(port, log, Weather("calm", seed)), 0.0
        if now > end:
            outcome.problems.append(f"a run did not end: see {output}")
            for pid in pids:
                if pid not in statuses:
                    os.kill(pid, signal.SIGKILL)
            end = float("inf")
        time.sleep(0.005)
    if server:
        _end(server)
    _check(run, [statuses[pid] for pid in pids], bool(sent_at), output, outcome)


def _check(run: Run, statuses: list[int], signalled: bool, output: Path, outcome: Outcome) -> None:
    """Check that the run ended as its faults allow."""
    allowed = {
        "failpoint": {0, 137},
        "full": {0, 1},
        "kill": {0, 137},
        "term": {0, 143},
        "int": {0, 130},
        "none": {0},
    }[run.ending]
    if run.weather == "absent":
        allowed = {1}  # one sentence, and nothing is done
    rivals = {1} if run.weather == "absent" else {0}
    status = statuses[0]
    if status not in allowed or not set(statuses[1:]) <= rivals:
        outcome.problems.append(f"{run} ended with status {statuses}: see {output}")
    if "Traceback" in output.read_text() or "never retrieved" in output.read_text():
        outcome.problems.append(f"{run} ended with a traceback: see {output}")
    if outcome.slowest_stop_s > STOP_S:
        outcome.problems.append(f"it took {outcome.slowest_stop_s:.1f} s to stop")
    if run.weather == "absent":
        outcome.faults["absent"] += 1
    elif status:
        outcome.faults[f"{run.ending} at {run.point}" if not signalled else run.ending] += 1
    if run.rival:
        outcome.faults["rival"] += 1
