"""The watched folder: what is dropped into it is imported once, and a bad file says why."""

import json
import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import boto3
import pytest
import yaml
from moto import mock_aws
from prefect.server.events.schemas.automations import EventTrigger, Posture
from prefect.server.events.schemas.events import ReceivedEvent

from flows.orchestration import watcher
from flows.orchestration.announce import announce_imported
from flows.orchestration.watcher import watch_inbox
from flows.stages.retrain.cycle import begin_cycle
from flows.stages.retrain.inbox import Inbox, complete_sample
from tests.flows.test_cli import run
from tests.support.fixtures import sat_rows, write_sat
from tests.support.project_files import ROOT
from warehouse.query.run_query import query
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_questions


@pytest.fixture(autouse=True)
def no_sample(monkeypatch):
    """Without the embedded sample, which a task without questions is given."""
    monkeypatch.setattr("flows.stages.retrain.inbox.complete_sample", lambda warehouse, task: 0)


@pytest.fixture
def dropped(tmp_path):
    """A warehouse's watched folder with one file of four questions."""
    folder = tmp_path / "home" / "inbox" / "sat2"
    folder.mkdir(parents=True)
    write_sat(folder / "new.parquet", sat_rows(4))
    return folder


def inbox_at(folder):
    return Inbox(Warehouse(str(folder.parents[1])))


def looked(inbox):
    """What two looks take."""
    inbox.look()
    return inbox.look()


def questions(folder):
    return list(read_questions(Warehouse(str(folder.parents[1])), "sat2"))


def test_a_file_is_imported_once_whatever_it_is_called(dropped):
    inbox = inbox_at(dropped)
    (taken,) = looked(inbox)
    assert taken.imported and taken.added == 4 and (dropped / "new.parquet").exists()
    assert {question.split for question in questions(dropped)} == {"train"}
    shutil.copy(dropped / "new.parquet", dropped / "again.parquet")
    assert looked(inbox) == [] and looked(inbox_at(dropped)) == []
    write_sat(dropped / "other.parquet", sat_rows(6))
    assert [(one.file, one.added) for one in looked(inbox)] == [("other.parquet", 2)]


def test_a_file_that_changes_between_two_looks_is_left_for_a_later_one(dropped):
    inbox = inbox_at(dropped)
    assert inbox.look() == [] and inbox.restless
    write_sat(dropped / "new.parquet", sat_rows(5))
    assert inbox.look() == [] and inbox.restless
    assert [one.added for one in inbox.look()] == [5] and not inbox.restless


