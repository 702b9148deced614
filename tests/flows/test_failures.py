"""Why searches failed, as a build's summary groups it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.stages.failures import describe_failures
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees
from warehouse.tables.tree_rows import SearchRows

OUTSIDE = "points outside their images are most often another --space than the model's"


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """Trees that failed for themselves, for their nodes' sake, and in one branch."""
    warehouse = Warehouse(str(tmp_path))
    trees: list[dict[str, Any]] = [
        {"tree_id": "refused", "status": "failed", "error": "refused", "errors": ["at 0: refused"]},
        {"tree_id": "outside", "status": "failed", "error": "nothing"},
        {"tree_id": "repeats", "status": "failed", "error": "nothing"},
        {"tree_id": "branch", "status": "complete", "errors": ["at 0.1: gone", "at 0.2: gone"]},
        {"tree_id": "fine", "status": "complete"},
    ]
    nodes = [
        {"tree_id": "outside", "node_id": 1, "discarded": "repeated_point"},
        {"tree_id": "outside", "node_id": 2, "discarded": "point_outside_image"},
        {"tree_id": "outside", "node_id": 3, "discarded": "point_outside_image"},
        {"tree_id": "repeats", "node_id": 1, "discarded": "repeated_point"},
        {"tree_id": "refused", "node_id": 1, "discarded": "repeated_point"},
        {"tree_id": "fine", "node_id": 1, "discarded": "point_outside_image"},
    ]
    commit_trees(warehouse, SearchRows(trees, nodes), run_id="r")
    return warehouse


def test_a_tree_fails_for_what_its_nodes_or_else_it_itself_says(warehouse: Warehouse) -> None:
    said = "nothing usable was said: point_outside_image, repeated_point (1)"
    assert describe_failures(warehouse, ["refused"]) == "why questions failed: refused (1)"
    assert describe_failures(warehouse, ["outside"]) == f"why questions failed: {said}; {OUTSIDE}"
    assert describe_failures(warehouse, ["repeats"]) == (
        "why questions failed: nothing usable was said: repeated_point (1)"
    )
    assert OUTSIDE in describe_failures(warehouse, ["outside", "repeats"])


def test_branches_that_ended_are_told_of_trees_that_did_not_fail(warehouse: Warehouse) -> None:
    assert describe_failures(warehouse, ["branch"]) == "why branches ended: gone (2)"
    assert describe_failures(warehouse, ["refused", "branch"]) == (
        "why questions failed: refused (1); why branches ended: gone (2)"
    )
    assert describe_failures(warehouse, ["fine"]) == describe_failures(warehouse, []) == ""
