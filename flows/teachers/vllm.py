"""Starts vLLM's server from its own environment, with the flags that tree search wants; stops it.

    vigorl serve Qwen/Qwen2.5-VL-72B-Instruct --tensor-parallel 8    # until Ctrl-C
    vigorl build sat2 --teacher vllm:./checkpoints/student           # for as long as the build

    with Server(ServeSettings(model="./checkpoint"), report=print) as server:
        server.wait()                        # until it answers; Problem with the log's last lines
        ... server.url, server.name ...

vLLM pins libraries against those of this package, so it lives in `.venv-vllm` (`make vllm`), or
where `$VIGORL_VLLM` says: a Python with vLLM, or its `vllm` program. `$VIGORL_VLLM_ARGS` are more
flags for it; `flows.teachers.vllm_command` says which it gets anyway.

The server belongs to this process alone: `flows.supervise` holds it, and ends it, and
only it, when this process ends in whatever way. Its log is `logs/serve-*.log` in the warehouse's
folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from flows import supervise
from flows.progress import Report, report_to_stderr
from flows.settings import ServeSettings
from flows.settings_base import Problem
from flows.teachers.spaces import space_options
from flows.teachers.trained import served_model
from flows.teachers.vllm_command import checkpoint_folder, environment, flags, has_gpu, program
from mcts.teachers.base import Ledger, Reply, Request, TeacherUnavailable
from mcts.teachers.local.teacher import checkpoint_identity
from warehouse.storage.home import Warehouse

STOP_S = 4.0
"""Seconds a server has to end in good order before it is killed."""
_EVERY_S = 15.0  # between two lines of progress where stderr is no terminal
# Not through a proxy: the server is on this machine.
_http = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def serve(settings: ServeSettings) -> None:
    """`vigorl serve`: start a server, print its URL once it answers, stop it on Ctrl-C.

    Raises:
        Problem: it cannot be started, or did not come up.
        TeacherUnavailable: it ended by itself.
    """
    model = served_model(settings.home, settings.model)
    settings = settings.model_copy(update={"model": model})
    with stopped_by_signals():
        try:
            with Server(settings) as server:
                server.wait()
                # The URL comes last: a script that waits for it may end the server at once.
                report_to_stderr(f"serving {server.name} until Ctrl-C; {server.advice}")
                print(server.url, flush=True)
                server.process.wait()
                server.check()
        except KeyboardInterrupt:
            report_to_stderr("the server is stopped")


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP stop what runs here as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    # A closed terminal ends it too, unless the user began with `nohup`.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Server:
    """A vLLM server of our own, from the moment it is entered until it is left.

    Args:
        through: a command that runs the one which follows it, and waits for it.

    Raises:
        Problem: vLLM, a GPU, the checkpoint or the port is missing; nothing was started then.
    """

    def __init__(
        self,
        settings: ServeSettings,
        report: Report = report_to_stderr,
        *,
        through: Sequence[str] = (),
    ) -> None:
        self.settings, self._report, self._through = settings, report, through
        self._program = program()
        if not settings.cpu and not has_gpu():
            raise Problem(
                "vLLM needs a GPU and this machine shows none: serve on one that has it and name "
                "its URL, or give --cpu (`vllm-cpu:` for a build) if this vLLM is a build for CPUs"
            )
        self._folder = checkpoint_folder(settings.model)
        self._port = settings.port or _free_port()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                raise Problem(f"port {self._port} is taken by another program; choose another")
        # A server for all addresses is reached here by this one.
        host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
        self.url = f"http://{host}:{self._port}"
        self.name = settings.name or settings.model
        """The model's name as served; for a folder with its weights' hash, as `student@1f…`."""
        self.log = Path()
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        if self._folder and not self.settings.name:
            self._report(f"reading {self._folder}: its weights' hash will be in the served name")
            self.name = checkpoint_identity(self._folder)
        home = self.settings.home
        warehouse = Warehouse.at(home)
        folder = warehouse.journal_dir.parent / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / time.strftime(f"serve-%Y%m%d-%H%M%S-{os.getpid()}-{self._port}.log")
        line = [str(self._program), *flags(self.settings, self.name, self._port)]
        env = environment(self.settings, self._program)
        with self.log.open("wb") as log:
            log.write(f"$ {shlex.join(line)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                [*self._through, sys.executable, "-I", supervise.__file__, str(STOP_S), *line],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=env, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self) -> None:
        """Return once the server answers for the model.

        Raises:
            Problem: it ended, or does not answer within `settings.timeout` seconds.
        """
        began = reported = time.monotonic()
        live = sys.stderr.isatty()
        self._report(f"starting vLLM with {self.name}; its log is {self.log}")
        while not self._answers():
            waited = time.monotonic() - began
            if self.process.poll() is not None:
                status = self.process.returncode
                raise Problem(f"vLLM ended while it started (status {status}): {self.end}")
            if waited > self.settings.timeout:
                limit = f"{self.settings.timeout:g} s"
                raise Problem(f"vLLM does not answer after {limit} (--timeout): {self.end}")
            if live:
                line = f"\r{waited:4.0f} s {_tail(self.log, 1)[:70]:<70}"
                print(line, end="", file=sys.stderr, flush=True)
            elif time.monotonic() - reported > _EVERY_S:
                reported = time.monotonic()
                self._report(f"vLLM has been starting for {waited:.0f} s")
            time.sleep(0.2)
        if live:
            print(f"\r{'':<77}\r", end="", file=sys.stderr, flush=True)
        self._report(f"vLLM answers at {self.url} after {time.monotonic() - began:.0f} s")

    def _answers(self) -> bool:
        try:
            _http(f"{self.url}/health", timeout=5).close()
            with _http(f"{self.url}/v1/models", timeout=5) as answer:
                return self.name in [card["id"] for card in json.load(answer)["data"]]
        except urllib.error.HTTPError as error:
            return error.code in (401, 403)  # it is up and wants the key of $VLLM_API_KEY
        except (OSError, ValueError, KeyError, TypeError):
            return False

    @property
    def end(self) -> str:
        """The last lines of the log as one, and where it is."""
        return f"{_tail(self.log, 3) or 'it is empty'} (its log is {self.log})"

    @property
    def advice(self) -> str:
        """How a build asks this server, coordinates included."""
        given = self.settings
        options = space_options(given.model, self._folder, given.min_pixels, given.max_pixels)
        return f"a build asks it with --teacher {self.url} {options}"

    def check(self) -> None:
        """Raise TeacherUnavailable if the server ended by itself."""
        status = self.process.poll()
        if status is not None:
            raise TeacherUnavailable(f"vLLM ended by itself (status {status}): {self.end}")

    def stop(self) -> None:
        """End the server within `STOP_S` seconds, or kill it; nothing else is touched."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(STOP_S + 3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class ServedTeacher:
    """A teacher that starts its own server when it is opened and stops it when it is closed.

    `client(url, name)` makes the teacher that asks the server; see `mcts.teachers.base.Teacher`.
    """

    def __init__(self, settings: ServeSettings, client: Callable[[str, str], Any]) -> None:
        self._server, self._client = Server(settings), client
        self._teacher: Any = None

    @property
    def identity(self) -> str:
        """The served model's, as any client of the server sees it."""
        if self._teacher is None:
            raise RuntimeError("the teacher's identity is known only after open()")
        return str(self._teacher.identity)

    @property
    def ledger(self) -> Ledger:
        """The client's counts."""
        return self._teacher.ledger if self._teacher is not None else Ledger()

    async def open(self) -> None:
        """Start the server, wait until it answers, and reach it; once.

        Raises:
            TeacherUnavailable: it did not come up; the text has its log's last lines.
        """
        if self._teacher is None:
            # Entered here: a build that fails anywhere later closes its teacher.
            self._server.__enter__()
            try:
                await asyncio.to_thread(self._server.wait)
                self._teacher = self._client(self._server.url, self._server.name)
            except BaseException as error:
                self._server.stop()
                if isinstance(error, Problem):
                    raise TeacherUnavailable(str(error)) from None
                raise
        await self._teacher.open()

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request`.

        Raises:
            TeacherUnavailable: the server ended; the text has its log's last lines.
        """
        await self.open()
        try:
            reply: Reply = await self._teacher.complete(request, images)
        except TeacherUnavailable:
            self._server.check()
            raise
        return reply

    async def close(self) -> None:
        """Close the connections and stop the server."""
        teacher, self._teacher = self._teacher, None
        if teacher is not None:
            try:
                await teacher.close()
            finally:
                self._server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path, lines: int) -> str:
    """Return the last `lines` of a log that aren't empty, as one line of at most 600 characters."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2**14))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    written = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    written = [line for line in written if not line.startswith("$ ")]
    return " / ".join(written[-lines:])[-600:]
