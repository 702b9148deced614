"""Builds on a Ray cluster that loses its parts: `make chaos-cluster`.

    python -m tests.chaos.cluster                       # every scenario; needs vigorl[ray] and moto
    python -m tests.chaos.cluster --only head store     # those of these faults

Two Ray nodes run on loopback addresses of this machine. In each scenario something is lost in the
middle of a build: a worker, a whole node, the head, the process that began the build, or the right
to write to the store. What ended with it is started again, and the same command is given until it
ends. The warehouse must then hold the rows of a build in one process, and nothing may have been
asked twice but what was in flight.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from flows.stages.shards.ray_workers import LOST
from mcts.journal.segments import fetch
from tests.chaos.contents import Contents, compare, journaled, read
from tests.chaos.processes import free_port
from tests.chaos.retrain_faults import tell
from tests.support.fixtures import sat_rows, write_sat
from tests.support.stub_server import StubServer
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse

QUESTIONS = 12
CONCURRENCY = 4
MARK = "VIGORL_CHAOS"
"""Environment variable by which the processes of a scenario are found, and its nodes told apart."""
SEARCH = ("--simulations", "2", "--max-depth", "4", "--space", "qwen3-vl")
AWAY = ("--shard", "2", "--workers", "2", "--concurrency", str(CONCURRENCY), "--on")
FAULTS = ("none", "worker", "node", "head", "driver", "store")
STORES = ("folder", "s3")
A_TREE = 4
"""Requests of a tree in flight: an expansion's three steps or their answers, and one behind it."""
LOSSES = {"none": 0, "worker": 3 * CONCURRENCY // 2}
"""Trees under way in what is lost; all of them where nothing is said."""
ENDS = {"worker": {0}, "node": {0}, "none": {0}, "head": {1}, "driver": {137}, "store": {1}}
"""Exit statuses of the build that meets a fault."""


@dataclass
class Place:
    """A scenario's folder, with its warehouse, its cluster and the imitation of S3."""

    folder: Path
    store: str
    store_port: int = field(default_factory=free_port)
    ray_port: int = field(default_factory=free_port)

    @property
    def home(self) -> str:
        """The warehouse."""
        return "s3://chaos/home" if self.store == "s3" else str(self.folder / "home")

    def environment(self, part: str) -> dict[str, str]:
        """Return the environment of a process of this scenario, marked as of a part."""
        return os.environ | {
            MARK: f"{self.folder}:{part}",
            "VIGORL_HOME": self.home, "VIGORL_REVISION": "chaos",
            "RAY_AUTH_MODE": "disabled", "XDG_CACHE_HOME": str(self.folder / f"cache-{part}"),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.store_port}", "AWS_ACCESS_KEY_ID": "chaos",
            "AWS_SECRET_ACCESS_KEY": "chaos", "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip

    def processes(self, part: str = "") -> list[tuple[int, bytes]]:
        """Find this scenario's processes, or those of a part: their ids and command lines."""
        mark = f"{MARK}={self.folder}:{part}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if any(
                    line.startswith(mark) for line in (path / "environ").read_bytes().split(b"\0")
                ):
                    found.append((int(path.name), (path / "cmdline").read_bytes()))
        return found

    def kill(self, part: str = "") -> None:
        """Kill all processes of a part at once, as when a machine is lost."""
        for pid, _ in self.processes(part):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # ---- the cluster and the store ---------------------------------------------------------------

    def start_node(self, node: str) -> None:
        """Start the `head`, or the `second` node."""
        where = ["--head", "--port", str(self.ray_port), "--temp-dir", str(self.folder / "ray")]
        where += ["--node-ip-address", "127.0.0.1", "--include-dashboard", "false"]
        if node == "second":
            where = ["--address", f"127.0.0.1:{self.ray_port}", "--node-ip-address", "127.0.0.2"]
        command = [str(Path(sys.executable).with_name("ray")), "start", *where, "--num-cpus", "2"]
        command += ["--disable-usage-stats"]
        with (self.folder / "ray.txt").open("a") as out:
            subprocess.run(
                command, env=self.environment(node), stdout=out, stderr=out, check=True, timeout=120
            )

    def start_store(self) -> None:
        """Start the imitation of S3, with an empty bucket."""
        import boto3

        serve = "from tests.chaos.retrain_faults import serve_store as serve; "
        serve += f"serve({self.store_port})"
        with (self.folder / "store.txt").open("a") as out:
            subprocess.Popen(
                [sys.executable, "-c", serve],
                env=self.environment("store"), stdout=out, stderr=out,
            )  # fmt: skip
        client = boto3.client("s3")
        end = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket="chaos")
                return
            except Exception:  # it does not listen yet
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the cluster and the store; end all that is left of the scenario."""
        try:
            if self.store == "s3":
                self.start_store()
            self.start_node("head")
            self.start_node("second")
            yield
        finally:
            while self.processes():
                self.kill()
                time.sleep(0.1)

    def build(self, server: StubServer, *, away: bool = True) -> subprocess.Popen[bytes]:
        """Begin `vigorl build`."""
        command = [sys.executable, "-m", "flows.cli", "build", "sat2", "--teacher", server.url]
        command += [*SEARCH, *((*AWAY, f"ray:127.0.0.1:{self.ray_port}") if away else ())]
        with (self.folder / "build.txt").open("a") as out:
            return subprocess.Popen(command, env=self.environment("driver"), stdout=out, stderr=out)

    def answered(self) -> set[int]:
        """Return the sampling seeds of the requests whose answers are journaled."""
        if self.store == "folder":
            return journaled(Path(self.home))
        copy = self.folder / "journal-copy"
        (copy / "journal").mkdir(parents=True, exist_ok=True)
        fetch(copy / "journal", Warehouse(self.home).objects)
        return journaled(copy)

    # ---- what is lost ----------------------------------------------------------------------------

    def lose(self, fault: str, build: subprocess.Popen[bytes]) -> None:
        """Let a fault happen."""
        if fault == "worker":
            actors = [pid for pid, line in self.processes() if line.startswith(b"ray::_Actor")]
            if actors:  # one that was killed may not be back yet
                os.kill(random.choice(actors), signal.SIGKILL)
        elif fault == "node":
            self.kill("second")
        elif fault == "head":
            self.kill("head")
        elif fault == "driver":
            build.kill()
        elif fault == "store":
            tell(f"http://127.0.0.1:{self.store_port}", "refuse")

    def restore(self, fault: str) -> None:
        """Bring back what a build needs that goes on."""
        if fault == "store":
            tell(f"http://127.0.0.1:{self.store_port}", "allow")
        if fault == "head":
            self.kill("second")  # it has lost its head, and ends by itself a while later
            self.start_node("head")
            self.start_node("second")


def wait_for(condition: Callable[[], bool], build: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Wait until something is so; return False where the build has ended before.

    Raises:
        TimeoutError: neither came.
    """
    end = time.monotonic() + limit_s
    while not condition():
        if build.poll() is not None:
            return False
        if time.monotonic() > end:
            raise TimeoutError("the build hangs")
        time.sleep(0.01)
    return True


