"""A training under Prefect: a process of its own, shown in artifacts, and never orphaned.

    sentence = await train_in_process(settings)      # the flow's log shows the training's lines

The command is `vigorl train`, as at a terminal, held by `supervise.py`: when the
flow's process ends in whatever way, a crash of the worker included, the pipe closes and the
training is stopped. It loses nothing but the steps since its last checkpoint: run again, it goes
on.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from uuid import UUID

from prefect.artifacts import (
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.logging import get_run_logger

from flows import supervise
from flows.orchestration import events
from flows.orchestration.artifacts import artifact_key, only_shown
from flows.settings import TrainSettings
from flows.settings_base import Problem
from flows.stages.train import recipe_of
from training.runs import read_metrics, runs_folder
from warehouse.models import find_model, list_models
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.schema import Row
from warehouse.versions.versions import resolve

STOP_S = 10
"""Seconds a training has to end in good order before it is killed."""
_LONGEST_LINE = 10_000
"""Bytes of a line of output that are told; Prefect refuses far longer ones."""
_STEP = re.compile(r"^step (\d+) of (\d+)")
_MODEL = re.compile(r"^model (\S+) ")


async def train_in_process(settings: TrainSettings, min_new_rows: int = 0) -> str:
    """Train, show the figures, announce the model; return a sentence about it.

    Args:
        min_new_rows: do nothing unless the version has so many rows more than the newest one that a
            model was trained on by this recipe.
    """
    recipe_of(settings)  # a bad recipe is reported before anything is started
    warehouse = Warehouse.at(settings.home)
    if reason := await asyncio.to_thread(too_few_rows, warehouse, settings, min_new_rows):
        get_run_logger().info(reason)
        return reason
    row = await train_shown(settings)
    events.emit_trained(row)
    return f"{row['name']}: {json.loads(row['metrics'])['steps']} steps, from {row['base']}"


async def train_shown(settings: TrainSettings) -> Row:
    """Train, and show the figures; return the model's row. Nothing is announced."""
    warehouse = Warehouse.at(settings.home)
    name = await _run(command(settings))
    row = await asyncio.to_thread(find_model, warehouse, name)
    if row is None:
        raise Problem(f"the training made {name}, which is not in the warehouse")
    await _show(warehouse, row)
    return row


def command(settings: TrainSettings) -> list[str]:
    """Return the `vigorl train` that does it."""
    given = settings.model_dump(exclude={"recipe", "override"}, exclude_defaults=True)
    options = [str(part) for key, value in given.items() for part in (f"--{key}", value)]
    options += [part for override in settings.override for part in ("-o", override)]
    vigorl = [sys.executable, "-m", "flows.cli", "train", settings.kind]
    return [*vigorl, settings.recipe, *options]


async def _run(words: list[str]) -> str:
    """Run a training to its end; the name of its model."""
    log = get_run_logger()
    progress: UUID | None = None
    with only_shown("the progress"):
        description = "training: optimizer steps"
        progress = await acreate_progress_artifact(0.0, description=description)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", supervise.__file__, str(STOP_S), *words,
        stdin=asyncio.subprocess.PIPE,  # held, never written to: its end is the training's
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    name, last = "", ""
    try:
        async for line in _lines(process.stdout):
            last = line.rstrip() or last
            log.info(last)
            if (found := _STEP.match(last)) and progress is not None:
                share = 100.0 * int(found[1]) / int(found[2])
                with only_shown("the progress"):
                    await aupdate_progress_artifact(progress, progress=share)
            if made := _MODEL.match(last):
                name = made[1]
        status = await process.wait()
    finally:
        if process.returncode is None and process.stdin is not None:
            process.stdin.close()
            await process.wait()
    if status or not name:
        raise Problem(last.removeprefix("vigorl: ") or f"the training ended with status {status}")
    return name


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Yield a stream's lines, of a very long one its beginning."""
    left = b""
    while data := await stream.read(1 << 16):
        *whole, left = (left + data).split(b"\n")
        for line in whole:
            yield line[:_LONGEST_LINE].decode(errors="replace")
        left = left[:_LONGEST_LINE]
    if left:
        yield left.decode(errors="replace")


async def _show(warehouse: Warehouse, row: Row) -> None:
    """Show each figure's first and last value as a table; trackio has the curves."""
    metrics: Row = json.loads(row["metrics"])
    folder = next(iter(runs_folder(warehouse).glob(f"{row['name']}-*")), None)
    logged = read_metrics(folder / "metrics.jsonl") if folder else []
    rows = [
        {
            "figure": name,
            "first": next((found[name] for found in logged if name in found), None),
            "last": value,
        }
        for name, value in sorted(metrics.items())
    ]
    key = artifact_key("training", row["name"])
    with only_shown("the figures"):
        await acreate_table_artifact(rows, key=key, description=row["model_id"])


def too_few_rows(warehouse: Warehouse, settings: TrainSettings, min_new_rows: int) -> str | None:
    """Return why a training is not worth it yet; None if it is."""
    if not min_new_rows or not settings.dataset:
        return None
    version = resolve(warehouse, settings.dataset)
    before, ours = 0, recipe_of(settings).name
    for row in list_models(warehouse):
        name, _, number = (row["dataset"] or "").partition("@v")
        recipe = json.loads(row["recipe"]).get("name")
        if name == version.name and recipe == ours and int(number) <= version.number:
            try:
                before = resolve(warehouse, row["dataset"]).n_rows
            except WarehouseError:  # deleted by force since: of its rows nothing is known
                continue
    new = version.n_rows - before
    if new >= min_new_rows:
        return None
    return f"{version.ref} has {new} rows more than were trained on; {min_new_rows} are wanted"
