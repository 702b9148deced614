"""A cycle of retraining: what starts it, what it decides, and how it goes on when killed."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys

import pytest

from flows.retrain_settings import RetrainSettings
from flows.settings_base import Problem
from flows.stages.forecast import Forecast, Range
from flows.stages.retrain.cycle import Cycle, begin_cycle, cycles, lease_name, unfinished
from flows.stages.retrain.gate import decide_gate
from flows.stages.retrain.new_data import new_traces, questions_without_tree
from flows.stages.retrain.stages import affordable, shared_out
from flows.stages.retrain.tools import Tools
from mcts.budget import Usage
from tests.flows.test_cli import run, searched
from tests.support.fixtures import sat_rows, unlike_rows, write_sat
from warehouse.query.run_query import query
from warehouse.registry import champion_id, history
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.storage.lease import take_lease
from warehouse.tables.delta import insert_new
from warehouse.tables.rows import read_questions
from warehouse.versions.revocations import revoke

SMALL = (
    "retrain", "sat2", "--sft-recipe", "nano-sft", "--sft-override", "steps=2",
    "--sft-override", "batch=4", "--min-new-traces", "5",
)  # fmt: skip
STAGES = ("build", "publish", "sft", "measure", "grpo", "evaluate", "gate")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Six searched questions, and a dozen for the gate."""
    folder = tmp_path_factory.mktemp("retrain")
    home = searched(folder, 6, simulations=6)
    gate = write_sat(folder / "SAT_gate.parquet", unlike_rows(12))
    assert run("import", "sat2", gate, "--split", "gate", home=home) == 0
    return home


@pytest.fixture
def home(made, tmp_path):
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "home")


def test_a_killed_cycle_goes_on_to_a_decision_and_the_next_finds_nothing_new(home, capsys):
    warehouse = Warehouse.at(str(home))
    assert not questions_without_tree(warehouse, "sat2") and len(new_traces(warehouse, "sat2")) > 5
    kill(home, "publish")
    assert unfinished(warehouse, "sat2").outcome("sft") is None
    # What it was begun with holds, whatever is asked for now.
    assert run("retrain", "sat2", "--sft-recipe", "other.yaml", home=home) == 0
    first = capsys.readouterr().out
    assert first.startswith("sat2-cycle-1: refused; sat2-cycle-1-sft@")
    (row,) = history(warehouse, "sat2")
    numbers = json.loads(row["numbers"])
    assert row["decided_by"] == "gate" and numbers["cycle"] == 1
    assert numbers["gate"]["gain"]["n"] == 12 and len(row["evaluation_ids"]) == 2
    assert champion_id(warehouse, "sat2") is None
    assert run(*SMALL, home=home) == 0
    assert "nothing is new since the last cycle" in capsys.readouterr().out
    assert len(cycles(warehouse, "sat2")) == 1 and len(history(warehouse, "sat2")) == 1
    assert run("retrain", "sat2", "--sft-recipe", "nano-sft", "--decide-again", "1", home=home) == 0
    assert "(the same)" in capsys.readouterr().out
    kept = {row["name"]: row for row in warehouse_splits(warehouse)}
    assert kept["gate"]["trees"] == 0, "nothing of the gate is searched"


def warehouse_splits(warehouse):
    return query(
        warehouse,
        "SELECT split AS name, count(tree_id) AS trees FROM questions LEFT JOIN trees "
        "USING (question_id) GROUP BY split",
    ).to_pylist()


def kill(home, stage):
    """Run a cycle that is killed as soon as a stage's outcome is stored."""
    command = [sys.executable, "-m", "flows.cli", *SMALL, "--home", str(home)]
    settings = {**os.environ, "VIGORL_FAILPOINT": f"retrain_{stage}"}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 137, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_cycle_killed_behind_any_stage_comes_to_the_same_decision(home, stage, tmp_path, capsys):
    other = shutil.copytree(home, tmp_path / "whole")
    assert run(*SMALL, home=other) == 0
    kill(home, stage)
    assert run(*SMALL, home=home) == 0
    whole, killed = (Cycle(Warehouse.at(str(h)), "sat2", 1) for h in (other, home))
    assert whole.outcome("publish")["hash"] == killed.outcome("publish")["hash"]
    for name in ("outcome", "reason", "p", "gain"):
        assert whole.outcome("gate")[name] == killed.outcome("gate")[name]
    assert len(history(killed.warehouse, "sat2")) == 1


