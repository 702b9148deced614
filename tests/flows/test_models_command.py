"""`vigorl models`: what is current for a task, decided, taken back and asked for by day."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from flows.cli.models import _time
from flows.settings_base import Problem
from flows.stages.retrain.cycle import begin_cycle
from tests.flows.test_cli import run
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new


@pytest.fixture
def home(tmp_path):
    """A warehouse that knows two trained models."""
    rows = [
        {
            "model_id": f"{name}@1", "name": name, "base": "b@0", "dataset": "sat2-sft@v1",
            "path": f"models/{name}", "recipe": json.dumps({"kind": "sft"}),
            "metrics": json.dumps({"loss": 0.25}), "run_id": "r",
        }
        for name in ("first", "second")
    ]  # fmt: skip
    insert_new(Warehouse.at(str(tmp_path)), "models", rows)
    return tmp_path


def test_a_model_is_promoted_rolled_back_and_in_the_history(home, capsys):
    for name in ("first", "second"):
        assert run("models", "promote", "sat2", name, "--reason", "a try", home=home) == 0
    assert run("models", "list", home=home) == 0
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert "champion of sat2" in second and "champion" not in first
    assert run("models", "rollback", "sat2", "--by", "anna", home=home) == 0
    assert run("models", "show", "champion:sat2", home=home) == 0
    said = capsys.readouterr().out
    assert "first@1" in said and "loss: 0.25" in said and "by anna: back from second@1" in said
    assert run("models", "show", "second", home=home) == 0
    assert "rolled_back  to first@1  by anna: back from second@1" in capsys.readouterr().out
    assert run("models", "history", "sat2", home=home) == 0
    assert capsys.readouterr().out.startswith("champion: first@1\nsat2/3")
    assert run("models", "history", "sat2", "--as-of", "2020-01-01", home=home) == 0
    assert "nothing has been decided about sat2 until 2020-01-01" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("promote", "sat2", "nobody", "--reason", "x"), "no model 'nobody' was trained here"),
        (("show", "champion:sat2"), "sat2 has no champion: `vigorl models promote sat2 MODEL`"),
        (("rollback", "sat2"), "sat2 has no champion to go back from"),
        (("promote", "sat2", "first", "--reason", " "), "--reason: say why"),
        (("history", "sat2", "--as-of", "yesterday"), "--as-of 'yesterday' is no day or time"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(home, capsys, arguments, sentence):
    assert run("models", *arguments, home=home) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_the_champion_is_not_promoted_again(home, capsys):
    assert run("models", "promote", "sat2", "first", "--reason", "x", home=home) == 0
    assert run("models", "promote", "sat2", "first", "--reason", "x", home=home) == 2
    assert "is the champion of sat2 already" in capsys.readouterr().err


def test_what_a_model_is_without_some_of_its_facts(home, capsys):
    assert run("models", "list", home=home / "nothing") == 0
    assert capsys.readouterr().out.startswith("nothing has been trained yet; ")
    row = {
        "model_id": "bare@1", "name": "bare", "base": "b@0", "dataset": None, "path": "models/bare",
        "recipe": "{}", "metrics": json.dumps({"loss": 0.123456, "note": "a text"}), "run_id": "r",
    }  # fmt: skip
    insert_new(Warehouse.at(str(home)), "models", [row])
    assert run("models", "list", home=home) == 0
    listed = capsys.readouterr().out
    assert "nothing has been trained" not in listed and "champion" not in listed
    assert "bare@1 " in listed and "questions of a task" in listed
    assert run("models", "promote", "sat2", "first", "--reason", "x", home=home) == 0
    capsys.readouterr()
    assert run("models", "show", "bare", home=home) == 0
    said = capsys.readouterr().out
    assert "on questions of a task, by ?\n" in said and "loss: 0.1235\n" in said
    assert "a text" not in said and "first@1" not in said, "of its own decisions only"


def test_a_day_is_meant_to_its_end_and_a_time_in_utc():
    assert _time(None) is None
    assert _time("2026-11-28") == datetime(2026, 11, 28, 23, 59, 59, 999_999, UTC)
    assert _time("2026-11-28T02:30") == datetime(2026, 11, 28, 2, 30, tzinfo=UTC)
    east = timezone(timedelta(hours=2))
    assert _time("2026-11-28T02:30+02:00") == datetime(2026, 11, 28, 2, 30, tzinfo=east)
    with pytest.raises(Problem, match="--as-of 'noon' is no day"):
        _time("noon")


def test_a_report_is_of_the_newest_cycle_or_of_one_that_there_is(home, capsys, monkeypatch):
    assert run("models", "report", "sat2", home=home) == 2
    said = capsys.readouterr().err
    assert "sat2 has not been retrained" in said and "`vigorl retrain sat2 --sft-recipe" in said
    monkeypatch.setattr("flows.stages.retrain.report.write_report", lambda cycle: cycle.name)
    for _ in range(2):
        begin_cycle(Warehouse.at(str(home)), "sat2", {})
    for words, name in (((), "sat2-cycle-2"), (("1",), "sat2-cycle-1")):
        assert run("models", "report", "sat2", *words, home=home) == 0
        assert capsys.readouterr().out == f"{name}\n"
    assert run("models", "report", "sat2", "3", home=home) == 2
    assert "sat2 has no cycle 3: there are 1 to 2" in capsys.readouterr().err
