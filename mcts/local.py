"""The teacher in this process: a checkpoint on disk, run by torch, no server needed.

    teacher = LocalTeacher("training/nano/weights")
    await teacher.open()                              # loads; TeacherUnavailable says what is wrong
    reply = await teacher.complete(request, images)
    await teacher.close()

One thread runs the model, so the event loop never waits for it. Requests queue; their samples
join the running batch as others leave it, up to `batch` at once; the n samples of a request share
one prefill, and prompts share what they begin with. A sample's text depends on its own seed, not
on who runs beside it (up to rounding in the last digit of a logit, which all batching has).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mcts.teacher import Completion, Ledger, Reply, Request, TeacherError, TeacherUnavailable

if TYPE_CHECKING:
    from mcts.local_decode import Decoder, Row
    from mcts.local_prefixes import Prefix
    from mcts.local_prompts import Checkpoint

MAX_THREADS = 8
SMALL_PARAMETERS = 50_000_000
"""A smaller model runs on one thread by default: its operations are so short that threads would
mostly wait for each other (3 million parameters on two cores: a sixth of the speed)."""


def checkpoint_identity(folder: Path | str) -> str:
    """`name@hash` over the weights and every file that shapes what the model sees or says.

    Raises:
        TeacherUnavailable: there is no checkpoint in `folder`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TeacherUnavailable(f"there is no model folder {folder}: give one, or a server's URL")
    files = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".json", ".jinja"})
    if not any(p.suffix == ".safetensors" for p in files):
        raise TeacherUnavailable(f"{folder} holds no model: a .safetensors file is missing")
    digest = hashlib.blake2b(digest_size=8)
    for path in [*files, *sorted(folder.glob("*.txt"))]:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while data := file.read(2**20):
                digest.update(data)
    return f"{folder.resolve().name}@{digest.hexdigest()}"


@dataclass(slots=True, eq=False)
class _Job:
    """A request on its way through the worker."""

    request: Request
    images: Mapping[str, bytes]
    answer: Future[tuple[tuple[Completion, ...], int, int]] = field(default_factory=Future)
    """Completions, prompt tokens and how many of those were known."""
    prefix: Prefix | None = None
    cached: int = 0
    started: int = 0
    """Samples that have joined the batch."""
    done: dict[int, Completion] = field(default_factory=dict)

    def fail(self, error: BaseException) -> None:
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(error)


