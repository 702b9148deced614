"""Stores trained models: a folder below `models/`, and a row that records how it was trained.

    row = store_model(warehouse, folder, ModelInfo(name="sat2-sft-1a2b", dataset="sat2-sft@v1", …))
    row = find_model(warehouse, "sat2-sft-1a2b")         # by name, id, the beginning of an id, or
                                                         # an alias such as champion:sat2
    with open_model(warehouse, row) as folder: …         # a local folder, read-only

A model's id is its name with a hash of its weights and of every file that affects its output, the
identity that a search or an evaluation with it records; so what it makes is linked to it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mcts.coordinates import CoordinateSpace
from mcts.names import check_name
from mcts.teachers.local.teacher import checkpoint_identity
from warehouse.query.run_query import connect_trusted
from warehouse.registry import resolve_alias
from warehouse.storage.home import Warehouse, WarehouseError, code_revision
from warehouse.storage.objects import sync
from warehouse.tables.delta import insert_new
from warehouse.tables.schema import Row


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """How a model was trained, as its row records it."""

    name: str
    base: str | None
    """Identity of the model it was trained from."""
    dataset: str | None
    """The dataset version it was trained on; None if it was trained on questions of a task."""
    recipe: Row
    space: CoordinateSpace
    metrics: Row
    run_id: str
    question_ids: tuple[str, ...] = ()
    """The questions it was trained on where these are of no dataset version."""


def store_model(warehouse: Warehouse, folder: Path, info: ModelInfo) -> Row:
    """Move a finished model's folder into the warehouse and record it; repeating changes nothing.

    Raises:
        WarehouseError: another model has this name, or it is no name.
    """
    try:
        path = f"models/{check_name('model', info.name)}"
    except ValueError as error:
        raise WarehouseError(str(error)) from None
    other = find_model(warehouse, info.name)
    if other is not None and other["run_id"] != info.run_id:
        raise WarehouseError(
            f"there is another model called {info.name} ({other['model_id']}): give this one a name"
        )
    if warehouse.is_s3:
        weights = _weights(folder)
        # Apart from what a run stored that was killed before it recorded other weights.
        path = f"{path}/{weights}"
        for file in sorted(p for p in folder.iterdir() if p.is_file()):
            warehouse.objects.put_file(f"{path}/{file.name}", file)
    else:
        _move(folder, Path(warehouse.root) / path)
        weights = _weights(Path(warehouse.root) / path)
    model_id = f"{info.name}@{weights}"
    row = {
        "model_id": model_id,
        "name": info.name,
        "base": info.base,
        "dataset": info.dataset,
        "question_ids": list(info.question_ids) or None,
        "recipe": json.dumps(info.recipe, sort_keys=True),
        "path": path,
        "space": str(info.space.kind),
        "min_pixels": info.space.min_pixels,
        "max_pixels": info.space.max_pixels,
        "factor": info.space.factor,
        "metrics": json.dumps(info.metrics, sort_keys=True),
        "run_id": info.run_id,
        "revision": code_revision(),
    }
    insert_new(warehouse, "models", [row])
    return row


def find_model(warehouse: Warehouse, ref: str) -> Row | None:
    """Find the model with this name or id, or whose id alone begins so; None if there is none.

    Args:
        ref: may also be `champion:TASK` or `challenger:TASK` (`warehouse.registry`).

    Raises:
        WarehouseError: several models match, or the task has no such model.
    """
    ref = resolve_alias(warehouse, ref)
    with connect_trusted(warehouse, ["models"]) as con:
        rows = con.sql(
            "SELECT * FROM models WHERE name = $1 OR starts_with(model_id, $1) "
            "ORDER BY name <> $1, model_id <> $1, model_id LIMIT 3",
            params=[ref],
        )
        found = [dict(row) for row in rows.to_arrow_table().to_pylist()]
    exact = [row for row in found if ref in (row["name"], row["model_id"])]
    if len(exact or found) > 1:
        listed = ", ".join(row["model_id"] for row in exact or found)
        raise WarehouseError(f"{ref!r} could be any of {listed}: write more of it")
    return next(iter(exact or found), None)


def require_model(warehouse: Warehouse, ref: str) -> Row:
    """Find a model as `find_model` does.

    Raises:
        WarehouseError: there is none, or several match.
    """
    row = find_model(warehouse, ref)
    if row is None:
        raise WarehouseError(f"no model {ref!r} was trained here: see `vigorl models list`")
    return row


def list_models(warehouse: Warehouse) -> list[Row]:
    """Every trained model, oldest first."""
    with connect_trusted(warehouse, ["models"]) as con:
        table = con.sql("SELECT * FROM models ORDER BY created_at, model_id").to_arrow_table()
        return [dict(row) for row in table.to_pylist()]


@contextmanager
def open_model(warehouse: Warehouse, row: Row) -> Iterator[Path]:
    """Open a local folder with the model's files, under the model's own name.

    Raises:
        WarehouseError: its files are missing.
    """
    if not warehouse.is_s3:
        folder = Path(warehouse.root) / row["path"]
        if not folder.is_dir():
            raise WarehouseError(f"the files of model {row['name']} are not in {folder}")
        yield folder
        return
    keys = warehouse.objects.keys(row["path"])
    if not keys:
        raise WarehouseError(f"the files of model {row['name']} are not in {row['path']}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / row["name"]
        folder.mkdir()
        for key in keys:
            with warehouse.objects.local_path(key) as path:
                shutil.copy(path, folder / key.rpartition("/")[2])
        yield folder


def _weights(folder: Path) -> str:
    """Return the hash of a checkpoint's weights and settings."""
    return checkpoint_identity(folder).rpartition("@")[2]


def _move(folder: Path, target: Path) -> None:
    """Rename a folder to its target; from another file system, copy it beside the target first.

    Another run's weights that lie there, which no row records, are kept under a hidden name.
    """
    if target.is_dir():  # a run ended after this and before it recorded the model
        if _weights(target) == _weights(folder):
            shutil.rmtree(folder)
            return
        os.rename(target, target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}"))
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        sync(file)
    try:
        os.rename(folder, target)
    except OSError:
        work = target.parent / f".{uuid.uuid4().hex}"
        shutil.copytree(folder, work)
        os.rename(work, target)
        shutil.rmtree(folder)
    sync(target.parent)
