"""Budgets and early stops: between waves only, equal under replay, and nothing paid for is lost."""

import asyncio
import hashlib
import math
import random
import statistics
from dataclasses import replace

import pytest

from curation.grading.grade import grade
from flows.settings import BuildSettings
from flows.settings_base import Problem
from flows.stages import build as stages
from flows.stages.forecast import forecast_build, predict
from flows.stages.run_budget import OutOfBudget, RunBudget, describe_cost
from mcts.budget import Budget, Cost, Usage
from mcts.config import search_id
from mcts.data import AnswerKind, Image, Question
from mcts.journal.journal import Journal, JournaledTeacher
from mcts.policy import Continuation
from mcts.search import search
from mcts.teacher_policy import TeacherPolicy
from mcts.teachers.base import Completion, Ledger, Reply, TeacherError
from mcts.tree import flatten
from tests.support.fixtures import sat_rows, write_sat
from tests.support.scripted import CONFIG, QUESTION, ScriptedPolicy, seeded_teacher
from tests.support.stub_server import StubServer
from warehouse.query.run_query import query
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse
from warehouse.tables.rows import read_questions
from warehouse.tables.tree_rows import search_rows


class Paid(ScriptedPolicy):
    """Every sample of a request costs 10 tokens, and every request a second of its own."""

    async def sample(self, node, purpose, steps, n, first=0):
        samples = await super().sample(node, purpose, steps, n, first)
        cost = Cost(100, 10 * n, started_at=float(len(self.log)), seconds=1.0)
        return [Continuation(s.text, s.finish_reason, s.response_id, () if i else (cost,))
                for i, s in enumerate(samples)]  # fmt: skip


def run(config, policy=None, before_wave=lambda usage: None):
    policy = policy or Paid(otherwise=seeded_teacher)
    return asyncio.run(search(QUESTION, config, policy, grade, "t", before_wave)), policy


PLENTY = replace(CONFIG, simulations=50, samples=200)


@pytest.mark.parametrize("strategy", ["mcts", "best-of-n", "linear"])
@pytest.mark.parametrize(
    "budget", [Budget(tokens=400), Budget(requests=20), Budget(seconds=30.5)], ids=str
)
def test_a_budget_stops_every_strategy_after_the_wave_that_uses_it_up(strategy, budget):
    whole = replace(PLENTY, strategy=strategy)
    usages = []
    run(whole, before_wave=lambda usage: usages.append(replace(usage, spans=list(usage.spans))))
    tree, _ = run(replace(whole, budget=budget))
    before = [usage for usage in usages if not budget.reached(usage)]
    first_over = usages[len(before)]
    assert tree.stopped_by == budget.reached(first_over)
    assert tree.usage == first_over, "neither a wave too few nor one too many"
    assert 0 < tree.simulations < 50


@pytest.mark.parametrize("strategy", ["mcts", "best-of-n", "linear"])
def test_a_stop_is_the_same_whatever_order_answers_arrive_in(strategy):
    config = replace(PLENTY, strategy=strategy, wave=4, budget=Budget(tokens=600), enough=40)

    def rows(seed):
        rng = random.Random(seed)

        async def delay(node, purpose):
            await asyncio.sleep(rng.random() * 0.002)

        tree, _ = run(config, Paid(otherwise=seeded_teacher, delays=delay))
        return flatten(tree), tree.stopped_by, tree.simulations

    assert rows(0) == rows(1) == rows(2)


def test_enough_right_lines_stop_a_tree_and_copies_do_not_count():
    tree, _ = run(replace(PLENTY, enough=5))
    assert tree.stopped_by == "enough" and tree.right_lines() >= 5
    fewer, _ = run(replace(PLENTY, simulations=tree.simulations - 1))
    assert fewer.right_lines() < 5, "it did not stop a wave late"
    same = Paid(otherwise=lambda *_: "<think>A thing at (5, 5).</think><answer>left</answer>")
    tree, _ = run(replace(PLENTY, strategy="best-of-n", samples=24, enough=2), same)
    assert (tree.right_lines(), tree.stopped_by, tree.simulations) == (1, None, 24)


def test_an_answer_without_a_point_is_no_right_line():
    tree, _ = run(PLENTY, Paid(otherwise=lambda *_: "<answer>left</answer>"))
    assert tree.root.value == 1 and tree.right_lines() == 0
    assert tree.stopped_by == "explored"


