"""What the stages of a cycle ask for and leave; builds and trainings are stood in for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.scores.gate import GateOutcome, GatePolicy
from flows.retrain_settings import RetrainSettings
from flows.settings import BuildSettings
from flows.settings_base import FieldProblem, Problem
from flows.stages.forecast import Forecast, Range
from flows.stages.retrain import gate, stages
from flows.stages.retrain.collapse import _searched, _words
from flows.stages.retrain.cycle import Cycle, begin_cycle
from flows.stages.retrain.gate import (
    _base_model,
    compare,
    decide_gate,
    evaluate_both,
    read_paired,
)
from flows.stages.retrain.stages import build_new, measure_student, train_grpo, train_sft
from flows.stages.retrain.tools import Paused, Tools
from mcts.budget import Usage
from mcts.data import AnswerKind, Image, Question
from training.recipes import load_recipe
from warehouse.query.run_query import table_versions
from warehouse.registry import Decision, decide, history
from warehouse.storage.home import Warehouse
from warehouse.tables.delta import insert_new

NONE = Range(0.0, 0.0, 0.0)


@pytest.fixture
def cycle(tmp_path: Path) -> Cycle:
    return begin_cycle(Warehouse(str(tmp_path)), "sat2", {})


def settings(**given: Any) -> RetrainSettings:
    return RetrainSettings.checked(**{"task": "sat2", "sft_recipe": "nano-sft", **given})


def tools(trained: list[Any] | None = None, said: list[str] | None = None) -> Tools:
    async def train(chosen: Any) -> str:
        assert trained is not None
        trained.append(chosen)
        return f"m{len(trained)}"

    return Tools(train, (said if said is not None else []).append)


# ---- build ---------------------------------------------------------------------------------------


class Builds:
    """The builds that a stage began, and what they were to cost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.questions = [f"{i:024x}{i * 2**28:08x}" for i in range(16)]
        self.begun: list[tuple[BuildSettings, list[str]]] = []
        self.corpus: list[bool] = []
        self.extra: dict[str, Any] = {"failures": "some", "cost": 2}
        self.written = 100.0
        monkeypatch.setattr(stages, "questions_without_tree", lambda *_: self.questions)
        monkeypatch.setattr(stages, "new_traces", lambda *_: ["t1", "t2", "t3"])
        monkeypatch.setattr(stages, "curate_left", self.curate_left)
        monkeypatch.setattr(stages, "forecast_build", self.forecast)
        monkeypatch.setattr(stages, "build", self.build)

    async def curate_left(self, cycle: Cycle, filters: object, *, corpus: bool = True) -> None:
        self.corpus.append(corpus)

    async def forecast(self, chosen: BuildSettings, *, question_ids: list[str]) -> Forecast:
        count = len(question_ids)
        cost = Range(self.written, None, None)
        return Forecast(count, count, 1, 1, (), Usage(), NONE, NONE, cost, 1.0, 2.0)

    async def build(self, chosen: BuildSettings, *, progress: object, question_ids: list[str]):
        self.begun.append((chosen, question_ids))
        return SimpleNamespace(trees=len(question_ids), kept=2, requests=7, extra=self.extra)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Builds:
    return Builds(monkeypatch)


def test_new_questions_are_searched_within_what_a_run_may_write(
    builds: Builds, cycle: Cycle
) -> None:
    said: list[str] = []
    given = settings(teacher="nano", simulations=5, run_tokens=99, run_seconds=60.0)
    outcome = asyncio.run(build_new(cycle, given, tools(said=said)))
    ((chosen, asked),) = builds.begun
    assert asked == builds.questions and builds.corpus == [False]
    assert (chosen.task, chosen.teacher, chosen.simulations) == ("sat2", "nano", 5)
    assert (chosen.run_tokens, chosen.run_seconds) == (99, 60.0)
    assert said[0] == outcome["forecast"]
    assert said[1:] == ["that is more than 99 tokens: it takes several runs"]
    assert {name: outcome[name] for name in ("trees", "kept", "requests", "traces", "cost")} == {
        "trees": 16, "kept": 2, "requests": 7, "traces": 3, "cost": 2,
    }  # fmt: skip
    said.clear()
    asyncio.run(build_new(cycle, settings(run_tokens=100), tools(said=said)))
    assert len(said) == 1, "it is enough"
    said.clear()
    asyncio.run(build_new(cycle, settings(), tools(said=said)))
    assert len(said) == 1 and builds.begun[-1][0].run_tokens is None


