"""Several models as one teacher: whose turn it is, what a build stores, and a replay of it."""

import asyncio
import shutil
import time
from collections import Counter
from dataclasses import replace

import pytest

from flows.settings import BuildSettings
from flows.settings_base import Problem
from flows.stages.build import build
from flows.stages.replay import replay
from mcts.teachers.base import (
    MAX_SEED,
    Ledger,
    TeacherError,
    TeacherUnavailable,
    UnusableModel,
)
from mcts.teachers.checkpoints import find_checkpoint
from mcts.teachers.ensemble import Ensemble
from mcts.teachers.identities import member_of
from mcts.teachers.local.teacher import LocalTeacher
from mcts.teachers.openai_client import OpenAITeacher
from tests.mcts.test_policy_prior import Silent
from tests.mcts.test_replicas import ask, images
from tests.support.fixtures import sat_rows, write_sat
from tests.support.stub_server import StubServer
from warehouse.lineage.lineage import Entity, Walker
from warehouse.query.run_query import query
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse


def clients(*servers):
    return [OpenAITeacher(s.url, retries=0, connect_retries=0, timeout_s=5.0) for s in servers]


@pytest.mark.parametrize("seed", [6, 7, MAX_SEED])
async def test_each_sample_is_drawn_by_the_model_whose_turn_its_seed_says(seed):
    request = replace(ask(1, seed=seed), n=3)
    with StubServer(model="a") as one, StubServer(model="b") as other:
        teacher, alone = Ensemble(clients(one, other)), clients(one, other)
        reply = await teacher.complete(request, images(1))
        singly = [replace(request, n=1, seed=request.sample_seed(i)) for i in range(3)]
        names = [member_of(teacher.identity, request.sample_seed(i)) for i in range(3)]
        turns = [["a", "b"].index(name.partition("@")[0]) for name in names]
        assert Counter(turns) in (Counter({0: 2, 1: 1}), Counter({0: 1, 1: 2}))
        assert [c.text for c in reply.completions] == [
            (await alone[turn].complete(sample, images(1))).completions[0].text
            for turn, sample in zip(turns, singly, strict=True)
        ]
        assert teacher.identity == " + ".join(member.identity for member in alone)
        assert (teacher.ledger.requests, teacher.ledger.completion_tokens) == (
            3, reply.completion_tokens,
        )  # fmt: skip
        assert reply.seconds > 0
        for member in (teacher, *alone):
            await member.close()


async def test_a_sample_that_fails_leaves_the_others_and_a_model_that_is_away_is_the_teachers():
    with StubServer(model="a") as one:
        with StubServer(model="b", faults=["400"] * 9) as other:
            teacher = Ensemble(clients(one, other))
            request = replace(ask(1), n=4)
            reply = await teacher.complete(request, images(1))
            turns = [member_of(teacher.identity, request.sample_seed(i))[0] for i in range(4)]
            assert sorted(turns) == ["a", "a", "b", "b"]
            for turn, completion in zip(turns, reply.completions, strict=True):
                assert bool(completion.text) == (turn == "a")
                assert completion.finish_reason == ("stop" if turn == "a" else "length")
            assert reply.completion_tokens == teacher.ledger.completion_tokens > 0
            alone = next(i for i, turn in enumerate(turns) if turn == "b")
            with pytest.raises(TeacherError):
                await teacher.complete(
                    replace(request, n=1, seed=request.sample_seed(alone)), images(1)
                )
            await teacher.close()
        gone = Ensemble(clients(one, other))
        with pytest.raises(TeacherUnavailable):
            await gone.open()
        await gone.close()


async def test_two_servers_of_one_model_are_no_ensemble():
    with StubServer() as one, StubServer() as other:
        teacher = Ensemble(clients(one, other))
        with pytest.raises(TeacherUnavailable, match="2 of the teachers are stub-teacher") as told:
            await teacher.open()
        assert told.value.permanent
        await teacher.close()


async def test_a_model_whose_name_looks_like_two_is_one():
    with StubServer(model="qwen + lora") as server:
        (teacher,) = clients(server)
        await teacher.open()
        assert teacher.identity == "qwen+lora" == member_of(teacher.identity, 1)
        await teacher.close()


async def test_one_of_several_that_reports_no_log_probabilities_stops_the_search():
    request = replace(ask(1), n=2, logprobs=True)
    with StubServer(model="a") as one, Silent(model="b") as other:
        teacher = Ensemble(clients(one, other))
        with pytest.raises(TeacherUnavailable, match=f"{other.url} reports no log-probabilities"):
            await teacher.complete(request, images(1))
        await teacher.close()


