"""Copies and snapshots of a warehouse, in a folder and on S3 (a local stand-in server)."""

from __future__ import annotations

from pathlib import Path

import boto3
import duckdb
import pytest

from tests.warehouse.test_objects import filled, made, s3, slow_on_s3, warehouse
from tests.warehouse.test_tables import counts
from warehouse.maintenance.backup import backup
from warehouse.maintenance.check import check
from warehouse.query.run_query import ORDER
from warehouse.query.snapshot import snapshot
from warehouse.storage.home import Warehouse
from warehouse.versions.versions import list_versions, publish

__all__ = ["filled", "made", "s3", "warehouse"]  # fixtures


@slow_on_s3
def test_a_warehouse_is_copied_to_where_it_is_needed_and_back(
    filled: Warehouse,
    tmp_path: Path,
) -> None:
    """From a folder or from S3 into a folder, and from there to both."""
    warehouse = filled
    publish(warehouse, "a", "SELECT trace_id FROM traces")
    warehouse.journal_dir.mkdir(parents=True, exist_ok=True)
    (warehouse.journal_dir / "1.jsonl").write_text("a line\n")
    (warehouse.journal_dir / "judge").mkdir()
    (warehouse.journal_dir / "judge" / "2.jsonl").write_text("a line\n")
    copy = Warehouse(str(tmp_path / "copy"))
    assert backup(warehouse, copy.root) > 20
    goals = [Warehouse(f"{warehouse.root}-again")] if warehouse.is_s3 else []
    for goal in (*goals, Warehouse(str(tmp_path / "third"))):
        if goal.is_s3:
            boto3.client("s3").create_bucket(Bucket=goal.root.split("/")[2])
        backup(copy, goal.root)
        assert backup(copy, goal.root) <= 1 + len(ORDER)  # pointers to checkpoints
        assert counts(goal) == counts(warehouse)
        assert [finding.sentence for finding in check(goal) if finding.wrong] == []
        assert (goal.journal_dir / "1.jsonl").read_text() == "a line\n"
        if goal.journal_store:  # where other machines look for it, and for nothing of a judge
            assert goal.journal_store.keys("journal") == ["journal/1.jsonl"]
            assert goal.journal_store.get("journal/1.jsonl") == b"a line\n"
        assert list_versions(goal) == list_versions(warehouse)
    (warehouse.journal_dir / "1.jsonl").write_text("a line\nand another\n")
    backup(warehouse, copy.root)
    assert (copy.journal_dir / "1.jsonl").read_text() == "a line\nand another\n"


def test_what_is_written_again_in_the_same_size_is_copied_again(tmp_path: Path) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    (home / "inbox" / "sat2").mkdir(parents=True)
    file = home / "inbox" / "sat2" / "x.csv"
    file.write_text("a,1\n")
    assert backup(Warehouse(str(home)), copy) == 1
    assert backup(Warehouse(str(home)), copy) == 0
    file.write_text("a,2\n")
    assert backup(Warehouse(str(home)), copy) == 1
    assert (copy / "inbox" / "sat2" / "x.csv").read_text() == "a,2\n"


def test_a_snapshot_answers_without_the_warehouse_wherever_that_is(
    filled: Warehouse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = snapshot(filled, tmp_path / "views.duckdb")
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with duckdb.connect(str(path), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM kept_traces").fetchall() == [(3,)]
        assert con.execute("SELECT dropped FROM verdict_funnel").fetchall() == [(3,)]
        comments = "SELECT comment FROM duckdb_columns() WHERE table_name = 'steps'"
        assert all(comment for (comment,) in con.execute(comments).fetchall())