def test_what_two_teachers_found_is_summed_up(builds: Builds, cycle: Cycle) -> None:
    given = settings(teacher="nano", beside="nano-base", beside_share=0.25)
    outcome = asyncio.run(build_new(cycle, given, tools()))
    assert [(chosen.teacher, len(asked)) for chosen, asked in builds.begun] == [
        ("nano", 12), ("nano-base", 4),
    ]  # fmt: skip
    assert {name: outcome[name] for name in ("trees", "kept", "requests", "cost", "traces")} == {
        "trees": 16, "kept": 4, "requests": 14, "cost": 4, "traces": 3,
    }  # fmt: skip
    assert outcome["failures"] == "some\nsome" and outcome["forecast"].count("predicted for ") == 2


def test_without_new_questions_only_what_was_left_is_curated(builds: Builds, cycle: Cycle) -> None:
    builds.questions = []
    outcome = asyncio.run(build_new(cycle, settings(), tools()))
    assert outcome == {"trees": 0, "kept": 0, "traces": 3}
    assert builds.corpus == [True] and not builds.begun
    earlier = {
        "tree_id": "a",
        "question_id": "q",
        "task": "sat2",
        "created_at": datetime(2000, 1, 1),
    }
    insert_new(cycle.warehouse, "trees", [earlier])
    insert_new(cycle.warehouse, "trees", [{"tree_id": "b", "question_id": "q", "task": "sat2"}])
    resumed = asyncio.run(build_new(cycle, settings(), tools()))
    assert resumed["trees"] == 1, "what the cycle had searched when it was killed"


def test_a_build_that_its_budget_stopped_pauses_the_cycle(builds: Builds, cycle: Cycle) -> None:
    builds.extra["stopped"] = "stopped by --run-tokens 9: 1 of 2; the same command goes on"
    with pytest.raises(Paused, match=r"^stopped by --run-tokens 9: 1 of 2$"):
        asyncio.run(build_new(cycle, settings(), tools()))


# ---- train and evaluate --------------------------------------------------------------------------


def promote(cycle: Cycle, model_id: str) -> None:
    decide(cycle.warehouse, Decision("sat2", model_id, "promoted", "the first"))


def test_a_student_is_taught_and_rewarded_on_the_cycles_dataset(cycle: Cycle) -> None:
    cycle.store("publish", {"dataset": "sat2-cycle@v1"})
    trained: list[Any] = []
    given = settings(grpo_recipe="nano-grpo", sft_override=("steps=2",), grpo_override=("group=2",))
    cycle.store("sft", asyncio.run(train_sft(cycle, given, tools(trained))))
    assert asyncio.run(train_grpo(cycle, given, tools(trained))) == {"model": "m2"}
    sft, grpo = trained
    assert (sft.recipe, sft.name, sft.model, sft.override) == (
        "nano-sft", "sat2-cycle-1-sft", None, ("steps=2",),
    )  # fmt: skip
    assert (grpo.recipe, grpo.name, grpo.model, grpo.override) == (
        "nano-grpo", "sat2-cycle-1-grpo", "m1", ("group=2",),
    )  # fmt: skip
    assert sft.dataset == grpo.dataset == "sat2-cycle@v1"


