"""A warehouse that older code wrote is read, checked, published from and exported."""

from __future__ import annotations

import asyncio
import json
import tarfile
from pathlib import Path

import pytest

from flows.stages.curate import curate_trees
from tests.support.scripted import QUESTION
from tests.support.zoom_trees import LOOKS
from tests.warehouse.test_tree_views import store
from tests.warehouse.test_zoom_tables import SEARCH
from warehouse.exports.export import export
from warehouse.maintenance.check import check
from warehouse.query.run_query import connect, query
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import image_row, question_row
from warehouse.versions.bundle import hash_rows
from warehouse.versions.certificate import certificate
from warehouse.versions.selection import choose
from warehouse.versions.versions import (
    list_versions,
    open_version,
    publish,
    read_tables,
    resolve,
    show,
)

ARCHIVE = Path(__file__).parents[1] / "support" / "warehouse-af46912.tar.gz"
"""Made by revision af46912: two questions searched and curated, published, exported, evaluated."""
CONTENT_HASH = "7dc3e49f2838b54b3f12b1d27a848adfe387c7c4f6fe63f89822edae290a28cb"


def unpack(folder: Path) -> Warehouse:
    """The warehouse in a folder of its own."""
    with tarfile.open(ARCHIVE) as archive:  # CPython before 3.11.4 has no filters
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    return Warehouse(str(folder))


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return unpack(tmp_path / "old")


def test_sql_counts_what_the_older_code_wrote(warehouse: Warehouse) -> None:
    kinds = query(warehouse, "SELECT origin, kind, count(*) n FROM traces GROUP BY ALL").to_pylist()
    assert {(row["origin"], row["kind"]): row["n"] for row in kinds} == {
        ("search", "direct"): 96,
        ("search", "corrected"): 74,
        ("evaluation", "answered"): 2,
    }
    totals = "SELECT (SELECT count(*) FROM steps) steps, (SELECT count(*) FROM trees) trees"
    assert query(warehouse, totals).to_pylist() == [{"steps": 1021, "trees": 2}]
    (evaluation,) = query(warehouse, "FROM evaluations").to_pylist()
    assert (evaluation["benchmark"], evaluation["accuracy"]) == ("sat2/test", 0.5)
    assert query(warehouse, "FROM kept_traces").num_rows == 87
    assert query(warehouse, "FROM verdict_funnel").num_rows > 5


def test_its_version_is_whole_and_its_card_is_shown(warehouse: Warehouse) -> None:
    version = resolve(warehouse, "sat2-sft@v1")
    assert (version.content_hash, version.n_rows) == (CONTENT_HASH, 87)
    with open_version(warehouse, version) as folder:
        assert hash_rows(folder / "rows.parquet") == CONTENT_HASH
    assert list(check(warehouse)) == []
    text = show(warehouse, "sat2-sft")
    assert CONTENT_HASH in text and "no evaluation set to compare with" in text


def test_its_certificate_can_be_made_again(warehouse: Warehouse) -> None:
    """When it was published, the warehouse held no evaluation question yet."""
    version = resolve(warehouse, "sat2-sft@v1")
    tables = read_tables(version)
    with connect(warehouse, tables) as con:
        choose(con, version.card["sql"])
        assert certificate(warehouse, con, tables) == version.card["decontamination"]


def test_the_stored_statement_gives_the_same_version_again(warehouse: Warehouse) -> None:
    stored = resolve(warehouse, "sat2-sft@v1")
    assert publish(warehouse, "sat2-sft", stored.card["sql"]) == stored
    other = publish(warehouse, "renamed", stored.card["sql"])
    assert other.content_hash == CONTENT_HASH
    assert [v.ref for v in list_versions(warehouse)] == ["renamed@v1", "sat2-sft@v1"]


def test_its_version_is_exported(warehouse: Warehouse, tmp_path: Path) -> None:
    from datasets import load_dataset

    out = export(warehouse, resolve(warehouse, "sat2-sft@v1"), "trl", tmp_path / "out")
    rows = load_dataset(str(out), split="train")
    assert len(rows) == 87
    assert rows[0]["messages"][-1]["role"] == "assistant" and len(rows[0]["images"]) == 1
    assert json.loads((out / "export.json").read_text())["content_hash"] == CONTENT_HASH


def test_dialogues_are_stored_beside_what_the_older_code_wrote(warehouse: Warehouse) -> None:
    insert_new(warehouse, "images", [image_row(QUESTION.images[0])])
    insert_new(warehouse, "questions", [question_row(QUESTION)])
    store(warehouse, QUESTION, "looks", "m", script=LOOKS, **SEARCH)
    assert asyncio.run(curate_trees(warehouse, "r", ["looks"])) == 3
    kinds = query(warehouse, "SELECT kind, count(*) AS n FROM traces GROUP BY ALL").to_pylist()
    counts = {row["kind"]: row["n"] for row in kinds}
    assert counts == {"direct": 96, "corrected": 75, "answered": 2, "zoom": 2}
    (ledger,) = query(warehouse, "FROM zoom_calls").to_pylist()
    assert (ledger["traces"], ledger["calls"]) == (2, 3)
    sql = f"{resolve(warehouse, 'sat2-sft').card['sql']} AND kept_traces.tree_id <> 'looks'"
    assert publish(warehouse, "older", sql).content_hash == CONTENT_HASH
