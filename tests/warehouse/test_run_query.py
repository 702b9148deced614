"""SQL over the warehouse: it answers what is committed, explains itself, does nothing else."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from warehouse.maintenance.compact import compact
from warehouse.query.read_back import reading_among
from warehouse.query.run_query import (
    QueryError,
    connect,
    connect_trusted,
    create_views,
    named_in,
    query,
    table_versions,
)
from warehouse.query.sql_guard import _parse, _walk
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import append, commit_traces, insert_new
from warehouse.tables.schema import TABLES


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Three traces: one kept, one dropped by two filters, one never judged."""
    warehouse = Warehouse(str(tmp_path_factory.mktemp("home")))
    traces = [
        {"trace_id": t, "question_id": "q", "task": "sat2", "kind": "direct", "reward": r,
         "n_points": 1, "origin": "search"}
        for t, r in (("good", 1.0), ("bad", 0.0), ("new", None))
    ]  # fmt: skip
    steps = [{"trace_id": "good", "step": 0, "thought": "A cup (3, 4).", "x": 3.0, "y": 4.0}]
    verdicts = [
        {"trace_id": t, "filter": f, "version": 1, "keep": t == "good", "reason": "…"}
        for t in ("good", "bad")
        for f in ("right_answer", "points_inside")
    ]
    commit_traces(warehouse, traces, steps=steps, verdicts=verdicts, run_id="r")
    orphan = {"trace_id": "ghost", "step": 0, "thought": "half", "commit_id": "never-committed"}
    append(warehouse, "steps", [orphan], app_id="killed")
    trees = [
        {"tree_id": "t1", "question_id": "q", "task": "sat2", "status": "complete",
         "any_right": True, "root_value": 0.5, "completion_tokens": 300, "prompt_tokens": 100,
         "seconds": 2.0},
        {"tree_id": "t2", "question_id": "q", "task": "sat2", "status": "complete",
         "any_right": False, "root_value": 0.0, "completion_tokens": 100, "prompt_tokens": 100,
         "seconds": 2.0},
    ]  # fmt: skip
    insert_new(warehouse, "trees", trees)
    question = {"question_id": "q", "task": "sat2", "family": "left_right", "text": "?"}
    insert_new(warehouse, "questions", [question])
    journal = Path(warehouse.root) / "journal"
    journal.mkdir()
    (journal / "secret.jsonl").write_text("secret")
    return warehouse


def test_every_table_answers_even_before_its_first_row(tmp_path: Path) -> None:
    empty = Warehouse(str(tmp_path))
    for name in TABLES:
        found = query(empty, f"SELECT * FROM {name}")
        assert found.num_rows == 0
        assert found.schema.names == TABLES[name].schema.names
    assert query(empty, "FROM accepted_cost").num_rows == 0
    assert list(tmp_path.iterdir()) == []  # asking writes nothing


def test_the_question_of_the_readme_is_answered(warehouse: Warehouse) -> None:
    sql = "SELECT kind, count(*) n, avg(reward) r, avg(n_points) p FROM traces GROUP BY kind"
    assert query(warehouse, sql).to_pylist() == [{"kind": "direct", "n": 3, "r": 0.5, "p": 1.0}]


def test_rows_of_unfinished_commits_are_not_shown(warehouse: Warehouse) -> None:
    assert query(warehouse, "SELECT trace_id FROM steps")["trace_id"].to_pylist() == ["good"]


def test_starting_views_say_what_was_kept_and_what_it_cost(warehouse: Warehouse) -> None:
    assert query(warehouse, "SELECT trace_id FROM kept_traces").to_pylist() == [
        {"trace_id": "good"}
    ]
    funnel = query(warehouse, "FROM verdict_funnel ORDER BY filter").to_pylist()
    assert [(f["filter"], f["kept"], f["dropped"], f["dropped_by_it_alone"]) for f in funnel] == [
        ("points_inside", 1, 1, 0),
        ("right_answer", 1, 1, 0),
    ]
    (family,) = query(warehouse, "FROM pass_rate_by_family").to_pylist()
    assert (family["family"], family["trees"], family["found_right"]) == ("left_right", 2, 0.5)
    assert query(warehouse, "SELECT tree_id FROM trees_with_right_answer").num_rows == 1
    (cost,) = query(warehouse, "FROM accepted_cost").to_pylist()
    assert cost["kept_traces"] == 1
    assert cost["completion_tokens_per_kept_trace"] == 400


