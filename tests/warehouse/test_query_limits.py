"""A person's query ends: by its time, its memory, or the size of its rows."""

import time

import pytest

from warehouse.query.limits import Limits
from warehouse.query.run_query import query
from warehouse.query.sql_guard import QueryError
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new

ENDLESS = {
    "a product": "SELECT count(*) FROM range(100000000000) a, range(100000) b",
    "a recursion": "WITH RECURSIVE t AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM t) "
    "SELECT count(*) FROM t",
    "a list": "SELECT list('text' || i) FROM range(300000000) t(i)",
    "rows": "SELECT 'text' || i AS text FROM range(3000000000) t(i)",
}


@pytest.mark.parametrize("statement", ENDLESS.values(), ids=ENDLESS)
def test_sql_without_end_ends_in_its_time(tmp_path, statement):
    began = time.monotonic()
    with pytest.raises(QueryError, match=r"longer than 0\.4 s.*--timeout"):
        query(Warehouse(str(tmp_path)), statement, Limits(0.4))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("statement", [ENDLESS["rows"], ENDLESS["a list"]])
def test_a_query_that_needs_too_much_memory_says_so(tmp_path, statement, monkeypatch):
    from warehouse.query import limits

    beginning = limits.used_memory()
    monkeypatch.setattr(limits, "used_memory", lambda: beginning + 2**40)
    with pytest.raises(QueryError, match="memory it may take: ask for less"):
        query(Warehouse(str(tmp_path)), statement, Limits(60, memory=2**28))


def test_duckdbs_own_limit_of_memory_is_told_the_same(tmp_path):
    statement = "SELECT string_agg('text' || i) FROM range(300000000) t(i)"
    with pytest.raises(QueryError, match="memory it may take"):
        query(Warehouse(str(tmp_path)), statement, Limits(60, memory=2**28))


def test_a_row_that_cannot_be_printed_is_refused(tmp_path):
    with pytest.raises(QueryError, match="MiB each: list less"):
        query(Warehouse(str(tmp_path)), "SELECT repeat('x', 100000000) AS x", Limits(60))


def test_a_query_within_its_limits_is_answered(tmp_path):
    statement = "SELECT sum(i) AS n FROM range(1000) t(i)"
    assert query(Warehouse(str(tmp_path)), statement, Limits(60)).to_pylist() == [{"n": 499500}]


@pytest.mark.parametrize(
    "command",
    [
        ("sql",),
        ("dataset", "publish", "mine", "--sql"),
        ("gallery", "--sql"),
    ],
)
def test_commands_take_a_timeout(tmp_path, command):
    from tests.support.project import Project

    statement = f"SELECT 'x' AS trace_id FROM ({ENDLESS['a product']})"
    project = Project(tmp_path)
    insert_new(Warehouse(str(project.home)), "runs", [{"run_id": "r", "kind": "build"}])
    ran = project.run(*command, statement, "--timeout", 0.3)
    assert ran.status == 2
    assert ran.err.startswith("vigorl: the query took longer than 0.3 s")
    assert len(ran.err.splitlines()) == 1
