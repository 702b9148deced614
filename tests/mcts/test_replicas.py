"""Several real servers as one teacher: where requests go, and what happens when one goes away."""

import asyncio
import json
import socket
from collections import Counter
from contextlib import ExitStack, asynccontextmanager

import pytest

from flows.settings import BuildSettings, TeacherSettings
from flows.settings_base import Problem
from flows.stages import build as stages
from flows.teachers.resolve import resolve
from mcts.teachers.base import (
    ImagePart,
    Message,
    Request,
    TeacherError,
    TeacherUnavailable,
    TextPart,
)
from mcts.teachers.openai_client import OpenAITeacher
from mcts.teachers.reconnect import ReconnectingTeacher
from mcts.teachers.replicas import Replicas, affinity_key
from tests.support.fixtures import picture, sat_rows, write_sat
from tests.support.stub_server import StubServer
from warehouse.query.run_query import query
from warehouse.sources.importing import import_questions
from warehouse.storage.home import Warehouse

PNG = picture(1)


def ask(tree: int, partial: str = "", seed: int = 1, text: str = "Choices: yes or no.") -> Request:
    """A request about the image of one tree."""
    messages = (Message("user", (ImagePart(f"{tree:064d}"), TextPart(text))),)
    if partial:
        messages += (Message("assistant", (TextPart(partial),)),)
    return Request(messages, 1, 1.0, 1.0, 100, ("</answer>",), seed)


def images(tree: int) -> dict[str, bytes]:
    return {f"{tree:064d}": PNG}


@asynccontextmanager
async def replicas(servers, **options):
    teachers = [
        OpenAITeacher(s.url, connect_retries=1, retries=1, backoff_s=0.01, timeout_s=5.0)
        for s in servers
    ]
    teacher = Replicas(teachers, **options)
    try:
        yield teacher
    finally:
        await teacher.close()


@pytest.fixture
def servers():
    with ExitStack() as stack:
        yield [stack.enter_context(StubServer()) for _ in range(3)]


def trees_at(server: StubServer) -> set[str]:
    """The questions, images included, that a server received."""
    turns = [turn for r in server.requests for turn in r["body"]["messages"]]
    return {json.dumps(turn["content"]) for turn in turns if turn["role"] == "user"}


async def homes(teacher: Replicas, servers, trees: int) -> dict[int, int]:
    """Which server answers each tree now."""
    found = {}
    for tree in range(trees):
        before = [server.request_count() for server in servers]
        await teacher.complete(ask(tree), images(tree))
        (found[tree],) = (i for i, s in enumerate(servers) if s.request_count() > before[i])
    return found


async def test_every_request_of_a_tree_goes_to_one_server_and_trees_spread_over_all(servers):
    async with replicas(servers) as teacher:
        home = await homes(teacher, servers, 60)
        before = [server.request_count() for server in servers]
        for seed, partial in enumerate(("<think>a</think>", "<think>b</think>", "<answer>")):
            await teacher.complete(ask(7, partial, seed), images(7))
        sent = [server.request_count() - n for server, n in zip(servers, before, strict=True)]
    assert sent[home[7]] == sum(sent) == 3
    assert min(Counter(home.values()).values()) >= 5  # of 20 each
    assert teacher.ledger.requests == 63 and teacher.ledger.completion_tokens > 0


def test_a_trees_server_depends_on_its_images_alone_and_crops_do_not_move_it():
    later = Message("user", (ImagePart("c" * 64),))
    longer = Request((*ask(1, "<think>").messages, later), 1, 1.0, 1.0, 9, (), 0)
    assert (
        affinity_key(longer)
        == affinity_key(ask(1, seed=9))
        == affinity_key(ask(1, text="Another question?"))
    )
    assert affinity_key(ask(1)) != affinity_key(ask(2))


async def test_identity_knows_nothing_of_the_servers_and_their_order_moves_no_tree(servers):
    with StubServer() as alone:
        single = OpenAITeacher(alone.url)
        await single.open()
        await single.close()
    async with replicas(servers) as teacher:
        await teacher.open()
        assert teacher.identity == single.identity
        home = await homes(teacher, servers, 12)
    async with replicas(servers[::-1]) as teacher:
        assert await homes(teacher, servers, 12) == home


