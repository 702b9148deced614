"""Cycles of retraining under seeded faults, which must end as if nothing had happened.

    make chaos-retrain                                     # 48 scenarios
    python -m tests.chaos.retrain --limit 5 --jobs 1
    python -m tests.chaos.retrain --seed 17                # one alone, its files kept

A scenario (`tests.chaos.retrain_faults`) is one `vigorl retrain` of a few questions with a fault,
at one of the places where a cycle writes something, and the same command again. The cycle must come
to what one without faults came to: the same dataset, as many optimizer steps, the same decision
from the predictions that are stored; no tree, model, evaluation or decision twice, none missing; no
answer asked for again that was journaled; no lease and no training left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from tests.chaos import processes
from tests.chaos.contents import journaled, logged
from tests.chaos.retrain_contents import differences, look
from tests.chaos.retrain_faults import (
    AT_A_WRITE,
    TASK,
    Faults,
    Scenario,
    scenario,
    serve_store,
    tell,
    write_of,
)
from tests.chaos.scenarios import Weather

QUESTIONS, GATE_QUESTIONS = 4, 6
LIMIT_S = 900.0
"""Seconds after which a run is said to hang."""
STOP_S = 30.0
"""Seconds in which a training ends whose cycle was killed."""
SETTINGS = (
    "--space", "qwen3-vl", "--simulations", "2", "--min-new-traces", "2",
    "--sft-recipe", "nano-sft", "--grpo-recipe", "nano-grpo",
    *("--sft-override", "steps=2", "--sft-override", "batch=4", "--sft-override", "save_every=1"),
    *("--sft-override", "most_steps=50"),
    *("--grpo-override", "steps=1", "--grpo-override", "questions=2"),
    *("--grpo-override", "group=2", "--grpo-override", "micro_batch=4"),
    *("--grpo-override", "max_completion=24", "--grpo-override", "save_every=1"),
)  # fmt: skip


@dataclass(slots=True)
class Place:
    """A scenario's folder, and where its warehouse and its servers are."""

    folder: Path
    port: int = field(default_factory=processes.free_port)
    store_port: int = 0
    """Of the imitation of S3; 0 where the warehouse is a folder."""

    @property
    def home(self) -> str:
        """The warehouse."""
        return "s3://chaos/home" if self.store_port else str(self.folder / "home")

    @property
    def store(self) -> str:
        """The address of the imitation of S3."""
        return f"http://127.0.0.1:{self.store_port}"

    def surroundings(self) -> dict[str, str]:
        """Return the environment of what runs here."""
        found = {
            "VIGORL_HOME": self.home, "VIGORL_REVISION": "chaos", "HF_HUB_OFFLINE": "1",
            "TRACKIO_DIR": str(self.folder / "curves"),
        }  # fmt: skip
        if self.store_port:
            found |= {
                "AWS_ENDPOINT_URL": self.store, "AWS_ACCESS_KEY_ID": "chaos",
                "AWS_SECRET_ACCESS_KEY": "chaos", "AWS_DEFAULT_REGION": "us-east-1",
                "XDG_CACHE_HOME": str(self.folder / "cache"),
            }  # fmt: skip
        return found

    @contextmanager
    def servers(self, weather: Weather, log: str) -> Iterator[list[int]]:
        """Run the teacher, and yield its process in a list that may be replaced."""
        running = [processes.serve(self.port, self.folder / log, weather)]
        try:
            yield running
        finally:
            end(running[0])


