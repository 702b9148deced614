"""Two versions compared: every row that differs has its reason, and the reason is true."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from mcts.data import Verdict
from tests.warehouse.test_versions import KEPT, fill, traces_of
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.delta import commit_traces, insert_new, open_table
from warehouse.tables.rows import read_questions, trace_rows, verdict_row
from warehouse.versions.diff import Diff, diff
from warehouse.versions.revocations import revoke
from warehouse.versions.versions import publish

ALL = "SELECT trace_id FROM traces"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    fill(Warehouse(str(folder / "home")), folder / "in")
    return folder / "home"


@pytest.fixture
def warehouse(filled: Path, tmp_path: Path) -> Warehouse:
    return Warehouse(str(shutil.copytree(filled, tmp_path / "home")))


def rejudge(warehouse: Warehouse, name: str, keep: dict[str, bool], version: int = 2) -> None:
    """A newer version of the filters: one filter beside right_answer, with its word on each."""
    rows = query(warehouse, "SELECT trace_id, reward FROM traces").to_pylist()
    verdicts = []
    for row in rows:
        right = Verdict("right_answer", row["reward"] == 1.0, "")
        other = Verdict(name, keep[row["trace_id"]], "" if keep[row["trace_id"]] else "too near")
        verdicts += [verdict_row(row["trace_id"], v, version) for v in (right, other)]
    insert_new(warehouse, "verdicts", [{**row, "run_id": "again"} for row in verdicts])


def kept(warehouse: Warehouse) -> list[str]:
    return query(warehouse, f"{KEPT} ORDER BY 1")["trace_id"].to_pylist()


def explained(found: Diff) -> set[tuple[str, str, str, str]]:
    return {(d.trace_id, d.change, d.reason, d.what) for d in found.differences}


def test_one_filter_changed_explains_every_difference(warehouse: Warehouse) -> None:
    ids = query(warehouse, ALL)["trace_id"].to_pylist()
    good = kept(warehouse)
    rejudge(warehouse, "apart", {i: i != good[0] for i in ids}, version=2)
    first = publish(warehouse, "a", KEPT)
    rejudge(warehouse, "apart", {i: i != good[1] for i in ids}, version=3)
    second = publish(warehouse, "a", KEPT)
    found = diff(warehouse, first, second)
    assert explained(found) == {
        (good[1], "removed", "filter", "apart"),
        (good[0], "added", "filter", "apart"),
    }
    assert found.sentence() == (
        "a@v1 (2 rows) -> a@v2 (2 rows): 1 removed, 1 added, 0 changed, 1 the same"
    )
    removed, added = found.differences
    assert removed.detail == (
        "apart: dropped by version 3 of the filters, in a@v2 (too near), kept by version 2, in a@v1"
    )
    assert "dropped by version 2 of the filters, in a@v1 (too near)" in added.detail
    backwards = diff(warehouse, second, first)
    assert {(d.trace_id, d.change) for d in backwards.differences} == {
        (good[1], "added"),
        (good[0], "removed"),
    }


def test_a_filter_that_was_not_applied_before_is_new(warehouse: Warehouse) -> None:
    first, good = publish(warehouse, "a", KEPT), kept(warehouse)
    ids = query(warehouse, ALL)["trace_id"].to_pylist()
    rejudge(warehouse, "apart", {i: i == good[0] for i in ids})
    found = diff(warehouse, first, publish(warehouse, "a", KEPT))
    assert explained(found) == {(i, "removed", "filter", "apart") for i in good[1:]}
    assert all(d.detail.endswith("not applied in a@v1") for d in found.differences)
    (line,) = found.summary()
    assert (line["change"], line["what"], line["rows"]) == ("removed", "apart", 2)


def test_another_statement_on_the_same_tables_is_the_reason(warehouse: Warehouse) -> None:
    wide, narrow = publish(warehouse, "a", ALL), publish(warehouse, "a", KEPT)
    gone = set(query(warehouse, ALL)["trace_id"].to_pylist()) - set(kept(warehouse))
    assert explained(diff(warehouse, wide, narrow)) == {
        (i, "removed", "statement", "right_answer") for i in gone
    }
    assert explained(diff(warehouse, narrow, wide)) == {
        (i, "added", "statement", "right_answer") for i in gone
    }
    assert diff(warehouse, wide, wide).sentence() == "a@v1 (6 rows) -> a@v1 (6 rows): the same rows"


def test_what_a_revocation_took_out_is_reported_with_its_reason(warehouse: Warehouse) -> None:
    first, (one, *rest) = publish(warehouse, "a", KEPT), kept(warehouse)
    revoke(warehouse, "trace", one, "points at nothing")
    second = publish(warehouse, "a", KEPT)
    (difference,) = diff(warehouse, first, second).differences
    assert dataclasses.astuple(difference) == (
        one, "removed", "revoked", f"trace {one}", "points at nothing"
    )  # fmt: skip
    assert second.card["revoked"] == [
        {"subject": "trace", "value": one, "reason": "points at nothing", "rows": 1}
    ]
    assert second.n_rows == len(rest)


def test_new_questions_trees_and_cuts_are_distinguished(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    """From nothing but questions, step by step: what was missing last is the reason."""
    new = Warehouse(str(tmp_path / "new"))
    whole = publish(fill(new, tmp_path / "in"), "whole", ALL)
    old = publish(warehouse, "a", KEPT)
    question = next(iter(read_questions(warehouse)))
    again = [dataclasses.replace(t, maker="linearize/2") for t in traces_of(question)]
    rows, steps, verdicts = [], [], []
    for trace in again:
        row, its_steps = trace_rows(trace, task="sat2", text="…", model="teacher@1")
        rows.append(row)
        steps += its_steps
        keep = Verdict("right_answer", trace.reward == 1.0, "")
        verdicts.append(verdict_row(trace.trace_id, keep, 1))
    commit_traces(warehouse, rows, steps=steps, verdicts=verdicts, run_id="cut-2")
    found = diff(warehouse, old, publish(warehouse, "a", KEPT))
    assert {(d.change, d.reason) for d in found.differences} == {
        ("removed", "linearizer"), ("added", "linearizer")
    }  # fmt: skip
    assert any(d.trace_id == again[0].trace_id for d in found.differences)
    assert whole.n_rows == 6


def test_a_question_imported_since_is_the_reason(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path / "home"))
    fill(warehouse, tmp_path / "in", order=(0,))
    first = publish(warehouse, "a", KEPT)
    fill(warehouse, tmp_path / "in", order=(1,), run_id="later")
    second = publish(warehouse, "a", KEPT)
    assert {(d.change, d.reason) for d in diff(warehouse, first, second).differences} == {
        ("added", "question")
    }


def test_traces_that_compete_are_reported_to_compete(warehouse: Warehouse) -> None:
    best = "SELECT trace_id FROM kept_traces ORDER BY trace_id LIMIT 2"
    ids = query(warehouse, ALL)["trace_id"].to_pylist()
    good, first = kept(warehouse), publish(warehouse, "a", best)
    rejudge(warehouse, "apart", {i: i != good[0] for i in ids})
    assert explained(diff(warehouse, first, publish(warehouse, "a", best))) == {
        (good[0], "removed", "filter", "apart"),
        (good[2], "added", "others", "verdicts"),
    }


def test_a_row_whose_columns_differ_is_changed(warehouse: Warehouse) -> None:
    first = publish(warehouse, "a", KEPT)
    delta = open_table(warehouse, "questions")
    assert delta is not None
    delta.update(updates={"licence": "'CC-BY-4.0'"})
    second = publish(warehouse, "a", KEPT)
    found = diff(warehouse, first, second)
    assert {(d.change, d.what, d.detail) for d in found.differences} == {
        ("changed", "licence", "licence: MIT -> CC-BY-4.0")
    }
    assert found.sentence().endswith("0 removed, 0 added, 3 changed, 0 the same")


def test_tables_that_are_gone_are_one_sentence(warehouse: Warehouse) -> None:
    wide, narrow = publish(warehouse, "a", ALL), publish(warehouse, "a", KEPT)
    for file in (Path(warehouse.root) / "tables" / "verdicts").glob("**/*.parquet"):
        file.unlink()
    with pytest.raises(WarehouseError, match="a@v1 was cut from can't be read"):
        diff(warehouse, wide, narrow)
    assert json.dumps(wide.card)


def test_versions_with_different_columns_are_compared_by_those_of_both(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    from warehouse.versions.diff import _compare

    shared = {"question_id": ["q"], "tree_id": ["s"], "trace_id": ["t"]}
    for name, more in (
        ("old", {"text": ["a"], "gone": [1]}),
        ("new", {"text": ["b"], "came": [2]}),
    ):
        pa.parquet.write_table(pa.table({**shared, **more}), tmp_path / name)
    differing, changed = _compare(tmp_path / "old", tmp_path / "new")
    assert not differing.num_rows
    assert [(d.what, d.detail) for d in changed] == [("text", "text: a -> b")]
