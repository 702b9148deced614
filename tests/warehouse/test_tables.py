"""Writing tables: nothing twice, nothing half, also with two processes and a kill."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from mcts.data import (
    AnswerKind,
    Box,
    Image,
    Observation,
    Origin,
    Point,
    Question,
    Step,
    Trace,
    Verdict,
    ZoomCall,
)
from mcts.zoom.crops import crop_of
from warehouse.maintenance.delete import delete_rows
from warehouse.query.commit_visibility import commits_of
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.tables import delta as delta_tables
from warehouse.tables import rows
from warehouse.tables.delta import (
    among,
    append,
    commit_traces,
    commit_trees,
    insert_new,
    open_table,
    record_run,
    rows_to_arrow,
    scan,
)
from warehouse.tables.schema import TABLES
from warehouse.tables.tree_rows import SearchRows

Row = dict[str, Any]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "home"))


def shard(*names: str, answer: str = "yes") -> SearchRows:
    """Trees with two nodes, a rollout and a response each."""
    trees: list[Row] = [
        {"tree_id": n, "question_id": f"q-{n}", "task": "sat2", "any_right": True} for n in names
    ]
    nodes: list[Row] = [
        {"tree_id": n, "node_id": i, "parent_id": 0 if i else None, "visits": 2 - i}
        for n in names
        for i in range(2)
    ]
    rollouts: list[Row] = [
        {"tree_id": n, "rollout_id": 0, "node_id": 1, "answer": answer} for n in names
    ]
    responses: list[Row] = [
        {"tree_id": n, "response_id": f"{n}-r0", "text": "<think>a (1, 2).</think>"} for n in names
    ]
    return SearchRows(trees, nodes, rollouts, responses)


def counts(warehouse: Warehouse) -> dict[str, int]:
    names = ("trees", "nodes", "rollouts", "responses")
    return {n: query(warehouse, f"SELECT count(*) c FROM {n}")["c"][0].as_py() for n in names}


def test_of_no_ids_nothing_is_read(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    insert_new(warehouse, "questions", [{"question_id": "q", "task": "sat2", "text": "?"}])
    insert_new(warehouse, "images", [{"image_id": "i"}])
    assert list(rows.read_questions(warehouse, question_ids=[])) == []
    assert rows.read_images(warehouse, []) == {} == rows.read_objects(warehouse, [])


def in_process(code: str, **env: str) -> subprocess.Popen[str]:
    here = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(here.parent), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_repeating_an_append_adds_nothing(warehouse: Warehouse) -> None:
    behaviors = [{"trace_id": "t", "behavior": "regions", "method": "rule 1", "count": 3}]
    assert append(warehouse, "behaviors", behaviors, app_id="a")
    assert not append(warehouse, "behaviors", behaviors, app_id="a")
    assert append(warehouse, "behaviors", behaviors, app_id="b")
    assert scan(warehouse, "behaviors").num_rows == 2


def test_racing_appends_of_one_id_add_its_rows_once(warehouse: Warehouse) -> None:
    behaviors = [{"trace_id": "t", "behavior": "regions", "method": "rule 1", "count": 3}]
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: append(warehouse, "behaviors", behaviors, "a"), range(6)))
    assert sum(done) == 1
    assert scan(warehouse, "behaviors").num_rows == 1


def test_insert_new_drops_known_and_repeated_keys(warehouse: Warehouse) -> None:
    assert insert_new(warehouse, "images", [{"image_id": "a"}, {"image_id": "a"}]) == 1
    assert insert_new(warehouse, "images", [{"image_id": "b"}, {"image_id": "a"}]) == 1
    assert insert_new(warehouse, "images", [{"image_id": "b"}]) == 0
    verdict = {"trace_id": "t", "filter": "f", "version": 1, "keep": True}
    assert insert_new(warehouse, "verdicts", [verdict, {**verdict, "version": 2}]) == 2
    assert insert_new(warehouse, "verdicts", [verdict]) == 0


def test_two_processes_inserting_the_same_keys_never_double_one(warehouse: Warehouse) -> None:
    code = f"""
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new
warehouse = Warehouse({warehouse.root!r})
added = 0
for start in range(0, 60, 4):
    images = [{{"image_id": str(i)}} for i in range(start, start + 8)]
    added += insert_new(warehouse, "images", images)
