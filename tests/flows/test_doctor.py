"""`vigorl doctor` on warehouses and servers that are well, and on each that is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli.doctor import _printer
from flows.orchestration.server_health import check_prefect
from flows.settings import TeacherSettings
from flows.stages.doctor import machine
from flows.stages.doctor.checkup import Diagnosis, examine
from flows.stages.doctor.stored import (
    at,
    check_commits,
    check_inbox,
    check_journal,
    check_leftovers,
    check_retraining,
    check_tables,
)
from flows.stages.doctor.teacher import _remedy, check_teacher
from flows.stages.retrain.cycle import STAGES, Cycle, begin_cycle, lease_name
from tests.flows.test_cli import run, searched
from tests.support.stub_server import MODEL, StubServer
from warehouse.storage.home import Warehouse
from warehouse.storage.lease import take_lease
from warehouse.tables.delta import append

KEYS = ("VIGORL_API_KEY", "OPENAI_API_KEY", "PREFECT_API_URL", "VIGORL_HOME")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("doctor"), 2, simulations=2)


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    return Path(shutil.copytree(made, tmp_path / "home"))


@pytest.fixture
def warehouse(home: Path) -> Warehouse:
    return Warehouse(str(home))


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def wrong(found: Iterator[Diagnosis]) -> list[Diagnosis]:
    return [diagnosis for diagnosis in found if diagnosis.state != "ok"]


def test_a_warehouse_that_is_well_has_no_problem_and_nothing_is_written(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(home)
    assert run("doctor", home=home) == 0
    said = capsys.readouterr().out
    assert "2 questions, 2 trees" in said and "problem" not in said
    assert run("doctor", "--json", home=home) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == 0
    assert {"warehouse", "commits", "journal", "retraining", "disk", "teacher"} <= {
        check["subject"] for check in found["checks"]
    }
    assert contents(home) == before


def test_a_problem_says_what_to_type_and_the_status_is_1(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (home / "tables" / "traces").glob("*.parquet"):
        file.unlink()
    assert run("doctor", home=home) == 1
    said = capsys.readouterr().out
    assert "problem  warehouse     traces can't be read" in said
    assert f"vigorl warehouse check --home {home}" in said


def test_on_a_terminal_a_long_sentence_is_folded_below_itself_and_the_remedy_below_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for name, value in (("TERM", "dumb"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    show = _printer()
    show(Diagnosis("disk", "problem", f"{'long' * 14} one", "free\x1b[2J some"))
    show(Diagnosis("clock", "ok", "it is right"))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        f"problem  disk          {'long' * 14}",
        "                       one",
        "         type          free\\u001b[2J some",
        "ok       clock         it is right",
    ]


def test_a_path_where_nothing_is_is_a_problem_only_if_it_was_named(tmp_path: Path) -> None:
    nothing = Warehouse(str(tmp_path / "nothing"))
    assert [d.state for d in check_tables(nothing, named=True)] == ["problem"]
    assert [d.state for d in check_tables(nothing, named=False)] == ["note"]
    assert not (tmp_path / "nothing").exists()


def test_a_warehouse_that_this_user_cannot_write_is_a_problem_and_is_read(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.stages.doctor.stored.os.access", lambda path, mode: False)
    problem, well = check_tables(warehouse, named=True)
    assert problem.sentence == f"{warehouse.root} can't be written by this user"
    assert well.sentence.startswith(f"{warehouse.root}: 2 questions, 2 trees, ")


def test_a_command_names_the_warehouse_unless_it_is_the_usual_one(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert at(warehouse) == f" --home {warehouse.root}"
    assert at(Warehouse()) == ""


def test_what_was_found_is_counted(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Diagnosis("disk", "ok", "it is there")]
    monkeypatch.setattr("flows.cli.doctor._checks", lambda settings: {"disk": lambda: found})
    assert run("doctor", home=home) == 0
    assert "\nall is well: 1 checks in " in capsys.readouterr().out
    found += [Diagnosis("disk", state, "x") for state in ("note", "problem", "note")]  # type: ignore[arg-type]
    assert run("doctor", home=home) == 1
    assert "\n1 problem, 2 notes: 4 checks in " in capsys.readouterr().out


def test_columns_of_newer_code_are_named(warehouse: Warehouse) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    rows = pa.table({"judge_of_tomorrow": ["x"]})
    uri = warehouse.table_uri("behaviors")
    write_deltalake(uri, rows, mode="append", schema_mode="merge")
    (found,) = wrong(check_tables(warehouse, named=True))
    assert "behaviors has columns of a newer vigorl: judge_of_tomorrow" in found.sentence


def test_a_commit_that_never_finished_is_a_note(warehouse: Warehouse) -> None:
    assert not wrong(check_commits(warehouse))
    row = {"trace_id": "t", "step": 1, "commit_id": "half"}
    append(warehouse, "steps", [row], "test")
    (found,) = wrong(check_commits(warehouse))
    assert found.state == "note" and "steps: 1 commits never finished" in found.sentence


def test_answers_that_wait_in_the_journal_are_counted_and_damage_is_told(
    warehouse: Warehouse,
) -> None:
    (found,) = check_journal(warehouse)
    (segment,) = warehouse.journal_dir.glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    assert (found.state, found.sentence) == ("ok", f"{len(lines)} answers, all of them in trees")
    shutil.rmtree(Path(warehouse.root) / "tables" / "trees")
    (found,) = wrong(check_journal(warehouse))
    assert found.state == "note" and f"{len(lines)} answers of 2 searches" in found.sentence
    segment.write_bytes(lines[0][:40] + b"\n" + b"".join(lines[1:]) + lines[0][:40])
    problem, _ = wrong(check_journal(warehouse))
    assert problem.state == "problem" and problem.sentence.startswith("1 lines in")
    segment.unlink()
    (found,) = check_journal(warehouse)
    assert (found.state, found.sentence) == ("ok", "it is empty")


def test_what_killed_processes_left_half_written_is_counted_once_it_is_old(
    warehouse: Warehouse,
) -> None:
    left = Path(warehouse.root) / ".partial" / "left"
    left.write_bytes(b"x" * 2**20)
    assert not list(check_leftovers(warehouse)), "somebody may be writing it"
    os.utime(left, (time.time() - 7200, time.time() - 7200))
    (found,) = check_leftovers(warehouse)
    assert "1 half-written files of killed processes, 1.0 MiB" in found.sentence


def test_a_cycle_that_nobody_is_at_says_where_it_stands_and_how_it_goes_on(
    warehouse: Warehouse,
) -> None:
    cycle = begin_cycle(warehouse, "sat2", {"settings": {"sft_recipe": "nano-sft"}})
    for stage in STAGES[1 : STAGES.index("publish")]:
        cycle.store(stage, {"traces": 60})
    with take_lease(warehouse, lease_name("sat2")):
        (found,) = check_retraining(warehouse)
        assert found.state == "ok"
        assert found.sentence.startswith("sat2-cycle-1, stage publish is at work in process")
    (found,) = check_retraining(warehouse)
    assert found.state == "problem" and "stands before publish" in found.sentence
    assert found.remedy.startswith("vigorl retrain sat2 --sft-recipe nano-sft --home ")
    cycle.store("end", {"outcome": "refused", "reason": "no better"})
    assert not wrong(check_retraining(warehouse))


def test_a_cycle_that_its_budget_stopped_is_a_note(warehouse: Warehouse) -> None:
    cycle = begin_cycle(warehouse, "sat2", {"settings": {"sft_recipe": "nano-sft"}})
    cycle.store_pause("build", "its 900 seconds are used up")
    (found,) = check_retraining(warehouse)
    assert found.state == "note" and "its 900 seconds are used up" in found.sentence


def test_a_machine_whose_clock_is_ahead_holds_a_lease_too_long(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    with take_lease(warehouse, lease_name("sat2")):
        begin_cycle(warehouse, "sat2", {})
        monkeypatch.setattr(time, "time", lambda: now - 60)
        (found,) = check_retraining(warehouse)
        assert found.state == "problem" and " is 60 s ahead" in found.sentence
        assert found.sentence.startswith("sat2: the clock of ") and "set-ntp" in found.remedy
        monkeypatch.setattr(time, "time", lambda: now - 5)
        assert [found.state for found in check_retraining(warehouse)] == ["ok"]


def test_how_a_task_stands_between_its_cycles_is_said(warehouse: Warehouse) -> None:
    (found,) = check_retraining(warehouse)
    assert (found.state, found.sentence) == ("ok", "no cycle has run yet")
    cycle = begin_cycle(warehouse, "sat2", {"settings": {"grpo_recipe": "my grpo"}})
    with take_lease(warehouse, lease_name("sat2")):
        pass
    (found,) = check_retraining(warehouse)
    assert "lease" not in found.sentence, "it was given back"
    assert found.remedy.startswith("vigorl retrain sat2 --grpo-recipe 'my grpo' --home ")
    cycle.store("end", {"outcome": "refused"})
    (found,) = check_retraining(warehouse)
    assert (found.state, found.sentence) == ("ok", "sat2: no cycle is open")
    with take_lease(warehouse, lease_name("sat2")):
        (found,) = check_retraining(warehouse)
        assert found.sentence.startswith("a look for what is new is at work in process ")


def test_a_file_that_was_refused_is_named_with_its_reason(warehouse: Warehouse) -> None:
    assert not list(check_inbox(warehouse))
    warehouse.objects.put("inbox/sat2/bad.parquet.rejected.txt", b"bad.parquet is no table\n")
    (found,) = check_inbox(warehouse)
    assert found.state == "note"
    assert found.sentence == "not imported: sat2/bad.parquet (bad.parquet is no table)"
    warehouse.objects.put("inbox/vstar/worse.parquet.rejected.txt", b"\xff")
    (found,) = check_inbox(warehouse)
    assert found.sentence.endswith("(bad.parquet is no table), and 1 more")


def test_a_lease_of_a_process_that_is_gone_is_named(warehouse: Warehouse) -> None:
    begin_cycle(warehouse, "sat2", {"settings": {}})
    code = (
        "import os; from warehouse.storage.home import Warehouse\n"
        "from warehouse.storage.lease import take_lease\n"
        f"with take_lease(Warehouse({warehouse.root!r}), {lease_name('sat2')!r}): os._exit(9)"
    )
    done = subprocess.Popen([sys.executable, "-c", code])
    done.wait()
    (found,) = check_retraining(warehouse)
    assert f"its lease was left by process {done.pid}" in found.sentence
    Cycle(warehouse, "sat2", 1).store("end", {"outcome": "refused"})
    (found,) = check_retraining(warehouse)
    assert found.state == "ok" and found.sentence.endswith(", and is taken by the next")


# ---- the teacher ---------------------------------------------------------------------------------


def teacher(url: str, **given: str) -> list[Diagnosis]:
    return list(check_teacher(TeacherSettings.checked(teacher=url, **given)))


@pytest.mark.usefixtures("home")
def test_a_teacher_is_reached_and_is_of_the_model_that_is_named() -> None:
    with StubServer() as server:
        (found,) = teacher(server.url)
        assert (found.state, found.sentence) == ("ok", f"{server.url} serves {MODEL}")
        (found,) = teacher(server.url, model="another")
        assert found.state == "problem" and f"{MODEL}, not another" in found.sentence
        assert "--model" in found.remedy
        assert server.request_count() == 0, "nothing that costs"
    (found,) = teacher(server.url)
    assert found.state == "problem" and "vigorl serve" in found.remedy


@pytest.mark.usefixtures("home")
def test_a_key_that_is_missing_is_told_by_its_variable() -> None:
    (found,) = teacher("http://127.0.0.1:9", api_key_env="TEAM_KEY")
    assert (found.subject, found.state) == ("API key", "problem")
    assert found.remedy == "export TEAM_KEY=..."


@pytest.mark.usefixtures("home")
def test_what_a_server_says_decides_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = TeacherSettings.checked(teacher="http://gpu:8000")
    named = TeacherSettings.checked(teacher="http://gpu:8000", api_key_env="TEAM_KEY")
    for sentence in ("it answers HTTP 401", "it answers HTTP 403"):
        assert _remedy(plain, sentence) == "export VIGORL_API_KEY=..."
        assert _remedy(named, sentence) == "export TEAM_KEY=..."
    monkeypatch.setenv("TEAM_KEY", "wrong")
    assert _remedy(named, "HTTP 401").endswith("the one that is set is refused")
    assert "--model NAME" in _remedy(plain, "http://gpu:8000 serves a, not b")
    assert _remedy(plain, "nobody is there").startswith("vigorl serve MODEL")


@pytest.mark.usefixtures("home")
def test_every_server_of_a_teacher_is_asked() -> None:
    with StubServer() as one, StubServer() as other:
        found = teacher(f"{one.url}/, {other.url}")
    assert [diagnosis.sentence for diagnosis in found] == [
        f"{url} serves {MODEL}" for url in (one.url, other.url)
    ]


def test_a_checkpoint_is_looked_for_and_not_loaded() -> None:
    assert teacher("nano-teacher")[0].state == "ok"
    (found,) = teacher("no-such-model")
    assert found.state == "problem" and "nano-teacher" in found.sentence


# ---- this machine --------------------------------------------------------------------------------


def test_libraries_are_held_to_what_the_project_asks_for(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["pyarrow>=999", "no-such-library"]\n'
        '[project.optional-dependencies]\ntrain = ["no-such-trainer"]\n'
    )
    problem, note = machine.check_dependencies(tmp_path)
    assert "pyarrow is " in problem.sentence and "wanted >=999" in problem.sentence
    assert "no-such-library is missing" in problem.sentence and problem.remedy == "make setup"
    assert note.state == "note" and "training" in note.sentence
    assert not wrong(machine.check_dependencies())


def test_a_disk_that_is_nearly_full_is_a_problem(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not wrong(machine.check_disk(warehouse))
    monkeypatch.setattr(machine, "LEAST_FREE", 2**80)
    assert all(found.state == "problem" for found in machine.check_disk(warehouse))


def test_a_clock_that_is_behind_the_files_is_a_problem(warehouse: Warehouse) -> None:
    assert not wrong(machine.check_clock(warehouse))
    log = Path(warehouse.root) / "tables" / "trees" / "_delta_log"
    os.utime(log, (time.time() + 600, time.time() + 600))
    (found,) = machine.check_clock(warehouse)
    assert found.state == "problem" and "s behind the newest file" in found.sentence


# ---- Prefect, and checks that do not end ---------------------------------------------------------


def test_without_a_server_there_is_a_note_and_with_a_dead_one_a_problem(home: Path) -> None:
    assert [found.state for found in check_prefect(str(home))] == ["note"]
    (home / "prefect").mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    note = {"pid": gone.pid, "started": "1"}
    (home / "prefect" / "server.json").write_text(json.dumps(note))
    (found,) = check_prefect(str(home))
    assert (
        found.state == "problem" and "the server that vigorl up started is gone" in found.sentence
    )
    assert found.remedy == "vigorl up"


def test_a_server_that_does_not_answer_is_a_problem(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    (found,) = check_prefect(str(home))
    assert found.state == "problem" and "no server answers at http://127.0.0.1:9" in found.sentence


def test_a_check_that_does_not_end_or_that_fails_holds_up_no_other() -> None:
    import threading

    def hangs() -> Iterator[Diagnosis]:
        yield Diagnosis("slow", "ok", "so far")
        threading.Event().wait()

    def fails() -> Iterator[Diagnosis]:
        raise ValueError("broken\nin two lines")

    found = list(
        examine(
            {"slow": hangs, "bad": fails, "good": lambda: [Diagnosis("good", "ok", "yes")]},
            limit_s=0.2,
        )
    )
    assert [(d.subject, d.state) for d in found] == [
        ("slow", "ok"), ("slow", "problem"), ("bad", "problem"), ("good", "ok"),
    ]  # fmt: skip
    assert found[1].sentence == "no answer within 0.2 s" and found[2].sentence == "broken"
