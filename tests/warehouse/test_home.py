"""Where a warehouse is, and what its tables are reached with."""

from __future__ import annotations

import copy
from pathlib import Path

import pyarrow.fs
import pytest

from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse, WarehouseError, first_line
from warehouse.storage.objects import LocalObjects, S3Objects
from warehouse.tables.delta import insert_new

VARIABLES = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "VIGORL_HOME",
    "XDG_CACHE_HOME",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_a_folder_needs_no_options_and_holds_everything(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    assert not warehouse.is_s3 and warehouse.storage_options is None
    assert isinstance(warehouse.objects, LocalObjects)
    assert warehouse.journal_dir == tmp_path / "journal"
    assert warehouse.table_uri("traces") == f"{tmp_path}/tables/traces"
    (tmp_path / "tables" / "traces").mkdir(parents=True)
    (tmp_path / "tables" / "traces" / "part").write_bytes(b"abc")
    assert warehouse.arrow_filesystem("traces").get_file_info("part").size == 3


def test_a_bucket_is_reached_with_conditional_puts_and_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    warehouse = Warehouse("s3://bucket/some/prefix/")
    assert warehouse.root == "s3://bucket/some/prefix"
    assert isinstance(warehouse.objects, S3Objects)
    assert (warehouse.objects.bucket, warehouse.objects.prefix) == ("bucket", "some/prefix")
    plain = {"aws_conditional_put": "etag", "aws_region": "us-east-1"}
    assert warehouse.storage_options == plain
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert warehouse.storage_options == {**plain, "aws_region": "eu-west-1"}
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert warehouse.storage_options == {**plain, "aws_region": "eu-north-1"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://all:9000")
    given = warehouse.storage_options
    assert (given["aws_endpoint"], given["aws_allow_http"]) == ("https://all:9000", "false")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store:9000")
    given = warehouse.storage_options
    assert (given["aws_endpoint"], given["aws_allow_http"]) == ("http://store:9000", "true")
    tables = warehouse.arrow_filesystem("traces")
    assert tables.base_path == "bucket/some/prefix/tables/traces/"
    assert isinstance(tables.base_fs, pyarrow.fs.S3FileSystem)
    assert tables.base_fs.region == "eu-north-1"
    assert warehouse.objects.client.meta.region_name == "eu-north-1", "the same for all clients"


def test_journals_of_a_bucket_are_kept_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    warehouse = Warehouse("s3://bucket/some/prefix")
    assert warehouse.journal_dir == Path.home() / ".cache/vigorl/bucket_some_prefix/journal"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert warehouse.journal_dir == tmp_path / "vigorl/bucket_some_prefix/journal"


def test_a_warehouse_that_is_not_named_is_the_environments_or_lies_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Warehouse.at(None).root == str(tmp_path / "vigorl-data")
    monkeypatch.setenv("VIGORL_HOME", "s3://bucket")
    assert Warehouse.at("").root == "s3://bucket"
    assert Warehouse.at("here").root == str(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Warehouse.at("~/there").root == str(tmp_path / "there")


def test_an_error_without_words_is_told_by_its_type() -> None:
    assert first_line(KeyError()) == "KeyError"
    assert first_line(OSError(" full\nof things ")) == "full"


def test_another_process_opens_a_connection_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    warehouse = Warehouse("s3://bucket/vigorl")
    assert isinstance(warehouse.objects, S3Objects)
    assert warehouse.objects.client is not None  # which can't be pickled
    sent = copy.copy(warehouse)  # as pickle does
    assert sent == warehouse
    assert "objects" not in vars(sent)


@pytest.mark.parametrize("name", ["st*r", "wh?t", "br[ab]", "back\\slash", "a%20b"])
def test_a_folder_that_the_table_libraries_would_misread_is_refused(tmp_path, name):
    with pytest.raises(WarehouseError, match="in the path of a warehouse") as told:
        Warehouse(str(tmp_path / name / "home"))
    assert str(tmp_path) in str(told.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "root", ["gs://b/x", "http://host/x", "file:///tmp/x", "S3://b/x", "s3:/b/x", "az://c/x"]
)
def test_another_kind_of_address_is_refused_and_makes_no_folder(root):
    with pytest.raises(WarehouseError, match="a warehouse is a folder or s3://bucket/prefix"):
        Warehouse(root)


@pytest.mark.parametrize(
    "name", ["with space", "50%", "hash#x", "it's", "ümlaut", "col:on", "{a,b}"]
)
def test_other_names_of_folders_are_written_and_read(tmp_path, name):
    home = Warehouse(str(tmp_path / name))
    insert_new(home, "models", [{"model_id": "m"}])
    assert query(home, "SELECT model_id FROM models")["model_id"].to_pylist() == ["m"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
