"""The warehouse benchmark measures what it says: equal rows on both sides, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.warehouse import __main__ as bench
from benchmarks.warehouse import synthetic
from benchmarks.warehouse.sql_questions import sql_questions
from benchmarks.warehouse.stores import fill
from warehouse.maintenance.compact import compact
from warehouse.query.run_query import query

TRACES = 320


def test_one_seed_makes_one_set_of_rows_in_order_and_shuffling_keeps_them() -> None:
    (batch,), (same,), (other,) = (list(synthetic.batches(TRACES, 1, seed)) for seed in (7, 7, 8))
    assert batch["steps"].equals(same["steps"])
    assert not batch["steps"].equals(other["steps"])
    assert batch["traces"].num_rows == TRACES
    assert 8 * TRACES < batch["steps"].num_rows < 12 * TRACES
    order = [("question_id", "ascending"), ("tree_id", "ascending"), ("trace_id", "ascending")]
    assert batch["traces"].equals(batch["traces"].sort_by(order))
    mixed = synthetic.shuffled(batch)
    for name, table in batch.items():
        assert mixed[name].num_rows == table.num_rows
    assert not mixed["traces"].equals(batch["traces"])
    key = [("trace_id", "ascending"), ("step", "ascending")]
    assert mixed["steps"].sort_by(key).equals(batch["steps"].sort_by(key))


@pytest.mark.slow
def test_both_sides_hold_the_same_and_answer_the_same(tmp_path: Path) -> None:
    warehouse, plain, spent = fill(tmp_path, TRACES, 2)
    assert spent.plain_s > 0 and spent.warehouse_s > 0
    for _ in range(2):
        for question in sql_questions():
            if question.number in (18, 25):  # who wrote the rows; the columns' sentences
                continue
            ours, theirs = query(warehouse, question.sql), plain.query(question.sql)
            assert ours.num_rows == theirs.num_rows, question.title
            for mine, other in zip(ours.to_pylist(), theirs.to_pylist(), strict=True):
                assert mine == pytest.approx(other), question.title
        compact(warehouse)


@pytest.mark.slow
def test_the_table_is_printed_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_QUICK_S", 0.0)
    argv = ["--traces", str(TRACES), "--runs", "1", "--seconds", "2", "--folder", str(tmp_path)]
    assert bench.main(argv) == 0
    printed = capsys.readouterr().out
    for what in ("ingest of", "23. ", "publish of 320 rows", "2 writers", "half commits", "reader"):
        assert what in printed
    assert "0 lost" in printed and "0 half" in printed and "0 errors" in printed
    assert list(tmp_path.iterdir()) == []