def test_the_latest_verdict_of_a_filter_counts(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    verdict = {"trace_id": "t", "filter": "f", "version": 1, "keep": False}
    commit_traces(
        warehouse, [{"trace_id": "t", "question_id": "q"}], steps=[], verdicts=[verdict], run_id="r"
    )
    assert query(warehouse, "FROM kept_traces").num_rows == 0
    insert_new(warehouse, "verdicts", [{**verdict, "version": 2, "keep": True}])
    assert query(warehouse, "FROM kept_traces").num_rows == 1


def test_every_column_of_every_table_has_its_sentence(warehouse: Warehouse) -> None:
    listed = query(
        warehouse,
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal",
    ).to_pylist()
    found = {(c["table_name"], c["column_name"]): c["comment"] for c in listed}
    for table in TABLES.values():
        for column in table.schema.names:
            assert found[table.name, column] == table.describe(column)
            assert len(table.describe(column).split()) >= 3
    for column in TABLES["traces"].schema.names:
        assert found["kept_traces", column] == found["traces", column]
    assert found["student_difficulty", "question_id"]
    views = query(warehouse, "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal")
    assert all(view["comment"] for view in views.to_pylist())


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM traces",
        "FROM traces LIMIT 1;",
        "-- a remark\nWITH t AS (SELECT trace_id FROM traces) SELECT count(*) FROM t",
        "WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 3) FROM n",
        "DESCRIBE traces",
        "SHOW TABLES",
        "SHOW ALL TABLES",
        "SUMMARIZE steps",
        "EXPLAIN SELECT * FROM traces",
        "EXPLAIN ANALYZE FROM main.traces",
        "VALUES (1, 2)",
        "SELECT unnest([1, 2]), i FROM range(2) t(i)",
        "SELECT list_transform([1], lambda s: s + 1)",
        "SELECT * FROM information_schema.columns WHERE table_name = 'traces'",
        "SELECT trace_id, row_number() OVER (ORDER BY reward) FROM traces",
        "SELECT * FROM (PIVOT traces ON kind IN ('direct') USING count(*))",
        "SELECT now(), random()",
        "SELECT t.* FROM traces t ANTI JOIN steps USING (trace_id)",
    ],
)
def test_questions_are_answered(warehouse: Warehouse, sql: str) -> None:
    query(warehouse, sql)


