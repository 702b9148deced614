"""Stages of an experiment, each a process whose outcome is a small JSON file; what has one is done.

    experiment = open_experiment(folder, size, identity)
    Runner(experiment, workers=2, command=command).run(stages)
    run_stage(experiment, stage, {"train": train_arm, ...})       # what such a process does

`make claim` and `make claim-points` are such experiments. A stage that was killed is simply run
again: everything that stages do can be interrupted and continued.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.progress import short_time
from training.errors import TrainingError
from warehouse.tables.schema import Row


@dataclass(frozen=True, slots=True)
class Stage:
    """One process of the experiment."""

    name: str
    """What it does, then for which arm, and seed: `train/vigorl@0`."""
    after: tuple[str, ...]
    """Stages whose outcome it needs."""

    @property
    def kind(self) -> str:
        """The kind of stage."""
        return self.name.partition("/")[0]

    @property
    def arm(self) -> str:
        """The arm, or what is searched with."""
        return self.name.partition("/")[2].partition("@")[0]

    @property
    def seed(self) -> int:
        """The seed; 0 where none is named."""
        return int(self.name.partition("@")[2] or 0)


@dataclass(frozen=True, slots=True)
class Experiment:
    """One run of a claim: its folder holds its warehouse, logs, and a file a finished stage."""

    folder: Path
    size: Any
    """How large it is; its `name` is in the names of models and datasets."""

    @property
    def home(self) -> str:
        """Its own warehouse, apart from the user's."""
        return str(self.folder / "warehouse")

    def outcome(self, stage: str) -> Row | None:
        """Return what a finished stage returned; None while it is not finished."""
        try:
            return json.loads(self.file(stage).read_text("utf-8"))
        except FileNotFoundError:
            return None

    def required_outcome(self, stage: str) -> Row:
        """Return the outcome of a stage that must be finished."""
        found = self.outcome(stage)
        assert found is not None, f"stage {stage} has no outcome"
        return found

    def file(self, stage: str) -> Path:
        """Return where a stage's outcome is stored."""
        return self.folder / "stages" / f"{stage.replace('/', '.')}.json"

    def model_name(self, arm: str, seed: int, part: str = "") -> str:
        """Name a trained model in the warehouse."""
        return f"{self.size.name}-{arm}{part}-{seed}"


Work = Callable[[Experiment, Stage], Row]
"""What a kind of stage does."""


def run_stage(experiment: Experiment, stage: Stage, work: Mapping[str, Work]) -> Row:
    """Run a stage, as `work` has it under its kind, and store its outcome."""
    begun, used = time.monotonic(), time.process_time()
    outcome = work[stage.kind](experiment, stage)
    outcome["seconds"] = round(time.monotonic() - begun, 1)
    outcome["cpu_seconds"] = round(time.process_time() - used, 1)
    path = experiment.file(stage.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(outcome, indent=1) + "\n", "utf-8")
    part.replace(path)
    return outcome


_LOOK_S = 0.5

Command = Callable[[Stage], list[str]]
"""The command of a stage's process."""


class StageFailed(Exception):
    """Stages failed; the others are finished."""