def test_a_bad_file_gets_its_reason_beside_and_stops_no_other(dropped):
    (dropped / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    reason = dropped / "bad.parquet.rejected.txt"
    bad, good = looked(inbox_at(dropped))
    assert not bad.imported and good.added == 4
    assert reason.read_text() == f"{bad.sentence}\n" and "bad.parquet can't be read" in bad.sentence
    assert str(dropped) not in bad.sentence
    assert looked(inbox_at(dropped)) == [], "it is known"
    write_sat(dropped / "bad.parquet", sat_rows(6))
    assert [one.added for one in looked(inbox_at(dropped))] == [2]
    assert not reason.exists()


def test_a_refused_file_is_tried_again_when_its_reason_is_deleted(dropped):
    (dropped / "bad.parquet").write_bytes(b"nothing")
    assert len(looked(inbox_at(dropped))) == 2
    (dropped / "bad.parquet.rejected.txt").unlink()
    assert [one.file for one in looked(inbox_at(dropped))] == ["bad.parquet"]


def test_a_watcher_tries_a_refused_file_again_when_its_reason_is_deleted(dropped):
    (dropped / "bad.parquet").write_bytes(b"nothing")
    inbox = inbox_at(dropped)
    assert len(looked(inbox)) == 2 and inbox.look() == []
    (dropped / "bad.parquet.rejected.txt").unlink()
    assert [one.file for one in inbox.look()] == ["bad.parquet"]
    assert (dropped / "bad.parquet.rejected.txt").exists() and looked(inbox) == []


def test_a_refused_file_brings_no_sample(dropped, monkeypatch):
    completed = []
    monkeypatch.setattr(
        "flows.stages.retrain.inbox.complete_sample", lambda _, task: completed.append(task) or 0
    )
    (dropped / "new.parquet").write_bytes(b"nothing")
    inbox = inbox_at(dropped)
    assert [one.imported for one in looked(inbox)] == [False] and not completed
    write_sat(dropped / "new.parquet", sat_rows(4))
    assert [one.imported for one in looked(inbox)] == [True] and completed == ["sat2"]


def test_the_name_says_the_split_and_what_lies_beside_is_no_file_of_questions(dropped):
    shutil.move(dropped / "new.parquet", dropped / "my_gate.parquet")
    for other in (".hidden.parquet", "half.parquet.part", "new.objects.parquet"):
        (dropped / other).write_bytes(b"x")
    (dropped / "images").mkdir()
    (dropped / "images" / "a.png").write_bytes(b"x")
    assert [one.file for one in looked(inbox_at(dropped))] == ["my_gate.parquet"]
    assert {question.split for question in questions(dropped)} == {"gate"}


def test_where_the_disk_fails_a_file_is_tried_again(dropped, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    inbox = inbox_at(dropped)
    with monkeypatch.context() as patched:
        patched.setattr("warehouse.sources.importing.import_questions", full)
        (failed,) = looked(inbox)
    assert not failed.imported and "tried again" in failed.sentence
    assert not list(dropped.glob("*.rejected.txt"))
    assert inbox.look() == [], "not at once"
    monkeypatch.setattr("flows.stages.retrain.inbox.time.monotonic", lambda: float("inf"))
    assert [one.added for one in inbox.look()] == [4]


def test_the_command_waits_until_files_are_still(dropped, capsys):
    home = dropped.parents[1]
    assert run("inbox", "--still", "0.1", home=home) == 0
    assert "sat2/new.parquet: 4 questions added" in capsys.readouterr().out
    assert run("inbox", "sat2", "--still", "0.1", home=home) == 0
    assert capsys.readouterr().out == ""


def test_a_task_or_a_folder_that_there_is_not_is_refused(dropped, tmp_path, capsys):
    home = dropped.parents[1]
    for words in (("sta2",), ("sta2", "--watch")):
        assert run("inbox", *words, home=home) == 2
        said = capsys.readouterr().err
        assert f"there is no folder {dropped.parent / 'sta2'}; there are those of sat2" in said
    assert run("inbox", "--folder", str(tmp_path / "none"), home=home) == 2
    assert f"there is no folder {tmp_path / 'none'}\n" in capsys.readouterr().err
    assert run("inbox", home=tmp_path / "fresh") == 0, "nothing was dropped yet"


def test_the_command_watches_the_files_of_one_task(dropped, monkeypatch):
    def stop(_):
        if next(looks) == 2:
            raise KeyboardInterrupt

    looks = iter(range(3))
    home, other = dropped.parents[1], dropped.parent / "vstar"
    other.mkdir()
    shutil.copy(dropped / "new.parquet", other / "new.parquet")
    begin_cycle(Warehouse(str(home)), "vstar", {})
    heard = []
    monkeypatch.setattr(watcher, "announce_imported", lambda _, task: heard.append(task) or True)
    monkeypatch.setattr(watcher.time, "sleep", stop)
    run("inbox", "sat2", "--watch", home=home)
    assert heard == ["sat2"]
    assert not list(read_questions(Warehouse(str(home)), "vstar"))


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of a stand-in for S3 in this process."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="dropped")
        yield "s3://dropped/in"


def test_a_prefix_of_s3_is_watched_as_well(tmp_path, bucket):
    inbox = Inbox(Warehouse(str(tmp_path / "home")), bucket)
    file = write_sat(tmp_path / "new.parquet", sat_rows(4))
    inbox.root.objects.put_file("sat2/new.parquet", file)
    inbox.root.objects.put("sat2/bad.parquet", b"nothing")
    bad, good = looked(inbox)
    assert good.added == 4 and bad.sentence.startswith("bad.parquet can't be read")
    said = inbox.root.objects.get("sat2/bad.parquet.rejected.txt").decode()
    assert said == f"{bad.sentence}\n" and looked(inbox) == []


def test_the_watcher_announces_what_came_in_until_a_server_hears_it(dropped, monkeypatch):
    heard, answers = [], iter([False, True])

    def announce(home, task):
        heard.append(task)
        return next(answers)

    looks = iter(range(4))

    def pause(seconds):
        if next(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(watcher, "announce_imported", announce)
    monkeypatch.setattr(watcher.time, "sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        watcher.watch_inbox(inbox_at(dropped), 0.01)
    assert heard == ["sat2", "sat2"]


@pytest.fixture
def server(monkeypatch):
    """What a server was told; it answers as Prefect's does, with nothing."""
    told = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            """Print nothing."""

        def do_POST(self):
            told.append(
                (self.path, json.loads(self.rfile.read(int(self.headers["content-length"]))))
            )
            self.send_response(204)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{serving.server_port}/api/")
        yield told
        serving.shutdown()


def test_an_import_sets_off_retrain_on_new_data(server, tmp_path, capsys):
    file = write_sat(tmp_path / "SAT_train.parquet", sat_rows(2))
    assert run("import", "sat2", file, home=tmp_path / "home") == 0
    assert "was told" in capsys.readouterr().err
    ((path, [event]),) = server
    assert path == "/api/events"
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (trigger,) = (t for d in deployments if d["name"] == "on-new-data" for t in d["triggers"])
    posture = EventTrigger(posture=Posture.Reactive, threshold=1, within=timedelta(), **{
        name: trigger[name] for name in ("match", "expect")
    })  # fmt: skip
    assert posture.covers(ReceivedEvent(**event, received=datetime.now(UTC)))
    # What is there already sets nothing off.
    assert run("import", "sat2", file, home=tmp_path / "home") == 0
    assert len(server) == 1


def test_where_no_server_answers_an_import_says_nothing_of_one(tmp_path, monkeypatch):
    assert not announce_imported(str(tmp_path), "sat2")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert not announce_imported(str(tmp_path), "sat2")


def test_a_killed_cycle_is_announced_and_one_that_its_budget_stopped_is_not(tmp_path):
    warehouse = Warehouse(str(tmp_path))
    _, stopped, ended = (begin_cycle(warehouse, t, {}) for t in ("killed", "stopped", "ended"))
    stopped.store_pause("build", "too dear")
    ended.store("end", {"outcome": "refused"})
    assert watcher.killed(warehouse) == ["killed"]


class TestSample:
    """What a task without questions is given."""

    def test_a_task_is_given_its_sample_only_where_it_has_no_other_questions(self, dropped):
        warehouse = Warehouse(str(dropped.parents[1]))
        looked(inbox_at(dropped))
        assert complete_sample(warehouse, "sat2") == 0
        assert len(questions(dropped)) == 4

    def test_a_sample_without_its_gate_is_completed(self, tmp_path):
        warehouse = Warehouse(str(tmp_path))
        assert complete_sample(warehouse, "my-own") == 0
        added = complete_sample(warehouse, "sat2")
        rows = query(warehouse, "SELECT split, count(*) AS n FROM questions GROUP BY split")
        counts = {row["split"]: row["n"] for row in rows.to_pylist()}
        assert counts == {"train": 180, "test": 240, "gate": 480} and sum(counts.values()) == added
        assert complete_sample(warehouse, "sat2") == 0


@pytest.mark.parametrize(
    ("is_s3", "still", "pause"), [(False, 5, 5), (True, 5, 60), (True, 90, 90)]
)
def test_the_watcher_looks_less_often_where_a_look_is_paid_for(
    tmp_path, monkeypatch, is_s3, still, pause
):
    class Enough(Exception):
        """The watcher would go on for good."""

    paused, heard = [], []

    def sleep(seconds):
        paused.append(seconds)
        raise Enough

    monkeypatch.setattr(watcher.time, "sleep", sleep)
    monkeypatch.setattr(watcher, "killed", lambda warehouse: ["killed"])
    monkeypatch.setattr(watcher, "announce_imported", lambda home, task: heard.append(task) or True)
    taken = [SimpleNamespace(task="sat2", added=3), SimpleNamespace(task="vstar", added=0)]
    inbox = SimpleNamespace(
        root=SimpleNamespace(is_s3=is_s3),
        warehouse=Warehouse(str(tmp_path)),
        look=lambda task: taken,
    )
    with pytest.raises(Enough):
        watch_inbox(inbox, still)
    assert paused == [pause] and sorted(heard) == ["killed", "sat2"]


def test_the_folder_can_be_named_by_a_variable(dropped, monkeypatch, tmp_path):
    monkeypatch.setenv("VIGORL_INBOX", str(dropped.parent))
    inbox = Inbox(Warehouse(str(tmp_path / "elsewhere")))
    assert inbox.tasks() == ["sat2"] and os.path.samefile(inbox.root.root, dropped.parent)
