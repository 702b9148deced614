"""What the views of verdicts say, beside what a plain reading of all verdicts says."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from flows.stages.gallery import read_funnel
from warehouse.query import verdict_funnel
from warehouse.query.run_query import connect, latest_verdicts_of, query
from warehouse.query.sql_guard import QueryError
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_traces, insert_new
from warehouse.tables.schema import Row

FILTERS = ["right_answer", "inside_image", "well_formed", "no_near_copy"]
_KEPT = """
SELECT trace_id FROM latest_traces SEMI JOIN (
    SELECT trace_id FROM latest_verdicts GROUP BY trace_id HAVING bool_and(keep)
) USING (trace_id) ORDER BY trace_id
"""
_FUNNEL = """
WITH said AS (
    SELECT * FROM latest_verdicts SEMI JOIN latest_traces USING (trace_id)
),
alone AS (
    SELECT min(filter) AS filter FROM said WHERE NOT keep GROUP BY trace_id HAVING count(*) = 1
)
SELECT filter, count(*) FILTER (keep) AS kept, count(*) FILTER (NOT keep) AS dropped,
    (SELECT count(*) FROM alone WHERE alone.filter = said.filter) AS dropped_by_it_alone
FROM said GROUP BY filter ORDER BY dropped DESC, filter
"""


@pytest.fixture(scope="module", params=[(1, 4), (2, 4), (3, 4), (4, 1), (5, 1)])
def warehouse(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Traces of two linearizers, judged by two stages, some anew, by other filters, or by none;
    or of one, judged once, which the views read in a shorter way."""
    seed, versions = request.param
    rng = random.Random(seed)
    warehouse = Warehouse(str(tmp_path_factory.mktemp("home")))
    traces = [
        {"trace_id": f"t{i}", "question_id": "q", "tree_id": f"tree{i // 4}", "task": "sat2",
         "linearizer": f"steps/{1 + (versions > 1 and i % 4 > 1 and i // 4 % 2)}"}
        for i in range(60)
    ]  # fmt: skip
    rows = [r for t in traces for stage in (None, "corpus") for r in judge(rng, t, stage, versions)]
    first = [row for row in rows if row["version"] == 1]
    commit_traces(warehouse, traces, steps=[], verdicts=first, run_id="r")
    insert_new(warehouse, "verdicts", [row for row in rows if row["version"] > 1])
    return warehouse


def judge(rng: random.Random, trace: Row, stage: str | None, versions: int) -> list[Row]:
    rows = []
    for version in range(1, min(rng.choice([1, 2, 2, 3, 4]), 1 + versions)):
        names = rng.sample(FILTERS[:3], rng.randint(1, 3)) if stage is None else FILTERS[3:]
        for name in names if rng.random() < 0.8 else ["(none)"]:
            keep = name == "(none)" or rng.random() < 0.7
            rows.append(
                {"trace_id": trace["trace_id"], "stage": stage, "version": version,
                 "filter": name, "keep": keep}
            )  # fmt: skip
    return rows


def test_kept_traces_are_those_that_every_newest_verdict_keeps(warehouse):
    kept = query(warehouse, "SELECT trace_id FROM kept_traces ORDER BY trace_id")
    assert 5 < kept.num_rows < 40
    assert kept.equals(query(warehouse, _KEPT))


def test_the_funnel_counts_the_newest_verdicts_on_the_newest_traces(warehouse):
    plain = query(warehouse, _FUNNEL).to_pylist()
    assert [row["filter"] for row in plain] != []
    assert query(warehouse, "FROM verdict_funnel").to_pylist() == plain
    funnel = read_funnel(warehouse)
    assert funnel is not None
    assert list(funnel.rows) == plain
    assert funnel.kept == query(warehouse, _KEPT).num_rows
    judged = (
        "SELECT DISTINCT trace_id FROM latest_verdicts SEMI JOIN latest_traces USING (trace_id)"
    )
    assert funnel.judged == query(warehouse, judged).num_rows


def test_the_newest_verdicts_of_some_traces_are_those_of_the_view(warehouse):
    with connect(warehouse) as con:
        con.register("chosen", pa.table({"trace_id": [f"t{i}" for i in range(0, 60, 7)]}))
        found = con.sql(f"FROM ({latest_verdicts_of('chosen')}) ORDER BY ALL").fetchall()
        view = "FROM latest_verdicts SEMI JOIN chosen USING (trace_id) ORDER BY ALL"
        assert found == con.sql(view).fetchall() != []


def test_without_verdicts_there_is_no_funnel(tmp_path: Path):
    assert read_funnel(Warehouse(str(tmp_path))) is None


@pytest.fixture
def own(warehouse: Warehouse, tmp_path: Path) -> Warehouse:
    """The same, to be changed by one test."""
    copied = Warehouse(str(shutil.copytree(warehouse.root, tmp_path / "home")))
    shutil.rmtree(f"{copied.root}/tables/verdicts/_counts", ignore_errors=True)
    return copied


def test_a_funnel_is_counted_once_until_a_verdict_is_added(own, monkeypatch):
    rows = verdict_funnel.funnel_rows(own)
    counted = []
    monkeypatch.setattr(
        verdict_funnel, "query", lambda *given, **at: counted.append(given) or query(*given, **at)
    )
    assert verdict_funnel.funnel_rows(own) == rows and counted == []
    insert_new(own, "verdicts", [
        {"trace_id": "t1", "filter": "new", "version": 1, "keep": False, "stage": "later"}
    ])  # fmt: skip
    found = {row["filter"]: row for row in verdict_funnel.funnel_rows(own)}
    assert found["new"]["dropped"] == 1 and len(counted) == 1
    for name in ("_FUNNEL", "SHORTCUTS"):
        said = getattr(verdict_funnel, name)
        monkeypatch.setattr(verdict_funnel, name, said + type(said)(" "))
        verdict_funnel.funnel_rows(own)
    assert len(counted) == 3, "another statement says something else"


@pytest.mark.parametrize("left", [b"", b"[]", b"5", b'{"seen": {}', b"{}"])
def test_a_damaged_count_is_made_again(own, left):
    rows = verdict_funnel.funnel_rows(own)
    (file,) = Path(own.root).glob("tables/verdicts/_counts/*")
    file.write_bytes(left)
    assert verdict_funnel.funnel_rows(own) == rows
    assert json.loads(file.read_bytes())["rows"] == rows


def test_a_warehouse_that_cannot_be_written_is_counted_each_time(own, monkeypatch):
    def refuse(*given, **more):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "funnel.json")

    monkeypatch.setattr(type(own.objects), "put_file", refuse)
    assert verdict_funnel.funnel_rows(own) == verdict_funnel.funnel_rows(own) != []
    assert not list(Path(own.root).glob("tables/verdicts/_counts/*"))


def test_a_file_that_is_gone_is_told_and_no_count_is_stored(own):
    for file in Path(own.root).glob("tables/verdicts/*.parquet"):
        file.unlink()
    with pytest.raises(QueryError, match="`vigorl warehouse check` tells what the warehouse lacks"):
        verdict_funnel.funnel_rows(own)
    assert not list(Path(own.root).glob("tables/verdicts/_counts/*"))
