"""The registry: which model is current for a task, since when, and back again."""

import getpass
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from warehouse.models import find_model
from warehouse.registry import (
    Decision,
    attempts,
    challenger_id,
    champion_id,
    champions,
    decide,
    history,
    resolve_alias,
    rollback,
    takes_back,
)
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables import delta
from warehouse.tables.delta import insert_new


@pytest.fixture
def home(tmp_path):
    return Warehouse.at(str(tmp_path))


def promote(home, model, task="sat2"):
    return decide(home, Decision(task, model, "promoted", "better by 5 points"))


def refuse(home, model, **numbers):
    return decide(home, Decision("sat2", model, "refused", "luck", "gate", numbers))


def test_the_last_model_promoted_is_the_champion_and_refusals_are_kept(home):
    assert champion_id(home, "sat2") is None and challenger_id(home, "sat2") is None
    promote(home, "a@1")
    refuse(home, "b@1")
    promote(home, "v@1", task="vstar")
    assert champion_id(home, "sat2") == "a@1" and challenger_id(home, "sat2") == "b@1"
    assert champions(home) == {"sat2": "a@1", "vstar": "v@1"}
    promote(home, "c@1")
    assert champion_id(home, "sat2") == "c@1" and challenger_id(home, "sat2") is None
    found = history(home, "sat2")
    assert [row["promotion_id"] for row in found] == ["sat2/3", "sat2/2", "sat2/1"]
    assert [row["previous_id"] for row in found] == ["a@1", "a@1", None]
    assert all(row["decided_by"] and row["revision"] and row["created_at"] for row in found)


def test_rolling_back_goes_back_through_the_champions_and_is_in_the_history(home):
    for model in ("a@1", "b@1", "c@1"):
        promote(home, model)
    assert rollback(home, "sat2", by="anna")["model_id"] == "b@1"
    assert rollback(home, "sat2", reason="that one failed, too")["model_id"] == "a@1"
    assert champion_id(home, "sat2") == "a@1"
    newest, before, *_ = history(home, "sat2")
    assert newest["reason"] == "that one failed, too" and newest["previous_id"] == "b@1"
    assert before["outcome"] == "rolled_back" and before["decided_by"] == "anna"
    with pytest.raises(WarehouseError, match="no champion"):
        rollback(home, "vstar")


def test_rolling_back_ends_where_a_model_was_champion_twice(home):
    for model in ("a@1", "b@1", "c@1", "a@1"):
        promote(home, model)
    back = [rollback(home, "sat2") for _ in range(4)]
    assert [row["model_id"] for row in back if row["promoted"]] == ["c@1", "b@1", "a@1"]
    assert champion_id(home, "sat2") is None
    assert takes_back(back[0], "a@1") and not takes_back(back[0], "c@1")


def test_rolling_back_goes_on_where_earlier_releases_went_round(home):
    for model in ("a@1", "b@1"):
        promote(home, model)
    for model in ("a@1", "b@1", "a@1"):  # back and forth, more often than there were promotions
        decide(home, Decision("sat2", model, "rolled_back", "back"))
    assert rollback(home, "sat2")["promoted"] is False and champion_id(home, "sat2") is None
    promote(home, "c@1")
    assert champion_id(home, "sat2") == "c@1"


def test_rolling_back_the_first_champion_leaves_none(home):
    refuse(home, "x@1", gate={"p": 0.5})
    made = promote(home, "a@1")
    row = rollback(home, "sat2")
    assert (row["model_id"], row["outcome"], row["promoted"]) == ("a@1", "rolled_back", False)
    assert champion_id(home, "sat2") is None and champions(home) == {}
    assert challenger_id(home, "sat2") is None, "what was taken back waits for nobody"
    assert attempts(history(home, "sat2")) == 0, "as behind any other change of champions"
    with pytest.raises(WarehouseError, match="no champion to go back from"):
        rollback(home, "sat2")
    at = next(r["created_at"] for r in history(home) if r["promotion_id"] == made["promotion_id"])
    assert champion_id(home, "sat2", as_of=at) == "a@1"
    promote(home, "b@1")
    assert champion_id(home, "sat2") == "b@1" and rollback(home, "sat2")["model_id"] == "b@1"


def test_who_was_champion_on_a_day_can_be_asked(home):
    first, second = promote(home, "a@1"), promote(home, "b@1")
    (at,) = [r["created_at"] for r in history(home) if r["promotion_id"] == first["promotion_id"]]
    assert champion_id(home, "sat2", as_of=at) == "a@1"
    assert champion_id(home, "sat2") == second["model_id"]


def test_of_two_decisions_made_at_once_one_must_look_again(home):
    promote(home, "a@1")

    def at_once(model):
        try:
            return decide(home, Decision("sat2", model, "promoted", "."), after=1)
        except WarehouseError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(at_once, ["b@1", "c@1", "d@1", "e@1"]))
    assert sum(isinstance(one, dict) for one in made) == 1
    assert all("decide again" in one for one in made if isinstance(one, str))
    assert len(history(home, "sat2")) == 2


