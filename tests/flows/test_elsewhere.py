"""What shards elsewhere are given of a run's budget, and what becomes of their outcomes."""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.progress import Progress
from flows.settings import BuildSettings
from flows.settings_base import Problem
from flows.stages.search import Search
from flows.stages.shards import elsewhere, pool_workers
from flows.stages.shards.elsewhere import cut_shards, run_elsewhere
from flows.stages.shards.prefect_away import Outage
from flows.stages.shards.shard import Shard, ShardOutcome, Share
from mcts.budget import Usage
from mcts.data import AnswerKind, Image, Question
from warehouse.storage.home import Warehouse
from warehouse.storage.lease import Term

httpx: Any = importlib.import_module("httpx")  # Prefect's


class Told(Progress):
    """What a run tells."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.trees: list[tuple[str, bool, bool]] = []

    def report(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def tree(self, name: str, right: bool, failed: bool) -> None:
        self.trees.append((name, right, failed))


class Worker:
    """Answers as `outcome` says; keeps the shares that it was given."""

    def __init__(self, outcome: Callable[[Shard], ShardOutcome]) -> None:
        self._outcome, self.given = outcome, list[tuple[str, Share]]()

    async def ready(self) -> None:
        """There is room."""

    async def run(self, shard: Shard) -> ShardOutcome:
        self.given.append((shard.tree_ids[0], shard.share))
        return self._outcome(shard)


class Roomless(Worker):
    """A worker for which there never is room."""

    async def ready(self) -> None:
        await asyncio.Event().wait()


def shards(*sizes: int) -> list[Shard]:
    """Shards of so many trees, named a0, a1, b0 ..."""
    names = [[f"{'abcdef'[i]}{k}" for k in range(size)] for i, size in enumerate(sizes)]
    return [Shard("r", {}, tuple(ids), tuple(ids)) for ids in names]


def run(given: list[Shard], *workers: Worker, told: Told | None = None, **limits: Any) -> Any:
    settings = BuildSettings.checked(task="sat2", teacher="nano", **limits)
    found = elsewhere._Run(given, settings, told or Told())
    asyncio.run(asyncio.wait_for(found.all_on(workers), 20))
    return found.total


def done(shard: Shard) -> ShardOutcome:
    return ShardOutcome(list(shard.tree_ids), spent=(3, 40))


def test_a_share_is_what_is_left_by_the_questions_that_have_none() -> None:
    worker = Worker(done)
    run(shards(2, 1, 1), worker, run_requests=40, run_tokens=400, run_seconds=1000)
    shares = [share for _, share in worker.given]
    assert [share.requests for share in shares] == [20, (40 - 3) // 2, 40 - 6]
    assert [share.tokens for share in shares] == [200, (400 - 40) // 2, 400 - 80]
    assert all(share.seconds is not None and 900 < share.seconds <= 1000 for share in shares)
    worker = Worker(done)
    run(shards(1), worker)
    assert worker.given == [("a0", Share())]


def test_what_is_under_way_is_held_and_not_shared_out_again() -> None:
    both = asyncio.Barrier(2)

    class Waiting(Worker):
        async def run(self, shard: Shard) -> ShardOutcome:
            outcome = await super().run(shard)
            await both.wait()
            return outcome

    first, second = Waiting(done), Waiting(done)
    run(shards(1, 1), first, second, run_requests=10, run_tokens=20)
    for _, share in (*first.given, *second.given):
        assert (share.requests, share.tokens) == (5, 10)


def test_what_an_earlier_run_paid_is_held_from_the_start() -> None:
    given, both = shards(1, 1), asyncio.Barrier(2)

    class Waiting(Worker):
        async def run(self, shard: Shard) -> ShardOutcome:
            outcome = await super().run(shard)
            await both.wait()
            return outcome

    settings = BuildSettings.checked(
        task="sat2", teacher="nano", run_requests=1000, run_tokens=1000
    )
    paid = {"a0": Usage(900, 5, 900)}
    found = elsewhere._Run(given, settings, Told(), paid)
    first, second = Waiting(done), Waiting(done)
    asyncio.run(asyncio.wait_for(found.all_on([first, second]), 20))
    shares = dict([*first.given, *second.given])
    assert {name: (one.requests, one.tokens) for name, one in shares.items()} == {
        "a0": (900, 900), "b0": (100, 100),
    }  # fmt: skip


def test_where_more_was_spent_than_there_was_the_rest_is_given_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(elsewhere.time, "monotonic", lambda: now[0])

    def outcome(shard: Shard) -> ShardOutcome:
        now[0] += 60.0
        return ShardOutcome(list(shard.tree_ids), spent=(70, 70))

    worker = Worker(outcome)
    settings = BuildSettings.checked(
        task="sat2", teacher="nano", run_requests=50, run_tokens=50, run_seconds=50
    )
    found = elsewhere._Run(shards(1, 1), settings, Told())
    asyncio.run(found.all_on([worker]))
    assert [share for _, share in worker.given] == [Share(25, 25, 50.0), Share(0, 0, 0.0)]


@pytest.mark.parametrize(
    ("why", "again"), [("requests", True), ("tokens", True), ("seconds", False)]
)
def test_a_shard_that_its_share_stopped_is_run_again_with_all_that_is_left(
    why: str, again: bool
) -> None:
    def outcome(shard: Shard) -> ShardOutcome:
        short = shard.tree_ids[0] == "a0" and (shard.share.requests or 0) < 60
        return ShardOutcome(
            ["a0"] if not short else [], spent=(10, 10), stopped_by=why * short or None
        )

    worker = Worker(outcome)
    total = run(shards(1, 1), worker, run_requests=100, run_tokens=100, run_seconds=100)
    assert [name for name, _ in worker.given] == (["a0", "b0", "a0"] if again else ["a0", "b0"])
    assert total.stopped_by == (None if again else "seconds")
    if again:
        assert (worker.given[2][1].requests, worker.given[2][1].tokens) == (90, 90)


@pytest.mark.parametrize("limit", ["run_requests", "run_tokens"])
def test_a_shard_for_which_nothing_is_left_is_not_run_again(limit: str) -> None:
    part = limit.removeprefix("run_")

    def outcome(shard: Shard) -> ShardOutcome:
        spent = shard.share.requests or 0, shard.share.tokens or 0
        return ShardOutcome(spent=spent, stopped_by=part)

    worker = Worker(outcome)
    total = run(shards(1, 1), worker, **{limit: 60})
    assert [getattr(share, part) for _, share in worker.given] == [30, 30]
    assert total.stopped_by == part and total.tree_ids == []


def test_what_came_of_all_is_summed_up_and_each_sentence_told_once() -> None:
    def outcome(shard: Shard) -> ShardOutcome:
        return ShardOutcome(
            list(shard.tree_ids), found=[(shard.tree_ids[0], True, False)], requested=3, replayed=2,
            estimated=1, prefetched=(4, 50), reports=["the same", shard.tree_ids[0]],
        )  # fmt: skip

    told = Told()
    total = run(shards(2, 1), Worker(outcome), told=told)
    assert total.tree_ids == ["a0", "a1", "b0"]
    assert (total.requested, total.replayed, total.estimated) == (6, 4, 2)
    assert total.prefetched == (8, 100) and total.stopped_by is None
    assert told.sentences == ["the same", "a0", "b0"]
    assert told.trees == [("a0", True, False), ("b0", True, False)]


def test_a_run_ends_though_there_is_no_room_for_all_workers() -> None:
    roomless = Roomless(done)
    total = run(shards(1, 1), roomless, Worker(done))
    assert total.tree_ids == ["a0", "b0"] and not roomless.given
    assert run([], roomless).tree_ids == []


@pytest.mark.parametrize(("status", "error"), [(2, Problem), (1, OSError)])
def test_a_problem_of_a_worker_ends_the_run(status: int, error: type[Exception]) -> None:
    worker = Worker(lambda shard: ShardOutcome(problem="no such prompt", status=status))
    with pytest.raises(error, match="no such prompt"):
        run(shards(1, 1, 1), worker)
    assert len(worker.given) == 1


def test_a_run_is_cut_into_shards_that_know_what_a_worker_must_know(tmp_path: Path) -> None:
    image = Image("f" * 64, 10, 10)
    questions = [Question("sat2", f"{i}?", (image,), AnswerKind.TEXT) for i in range(5)]
    searches = [Search(question, f"t{i}") for i, question in enumerate(questions)]
    warehouse = Warehouse(str(tmp_path))

    def cut(**given: Any) -> list[Shard]:
        settings = BuildSettings.checked(task="sat2", teacher="nano", shard=2, **given)
        return cut_shards(searches, settings, "r", warehouse)

    made = cut(on="ray", concurrency=8, workers=3)
    assert [shard.tree_ids for shard in made] == [("t0", "t1"), ("t2", "t3"), ("t4",)]
    assert made[0].question_ids == tuple(question.question_id for question in questions[:2])
    for shard in made:
        assert Shard.of(json.dumps(asdict(shard))) == shard
        assert {name: shard.settings[name] for name in ("home", "on", "shard")} == {
            "home": str(tmp_path), "on": "here", "shard": 2,
        }  # fmt: skip
    assert cut(concurrency=8, workers=3)[0].settings["concurrency"] == 8


@pytest.mark.parametrize(
    ("concurrency", "workers", "parts"),
    [(4, 32, [1, 1, 1, 1]), (512, 16, [103, 103, 102, 102, 102]), (8, 3, [3, 3, 2])],
)
def test_all_workers_together_search_as_many_trees_as_the_run_may(
    concurrency: int, workers: int, parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    everybody = asyncio.Barrier(len(parts))

    class Counting(Worker):
        async def run(self, shard: Shard) -> ShardOutcome:
            found.append(shard.settings["concurrency"])
            if len(found) <= len(parts):
                await everybody.wait()
            return done(shard)

    @asynccontextmanager
    async def opened(_: object, __: object, count: int) -> AsyncIterator[list[Worker]]:
        yield [Counting(done) for _ in range(count)]

    monkeypatch.setattr(elsewhere, "_workers", opened)
    settings = BuildSettings.checked(
        task="sat2", teacher="nano", on="pool:big", concurrency=concurrency, workers=workers
    )
    asyncio.run(asyncio.wait_for(run_elsewhere(shards(1, 1, 1, 1, 1), settings, Progress()), 20))
    assert found[: len(parts)] == parts


def test_what_a_shard_waits_for_a_worker_is_taken_off_its_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, kept = Worker(done), list[Shard]()
    monkeypatch.setattr(worker, "_outcome", lambda shard: kept.append(shard) or done(shard))
    run(shards(1), worker, run_seconds=50)
    (shard,) = kept
    assert shard.handed_out_at is not None
    for passed, left in ((20, 30), (70, 0), (-5, 50)):
        monkeypatch.setattr("time.time", lambda at=shard.handed_out_at + passed: at)
        assert Shard.of(shard.text()).seconds_left() == pytest.approx(left, abs=1)
    assert shards(1)[0].seconds_left() is None


def test_where_the_workers_are_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ray_workers", "pool_workers"):
        monkeypatch.setattr(
            f"flows.stages.shards.{module}.{module}", lambda *given: tuple(given[:2])
        )

    def workers(on: str) -> Any:
        settings = BuildSettings.checked(task="sat2", teacher="nano", on=on)
        return elsewhere._workers(settings, Progress(), 3)

    assert workers("ray") == (None, 3)
    assert workers("ray:head:6379") == ("head:6379", 3)
    assert workers("pool:big") == ("big", 3)


def test_shards_are_sent_to_the_workers_and_passwords_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(done)

    @asynccontextmanager
    async def workers(*_: object) -> AsyncIterator[list[Worker]]:
        yield [worker]

    monkeypatch.setattr(elsewhere, "_workers", workers)
    settings = BuildSettings.checked(task="sat2", teacher="nano", on="pool:big")
    (shard,) = shards(2)
    total = asyncio.run(run_elsewhere([shard], settings, Progress()))
    assert total.tree_ids == ["a0", "a1"]
    assert asyncio.run(run_elsewhere([], settings, Progress())) == ShardOutcome()
    shard.settings["teacher"] = "http://me:secret@gpu:8000"
    with pytest.raises(Problem, match="a password in a URL would be seen") as refused:
        asyncio.run(run_elsewhere([shard], settings, Progress()))
    assert "secret" not in str(refused.value) and len(worker.given) == 1


class Prefect:
    """Stands for Prefect: a first run whose worker is lost behind its first term, then another."""

    def __init__(self, warehouse: Warehouse, name: str) -> None:
        self._objects, self._term = warehouse.objects, f"shards/{name}/lease/000000001.json"
        self._key, self.started, self.states = "", list[str](), list[tuple[str, str]]()

    async def start(
        self, name: str, parameters: dict[str, str], timeout: int, idempotency_key: str
    ) -> Any:
        self.started.append(name)
        self._key = parameters["key"]
        late = SimpleNamespace(name="Late", is_final=lambda: False)
        return SimpleNamespace(id=f"run {len(self.started)}", state=late)

    async def read_flow_run(self, run: str) -> Any:
        if run == "run 1":  # Prefect takes it to be running for as long as anybody asks
            term = Term("h", "another-host", 17, time.time() + 0.3)
            self._objects.put(self._term, json.dumps(asdict(term)).encode())
            return SimpleNamespace(
                id=run, state=SimpleNamespace(name="Running", is_final=lambda: False)
            )
        outcome = ShardOutcome(["a0"]).text().encode()
        self._objects.put(f"{self._key}-outcome.json", outcome)
        return SimpleNamespace(
            id=run, state=SimpleNamespace(name="Completed", is_final=lambda: True)
        )

    async def set_flow_run_state(self, run: str, state: Any, force: bool) -> None:
        self.states.append((run, state.name))

    async def __aenter__(self) -> Prefect:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""


def test_a_shard_whose_lease_has_ended_goes_on_while_prefect_takes_its_run_to_be_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, told, (shard,) = Warehouse(str(tmp_path)), Told(), shards(1)
    prefect = Prefect(warehouse, shard.name)
    monkeypatch.setattr("prefect.deployments.arun_deployment", prefect.start)
    monkeypatch.setattr("prefect.client.orchestration.get_client", lambda: prefect)
    monkeypatch.setattr(pool_workers, "_LOOK_S", 0.05)
    monkeypatch.setattr(pool_workers, "_LEASE_LOOK_S", 0.05)
    worker = pool_workers.PoolWorker("big", warehouse, told)
    outcome = asyncio.run(asyncio.wait_for(worker.run(shard), 30))
    assert outcome.tree_ids == ["a0"] and prefect.started == ["build-shard/big"] * 2
    assert prefect.states == [("run 1", "Crashed")]
    late, lost, again = told.sentences
    assert "no worker of the work pool big has taken a shard yet" in late and again == late
    assert lost == "a worker of big was lost; its shard goes on"


class Interrupted(Prefect):
    """Is away twice: when a run is begun and when it is asked about."""

    def __init__(self, warehouse: Warehouse, name: str) -> None:
        super().__init__(warehouse, name)
        self.keys: list[str] = []
        self._asked = 0

    async def start(
        self, name: str, parameters: dict[str, str], timeout: int, idempotency_key: str
    ) -> Any:
        self.keys.append(idempotency_key)
        if len(self.keys) < 3:
            raise httpx.ConnectError("All connection attempts failed")
        run = await super().start(name, parameters, timeout, idempotency_key)
        return SimpleNamespace(id="run 2", state=run.state)

    async def read_flow_run(self, run: str) -> Any:
        self._asked += 1
        if self._asked < 3:
            raise httpx.ConnectError("All connection attempts failed")
        return await super().read_flow_run(run)


def test_a_prefect_server_that_goes_away_in_the_middle_of_a_build_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse, told, (shard,) = Warehouse(str(tmp_path)), Told(), shards(1)
    prefect = Interrupted(warehouse, shard.name)
    monkeypatch.setattr("prefect.deployments.arun_deployment", prefect.start)
    monkeypatch.setattr("prefect.client.orchestration.get_client", lambda: prefect)
    monkeypatch.setattr(pool_workers, "_LOOK_S", 0.01)
    worker = pool_workers.PoolWorker("big", warehouse, told)
    outcome = asyncio.run(asyncio.wait_for(worker.run(shard), 30))
    assert outcome.tree_ids == ["a0"]
    assert len(prefect.keys) == 3 and len(set(prefect.keys)) == 1, "no second run is begun"
    away = "the Prefect server does not answer: it is asked until it does"
    assert [sentence for sentence in told.sentences if sentence == away] == [away] * 2


def test_a_pool_without_a_server_or_a_deployment_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = BuildSettings.checked(task="sat2", teacher="nano", on="pool:big")

    async def enter() -> None:
        async with pool_workers.pool_workers("big", 1, settings, Told()):
            raise AssertionError("there is nobody to send a shard to")

    nowhere = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    sentence = "^no Prefect server answers at http://127.0.0.1:9/api: "
    with nowhere, pytest.raises(Problem, match=sentence):
        asyncio.run(enter())

    class Empty(Prefect):
        async def read_deployment_by_name(self, name: str) -> None:
            raise ObjectNotFound(LookupError(name))

    monkeypatch.setattr("prefect.client.orchestration.get_client", lambda: Empty(None, ""))
    monkeypatch.setattr(Empty, "__init__", lambda *_: None)
    with pytest.raises(Problem, match="on: there is no deployment build-shard/big"):
        asyncio.run(enter())


def test_an_error_that_is_not_a_servers_absence_ends_a_build() -> None:
    outage = Outage(lambda sentence: None)
    request = httpx.Request("GET", "http://127.0.0.1:9")
    for status, away in ((503, True), (422, False)):
        error = httpx.HTTPStatusError("", request=request, response=httpx.Response(status))
        if away:
            outage.met(error)
        else:
            with pytest.raises(httpx.HTTPStatusError):
                outage.met(error)
