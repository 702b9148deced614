"""A teacher in this process: a checkpoint on disk, run by torch, without a server.

    teacher = LocalTeacher("checkpoints/qwen3-vl-4b")
    await teacher.open()                              # loads the model, or TeacherUnavailable
    reply = await teacher.complete(request, images)
    await teacher.close()

One thread runs the model, so the event loop never waits for it. Requests queue; their samples
join the running batch as others leave it, up to `batch` at once; the n samples of a request share
one prefill, and prompts share common prefixes. A sample's text depends on its own seed, not on its
neighbours in the batch (up to rounding in the last digit of a logit, as in all batching).
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mcts.teachers.base import Ledger, Reply, Request, TeacherError, UnusableModel
from mcts.teachers.checkpoints import shapes_identity
from mcts.teachers.identities import alone

if TYPE_CHECKING:  # it loads torch, which only an open teacher needs
    from mcts.teachers.local.worker import Worker


_LOADING = threading.Lock()
"""One model loads at a time: the libraries that do it cannot be imported by two threads at once."""


def checkpoint_identity(folder: Path | str) -> str:
    """Return `name@hash`, over the weights and every file that affects the model's input or output.

    Raises:
        UnusableModel: `folder` holds no checkpoint.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UnusableModel(f"there is no model folder {folder}: name one, or a server's URL")
    files = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".json", ".jinja"})
    if not any(p.suffix == ".safetensors" for p in files):
        raise UnusableModel(f"{folder} holds no model: a .safetensors file is missing")
    digest = hashlib.blake2b(digest_size=8)
    for path in filter(shapes_identity, [*files, *sorted(folder.glob("*.txt"))]):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while data := file.read(2**20):
                digest.update(data)
    return alone(f"{folder.resolve().name}@{digest.hexdigest()}")


class LocalTeacher:
    """A Qwen-VL checkpoint in this process; see `mcts.teachers.base.Teacher`.

    `batch` samples run at once; `threads` is torch's (by default one for a small model, otherwise
    every core, up to 8); features of images are kept up to `image_cache_bytes`, prompts up to
    `prefix_cache_bytes`.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        batch: int = 32,
        device: str = "cpu",
        threads: int | None = None,
        image_cache_bytes: int = 2**28,
        prefix_cache_bytes: int = 2**28,
    ) -> None:
        self.folder = Path(folder)
        self.ledger = Ledger()
        self._batch, self._device = batch, device
        self._threads = threads
        self._image_bytes, self._prefix_bytes = image_cache_bytes, prefix_cache_bytes
        self._identity: str | None = None
        self._worker: Worker | None = None

    @property
    def identity(self) -> str:
        """The folder's name and a hash of its files; needs no torch."""
        if self._identity is None:
            self._identity = checkpoint_identity(self.folder)
        return self._identity

    @property
    def occupancy(self) -> float:
        """Mean share of the batch in use while the model decoded; 0 before it has."""
        return self._worker.occupancy if self._worker else 0.0

    @property
    def images_encoded(self) -> int:
        """Images that the vision tower has run; each once, while there is room to keep it."""
        return self._worker.images_encoded if self._worker else 0

    async def open(self) -> None:
        """Load the checkpoint, off the event loop.

        Raises:
            TeacherUnavailable: the folder holds no model that can run here.
        """
        if self._worker is None:
            await asyncio.to_thread(self._load)

    def _load(self) -> None:
        with _LOADING:
            if self._worker is None:
                _ = self.identity  # fails early, with the clearest message
                from mcts.teachers.local.checkpoint import Checkpoint
                from mcts.teachers.local.decoder import Decoder
                from mcts.teachers.local.worker import Worker, default_threads

                checkpoint = Checkpoint.load(self.folder, self._device, self._image_bytes)
                decoder = Decoder(checkpoint.model, self._batch, self._prefix_bytes)
                threads = self._threads or default_threads(checkpoint)
                self._worker = Worker(checkpoint, decoder, threads)

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request`; see `mcts.teachers.base.Teacher.complete`."""
        await self.open()
        assert self._worker is not None
        from mcts.teachers.local.worker import Job

        started = time.perf_counter()
        job = Job(request, images)
        self.ledger.requests += 1
        self.ledger.in_flight += 1
        try:
            self._worker.submit(job)
            reply = await asyncio.wrap_future(job.answer)
            if not any(completion.text for completion in reply.completions):
                raise TeacherError("empty", "every completion is empty")
        except TeacherError:
            self.ledger.failures += 1
            raise
        finally:
            self.ledger.in_flight -= 1
        reply = replace(reply, seconds=time.perf_counter() - started)
        self.ledger.add(reply)
        return reply

    async def close(self) -> None:
        """Stop the thread and free the model; waiting requests fail as unavailable."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await asyncio.to_thread(worker.stop)
