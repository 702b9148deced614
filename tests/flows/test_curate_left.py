"""What a killed build left behind is curated by the next cycle, and what is curated is left."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from flows.stages.retrain.cycle import Cycle
from flows.stages.retrain.new_data import kept_traces, uncounted_trees
from flows.stages.retrain.stages import curate_left
from tests.flows.test_cli import searched
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("left"), 3, simulations=4)


@pytest.fixture
def warehouse(made: Path, tmp_path: Path) -> Warehouse:
    return Warehouse(str(shutil.copytree(made, tmp_path / "home")))


def rows(warehouse: Warehouse, name: str) -> int:
    return int(query(warehouse, f"SELECT count(*) AS n FROM {name}")["n"][0].as_py())


@pytest.mark.parametrize(
    "lost",
    [("traces", "steps", "verdicts", "behaviors"), ("verdicts", "behaviors"), ("behaviors",)],
)
def test_trees_that_a_killed_build_did_not_curate_are_curated(
    warehouse: Warehouse, lost: tuple[str, ...]
) -> None:
    names = ("traces", "steps", "verdicts", "behaviors")
    before = {name: rows(warehouse, name) for name in names}
    kept = kept_traces(warehouse, "sat2")
    assert kept and not uncounted_trees(warehouse, "sat2")
    for name in lost:
        shutil.rmtree(Path(warehouse.root) / "tables" / name)
    assert len(uncounted_trees(warehouse, "sat2")) == 3
    asyncio.run(curate_left(Cycle(warehouse, "sat2", 1)))
    assert {name: rows(warehouse, name) for name in names} == before
    assert kept_traces(warehouse, "sat2") == kept


def test_a_task_without_trees_has_nothing_left(tmp_path: Path) -> None:
    empty = Warehouse(str(tmp_path))
    asyncio.run(curate_left(Cycle(empty, "sat2", 1)))
    assert not rows(empty, "traces")
