"""A training run's folder: its plan, its progress, and the model it ends in.

    with open_run(warehouse, plan) as run:          # the same plan again is the same run, continued
        run.finished                                # its model's row, if it has been trained before
        run.checkpoint()                            # the newest complete checkpoint, or None
        run.log({"step": 3, "loss": 1.2})           # a line of metrics.jsonl
        run.store_model(model, student, metrics)    # weights and card into the warehouse

Several processes may train a run together: torchrun, Slurm or Ray starts the same command in each
and says who is who in RANK and WORLD_SIZE. The first holds the run's lock, and writes checkpoints,
metrics and rows; all of them read its folder.

Folders are `<warehouse>/training/<name>-<key>`, where the key hashes everything that decides the
outcome: recipe, data, parent model. Checkpoints are written by the trainer; one counts only once it
holds `whole.json`, which lists its files and their sizes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcts.data import content_id
from mcts.teachers.checkpoints import record_process_reward, write_prompt_style
from mcts.zoom.recorded import record_zoom
from training.errors import TrainingError
from training.model_card import model_card
from training.recipes import key_settings
from training.students import Student
from warehouse.models import ModelInfo, find_model, store_model
from warehouse.storage.home import Warehouse, code_revision
from warehouse.storage.objects import sync
from warehouse.tables.delta import record_run
from warehouse.tables.schema import Row

COMPLETE = "whole.json"
"""The file that a complete checkpoint holds; runs on disk have it under this name."""
_PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the outcome of a run."""

    kind: str
    """sft, dpo, prm or grpo."""
    recipe: Row
    dataset: str | None
    """The dataset version, as name@vN."""
    data: str
    """Content hash of the training data."""
    parent: str
    """Identity of the model that it starts from."""
    task: str | None = None
    name: str | None = None
    """The model's name; by default the recipe's and the key."""
    question_ids: tuple[str, ...] = ()
    """The questions of the task; the data's hash covers them too."""

    @property
    def key(self) -> str:
        """Eight hex digits that hash all of it but the names."""
        return content_id(self.kind, key_settings(self.recipe), self.data, self.parent)[:8]

    @property
    def model_name(self) -> str:
        return self.name or f"{self.recipe['name']}-{self.key}"