async def test_models_in_one_process_load_one_after_the_other(monkeypatch):
    """Two threads cannot import what loads them at once: one finds half a library."""
    loading, most = [], []

    def load(folder, *_):
        loading.append(folder)
        most.append(len(loading))
        time.sleep(0.05)
        loading.remove(folder)
        raise UnusableModel("as far as it goes here")

    monkeypatch.setattr("mcts.teachers.local.checkpoint.Checkpoint.load", load)
    folders = [find_checkpoint(name) for name in ("nano", "nano-reader", "nano-base")]
    opened = [LocalTeacher(folder).open() for folder in folders]
    ended = await asyncio.gather(*opened, return_exceptions=True)
    assert [type(error) for error in ended] == [UnusableModel] * 3 and most == [1, 1, 1]


def test_one_model_is_no_ensemble_and_draws_all_itself():
    with pytest.raises(ValueError, match="two models or more"):
        Ensemble(clients(StubServer()))
    assert {member_of("m@1", seed) for seed in range(3)} == {"m@1"}
    assert Ledger.total([]) == Ledger()
    assert Ledger.total([Ledger(1, retries=2), Ledger(3, failures=1)]) == Ledger(4, 2, 1)


def test_a_tree_of_several_models_says_who_said_what_and_is_replayed(tmp_path):
    home = Warehouse(str(tmp_path / "home"))
    import_questions(home, "sat2", write_sat(tmp_path / "SAT_train.parquet", sat_rows(3)))
    with StubServer(model="a") as one, StubServer(model="b") as other:
        settings = BuildSettings.checked(
            task="sat2", teacher=f"{one.url} + {other.url}", space="qwen3-vl", simulations=3,
            home=home.root,
        )  # fmt: skip
        asyncio.run(build(settings))
        asked = one.request_count() + other.request_count()
        asyncio.run(build(settings))
        assert one.request_count() + other.request_count() == asked, "it was built already"
        sent = {
            name: sum("Count from one" not in str(r["body"]["messages"]) for r in server.requests)
            for name, server in (("a", one), ("b", other))
        }
    (model,) = set(query(home, "SELECT model FROM trees")["model"].to_pylist())
    said = "SELECT split_part(model, '@', 1) AS name, count(*) AS n FROM responses GROUP BY 1"
    told = {row["name"]: row["n"] for row in query(home, said).to_pylist()}
    assert told == sent
    siblings = (
        "SELECT count(DISTINCT r.model) AS models FROM nodes n JOIN responses r "
        "ON n.tree_id = r.tree_id AND n.response_id = r.response_id "
        "WHERE n.depth = 1 GROUP BY n.tree_id"
    )
    assert query(home, siblings)["models"].to_pylist() == [2] * 3
    assert model.count(" + ") == 1
    alone = settings.model_copy(update={"teacher": one.url})
    with pytest.raises(Problem, match="nothing is recorded"):
        asyncio.run(replay(alone.model_copy(update={"model": "a"})))
    assert asyncio.run(replay(settings)).same == 3
    for name in (model, "a + b"):
        assert asyncio.run(replay(settings.model_copy(update={"model": name}))).same == 3
    made = {
        member: {e.id for e in Walker(home).lineage(Entity("model", (member,))).descendants}
        for member in model.split(" + ")
    }
    trees = set(query(home, "SELECT tree_id FROM trees")["tree_id"].to_pylist())
    assert all(trees <= descendants for descendants in made.values())
    shutil.rmtree(home.journal_dir)
    found = asyncio.run(replay(settings))
    assert (found.same, found.missing) == (3, {})


def test_a_model_alone_and_with_another_are_replayed_each_by_its_own_settings(tmp_path):
    home = Warehouse(str(tmp_path / "home"))
    import_questions(home, "sat2", write_sat(tmp_path / "SAT_train.parquet", sat_rows(2)))
    with StubServer(model="a") as one, StubServer(model="b") as other:
        both, alone = (
            BuildSettings.checked(
                task="sat2", teacher=teacher, space="qwen3-vl", simulations=1, home=home.root
            )
            for teacher in (f"{one.url} + {other.url}", one.url)
        )
        for settings in (both, alone):
            asyncio.run(build(settings))
    models = query(home, "SELECT DISTINCT model FROM trees ORDER BY model")["model"].to_pylist()
    assert models == ["a", "a + b"]
    for settings, model in ((both, "a + b"), (alone, "a")):
        replayed = asyncio.run(replay(settings))
        assert (replayed.same, replayed.missing) == (2, {})
        assert asyncio.run(replay(settings.model_copy(update={"model": model}))).same == 2
