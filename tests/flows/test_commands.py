"""What commands print of what their stages return, and with which status they end."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.progress import TerminalProgress
from flows.stages.replay import Replayed
from tests.flows.test_cli import run
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new

TEACHER = ("--teacher", "nano")


def gives(value: Any, kept: list[dict[str, Any]] | None = None) -> Callable[..., Any]:
    """A stage that returns a value; what it was given by name is kept."""

    async def stage(*_: object, **given: Any) -> Any:
        if kept is not None:
            kept.append(given)
        return value

    return stage


@pytest.mark.parametrize(
    ("differing", "missing", "status"), [([], {}, 0), (["t"], {}, 1), ([], {"t": "lost"}, 1)]
)
def test_a_replay_that_is_not_what_is_stored_has_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    differing: list[str], missing: dict[str, str], status: int,
) -> None:  # fmt: skip
    found = Replayed(differing=differing, missing=missing)
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("flows.stages.replay.replay", gives(found, given))
    assert run("build", "sat2", "--replay", *TEACHER, home=tmp_path) == status
    assert capsys.readouterr().out == f"{found.sentence()}\n"
    assert isinstance(given[0]["progress"], TerminalProgress)


def test_what_is_looked_at_or_scored_anew_builds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forecast = SimpleNamespace(text=lambda: "so much")
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("flows.stages.forecast.forecast_build", gives(forecast, given))
    monkeypatch.setattr(
        "flows.stages.regrade.regrade", gives(SimpleNamespace(sentence=lambda: "scored"))
    )
    assert run("build", "sat2", "--dry-run", *TEACHER, home=tmp_path) == 0
    assert run("build", "sat2", "--regrade", *TEACHER, home=tmp_path) == 0
    assert capsys.readouterr().out == "so much\nscored\n"
    assert isinstance(given[0]["progress"], TerminalProgress)


def test_a_build_tells_its_remarks_and_beside_them_what_it_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = SimpleNamespace(
        sentence=lambda: "built", extra={"failures": "some"}, requests=5, replayed=2, run_id="r"
    )
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("flows.stages.build.build", gives(summary, given))
    assert run("build", "sat2", *TEACHER, home=tmp_path) == 0
    said = capsys.readouterr()
    assert said.out == "built\nsome\n"
    assert said.err == "5 requests to the teacher, 2 answered from the journal (run r)\n"
    assert isinstance(given[0]["progress"], TerminalProgress)


def test_curating_says_which_filters_did_what_and_what_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = SimpleNamespace(
        sentence=lambda: "curated", extra={"filters": "one asks nobody", "dataset": "d@v1"}
    )
    revoked: list[Any] = []
    monkeypatch.setattr("flows.stages.curate.curate", gives(summary))
    monkeypatch.setattr("flows.cli.datasets.print_revoked", lambda *given: revoked.append(given))
    assert run("curate", "sat2", home=tmp_path) == 0
    said = capsys.readouterr()
    assert said.out == "curated\ndataset d@v1\n" and said.err == "one asks nobody\n"
    assert revoked == [("d@v1", str(tmp_path))]
    summary.extra = {}
    assert run("curate", "sat2", home=tmp_path) == 0
    assert capsys.readouterr().out == "curated\n" and len(revoked) == 1
    monkeypatch.setattr(
        "flows.stages.curate_preview.preview_curation", gives(SimpleNamespace(text=lambda: "seen"))
    )
    assert run("curate", "sat2", "--dry-run", home=tmp_path) == 0
    assert capsys.readouterr().out == "seen\n"


def test_a_source_is_deleted_only_where_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from warehouse.maintenance import delete

    warehouse, deleted = Warehouse(str(tmp_path)), list[Any]()
    insert_new(warehouse, "questions", [{"question_id": "q", "task": "sat2", "source": "web"}])
    doomed = SimpleNamespace(
        ids={"question_id": ["q"], "trace_id": []}, versions=[SimpleNamespace(ref="d@v1")]
    )
    monkeypatch.setattr(delete, "plan", lambda *_: doomed)
    monkeypatch.setattr(delete, "out_of_reach", lambda *_: ["a copy elsewhere"])
    monkeypatch.setattr(
        delete, "delete_source", lambda *given, **how: deleted.append((*given[1:], how["force"]))
    )
    assert run("warehouse", "delete-source", "web", home=tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [
        "web: 1 questions, 0 traces",
        "dataset d@v1 holds some of it and goes with --force",
        "out of reach: a copy elsewhere",
        "nothing is deleted without --yes",
    ]
    assert not deleted
    assert run("warehouse", "delete-source", "web", "--yes", home=tmp_path) == 0
    assert run("warehouse", "delete-source", "web", "--yes", "--force", home=tmp_path) == 0
    assert deleted == [("web", False), ("web", True)] and capsys.readouterr().out == ""


@pytest.mark.parametrize("words", [("check",), ("compact",), ("snapshot",), ("backup", "copy")])
def test_a_path_where_no_warehouse_is_is_not_looked_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run("warehouse", *words, home=tmp_path / "mistyped") == 2
    said = capsys.readouterr()
    assert "there is no warehouse at " in said.err and "it has no table" in said.err
    assert said.out == "" and not (tmp_path / "mistyped").exists()


def test_a_warehouse_in_which_something_is_wrong_has_status_1_and_a_remark_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from warehouse.maintenance import check

    insert_new(Warehouse(str(tmp_path)), "questions", [{"question_id": "q", "task": "sat2"}])
    found = [SimpleNamespace(wrong=False, sentence="it is old")]
    monkeypatch.setattr(check, "check", lambda warehouse: found)
    assert run("warehouse", "check", home=tmp_path) == 0
    assert capsys.readouterr().out == (
        "remark: it is old\neverything is there, and is what it says\n"
    )
    found += [SimpleNamespace(wrong=True, sentence="it is lost")] * 2
    assert run("warehouse", "check", home=tmp_path) == 1
    assert capsys.readouterr().out == "remark: it is old\nit is lost\nit is lost\n"


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    insert_new(Warehouse(str(folder)), "runs", [{"run_id": "r", "kind": "build"}])
    return folder


def test_a_query_may_begin_with_a_comment_or_come_from_elsewhere(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = "-- one\nSELECT 1 AS n"
    assert run("sql", statement, "--format", "csv", home=home) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(statement.encode())))
    assert run("sql", "-", "--format", "csv", home=home) == 0
    assert capsys.readouterr().out.split() == ['"n"', "1"] * 2
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"SELECT '\xff'")))
    assert run("sql", "-", home=home) == 2
    assert capsys.readouterr().err == "vigorl: the statement is no text in UTF-8\n"


def test_a_query_of_no_warehouse_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("nowhere", "file"):
        assert run("sql", "SELECT 1", home=tmp_path / name) == 2
        assert "there is no warehouse at " in capsys.readouterr().err


def test_other_peoples_files_are_not_overwritten(home: Path, tmp_path: Path) -> None:
    mine = tmp_path / "index.html"
    mine.write_text("mine")
    for arguments in (("gallery", "--out", tmp_path), ("warehouse", "snapshot", "--out", mine)):
        assert run(*arguments, home=home) == 2
        assert mine.read_text() == "mine" and list(tmp_path.iterdir()) == [mine]
    out = tmp_path / "here.duckdb"
    for _ in range(2):
        assert run("warehouse", "snapshot", "--out", out, home=home) == 0