print(added)
"""
    writers = [in_process(code) for _ in range(2)]
    outputs = [writer.communicate(timeout=120) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], outputs
    ids = scan(warehouse, "images", ["image_id"])["image_id"].to_pylist()
    assert sorted(ids, key=int) == [str(i) for i in range(64)]
    assert sum(int(out) for out, _ in outputs) == 64


def test_an_unknown_column_or_a_missing_key_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(ValueError, match="no column colour"):
        insert_new(warehouse, "images", [{"image_id": "a", "colour": "red"}])
    with pytest.raises(ValueError, match="no image_id"):
        insert_new(warehouse, "images", [{"width": 3}])


def test_a_committed_shard_is_shown_whole_and_only_once(warehouse: Warehouse) -> None:
    first = commit_trees(warehouse, shard("a", "b"), run_id="r1")
    assert (first.added, first.already_there) == (2, 0)
    assert commit_trees(warehouse, shard("a", "b"), run_id="r1").added == 0
    again = commit_trees(warehouse, shard("b", "c", answer="no"), run_id="r2")
    assert (again.added, again.already_there) == (1, 1)
    assert counts(warehouse) == {"trees": 3, "nodes": 6, "rollouts": 3, "responses": 3}
    answers = query(warehouse, "SELECT tree_id, answer FROM rollouts ORDER BY 1")
    assert answers["answer"].to_pylist() == ["yes", "yes", "no"]
    runs = query(warehouse, "SELECT DISTINCT run_id, revision IS NOT NULL AS known FROM nodes")
    assert sorted(runs.to_pylist(), key=str) == [
        {"run_id": "r1", "known": True},
        {"run_id": "r2", "known": True},
    ]


@pytest.mark.parametrize(
    ("place", "seen_after_kill"),
    [("before_commit:1", 0), ("between_tables:1", 0), ("between_tables:3", 0), ("after_commit", 2)],
)
def test_a_kill_inside_a_commit_shows_nothing_half(
    warehouse: Warehouse, place: str, seen_after_kill: int
) -> None:
    code = f"""
