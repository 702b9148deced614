"""`vigorl review`: pages for one browser on this machine, and what is said there is stored."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from curation.filters.review import Review
from flows.review.run_review import Reviewed, StoredReviews, review
from flows.review.server import create_app
from flows.review.settings import ReviewSettings
from warehouse.query.run_query import query
from warehouse.reviews import store_review
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import commit_traces


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with the kept traces of a few questions of the sample."""
    home = tmp_path_factory.mktemp("home")
    words = ["build", "sat2", "--limit", "2", "--simulations", "3", "--home", str(home)]
    done = subprocess.run([sys.executable, "-m", "flows.cli", *words], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return home


def body(**changed: object) -> dict[str, object]:
    review = {"review_id": "0" * 32, "trace_id": "t", "step": None, "verdict": "wrong"}
    return {**review, "comment": "", **changed}


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    """The pages of one trace with two steps, in an empty warehouse."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "review.html").write_text("page")
    kept = StoredReviews(Warehouse(str(tmp_path / "home")), Reviewed("ada", 1), "run", {"t": 2})
    return TestClient(create_app(tmp_path / "pages", kept, "key"))


def test_nothing_is_shown_or_stored_without_the_key(client):
    assert client.get("/key/").text == "page"
    for address in ("/", "/review.html", "/reviews", "/another/reviews", "/docs", "/openapi.json"):
        assert client.get(address).status_code == 404, address
    assert client.post("/reviews", json=body()).status_code in (404, 405)
    assert client.get("/key/reviews").json() == []


def test_a_review_is_stored_and_read_back(client):
    assert client.post("/key/reviews", json=body(comment="no")).status_code == 204
    step = body(review_id="1" * 32, step=1, verdict="right")
    assert client.post("/key/reviews", json=step).status_code == 204
    stored = sorted(client.get("/key/reviews").json(), key=lambda row: row["step"] or -1)
    assert stored == [
        {"trace_id": "t", "step": None, "verdict": "wrong", "comment": "no"},
        {"trace_id": "t", "step": 1, "verdict": "right", "comment": ""},
    ]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"trace_id": "another"}, 404),
        ({"step": 2}, 404),
        ({"step": -1}, 404),
        ({"step": "first"}, 422),
        ({"verdict": "fine"}, 422),
        ({"review_id": "'; DROP TABLE reviews"}, 422),
        ({"comment": "x" * 4001}, 422),
        ({"reviewer": "another"}, 422),
    ],
)
def test_what_the_pages_never_send_is_refused(client, changed, status):
    assert client.post("/key/reviews", json=body(**changed)).status_code == status
    assert client.get("/key/reviews").json() == []


def test_a_full_disk_is_told_in_a_sentence_and_the_review_can_be_sent_again(client, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(28, os.strerror(28), "/data/reviews")

    with monkeypatch.context() as patch:
        patch.setattr("flows.review.run_review.store_review", full)
        answer = client.post("/key/reviews", json=body())
    assert answer.status_code == 503 and "the disk is full" in answer.json()["detail"]
    assert client.post("/key/reviews", json=body()).status_code == 204


def start(home: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.cli", "review", *words, "--home", str(home)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_person_reviews_and_ends_it(home, tmp_path, number, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    reviewer = number.name
    process = start(home, "sat2", "--reviewer", reviewer, "--limit", "3")
    assert process.stdout
    first = process.stdout.readline()
    address = re.search(r"^3 traces to review: open (http://127\.0\.0\.1:\d+/\S+/)$", first)
    assert address, first + (process.stderr.read() if process.stderr else "")
    page = urllib.request.urlopen(address[1]).read().decode()
    assert f"Reviewer: {reviewer}" in page
    index = urllib.request.urlopen(address[1] + "data/index.js").read().decode()
    (trace_id, *_), *others = json.loads(index[index.index(",") + 1 : index.rindex(")")])["rows"]
    assert len(others) == 2
    sent = urllib.request.Request(
        address[1] + "reviews",
        json.dumps(body(trace_id=trace_id, review_id=f"{number:032x}")).encode(),
        {"content-type": "application/json"},
    )
    urllib.request.urlopen(sent)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    last = out.splitlines()[-1]
    assert last == f"1 of 3 traces reviewed by {reviewer}: 0 right, 1 wrong, 0 unsure"
    warehouse = Warehouse(str(home))
    said = f"SELECT trace_id, verdict FROM reviews WHERE reviewer = '{reviewer}'"
    assert query(warehouse, said).to_pylist() == [{"trace_id": trace_id, "verdict": "wrong"}]
    dropped = f"SELECT count(*) AS n FROM kept_traces WHERE trace_id = '{trace_id}'"
    assert query(warehouse, dropped)["n"][0].as_py() == 0
    assert list(tmp_path.glob("vigorl-review-*")) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["vstar"], "there are no kept traces of task 'vstar' in "),
        (["--sql", "SELECT 1 AS trace_id"], "--sql: the statement yields no trace"),
        (["--sql", "SELECT 1 AS n"], "--sql: the statement must yield a column trace_id"),
        (["sat2", "--sql", "SELECT 1"], "--sql and a task: give one of them"),
        (["--order", "newest"], "order"),
    ],
)
def test_what_cannot_be_reviewed_is_one_sentence(home, words, sentence):
    process = start(home, *words)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and sentence in err and "Traceback" not in err, err


def test_a_port_that_is_taken_is_one_sentence(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        _, err = start(home, "--port", port).communicate(timeout=60)
    assert f"--port: {port} of this machine cannot be had" in err


def test_who_has_reviewed_everything_is_told_so(tmp_path):
    warehouse = Warehouse(str(tmp_path))
    trace = {"trace_id": "t", "question_id": "q", "task": "sat2", "origin": "search"}
    kept = {"trace_id": "t", "filter": "right_answer", "version": 1, "keep": True}
    commit_traces(warehouse, [trace], steps=[], verdicts=[kept], run_id="r")
    store_review(warehouse, Review("t", "ada", "right"), "0" * 32, "r")
    settings = ReviewSettings(home=str(tmp_path), reviewer="ada")
    reviewed = review(settings, ready=lambda address, traces: pytest.fail(address))
    assert reviewed.sentence() == "ada has nothing left to review"
