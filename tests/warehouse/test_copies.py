"""Copies and snapshots of a warehouse, in a folder and on S3 (a local stand-in server)."""

from __future__ import annotations

from pathlib import Path

import boto3
import duckdb
import pytest

from tests.warehouse.test_objects import filled, made, s3, slow_on_s3, warehouse
from tests.warehouse.test_tables import counts
from warehouse.maintenance import backup as backing_up
from warehouse.maintenance.backup import backup
from warehouse.maintenance.check import check
from warehouse.maintenance.delete import delete_source
from warehouse.query.run_query import query
from warehouse.query.snapshot import snapshot
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.objects import LocalObjects
from warehouse.tables.delta import commit_traces, open_table
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
        assert backup(copy, goal.root) == 0
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


def test_a_version_that_was_deleted_with_its_source_is_none_in_the_next_backup(
    filled: Warehouse, tmp_path: Path
) -> None:
    publish(filled, "a", "SELECT trace_id FROM traces")
    copy = Warehouse(str(tmp_path / "copy"))
    backup(filled, copy.root)
    (source,) = {row["source"] for row in query(filled, "FROM questions").to_pylist()}
    delete_source(filled, source, force=True)
    assert list_versions(filled) == [] and [v.ref for v in list_versions(copy)] == ["a@v1"]
    backup(filled, copy.root)
    assert list_versions(copy) == []
    assert not [key for key in copy.objects.keys("datasets") if key.endswith(".parquet")]


def test_what_is_written_again_in_the_same_size_is_copied_again(tmp_path: Path) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    (home / "inbox" / "sat2").mkdir(parents=True)
    file = home / "inbox" / "sat2" / "x.csv"
    file.write_text("a,1\n")
    assert backup(Warehouse(str(home)), copy) == 1
    assert backup(Warehouse(str(home)), copy) == 0
    file.write_text("a,2\n")
    weights = home / "models" / "x" / "model.safetensors"  # a training that begins again
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"one")
    assert backup(Warehouse(str(home)), copy) == 2
    assert (copy / "inbox" / "sat2" / "x.csv").read_text() == "a,2\n"
    weights.write_bytes(b"two")
    assert backup(Warehouse(str(home)), copy) == 1
    assert (copy / "models" / "x" / "model.safetensors").read_bytes() == b"two"


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


def add(warehouse: Warehouse, trace: str) -> None:
    step = {"trace_id": trace, "step": 0, "thought": trace}
    traces = [{"trace_id": trace, "question_id": "q"}]
    commit_traces(warehouse, traces, steps=[step], verdicts=[], run_id="r")


def traces_in(warehouse: Warehouse) -> list[str]:
    return sorted(query(warehouse, "SELECT trace_id FROM traces")["trace_id"].to_pylist())


def test_a_copy_that_was_written_to_is_refused_and_stays(tmp_path: Path) -> None:
    warehouse, copy = Warehouse(str(tmp_path / "home")), Warehouse(str(tmp_path / "copy"))
    add(warehouse, "first")
    backup(warehouse, copy.root)
    add(copy, "of the copy")
    with pytest.raises(WarehouseError, match=r"no earlier copy of .* the table traces"):
        backup(warehouse, copy.root)  # it is ahead
    for n in range(3):
        add(warehouse, f"of the source {n}")
    with pytest.raises(WarehouseError, match=r"no earlier copy of .* the table traces"):
        backup(warehouse, copy.root)  # it is behind, and differs
    assert traces_in(copy) == ["first", "of the copy"]
    card = "datasets/a/v1/card.json"
    third = Warehouse(str(tmp_path / "third"))
    assert warehouse.objects.put(card, b"{}") and third.objects.put(card, b"{ }")
    with pytest.raises(WarehouseError, match="the dataset version a@v1"):
        backup(warehouse, third.root)
    assert third.objects.keys("") == [card]


def test_a_copy_that_breaks_off_is_what_it_was_or_what_it_becomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, copy = Warehouse(str(tmp_path / "home")), Warehouse(str(tmp_path / "copy"))
    for trace in ("a", "b", "c"):
        add(warehouse, trace)
        for table in ("traces", "steps"):
            delta = open_table(warehouse, table)
            assert delta is not None
            delta.create_checkpoint()  # as compaction does
        if trace == "a":
            backup(warehouse, copy.root)
    put, left = LocalObjects.put_file, [0]

    def dies(self: LocalObjects, key: str, path: Path, replace: bool = False) -> bool:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return put(self, key, path, replace)

    monkeypatch.setattr(LocalObjects, "put_file", dies)
    seen = []
    for _ in range(100):  # each goes one file further than the one before
        left[0] = 1
        try:
            backup(warehouse, copy.root)
        except KeyboardInterrupt:
            pass
        else:
            break
        seen.append(traces_in(copy))
        steps = query(copy, "SELECT trace_id FROM traces ANTI JOIN steps USING (trace_id)")
        assert not steps.num_rows
    assert seen[0] == ["a"] and seen[-1] == ["a", "b", "c"] and seen == sorted(seen)


def test_what_is_committed_while_a_copy_is_made_is_in_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, copy = Warehouse(str(tmp_path / "home")), Warehouse(str(tmp_path / "copy"))
    add(warehouse, "a")
    copying = backing_up._copy_files

    def meanwhile(*given: object) -> int:
        if traces_in(warehouse) == ["a"]:
            add(warehouse, "b")
            delta = open_table(warehouse, "traces")
            assert delta is not None
            delta.create_checkpoint()
        return copying(*given)

    monkeypatch.setattr(backing_up, "_copy_files", meanwhile)
    backup(warehouse, copy.root)
    assert traces_in(copy) == ["a"]
    backup(warehouse, copy.root)
    assert traces_in(copy) == ["a", "b"]