def play(
    fault: str, store: str, folder: Path, reference: Contents, server: StubServer
) -> list[str]:
    """Play one scenario in its folder; return what is wrong as sentences."""
    place, before = Place(folder, store), len(server.requests)
    os.environ.update({k: v for k, v in place.environment("").items() if k.startswith("AWS_")})
    with place.running():
        bring_questions(place)
        build = place.build(server)
        known: list[tuple[set[int], int]] = []  # what was answered, and asked, at some moments
        for at in (20, 45, 70) if fault == "worker" else (30,):
            if wait_for(lambda at=at: len(server.requests) - before >= at, build, 180):
                known.append((place.answered(), len(server.requests)))
                place.lose(fault, build)
        statuses = [wait(build)]
        place.restore(fault)
        known.append((place.answered(), len(server.requests)))
        statuses += [wait(place.build(server))] if statuses[0] else []
        again = sum(
            request["body"]["seed"] in answered
            for answered, since in known
            for request in server.requests[since:]
        )
        asked = Counter(request["fingerprint"] for request in server.requests[before:])
        lost, differing = compare(read(place.home), reference)
    twice = asked.total() - len(asked)
    print(
        f"  statuses {statuses}, {len(asked)} requests, {twice} asked twice, {again} of them "
        f"answered before; {[len(answered) for answered, _ in known]} were at the faults",
        flush=True,
    )
    wrong = []
    if statuses[0] not in ENDS[fault] or statuses[-1]:
        wrong.append(f"the builds ended with {statuses}")
    if lost or differing:
        wrong.append(f"{lost} trees are lost, {differing} differ")
    if twice > A_TREE * LOSSES.get(fault, CONCURRENCY) or again:
        wrong.append(f"{twice} requests were asked twice, {again} of them answered before")
    said = (folder / "build.txt").read_text()
    wrong += [f"{word!r} was printed" for word in ("Traceback", "(raylet)") if word in said]
    if fault in ("worker", "node") and said.count(LOST) != 1:
        wrong.append("the loss was not told once")
    return wrong


def bring_questions(place: Place) -> None:
    """Import the questions."""
    path = write_sat(place.folder / "SAT_train.parquet", sat_rows(QUESTIONS))
    import_questions(Warehouse(place.home), "sat2", path)


def wait(build: subprocess.Popen[bytes]) -> int:
    """Return a build's exit status as a shell would; kill it where it does not end.

    Raises:
        TimeoutError: it did not.
    """
    try:
        status = build.wait(240)
    except subprocess.TimeoutExpired:
        build.kill()
        raise TimeoutError("the build hangs") from None
    return status if status >= 0 else 128 - status


def main() -> int:
    """Play the scenarios; exit status 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="tests.chaos.cluster", description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=FAULTS, help="these faults")
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="vc-"))  # short: Ray's sockets lie below it
    failed: list[str] = []
    with StubServer(latency_s=0.2) as server:
        here = Place(root / "one", "folder")
        here.folder.mkdir()
        bring_questions(here)
        if status := wait(here.build(server, away=False)):
            print(f"the reference ended with status {status}: see {here.folder}/build.txt")
            return 2
        reference = read(here.home)
        for fault in given.only:
            for store in STORES if fault != "store" else ("s3",):
                name = f"{fault}-{store}"
                folder = root / name
                folder.mkdir()
                print(name, flush=True)
                start = time.monotonic()
                try:
                    wrong = play(fault, store, folder, reference, server)
                except TimeoutError as error:
                    wrong = [str(error)]
                said = "; ".join(wrong) or "the rows of one process"
                print(f"  {said}, in {time.monotonic() - start:.0f} s", flush=True)
                failed += [name] if wrong else []
    if failed:
        print(f"failed: {', '.join(failed)}; see {root}")
        return 1
    shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
