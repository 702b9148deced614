"""Shards of a build in other processes: the same warehouse, nothing asked twice, one budget."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from flows.progress import Progress
from flows.settings import BuildSettings
from flows.settings_base import Problem
from flows.stages.build import build, by_image, find_questions
from flows.stages.curate import Summary
from flows.stages.search import name_searches, search_config
from flows.stages.shards import elsewhere
from flows.stages.shards.pool_workers import run_stored_shard
from flows.stages.shards.shard import Shard, ShardOutcome, Share
from flows.stages.shards.worker import WorkerProcess
from flows.teachers.resolve import resolve
from tests.flows.test_build import contents
from tests.support.fixtures import sat_rows, write_sat
from tests.support.stub_server import StubServer
from warehouse.query.run_query import query
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse

CODE = """
import asyncio, sys
from flows.stages.shards.worker import WorkerProcess
async def main():
    process = WorkerProcess()
    print(await process.run(sys.stdin.read()))
    await process.close()
asyncio.run(main())
"""

# Two trees at once, each with an expansion's 3 steps or their answers in flight, and one behind it.
IN_FLIGHT = 8


class Here:
    """A worker in this process."""

    def __init__(self) -> None:
        self.process = WorkerProcess()

    async def ready(self) -> None:
        """There is room."""

    async def run(self, shard: Shard) -> ShardOutcome:
        return ShardOutcome.of(await self.process.run(shard.text()))


class Process(Here):
    """A process for each shard; the first one is killed, and another one goes on."""

    failpoint, killed = "", 0

    async def run(self, shard: Shard) -> ShardOutcome:
        while True:
            failpoint, Process.failpoint = Process.failpoint, ""
            if printed := await self.begin(shard, failpoint):
                return ShardOutcome.of(printed)
            Process.killed += 1

    async def begin(self, shard: Shard, failpoint: str) -> str:
        """Run a shard; empty where the failpoint killed the process."""
        env = {**os.environ, "VIGORL_FAILPOINT": failpoint}
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", CODE, env=env, **pipes)
        printed, _ = await process.communicate(shard.text().encode())
        assert process.returncode == (137 if failpoint else 0)
        return "" if failpoint else printed.decode()


def on(monkeypatch: pytest.MonkeyPatch, *workers: Here) -> None:
    """Let `--on ray` mean these workers."""

    @asynccontextmanager
    async def started(*_: object) -> AsyncIterator[Sequence[Here]]:
        yield workers
        for worker in workers:
            await worker.process.close()

    monkeypatch.setattr(elsewhere, "_workers", started)


class Noted(Progress):
    """The sentences reported."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def report(self, sentence: str) -> None:
        self.sentences.append(sentence)


def search(server: StubServer, home: Path, **options: Any) -> Summary:
    values = {"space": "qwen3-vl", "simulations": 2, "shard": 2, "concurrency": 4, **options}
    settings = BuildSettings.checked(task="sat2", teacher=server.url, home=str(home), **values)
    return asyncio.run(build(settings))


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sat(tmp_path_factory.mktemp("sat") / "SAT_train.parquet", sat_rows(4))


@pytest.fixture
def home(sample: Path, tmp_path: Path) -> Path:
    import_questions(Warehouse(str(tmp_path)), "sat2", sample)
    return tmp_path


@pytest.fixture(scope="module")
def one_process(
    sample: Path, server: StubServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, list[str]], int, Path]:
    """What a build in one process stores, its requests, and its home."""
    home = tmp_path_factory.mktemp("one")
    import_questions(Warehouse(str(home)), "sat2", sample)
    before = server.request_count()
    search(server, home)
    return contents(home), server.request_count() - before, home


