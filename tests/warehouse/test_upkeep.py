"""Deleting a source, copying while others write, full disks, and tables that older code wrote."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from mcts import failpoints
from mcts.journal.journal import Journal
from mcts.journal.records import Key, Record
from mcts.teachers.base import Completion, Reply
from tests.flows.test_cli import run
from tests.warehouse.test_tables import counts, in_process, shard
from tests.warehouse.test_versions import KEPT, fill
from warehouse.maintenance import delete
from warehouse.maintenance.backup import backup
from warehouse.maintenance.check import check
from warehouse.maintenance.compact import compact
from warehouse.maintenance.delete import delete_rows, delete_source, plan
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.objects import image_key
from warehouse.tables.delta import commit_traces, commit_trees, insert_new, open_table, scan
from warehouse.tables.rows import read_questions
from warehouse.tables.schema import TABLES
from warehouse.tables.tree_rows import SearchRows
from warehouse.versions import versions
from warehouse.versions.versions import list_versions, publish


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three questions of one source; a fourth of another shows one of their two pictures each."""
    folder = tmp_path_factory.mktemp("filled")
    warehouse = fill(Warehouse(str(folder / "home")), folder / "in")
    (two,) = [q for q in read_questions(warehouse) if len(q.images) == 2]
    other = {"question_id": "other", "source": "elsewhere", "task": "sat2", "text": "?",
             "answer_kind": "text"}  # fmt: skip
    insert_new(warehouse, "questions", [{**other, "image_ids": [two.images[1].image_id]}])
    trees = [{"tree_id": "kept", "question_id": "other", "task": "sat2"}]
    nodes = [{"tree_id": "kept", "node_id": 0}]
    commit_trees(warehouse, SearchRows(trees, nodes), run_id="r")
    insert_new(warehouse, "questions", [{**other, "question_id": "plain", "image_ids": []}])
    trace = {"trace_id": "stays", "question_id": "plain", "tree_id": "kept", "task": "sat2"}
    commit_traces(warehouse, [trace], steps=[], verdicts=[], run_id="r")
    return folder / "home"


@pytest.fixture
def warehouse(filled: Path, tmp_path: Path) -> Warehouse:
    return Warehouse(str(shutil.copytree(filled, tmp_path / "home")))


def of(warehouse: Warehouse) -> str:
    found = scan(warehouse, "questions", ["source"])["source"].to_pylist()
    return str(next(source for source in found if source != "elsewhere"))


def test_a_deleted_source_is_in_no_row_no_image_and_no_old_file(warehouse: Warehouse) -> None:
    source = of(warehouse)
    thought = scan(warehouse, "steps", ["thought"])["thought"][0].as_py()
    before = open_table(warehouse, "steps").version()  # type: ignore[union-attr]
    counted = {name: scan(warehouse, name).num_rows for name in TABLES}
    deleted = len(plan(warehouse, source).ids["image_id"])
    printed: list[str] = []
    delete_source(warehouse, source, report=printed.append)
    gone = {name: n - scan(warehouse, name).num_rows for name, n in counted.items()
            if name not in ("revocations", "runs")}  # fmt: skip
    left = {name: scan(warehouse, name).num_rows for name in ("questions", "trees", "nodes")}
    assert left == {"questions": 2, "trees": 1, "nodes": 1}
    for name, rows in (("traces", 1), ("steps", 0), ("verdicts", 0)):
        assert scan(warehouse, name).num_rows == rows
    (picture,) = scan(warehouse, "images").to_pylist()  # the one the other source shows
    assert [key.rsplit("/", 1)[-1] for key in warehouse.objects.keys("images")] == [
        picture["image_id"]
    ]
    for file in Path(warehouse.root, "tables/steps").glob("*.parquet"):
        found = pq.read_table(file)["thought"].to_pylist()
        assert thought not in found
    old = open_table(warehouse, "steps", before)
    assert old and not any(Path(uri).exists() for uri in old.file_uris())
    told = [line for line in printed if not line.startswith("not reached: ")]
    assert told.pop(1) == "1 images that others show are theirs now"
    assert picture["source"] == "elsewhere"
    assert told[:2] == ["0 responses deleted from the journal", f"{deleted} images deleted"]
    assert told[-1] == "earlier versions of these tables can't be read any more"
    rows = dict(line.removesuffix(" rows deleted").split(": ") for line in told[2:-1])
    assert rows == {name: str(n) for name, n in gone.items() if n}, (
        "a table of which none are deleted is not named"
    )
    assert [f.sentence for f in check(warehouse) if f.wrong] == []
    (noted,) = scan(warehouse, "revocations").to_pylist()
    assert (noted["subject"], noted["value"]) == ("source", source)
    delete_source(warehouse, source)  # again: nothing is left to do