def load() -> None:
    """Import what a cycle uses, so that its processes need not; run nothing."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded; scenarios run side by side
    processes.load()
    import moto.server  # noqa: F401
    import trl  # noqa: F401

    import flows.cli.app
    import flows.stages.retrain.run  # noqa: F401
    import training.grpo
    import training.sft
    import training.trainers  # noqa: F401


def prepare(folder: Path) -> None:
    """Import the questions once, and run a whole cycle without faults."""
    template = Place(folder / "template")
    template.folder.mkdir()
    run_through(processes.fork(lambda: bring_questions(template), folder / "prepare.txt"), folder)
    reference = Place(folder / "reference")
    shutil.copytree(template.folder, reference.folder)
    with reference.servers(Weather("calm", 0), "requests.jsonl"):
        counter = Faults(reference.folder / "writes.jsonl")
        work = begin(reference, lambda: cycle(reference, counter), "last.txt")
        run_through(work, reference.folder)
    run_through(
        begin(reference, lambda: look(reference.home, reference.folder / "found.json"), "look.txt"),
        reference.folder,
    )


def bring_questions(place: Place) -> None:
    """Import questions to search, and others for the gate."""
    os.environ.update(place.surroundings())
    from tests.support.fixtures import sat_rows, write_sat
    from warehouse.sources.importing import import_questions
    from warehouse.storage.home import Warehouse

    rows = sat_rows(QUESTIONS + GATE_QUESTIONS)
    for number, row in enumerate(rows[QUESTIONS:]):
        row["images"] = [{"bytes": patches(number), "path": f"gate-{number}.png"}]
    for name, some in (("train", rows[:QUESTIONS]), ("gate", rows[QUESTIONS:])):
        path = write_sat(place.folder / f"SAT_{name}.parquet", some)
        import_questions(Warehouse(place.home), TASK, path, split=name)


def patches(seed: int) -> bytes:
    """Draw an image that is like no other: one like the gate's is kept from training."""
    data = BytesIO()
    colours = random.Random(seed).randbytes(3 * 7 * 7)
    Image.frombytes("RGB", (7, 7), colours).resize((56, 56), Image.Resampling.NEAREST).save(
        data, "PNG"
    )
    return data.getvalue()


def begin(place: Place, work: Callable[[], None], output: str) -> int:
    """Run `work` in a process of its own, in a place's surroundings; return its id."""

    def there() -> None:
        os.environ.update(place.surroundings())
        work()

    return processes.fork(there, place.folder / output)


def run_through(pid: int, place: Path) -> None:
    """Wait for a run without faults.

    Raises:
        RuntimeError: it failed.
    """
    if status := processes.wait(pid, LIMIT_S):
        raise RuntimeError(f"a run without faults ended with status {status}: see {place}")


def end(pid: int) -> None:
    """Kill a process and wait for its end."""
    os.kill(pid, signal.SIGKILL)
    processes.wait(pid)


def cycle(place: Place, faults: Faults | None = None, train: Any = None) -> None:
    """Run `vigorl retrain` in this process.

    Args:
        train: does a training instead, given its settings; returns the model's row.
    """
    if faults is not None:
        faults.install()
    if train is not None:
        import flows.stages.retrain.run

        flows.stages.retrain.run.train = train
    from flows.cli import app as cli

    teacher = f"http://127.0.0.1:{place.port}"
    sys.argv = ["vigorl", "retrain", TASK, "--teacher", teacher, *SETTINGS]
    cli.main()


