"""Asks a checkpoint every held-out question several times, in two processes, and keeps the answers.

    kept = ask(Asking(folder, parquet, limit=240), progress)
    kept[question_id, False]        # the sampled texts with the picture; True: with a grey one

Answers go line by line into JSONL files under `runs/nano/eval/<hash of the checkpoint>/`, and what
is there is not asked again: an evaluation that was interrupted goes on, whatever line it tore. A
sample's seed follows from its question and its number, so the same text comes every time (but for
a token in a great many that sits on the edge of two, since a batch rounds by its width).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import queue
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcts.data import content_id
from mcts.prompts import load_prompt
from mcts.teachers.base import Request, TeacherError, seed_of
from mcts.teachers.local.teacher import LocalTeacher, checkpoint_identity
from vigorl_nano.evaluation.items import STEPS, Item, blank, load_items, messages, pick

TEMPERATURE = 1.0
MAX_TOKENS = 256
RUNS = Path("runs/nano/eval")
WORKERS = 2
BATCH = 48
WAITING = 12  # requests at once: as many samples wait as run, so that the batch stays full

Key = tuple[str, bool]
"""A question's id, and whether its picture was blank."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What to ask of whom."""

    folder: Path
    """The checkpoint."""
    parquet: Path
    limit: int = 0
    """Questions, spread evenly over the families; 0 for all."""
    samples: int = 8
    runs: Path = RUNS
    """Where answers are kept."""

    def items(self) -> list[Item]:
        return pick(load_items(self.parquet), self.limit)

    @property
    def kept_in(self) -> Path:
        return self.runs / checkpoint_identity(self.folder).rpartition("@")[2]

    @property
    def settings(self) -> str:
        """Names what besides checkpoint and question decides a text."""
        return content_id(TEMPERATURE, MAX_TOKENS, STEPS, load_prompt("nano").digest)[:8]


@dataclass(frozen=True, slots=True)
class Done:
    """How far the asking has come; what `progress` is told."""

    requests: int
    of: int
    tokens: int
    """Generated since it began."""
    seconds: float

    @property
    def remaining(self) -> float | None:
        """Seconds to go; None before anything is known."""
        return self.seconds * (self.of - self.requests) / self.requests if self.requests else None


def ask(wanted: Asking, progress: Callable[[Done], None] | None = None) -> dict[Key, list[str]]:
    """Every question's texts, with and without its picture; `samples` of each.

    Raises:
        TeacherUnavailable: there is no checkpoint in the folder.
        RuntimeError: a worker process died; what it had answered is kept.
    """
    needed = [(i.question.question_id, grey) for grey in (False, True) for i in wanted.items()]
    kept = read(wanted)
    missing = sum(len(kept.get(key, ())) < wanted.samples for key in needed)
    if missing:
        _run(wanted, missing, progress or (lambda done: None))
        kept = read(wanted)
    return {key: kept[key][: wanted.samples] for key in needed}


def read(wanted: Asking) -> dict[Key, list[str]]:
    """What has been answered so far; of several records the one with most samples counts."""
    kept: dict[Key, list[str]] = {}
    for path in sorted(wanted.kept_in.glob(f"{wanted.settings}-*.jsonl")):
        for row in _rows(path):
            key = (row["question"], row["blank"])
            if len(row["texts"]) > len(kept.get(key, ())):
                kept[key] = row["texts"]
    return kept


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().split(b"\n"):
        try:
            yield json.loads(line)
        except ValueError:
            continue  # torn when the process died, or the empty end


def _run(wanted: Asking, missing: int, progress: Callable[[Done], None]) -> None:
    spawn = multiprocessing.get_context("spawn")
    told: Any = spawn.Queue()
    workers = [
        spawn.Process(target=work, args=(wanted, part, told), daemon=True)
        for part in range(WORKERS)
    ]
    start, requests, tokens = time.monotonic(), 0, 0
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers) or not told.empty():
            if any(worker.exitcode for worker in workers):
                raise RuntimeError("a worker process died; start again to go on from here")
            try:
                tokens += told.get(timeout=0.5)
            except queue.Empty:
                continue
            requests += 1
            progress(Done(requests, missing, tokens, time.monotonic() - start))
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def work(wanted: Asking, part: int, told: Any = None) -> None:
    """Answer every `WORKERS`-th question that is not answered yet (a worker process's whole life).

    `told`, a queue, gets the number of tokens of each request as it is done.
    """
    kept = read(wanted)
    mine = wanted.items()[part::WORKERS]
    open_ = [
        (item, grey)
        for grey in (False, True)
        for item in mine
        if len(kept.get((item.question.question_id, grey), ())) < wanted.samples
    ]
    if open_:
        asyncio.run(_answer(wanted, part, open_, told))


async def _answer(wanted: Asking, part: int, open_: list[tuple[Item, bool]], told: Any) -> None:
    teacher = LocalTeacher(wanted.folder, batch=BATCH, threads=1)
    await teacher.open()
    slots = asyncio.Semaphore(WAITING)
    wanted.kept_in.mkdir(parents=True, exist_ok=True)
    path = wanted.kept_in / f"{wanted.settings}-{part}.jsonl"
    with path.open("ab") as file:
        file.write(b"\n")  # ends a line that was torn

        async def one(item: Item, grey: bool) -> None:
            name = item.question.question_id
            shown = blank(item) if grey else item
            request = Request(
                messages(shown), wanted.samples, TEMPERATURE, 1.0, MAX_TOKENS, ("</answer>",),
                seed=seed_of(name),
            )  # fmt: skip
            async with slots:
                try:
                    reply = await teacher.complete(request, shown.images)
                except TeacherError as error:
                    # An answer that could not be had is a wrong one, not a missing row.
                    print(f"question {name}: {error}", file=sys.stderr)
                    texts, tokens = [""] * wanted.samples, 0
                else:
                    texts = [completion.text for completion in reply.completions]
                    tokens = reply.completion_tokens
            row = {"question": name, "blank": grey, "texts": texts}
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            if told is not None:
                told.put(tokens)
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():
                raise SystemExit("the evaluation was killed")  # nobody waits for the rest

        async with asyncio.TaskGroup() as group:
            for item, grey in open_:
                group.create_task(one(item, grey))
    await teacher.close()