class LocalTeacher:
    """A Qwen-VL checkpoint in this process; see `mcts.teacher.Teacher`.

    `batch` samples run at once; `threads` is torch's (by default one for a small model, else every
    core, up to 8); `image_cache` pictures and `prefix_cache_bytes` of prompts are kept.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        batch: int = 32,
        device: str = "cpu",
        threads: int | None = None,
        image_cache: int = 256,
        prefix_cache_bytes: int = 2**28,
    ) -> None:
        self.folder = Path(folder)
        self.ledger = Ledger()
        self._batch, self._device = batch, device
        self._threads = threads
        self._image_cache, self._prefix_bytes = image_cache, prefix_cache_bytes
        self._identity: str | None = None
        self._worker: _Worker | None = None
        self._opening = threading.Lock()

    @property
    def identity(self) -> str:
        """The folder's name and a hash of its files; needs no torch."""
        if self._identity is None:
            self._identity = checkpoint_identity(self.folder)
        return self._identity

    async def open(self) -> None:
        """Load the checkpoint, off the event loop.

        Raises:
            TeacherUnavailable: the folder holds no model that runs here.
        """
        if self._worker is None:
            await asyncio.to_thread(self._load)

    def _load(self) -> None:
        with self._opening:
            if self._worker is None:
                _ = self.identity  # fails early, with the plainest message
                from mcts.local_decode import Decoder
                from mcts.local_prompts import Checkpoint

                checkpoint = Checkpoint.load(self.folder, self._device, self._image_cache)
                decoder = Decoder(checkpoint.model, self._batch, self._prefix_bytes)
                self._worker = _Worker(checkpoint, decoder, self._threads or _threads(checkpoint))

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request`; see `mcts.teacher.Teacher.complete`."""
        await self.open()
        assert self._worker is not None
        started = time.perf_counter()
        job = _Job(request, images)
        self.ledger.requests += 1
        self.ledger.in_flight += 1
        try:
            self._worker.submit(job)
            completions, prompt_tokens, cached = await asyncio.wrap_future(job.answer)
            if not any(completion.text for completion in completions):
                raise TeacherError("empty", "every completion is empty")
        except TeacherError:
            self.ledger.failures += 1
            raise
        finally:
            self.ledger.in_flight -= 1
        tokens = sum(completion.tokens for completion in completions)
        seconds = time.perf_counter() - started
        reply = Reply(completions, prompt_tokens, cached, tokens, seconds)
        self.ledger.add(reply)
        return reply

    async def close(self) -> None:
        """Stop the thread and free the model; what is still waiting fails as unavailable."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await asyncio.to_thread(worker.stop)


def _threads(checkpoint: Checkpoint) -> int:
    parameters = sum(weights.numel() for weights in checkpoint.model.parameters())
    if parameters < SMALL_PARAMETERS:
        return 1
    return min(len(os.sched_getaffinity(0)), MAX_THREADS)


class _Worker:
    """The thread that runs the model."""

    def __init__(self, checkpoint: Checkpoint, decoder: Decoder, threads: int) -> None:
        self._checkpoint, self._decoder, self._threads = checkpoint, decoder, threads
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._live: set[_Job] = set()
        self._thread = threading.Thread(target=self._run, name="local-teacher", daemon=True)
        self._thread.start()

    def submit(self, job: _Job) -> None:
        self._inbox.put(job)

    def stop(self) -> None:
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        import torch

        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                while self._collect():
                    try:
                        self._admit()
                        if self._decoder.rows:
                            self._settle(self._decoder.step())
                    except Exception as error:  # a bug, or no memory: whoever waits is told
                        self._fail_all(error)
        finally:
            while not self._inbox.empty():
                if (job := self._inbox.get()) is not None:
                    self._live.add(job)
            self._fail_all(TeacherUnavailable("the local teacher was closed"))

    def _collect(self) -> bool:
        """Take what has arrived; wait only when there is nothing else to do. False at the end."""
        while True:
            idle = not self._decoder.rows and not self._waiting
            try:
                job = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if job is None:
                return False
            self._waiting.append(job)
            self._live.add(job)

    def _admit(self) -> None:
        """Let waiting samples into the batch, once enough rows are free to make it worth while."""
        gone = [row for row in self._decoder.rows if row.owner.answer.cancelled()]
        self._decoder.drop(gone)
        self._live = {job for job in self._live if not job.answer.done()}
        self._waiting = deque(job for job in self._waiting if job in self._live)
        free = self._decoder.capacity - len(self._decoder.rows)
        wanted = sum(job.request.n - job.started for job in self._waiting)
        # A prefill holds up everybody in the batch, so newcomers come in groups.
        if not wanted or free < min(wanted, max(1, self._decoder.capacity // 4)):
            return
        coming: list[tuple[_Job, int]] = []
        while free and self._waiting:
            job = self._waiting[0]
            count = min(free, job.request.n - job.started)
            coming.append((job, count))
            free -= count
            if job.started + count == job.request.n:
                self._waiting.popleft()
            else:
                break
        self._prefill([job for job, _ in coming if job.prefix is None])
        rows: list[tuple[Row, Prefix]] = []
        for job, count in coming:
            if job.prefix is not None:
                rows += [(_row(job, job.started + i), job.prefix) for i in range(count)]
                job.started += count
        if rows:
            self._settle(self._decoder.join(rows))

    def _prefill(self, jobs: list[_Job]) -> None:
        ready, prompts = [], []
        for job in jobs:
            try:
                prompts.append(self._checkpoint.prompt(job.request, job.images))
                ready.append(job)
            except TeacherError as error:
                job.fail(error)
        for job, (prefix, cached) in zip(ready, self._decoder.prefill(prompts), strict=True):
            job.prefix, job.cached = prefix, cached

    def _settle(self, rows: list[Row]) -> None:
        """Finish the rows whose newest token ended them."""
        finished = []
        for row in rows:
            job: _Job = row.owner
            text, ended = self._checkpoint.read(row.tokens, job.request.stop)
            full = row.length + 1 >= self._checkpoint.context
            if not ended and (full or len(row.tokens) >= job.request.max_tokens):
                text = self._checkpoint.text(row.tokens)
            elif not ended:
                continue
            reason = "stop" if ended else "length"
            job.done[row.index] = Completion(text, reason, len(row.tokens))
            finished.append(row)
        self._decoder.drop(finished)
        for job in {row.owner for row in finished}:
            n, prefix = job.request.n, job.prefix
            assert prefix is not None  # or it would have had no rows
            if len(job.done) == n and job.answer.set_running_or_notify_cancel():
                completions = tuple(job.done[i] for i in range(n))
                job.answer.set_result((completions, len(prefix.names), job.cached))

    def _fail_all(self, error: Exception) -> None:
        self._decoder.rows.clear()
        self._waiting.clear()
        for job in self._live:
            if not job.answer.done():
                job.fail(error)
        self._live.clear()


def _row(job: _Job, index: int) -> Row:
    from mcts.local_decode import Row

    request = job.request
    return Row(job, index, request.sample_seed(index), request.temperature, request.top_p)