def test_attempts_count_what_the_gate_judged_since_the_champion(home):
    refuse(home, "x@1", gate={"p": 0.5})
    promote(home, "a@1")
    refuse(home, "b@1", gate={"p": 0.5})
    refuse(home, "c@1")  # by a person
    assert attempts(history(home, "sat2")) == 1


def test_the_challenger_is_who_waits_for_a_person_else_who_was_refused_last(home):
    promote(home, "a@1")
    decide(home, Decision("sat2", "b@1", "waiting", "luck?"))
    refuse(home, "c@1")
    assert challenger_id(home, "sat2") == "b@1"
    refuse(home, "b@1")  # by that person
    assert challenger_id(home, "sat2") == "b@1"
    refuse(home, "d@1")
    assert challenger_id(home, "sat2") == "d@1"
    promote(home, "d@1")
    assert challenger_id(home, "sat2") is None


def test_an_alias_names_the_model_wherever_models_are_named(home):
    row = {"model_id": "a@1", "name": "a", "path": "models/a", "recipe": json.dumps({})}
    insert_new(home, "models", [row])
    promote(home, "a@1")
    assert find_model(home, "champion:sat2")["model_id"] == "a@1"
    assert resolve_alias(home, "http://gpu:8000") == "http://gpu:8000"
    with pytest.raises(WarehouseError, match="vstar has no champion"):
        find_model(home, "champion:vstar")
    with pytest.raises(WarehouseError, match="sat2 has no challenger"):
        resolve_alias(home, "challenger:sat2")


def test_a_decision_is_stored_with_all_it_rests_on(home):
    numbers = {"gate": {"p": 0.25}, "a": 1}
    made = Decision("sat2", "a@1", "waiting", "close", "gate", numbers, ("e1", "e2"), "sat2@v3")
    row = decide(home, made, run_id="run-1")
    (stored,) = history(home, "sat2")
    assert stored | row == stored
    assert (stored["outcome"], stored["promoted"], stored["previous_id"]) == (
        "waiting",
        False,
        None,
    )
    assert (stored["evaluation_ids"], stored["dataset"]) == (["e1", "e2"], "sat2@v3")
    assert stored["numbers"] == '{"a": 1, "gate": {"p": 0.25}}' and stored["run_id"] == "run-1"
    promote(home, "b@1")
    assert history(home, "sat2")[0]["run_id"] is None
    assert history(home, "sat2")[0]["decided_by"] == getpass.getuser()


def test_decisions_of_one_moment_are_in_the_order_of_their_numbers(home):
    for number in range(11):
        refuse(home, f"m@{number}")
    found = [row["promotion_id"] for row in history(home, "sat2")]
    assert found == [f"sat2/{number}" for number in range(11, 0, -1)]
    assert challenger_id(home, "sat2") == "m@10"
    assert [row["task"] for row in history(home)] == ["sat2"] * 11


def test_only_an_alias_of_a_task_is_looked_up(home):
    promote(home, "a@1")
    refuse(home, "b@1")
    assert resolve_alias(home, "champion:sat2") == "a@1"
    assert resolve_alias(home, "challenger:sat2") == "b@1"
    for name in ("champion", "vllm:model", "a@1", "winner:sat2"):
        assert resolve_alias(home, name) == name
    assert champions(home) == {"sat2": "a@1"}


def test_going_back_says_from_what_and_by_whom(home):
    promote(home, "a@1")
    promote(home, "b@1")
    refuse(home, "c@1")
    row = rollback(home, "sat2")
    assert (row["reason"], row["model_id"], row["outcome"]) == (
        "back from b@1",
        "a@1",
        "rolled_back",
    )
    assert row["promotion_id"] == "sat2/4" and row["decided_by"] == getpass.getuser()
    assert row["promoted"] and champion_id(home, "sat2") == "a@1"
    assert attempts(history(home, "sat2")) == 0


def test_a_clock_that_is_ahead_keeps_no_champion(home, monkeypatch):
    class Ahead(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(minutes=2)

    promote(home, "old@1")
    with monkeypatch.context() as patch:
        patch.setattr(delta, "datetime", Ahead)  # of the machine that promotes
        promote(home, "bad@2")
        promote(home, "v@1", task="vstar")
    assert rollback(home, "sat2")["promotion_id"] == "sat2/3"
    assert champion_id(home, "sat2") == "old@1"
    assert [row["promotion_id"] for row in history(home, "sat2")] == ["sat2/3", "sat2/2", "sat2/1"]
    assert champions(home) == {"sat2": "old@1", "vstar": "v@1"}
    refuse(home, "c@1")
    assert challenger_id(home, "sat2") == "c@1"