async def test_when_a_server_goes_away_only_its_trees_move_and_they_return_with_it(servers):
    log, now = [], [0.0]
    async with replicas(servers, report=log.append, clock=lambda: now[0], retry_s=30) as teacher:
        home = await homes(teacher, servers, 48)
        servers[1].stop()
        moved = await homes(teacher, servers, 48)
        assert {tree: moved[tree] for tree in home if home[tree] != 1} == {
            tree: at for tree, at in home.items() if at != 1
        }
        assert {moved[tree] for tree in home if home[tree] == 1} == {0, 2}  # spread, not dumped
        assert len(log) == 1 and "its trees move" in log[0] and servers[1].url in log[0]
        with StubServer(port=int(servers[1].url.rpartition(":")[2])) as back:
            servers[1] = back
            assert await homes(teacher, servers, 48) == moved  # not looked for yet
            now[0] = 31.0
            assert await homes(teacher, servers, 48) == home
        assert "answers again" in log[-1]


async def test_requests_in_flight_at_a_server_that_dies_are_answered_by_another(servers):
    async with replicas(servers) as teacher:
        await teacher.open()
        for server in servers:
            server.latency_s = 0.3
        tasks = [asyncio.create_task(teacher.complete(ask(t), images(t))) for t in range(12)]
        while sum(server.in_flight for server in servers) < 12:
            await asyncio.sleep(0.01)
        servers[0].stop()
        replies = await asyncio.gather(*tasks)
    assert all(reply.completions[0].text for reply in replies)


async def test_a_question_that_a_living_server_fails_at_fails_and_moves_nowhere():
    with StubServer(poison="POISON") as first, StubServer(poison="POISON") as second:
        log = []
        async with replicas([first, second], report=log.append) as teacher:
            with pytest.raises(TeacherError, match="server_error"):
                await teacher.complete(ask(1, text="POISON"), images(1))
        counts = sorted([first.request_count(), second.request_count()])
        assert counts == [0, 2]  # the retry goes to the same server
        assert log == []


async def test_a_server_that_takes_requests_and_is_silent_is_suspected_and_the_others_answer():
    silent = {"now": True}
    log, now = [], [0.0]

    def hang(body, came):
        return "hang" if silent["now"] else "ok"

    with StubServer(fault_of=hang) as hung, StubServer() as well:  # both list their models
        teachers = [
            OpenAITeacher(s.url, connect_retries=0, timeout_s=0.3, backoff_s=0.01)
            for s in (hung, well)
        ]
        teacher = Replicas(teachers, report=log.append, clock=lambda: now[0], retry_s=30)
        replies = [teacher.complete(ask(t), images(t)) for t in range(16)]
        assert all(reply.completions for reply in await asyncio.gather(*replies))
        assert [hung.url in line and "was silent" in line for line in log] == [True]
        taken = hung.request_count()
        assert 0 < taken < 16
        for now[0] in (1.0, 31.0, 62.0):  # suspected 30 s, then 60 s
            for tree in range(16):
                await teacher.complete(ask(tree), images(tree))
        assert hung.request_count() == taken + 1, "one request has tried it"
        silent["now"], now[0] = False, 92.0
        for tree in range(16):
            await teacher.complete(ask(tree), images(tree))
        assert "answers again" in log[-1] and len(log) == 2
        assert hung.request_count() == taken + 1 + taken, "its trees are back"
        await teacher.close()


async def test_a_request_that_no_server_answers_in_time_fails_and_nobody_is_suspected():
    log = []
    with StubServer(faults=["hang"]) as first, StubServer(faults=["hang"]) as second:
        teachers = [OpenAITeacher(s.url, connect_retries=0, timeout_s=0.2) for s in (first, second)]
        teacher = Replicas(teachers, report=log.append)
        with pytest.raises(TeacherError, match=r"timeout: no answer within 0\.2 s"):
            await teacher.complete(ask(1), images(1))
        assert (first.request_count(), second.request_count(), log) == (1, 1, [])
        await teacher.close()


async def test_a_server_that_lists_no_models_at_the_start_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("mcts.teachers.replicas.OPEN_S", 0.2)
    log = []
    with StubServer() as well, socket.create_server(("127.0.0.1", 0)) as mute:
        urls = [well.url, f"http://127.0.0.1:{mute.getsockname()[1]}"]
        teacher = Replicas([OpenAITeacher(url) for url in urls], report=log.append)
        assert (await teacher.complete(ask(1), images(1))).completions
        assert "does not list its models within 0.2 s" in log[0]
        await teacher.close()


async def test_servers_of_different_models_are_one_clear_sentence():
    with StubServer(model="one") as first, StubServer(model="two") as second:
        async with replicas([first, second]) as teacher:
            sentence = f"must serve one model: {first.url} serves one, {second.url} serves two"
            with pytest.raises(TeacherUnavailable, match=sentence):
                await teacher.open()