def test_published_versions_that_hold_it_are_named_and_go_only_by_force(
    warehouse: Warehouse,
) -> None:
    source = of(warehouse)
    publish(warehouse, "a", KEPT)
    with pytest.raises(WarehouseError, match=r"hold .*: a@v1; --force deletes them too"):
        delete_source(warehouse, source)
    assert scan(warehouse, "traces").num_rows == 7
    assert scan(warehouse, "revocations").num_rows == 0
    with pytest.raises(WarehouseError, match="nothing in the warehouse has the source 'sat'"):
        delete_source(warehouse, "sat")
    delete_source(warehouse, source, force=True)
    assert list_versions(warehouse) == []
    assert [p.name for p in Path(warehouse.root, "datasets/a/v1").iterdir()] == ["deleted"]
    assert [f.sentence for f in check(warehouse) if f.wrong] == []
    # Its number is never given again.
    assert publish(warehouse, "a", "SELECT trace_id FROM traces").ref == "a@v2"


def test_a_deletion_that_a_version_outlives_is_no_damage_and_hides_none(
    warehouse: Warehouse,
) -> None:
    """The version keeps its rows, and states versions of tables that can't be read any more."""
    stays = publish(warehouse, "a", KEPT)
    (row,) = scan(warehouse, "questions", where=pc.field("question_id") == "plain").to_pylist()
    del row["revision"], row["created_at"]
    leak = {**row, "question_id": "leak", "source": "leaky"}
    insert_new(warehouse, "questions", [leak])
    publish(warehouse, "b", "SELECT trace_id FROM traces")
    delete_source(warehouse, "leaky")
    assert stays in list_versions(warehouse)
    found = list(check(warehouse))
    assert [finding.sentence for finding in found if finding.wrong] == []
    remark = "can't be read, since a source was deleted later"
    assert any(f.sentence.startswith("questions: ") and remark in f.sentence for f in found)
    delete_rows(warehouse, "questions", "question_id = 'other'")
    wrong = [finding.sentence for finding in check(warehouse) if finding.wrong]
    assert any("question_id is not in questions" in sentence for sentence in wrong), wrong