@pytest.mark.slow
def test_what_is_over_budget_stops_and_goes_on_unless_it_is_to_be_left(home, capsys, tmp_path):
    new = write_sat(tmp_path / "new_train.parquet", sat_rows(26)[22:])
    assert run("import", "sat2", new, home=home) == 0
    few = (*SMALL[:-1], "5000", "--teacher", "nano")
    assert run(*few, "--run-tokens", "100", home=home) == 0
    said = capsys.readouterr()
    assert "sat2-cycle-1 goes on when it is run again: stopped by --run-tokens 100" in said.out
    assert "predicted for 4 of 4 questions" in said.err and "takes several runs" in said.err
    cycle = unfinished(Warehouse.at(str(home)), "sat2")
    assert cycle.paused.startswith("stopped by --run-tokens") and cycle.outcome("build") is None
    assert run(*few, "--leave-paused", home=home) == 0
    assert "sat2-cycle-1 is left to another run" in capsys.readouterr().out
    # The budget is this run's: the others are those that the cycle was begun with.
    assert run("retrain", "sat2", "--sft-recipe", "other.yaml", home=home) == 0
    assert "sat2-cycle-1: too few" in capsys.readouterr().out
    assert cycle.outcome("build")["trees"] > 0 and cycle.paused is None


@pytest.mark.slow
def test_a_second_model_searches_its_share_of_the_new_questions(home, capsys):
    new = write_sat(home.parent / "new_train.parquet", sat_rows(28)[22:])
    assert run("import", "sat2", new, home=home) == 0
    warehouse = Warehouse.at(str(home))
    asked = questions_without_tree(warehouse, "sat2")
    both = ("--teacher", "nano", "--beside", "nano-base", "--simulations", "1")
    assert run(*SMALL[:-1], "5000", *both, home=home) == 0
    assert capsys.readouterr().err.count("predicted for ") == 2
    models = dict(
        tuple(row.values())
        for row in query(warehouse, "SELECT question_id, model FROM trees").to_pylist()
    )
    settings = RetrainSettings.checked(task="sat2", sft_recipe="nano-sft", beside="nano-base")
    (_, first), (_, second) = shared_out(settings, asked)
    assert {models[q] for q in first}.isdisjoint({models[q] for q in second})
    assert len({models[q] for q in asked}) == 2


@pytest.mark.parametrize("served", ["http://gpu:8000", "vllm:Qwen/Qwen3-VL-8B-Instruct"])
def test_what_a_run_may_spend_is_shared_out_with_the_questions(served):
    asked = [f"{i:024x}{i * 2**28:08x}" for i in range(16)]
    settings = RetrainSettings.checked(
        task="sat2", sft_recipe="nano-sft", teacher="champion:sat2", beside=served,
        beside_share=0.25, space="qwen3-vl", run_tokens=1000, run_seconds=8.0,
    )  # fmt: skip
    (mine, kept), (other, given) = shared_out(settings, asked)
    assert (kept, given) == (asked[4:], asked[:4])
    assert (mine.teacher, mine.space, mine.run_tokens) == ("champion:sat2", None, 750)
    assert (other.teacher, other.space, other.run_tokens) == (served, "qwen3-vl", 250)
    assert mine.run_seconds == 6.0 and other.run_seconds == 2.0
    alone = settings.model_copy(update={"beside": None})
    assert shared_out(alone, asked) == [(alone, asked)]


def test_money_is_turned_into_tokens_by_what_the_pilot_had_of_both():
    spent = [Range(n, n, n) for n in (10, 4000, 1000)]
    forecast = Forecast(8, 8, 4, 4, (), Usage(), *spent, 1.0, 2.0)
    given = {"task": "sat2", "sft_recipe": "nano-sft"}
    prices = {"price_in": 1.0, "price_out": 6.0}  # a written token with its four of the prompt: 10
    checked = RetrainSettings.checked
    assert affordable(checked(**given), forecast) is None
    assert affordable(checked(**given, **prices, run_money=0.005), forecast) == 500
    both = checked(**given, **prices, run_money=0.005, run_tokens=300)
    assert affordable(both, forecast) == 300
    with pytest.raises(Problem, match="run_money: say what tokens cost"):
        checked(**given, run_money=1)


def test_a_run_begins_no_stage_when_its_hours_are_over(home, capsys):
    assert run(*SMALL, "--run-hours", "1e-9", home=home) == 0
    assert "hours are over before build" in capsys.readouterr().out


def test_a_student_of_shuffled_answers_is_refused_and_the_reason_says_so(tmp_path):
    warehouse, settings = Warehouse(str(tmp_path / "home")), RetrainSettings.checked(
        task="sat2", sft_recipe="nano-sft"
    )  # fmt: skip
    import_questions(
        warehouse, "sat2", write_sat(tmp_path / "x.parquet", sat_rows(80)), split="gate"
    )
    gold = {question.question_id: question.answers[0] for question in read_questions(warehouse)}
    # The champion is right on nine of ten; the other answers as its training's answers were dealt.
    taught = dict(zip(gold, random.Random(0).sample(list(gold.values()), len(gold)), strict=True))
    right = {"champion": [i % 10 > 0 for i in range(len(gold))],
             "challenger": [taught[q] == gold[q] for q in gold]}  # fmt: skip
    for role, scores in right.items():
        rows = [
            {"evaluation_id": role, "question_id": q, "sample": 0, "score": float(score)}
            for q, score in zip(gold, scores, strict=True)
        ]
        insert_new(warehouse, "predictions", rows)
    cycle = begin_cycle(warehouse, "sat2", {"questions": 80})
    cycle.store("publish", {"dataset": "sat2-cycle@v1"})
    figures = {"format": 1.0, "grounded": 1.0, "accuracy": 0.5}
    found = {
        role: {"evaluation_id": role, "model_id": f"{role}@1", **figures} for role in right
    } | {f"{role}_blank": figures for role in right}
    cycle.store("evaluate", found)
    decided = asyncio.run(decide_gate(cycle, settings, Tools(None)))
    assert decided["outcome"] == "refused" and decided["reason"].startswith("-42.5 points")
    assert champion_id(warehouse, "sat2") is None and len(history(warehouse, "sat2")) == 1


