"""Tables in which older code called columns otherwise, or gave them another type."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from tests.warehouse.test_versions import fill
from warehouse.maintenance.check import check
from warehouse.maintenance.compact import compact
from warehouse.query.run_query import connect, query
from warehouse.storage.home import Warehouse
from warehouse.tables import migrations
from warehouse.tables.delta import append
from warehouse.tables.migrations import MIGRATIONS, Migration
from warehouse.tables.schema import TABLES
from warehouse.versions.versions import publish

CHANGES = (
    Migration(1, "behaviors", "method", was="how"),
    Migration(2, "behaviors", "count", was="times", sql="TRY_CAST({was} AS BIGINT)"),
    Migration(3, "behaviors", "method", was="way", sql="'rule/' || {was}"),
)


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """The first code's table of behaviors (tests/support/first_schema.json), with columns of other
    names and a count that was text; two commits of different times, and one of today."""
    warehouse = fill(Warehouse(str(tmp_path / "home")), tmp_path / "in", order=(0,))
    (trace_id, *_) = query(warehouse, "SELECT trace_id FROM traces ORDER BY 1")[0].to_pylist()
    columns = json.loads((Path(__file__).parents[1] / "support" / "first_schema.json").read_text())[
        "behaviors"
    ]
    assert {"trace_id", "behavior", "count", "method"} <= set(columns)
    uri = warehouse.table_uri("behaviors")
    row = {"trace_id": trace_id, "behavior": "regions"}
    write_deltalake(uri, pa.Table.from_pylist([{**row, "times": "3", "how": "rule/1"}]))
    later = [{**row, "behavior": "revisits", "times": "many", "way": "2"}]
    write_deltalake(uri, pa.Table.from_pylist(later), mode="append", schema_mode="merge")
    monkeypatch.setattr(migrations, "MIGRATIONS", CHANGES)
    today = {**row, "behavior": "subgoals", "count": 5, "method": "rule/3"}
    append(warehouse, "behaviors", [today], "today")
    return warehouse


ASKED = "SELECT behavior, method, count FROM behaviors ORDER BY behavior"
ANSWER = [("regions", "rule/1", 3), ("revisits", "rule/2", None), ("subgoals", "rule/3", 5)]


def test_rows_of_every_time_are_shown_under_todays_names(older: Warehouse) -> None:
    table = query(older, ASKED)
    assert [tuple(row.values()) for row in table.to_pylist()] == ANSWER
    assert query(older, "FROM behaviors").column_names == TABLES["behaviors"].schema.names


def test_a_state_of_before_is_queried_by_todays_names(older: Warehouse) -> None:
    # Version 2 changes no row: a writer of today has the log show the statistics of all columns.
    for version, rows in ((0, ANSWER[:1]), (1, ANSWER[:2]), (2, ANSWER[:2]), (3, ANSWER)):
        with connect(older, {"behaviors": version}) as con:
            assert con.execute(ASKED).fetchall() == rows


def test_upkeep_and_publishing_go_on_over_such_tables(older: Warehouse) -> None:
    sql = "SELECT trace_id FROM behaviors WHERE method = 'rule/1' AND count = 3"
    before = publish(older, "a", sql)
    assert before.n_rows == 1
    compact(older, keep_days=0, sort=True)
    assert [tuple(row.values()) for row in query(older, ASKED).to_pylist()] == ANSWER
    assert publish(older, "again", sql).content_hash == before.content_hash
    assert [finding.sentence for finding in check(older) if finding.wrong] == []


def test_every_migration_is_of_a_column_there_is_and_was_not_called_so_before() -> None:
    assert [change.number for change in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    for change in (*MIGRATIONS, *CHANGES):
        names = TABLES[change.table].schema.names
        assert change.column in names and change.was not in names