def in_a_process(place: Place, stage: str) -> Callable[[Any], Any]:
    """Return what trains in a process of its own, as under Prefect, and kills that of a stage."""
    from flows import supervise
    from flows.orchestration.training_process import STOP_S as PATIENCE_S
    from flows.orchestration.training_process import command
    from flows.settings_base import Problem
    from training.runs import runs_folder
    from warehouse.models import find_model
    from warehouse.storage.home import Warehouse

    def train(settings: Any) -> Any:
        warehouse = Warehouse(place.home)
        process = subprocess.Popen(
            [sys.executable, "-I", supervise.__file__, str(PATIENCE_S), *command(settings)],
            stdin=subprocess.PIPE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        runs, pattern = runs_folder(warehouse), f"{settings.name}-*/metrics.jsonl"
        while process.poll() is None:
            time.sleep(0.02)
            begun = children(process.pid)
            if settings.kind == stage and begun and next(runs.glob(pattern), None):
                (place.folder / "training").write_text(str(begun[0]))
                return finish(process)
        if process.returncode:
            raise Problem(f"the training ended with status {process.returncode}")
        return find_model(warehouse, settings.name)

    def finish(process: Any) -> Any:
        """Wait to be killed, or for the training to be."""
        process.wait()
        raise Problem(f"the training ended with status {process.returncode}")

    return train


def children(pid: int) -> list[int]:
    """Return the processes that a process has begun."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return []
    return [int(word) for word in words]


def play(scenario: Scenario, folder: Path, keep: bool) -> dict[str, Any]:
    """Run a scenario in a folder of its own; return what went wrong."""
    place = Place(folder / f"scenario-{scenario.seed}")
    place.folder.mkdir()
    problems: list[str] = []
    store = 0
    try:
        if scenario.on_s3:
            place.store_port = processes.free_port()
            store = processes.fork(lambda: serve_store(place.store_port), place.folder / "s3.txt")
            await_port(place.store_port)
            run_through(begin(place, lambda: on_s3(place), "prepare.txt"), place.folder)
        else:
            shutil.copytree(folder / "template" / "home", place.home)
        problems += with_faults(scenario, place, folder)
    except Exception:
        problems.append(traceback.format_exc().strip())
    finally:
        if store:
            end(store)
    if not problems and not keep:
        shutil.rmtree(place.folder)
    return {**asdict(scenario), "problems": problems}


def on_s3(place: Place) -> None:
    """Make the bucket, and import the questions."""
    import boto3

    boto3.client("s3").create_bucket(Bucket="chaos")
    bring_questions(place)


def await_port(port: int) -> None:
    """Wait until a server of ours listens."""
    import socket

    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        with socket.socket() as trying:
            if not trying.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}")


def with_faults(scenario: Scenario, place: Place, folder: Path) -> list[str]:
    """Run the cycle with the fault, then without; return what is wrong."""
    problems: list[str] = []
    dies_at = 2 + int(6 * scenario.share) if scenario.fault == "server" else 0
    asked: Counter[int] = Counter()
    runs = 1 + scenario.again
    for number in range(runs):
        known = seen(place)
        log = f"requests-{number}.jsonl"
        with place.servers(Weather("dies" if dies_at else "calm", 0, dies_at), log) as teacher:
            problems += one_fault(scenario, place, folder, number, teacher)
        asked.update(request["seed"] for request in logged(place.folder / log))
        problems += [f"asked again: {seed}" for seed in asked if seed in known and asked[seed] > 1]
        dies_at = 0
    if place.store_port:
        tell(place.store, "allow")
    known = seen(place)
    with place.servers(Weather("calm", 0), "requests-last.jsonl"):
        work = begin(place, lambda: cycle(place), "last.txt")
        run_through(work, place.folder)
    again = [r["seed"] for r in logged(place.folder / "requests-last.jsonl") if r["seed"] in known]
    problems += [f"{len(again)} answers that were journaled were asked for again"] if again else []
    run_through(
        begin(place, lambda: look(place.home, place.folder / "found.json"), "look.txt"),
        place.folder,
    )
    found, whole = (
        json.loads((where / "found.json").read_text())
        for where in (place.folder, folder / "reference")
    )
    return problems + differences(found, whole)


def seen(place: Place) -> set[int]:
    """Return the requests to the teacher whose answers are journaled."""
    return journaled(
        place.folder / "cache/vigorl/chaos_home" if place.store_port else Path(place.home)
    )


def one_fault(
    scenario: Scenario, place: Place, folder: Path, number: int, teacher: list[int]
) -> list[str]:
    """Run the cycle to its fault; return what was wrong about its end."""
    output = f"fault-{number}.txt"
    faults, train = None, None
    if scenario.fault in AT_A_WRITE:
        log = place.folder / f"writes-{number}.jsonl"
        faults = Faults(log, number + 1, "before")
        if not number:
            at = write_of(scenario, folder / "reference/writes.jsonl")
            faults = Faults(log, at, scenario.fault, scenario.stage, place.store)
    elif scenario.fault != "server":
        train = True

    def work() -> None:
        cycle(place, faults, train and in_a_process(place, scenario.stage))

    pid, limit = begin(place, work, output), time.monotonic() + LIMIT_S
    training = 0
    while (status := processes.exit_status(pid)) is None:
        if not training and (place.folder / "training").exists():
            training = int((place.folder / "training").read_text() or 0)
            (place.folder / "training").unlink()
            os.kill(training if scenario.fault == "training" else pid, signal.SIGKILL)
        if scenario.fault == "server" and processes_ended(teacher[0]):
            time.sleep(0.5)
            teacher[0] = processes.serve(
                place.port, place.folder / "back.jsonl", Weather("calm", 0)
            )
        if time.monotonic() > limit:
            end(pid)
            return [f"{scenario.fault}: the run did not end: see {output}"]
        time.sleep(0.01)
    told, problems = (place.folder / output).read_text(), []
    allowed = {"full": 1, "refused": 1, "training": 2, "server": 0}.get(scenario.fault, 137)
    # Answers that come together are journaled in one write, so there may be fewer than before.
    missed = status == 0 and scenario.stage in ("build", "evaluate")
    if status != allowed and not missed and not number:
        problems.append(f"the run with the fault ended with status {status}: see {output}")
    if "Traceback" in told:
        problems.append(f"a traceback: see {output}")
    if scenario.fault == "worker" and not ended(training):
        problems.append(f"the training outlived its cycle by {STOP_S:g} s")
    return problems


def processes_ended(pid: int) -> bool:
    """Whether a child has ended; it is reaped."""
    try:
        return processes.exit_status(pid) is not None
    except ChildProcessError:
        return False


def ended(pid: int) -> bool:
    """Wait for a process that is no child of ours."""
    limit = time.monotonic() + STOP_S
    while time.monotonic() < limit:
        if not pid or not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.1)
    return False


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="tests.chaos.retrain")
    parser.add_argument("--limit", type=int, default=48, help="scenarios")
    parser.add_argument("--first", type=int, default=0, help="the first scenario's seed")
    parser.add_argument("--seed", type=int, nargs="+", help="only these; of one the files are kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write the report to this file as well")
    options = parser.parse_args()
    seeds = options.seed or list(range(options.first, options.first + options.limit))
    start, keep = time.monotonic(), len(seeds) == 1
    load()
    folder = Path(tempfile.mkdtemp(prefix="vigorl-chaos-"))
    prepare(folder)
    print(f"a cycle without faults took {time.monotonic() - start:.0f} s to prepare", flush=True)
    jobs = max(1, min(options.jobs, len(seeds)))
    for job in range(jobs):

        def work(mine: list[int] = seeds[job::jobs], lines: Path = folder / f"{job}.jsonl") -> None:
            for seed in mine:
                outcome = play(scenario(seed), folder, keep)
                with lines.open("a") as file:
                    file.write(json.dumps(outcome) + "\n")

        processes.fork(work, folder / f"job-{job}.txt")
    statuses = [os.wait()[1] for _ in range(jobs)]
    outcomes = [json.loads(line) for p in folder.glob("?.jsonl") for line in p.open()]
    if any(statuses) or len(outcomes) != len(seeds):
        print(f"the harness itself failed: see {folder}/job-*.txt", file=sys.stderr)
        return 2
    report = summary(outcomes, time.monotonic() - start)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if not report["failing seeds"] and not keep:
        shutil.rmtree(folder)
    else:
        print(f"files: {folder}", file=sys.stderr)
    return 1 if report["failing seeds"] else 0


def summary(outcomes: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Sum up the outcomes and print them."""
    outcomes = sorted(outcomes, key=lambda outcome: outcome["seed"])
    bad = [outcome for outcome in outcomes if outcome["problems"]]
    for outcome in bad:
        what = f"{outcome['fault']} in {outcome['stage']}"
        print(f"FAILED: python -m tests.chaos.retrain --seed {outcome['seed']}   {what}")
        for problem in outcome["problems"]:
            print(f"    {problem}")
    for name in ("fault", "stage"):
        counted = Counter(outcome[name] for outcome in outcomes)
        print(f"{name}s: " + ", ".join(f"{n} {kind}" for kind, n in sorted(counted.items())))
    print(f"{len(outcomes)} scenarios, {len(bad)} failed, {seconds:.0f} s")
    return {
        "scenarios": len(outcomes), "failing seeds": [outcome["seed"] for outcome in bad],
        "seconds": round(seconds, 1), "outcomes": outcomes,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
