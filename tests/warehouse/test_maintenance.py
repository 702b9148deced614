"""Checking, compacting and the file of views: what is damaged is named, what is needed stays."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from tests.warehouse.test_tables import in_process, shard
from tests.warehouse.test_versions import KEPT, fill
from warehouse.maintenance.check import check
from warehouse.maintenance.compact import SORTED_BY, compact, stated_versions
from warehouse.query.additions import mark, show_added
from warehouse.query.run_query import connect, query, table_versions
from warehouse.query.snapshot import snapshot
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.delta import (
    append,
    commit_trees,
    insert_new,
    open_table,
    record_run,
    scan,
)
from warehouse.tables.schema import TABLES
from warehouse.versions.versions import publish


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    publish(fill(Warehouse(str(folder / "home")), folder / "in"), "a", KEPT)
    return folder / "home"


@pytest.fixture
def warehouse(filled: Path, tmp_path: Path) -> Warehouse:
    return Warehouse(str(shutil.copytree(filled, tmp_path / "home")))


def wrong(warehouse: Warehouse) -> list[str]:
    return [finding.sentence for finding in check(warehouse) if finding.wrong]


def count(warehouse: Warehouse, table: str) -> int:
    return int(query(warehouse, f"SELECT count(*) n FROM {table}")["n"][0].as_py())


def test_a_sound_warehouse_has_nothing_wrong(warehouse: Warehouse, tmp_path: Path) -> None:
    assert list(check(warehouse)) == []
    assert list(check(Warehouse(str(tmp_path / "nothing")))) == []


def test_damaged_missing_and_stray_images_are_named(warehouse: Warehouse) -> None:
    damaged, missing, *_ = sorted(Path(warehouse.root, "images").rglob("*/*"))
    damaged.chmod(0o644)
    damaged.write_bytes(b"something else")
    missing.unlink()
    warehouse.objects.put("images/00/" + "0" * 64, b"nobody's")
    assert wrong(warehouse) == [
        f"images: the bytes of image {missing.name} are missing",
        f"images: the bytes of image {'0' * 64} are damaged",
        f"images: the bytes of image {damaged.name} are damaged",
    ]
    remarks = [finding.sentence for finding in check(warehouse) if not finding.wrong]
    assert remarks == ["images: 1 stored images are in no row"]


def test_a_changed_bundle_is_named_and_so_is_a_lost_one(warehouse: Warehouse) -> None:
    publish(warehouse, "b", "SELECT trace_id FROM traces")
    card = Path(warehouse.root, "datasets/a/v1/card.json")
    card.chmod(0o644)
    card.write_text(json.dumps({**json.loads(card.read_text()), "content_hash": "0" * 64}))
    shutil.rmtree(Path(warehouse.root, "datasets/b/v1"))
    assert wrong(warehouse) == [
        "dataset a@v1: its rows are not those its card states",
        "dataset a@v1: its card and dataset_versions state different hashes",
        "dataset b@v1: it is in dataset_versions, but its files are gone",
    ]


def test_a_lost_or_shortened_file_of_a_table_is_named(warehouse: Warehouse) -> None:
    lost, short, *_ = sorted(Path(warehouse.root, "tables/steps").glob("*.parquet"))
    lost.unlink()
    size = short.stat().st_size
    short.write_bytes(short.read_bytes()[:-3])
    version = open_table(warehouse, "steps").version()  # type: ignore[union-attr]
    found = wrong(warehouse)
    assert f"steps: the file {lost.name} of version {version} is missing" in found
    size_note = f"has {size - 3} bytes, not {size}"
    assert f"steps: the file {short.name} of version {version} {size_note}" in found


@pytest.mark.parametrize("name", ["steps", "traces"])
def test_a_table_that_cant_be_read_is_named_and_the_others_are_checked(
    warehouse: Warehouse, name: str
) -> None:
    for file in Path(warehouse.root, "tables", name).glob("*.parquet"):
        file.write_bytes(b"\0" * file.stat().st_size)
    append(warehouse, "behaviors", [
        {"trace_id": "ghost", "behavior": "regions", "method": "rule", "count": 1}
    ], "x")  # fmt: skip
    first, *others = wrong(warehouse)
    assert first.startswith(f"{name}: it can't be read: ")
    lost = "behaviors: 1 rows' trace_id is not in traces, such as ghost"
    assert others == ([lost] if name == "steps" else [])


@pytest.mark.parametrize(("table", "column"), [("steps", "trace_id"), ("traces", "question_id")])
def test_a_table_with_a_damaged_column_behind_a_sound_footer_is_named(
    warehouse: Warehouse, table: str, column: str
) -> None:
    """The key, or a column that refers to another table."""
    for file in Path(warehouse.root, "tables", table).glob("*.parquet"):
        data, written = bytearray(file.read_bytes()), pq.read_metadata(file)
        chunks = [written.row_group(0).column(i) for i in range(written.num_columns)]
        (chunk,) = (one for one in chunks if one.path_in_schema == column)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        data[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
        file.write_bytes(data)
    (found,) = wrong(warehouse)
    assert found.startswith(f"{table}: it can't be read: ")


def test_children_without_parents_doubled_keys_and_unfinished_commits_are_reported(
    warehouse: Warehouse,
) -> None:
    append(warehouse, "behaviors", [
        {"trace_id": "ghost", "behavior": "regions", "method": "rule", "count": 1}
    ], "x")  # fmt: skip
    for app_id in "ab":
        review = {"review_id": "r", "trace_id": scan(warehouse, "traces")["trace_id"][0].as_py()}
        append(warehouse, "reviews", [review], app_id)
    half = {"trace_id": "t", "step": 0, "commit_id": "never"}
    append(warehouse, "steps", [half], "killed")
    assert wrong(warehouse) == [
        "reviews: 1 keys (review_id) name more than one row",
        "behaviors: 1 rows' trace_id is not in traces, such as ghost",
    ]
    remarks = [finding.sentence for finding in check(warehouse) if not finding.wrong]
    assert remarks == ["steps: 1 commits never finished; their rows are not shown"]


def test_compacting_changes_no_row_and_keeps_what_a_published_statement_read(
    warehouse: Warehouse,
) -> None:
    stated = {name: max(numbers) for name, numbers in stated_versions(warehouse).items()}
    tables = ("traces", "steps", "verdicts", "trees", "questions", "images")
    before = {name: query(warehouse, f"FROM {name} ORDER BY ALL").to_pylist() for name in tables}
    trace_id = before["traces"][0]["trace_id"]
    for i in range(3):
        behavior = {"trace_id": trace_id, "behavior": str(i), "method": "m", "count": 1}
        append(warehouse, "behaviors", [behavior], str(i))
    done = {each.table: each for each in compact(warehouse, keep_days=0)}
    assert (done["steps"].before, done["steps"].after) == (3, 1)
    assert done["steps"].removed == 0  # a@v1 was cut from them
    assert done["behaviors"].removed == 3  # no version needs these
    again = {each.table: each for each in compact(warehouse, keep_days=0)}
    assert again["behaviors"].removed == 0, "what an earlier one removed is not told again"
    for name in tables:
        assert query(warehouse, f"FROM {name} ORDER BY ALL").to_pylist() == before[name]
    assert wrong(warehouse) == []
    with connect(warehouse, stated) as con:
        assert con.sql("FROM traces ORDER BY ALL").to_arrow_table().to_pylist() == before["traces"]
    again = publish(warehouse, "again", KEPT)
    assert again.content_hash == json.loads(
        Path(warehouse.root, "datasets/a/v1/card.json").read_text()
    )["content_hash"]  # fmt: skip
    assert {each.table: each.before for each in compact(warehouse, keep_days=0)}["steps"] == 1


def test_what_was_current_within_the_days_to_keep_is_kept(warehouse: Warehouse) -> None:
    for i in range(3):
        insert_new(warehouse, "models", [{"model_id": str(i)}])
    version = open_table(warehouse, "models").version()  # type: ignore[union-attr]
    assert {each.table: each.removed for each in compact(warehouse, keep_days=1)}["models"] == 0
    with connect(warehouse, {"models": version}, ["models"]) as con:
        assert con.execute("SELECT count(*) FROM models").fetchall() == [(3,)]


def test_files_that_mix_finished_and_unfinished_commits_show_the_finished(
    tmp_path: Path,
) -> None:
    warehouse = Warehouse(str(tmp_path / "a folder"))
    commit_trees(warehouse, shard("a", "b"), run_id="r")
    code = f"""
