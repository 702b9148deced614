"""Objects and tables in a folder and on S3 (a local stand-in server), through the same code."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest
from botocore.exceptions import ClientError

from flows.stages.curate import find_uncurated, read_filters, summarize
from mcts.coordinates import CoordinateSpace, SpaceKind
from mcts.teachers.local.teacher import checkpoint_identity
from tests.support.s3_server import running_s3
from tests.warehouse.test_tables import counts, in_process, shard
from tests.warehouse.test_versions import fill
from warehouse.exports.export import export
from warehouse.maintenance.backup import backup
from warehouse.maintenance.check import check
from warehouse.maintenance.compact import compact
from warehouse.maintenance.delete import delete_source
from warehouse.models import ModelInfo, open_model, store_model
from warehouse.query.run_query import QueryError, connect, query
from warehouse.query.snapshot import snapshot
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.storage.objects import LocalObjects, Objects, S3Objects, image_key, put_images
from warehouse.tables.delta import append, commit_trees, insert_new
from warehouse.tables.tree_rows import SearchRows
from warehouse.versions.versions import list_versions, publish, resolve


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a running S3 stand-in."""
    with running_s3() as url:
        yield url


slow_on_s3 = pytest.mark.parametrize(
    "warehouse", ["folder", pytest.param("s3", marks=pytest.mark.slow)], indirect=True
)


@pytest.fixture(params=["folder", "s3"])
def warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Warehouse:
    if request.param == "folder":
        return Warehouse(str(tmp_path / "home"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"b{time.monotonic_ns()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return Warehouse(f"s3://{bucket}/some/prefix")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    folder = tmp_path_factory.mktemp("made")
    return fill(Warehouse(str(folder / "home")), folder / "in")


@pytest.fixture
def filled(warehouse: Warehouse, made: Warehouse) -> Warehouse:
    """It with three questions and six traces: a copy takes a fraction of the requests of `fill`."""
    backup(made, warehouse.root)
    return warehouse


@pytest.fixture
def objects(warehouse: Warehouse) -> Objects:
    return warehouse.objects


def test_what_is_put_can_be_read_and_listed(objects: Objects, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"two")
    assert objects.put("reports/b/1.csv", b"one")
    assert objects.put_file("reports/a.csv", tmp_path / "file")
    assert objects.get("reports/b/1.csv") == b"one"
    assert objects.exists("reports/a.csv")
    assert not objects.exists("reports/c.csv")
    assert objects.keys("reports") == ["reports/a.csv", "reports/b/1.csv"]
    assert objects.keys("nothing") == []
    with objects.local_path("reports/a.csv") as path:
        assert path.read_bytes() == b"two"
    for read in (objects.get, lambda key: objects.local_path(key).__enter__()):
        with pytest.raises(KeyError):
            read("reports/c.csv")


def test_a_name_is_given_once_and_its_bytes_never_change(objects: Objects) -> None:
    assert objects.put("a/b", b"first")
    assert not objects.put("a/b", b"second")
    assert objects.get("a/b") == b"first"


def test_of_many_who_put_one_name_at_once_one_wins(objects: Objects) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: objects.put("a/b", bytes([i])), range(8)))
    assert won.count(True) == 1
    assert objects.get("a/b") == bytes([won.index(True)])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the file system is asked to make lasting or to name, in order, by file name."""
    asked: list[tuple[str, str]] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def synced(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").resolve()
        asked.append(
            ("sync", f"{path.name} {path.stat().st_size}" if path.is_file() else path.name)
        )
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    for name, real in (("link", link), ("replace", replace)):

        def named(old: Path, new: Path, name: str = name, real: Any = real) -> None:
            asked.append((f"{name} {Path(old).name}", Path(new).name))
            real(old, new)

        monkeypatch.setattr(os, name, named)
    return asked


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of open files")
def test_bytes_are_on_the_disk_before_they_have_a_name_and_the_name_then_is(
    tmp_path: Path, disk: list[tuple[str, str]]
) -> None:
    objects = LocalObjects(tmp_path / "home")
    (tmp_path / "file").write_bytes(b"x" * (2**21 + 3))
    assert objects.put("a/one", b"four")
    assert objects.put_file("b/two", tmp_path / "file", replace=True)
    one, two = disk[:3], disk[3:]
    for told, act, name, size in ((one, "link", "one", 4), (two, "replace", "two", 2**21 + 3)):
        (sync, written), (done, target), folder = told
        assert (sync, done, target) == ("sync", f"{act} {written.split()[0]}", name)
        assert written.endswith(f" {size}"), "all its bytes, and not only what was flushed so far"
        assert folder == ("sync", "a" if name == "one" else "b")
    disk.clear()
    assert not objects.put("a/one", b"five")
    assert [act.split()[0] for act, _ in disk] == ["sync", "link"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of open files")
def test_a_snapshot_is_on_the_disk_before_it_replaces_another(
    tmp_path: Path, disk: list[tuple[str, str]]
) -> None:
    path = snapshot(Warehouse(str(tmp_path)), tmp_path / "views.duckdb")
    (_, written), (act, name), folder = disk[-3:]
    assert (act, name) == (f"replace {written.split()[0]}", path.name)
    assert written.split()[0].startswith(".views.duckdb.")
    assert folder == ("sync", tmp_path.name)


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a\\b"])
def test_a_key_that_leaves_the_root_is_refused(objects: Objects, key: str) -> None:
    with pytest.raises(ValueError, match="not an object key"):
        objects.put(key, b"")


def test_an_upload_that_breaks_off_leaves_no_object(objects: Objects, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        objects.put_file("a/b", tmp_path / "missing")
    assert not objects.exists("a/b")
    assert objects.keys("a") == []
    assert objects.put("a/b", b"whole")


def test_a_kill_during_a_put_leaves_no_object(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from warehouse.storage.objects import LocalObjects
os.fsync = lambda handle: os._exit(137)
LocalObjects(Path({str(tmp_path)!r})).put("a/b", b"x" * 100_000)
"""
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 137
    objects = Warehouse(str(tmp_path)).objects
    assert not objects.exists("a/b")
    assert objects.keys("a") == []
    assert objects.put("a/b", b"whole")
    assert objects.get("a/b") == b"whole"