def test_a_stage_without_a_recipe_hands_its_model_on(cycle: Cycle) -> None:
    cycle.store("publish", {"dataset": "sat2-cycle@v1"})
    promote(cycle, "best@1")
    trained: list[Any] = []
    only_grpo = settings(sft_recipe="", grpo_recipe="nano-grpo", start="champion")
    sft = asyncio.run(train_sft(cycle, only_grpo, tools(trained)))
    assert sft == {"model": "best@1"} and not trained
    base = settings(sft_recipe="", grpo_recipe="nano-grpo")
    assert asyncio.run(train_sft(cycle, base, tools(trained))) == {"model": None}
    cycle.store("sft", {"model": "m1"})
    assert asyncio.run(train_grpo(cycle, settings(), tools(trained))) == {"model": "m1"}
    from_champion = settings(start="champion")
    asyncio.run(train_sft(cycle, from_champion, tools(trained)))
    assert trained[0].model == "best@1"


class Measured:
    """The evaluations that a stage asked for; behind prefixes there is nothing where `none`."""

    def __init__(self, none: bool = False) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.none = none

    async def evaluate(
        self, chosen: Any, *, report: object, beside_no_zoom: bool, question_ids: Any
    ) -> Any:
        assert question_ids == {"q1", "q2"} and not beside_no_zoom
        assert (chosen.model, chosen.split, chosen.response_style) == ("m1", "train", "grounded")
        self.asked.append((chosen.samples, chosen.temperature, chosen.prefixes))
        if chosen.prefixes and self.none:
            raise FieldProblem("prefixes", "there are none")
        figures = {"accuracy": 0.25, "tokens": 20.5}
        if chosen.prefixes:
            figures = {"accuracy": 0.75, "tokens": 10.0}
        every = {name: SimpleNamespace(value=value) for name, value in figures.items()}
        return SimpleNamespace(
            report=SimpleNamespace(
                figures={"all": every}, accuracy=every["accuracy"], model_id="m1@1",
                evaluation_id=f"e{len(self.asked)}", questions=["q1", "q2"],
                settings={"prompt": "nano"},
            )
        )  # fmt: skip