def test_two_cycles_of_one_task_never_overlap(home, capsys):
    with take_lease(Warehouse.at(str(home)), lease_name("sat2")):
        assert run(*SMALL, home=home) == 2
    assert "is being worked on by process" in capsys.readouterr().err


def test_too_few_new_traces_end_a_cycle_before_it_trains(home, capsys):
    assert run(*SMALL[:-1], "5000", home=home) == 0
    assert "of the 5000 that start a training" in capsys.readouterr().out
    assert not cycles(Warehouse.at(str(home)), "sat2")


def test_a_question_that_cannot_be_searched_begins_one_cycle_only(home, tmp_path, capsys):
    warehouse = Warehouse.at(str(home))
    known = {path.name for path in (home / "images").rglob("*") if path.is_file()}
    new = write_sat(tmp_path / "new_train.parquet", unlike_rows(13)[12:])
    assert run("import", "sat2", new, home=home) == 0
    for path in (home / "images").rglob("*"):
        if path.is_file() and path.name not in known:
            path.unlink()
    assert run(*SMALL[:-1], "5000", home=home) == 0
    assert "sat2-cycle-1: too few" in capsys.readouterr().out
    assert run(*SMALL[:-1], "5000", home=home) == 0
    assert "no new question" in capsys.readouterr().out and len(cycles(warehouse, "sat2")) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sat2",), "sft_recipe: a cycle trains: name a recipe"),
        (("vstar", "--sft-recipe", "nano-sft"), "vstar has no questions of the split 'gate'"),
        (("sat2", "--sft-recipe", "nano-sft", "--gate-split", "test"), "test is used for other"),
        (("sat2", "--sft-recipe", "x", "--alpha", "1.5"), "alpha: "),
        (("sat2", "--sft-recipe", "x", "--decide-again", "9"), "sat2 has not been retrained"),
        (("sat2", "--sft-recipe", "x", "--abandon", "why"), "sat2 has no unfinished cycle"),
    ],
)
def test_what_cannot_be_retrained_is_one_sentence(home, capsys, arguments, sentence):
    assert run("retrain", *arguments, home=home) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_a_cycle_that_cannot_go_on_is_abandoned_and_the_next_has_its_data(home, capsys):
    warehouse = Warehouse.at(str(home))
    new = len(new_traces(warehouse, "sat2"))
    cycle = begin_cycle(warehouse, "sat2", {"questions": 0, "traces": new, "settings": {}})
    cycle.store("build", {"traces": new, "trees": 0})
    given = ("retrain", "sat2", "--sft-recipe", "nano-sft", "--abandon", "out of memory")
    with take_lease(warehouse, lease_name("sat2")):
        assert run(*given, home=home) == 2
        assert "is being worked on" in capsys.readouterr().err and cycle.done is None
    assert run(*given, home=home) == 0
    assert capsys.readouterr().out == "sat2-cycle-1: abandoned; out of memory\n"
    assert cycle.done["outcome"] == "abandoned" and unfinished(warehouse, "sat2") is None
    assert (home / cycle.folder / "report.html").is_file()
    assert len(new_traces(warehouse, "sat2")) == new > 5


def test_a_cycle_whose_traces_were_all_revoked_ends(home, capsys):
    warehouse = Warehouse.at(str(home))
    new = len(new_traces(warehouse, "sat2"))
    settings = RetrainSettings.checked(task="sat2", sft_recipe="nano-sft", home=str(home))
    stored = settings.model_dump(mode="json", exclude={"home"})
    cycle = begin_cycle(warehouse, "sat2", {"questions": 0, "traces": new, "settings": stored})
    cycle.store("build", {"traces": new, "trees": 6})
    for source in query(warehouse, "SELECT DISTINCT source FROM questions")["source"].to_pylist():
        revoke(warehouse, "source", source, "not ours")
    assert run(*SMALL, home=home) == 0
    said = capsys.readouterr().out
    assert "sat2-cycle-1: too few; none of its traces may be trained on any more" in said
    assert cycle.done and unfinished(warehouse, "sat2") is None


def test_an_outcome_is_stored_once(home):
    cycle = begin_cycle(Warehouse.at(str(home)), "sat2", {"questions": 3})
    assert cycle.store("build", {"trees": 1})["trees"] == 1
    assert cycle.store("build", {"trees": 2})["trees"] == 1
    assert cycle.name == "sat2-cycle-1" and unfinished(cycle.warehouse, "sat2") == cycle