def test_images_are_stored_under_the_hash_of_their_bytes(objects: Objects) -> None:
    pictures = [b"one", b"two", b"one"]
    for _ in range(2):
        put_images(objects, pictures)
    assert len(objects.keys("images")) == 2
    image_id = hashlib.sha256(b"two").hexdigest()
    assert image_key(image_id) == f"images/{image_id[:2]}/{image_id}"
    assert objects.get(image_key(image_id)) == b"two"


def test_tables_behave_the_same_wherever_they_are(warehouse: Warehouse) -> None:
    tree = {"tree_id": "t", "question_id": "q", "task": "sat2", "any_right": True}
    node = {"tree_id": "t", "node_id": 0, "problems": ["empty_think"]}
    behavior = {"trace_id": "t", "behavior": "regions", "method": "rule", "count": 2}
    for _ in range(2):
        commit_trees(warehouse, SearchRows([tree], [node]), run_id="r")
        append(warehouse, "behaviors", [behavior], app_id="a")
        insert_new(warehouse, "images", [{"image_id": "i", "objects": None}])
    for name in ("trees", "nodes", "behaviors", "images"):
        assert query(warehouse, f"SELECT count(*) n FROM {name}")["n"][0].as_py() == 1
    sql = "SELECT problems[1] p FROM nodes JOIN trees USING (tree_id) WHERE any_right"
    assert query(warehouse, sql)["p"].to_pylist() == ["empty_think"]


async def test_the_last_steps_of_a_build_ask_for_their_trees_wherever_they_are(
    warehouse: Warehouse,
) -> None:
    commit_trees(warehouse, shard("a", "b"), run_id="r")
    assert (await summarize(warehouse, "sat2", ["a", "missing"])).trees == 1
    assert find_uncurated(warehouse, ["a"], read_filters(None)) == ["a"]


def test_writers_who_race_never_double_a_key_wherever_they_write(warehouse: Warehouse) -> None:
    def write(start: int) -> int:
        return insert_new(warehouse, "images", [{"image_id": str(start + i)} for i in range(4)])

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4))) == 7
    assert query(warehouse, "SELECT count(*) n FROM images")["n"][0].as_py() == 7