def test_time_is_counted_while_requests_are_in_flight():
    usage = Usage()
    for start, seconds in [(10.0, 2.0), (11.0, 3.0), (100.0, 1.0), (10.5, 0.5)]:
        usage.add(Cost(1, 1, start, seconds))
    assert usage.seconds == pytest.approx(5.0), "overlaps once, the pause not at all"


def test_a_failed_request_counts_as_one():
    gone = TeacherError("timeout", "no answer")
    tree, _ = run(PLENTY, Paid(otherwise=lambda *_: gone))
    assert tree.usage.requests == 2


def test_searches_older_than_strategies_keep_their_ids():
    assert search_id(QUESTION, CONFIG, 0, "m") == "8f32377c02e1f756630b9eed94ed1525"
    other = replace(CONFIG, simulations=20, wave=4)
    assert search_id(QUESTION, other, 7, "m") == "75fd50543f487930c92670948b0df917"
    names = {
        search_id(QUESTION, replace(CONFIG, **given), 0, "m")
        for given in (
            {},
            {"strategy": "linear"},
            {"strategy": "best-of-n"},
            {"samples": 3},
            {"enough": 3},
            {"budget": Budget(tokens=5)},
            {"budget": Budget(requests=5)},
            {"budget": Budget(seconds=5)},
        )
    }
    assert len(names) == 8


class Teacher:
    """Answers from `seeded_teacher`'s words, a function of the request; counts requests."""

    identity, ledger = "seeded", Ledger()

    def __init__(self):
        self.requests = 0

    async def open(self): ...

    async def complete(self, request, images):
        self.requests += 1
        await asyncio.sleep(0.001 * random.random())
        completions = []
        for i in range(request.n):
            draw = hashlib.sha256(f"{request.seed + i}".encode()).hexdigest()
            purpose = {1: "finish"}.get(len(request.stop), "expand")
            if request.max_tokens > 512:
                purpose = "rollout"
            text = seeded_teacher(draw, purpose, (), i)
            completions.append(Completion(text, "stop", 7))
        return Reply(tuple(completions), 50, None, 7 * request.n, 0.01)


@pytest.mark.parametrize("strategy", ["mcts", "best-of-n", "linear"])
@pytest.mark.parametrize("budget", [Budget(tokens=300), Budget(seconds=0.1)], ids=str)
def test_a_stopped_tree_is_replayed_to_the_same_rows_without_a_teacher(tmp_path, strategy, budget):
    config = replace(PLENTY, strategy=strategy, wave=2, budget=budget)

    def rows_of(journal, teacher, mode):
        teacher = JournaledTeacher(teacher, journal, mode, identity="seeded")
        policy = TeacherPolicy(QUESTION, config, "t", teacher, {})
        tree = asyncio.run(search(QUESTION, config, policy, grade, "t"))
        rows = search_rows(tree, config, journal.records("t"), model="m", seed=0)
        return tree, rows

    with Journal(tmp_path) as journal:
        tree, rows = rows_of(journal, Teacher(), "resume")
    with Journal(tmp_path) as journal:
        again, same = rows_of(journal, None, "replay")
    # On a busy machine the time may be up with the last sample, when nothing is left to stop.
    whole = tree.simulations >= (config.simulations if strategy == "mcts" else config.samples)
    assert same == rows
    assert rows.tree["stopped_by"] == (None if whole else budget.reached(tree.usage))
    assert again.usage.seconds == tree.usage.seconds
    assert rows.tree["requests"] == tree.usage.requests
    assert rows.tree["completion_tokens"] == tree.usage.completion_tokens


# ---- runs -----------------------------------------------------------------------------------


def test_a_run_budget_lets_in_the_first_trees_that_use_it_up_whatever_ran_at_once():
    budget = RunBudget(Budget(tokens=100))
    budget.begin(["a", "b", "c", "d"], {"b": Usage(1, 0, 60)})
    a, c = Usage(), Usage()
    budget.between("a")(a)
    budget.between("c")(c)
    c.completion_tokens = 500  # a later one costs a lot; that takes nothing from an earlier one
    budget.between("a")(a)
    a.completion_tokens = 50
    with pytest.raises(OutOfBudget):
        budget.between("c")(c)
    assert [budget.allows(x) for x in "abcd"] == [True, True, False, False]
    budget.begin(["e"], {})  # shards overlap
    assert not budget.allows("e")
    budget.end(["a", "b", "c", "d"])
    assert not budget.allows("e") and budget.stopped_by == "tokens"


