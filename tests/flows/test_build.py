"""Building traces: real commands against a real HTTP server, killed where it hurts."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from tests.flows.test_cli import run
from tests.support.fixtures import sat_rows, write_sat
from tests.support.stub_server import StubServer
from warehouse.query.run_query import connect
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse

# Who wrote a row and when differs from run to run, and so does what is named after it.
VOLATILE = {"run_id", "revision", "created_at", "imported_at", "commit_id", "seconds"}
SEARCHED = ("questions", "images", "trees", "nodes", "rollouts", "responses")
CURATED = ("traces", "steps", "verdicts")


def vigorl(*arguments, home, failpoint=None, check=True):
    """Run a command; with a failpoint in a process of its own, which is killed there."""
    words = [*map(str, arguments)]
    if failpoint:
        env = {**os.environ, "VIGORL_HOME": str(home), "VIGORL_FAILPOINT": failpoint}
        command = [sys.executable, "-m", "flows.cli", *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    else:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = run(*words, home=home)
        done = subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())
    if check:
        assert done.returncode == 0, done.stderr
    return done


def import_sat(path, home):
    report = import_questions(Warehouse(str(home)), "sat2", path)
    assert report.added == 6


def contents(home, tables=(*SEARCHED, *CURATED)):
    """Every row of the warehouse, without what may differ between two runs of the same work."""
    con = connect(Warehouse(str(home)), names=tables)
    found = {}
    for table in tables:
        rows = con.sql(f"SELECT * FROM {table}").to_arrow_table().to_pylist()
        kept = [{k: v for k, v in row.items() if k not in VOLATILE} for row in rows]
        found[table] = sorted(json.dumps(row, sort_keys=True, default=str) for row in kept)
    return found


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sat(tmp_path_factory.mktemp("sat") / "SAT_train.parquet", sat_rows(6))


@pytest.fixture(scope="module")
def straight(sample, tmp_path_factory):
    """A build that nothing interrupted: its rows, how many requests it took, its home."""
    home = tmp_path_factory.mktemp("straight")
    with StubServer() as server:
        import_sat(sample, home)
        done = build(server, home)
        assert done.stdout.startswith("6 questions searched, ")
        requests = server.request_count()
    return contents(home), requests, home


def build_arguments(server):
    given = ("--teacher", server.url, "--space", "qwen3-vl", "--simulations", 3, "--shard", 4)
    return ("build", "sat2", *given)


def build(server, home, **options):
    return vigorl(*build_arguments(server), home=home, **options)


@pytest.mark.parametrize(
    "failpoint",
    [
        "after_response:20",
        pytest.param("after_journal:20", marks=pytest.mark.slow),
        pytest.param("before_commit:1", marks=pytest.mark.slow),
        "between_tables:2",
        pytest.param("after_commit:1", marks=pytest.mark.slow),
        pytest.param("between_tables:7", marks=pytest.mark.slow),
    ],
)
def test_a_killed_build_goes_on_and_ends_as_if_nothing_had_happened(
    failpoint, sample, straight, tmp_path
):
    expected, requests, _ = straight
    with StubServer() as server:
        import_sat(sample, tmp_path)
        killed = build(server, tmp_path, failpoint=failpoint, check=False)
        assert killed.returncode == 137, killed.stderr
        journaled = journal_lines(tmp_path)
        before = fingerprints(server)
        build(server, tmp_path)
        after = fingerprints(server)
        again = [fingerprint for fingerprint in before if after[fingerprint] > 1]
        # Asked twice: only what was in flight, asked but not journaled, when the process died.
        assert len(again) <= before.total() - journaled
        assert after.total() - len(again) == requests
    assert contents(tmp_path) == expected


def fingerprints(server):
    return Counter(request["fingerprint"] for request in server.requests)


def journal_lines(home):
    return sum(len(path.read_bytes().splitlines()) for path in Path(home).glob("journal/*.jsonl"))


def test_a_finished_build_asks_nothing_and_adds_nothing(straight, tmp_path):
    before, _, finished = straight
    home = shutil.copytree(finished, tmp_path / "home")
    with StubServer() as server:
        done = build(server, home)
        assert "6 of 6 trees are in the warehouse already" in done.stderr
        assert server.request_count() == 0
    assert contents(home) == before


def test_two_builds_at_once_lose_and_double_nothing(sample, straight, tmp_path):
    expected, *_ = straight
    with StubServer() as server:
        import_sat(sample, tmp_path)
        env = {**os.environ, "VIGORL_HOME": str(tmp_path)}
        command = [
            *(sys.executable, "-m", "flows.cli", "build", "sat2", "--teacher", server.url),
            *("--space", "qwen3-vl", "--simulations", "3", "--shard", "4"),
        ]
        both = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE) for _ in range(2)]
        for process in both:
            _, stderr = process.communicate(timeout=240)
            assert process.returncode == 0, stderr.decode()
    assert contents(tmp_path) == expected


@pytest.mark.slow
def test_another_shard_size_after_a_kill_doubles_nothing(sample, straight, tmp_path):
    expected, *_ = straight
    with StubServer() as server:
        import_sat(sample, tmp_path)
        build(server, tmp_path, failpoint="between_tables:2", check=False)
        arguments = ["--teacher", server.url, "--space", "qwen3-vl", "--simulations", 3]
        vigorl("build", "sat2", *arguments, "--shard", 1, home=tmp_path)
    assert contents(tmp_path) == expected


def test_a_poisoned_question_fails_alone(sample, straight, tmp_path, capsys):
    expected, *_ = straight
    with StubServer(poison="scene 2?") as server:
        import_sat(sample, tmp_path)
        assert run(*build_arguments(server), home=tmp_path) == 0
    said = capsys.readouterr().out
    assert "6 questions searched (1 failed: --retry-failed tries again)" in said
    trees = [json.loads(row) for row in contents(tmp_path, ("trees",))["trees"]]
    failed = [tree for tree in trees if tree["status"] == "failed"]
    assert len(failed) == 1 and "server_error" in failed[0]["error"]
    others = {json.dumps(t, sort_keys=True) for t in trees if t["status"] == "complete"}
    assert others < set(expected["trees"])


def test_a_failed_question_can_be_tried_again_and_its_failure_is_kept(sample, tmp_path, capsys):
    with StubServer(poison="scene 2?") as server:
        import_sat(sample, tmp_path)
        assert run(*build_arguments(server), home=tmp_path) == 0
        server.poison = None
        capsys.readouterr()
        assert run(*build_arguments(server), home=tmp_path) == 0
        assert "(1 failed" in capsys.readouterr().out, "what failed is not asked again"
        assert run(*build_arguments(server), "--retry-failed", home=tmp_path) == 0
    assert capsys.readouterr().out.startswith("6 questions searched, ")
    trees = [json.loads(row) for row in contents(tmp_path, ("trees",))["trees"]]
    assert sorted(tree["status"] for tree in trees) == ["complete"] * 6 + ["failed"]


@pytest.mark.parametrize(
    ("arguments", "sentence", "status"),
    [
        (["--teacher", "http://127.0.0.1:9"], "give --space", 2),
        (["--teacher", "nowhere"], "is no registered model", 2),
        (["--simulations", "0"], "simulations: Input should be greater than or equal to 1", 2),
        (["--prompt", "nope", "--space", "qwen3-vl"], "no prompt named 'nope'; there are:", 2),
        (["--teacher", "http://127.0.0.1:9", "--space", "qwen3-vl"], "No model server answers", 1),
    ],
)
def test_what_cannot_work_is_one_sentence_and_writes_nothing(
    arguments, sentence, status, sample, tmp_path, capsys
):
    import_sat(sample, tmp_path)
    before = contents(tmp_path, ("runs", "trees"))
    if "--teacher" not in arguments:
        arguments = ["--teacher", "http://127.0.0.1:9", *arguments]
    assert run("build", "sat2", *arguments, home=tmp_path) == status
    said = capsys.readouterr()
    assert sentence in said.err and said.err.count("\n") == 1 and said.out == ""
    assert contents(tmp_path, ("runs", "trees")) == before
