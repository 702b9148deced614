"""What a cycle takes for new, and whom its gate compares with, when people act in between."""

from __future__ import annotations

import asyncio

import pytest

from flows.retrain_settings import RetrainSettings
from flows.stages.retrain import collapse, gate
from flows.stages.retrain.came_in import read_came_in
from flows.stages.retrain.collapse import check_collapse
from flows.stages.retrain.cycle import Cycle, begin_cycle
from flows.stages.retrain.new_data import kept_traces, look_for_new, new_traces
from tests.warehouse.test_versions import KEPT, fill
from warehouse.query.run_query import query, table_versions
from warehouse.registry import Decision, champion_id, decide
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new
from warehouse.versions.revocations import revoke
from warehouse.versions.versions import publish


@pytest.fixture
def warehouse(tmp_path):
    return fill(Warehouse(str(tmp_path / "home")), tmp_path / "in")


def decided(warehouse, tables=None):
    """A cycle that published every kept trace, and came to a decision."""
    cycle = begin_cycle(warehouse, "sat2", {"questions": 0, "traces": 3, "settings": {}})
    tables = tables or table_versions(warehouse)
    version = publish(warehouse, "sat2-cycle", KEPT)
    cycle.store("publish", {"dataset": version.ref, "tables": tables})
    cycle.store("gate", {"outcome": "refused"})
    cycle.store("end", {"outcome": "refused", "reason": "no better"})
    return cycle


def test_revoked_traces_are_never_new(warehouse):
    kept = kept_traces(warehouse, "sat2")
    assert look_for_new(warehouse, "sat2")["traces"] == len(kept) > 1
    revoke(warehouse, "trace", kept[0], "collapse")
    assert new_traces(warehouse, "sat2") == kept[1:]
    decided(warehouse)
    assert new_traces(warehouse, "sat2") == []


def test_what_an_equal_version_left_out_is_new_no_longer(warehouse):
    """Published again it is the version of before, whose card names the tables of then."""
    none = dict.fromkeys(table_versions(warehouse))
    first = decided(warehouse, tables={**table_versions(warehouse), "traces": none["traces"]})
    assert first.tables()["traces"] is None and new_traces(warehouse, "sat2")
    second = decided(warehouse)
    assert second.outcome("publish")["dataset"] == first.outcome("publish")["dataset"]
    assert new_traces(warehouse, "sat2") == []


def test_tables_whose_files_are_gone_are_told_by_time(warehouse, monkeypatch):
    decided(warehouse)
    monkeypatch.setattr(Cycle, "tables", lambda self: dict.fromkeys(table_versions(warehouse), 999))
    assert new_traces(warehouse, "sat2") == []
    after = begin_cycle(warehouse, "sat2", {})
    assert check_collapse(after) == {"checks": []}
    after.store("publish", {"dataset": "sat2-cycle@v1"})
    found = read_came_in(after)
    assert found.steps["new questions"] == 0 and found.steps["kept by every filter"] == 0


def test_a_champion_that_searches_beside_another_model_is_checked(warehouse, monkeypatch):
    models = ("champ@1", "champ@1 + nano@2", "nano@2")
    trees = {f"t{i}": {"model": model, "run_id": "r"} for i, model in enumerate(models)}
    read = []
    monkeypatch.setattr(collapse, "_trees", lambda *_: trees)
    champion = {"model_id": "champ@1", "promoted": True}
    monkeypatch.setattr(collapse, "history", lambda *_: [champion])
    monkeypatch.setattr(collapse, "read_searches", lambda _, ids: read.append(set(ids)))
    monkeypatch.setattr(collapse, "compare", lambda *_: [])
    check_collapse(begin_cycle(warehouse, "sat2", {}))
    assert read == [{"t0", "t1"}, {"t2"}]


def test_the_gate_compares_with_who_is_champion_by_then(warehouse, monkeypatch):
    decide(warehouse, Decision("sat2", "old@1", "promoted", "first", "me"))
    names = [f"q{n}" for n in range(60)]
    asked = {"task": "sat2", "text": "t", "split": "gate", "answer_kind": "text", "answers": ["a"]}
    insert_new(
        warehouse,
        "questions",
        [{**asked, "question_id": name, "image_ids": [f"image-{name}"]} for name in names],
    )
    for model, score in (("old", 0.0), ("new", 0.5), ("best", 1.0)):
        answer = {"evaluation_id": model, "sample": 0, "score": score, "valid": True}
        rows = [{**answer, "question_id": name, "trace_id": model + name} for name in names]
        insert_new(warehouse, "predictions", rows)

    def found(champion):
        def row(model):
            named = {"model_id": f"{model}@1", "evaluation_id": model}
            return {**named, "accuracy": 0.0, "format": 1.0}

        models = {"champion": row(champion), "challenger": row("new")}
        return {"met": f"{champion}@1", **models, **{f"{k}_blank": v for k, v in models.items()}}

    async def again(*_):
        return found("best")

    monkeypatch.setattr(gate, "evaluate_both", again)
    cycle = begin_cycle(warehouse, "sat2", {"questions": 1, "traces": 1, "settings": {}})
    cycle.store("publish", {"dataset": "sat2-cycle@v1"})
    cycle.store("evaluate", found("old"))
    decide(warehouse, Decision("sat2", "best@1", "promoted", "by hand", "anna"))
    settings = RetrainSettings.checked(task="sat2", sft_recipe="nano-sft", home=warehouse.root)
    outcome = asyncio.run(gate.decide_gate(cycle, settings, None))
    assert outcome["outcome"] == "refused" and champion_id(warehouse, "sat2") == "best@1"
    assert cycle.outcome("evaluate")["met"] == "best@1"
    assert query(warehouse, "FROM promotions").num_rows == 3