def test_questions_reach_no_file_wherever_the_tables_are(warehouse: Warehouse) -> None:
    insert_new(warehouse, "images", [{"image_id": "i"}])
    for sql in ("SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM _images"):
        with pytest.raises(QueryError):
            query(warehouse, sql)
    with connect(warehouse) as con:
        assert con.execute("SELECT count(*) FROM images").fetchall() == [(1,)]


def test_journals_are_local_even_when_the_warehouse_is_not(warehouse: Warehouse) -> None:
    assert warehouse.journal_dir.name == "journal"
    assert "s3:" not in str(warehouse.journal_dir)


@slow_on_s3
def test_versions_are_published_and_exported_wherever_they_are(
    filled: Warehouse, tmp_path: Path
) -> None:
    version = publish(filled, "a", "SELECT trace_id FROM kept_traces")
    assert publish(filled, "a", "SELECT trace_id FROM kept_traces") == version
    other = publish(filled, "a", "SELECT trace_id FROM traces")
    assert [v.ref for v in list_versions(filled)] == ["a@v1", "a@v2"]
    assert resolve(filled, "a") == other
    out = export(filled, version, "trl", tmp_path / "out")
    (file,) = (out / "data" / "train").iterdir()
    assert file.name == "train-00000-of-00001.parquet"


