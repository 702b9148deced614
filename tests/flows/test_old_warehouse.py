"""A build that older code began goes on: nothing is asked again, only what is new is added."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from curation.traces import linearize
from flows.settings import BuildSettings
from flows.stages.build import build
from tests.warehouse.test_old_warehouse import unpack
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse


def stored_settings(warehouse: Warehouse) -> BuildSettings:
    """The settings of the archived build, as far as they name what is searched."""
    (run,) = query(warehouse, "SELECT params FROM runs WHERE kind = 'build'").to_pylist()
    params = json.loads(run["params"])
    names = ("task", "split", "limit", "seed", "simulations", "children", "rollouts", "teacher")
    return BuildSettings(home=warehouse.root, **{name: params[name] for name in names})


def test_a_build_goes_on_where_older_code_left_it(tmp_path: Path) -> None:
    warehouse = unpack(tmp_path / "old")
    before = set(query(warehouse, "SELECT tree_id FROM trees")["tree_id"].to_pylist())
    traces = set(query(warehouse, "SELECT trace_id FROM traces")["trace_id"].to_pylist())
    settings = stored_settings(warehouse)
    again = asyncio.run(build(settings))
    assert (again.requests, again.replayed) == (0, 0)
    assert set(query(warehouse, "SELECT tree_id FROM trees")["tree_id"].to_pylist()) == before
    # Their traces are cut anew by a newer linearizer; those of the older one stay.
    assert set(query(warehouse, "SELECT trace_id FROM traces")["trace_id"].to_pylist()) >= traces
    newest = query(
        warehouse, "SELECT DISTINCT linearizer FROM latest_traces WHERE origin = 'search'"
    ).to_pylist()
    assert newest == [{"linearizer": linearize.MAKER}]

    more = asyncio.run(build(settings.model_copy(update={"limit": 3})))
    after = query(warehouse, "SELECT tree_id, requests FROM trees").to_pylist()
    new = [row for row in after if row["tree_id"] not in before]
    assert len(after) == len(before) + 1 and more.requests >= new[0]["requests"] > 0
    assert traces < set(query(warehouse, "SELECT trace_id FROM traces")["trace_id"].to_pylist())


def test_the_archived_journal_answers_for_trees_that_are_lost(tmp_path: Path) -> None:
    """Without the tables, the journal alone rebuilds the same trees: no request is sent."""
    warehouse = unpack(tmp_path / "old")
    names = "SELECT tree_id, majority_answer, root_value, n_nodes FROM trees ORDER BY tree_id"
    before = query(warehouse, names).to_pylist()
    for name in ("trees", "nodes", "rollouts", "responses"):
        folder = Path(warehouse.root) / "tables" / name
        folder.rename(folder.with_name(f"lost-{name}"))
    again = asyncio.run(build(stored_settings(warehouse)))
    assert again.requests == 0 and again.replayed > 0
    assert query(warehouse, names).to_pylist() == before
