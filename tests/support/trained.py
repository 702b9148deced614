"""A small warehouse to train from, and a training as a process of its own that can be killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcts.data import ResponseStyle
from tests.flows.test_cli import searched
from tests.warehouse.test_versions import KEPT
from training.recipes import GrpoRecipe, SftRecipe, load_recipe
from training.runs import read_metrics
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import publish

SFT = ("model=nano-base", "most_steps=null", "batch=4", "micro_batch=2", "learning_rate=1e-3")
GRPO = ("model=nano-base", "questions=2", "group=2", "micro_batch=4", "max_completion=48")


def warehouse_with_traces(folder: Path) -> Warehouse:
    """Six searched questions, two of two images, and the version `kept@v1` of them."""
    warehouse = Warehouse(str(searched(folder, 6, simulations=6)))
    publish(warehouse, "kept", KEPT)
    return warehouse


def publish_dialogues(warehouse: Warehouse) -> None:
    """Publish twelve direct chains as dialogues that zoom, `looked@v1`."""
    chosen = f"SELECT trace_id FROM ({KEPT}) JOIN traces USING (trace_id) WHERE kind = 'direct' "
    chosen += "ORDER BY trace_id LIMIT 12"
    publish(warehouse, "looked", chosen, response_style=ResponseStyle.ZOOM)


def sft(*overrides: str, recipe: str = "nano-sft") -> SftRecipe:
    found = load_recipe(recipe, [*SFT, *overrides])
    assert isinstance(found, SftRecipe)
    return found


def grpo(*overrides: str, recipe: str = "nano-grpo") -> GrpoRecipe:
    found = load_recipe(recipe, [*GRPO, *overrides])
    assert isinstance(found, GrpoRecipe)
    return found


def logged(warehouse: Warehouse, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of the training that made a model."""
    (folder,) = (Path(warehouse.root) / "training").glob(f"{row['name']}-*")
    return read_metrics(folder / "metrics.jsonl")