class Runner:
    """Runs the stages that are not finished, `workers` at once."""

    def __init__(self, experiment: Experiment, workers: int, command: Command) -> None:
        self.experiment, self.workers, self.command = experiment, workers, command
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.failed: list[str] = []

    def run(self, wanted: Sequence[Stage]) -> None:
        """Run every stage; returns when all are finished.

        Raises:
            StageFailed: some failed; the sentence names them and their logs.
        """
        done = {s.name for s in wanted if self.experiment.outcome(s.name) is not None}
        try:
            while len(done) + len(self.failed) < len(wanted):
                ready = [
                    stage for stage in wanted
                    if stage.name not in done and stage.name not in self.failed
                    and stage.name not in self.running and done.issuperset(stage.after)
                ]  # fmt: skip
                for stage in ready[: self.workers - len(self.running)]:
                    self.start(stage)
                if not self.running:
                    break  # what is left needs what failed
                time.sleep(_LOOK_S)
                for name in self.finished():
                    done.add(name)
                    self.report(name, len(done), len(wanted))
        finally:
            self.stop()
        if self.failed:
            logs = self.experiment.folder / "logs"
            raise StageFailed(f"failed: {', '.join(self.failed)}; see {logs}")

    def start(self, stage: Stage) -> None:
        """Start a stage's process, of one thread: each stage has a core."""
        log = self.log(stage.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            process = subprocess.Popen(
                self.command(stage), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                env={**os.environ, "OMP_NUM_THREADS": "1"}, process_group=0,
            )  # fmt: skip
        self.running[stage.name] = process

    def finished(self) -> list[str]:
        """Return the stages that succeeded since the last call; print those that failed."""
        succeeded = []
        for name, process in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[name]
            if process.returncode == 0:
                succeeded.append(name)
            else:
                self.failed.append(name)
                lines = self.log(name).read_text("utf-8", "replace").splitlines()[-5:]
                print(f"{name} failed:", *lines, sep="\n    ", file=sys.stderr, flush=True)
        return succeeded

    def report(self, name: str, done: int, total: int) -> None:
        """Print that a stage is finished, and its result."""
        outcome = self.experiment.required_outcome(name)
        found = next(iter(outcome.get("evaluations", {}).values()), None)
        result = f": {100 * found['accuracy']:.1f}% right" if found else ""
        if "traces" in outcome:
            result = f": {outcome['traces']} traces of {outcome['trees']} questions"
        took = short_time(outcome["seconds"])
        print(f"[{done}/{total}] {name}{result} ({took})", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Stop what is still running; the same command continues it."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def log(self, name: str) -> Path:
        """Return where a stage's output goes."""
        return self.experiment.folder / "logs" / f"{name.replace('/', '.')}.log"


def open_experiment(folder: Path, size: Any, identity: Row) -> Experiment:
    """Open or begin the experiment in `folder`; one of another identity there is not touched.

    Raises:
        SystemExit: the folder holds another experiment.
    """
    plan = folder / "plan.json"
    if plan.exists() and json.loads(plan.read_text("utf-8")) != identity:
        sys.exit(
            f"{plan}: this folder holds a claim of another size, start or plan; move it away or "
            "name another --folder"
        )
    if not plan.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"plan.{os.getpid()}.part"
        part.write_text(json.dumps(identity) + "\n", "utf-8")
        part.replace(plan)  # other stages read it meanwhile
    return Experiment(folder, size)


@contextmanager
def alone(experiment: Experiment) -> Iterator[None]:
    """Hold the experiment's lock, and end in a sentence when a stage fails or somebody interrupts.

    Raises:
        SystemExit: another process is at work, or the work ended early.
    """
    with (experiment.folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"{experiment.folder}: another process is at work here; wait for it")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            yield
        except KeyboardInterrupt:
            sys.exit("stopped; what was done is kept, the same command continues")
        except StageFailed as failed:
            sys.exit(str(failed))


def stages_for(plan: Mapping[str, Stage], until: str | None) -> list[Stage]:
    """Return the stages of a plan, or those that `until` needs and itself.

    Raises:
        KeyError: there is no such stage.
    """
    if until is None:
        return list(plan.values())
    wanted = needed(plan, until)
    return [stage for stage in plan.values() if stage.name in wanted]


def needed(plan: Mapping[str, Stage], name: str) -> set[str]:
    """Return a stage and everything it needs, by name."""
    return {name}.union(*(needed(plan, before) for before in plan[name].after))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every experiment's command takes, beside what is its own."""
    parser.add_argument("--quick", action="store_true", help="one seed, and little of everything")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="stages at once")
    parser.add_argument("--seeds", type=int, help="how many; more go on from fewer")
    parser.add_argument("--until", help="only stages this one needs, and itself")
    parser.add_argument("--report", action="store_true", help="only report what is finished")
    parser.add_argument("--stage", help=argparse.SUPPRESS)


def seeds_of(
    parser: argparse.ArgumentParser, options: argparse.Namespace, usual: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the seeds that were asked for; it is an error of the command line if there is none."""
    seeds = usual if options.seeds is None else tuple(range(options.seeds))
    if not seeds:
        parser.error(f"--seeds {options.seeds}: at least one is needed")
    return seeds


def run_command(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    experiment: Experiment,
    stages: Sequence[Stage],
    work: Mapping[str, Work],
    again: Sequence[str],
) -> None:
    """Run the stages that the command's options ask for, or the one that it is the process of.

    Args:
        again: the command of a stage's process, without the stage.

    Raises:
        SystemExit: a stage failed, or this was the process of one stage.
    """
    plan = {stage.name: stage for stage in stages}
    if options.stage:
        try:
            run_stage(experiment, plan[options.stage], work)
        except TrainingError as error:
            sys.exit(f"vigorl: {error}")
        sys.exit()
    if options.until and options.until not in plan:
        parser.error(f"--until: there is no stage {options.until!r}: {', '.join(plan)}")
    if options.report:
        return

    def command(stage: Stage) -> list[str]:
        common = ["--folder", str(experiment.folder), "--seeds", str(len(experiment.size.seeds))]
        common += ["--quick"] if options.quick else []
        return [sys.executable, "-m", *again, *common, "--stage", stage.name]

    with alone(experiment):
        Runner(experiment, options.workers, command).run(stages_for(plan, options.until))
