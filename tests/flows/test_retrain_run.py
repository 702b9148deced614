"""When a cycle of retraining begins, stops, goes on and ends; the stages are stood in for."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from curation.scores.gate import GatePolicy
from flows.retrain_settings import RetrainSettings
from flows.settings_base import Problem
from flows.stages.retrain import run as running
from flows.stages.retrain import usable as checks
from flows.stages.retrain.cycle import STAGES, Cycle, begin_cycle, cycles, unfinished
from flows.stages.retrain.run import Ended, decided_again, go_on, retrain, retrain_here
from flows.stages.retrain.tools import Paused, Tools
from training.errors import TrainingError
from warehouse.storage.home import Warehouse
from warehouse.storage.lease import LeaseHeld, take_lease

Work = Callable[..., Awaitable[dict[str, Any]]]
OUTCOMES: dict[str, dict[str, Any]] = {
    "build": {"traces": 60},
    "gate": {"outcome": "promoted", "model": "m@1", "reason": "better by 0.1"},
}


class Here:
    """A warehouse, what is new in it, and the stages that were worked on."""

    def __init__(self, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.warehouse = home, Warehouse(home)
        self.look: dict[str, Any] = {"questions": ["q"], "traces": 0}
        self.gate: list[Any] = [1]
        self.worked: list[str] = []
        self.outcomes = {name: dict(outcome) for name, outcome in OUTCOMES.items()}
        self.failing: dict[str, Exception] = {}
        self.said: list[str] = []
        self.added = 0
        stages = [stage for stage in STAGES if stage not in ("look", "end")]
        monkeypatch.setattr(running, "STAGE_WORK", {stage: self.work(stage) for stage in stages})
        monkeypatch.setattr(running, "look_for_new", lambda warehouse, task: dict(self.look))
        monkeypatch.setattr(running, "read_questions", lambda *_, **__: iter(self.gate))
        monkeypatch.setattr(running, "complete_sample", lambda warehouse, task: self.added)
        self.reported: list[str] = []
        monkeypatch.setattr(
            running, "write_last_report", lambda _, task: self.reported.append(task)
        )
        monkeypatch.setattr(running, "write_report", lambda cycle: f"{cycle.name}.html")
        self.stages = stages

    def work(self, stage: str) -> Work:
        async def done(cycle: Cycle, settings: RetrainSettings, tools: Tools) -> dict[str, Any]:
            self.worked.append(stage)
            if error := self.failing.get(stage):
                raise error
            return self.outcomes.get(stage, {})

        return done

    def settings(self, **given: Any) -> RetrainSettings:
        values = {"sft_recipe": "nano-sft", "home": self.home, **given}
        return RetrainSettings.checked(task="sat2", **values)

    def retrain(self, **given: Any) -> Ended:
        async def train(_: object) -> str:
            return ""

        self.worked.clear()
        self.said.clear()
        return asyncio.run(retrain(self.settings(**given), Tools(train, self.said.append)))


class Unopened:
    """A teacher that was made and not opened."""

    async def close(self) -> None:
        """Free nothing."""


@pytest.fixture
def here(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(str(tmp_path), monkeypatch)


def test_a_cycle_goes_through_its_stages_to_a_decision(here: Here) -> None:
    ended = here.retrain()
    assert here.worked == here.stages
    assert ended.outcome == "promoted" and ended.decided
    assert ended.sentence == "sat2-cycle-1: promoted; m@1: better by 0.1"
    assert here.reported == ["sat2"], "the report of a cycle that was killed behind its end"
    assert here.said[0] == f"sat2-cycle-1: {here.stages[0]}"
    assert here.said[-1] == "report: sat2-cycle-1.html"
    assert unfinished(here.warehouse, "sat2") is None
    here.outcomes["gate"] = {"outcome": "too_close", "model": "m@2", "reason": "luck"}
    assert here.retrain().sentence == "sat2-cycle-2: too close; m@2: luck"


@pytest.mark.parametrize(
    "given",
    [{"sft_recipe": "nope"}, {"grpo_recipe": "nope"}, {"sft_override": ("learning_rate=fast",)}],
)
def test_a_recipe_that_is_none_is_told_before_a_cycle_begins(
    here: Here, given: dict[str, Any]
) -> None:
    with pytest.raises(TrainingError, match=r"nope|learning_rate"):
        here.retrain(**given)
    assert not here.worked and not cycles(here.warehouse, "sat2")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"filters": "/nonexist.yaml"}, "/nonexist.yaml"),
        ({"teacher": "no-such-model"}, "'no-such-model' is no registered model"),
        ({"beside": "no-such-model"}, "'no-such-model' is no registered model"),
        ({"teacher": "http://gpu:8000"}, "space: a server does not name the coordinates"),
        ({"teacher": "served:big"}, "space: a server does not name the coordinates"),
        ({"teacher": "served:big + nope", "space": "qwen3-vl"}, "'nope' is no registered model"),
        ({"teacher": "http://a:1 + served:big"}, "space: a server does not name the coordinates"),
        ({"space": "none-such"}, "none-such"),
        ({"sft_recipe": "nano-grpo"}, "sft_recipe: recipe nano-grpo is for `vigorl train grpo`"),
        ({"grpo_recipe": "nano-sft"}, "grpo_recipe: recipe nano-sft is for `vigorl train sft`"),
    ],
)
def test_a_setting_that_cannot_be_used_begins_no_cycle_and_imports_no_sample(
    here: Here, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], sentence: str
) -> None:
    sampled: list[str] = []
    monkeypatch.setattr(running, "complete_sample", lambda _, task: sampled.append(task))
    with pytest.raises(Problem, match=re.escape(sentence)):
        here.retrain(**given)
    assert not cycles(here.warehouse, "sat2") and not sampled
    assert here.retrain().outcome == "promoted", "the corrected command goes through"


def test_a_task_without_a_model_of_its_own_needs_a_teacher_only_for_what_is_searched(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.settings.default_model", lambda task: "")
    with pytest.raises(Problem, match="teacher: no model is registered"):
        here.retrain()
    assert not cycles(here.warehouse, "sat2")
    here.look = {"questions": [], "traces": 60}
    assert here.retrain().outcome == "promoted"


def test_a_cycle_goes_on_with_the_settings_it_was_begun_with(here: Here) -> None:
    stored = here.settings(min_new_traces=61, run_hours=5.0).model_dump(
        mode="json", exclude={"home"}
    )
    begin_cycle(here.warehouse, "sat2", {"settings": stored})
    here.look = {"questions": [], "traces": 0}
    ended = here.retrain(min_new_traces=1)
    assert here.worked == ["build"]
    assert (ended.outcome, ended.decided) == ("too_few", False)
    assert ended.sentence.endswith("too few; 60 new traces were kept, 61 are wanted")
    assert here.retrain(min_new_traces=1).outcome == "nothing_new"


def test_what_an_alias_means_at_the_beginning_holds_for_the_cycle(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "teacher_id", lambda home, name: f"{name}@1")
    monkeypatch.setattr(checks, "resolve", lambda _: SimpleNamespace(teacher=Unopened()))
    here.retrain(teacher="champion:sat2")
    look = Cycle(here.warehouse, "sat2", 1).outcome("look")
    assert look is not None and look["questions"] == ["q"]
    assert look["settings"]["teacher"] == "champion:sat2@1"
    assert look["settings"]["beside"] is None and "home" not in look["settings"]


def test_a_cycle_begins_with_questions_or_enough_traces(here: Here) -> None:
    here.look = {"questions": [], "traces": 49}
    ended = here.retrain()
    assert ended == Ended(
        "nothing_new", "sat2: no new question, and 49 new traces of the 50 that start a training"
    )
    assert not ended.decided and not here.worked
    here.look["traces"] = 0
    assert here.retrain().sentence == "sat2: nothing is new since the last cycle"
    here.look["traces"] = 50
    assert here.retrain().outcome == "promoted"
    here.look = {"questions": ["q"], "traces": 0}
    here.outcomes["build"]["traces"] = 50
    assert here.retrain().outcome == "promoted"


def test_a_task_without_questions_for_the_gate_is_refused(here: Here) -> None:
    here.gate = []
    with pytest.raises(Problem, match="sat2 has no questions of the split 'mine', by which"):
        here.retrain(gate_split="mine")
    here.added = 9
    with pytest.raises(Problem, match="'mine'"):
        here.retrain(gate_split="mine")
    assert not here.said, "the sample is not imported for a split that it lacks"
    here.gate, here.added = [1], 9
    here.retrain()
    assert here.said[0] == "the embedded sample was imported (9 questions)"


def test_cycles_begin_so_many_hours_apart(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.time()
    here.retrain()
    monkeypatch.setattr(time, "time", lambda: began + 1.5 * 3600)
    ended = here.retrain(at_most_every=2.0)
    assert ended.outcome == "too_soon" and ended.cycle is None
    assert ended.sentence == (
        "sat2-cycle-1 began 1.5 hours ago, and a cycle begins at most every 2"
    )
    monkeypatch.setattr(time, "time", lambda: began + 2.1 * 3600)
    assert here.retrain(at_most_every=2.0).outcome == "promoted"
    assert here.retrain().outcome == "promoted", "no time between them was asked for"


def test_a_budget_stops_a_stage_which_another_run_may_be_left_to(here: Here) -> None:
    here.failing["build"] = Paused("its tokens are used up")
    ended = here.retrain()
    assert (ended.outcome, ended.sentence) == (
        "paused", "sat2-cycle-1 goes on when it is run again: its tokens are used up",
    )  # fmt: skip
    left = here.retrain(leave_paused=True)
    assert left.outcome == "paused" and not here.worked
    assert left.sentence == "sat2-cycle-1 is left to another run: its tokens are used up"
    here.failing.clear()
    assert here.retrain().outcome == "promoted" and here.worked[0] == "build"
    here.failing["build"] = ValueError("of ours")
    with pytest.raises(ValueError, match="of ours"):
        here.retrain()
    here.failing.clear()
    assert here.retrain(leave_paused=True).outcome == "promoted", "it was killed, not stopped"


def test_no_stage_begins_behind_the_hours_of_a_run(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    cycle = begin_cycle(
        here.warehouse, "sat2",
        {"settings": here.settings().model_dump(mode="json", exclude={"home"})},
    )  # fmt: skip

    def go(hours: float | None) -> Ended:
        here.worked.clear()

        async def train(_: object) -> str:
            return ""

        return asyncio.run(go_on(cycle, here.settings(run_hours=hours), Tools(train, print)))

    first = here.stages[0]

    async def long(*_: object) -> dict[str, Any]:
        now[0] += 2 * 3600
        return {"traces": 60}

    monkeypatch.setitem(running.STAGE_WORK, first, long)
    ended = go(2.0)
    assert ended.outcome == "paused" and cycle.outcome(first) is not None
    assert ended.sentence.endswith(f"2 hours are over before {here.stages[1]}")
    assert cycle.paused == f"2 hours are over before {here.stages[1]}"
    assert go(None).outcome == "promoted" and here.worked == here.stages[1:]


def test_a_stage_can_end_a_cycle(here: Here) -> None:
    here.outcomes["build"]["ends"] = {"outcome": "collapsed", "reason": "all answers are alike"}
    ended = here.retrain()
    assert ended.sentence == "sat2-cycle-1: collapsed; all answers are alike"
    assert here.worked[-1] == "build" and not ended.decided


def test_one_cycle_of_a_task_runs_at_a_time(here: Here) -> None:
    with take_lease(here.warehouse, "retrain/sat2"), pytest.raises(LeaseHeld):
        here.retrain()


def test_a_cycle_whose_lease_another_took_over_begins_no_further_stage(here: Here) -> None:
    @contextmanager
    def lost(*_: object) -> Iterator[threading.Event]:
        yield threading.Event()

    def taken_over(cycle: Cycle, *given: Any) -> Any:
        given[-1].set()
        return go_on(cycle, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "take_lease", lost)
        patch.setattr(running, "go_on", taken_over)
        with pytest.raises(LeaseHeld, match="sat2-cycle-1 was taken over by another process"):
            here.retrain()
    assert here.worked == []


def test_a_decision_is_made_again_from_what_is_stored(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycle = begin_cycle(here.warehouse, "sat2", {})
    cycle.store("evaluate", {"model": "m@1"})
    policy = {"alpha": 0.05, "minimum": 0.0, "family_margin": 0.1, "ask_person": False}
    cycle.store("gate", {"policy": policy, "attempt": 3, "reason": "better by 0.1"})
    reasons = iter(["better by 0.1", "luck"])
    asked: list[Any] = []

    def compare(_: object, found: dict[str, Any], policy: GatePolicy, attempt: int) -> Any:
        asked.append((found["model"], policy.alpha, attempt))
        return SimpleNamespace(outcome="promoted", reason=next(reasons))

    monkeypatch.setattr(running, "compare", compare)
    again = "sat2-cycle-1: promoted; better by 0.1 (the same)"
    assert decided_again(here.settings(), 1) == again
    assert decided_again(here.settings(), 1) == (
        "sat2-cycle-1: promoted; luck (then: better by 0.1)"
    )
    assert asked == [("m@1", 0.05, 3)] * 2


def test_a_training_in_this_process_names_its_model(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "train", lambda training: {"name": "m"})
    names: list[str] = []

    async def trains(cycle: Cycle, settings: RetrainSettings, tools: Tools) -> dict[str, Any]:
        names.append(await tools.train(None))  # type: ignore[arg-type]
        return {"traces": 60}

    monkeypatch.setitem(running.STAGE_WORK, here.stages[0], trains)
    ended = asyncio.run(retrain_here(here.settings(), here.said.append))
    assert ended.outcome == "promoted" and names == ["m"] and here.said


def test_a_cycle_without_a_decision_cannot_be_decided_again(here: Here) -> None:
    begin_cycle(here.warehouse, "sat2", {}).store("gate", {})
    with pytest.raises(Problem, match="sat2-cycle-1 came to no decision"):
        decided_again(here.settings(), 1)
    with pytest.raises(Problem, match="sat2 has no cycle 99: there are 1 to 1"):
        decided_again(here.settings(), 99)