# {file} is a Parquet file of the table steps, {home} the warehouse's folder.
ATTACKS = [
    # Writing.
    "COPY traces TO '{home}/out.csv'",
    "COPY (SELECT 1) TO '/tmp/vigorl-attack.csv'",
    "EXPORT DATABASE '{home}/export'",
    "CREATE TABLE t (a INT)",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW traces AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "DROP VIEW traces",
    "INSERT INTO traces SELECT * FROM traces",
    "DELETE FROM traces",
    "WITH d AS (DELETE FROM traces RETURNING *) SELECT * FROM d",
    "WITH d AS (INSERT INTO traces SELECT * FROM traces RETURNING *) SELECT * FROM d",
    "UPDATE traces SET reward = 1",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{home}/out.csv'",
    "EXPLAIN ANALYZE INSERT INTO traces SELECT * FROM traces",
    "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
    # Other files, also inside the warehouse and also the tables' own files by name.
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('{home}/journal/secret.jsonl')",
    "SELECT * FROM read_blob('/etc/hostname')",
    "SELECT * FROM read_json('{home}/journal/secret.jsonl')",
    "SELECT * FROM read_ndjson_objects('{home}/journal/secret.jsonl')",
    "SELECT * FROM read_parquet('{file}')",
    "SELECT * FROM parquet_scan('{file}')",
    "SELECT * FROM parquet_metadata('{file}')",
    "SELECT * FROM read_parquet('{home}/tables/*/*.parquet')",
    "SELECT * FROM '{file}'",
    "FROM '{home}/journal/secret.jsonl'",
    "FROM '/etc/passwd.csv'",
    "DESCRIBE '{file}'",
    "SUMMARIZE '{file}'",
    "SUMMARIZE (SELECT * FROM read_text('/etc/passwd'))",
    "SELECT * FROM glob('{home}/**')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT * FROM traces WHERE text IN (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT * FROM traces, LATERAL (SELECT * FROM read_text('/etc/passwd'))",
    "SELECT list_transform([1], lambda x: (SELECT content FROM read_text('/etc/passwd')))",
    'WITH "{file}" AS (SELECT 1) SELECT * FROM (SELECT 1), "{file}"',
    'SELECT * FROM (WITH "{file}" AS (SELECT 1) SELECT 1), "{file}"',
    "EXPLAIN ANALYZE SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_duckdb('{home}/x.duckdb')",
    "IMPORT DATABASE '{home}/export'",
    # Running text as SQL, and reaching around the parser.
    "SELECT * FROM query('SELECT 1')",
    "FROM query_table('traces')",
    "FROM query_table(['{file}'])",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "PRAGMA json_execute_serialized_sql('{{}}')",
    "EXECUTE q",
    "PREPARE q AS SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY traces TO '{home}/out.csv'",
    "SELECT * FROM arrow_scan(1::POINTER, 1::POINTER, 1::POINTER)",
    "SELECT * FROM pandas_scan(1::POINTER)",
    "SELECT * FROM python_map_function((SELECT 1))",
    "FROM histogram('{file}', a)",
    # Network, extensions, other databases.
    "SELECT * FROM read_csv('https://example.com/x.csv')",
    "FROM 's3://bucket/x.parquet'",
    "ATTACH '{home}/x.duckdb'",
    "ATTACH ':memory:' AS m",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '/tmp/x.so'",
    "DETACH memory",
    "USE memory",
    # Settings and the process.
    "SET threads = 1",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "SET VARIABLE x = 1",
    "PRAGMA enable_external_access = true",
    "PRAGMA version",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "SELECT current_setting('home_directory')",
    "SELECT getvariable('x')",
    "SELECT getenv('HOME')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_logs()",
    "SELECT write_log('x')",
    "SELECT nextval('s')",
    "CREATE SECRET s (TYPE s3, KEY_ID 'k', SECRET 's')",
    "SELECT sleep_ms(100000)",
    "SELECT * FROM checkpoint()",
    "CHECKPOINT",
    "BEGIN TRANSACTION",
    "SELECT * FROM create_external_resource('x')",
    # Things that are simply not there.
    "SELECT * FROM secrets",
    "SELECT * FROM memory.main.traces",
    "SELECT $1",
    "SELEC 1",
    "",
    "-- nothing",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_but_a_question_gets_through(warehouse: Warehouse, attack: str) -> None:
    (file, *_) = sorted((Path(warehouse.root) / "tables" / "steps").glob("*.parquet"))
    before = sorted(Path(warehouse.root).rglob("*"))
    with pytest.raises(QueryError) as caught:
        query(warehouse, attack.format(home=warehouse.root, file=file))
    assert "\n" not in str(caught.value)
    assert sorted(Path(warehouse.root).rglob("*")) == before
    assert not Path("/tmp/vigorl-attack.csv").exists()


def test_the_connection_itself_is_locked_too(warehouse: Warehouse) -> None:
    """The second wall: what slips past the check still reaches no file and no setting."""
    import duckdb
    import pyarrow as pa

    hidden = pa.table({"secret": [1]})
    with connect(warehouse) as con:
        for sql in (
            f"SELECT * FROM read_text('{warehouse.root}/journal/secret.jsonl')",
            "SELECT * FROM read_csv('/etc/passwd')",
            f"COPY (SELECT 1) TO '{warehouse.root}/out.csv'",
            f"ATTACH '{warehouse.root}/x.duckdb'",
            "SET enable_external_access = true",
            "SET threads = 1",
            "INSTALL httpfs",
            "SELECT * FROM hidden",
        ):
            with pytest.raises(duckdb.Error):
                con.execute(sql)
    assert hidden.num_rows == 1


def test_rows_of_some_traces_are_read_from_the_files_of_their_commits(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    for name in ("t0", "t1", "t2"):
        trace = {"trace_id": name, "question_id": "q", "task": "sat2"}
        step = {"trace_id": name, "step": 0, "thought": name}
        verdict = {"trace_id": name, "filter": "f", "version": 1, "keep": True}
        commit_traces(warehouse, [trace], steps=[step], verdicts=[verdict], run_id=name)
    late = {"trace_id": "t1", "filter": "f", "version": 2, "keep": False}
    insert_new(warehouse, "verdicts", [late])
    with reading_among(warehouse, ("steps", "verdicts", "traces"), "trace_id", ["t1"]) as rows_of:
        assert [row["thought"] for row in rows_of("steps")] == ["t1"]
        assert [row["version"] for row in rows_of("verdicts")] == [1, 2]
        assert [row["run_id"] for row in rows_of("traces")] == ["t1"]
    (commit,) = {row["commit_id"] for row in query(warehouse, "FROM steps").to_pylist()[1:2]}
    with duckdb.connect() as con:
        files = create_views(con, warehouse, ["steps", "verdicts"], None, {"traces": {commit}})
    assert len(files) == 1 + 2, "of a commit, and what is late"
    compact(warehouse)
    with reading_among(warehouse, ("steps", "traces"), "trace_id", ["t2", "gone"]) as rows_of:
        assert [row["thought"] for row in rows_of("steps")] == ["t2"]


@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ("SELECT question FROM questions", 'Candidate bindings: "question_id"'),
        ("SELECT avgg(reward) FROM traces", 'Did you mean "avg"'),
        ("SELECT 1\nFORM traces x y", "LINE 2: FORM traces"),
    ],
)
def test_a_mistake_comes_with_what_duckdb_suggests(
    warehouse: Warehouse, sql: str, hint: str
) -> None:
    with pytest.raises(QueryError) as refused:
        query(warehouse, sql)
    assert hint in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_gone_is_named_in_one_sentence(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    insert_new(warehouse, "runs", [{"run_id": "r", "kind": "build"}])
    (file,) = tmp_path.glob("tables/runs/*.parquet")
    file.unlink()
    with pytest.raises(QueryError, match=rf"{file.name}.*`vigorl warehouse check`") as refused:
        query(warehouse, "SELECT count(*) FROM runs WHERE kind = 'build'")
    assert "\n" not in str(refused.value)


def test_a_mistake_is_explained_in_one_sentence(warehouse: Warehouse) -> None:
    with pytest.raises(QueryError, match="there is no table trace; there are: accepted_cost, "):
        query(warehouse, "SELECT * FROM trace")
    with pytest.raises(QueryError, match="rewrad"):
        query(warehouse, "SELECT rewrad FROM traces")
    with pytest.raises(QueryError, match="one statement at a time, not 2"):
        query(warehouse, "SELECT 1; SELECT 2")
    for depth in (300, 900, 5000):
        with contextlib.suppress(QueryError):
            query(warehouse, "SELECT " + "(" * depth + "1" + ")" * depth)
        with contextlib.suppress(QueryError):
            query(warehouse, "SELECT " + "[" * depth + "1" + "]" * depth)


def test_a_connection_shows_the_versions_it_was_opened_at(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    nothing = table_versions(warehouse)
    insert_new(warehouse, "runs", [{"run_id": "a"}])
    then = table_versions(warehouse)
    insert_new(warehouse, "runs", [{"run_id": "b"}])
    for versions, expected in ((nothing, 0), (then, 1), (None, 2)):
        with connect(warehouse, versions) as con:
            assert con.execute("SELECT count(*) FROM runs").fetchone() == (expected,)


def test_connections_that_are_open_at_once_each_show_their_own_versions(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    insert_new(warehouse, "runs", [{"run_id": "a"}])
    then = table_versions(warehouse)
    insert_new(warehouse, "runs", [{"run_id": "b"}])
    for open_at in (connect, connect_trusted):
        with (
            open_at(warehouse, names=["runs"], versions=then) as old,
            open_at(warehouse, names=["runs"]) as new,
        ):
            for con, expected in ((old, 1), (new, 2), (old, 1)):
                assert con.execute("SELECT count(*) FROM runs").fetchone() == (expected,)


_KEPT = """
import ctypes, sys
from warehouse.query import run_query
from warehouse.storage.home import Warehouse
run_query.query_trusted(Warehouse(sys.argv[1]), "SELECT count(*) AS n FROM runs")
ctypes.pythonapi.Py_IncRef(ctypes.py_object(run_query._instance))  # as what Ray's threads hold
"""


def test_a_process_that_ends_while_its_modules_are_held_says_nothing_of_leaks(
    tmp_path: Path,
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _KEPT, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert ended.stdout == ended.stderr == ""


def test_big_sorts_spill_beside_the_warehouse_not_into_the_working_directory(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sql = "SELECT count(DISTINCT md5(i::VARCHAR)) n FROM range(300000) t(i)"
    assert query(warehouse, sql)["n"][0].as_py() == 300000
    assert os.listdir(tmp_path) == []


def test_a_statement_of_ours_opens_what_it_names_and_what_that_is_made_of() -> None:
    names = named_in("(SELECT tree_id FROM kept_traces JOIN Steps USING (trace_id))")
    assert names == {"kept_traces", "steps"}
    with connect(Warehouse("/nowhere/at/all"), names=names) as con:
        there = {name for (name,) in con.execute("SELECT view_name FROM duckdb_views()").fetchall()}
    assert {"steps", "kept_traces", "latest_traces", "traces", "verdicts"} <= there
    assert "responses" not in there and "images" not in there


@pytest.mark.parametrize(
    ("sql", "node", "fields"),
    [
        ("FROM t LIMIT 3", "SELECT_NODE", {"modifiers", "cte_map"}),
        ("SELECT 1 UNION SELECT 2", "SET_OPERATION_NODE", {"cte_map"}),
        ("FROM traces", "BASE_TABLE", {"qualified_name"}),
        ("FROM range(3)", "TABLE_FUNCTION", {"function"}),
        ("FROM (DESCRIBE traces)", "SHOW_REF", {"query"}),
        ("SHOW TABLES", "SHOW_REF", {"table_name"}),
        ("SELECT trace_id FROM traces", "COLUMN_REF", {"class", "column_names"}),
        ("SELECT lower(trace_id) FROM traces", "FUNCTION", {"function_name"}),
        ("SELECT string_agg(x, ',' ORDER BY trace_id) FROM t", "FUNCTION", {"order_bys"}),
        ("SELECT lag(x) OVER (ORDER BY trace_id) FROM t", "WINDOW_LAG", {"class", "orders"}),
        ("FROM t ORDER BY trace_id LIMIT 3", "ORDER_MODIFIER", {"orders"}),
        ("FROM t ORDER BY trace_id LIMIT 3", "LIMIT_MODIFIER", set()),
        ("SELECT DISTINCT ON (x) y FROM t", "DISTINCT_MODIFIER", {"distinct_on_targets"}),
        ("FROM t USING SAMPLE 3", "SELECT_NODE", {"sample"}),
        ("SELECT * FROM t", "STAR", {"class"}),
    ],
)
def test_a_new_duckdb_that_serializes_statements_otherwise_is_named(
    sql: str, node: str, fields: set[str]
) -> None:
    """The guard reads these private names: without one of them it could let something through."""
    with duckdb.connect() as con:
        parts = [part for part in _walk(_parse(con, sql)) if part.get("type") == node]
    assert parts, f"DuckDB {duckdb.__version__} has no {node} for {sql!r}"
    missing = fields.difference(*parts)
    assert not missing, f"DuckDB {duckdb.__version__}: {node} has no {missing} for {sql!r}"


def test_every_clause_that_holds_a_query_is_walked() -> None:
    """A table in any part of a statement is found, so that no part is out of the guard's sight."""
    sql = (
        "WITH a AS (FROM t1) SELECT (SELECT max(x) FROM t2) FROM t3 JOIN t4 ON EXISTS (FROM t5) "
        "WHERE x IN (FROM t6) GROUP BY y HAVING y > (SELECT 1 FROM t7) UNION (FROM t8) "
        "ORDER BY (SELECT 1 FROM t9) LIMIT (SELECT 1 FROM t10)"
    )
    with duckdb.connect() as con:
        tables = {
            part["qualified_name"]["path"][-1]
            for part in _walk(_parse(con, sql))
            if part.get("type") == "BASE_TABLE"
        }
    assert tables == {f"t{n}" for n in range(1, 11)}


_ZONE = """
import sys
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
sql = "SELECT ('2026-12-01 00:30:00+00'::TIMESTAMPTZ)::VARCHAR AS at"
print(query(Warehouse(sys.argv[1]), sql)["at"][0].as_py())
"""


def test_times_are_utc_whatever_the_machine_says(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ZONE, str(tmp_path)],
        env={**os.environ, "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "2026-12-01 00:30:00+00"
