"""Tests the paper's claim end to end on the embedded models.

    make claim                     # hours on two cores; interrupted, the same command goes on
    make claim ARGS=--quick        # one seed and little of everything: a check, no proof
    make claim ARGS=--report       # only the tables and the plot of what is finished

Stages run as processes, one a core, each after those it needs. If a stage fails, the end of its log
is printed, and the stages that do not need it go on.
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
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from flows.progress import short_time
from mcts.teachers.checkpoints import find_checkpoint, registered_checkpoints
from training.errors import TrainingError
from vigorl_nano.claim.plan import FULL, QUICK, Size, Stage, size_identity, stages
from vigorl_nano.claim.report import write_report
from vigorl_nano.claim.work import Experiment, run_stage

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


def default_folder(size: Size, quick: bool) -> Path:
    """Return where an experiment goes by default: a folder for each size and start."""
    other = "" if size.start == FULL.start else f"-from-{Path(size.start).name}"
    return Path("runs") / f"claim{'-quick' if quick else ''}{other}"


def open_experiment(folder: Path, size: Size) -> Experiment:
    """Open or begin the experiment in `folder`; one of another size there is not touched.

    Raises:
        SystemExit: the folder holds an experiment of another size.
    """
    plan = folder / "plan.json"
    if plan.exists() and json.loads(plan.read_text("utf-8")) != size_identity(size):
        sys.exit(
            f"{plan}: this folder holds a claim of another size or start; move it away or name "
            "another --folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    plan.write_text(json.dumps(size_identity(size)) + "\n", "utf-8")
    return Experiment(folder, size)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make claim", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed, and little of everything")
    parser.add_argument(
        "--folder", type=Path, help="where all of it goes; by size and start, below runs/"
    )
    parser.add_argument(
        "--from", dest="start", default=FULL.start, help="the model that every arm starts from"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="stages at once")
    parser.add_argument("--seeds", type=int, help="how many; more go on from fewer")
    parser.add_argument("--until", help="only stages this one needs, and itself")
    parser.add_argument("--report", action="store_true", help="only report what is finished")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    seeds = size.seeds if options.seeds is None else tuple(range(options.seeds))
    if not seeds:
        parser.error(f"--seeds {options.seeds}: at least one is needed")
    if not find_checkpoint(options.start) and not (Path(options.start) / "config.json").is_file():
        parser.error(
            f"--from {options.start} is neither {', '.join(registered_checkpoints())}, nor a "
            "folder with a config.json"
        )
    size = replace(size, start=options.start, seeds=seeds)
    experiment = open_experiment(options.folder or default_folder(size, options.quick), size)
    plan = {stage.name: stage for stage in stages(size)}
    if options.stage:
        try:
            run_stage(experiment, plan[options.stage])
        except TrainingError as error:
            sys.exit(f"vigorl: {error}")
        return
    wanted = list(plan.values())
    if options.until:
        if options.until not in plan:
            parser.error(f"--until: there is no stage {options.until!r}: {', '.join(plan)}")
        wanted = [stage for stage in wanted if stage.name in needed(plan, options.until)]
    if not options.report:

        def command(stage: Stage) -> list[str]:
            here = ["--folder", str(experiment.folder), "--from", size.start]
            here += ["--seeds", str(len(size.seeds)), *(["--quick"] if options.quick else [])]
            return [sys.executable, "-m", "vigorl_nano.claim", *here, "--stage", stage.name]

        lock = (experiment.folder / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"{experiment.folder}: another process is at work here; wait for it")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            Runner(experiment, options.workers, command).run(wanted)
        except KeyboardInterrupt:
            sys.exit("stopped; what was done is kept, the same command continues")
        except StageFailed as failed:
            sys.exit(str(failed))
    write_report(experiment)


def needed(plan: dict[str, Stage], name: str) -> set[str]:
    """Return a stage and everything it needs, by name."""
    return {name}.union(*(needed(plan, before) for before in plan[name].after))


if __name__ == "__main__":
    main()