@pytest.fixture
def with_version(cycle: Cycle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cycle:
    """A cycle behind its SFT, whose dataset has traces of two questions."""
    pq.write_table(pa.table({"question_id": ["q1", "q1", "q2"]}), tmp_path / "rows.parquet")

    @contextmanager
    def open_version(_: Warehouse, version: str, files: Sequence[str]) -> Iterator[Path]:
        assert version == "sat2-cycle@v1" and files == ("rows.parquet",)
        yield tmp_path

    monkeypatch.setattr(stages, "resolve", lambda _, ref: ref)
    monkeypatch.setattr(stages, "open_version", open_version)
    cycle.store("publish", {"dataset": "sat2-cycle@v1"})
    cycle.store("sft", {"model": "m1"})
    return cycle


OWN = ("pass_rates=student", "group=4", "temperature=0.7")


def test_the_student_is_measured_on_the_datasets_questions_before_it_is_rewarded(
    with_version: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Measured()
    monkeypatch.setattr(stages, "evaluate", measured.evaluate)
    given = settings(grpo_recipe="nano-grpo", grpo_override=OWN)
    found = asyncio.run(measure_student(with_version, given, tools()))
    named = {"model": "m1", "evaluation_id": "e1", "questions": 2, "accuracy": 0.25}
    assert found == {**named, "tokens": 164}, "20.5 an answer, of four to each question"
    assert measured.asked == [(4, 0.7, None)]
    others = (
        settings(grpo_recipe="nano-grpo"), settings(),
        settings(grpo_recipe="nano-sft"),  # the next stage says so
    )  # fmt: skip
    assert [asyncio.run(measure_student(with_version, o, tools())) for o in others] == [{}] * 3
    with_version.store("grpo", {"model": "m2"})  # by a version that had no such stage
    assert asyncio.run(measure_student(with_version, given, tools())) == {}


@pytest.mark.parametrize("none", [True, False])
@pytest.mark.parametrize("usable", [0, 3])
def test_prefixes_are_measured_and_left_out_where_none_can_be_learned_from(
    with_version: Cycle, monkeypatch: pytest.MonkeyPatch, usable: int, none: bool
) -> None:
    measured, said = Measured(none), list[str]()
    monkeypatch.setattr(stages, "evaluate", measured.evaluate)
    counted: list[Any] = []
    behind = {"q1": [object()] * (usable - 1), "q2": [object()]} if usable else {}
    monkeypatch.setattr(
        stages, "read_usable_prefixes", lambda _, *given: counted.append(given) or behind
    )
    given = settings(grpo_recipe="nano-grpo", grpo_override=(*OWN, "prefixes=2"))
    found = asyncio.run(measure_student(with_version, given, tools(said=said)))
    assert measured.asked == [(4, 0.7, None), (4, 0.7, 4)]
    assert (found["accuracy"], found["prefixes"]) == (0.25, usable)
    assert found["tokens"] == (164 if none else 164 + 80)
    assert counted == [(["q1", "q2"], "m1@1", "nano", False)]
    assert bool(said) is none
    with_version.store("measure", found)
    trained: list[Any] = []
    asyncio.run(train_grpo(with_version, given, tools(trained)))
    assert trained[0].override[:4] == (*OWN, "prefixes=2")
    assert trained[0].override[4:] == (() if usable else ("prefixes=0",))


@pytest.mark.parametrize("champion", ["best@1", None])
def test_both_models_answer_the_gates_questions_with_images_and_blank(
    cycle: Cycle, monkeypatch: pytest.MonkeyPatch, champion: str | None
) -> None:
    asked: list[tuple[str, str, str | None, bool]] = []
    insert_new(cycle.warehouse, "questions", [gate_question("q1"), gate_question("q2")])
    cycle.store("publish", {"dataset": "d@v1", "tables": table_versions(cycle.warehouse)})
    insert_new(cycle.warehouse, "questions", [gate_question("q3")])

    async def evaluate(
        chosen: Any, *, report: object, beside_no_zoom: bool, question_ids: frozenset[str]
    ) -> Any:
        assert question_ids == {"q1", "q2"}, "what came later may be about what was trained on"
        asked.append((chosen.model, chosen.split, chosen.control, beside_no_zoom))
        figures = {"all": {"accuracy": SimpleNamespace(value=0.5)}}
        return SimpleNamespace(
            report=SimpleNamespace(
                figures=figures, evaluation_id=f"e{len(asked)}", model_id=f"{chosen.model}!",
                questions=["q1", "q2"], failed=len(asked) // 4,
            )
        )  # fmt: skip

    monkeypatch.setattr(gate, "evaluate", evaluate)
    cycle.store("grpo", {"model": "m2"})
    if champion:
        promote(cycle, champion)
    found = asyncio.run(evaluate_both(cycle, settings(gate_split="mine"), tools()))
    first = champion or load_recipe("nano-sft", ()).model
    assert asked == [(m, "mine", c, False) for m in (first, "m2") for c in (None, "blank")]
    assert found.pop("met") == champion, "whom the gate must still find there"
    assert list(found) == ["champion", "champion_blank", "challenger", "challenger_blank"]
    assert found["challenger"] == {
        "evaluation_id": "e3", "model_id": "m2!", "questions": 2, "accuracy": 0.5,
    }  # fmt: skip
    assert found["challenger_blank"]["unanswered"] == 1


def gate_question(name: str) -> dict[str, Any]:
    return {
        "question_id": name, "image_ids": [f"i{name}"], "task": "sat2", "split": "mine",
        "text": "?", "answer_kind": "text", "answers": ["a"],
    }  # fmt: skip


# ---- decide --------------------------------------------------------------------------------------


def evaluations(**figures: float) -> dict[str, dict[str, Any]]:
    row = {"model_id": "m@1", "accuracy": 0.25, **figures}
    roles = ("champion", "challenger", "champion_blank", "challenger_blank")
    return {role: {**row, "evaluation_id": role, "accuracy": i / 4} for i, role in enumerate(roles)}


def test_models_are_compared_by_answers_and_by_the_controls_that_the_champion_has(
    cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    paired: list[str] = ["a pair"]
    monkeypatch.setattr(gate, "read_paired", lambda _, *ids: asked.append(ids) or paired)
    monkeypatch.setattr(gate, "decide", lambda *given: given)
    found = evaluations(format=0.9)
    found["champion"]["grounded"] = 0.8
    given: Any = compare(cycle.warehouse, found, GatePolicy(), 3)
    assert given[1:3] == (["a pair"], 3) and asked == [("champion", "challenger")]
    assert given[3] == {"format": (0.9, 0.9), "grounded": (0.8, 0.0), "blank": (0.5, 0.75)}, (
        "one that cites no place has no share of grounded answers"
    )
    found["challenger"]["grounded"] = 0.7
    given = compare(cycle.warehouse, found, GatePolicy(), 3)
    assert given[3]["grounded"] == (0.8, 0.7)
    paired.clear()
    for row in found.values():
        del row["accuracy"]
    with pytest.raises(Problem, match="no answer of the champion can be graded"):
        compare(cycle.warehouse, found, GatePolicy(), 3)


def test_a_decision_is_recorded_once_with_its_numbers(
    cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(cycle, "old@1")
    cycle.store("publish", {"dataset": "sat2-cycle@v1"})
    cycle.store("evaluate", evaluations())
    attempts: list[int] = []

    def compare(_: object, found: object, policy: GatePolicy, attempt: int) -> Any:
        from curation.scores.bootstrap import difference

        attempts.append(attempt)
        return SimpleNamespace(
            outcome=GateOutcome.WAIT, reason="luck", p=0.2, spent=0.025, enough=70,
            gain=difference([1.0, 0.0], [0.0, 0.0], [0, 1]), families={"left": 0.1},
        )  # fmt: skip

    monkeypatch.setattr(gate, "compare", compare)
    first = asyncio.run(decide_gate(cycle, settings(alpha=0.04), tools()))
    assert (first["outcome"], first["reason"], first["model"]) == ("waiting", "luck", "m@1")
    assert (first["attempt"], first["p"], first["allowed"], first["enough"]) == (1, 0.2, 0.025, 70)
    assert first["policy"]["alpha"] == 0.04 and first["families"] == {"left": 0.1}
    assert asyncio.run(decide_gate(cycle, settings(), tools())) == first and attempts == [1]
    (made, _) = history(cycle.warehouse, "sat2")
    assert (made["dataset"], made["decided_by"]) == ("sat2-cycle@v1", "gate")
    assert made["evaluation_ids"] == ["champion", "challenger"]
    later = begin_cycle(cycle.warehouse, "sat2", {})
    later.store("publish", {"dataset": "sat2-cycle@v2"})
    later.store("evaluate", evaluations())
    asyncio.run(decide_gate(later, settings(), tools()))
    assert attempts == [1, 2], "the second against this champion"


def answer(warehouse: Warehouse, **scores: tuple[float | None, ...]) -> None:
    """Store the scores of two evaluations, a question each; one below 0 stands for no answer."""
    count = max(map(len, scores.values()))
    insert_new(warehouse, "questions", [gate_question(f"q{i}") for i in range(count)])
    rows = [
        {"trace_id": f"{e}{i}", "evaluation_id": e, "question_id": f"q{i}", "sample": 0,
         "score": score, "valid": True}
        for e, some in scores.items() for i, score in enumerate(some)
        if score is None or score >= 0
    ]  # fmt: skip
    insert_new(warehouse, "predictions", rows)


def test_questions_that_cannot_be_graded_are_not_compared(cycle: Cycle) -> None:
    answer(cycle.warehouse, a=(1.0, None, 0.0), b=(0.0, 1.0, 1.0))
    found = read_paired(cycle.warehouse, "a", "b")
    assert [(pair.champion, pair.challenger) for pair in found] == [(1.0, 0.0), (0.0, 1.0)]


def test_a_challenger_does_not_win_by_leaving_questions_unanswered(cycle: Cycle) -> None:
    """It would be right in all that it answers, and better than the champion is in those."""
    answer(
        cycle.warehouse,
        champion=(1.0,) * 30 + (0.0,) * 20 + (-1.0,) * 10,
        challenger=(-1.0,) * 30 + (1.0,) * 30,
    )
    pairs = read_paired(cycle.warehouse, "champion", "challenger")
    scores = [(pair.champion, pair.challenger) for pair in pairs]
    assert Counter(scores) == {(1.0, 0.0): 30, (0.0, 1.0): 20}
    found = evaluations(format=0.9)
    found["challenger"]["unanswered"] = 30
    found["challenger_blank"]["accuracy"] = 0.0
    decision = compare(cycle.warehouse, found, GatePolicy(), 1)
    assert decision.outcome is GateOutcome.REFUSE
    assert decision.reason.endswith("30 questions that it left unanswered count as wrong")


def test_a_base_is_the_model_that_its_training_starts_from() -> None:
    both = {"sft_recipe": "nano-sft", "grpo_recipe": "nano-grpo"}
    assert _base_model(settings(**both)) == "nano-reader"
    assert _base_model(settings(**both, sft_override=("model=nano-zoom",))) == "nano-zoom"
    alone = settings(sft_recipe="", grpo_recipe="nano-grpo", grpo_override=("model=nano-zoom",))
    assert _base_model(alone) == "nano-zoom"


# ---- what is measured of a search ----------------------------------------------------------------


def question(kind: AnswerKind = AnswerKind.TEXT, answers: tuple[str, ...] = ("left",)) -> Question:
    images = (Image("a" * 64, 100, 100), Image("b" * 64, 200, 200))
    return Question("sat2", "Where?", images, kind, ("left", "right"), answers)


def test_an_answer_says_its_options_text_and_never_its_letter() -> None:
    asked = question()
    assert _words(asked, "B") == _words(asked, "Right") == "right"
    assert _words(asked, "nowhere") == "nowhere"
    free = Question("sat2", "?", asked.images, AnswerKind.TEXT, (), ("b",))
    assert _words(free, "B") == "b"


def test_a_search_is_counted_by_its_ends_and_steps() -> None:
    ends = [
        {"answer": "A", "is_right": True}, {"answer": "right", "is_right": False},
        {"answer": None, "is_right": False}, {"answer": "left", "is_right": True},
    ]  # fmt: skip
    steps = [
        {"trace_id": "t", "x": 1.0, "y": 1.0, "image": None, "words": 3, "grounded": True},
        {"trace_id": "t", "x": 1.0, "y": 1.0, "image": 0, "words": 4, "grounded": None},
        {"trace_id": "u", "x": 199.0, "y": 199.0, "image": 1, "words": 5, "grounded": False},
        {"trace_id": "u", "x": 1.0, "y": 1.0, "image": 2, "words": 6, "grounded": None},
        {"trace_id": "u", "x": None, "y": None, "image": None, "words": 7, "grounded": None},
    ]
    found = _searched(question(), ends, steps)
    assert (found.ends, found.right, found.gold) == (4, 2, "left")
    assert found.answers == Counter(left=2, right=1)
    assert sorted(found.places.values()) == [1, 2], "an image that is not there has no places"
    assert found.grounded == (True, False) and found.lengths == (7, 18)
    for other in (question(AnswerKind.POINT), question(answers=())):
        found = _searched(other, ends, steps)
        assert not found.answers and found.gold == "" and found.ends == 4
