"""The thread that runs a model: requests queue, join the batch and leave it.

worker = Worker(checkpoint, decoder, threads=1)
worker.submit(job)                  # from any thread; `job.answer` is a future
worker.stop()                       # waiting jobs fail as unavailable
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from mcts.teachers.base import (
    Completion,
    Reply,
    Request,
    TeacherError,
    TeacherUnavailable,
    mean_logprob,
)
from mcts.teachers.local.checkpoint import Checkpoint
from mcts.teachers.local.decoder import BatchRow, Decoder
from mcts.teachers.local.prefix_cache import Prefix
from mcts.teachers.local.small_model import MAX_PARAMETERS

MAX_THREADS = 8


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way through the worker."""

    request: Request
    images: Mapping[str, bytes]
    answer: Future[Reply] = field(default_factory=Future)
    """The reply, its time left out."""
    prefix: Prefix | None = None
    cached: int = 0
    """Prompt tokens that came from the prefix cache."""
    started: int = 0
    """Samples that have joined the batch."""
    done: dict[int, Completion] = field(default_factory=dict)

    def fail(self, error: BaseException) -> None:
        """End the job with `error`, unless it was cancelled."""
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(error)


def default_threads(checkpoint: Checkpoint) -> int:
    """Return the number of torch threads with which a model runs fastest."""
    # A small model's operations are so short that threads mostly wait for each other
    # (3 million parameters on two cores: a sixth of the speed).
    if sum(weights.numel() for weights in checkpoint.model.parameters()) < MAX_PARAMETERS:
        return 1
    return min(len(os.sched_getaffinity(0)), MAX_THREADS)


class Worker:
    """Runs the model in its own thread, batching the samples of all jobs."""

    def __init__(self, checkpoint: Checkpoint, decoder: Decoder, threads: int) -> None:
        self._checkpoint, self._decoder, self._threads = checkpoint, decoder, threads
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._live: set[Job] = set()
        self._thread = threading.Thread(target=self._run, name="local-teacher", daemon=True)
        self._thread.start()

    @property
    def occupancy(self) -> float:
        """Mean share of the batch in use while the model decoded."""
        return self._decoder.row_steps / max(1, self._decoder.steps * self._decoder.capacity)

    @property
    def images_encoded(self) -> int:
        """Images that the vision tower has run."""
        return self._checkpoint.images_encoded

    def submit(self, job: Job) -> None:
        """Queue a job; may be called from any thread."""
        self._inbox.put(job)

    def stop(self) -> None:
        """End the thread; waiting jobs fail as unavailable."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                while self._collect():
                    try:
                        self._admit()
                        if self._decoder.rows:
                            self._finish(self._decoder.step())
                    except Exception as error:  # a bug, or out of memory: the jobs fail
                        self._fail_all(error)
        finally:
            while not self._inbox.empty():
                if (job := self._inbox.get()) is not None:
                    self._live.add(job)
            self._fail_all(TeacherUnavailable("the local teacher was closed"))

    def _collect(self) -> bool:
        """Receive new jobs, waiting only when idle; return False after `stop`."""
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
        """Move waiting samples into the batch, once enough rows are free."""
        cancelled = [row for row in self._decoder.rows if row.owner.answer.cancelled()]
        self._decoder.drop(cancelled)
        self._live = {job for job in self._live if not job.answer.done()}
        self._waiting = deque(job for job in self._waiting if job in self._live)
        free = self._decoder.capacity - len(self._decoder.rows)
        needed = sum(job.request.n - job.started for job in self._waiting)
        # A prefill delays the whole batch, so samples are admitted in groups.
        if not needed or free < min(needed, max(1, self._decoder.capacity // 4)):
            return
        admitted: list[tuple[Job, int]] = []
        while free and self._waiting:
            job = self._waiting[0]
            count = min(free, job.request.n - job.started)
            admitted.append((job, count))
            free -= count
            if job.started + count == job.request.n:
                self._waiting.popleft()
            else:
                break
        self._prefill([job for job, _ in admitted if job.prefix is None])
        rows: list[tuple[BatchRow, Prefix]] = []
        for job, count in admitted:
            if job.prefix is not None:
                rows += [(_row(job, job.started + i), job.prefix) for i in range(count)]
                job.started += count
        if rows:
            self._finish(self._decoder.join(rows))

    def _prefill(self, jobs: list[Job]) -> None:
        ready, prompts = [], []
        for job in jobs:
            try:
                prompts.append(self._checkpoint.prompt(job.request, job.images))
                ready.append(job)
            except TeacherError as error:
                job.fail(error)
            except ValueError as error:  # an image that the processor refuses
                job.fail(TeacherError("bad_request", str(error)))
        for job, (prefix, cached) in zip(ready, self._decoder.prefill(prompts), strict=True):
            job.prefix, job.cached = prefix, cached

    def _finish(self, rows: list[BatchRow]) -> None:
        """Complete the rows that their newest token ended, and the jobs with no row left."""
        finished = []
        for row in rows:
            job: Job = row.owner
            text, ended = self._checkpoint.read(row.tokens, job.request.stop)
            full = row.length + 1 >= self._checkpoint.context
            if not ended and (full or len(row.tokens) >= job.request.max_tokens):
                text = self._checkpoint.decode(row.tokens)
            elif not ended:
                continue
            reason = "stop" if ended else "length"
            logprob = mean_logprob(row.logprobs or ())
            job.done[row.index] = Completion(text, reason, len(row.tokens), mean_logprob=logprob)
            finished.append(row)
        self._decoder.drop(finished)
        for job in {row.owner for row in finished}:
            n, prefix = job.request.n, job.prefix
            assert prefix is not None  # a job with rows has a prefix
            if len(job.done) == n and job.answer.set_running_or_notify_cancel():
                completions = tuple(job.done[i] for i in range(n))
                tokens = sum(completion.tokens for completion in completions)
                images = sum(name < 0 for name in prefix.names)
                job.answer.set_result(
                    Reply(completions, len(prefix.names), job.cached, tokens, 0.0, images)
                )

    def _fail_all(self, error: Exception) -> None:
        self._decoder.rows.clear()
        self._waiting.clear()
        for job in self._live:
            if not job.answer.done():
                job.fail(error)
        self._live.clear()


def _row(job: Job, index: int) -> BatchRow:
    request = job.request
    return BatchRow(
        job, index, request.sample_seed(index), request.temperature, request.top_p,
        logprobs=[] if request.logprobs else None,
    )  # fmt: skip