from tests.warehouse import test_tables
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees
commit_trees(Warehouse({warehouse.root!r}), test_tables.shard("c"), run_id="r")
"""
    killed = in_process(code, VIGORL_FAILPOINT="between_tables:2")
    assert killed.wait(timeout=120) == 137
    commit_trees(warehouse, shard("d"), run_id="r")
    late = {"trace_id": "t", "filter": "f", "version": 1, "keep": True}
    insert_new(warehouse, "verdicts", [late])
    append(warehouse, "verdicts", [{**late, "filter": "g", "commit_id": "never"}], "killed")
    for _ in range(3):
        assert (count(warehouse, "nodes"), count(warehouse, "responses")) == (6, 3)
        assert query(warehouse, "SELECT filter FROM verdicts")["filter"].to_pylist() == ["f"]
        assert scan(warehouse, "nodes").num_rows == 8
        if len(open_table(warehouse, "nodes").file_uris()) > 1:  # type: ignore[union-attr]
            compact(warehouse, keep_days=0)  # now one file holds both kinds
        else:  # without its notes, the commits are read
            for notes in Path(warehouse.root).glob("tables/*/_commits"):
                shutil.rmtree(notes)
    commit_trees(warehouse, shard("c"), run_id="r")  # the killed work is done again
    assert (count(warehouse, "nodes"), count(warehouse, "responses")) == (8, 4)


def test_a_column_that_only_an_unfinished_commit_has_is_null(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    commit_trees(warehouse, shard("a"), run_id="r")
    known = scan(warehouse, "nodes").drop_columns(["problems"])
    shutil.rmtree(Path(warehouse.root, "tables/nodes"))
    write_deltalake(warehouse.table_uri("nodes"), known)
    half = {"tree_id": "b", "node_id": 0, "problems": ["x"], "commit_id": "never"}
    append(warehouse, "nodes", [half], "killed")
    found = query(warehouse, "SELECT tree_id, problems FROM nodes").to_pylist()
    assert found == 2 * [{"tree_id": "a", "problems": None}]


def test_writers_go_on_while_files_are_merged(warehouse: Warehouse) -> None:
    stop, failed = threading.Event(), []
    written = 0

    def write() -> None:
        nonlocal written
        try:
            while not stop.is_set() or written < 8:
                commit_trees(warehouse, shard(f"t{written}"), run_id="r")
                insert_new(warehouse, "models", [{"model_id": str(written)}])
                written += 1
        except Exception as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(3):
        compact(warehouse, keep_days=0)
    stop.set()
    writer.join(timeout=120)
    assert not failed and written >= 8
    assert count(warehouse, "models") == written
    assert count(warehouse, "nodes") == 2 * written


def test_any_duckdb_client_opens_the_snapshot_and_a_new_one_replaces_it(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    path = snapshot(warehouse)
    with duckdb.connect(str(path), read_only=True) as reader:
        insert_new(warehouse, "models", [{"model_id": "new"}])
        assert reader.execute("SELECT count(*) FROM models").fetchall() == [(0,)]
        assert snapshot(warehouse) == path
        assert reader.execute("SELECT count(*) FROM kept_traces").fetchall() == [(3,)]
        comments = reader.execute("SELECT comment FROM duckdb_columns() WHERE NOT internal")
        assert all(text for (text,) in comments.fetchall() if text is not None)
    with duckdb.connect(str(path), read_only=True) as reader:
        assert reader.execute("SELECT count(*) FROM models").fetchall() == [(1,)]
    assert [p.name for p in Path(warehouse.root).glob("*duckdb*")] == ["vigorl.duckdb"]
    with pytest.raises(WarehouseError, match="its folder does not exist"):
        snapshot(warehouse, tmp_path / "nowhere" / "x.duckdb")


def test_a_snapshot_overwrites_no_database_of_somebody_elses(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    path = tmp_path / "mine.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE notes AS SELECT 1 AS n")
    with pytest.raises(WarehouseError, match=r"mine\.duckdb is no snapshot"):
        snapshot(warehouse, path)
    with duckdb.connect(str(path)) as con:
        assert con.execute("FROM notes").fetchall() == [(1,)]
        con.execute("CREATE VIEW traces AS FROM notes")
    with pytest.raises(WarehouseError, match="is no snapshot"):
        snapshot(warehouse, path)


def test_sorting_puts_a_traces_rows_side_by_side_and_changes_none(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    names = [f"{i:02d}" for i in range(20)]
    for some in (names[::2], names[1::2]):  # two builds that ran side by side
        commit_trees(warehouse, shard(*some), run_id="r")
    before = query(warehouse, "FROM nodes ORDER BY ALL").to_pylist()
    plain = {each.table: each.after for each in compact(warehouse)}
    assert plain["nodes"] == 1 and _stored(warehouse, "nodes") != sorted(names * 2)
    compact(warehouse, sort=True)
    assert _stored(warehouse, "nodes") == sorted(names * 2)
    assert query(warehouse, "FROM nodes ORDER BY ALL").to_pylist() == before
    assert set(SORTED_BY) <= set(TABLES)
    assert all(column in TABLES[name].schema.names for name, column in SORTED_BY.items())


def _stored(warehouse: Warehouse, name: str) -> list[str]:
    """The tree ids of a table of one file, in the order of its rows."""
    (uri,) = open_table(warehouse, name).file_uris()  # type: ignore[union-attr]
    return [str(tree_id) for tree_id in pq.read_table(uri)["tree_id"].to_pylist()]


@pytest.mark.parametrize("kept", [7, 0])
def test_what_is_new_behind_merged_files_is_told_only_while_these_are_kept(tmp_path, kept):
    warehouse = Warehouse(str(tmp_path / "home"))
    for number in range(3):
        record_run(warehouse, f"run-{number}", "build", task="sat2")
    seen = mark(warehouse, {"runs": table_versions(warehouse)["runs"]})
    record_run(warehouse, "run-new", "build", task="sat2")
    compact(warehouse, keep_days=kept)
    with connect(warehouse, names=["runs"]) as con:
        now = table_versions(warehouse)["runs"]
        assert show_added(con, warehouse, "runs", seen, now) == bool(kept)
        if kept:
            assert con.sql("SELECT run_id FROM added_runs").fetchall() == [("run-new",)]