async def test_a_server_that_returns_with_another_model_gets_no_request(servers):
    log, now = [], [0.0]
    async with replicas(servers[:2], report=log.append, clock=lambda: now[0]) as teacher:
        await teacher.open()
        servers[0].stop()
        # As vLLM answers to a model it does not have; that is no failure of the question.
        port = int(servers[0].url.rpartition(":")[2])
        with StubServer(model="other", port=port, faults=["404"] * 99) as other:
            for now[0] in (0.0, 31.0, 62.0):
                for tree in range(16):
                    await teacher.complete(ask(tree), images(tree))
            assert other.request_count() == 1
    assert "serves other, not" in log[0] and "still down" in log[-1] and len(log) == 2


async def test_a_server_missing_at_the_start_is_reported_and_none_left_is_unavailable(servers):
    servers[0].stop()
    log = []
    async with replicas(servers, report=log.append) as teacher:
        await teacher.open()
        assert servers[0].url in log[0]
        assert set((await homes(teacher, servers, 20)).values()) == {1, 2}
        for server in servers[1:]:
            server.stop()
        urls = ", ".join(server.url for server in servers)
        with pytest.raises(TeacherUnavailable, match=f"None of {urls} answers"):
            await teacher.complete(ask(1), images(1))
    async with replicas(servers) as teacher:
        with pytest.raises(TeacherUnavailable, match="None of"):
            await teacher.open()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("http://a,b:8000", "'b:8000' among the servers is no URL"), ("http://a,http://a/v1", "once")],
)
def test_a_bad_list_of_servers_is_a_sentence(name, sentence):
    with pytest.raises(Problem, match=sentence):
        resolve(TeacherSettings(teacher=name, space="qwen3-vl"))


async def test_a_request_that_crashes_every_server_it_is_sent_to_fails_at_last():
    class Crashing(OpenAITeacher):
        """Its server goes away with each such request, and is started again at once."""

        asked = 0

        async def open(self):
            self._identity = "m@1"

        async def served_identity(self, timeout_s):
            return "m@1"

        async def complete(self, request, images):
            Crashing.asked += 1
            raise TeacherUnavailable(f"{self.url} is gone", in_flight=True)

    crashing = [Crashing(f"http://{name}.example") for name in "ab"]
    teacher = ReconnectingTeacher(Replicas(crashing, retry_s=0.0), retry_s=0.0)
    async with asyncio.timeout(5):
        with pytest.raises(TeacherError, match="went away 3 times while it had this request"):
            await teacher.complete(ask(1), images(1))
    assert Crashing.asked <= 4 * len(crashing)


async def test_keys_that_all_servers_refuse_are_not_waited_for():
    class Refusing(OpenAITeacher):
        async def open(self):
            self._identity = "m@1"

        async def complete(self, request, images):
            raise TeacherUnavailable(f"{self.url} refuses the key", permanent=True)

    teacher = Replicas([Refusing(f"http://{name}.example") for name in "ab"])
    with pytest.raises(TeacherUnavailable, match="refuses the key") as told:
        await teacher.complete(ask(1), images(1))
    assert told.value.permanent and not told.value.in_flight


def test_a_build_over_two_servers_is_the_build_over_one(tmp_path, servers):
    sample = write_sat(tmp_path / "SAT_train.parquet", sat_rows(12))
    columns = "SELECT tree_id, node_id, thought, x, y FROM nodes ORDER BY tree_id, node_id"
    built = []
    for urls in (servers[0].url, f"{servers[1].url},{servers[2].url}"):
        warehouse = Warehouse(str(tmp_path / f"home{len(built)}"))
        import_questions(warehouse, "sat2", sample)
        settings = BuildSettings(
            task="sat2", teacher=urls, space="qwen3-vl", simulations=1, home=warehouse.root
        )
        asyncio.run(stages.build(settings))
        built.append(query(warehouse, columns).to_pylist())
    assert built[0] == built[1]
    assert servers[1].request_count() and servers[2].request_count()
    assert not trees_at(servers[1]) & trees_at(servers[2])


@pytest.mark.parametrize("swapped", [False, True])
async def test_where_no_server_answers_the_last_ones_reason_is_told(swapped):
    with StubServer(model="one") as first, StubServer(model="two") as second:
        urls = [first.url, second.url]
        teachers = [
            OpenAITeacher(url, "none", backoff_s=0.0) for url in urls[:: -1 if swapped else 1]
        ]
        replicas_ = Replicas(teachers)
        with pytest.raises(TeacherUnavailable) as caught:
            await replicas_.open()
        await replicas_.close()
    told, other = ("one", "two") if swapped else ("two", "one")
    assert f"serves {told}, not none" in str(caught.value)
    assert f"serves {other}" not in str(caught.value)