class Run:
    """An opened training run; see `open_run`."""

    def __init__(
        self,
        warehouse: Warehouse,
        plan: Plan,
        folder: Path,
        finished: Row | None,
        recorded: Row | None = None,
    ):
        self.warehouse, self.plan, self.folder = warehouse, plan, folder
        self.finished, self._recorded = finished, recorded
        self.run_id = f"train-{plan.kind}-{plan.key}"

    def begin(self) -> None:
        """Record the run: data and model have been checked, and training begins or goes on."""
        if not is_main():
            return
        plan = _plain(self.plan)
        _write(self.folder / _PLAN, {**plan, "revision": code_revision()})
        record_run(
            self.warehouse, self.run_id, f"train-{self.plan.kind}", task=self.plan.task,
            params={**plan, **(self._recorded or {})},
        )  # fmt: skip

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def gathered(self) -> Path:
        """Where the weights are collected when each of several processes has but a part."""
        return self.folder / "gathered"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.jsonl"

    def checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint; remove what a kill left half written."""
        found = None
        for path in sorted(self.checkpoints.glob("checkpoint-*"), key=_step):
            if is_complete(path):
                found = path
            elif is_main():
                shutil.rmtree(path)
        return found

    def agreed_checkpoint(self, accelerator: Any) -> Path | None:
        """Return the checkpoint that all processes go on from, the first one's; None for none.

        Raises:
            TrainingError: not all of them see the run's folder, or they train different things.
        """
        found = self.checkpoint()
        if accelerator.num_processes == 1:
            return found
        from accelerate.utils import broadcast_object_list, gather_object

        mine = self.folder.name, found.name if found else None
        folder, name = broadcast_object_list([*mine])
        same = self.folder.name == folder and (self.folder / _PLAN).is_file()
        if not all(gather_object([same and (not name or is_complete(self.checkpoints / name))])):
            raise TrainingError(
                f"not every process of this training sees {self.folder}, where checkpoints are: "
                "share that folder between the nodes, and type the same command on each"
            )
        return self.checkpoints / name if name else None

    def log(self, row: Row) -> None:
        """Append a line to metrics.jsonl."""
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")

    def rewind(self, step: int) -> None:
        """Delete what was logged after `step`: those steps will be repeated."""
        if not is_main():
            return
        kept = [row for row in read_metrics(self.metrics_file) if row.get("step", 0) <= step]
        text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in kept)
        part = self.metrics_file.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, self.metrics_file)

    def store_model(self, model: Any, student: Student, metrics: Row) -> Row:
        """Write the trained model, put it into the warehouse and return its row.

        Of several processes only the first does; the others get an empty row.
        """
        if not is_main():
            return {}
        folder = self.folder / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file in student.folder.iterdir():
            # Its tokenizer and processor as they came: saving them again might word them otherwise.
            if file.suffix in (".json", ".jinja", ".txt") and "safetensors" not in file.name:
                shutil.copyfile(file, folder / file.name)
        if self.gathered.is_dir():
            for file in self.gathered.iterdir():
                if "safetensors" in file.name or file.name == "config.json":
                    shutil.copyfile(file, folder / file.name)
        else:
            model.save_pretrained(folder)
        limit_pixels(folder, student.space.max_pixels)
        write_prompt_style(folder, student.prompt_style)
        if student.zoom is not None:
            record_zoom(folder, student.zoom)
        if self.plan.kind == "prm":
            record_process_reward(folder, self.plan.recipe["min_thoughts"])
        made = ModelInfo(
            self.plan.model_name, self.plan.parent, self.plan.dataset,
            {"kind": self.plan.kind, "data": self.plan.data, **self.plan.recipe},
            student.space, metrics, self.run_id, self.plan.question_ids,
        )  # fmt: skip
        (folder / "README.md").write_text(model_card(made), encoding="utf-8")
        row = store_model(self.warehouse, folder, made)
        _write(self.folder / "finished.json", {"model_id": row["model_id"]})
        for scratch in (self.checkpoints, self.gathered):
            shutil.rmtree(scratch, ignore_errors=True)
        self.finished = row
        return row


@contextmanager
def open_run(warehouse: Warehouse, plan: Plan, recorded: Row | None = None) -> Iterator[Run]:
    """Open the run of a plan and lock it against other processes.

    What ends before `Run.begin` leaves nothing behind.

    Args:
        recorded: what `runs.params` keeps beside the plan.

    Raises:
        TrainingError: another process is training it, or another model has its name.
    """
    there = find_model(warehouse, plan.model_name)
    if there is not None and there["name"] != plan.model_name:
        there = None  # its id only begins so
    if there is not None and there["run_id"] != f"train-{plan.kind}-{plan.key}":
        raise TrainingError(
            f"there is another model called {plan.model_name}: choose another --name"
        )
    folder = runs_folder(warehouse) / f"{plan.model_name}-{plan.key}"
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(warehouse, plan, folder, there, recorded)
    if not is_main():  # the first process of this training holds the lock
        yield run
        return
    # One of the name, so that no two trainings end under it; one of the folder, which says so.
    with (
        _locked(runs_folder(warehouse) / f".{plan.model_name}.lock", plan),
        _locked(folder / "lock", plan),
    ):
        try:
            yield run
        finally:
            if not (folder / _PLAN).exists() and there is None:  # nothing began
                shutil.rmtree(folder)


@contextmanager
def _locked(file: Path, plan: Plan) -> Iterator[None]:
    """Lock a file against other processes.

    Raises:
        TrainingError: another has locked it.
    """
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrainingError(f"{plan.model_name} is being trained by another process") from None
        yield


def process_count() -> int:
    """Return how many processes train together, as their launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Return whether this is the only process of a training, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def runs_folder(warehouse: Warehouse) -> Path:
    """Return the local folder of all runs: checkpoints are rewritten too often for S3."""
    return warehouse.journal_dir.parent / "training"


def mark_complete(checkpoint: Path) -> None:
    """Record that a checkpoint has been written completely."""
    files = sorted(p for p in checkpoint.iterdir() if p.is_file() and p.name != COMPLETE)
    for file in files:
        sync(file)
    _write(checkpoint / COMPLETE, {file.name: file.stat().st_size for file in files})
    sync(checkpoint)


def is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint has all files that it was marked complete with."""
    try:
        sizes = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def read_metrics(path: Path) -> list[Row]:
    """Read the lines of a metrics.jsonl; one torn by a kill is skipped."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def limit_pixels(folder: Path, most: int | None) -> None:
    """Write the most pixels it was trained with into a model's image settings."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if most is None or not path.is_file():
            continue
        settings = json.loads(path.read_text(encoding="utf-8"))
        images = settings.get("image_processor", {}) if name.startswith("proc") else settings
        # Newer settings have `size` alone; its longest edge is a number of pixels there, too.
        for place, field in ((images, "max_pixels"), (images.get("size") or {}, "longest_edge")):
            if place.get(field, most) != most:
                place[field] = most
                _write(path, settings)


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _plain(plan: Plan) -> Row:
    names = ("kind", "recipe", "dataset", "data", "parent", "task", "name")
    return {name: getattr(plan, name) for name in names}


def _write(path: Path, value: Row) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)