def test_what_is_published_while_its_source_is_deleted_is_refused_or_found(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, write = of(warehouse), versions.write_card

    def deleted_first(*given: Any) -> None:
        delete_source(warehouse, source)
        write(*given)

    monkeypatch.setattr(versions, "write_card", deleted_first)
    with pytest.raises(WarehouseError, match=f"revoked meanwhile: source {re.escape(source)}"):
        publish(warehouse, "a", KEPT)
    assert list_versions(warehouse) == []


def test_a_version_that_is_added_behind_the_first_look_is_named_or_goes(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, revoke = of(warehouse), delete.revoke

    def published_first(*given: Any) -> None:
        publish(warehouse, "a", KEPT)
        revoke(*given)

    monkeypatch.setattr(delete, "revoke", published_first)
    with pytest.raises(WarehouseError, match=r"published while it was deleted: a@v1; --force"):
        delete_source(warehouse, source)
    monkeypatch.undo()
    delete_source(warehouse, source, force=True)
    assert list_versions(warehouse) == []


def test_an_image_that_is_imported_again_meanwhile_stays(warehouse: Warehouse) -> None:
    source, images = of(warehouse), []

    def import_another(line: str) -> None:
        if not images and "from the journal" in line:
            (row, *_) = scan(warehouse, "questions", where=pc.field("source") == source).to_pylist()
            images.extend(row["image_ids"])
            del row["revision"], row["created_at"]
            insert_new(warehouse, "questions", [{**row, "question_id": "n", "source": "new"}])

    delete_source(warehouse, source, report=import_another)
    assert images and set(images) <= set(scan(warehouse, "images")["image_id"].to_pylist())
    assert all(warehouse.objects.get(image_key(image)) for image in images)
    assert [f.sentence for f in check(warehouse) if f.wrong] == []


def test_an_image_that_is_imported_in_that_moment_is_named(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, vacuum = of(warehouse), delete.open_table
    (row, *_) = scan(warehouse, "questions", where=pc.field("source") == source).to_pylist()
    del row["revision"], row["created_at"]

    def import_first(*given: Any) -> Any:
        insert_new(warehouse, "questions", [{**row, "question_id": "n", "source": "new"}])
        return vacuum(*given)

    monkeypatch.setattr(delete, "open_table", import_first)
    with pytest.raises(WarehouseError, match=r"new was imported while .* was deleted"):
        delete_source(warehouse, source)
    with pytest.raises(WarehouseError, match=r"question n of new shows image .*: import its file"):
        list(read_questions(warehouse))


def test_what_killed_writers_left_half_written_goes_with_it(warehouse: Warehouse) -> None:
    folder = Path(warehouse.root, ".partial")
    staged, image, running = folder / "0123", folder / "4567", folder / "89ab"
    staged.mkdir(parents=True)
    (staged / "rows.parquet").write_bytes(b"rows")
    image.write_bytes(b"pixels")
    running.write_bytes(b"an import is at work")
    for path in (staged / "rows.parquet", staged, image):
        os.utime(path, (1, 1))
    printed: list[str] = []
    delete_source(warehouse, of(warehouse), report=printed.append)
    assert [path.name for path in folder.iterdir()] == ["89ab"]
    assert "2 files and folders of killed writers deleted" in printed
    os.utime(running, (1, 1))
    compact(warehouse)
    assert not list(folder.iterdir())


def test_what_the_journal_recorded_of_it_goes_and_what_is_out_of_reach_is_named(
    warehouse: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = of(warehouse)
    publish(warehouse, "a", KEPT)
    out = tmp_path / "out"
    words = ("export", "a", "--to", "llama-factory", "--out", str(out))
    assert run("dataset", *words, home=warehouse.root) == 0
    ids = plan(warehouse, source).ids
    trained_on = [*ids["question_id"].to_pylist(), "of another source"]
    student = {"model_id": "student@1", "dataset": "a@v1"}
    rewarded = {"model_id": "rewarded@1", "question_ids": trained_on}
    elsewhere = {"model_id": "elsewhere@1", "question_ids": trained_on[-1:]}
    insert_new(warehouse, "models", [student, rewarded, elsewhere])
    (doomed, *_) = ids["tree_id"].to_pylist()
    for folder in (warehouse.journal_dir, warehouse.journal_dir / "judge"):
        asyncio.run(journaled(folder, doomed, "kept"))
    assert run("warehouse", "delete-source", source, home=warehouse.root) == 0
    printed = capsys.readouterr().out
    assert "out of reach: export of a@v1 of 20" in printed and f": {out}\n" in printed
    assert "out of reach: model student@1, trained on a@v1" in printed
    rewarded_on = f"trained on {len(trained_on) - 1} of its questions"
    assert f"out of reach: model rewarded@1, {rewarded_on}" in printed
    assert "elsewhere@1" not in printed
    lines: list[str] = []
    delete_source(warehouse, source, force=True, report=lines.append)
    assert "1 responses deleted from the journal" in lines
    assert [line for line in lines if line.startswith("not reached: ")] == [
        line.replace("out of reach: ", "not reached: ")
        for line in printed.splitlines() if line.startswith("out of reach: ")
    ]  # fmt: skip
    with Journal(warehouse.journal_dir) as journal:
        assert [len(list(journal.records(name))) for name in (doomed, "kept")] == [0, 1]
        assert journal.damage == []
    assert any("judge" in line for line in lines)


async def journaled(folder: Path, *search_ids: str) -> None:
    with Journal(folder) as journal:
        for search_id in search_ids:
            reply = Reply((Completion("Yes", "stop", 1),), 5, None, 1, 0.5)
            await journal.append(Record.of_reply(Key(search_id, "", "expand", 0), "f", reply, 1.0))


def test_an_interrupted_deletion_is_finished_by_repeating_it(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from warehouse.maintenance import delete as deleting

    source, real = of(warehouse), deleting._delete_rows

    def dies(warehouse: Warehouse, name: str, key: str, ids: pa.Array) -> int:
        if name == "trees":
            raise KeyboardInterrupt
        return real(warehouse, name, key, ids)

    monkeypatch.setattr(deleting, "_delete_rows", dies)
    with pytest.raises(KeyboardInterrupt):
        delete_source(warehouse, source)
    monkeypatch.undo()
    assert len(plan(warehouse, source).ids["tree_id"]) == 3
    delete_source(warehouse, source)
    assert scan(warehouse, "trees")["tree_id"].to_pylist() == ["kept"]


def test_a_copy_made_while_a_writer_runs_is_a_whole_warehouse(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    stop, failed, target = threading.Event(), [], tmp_path / "copy"

    def write() -> None:
        try:
            number = 0
            while not stop.is_set():
                commit_trees(warehouse, shard(f"t{number}"), run_id="r")
                number += 1
        except Exception as error:
            failed.append(error)

    for name in range(3):
        commit_trees(warehouse, shard(f"first{name}"), run_id="r")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert backup(warehouse, target) > 20
    finally:
        stop.set()
        writer.join(timeout=120)
    assert not failed
    copy = Warehouse(str(target))
    found = counts(copy)
    assert found["trees"] >= 7
    whole = "SELECT count(*) n FROM trees WHERE tree_id LIKE 't%' OR tree_id LIKE 'first%'"
    shards = query(copy, whole)["n"][0].as_py() - 3  # three trees of the sample have no nodes
    assert found["nodes"] == 2 * shards + 1 and found["responses"] == shards
    # The shards' questions were never imported; nothing else may be missing.
    wrong = [f.sentence for f in check(copy) if f.wrong]
    assert all(sentence.startswith("trees: ") for sentence in wrong), wrong
    backup(warehouse, target)
    assert counts(copy) == counts(warehouse)
    assert backup(warehouse, target) == 0
    with pytest.raises(WarehouseError, match="inside the warehouse"):
        backup(warehouse, Path(warehouse.root) / "copy")
    assert publish(copy, "a", KEPT).n_rows == 3


@pytest.mark.parametrize("place", ["before_commit:1:full", "between_tables:2:full"])
def test_a_disk_that_is_full_during_a_commit_shows_nothing_half(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = Warehouse(str(tmp_path))
    monkeypatch.setenv("VIGORL_FAILPOINT", place)
    monkeypatch.setattr(failpoints, "_times_reached", Counter())
    with pytest.raises(OSError, match="No space left"):
        commit_trees(warehouse, shard("a", "b"), run_id="r")
    monkeypatch.delenv("VIGORL_FAILPOINT")
    assert set(counts(warehouse).values()) == {0}
    commit_trees(warehouse, shard("a", "b"), run_id="r")
    assert counts(warehouse) == {"trees": 2, "nodes": 4, "rollouts": 2, "responses": 2}


def test_a_file_that_cannot_be_written_whole_is_never_committed(tmp_path: Path) -> None:
    """The operating system's own limit on file sizes stands for a full disk."""
    code = f"""
import resource, signal
from tests.warehouse.test_tables import shard
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees
warehouse = Warehouse({str(tmp_path)!r})
commit_trees(warehouse, shard("a"), run_id="r")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    commit_trees(warehouse, shard("b"), run_id="r")
except Exception as error:
    print(type(error).__name__, flush=True)
"""
    process = in_process(code)
    printed, errors = process.communicate(timeout=120)
    assert printed.strip() in ("OSError", "DeltaError"), (printed, errors)
    warehouse = Warehouse(str(tmp_path))
    assert counts(warehouse) == {"trees": 1, "nodes": 2, "rollouts": 1, "responses": 1}
    commit_trees(warehouse, shard("b"), run_id="r")
    assert counts(warehouse)["nodes"] == 4


def test_tables_that_the_first_code_wrote_are_read_and_written_today(tmp_path: Path) -> None:
    """tests/support/first_schema.json holds the columns as they were then."""
    dropped = {"runs": {"finished_at"}}  # before anything was released
    kinds = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(),
             "time": pa.timestamp("us", tz="UTC"), "[string]": pa.list_(pa.string())}  # fmt: skip
    older = json.loads((Path(__file__).parents[1] / "support" / "first_schema.json").read_text())
    warehouse = Warehouse(str(tmp_path))
    for name, columns in older.items():
        lost = set(columns) - set(TABLES[name].schema.names)
        assert lost == dropped.get(name, set()), f"{name} lost {lost}"
        row = {column: f"old {column}" for column, kind in columns.items() if kind == "string"}
        row |= {"commit_id": "c"} if "commit_id" in columns else {}
        types = {
            column: kinds[kind] if kind in kinds else TABLES[name].schema.field(column).type
            for column, kind in columns.items()
        }
        table = pa.Table.from_pylist([row], pa.schema(list(types.items())))
        write_deltalake(warehouse.table_uri(name), table)
    for name in older:
        (row,) = query(warehouse, f"FROM {name}").to_pylist()
        assert list(row) == TABLES[name].schema.names
        added = set(row) - set(older[name])
        assert all(row[column] is None for column in added)
    commit_trees(warehouse, shard("new"), run_id="r")
    insert_new(warehouse, "questions", [{"question_id": "new", "text": "?"}])
    assert query(warehouse, "SELECT count(*) n FROM nodes")["n"][0].as_py() == 3
    assert query(warehouse, "SELECT count(*) n FROM questions")["n"][0].as_py() == 2


def test_the_commands_say_what_they_did(
    warehouse: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*words: str, status: int = 0) -> str:
        assert run("warehouse", *words, home=warehouse.root) == status
        return capsys.readouterr().out

    assert printed("check") == "everything is there, and is what it says\n"
    assert "files became" in printed("compact")
    assert printed("snapshot").endswith("vigorl.duckdb\n")
    assert "files copied to" in printed("backup", str(tmp_path / "copy"))
    assert "3 questions, 3 trees, 6 traces" in printed("delete-source", of(warehouse))
    assert scan(warehouse, "traces").num_rows == 7
    assert run("warehouse", "delete-source", "misspelt", home=warehouse.root) == 2
    assert "nothing in the warehouse has the source 'misspelt'" in capsys.readouterr().err
    next(Path(warehouse.root, "images").rglob("*/*")).unlink()
    assert "are missing" in printed("check", status=1)


@pytest.mark.parametrize("words", [("check",), ("compact",), ("snapshot",), ("delete-source", "a")])
def test_where_no_warehouse_is_nothing_is_called_whole(tmp_path, capsys, words) -> None:
    assert run("warehouse", *words, home=tmp_path / "nowhere") == 2
    printed = capsys.readouterr()
    assert not printed.out and printed.err.startswith("vigorl: there is no warehouse at ")
    assert not (tmp_path / "nowhere").exists()


def test_a_rewrite_that_is_overtaken_every_time_says_so(tmp_path, monkeypatch):
    from deltalake.exceptions import CommitFailedError

    from warehouse.storage.home import Warehouse, WarehouseError
    from warehouse.tables import delta

    warehouse = Warehouse(str(tmp_path))
    delta.record_run(warehouse, "r", "build")
    monkeypatch.setattr(delta.time, "sleep", lambda seconds: None)
    tried = []

    def overtaken(table):
        tried.append(table)
        raise CommitFailedError("another writer was faster")

    with pytest.raises(WarehouseError, match="table runs is too busy: stop what writes"):
        delta.rewrite(warehouse, "runs", overtaken)
    assert len(tried) == 10


def test_an_error_that_begins_with_an_empty_line_is_named():
    from warehouse.storage.home import first_line

    assert first_line(ValueError("\n \n  it is broken\nand more")) == "it is broken"
    assert first_line(ValueError("\n")) == "ValueError"


@pytest.mark.parametrize("dies_at", ["questions", "image_hashes", "images"])
def test_a_deletion_that_was_killed_leaves_no_image_behind_when_repeated(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    source, delete_rows = of(warehouse), delete._delete_rows
    doomed = plan(warehouse, source).ids["image_id"].to_pylist()

    def dies(home: Warehouse, name: str, key: str, ids: pa.Array) -> int:
        gone = delete_rows(home, name, key, ids)
        if name == dies_at:
            raise KeyboardInterrupt
        return gone

    with monkeypatch.context() as patch:
        patch.setattr(delete, "_delete_rows", dies)
        with pytest.raises(KeyboardInterrupt):
            delete_source(warehouse, source)
    delete_source(warehouse, source)
    assert doomed and not any(warehouse.objects.exists(image_key(each)) for each in doomed)
    assert not set(doomed) & set(scan(warehouse, "images", ["image_id"])["image_id"].to_pylist())
