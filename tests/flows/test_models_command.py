"""`vigorl models`: what is current for a task, decided, taken back and asked for by day."""

import json

import pytest

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