def test_a_run_budget_whose_time_is_up_starts_nothing_but_keeps_what_is_whole():
    now = [0.0]
    budget = RunBudget(Budget(), 10, clock=lambda: now[0])
    budget.begin(["a", "b"], {})
    budget.between("a")(Usage())
    now[0] = 10
    with pytest.raises(OutOfBudget):
        budget.between("b")(Usage())
    assert budget.allows("a") and budget.stopped_by == "seconds"


@pytest.fixture
def home(tmp_path):
    warehouse = Warehouse(str(tmp_path / "home"))
    import_questions(warehouse, "sat2", write_sat(tmp_path / "SAT_train.parquet", sat_rows(6)))
    return warehouse


def build(home, server, **given):
    given = {"task": "sat2", "space": "qwen3-vl", "simulations": 2, "shard": 4, **given}
    settings = BuildSettings.checked(teacher=server.url, home=home.root, **given)
    return asyncio.run(stages.build(settings))


def trees(home):
    """In the order in which a build searches them."""
    found = query(home, "SELECT tree_id, question_id, completion_tokens, n_nodes FROM trees")
    order = [q.question_id for q in stages.by_image(list(read_questions(home, "sat2")))]
    return sorted(found.to_pylist(), key=lambda tree: order.index(tree["question_id"]))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The trees of a build that nothing stopped, and how many requests it took."""
    folder = tmp_path_factory.mktemp("straight")
    home = Warehouse(str(folder / "home"))
    import_questions(home, "sat2", write_sat(folder / "SAT_train.parquet", sat_rows(6)))
    with StubServer() as server:
        build(home, server)
        return trees(home), server.request_count()


@pytest.mark.parametrize("concurrency", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_a_run_that_its_budget_stops_commits_whole_trees_and_goes_on_with_a_larger_one(
    home, straight, concurrency
):
    expected, requests = straight
    with StubServer() as server:
        costs = [tree["completion_tokens"] for tree in expected]
        limit = sum(costs[:2]) + 1  # so the third tree is the last to be let in
        stopped = build(home, server, run_tokens=limit, concurrency=concurrency)
        assert trees(home) == expected[:3], "the same trees, however many ran at once"
        assert stopped.extra["stopped"].startswith(f"stopped by --run-tokens {limit}: 3 of 6 ")
        before = server.request_count()
        again = build(home, server, run_tokens=limit, concurrency=concurrency)
        assert server.request_count() == before and trees(home) == expected[:3]  # one budget
        whole = build(home, server, run_tokens=10 * limit, concurrency=concurrency)
        assert trees(home) == expected and "stopped" not in whole.extra
        assert server.request_count() == requests, "no request was repeated to continue"
    assert again.extra["stopped"] == stopped.extra["stopped"]


def test_a_run_whose_time_is_up_says_so_and_the_same_command_goes_on(home):
    with StubServer() as server:
        stopped = build(home, server, run_seconds=1e-9)
        assert "stopped by --run-seconds" in stopped.extra["stopped"]
        assert "the same command goes on" in stopped.extra["stopped"]
        assert trees(home) == [] and server.request_count() == 0
        assert "stopped" not in build(home, server, run_seconds=600).extra
    assert len(trees(home)) == 6


def test_a_tree_that_its_budget_stopped_says_so_in_the_warehouse(home):
    with StubServer() as server:
        build(home, server, tree_requests=1, simulations=5, limit=2)
        build(home, server, strategy="best-of-n", tree_tokens=50, limit=2)
        build(home, server, strategy="linear", samples=2, limit=2)
    sql = (
        "SELECT DISTINCT status, stopped_by, config->>'strategy' AS strategy, simulations "
        "FROM trees ORDER BY strategy"
    )
    assert query(home, sql).to_pylist() == [
        {"status": "complete", "stopped_by": "tokens", "strategy": "best-of-n", "simulations": 8},
        {"status": "complete", "stopped_by": None, "strategy": "linear", "simulations": 2},
        {"status": "complete", "stopped_by": "requests", "strategy": "mcts", "simulations": 1},
    ]


def test_a_dry_run_predicts_and_what_it_was_answered_is_not_asked_again(home):
    with StubServer() as server:
        given = {"task": "sat2", "space": "qwen3-vl", "simulations": 2, "teacher": server.url}
        given["home"] = home.root
        settings = BuildSettings.checked(**given, dry_run=True, pilot=3, price_in=1, price_out=2)
        found = asyncio.run(forecast_build(settings))
        assert query(home, "SELECT count(*) AS n FROM trees UNION ALL SELECT count(*) FROM runs "
                     "WHERE kind = 'build'")["n"].to_pylist() == [0, 0]  # fmt: skip
        sent = server.request_count()
        assert sent == found.spent.requests > 0
        assert (found.questions, found.missing, found.pilot) == (6, 6, 3)
        assert asyncio.run(forecast_build(settings)).text() == found.text(), (
            "from the journal this time"
        )
        assert server.request_count() == sent
        summary = build(home, server)
        assert summary.replayed == sent and server.request_count() == summary.requests + sent
        (cost,) = query(home, "SELECT sum(requests) AS r, sum(prompt_tokens) AS p, "
                        "sum(completion_tokens) AS c FROM trees").to_pylist()  # fmt: skip
        for predicted, real in [
            (found.requests, cost["r"]),
            (found.prompt_tokens, cost["p"]),
            (found.completion_tokens, cost["c"]),
        ]:
            assert predicted.low <= predicted.middle <= predicted.high
            assert predicted.low <= real <= predicted.high
        text = found.text()
        assert "predicted for 6 of 6 questions" in text and "  money " in text
        assert asyncio.run(forecast_build(settings)).text() == (
            "all 6 questions have their trees: there is nothing to ask"
        )


def test_a_prediction_covers_the_truth_as_often_as_it_says():
    rng, hits = random.Random(0), 0
    for _ in range(400):
        every = [rng.gauss(100, 30) for _ in range(40)]
        found = predict(every[:4], 40)
        hits += found.low <= sum(every) <= found.high
    assert 0.86 <= hits / 400 <= 0.94
    assert predict([5.0], 3).low is None
    for known, t in ((3, 2.920), (13, 1.782)):  # as tables of Student's t have it
        sample = [100.0 + i for i in range(known)]
        spread = t * statistics.stdev(sample) * math.sqrt(2 + 4 / known)
        found = predict(sample, known + 2)
        assert found.high - found.middle == pytest.approx(spread, rel=0.005)
    assert predict([5.0, 7.0], 2).high == 12


def test_the_cost_of_a_kept_trace_is_told_with_its_money():
    spent = {"requests": 8, "prompt_tokens": 4000, "completion_tokens": 1000, "seconds": 6.0}
    sentence = describe_cost(spent, 4, 1.0, 2.0)
    assert sentence.startswith("a kept trace cost 250 tokens written, 1000 prompt tokens, 1.5 s")
    assert "0.0015 in money" in sentence and "0.006 in money" in sentence
    assert "no trace was kept" in describe_cost(spent, 0, None, None)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"samples": 4}, "samples: only for best-of-n, linear and auto"),
        ({"price_in": 1}, "price_in and price_out: give both, or neither"),
        ({"strategy": "beam"}, "strategy: Input should be 'mcts', 'best-of-n', 'linear' or 'auto'"),
        ({"run_tokens": 0}, "run_tokens: Input should be greater than or equal to 1"),
    ],
)
def test_settings_that_contradict_each_other_are_a_sentence(given, sentence):
    with pytest.raises(Problem, match=sentence):
        BuildSettings.checked(task="sat2", **given)


def test_questions_about_one_image_are_searched_together():
    def question_about(text, *images):
        shown = tuple(Image(name * 64, 10, 10) for name in images)
        return Question("t", text, shown, AnswerKind.TEXT, ("a", "b"), ("a",))

    mixed = [
        question_about("1", "b"),
        question_about("2", "a"),
        question_about("3", "b"),
        question_about("4", "a", "b"),
        question_about("5", "a"),
    ]
    ordered = stages.by_image(mixed)
    shown = [[image.image_id[0] for image in question.images] for question in ordered]
    assert shown == [["a"], ["a"], ["a", "b"], ["b"], ["b"]]
    assert stages.by_image(mixed[::-1]) == ordered