@pytest.mark.parametrize("warehouse", ["s3"], indirect=True)
def test_a_number_claimed_by_a_publisher_that_died_is_passed_over(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    fill(warehouse, tmp_path / "in")
    warehouse.objects.put("datasets/a/v1/claim", b"somebody")
    warehouse.objects.put("datasets/a/v1/rows.parquet", b"half")
    assert list_versions(warehouse) == []
    assert publish(warehouse, "a", "SELECT trace_id FROM kept_traces").ref == "a@v2"


@pytest.mark.parametrize("warehouse", ["s3"], indirect=True)
def test_of_two_who_publish_the_same_at_once_both_get_one_version(filled: Warehouse) -> None:
    everything = "SELECT trace_id FROM traces"
    content = publish(filled, "b", everything).content_hash
    filled.objects.put("datasets/a/v1/claim", content.encode())  # by one that is still uploading
    version = publish(filled, "a", everything)
    assert version.ref == "a@v1" and list_versions(filled, "a") == [version]
    assert publish(filled, "a", "SELECT trace_id FROM kept_traces").ref == "a@v2"


@slow_on_s3
def test_a_warehouse_is_checked_compacted_and_cleared_wherever_it_is(filled: Warehouse) -> None:
    warehouse = filled
    publish(warehouse, "a", "SELECT trace_id FROM traces")
    before = query(warehouse, "FROM steps ORDER BY ALL").to_pylist()
    append(warehouse, "steps", [{"trace_id": "t", "step": 0, "commit_id": "never"}], "killed")
    for _ in range(2):
        compact(warehouse, keep_days=0)
        assert query(warehouse, "FROM steps ORDER BY ALL").to_pylist() == before
    assert [finding.sentence for finding in check(warehouse) if finding.wrong] == []
    (source,) = query(warehouse, "SELECT DISTINCT source FROM questions")["source"].to_pylist()
    delete_source(warehouse, source, force=True)
    assert query(warehouse, "SELECT count(*) n FROM traces")["n"][0].as_py() == 0
    assert warehouse.objects.keys("images") == []
    assert list_versions(warehouse) == []
    assert [finding.sentence for finding in check(warehouse) if finding.wrong] == []


def test_a_model_is_stored_and_opened_wherever_the_warehouse_is(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    (tmp_path / "made").mkdir()
    for name, data in files.items():
        (tmp_path / "made" / name).write_bytes(data)
    info = ModelInfo("mine", None, None, {}, CoordinateSpace(SpaceKind.NORMALIZED_1000), {}, "r")
    row = store_model(warehouse, tmp_path / "made", info)
    with open_model(warehouse, row) as folder:
        assert folder.name == "mine"
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
    with pytest.raises(WarehouseError, match="the files of model mine are not in"):
        open_model(warehouse, {**row, "path": "models/other"}).__enter__()


def test_what_a_killed_run_stored_of_its_weights_is_in_no_model(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = ModelInfo("mine", None, None, {}, CoordinateSpace(SpaceKind.NORMALIZED_1000), {}, "r")
    for weights in (b"of the run that was killed", b"of the run that went on"):
        folder = tmp_path / "made" / weights.split()[-1].decode()
        folder.mkdir(parents=True)
        (folder / "config.json").write_bytes(b"{}")
        (folder / "model.safetensors").write_bytes(weights)
        with monkeypatch.context() as patch:
            if b"killed" in weights:
                patch.setattr("warehouse.models.insert_new", lambda *_: None)
            row = store_model(warehouse, folder, info)
    with open_model(warehouse, row) as opened:
        assert (opened / "model.safetensors").read_bytes() == weights
        assert checkpoint_identity(opened) == row["model_id"]


def test_a_large_file_is_put_in_parts_and_its_name_is_given_once(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.storage.objects.LARGEST_PUT", 1 << 20)
    monkeypatch.setattr("warehouse.storage.objects.PART", 5 << 20)  # the least that S3 takes
    large, other = (bytes([i]) * (12 << 20) for i in (1, 2))
    for name, data in (("large", large), ("other", other)):
        (tmp_path / name).write_bytes(data)
    assert objects.put_file("models/large", tmp_path / "large")
    assert objects.get("models/large") == large
    assert not objects.put_file("models/large", tmp_path / "other")
    if isinstance(objects, S3Objects):  # another writer was faster, while the parts were sent
        monkeypatch.setattr(S3Objects, "exists", lambda *_: False)
        assert not objects.put_file("models/large", tmp_path / "other")
        assert "Uploads" not in objects.client.list_multipart_uploads(Bucket=objects.bucket)
    assert objects.get("models/large") == large
    assert objects.put_file("models/large", tmp_path / "other", replace=True)
    assert objects.get("models/large") == other


def test_a_put_that_another_is_in_the_way_of_is_tried_again(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3's 409 says that a put is under way, not that the name is taken."""
    if not isinstance(objects, S3Objects):
        pytest.skip("a folder has no conflicts")
    monkeypatch.setattr("warehouse.storage.objects.CONFLICT_PAUSES_S", (0.0, 0.0))
    refused, put = [409, 409], objects.client.put_object

    def conflicts(**given: Any) -> Any:
        if not refused:
            return put(**given)
        given["Body"].read()  # as a client does that has sent it
        answer = {"ResponseMetadata": {"HTTPStatusCode": refused.pop()}, "Error": {"Code": "409"}}
        raise ClientError(answer, "PutObject")

    objects.ensure_safe()
    monkeypatch.setattr(objects.client, "put_object", conflicts)
    (tmp_path / "file").write_bytes(b"whole")
    assert objects.put_file("a/conflict", tmp_path / "file")
    assert objects.get("a/conflict") == b"whole"
    refused += [409] * 3
    with pytest.raises(ClientError, match="409"):
        objects.put_file("a/other", tmp_path / "file")


def test_another_file_of_the_same_size_under_a_key_is_told(
    objects: Objects, tmp_path: Path
) -> None:
    seen = set()
    for data in (b"answer A", b"answer B"):
        (tmp_path / "file").write_bytes(data)
        objects.put_file("sat2/new.csv", tmp_path / "file", replace=True)
        (listed,) = objects.versions("sat2").items()
        assert objects.versions("sat2") == dict([listed])
        seen.add(listed)
    assert len(seen) == 2 and {key for key, _ in seen} == {"sat2/new.csv"}


@slow_on_s3
def test_a_kill_during_the_upload_of_a_version_leaves_none(filled: Warehouse) -> None:
    """Killed before a folder gets its name; on S3 after the claim, the rows, before the card."""
    warehouse = filled
    kills = (1, 2, 4) if warehouse.is_s3 else (0,)
    for puts in kills:
        code = f"""
import os
from warehouse.storage.home import Warehouse
from warehouse.storage.objects import S3Objects
from warehouse.versions.versions import publish
warehouse, left, put = Warehouse({warehouse.root!r}), [{puts}], S3Objects._put
def dies(self, key, body, *more):
    if left[0] == 0:
        os._exit(137)
    left[0] -= 1
    return put(self, key, body, *more)
S3Objects._put = dies
os.rename = lambda *_: os._exit(137)
publish(warehouse, "a", "SELECT trace_id FROM traces")
"""
        root = Path(__file__).parents[2]
        killed = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
        assert killed.returncode == 137, puts
        assert list_versions(warehouse) == [], puts
        assert query(warehouse, "FROM dataset_versions").num_rows == 0
    version = publish(warehouse, "a", "SELECT trace_id FROM traces")
    assert version.ref == "a@v1", "whoever publishes the content again has its number"
    assert [finding.sentence for finding in check(warehouse) if finding.wrong] == []


def test_a_kill_between_two_tables_shows_nothing_wherever_they_are(warehouse: Warehouse) -> None:
    code = f"""
from tests.warehouse.test_tables import shard
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees
commit_trees(Warehouse({warehouse.root!r}), shard("a"), run_id="r")
"""
    killed = in_process(code, VIGORL_FAILPOINT="between_tables:2")
    _, errors = killed.communicate(timeout=120)
    assert killed.returncode == 137, errors
    assert set(counts(warehouse).values()) == {0}
    commit_trees(warehouse, shard("a"), run_id="r")
    assert counts(warehouse) == {"trees": 1, "nodes": 2, "rollouts": 1, "responses": 1}


def test_the_rows_of_dataset_versions_are_queried(
    filled: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = "SELECT name, version, count(*) AS n FROM dataset_rows GROUP BY ALL ORDER BY ALL"
    assert query(filled, count).to_pylist() == []
    publish(filled, "some", "SELECT trace_id FROM kept_traces")
    publish(filled, "every", "SELECT trace_id FROM latest_traces")
    publish(filled, "every", "SELECT trace_id FROM latest_traces WHERE reward >= 1")
    known = [("every", 1, 6), ("every", 2, 3), ("some", 1, 3)]
    rows = [{"name": name, "version": version, "n": n} for name, version, n in known]
    assert query(filled, count).to_pylist() == rows
    joined = (
        "SELECT d.answer = t.answer AS same FROM dataset_rows d JOIN traces t USING (trace_id) "
        "WHERE d.name = 'every' AND d.version = 1"
    )
    assert query(filled, joined)["same"].to_pylist() == [True] * 6
    new = publish(
        filled, "rest", "SELECT trace_id FROM latest_traces ANTI JOIN "
        "(SELECT trace_id FROM dataset_rows WHERE name = 'some') USING (trace_id)",
    )  # fmt: skip
    assert new.n_rows == 3
    monkeypatch.chdir(tmp_path)
    with duckdb.connect(str(snapshot(filled)), read_only=True) as con:
        assert con.sql(count).fetchall() == [*known[:2], ("rest", 1, 3), *known[2:]]
    for file in ("rows.parquet", "card.json"):
        key = f"{new.prefix}/{file}"
        if isinstance(filled.objects, LocalObjects):
            Path(filled.root, key).parent.chmod(0o755)
        filled.objects.delete(key)
    assert query(filled, count).to_pylist() == rows


def test_a_damaged_dataset_version_hides_no_table(filled: Warehouse, tmp_path: Path) -> None:
    good = publish(filled, "good", "SELECT trace_id FROM latest_traces")
    bad = publish(filled, "bad", "SELECT trace_id FROM kept_traces")
    key = f"{bad.prefix}/rows.parquet"
    if isinstance(filled.objects, LocalObjects):
        path = Path(filled.root, key)
        path.parent.chmod(0o755)
        path.unlink()
        path.write_bytes(b"PAR1 and no more")
    else:
        filled.objects.delete(key)
        filled.objects.put(key, b"PAR1 and no more")
    with pytest.raises(QueryError, match=r"rows\.parquet"):
        query(filled, "FROM dataset_rows")
    assert "traces" in query(filled, "SHOW TABLES")["name"].to_pylist()
    with duckdb.connect(str(snapshot(filled, tmp_path / "s.duckdb")), read_only=True) as con:
        assert con.sql("SELECT DISTINCT name FROM dataset_rows").fetchall() == [(good.name,)]
    assert any(key in finding.sentence or bad.ref in finding.sentence for finding in check(filled))