from tests.warehouse import test_tables
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_trees
commit_trees(Warehouse({warehouse.root!r}), test_tables.shard("a", "b"), run_id="r1")
"""
    killed = in_process(code, VIGORL_FAILPOINT=place)
    _, errors = killed.communicate(timeout=60)
    assert killed.returncode == 137, errors
    whole = {"trees": 2, "nodes": 4, "rollouts": 2, "responses": 2}
    assert counts(warehouse) == (whole if seen_after_kill else dict.fromkeys(whole, 0))
    # The next start of the same work finishes it, under its own run id.
    commit_trees(warehouse, shard("a", "b"), run_id="r2")
    assert counts(warehouse) == whole


def test_two_shards_that_overlap_and_race_leave_every_tree_whole(warehouse: Warehouse) -> None:
    shards = [shard(*(f"t{i}" for i in range(k, k + 4)), answer=str(k)) for k in range(6)]
    with ThreadPoolExecutor(6) as pool:
        done = list(
            pool.map(lambda s: commit_trees(warehouse, s, run_id=s.trees[0]["tree_id"]), shards)
        )
    assert sum(commit.added for commit in done) == 9
    assert counts(warehouse) == {"trees": 9, "nodes": 18, "rollouts": 9, "responses": 9}
    mixed = query(
        warehouse,
        "SELECT count(*) c FROM trees t JOIN rollouts r USING (tree_id) WHERE t.run_id <> r.run_id",
    )
    assert mixed["c"][0].as_py() == 0


def test_verdicts_come_with_their_traces_or_later(warehouse: Warehouse) -> None:
    trace = {"trace_id": "t", "question_id": "q", "task": "sat2"}
    verdict = {"trace_id": "t", "filter": "right", "version": 1, "keep": True}
    step = {"trace_id": "t", "step": 0, "thought": "A cup (3, 4).", "x": 3.0, "y": 4.0}
    commit_traces(warehouse, [trace], steps=[step], verdicts=[verdict], run_id="r")
    insert_new(warehouse, "verdicts", [{**verdict, "filter": "new", "keep": False, "run_id": "r2"}])
    insert_new(warehouse, "verdicts", [{**verdict, "version": 2, "keep": False, "run_id": "r2"}])
    found = query(warehouse, "SELECT filter, version FROM verdicts ORDER BY ALL").to_pylist()
    assert [(v["filter"], v["version"]) for v in found] == [
        ("new", 1), ("right", 1), ("right", 2)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="steps of traces that are not in the commit"):
        commit_traces(
            warehouse, [trace], steps=[{**step, "trace_id": "u"}], verdicts=[], run_id="r"
        )


def test_what_the_nouns_hold_their_rows_hold(warehouse: Warehouse) -> None:
    images = (Image("a" * 64, 320, 200), Image("b" * 64, 100, 80))
    question = Question(
        task="sat2", text="Where? {x}", images=images, answer_kind=AnswerKind.BOX,
        choices=("left", "right"), answers=("left",), boxes=(Box(1, 2, 3.5, 4, 1, "cup"),),
        points=(Point(1.5, 2, 1),), tolerance=2.5, split="test", family="left_right", source="s",
        licence="CC-BY-4.0", part_of="p",
    )  # fmt: skip
    insert_new(warehouse, "images", [rows.image_row(image) for image in images])
    insert_new(warehouse, "questions", [rows.question_row(question)])
    assert list(rows.read_questions(warehouse, "sat2", split="test")) == [question]
    assert list(rows.read_questions(warehouse, "sat2", split="train")) == []
    seen = Observation(Box(0, 0, 50, 50, 1), 672, 672, True, 2)
    asked = ZoomCall(Point(3, 4, 1), 1, Box(1, 2, 5, 6, 1), "cup")
    nothing = Observation(None, 0, 0, problem="malformed", last=True)
    looks = (
        Step("A cup (3, 4).", (Point(3, 4),), asked, seen),
        Step("", (), ZoomCall(None, text="{"), nothing),
    )
    trace = Trace(
        question_id=question.question_id,
        steps=(*looks, Step("So, left.")),
        answer="left", reward=1.0, kind="corrected", tree_id="t", turns_back_at=1,
        origins=(Origin(2, None, "r1"), *[Origin(2, 0, "r2")] * 2), problems=("answer_forced",),
    )  # fmt: skip
    row, steps = rows.trace_rows(trace, task="sat2", text="…", question=question)
    assert [step["crop_id"] for step in steps] == [crop_of(question, looks[0]), None, None]
    verdict = Verdict("right_answer", False, "the answer is wrong", 0.25)
    verdicts = [rows.verdict_row(trace.trace_id, verdict, 1)]
    commit_traces(warehouse, [row], steps=steps, verdicts=verdicts, run_id="r")
    (back,) = scan(warehouse, "traces").to_pylist()
    assert rows.trace_from(back, scan(warehouse, "steps").to_pylist()) == trace
    assert rows.verdict_from(scan(warehouse, "verdicts").to_pylist()[0]) == verdict


def test_a_column_added_by_newer_code_is_null_in_older_rows(warehouse: Warehouse) -> None:
    """A table written before `objects` existed still takes and gives rows."""
    from deltalake import write_deltalake

    older = rows_to_arrow("images", [{"image_id": "a", "width": 3}]).drop_columns(["objects"])
    write_deltalake(warehouse.table_uri("images"), older)
    assert scan(warehouse, "images", ["image_id", "objects"]).to_pylist() == [
        {"image_id": "a", "objects": None}
    ]  # fmt: skip
    objects = [{"label": "cup", "x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}]
    insert_new(warehouse, "images", [{"image_id": "b", "objects": objects}])
    found = query(warehouse, "SELECT image_id, objects FROM images ORDER BY 1").to_pylist()
    assert found == [{"image_id": "a", "objects": None}, {"image_id": "b", "objects": objects}]


@pytest.mark.parametrize("later", [(), ("crop_id", "shows_asked")])
def test_a_call_of_older_code_is_read_and_stands_beside_todays(
    warehouse: Warehouse, later: tuple[str, ...]
) -> None:
    """Once a call was a point, and every one was answered."""
    from deltalake import write_deltalake

    table, shorter = rows_to_arrow("steps", []), []
    for field in table.schema:
        if pa.types.is_struct(field.type):
            kept = 3 if field.name == "call" else 8
            field = field.with_type(pa.struct([field.type.field(i) for i in range(kept)]))
        if field.name not in later:
            shorter.append(field)
    point = {"x": 3.0, "y": 4.0, "image": 0}
    region = {"x1": 0.0, "y1": 0.0, "x2": 50.0, "y2": 60.0, "image": 0}
    old = {"trace_id": "t", "step": 0, "thought": "A cup.", "call": point, "commit_id": "c"}
    old["observation"] = {**region, "width": 10, "height": 12, "marked": False}
    write_deltalake(warehouse.table_uri("steps"), pa.Table.from_pylist([old], pa.schema(shorter)))
    append(warehouse, "traces", [{"trace_id": "t", "commit_id": "c"}], "old")
    read = Step(
        "A cup.", (), ZoomCall(Point(3, 4)), Observation(Box(0, 0, 50, 60), 10, 12)
    )  # fmt: skip
    nothing_more = "SELECT call.view AS view, observation.problem AS problem, crop_id FROM steps"
    assert query(warehouse, nothing_more).to_pylist() == [
        {"view": None, "problem": None, "crop_id": None}
    ]
    made = replace(
        read, call=ZoomCall(Point(3, 4), 1), observation=Observation(None, 0, 0, False, 2)
    )
    trace = Trace("q", (made,), "left", 1.0, "zoom")
    row, steps = rows.trace_rows(trace, task="t", text="…")
    assert commit_traces(warehouse, [row], steps=steps, verdicts=[], run_id="r").added == 1
    for table in (scan(warehouse, "steps"), query(warehouse, "FROM steps")):
        found = {row["trace_id"]: rows.step_from(row) for row in table.to_pylist()}
        assert found == {"t": read, trace.trace_id: made}


def test_a_run_is_noted_once(warehouse: Warehouse) -> None:
    for _ in range(2):
        record_run(warehouse, "r", "build", task="sat2", params={"simulations": 8})
    assert scan(warehouse, "runs").num_rows == 1
    assert open_table(warehouse, "trees") is None


def test_a_table_whose_sentences_were_worded_otherwise_takes_new_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = Warehouse(str(tmp_path))
    now = TABLES["runs"]
    before = now.columns.replace("What was run", "In older words, what was run")
    assert before != now.columns
    with monkeypatch.context() as earlier:
        earlier.setitem(TABLES, "runs", replace(now, columns=before))
        record_run(warehouse, "one", "import")
    record_run(warehouse, "two", "import")
    many = rows_to_arrow("runs", [{"run_id": f"r{i}", "kind": "build"} for i in range(3)])
    assert append(warehouse, "runs", many.to_reader(max_chunksize=2), "a stream")
    assert query(warehouse, "SELECT count(*) AS n FROM runs").to_pylist() == [{"n": 5}]


def test_the_log_alone_says_of_which_commits_the_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = Warehouse(str(tmp_path))

    def commit(trace_id: str) -> None:
        trace, step = {"trace_id": trace_id}, {"trace_id": trace_id, "step": 0}
        commit_traces(
            warehouse, [{**trace, "question_id": "q"}], steps=[step], verdicts=[], run_id="r"
        )

    with monkeypatch.context() as older:  # a table of a time before the setting
        older.setattr(delta_tables, "_ALL_STATISTICS", {})
        commit("a")
    commit("b")
    steps = open_table(warehouse, "steps")
    assert steps is not None
    unread = duckdb.connect()
    unread.close()  # reading a file would fail
    found = commits_of(unread, warehouse, "steps", steps)
    stored = scan(warehouse, "traces", ["commit_id"])["commit_id"].to_pylist()
    assert sorted(found.values(), key=str) == sorted(({i} for i in stored), key=str)


@pytest.mark.parametrize("by", ["this", "an earlier release"])
def test_a_file_from_which_rows_were_deleted_is_read_by_condition_as_any(
    warehouse: Warehouse, by: str
) -> None:
    rows = [{"run_id": f"r{i}", "kind": "build"} for i in range(4)]
    insert_new(warehouse, "runs", rows)
    if by == "this":
        delete_rows(warehouse, "runs", "run_id = 'r1'")
    else:
        delta = open_table(warehouse, "runs")
        assert delta is not None
        delta.delete("run_id = 'r1'")
    insert_new(warehouse, "runs", [{"run_id": "r4", "kind": "build"}, rows[2]])
    for where, left in ((pc.field("run_id") == "r2", 1), (among("run_id", ["r1", "r4"]), 1)):
        assert scan(warehouse, "runs", ["kind"], where)["kind"].to_pylist() == ["build"] * left
    assert query(warehouse, "SELECT count(*) AS n FROM runs")["n"].to_pylist() == [4]