def test_processes_of_which_one_is_killed_store_the_same_and_ask_nothing_twice(
    home: Path, server: StubServer, one_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, requests, _ = one_process
    start = len(server.requests)
    monkeypatch.setattr(Process, "failpoint", "after_journal:9")
    on(monkeypatch, Process(), Process())
    search(server, home, on="ray", workers=2)
    assert Process.killed == 1 and contents(home) == expected
    asked = Counter(request["fingerprint"] for request in server.requests[start:])
    again = [fingerprint for fingerprint, times in asked.items() if times > 1]
    assert asked.total() - len(again) == requests and len(again) <= IN_FLIGHT
    assert not list((home / "shards").rglob("*.json")), "no lease is left"


async def test_a_worker_goes_on_from_what_another_process_stored_meanwhile(
    home: Path, server: StubServer, one_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, start = Process(), len(server.requests)

    class Relay(Here):
        """A worker whose second shard another process begins, and is killed in."""

        begun = 0

        async def run(self, shard: Shard) -> ShardOutcome:
            Relay.begun += 1
            if Relay.begun == 2:
                await lost.begin(shard, "after_journal:9")
            return await super().run(shard)

    on(monkeypatch, Relay())
    values = {"space": "qwen3-vl", "simulations": 2, "shard": 2, "concurrency": 4, "on": "ray"}
    settings = BuildSettings.checked(task="sat2", teacher=server.url, home=str(home), **values)
    await build(settings)
    asked = Counter(request["fingerprint"] for request in server.requests[start:])
    again = sum(times > 1 for times in asked.values())
    assert contents(home) == one_process[0] and asked.total() - again == one_process[1]
    assert again <= IN_FLIGHT


async def test_of_two_workers_on_one_shard_the_second_finds_it_done(
    home: Path, server: StubServer, one_process: Any
) -> None:
    shards: list[Shard] = []

    class Taking(Here):
        async def run(self, shard: Shard) -> ShardOutcome:
            shards.append(shard)
            return await super().run(shard)

    settings = BuildSettings.checked(
        task="sat2", teacher=server.url, home=str(home), space="qwen3-vl", simulations=2
    )
    monkeypatch = pytest.MonkeyPatch()
    taking, before = Taking(), server.request_count()
    on(monkeypatch, taking)
    try:
        await build(settings.model_copy(update={"on": "ray"}))
    finally:
        monkeypatch.undo()
    assert server.request_count() - before == one_process[1]
    for table in ("trees", "nodes", "rollouts", "responses", "traces", "steps"):
        (home / "tables" / table).rename(home / f"old-{table}")
    for path in (home / "journal").glob("*.jsonl"):
        path.unlink()
    (shard,), before = shards, server.request_count()
    first, second = Here(), Here()
    outcomes = await asyncio.gather(first.run(shard), second.run(shard))
    assert server.request_count() - before == one_process[1]
    assert sorted(len(outcome.found) for outcome in outcomes) == [0, 4]
    assert sorted(outcomes[0].tree_ids) == sorted(outcomes[1].tree_ids) == sorted(shard.tree_ids)
    (waited,) = [o for o in outcomes if not o.found]
    assert "is being worked on by process" in waited.reports[0]
    for worker in (first, second):
        await worker.process.close()


def test_the_runs_budget_holds_over_all_workers_and_more_of_it_goes_on(
    home: Path, server: StubServer, one_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, requests, _ = one_process
    start = server.request_count()
    on(monkeypatch, Here(), Here())
    stopped = search(server, home, on="ray", workers=2, run_requests=requests // 2, concurrency=2)
    assert "stopped by --run-requests" in stopped.extra["stopped"]
    asked = server.request_count() - start
    # The tree that is under way in each worker may end.
    assert requests // 4 <= asked <= requests // 2 + 2 * -(-requests // 4) + 2 < 2 * requests
    on(monkeypatch, Here(), Here())
    summary = search(server, home, on="ray", workers=2, run_requests=10 * requests)
    assert "stopped" not in summary.extra and contents(home) == expected
    assert server.request_count() - start == requests, "nothing was asked twice"


def test_what_a_shard_does_not_need_of_its_share_is_free_for_others() -> None:
    shards = [Shard("r", {}, (f"q{i}",), (f"t{i}",)) for i in range(3)]
    given: list[Share] = []

    class Spending:
        async def ready(self) -> None:
            """There is room."""

        async def run(self, shard: Shard) -> ShardOutcome:
            given.append(shard.share)
            tokens = shard.share.tokens or 0
            if shard.tree_ids == ("t0",) and tokens < 50:  # it needs more than its part
                return ShardOutcome(spent=(1, tokens), stopped_by="tokens")
            return ShardOutcome(list(shard.tree_ids), spent=(1, min(tokens, 10)))

    settings = BuildSettings.checked(task="sat2", teacher="nano", run_tokens=90)
    run = elsewhere._Run(shards, settings, Progress())
    asyncio.run(run.all_on([Spending()]))
    assert [share.tokens for share in given] == [30, 30, 50, 70]
    assert run.total.tree_ids == ["t0", "t1", "t2"] and run.total.stopped_by is None


def test_a_second_run_holds_what_the_first_one_paid(
    home: Path, server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: dict[tuple[str, ...], Share] = {}

    class Noting(Here):
        async def run(self, shard: Shard) -> ShardOutcome:
            shares[tuple(shard.tree_ids)] = shard.share
            return await super().run(shard)

    on(monkeypatch, Noting())
    search(server, home, on="ray")
    assert {share.requests for share in shares.values()} == {None}
    search(server, home, on="ray", run_requests=1)
    rows = query(Warehouse(str(home)), "SELECT tree_id, requests FROM trees").to_pylist()
    paid = {row["tree_id"]: row["requests"] for row in rows}
    assert {ids: share.requests for ids, share in shares.items()} == {
        ids: sum(paid[name] for name in ids) for ids in shares
    }


def test_a_worker_that_would_search_otherwise_refuses(
    home: Path, server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Older(Here):
        async def run(self, shard: Shard) -> ShardOutcome:
            shard.settings["temperature"] = 0.5
            return await super().run(shard)

    on(monkeypatch, Older())
    with pytest.raises(Problem, match="would search otherwise than the process that began the run"):
        search(server, home, on="ray")


def test_a_shard_that_is_stored_leaves_its_outcome_beside_it(
    home: Path, server: StubServer
) -> None:
    settings = {"task": "sat2", "teacher": "no-such-model", "home": str(home)}
    shard = Shard("build-1", settings, ("q",), ("t",))
    Warehouse(str(home)).objects.put("shards/a/b.json", shard.text().encode())
    assert "no-such-model" in asyncio.run(run_stored_shard(str(home), "shards/a/b"))
    stored = json.loads((home / "shards/a/b-outcome.json").read_text())
    assert stored["status"] == 2 and "is no registered model" in stored["problem"]


def test_a_key_in_a_url_and_a_vllm_for_each_worker_are_refused(home: Path) -> None:
    values = {"task": "sat2", "home": str(home), "on": "ray"}
    with pytest.raises(Problem, match="start one with `vigorl serve`"):
        BuildSettings.checked(**values, teacher="vllm:some/model")
    shard = Shard("r", {"teacher": "http://me:secret@host:8000"}, ("q",), ("t",))
    settings = BuildSettings.checked(**values, teacher="nano")
    with pytest.raises(Problem, match="environment variable of the workers"):
        asyncio.run(elsewhere.run_elsewhere([shard], settings, Progress()))


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["stub", "nano"])
def test_ray_stores_what_one_process_does(
    teacher: str, home: Path, sample: Path, server: StubServer, tmp_path_factory: Any
) -> None:
    if not find_spec("ray"):  # imported before its mode is known, it would lack its token
        pytest.skip("Ray is not installed")
    other = tmp_path_factory.mktemp("one")
    import_questions(Warehouse(str(other)), "sat2", sample)
    options = {} if teacher == "stub" else {"teacher": "nano", "space": None}
    for place, where in ((other, "here"), (home, "ray")):
        values = {"space": "qwen3-vl", "simulations": 2, "shard": 1, "workers": 2, **options}
        values = {"teacher": server.url, **values, "on": where, "home": str(place)}
        asyncio.run(build(BuildSettings.checked(task="sat2", **values)))
    assert contents(home) == contents(other)


async def test_what_a_budget_stopped_is_asked_for_no_second_time(
    server: StubServer, home: Path
) -> None:
    """By the same worker, whose journal does not read its own segments again."""
    settings = BuildSettings.checked(
        task="sat2", teacher=server.url, home=str(home), space="qwen3-vl", simulations=2
    )
    warehouse, resolved = Warehouse.at(str(home)), resolve(settings)
    await resolved.teacher.open()
    questions = by_image(await find_questions(warehouse, settings, Progress()))
    config = search_config(settings, resolved)
    named = name_searches(warehouse, settings, questions, config, resolved.teacher.identity)
    await resolved.teacher.close()
    (shard,) = elsewhere.cut_shards(named, settings, "build-x", warehouse)
    worker = Here()
    first = await worker.run(dataclasses.replace(shard, share=Share(requests=12)))
    rest = await worker.run(dataclasses.replace(shard, share=Share(requests=1000)))
    await worker.process.close()
    assert first.stopped_by == "requests" and first.requested > len(first.tree_ids) * 12
    assert rest.stopped_by is None and rest.replayed > 0
    assert first.requested + rest.requested == rest.spent[0]
