"""A server that goes away: requests wait for it, and only one that crashes it fails."""

import asyncio
from contextlib import suppress

import pytest

from mcts.journal.journal import Journal, JournaledTeacher
from mcts.journal.records import Key
from mcts.teachers.base import (
    Ledger,
    Message,
    Reply,
    Request,
    TeacherError,
    TeacherUnavailable,
    TextPart,
)
from mcts.teachers.openai_client import OpenAITeacher
from mcts.teachers.reconnect import STRIKES, ReconnectingTeacher
from tests.support.project import AnswerServer, reply
from tests.support.stub_server import StubServer


def ask(text="Which? Choices: a or b.", seed=1):
    return Request((Message("user", (TextPart(text),)),), 1, 1.0, 1.0, 200, ("</think>",), seed)


def reconnecting(url, log, **options):
    quick = {"retries": 1, "backoff_s": 0.01, "timeout_s": 2.0} | options
    return ReconnectingTeacher(OpenAITeacher(url, **quick), retry_s=0.02, report=log.append)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_requests_wait_for_a_server_that_is_away_and_get_the_same_answer():
    log = []
    with StubServer() as server:
        port = int(server.url.rpartition(":")[2])
        teacher = reconnecting(server.url, log)
        first = await teacher.complete(ask(), {})
    waiting = asyncio.gather(*(teacher.complete(ask(seed=s), {}) for s in (1, 2, 3)))
    await until(lambda: log)
    assert "No model server answers" in log[0] and "Waiting until it is back" in log[0]
    await asyncio.sleep(0.1)
    assert not waiting.done() and len(log) == 1, "one message, however long and for however many"
    with StubServer(port=port) as server:
        replies = await asyncio.wait_for(waiting, 5)
        assert server.request_count() == 3
    await teacher.close()
    assert replies[0].completions == first.completions
    assert log[1:] == ["The model server answers again: the run goes on."]


async def test_a_server_that_was_never_reachable_fails_at_once():
    with StubServer() as server:
        url = server.url
    with pytest.raises(TeacherUnavailable, match="start it"):
        await reconnecting(url, []).open()


async def test_a_server_that_comes_back_with_another_model_gets_no_request():
    log = []
    with StubServer(model="right") as server:
        port = int(server.url.rpartition(":")[2])
        teacher = reconnecting(server.url, log)
        await teacher.complete(ask(), {})
    waiting = asyncio.create_task(teacher.complete(ask(seed=2), {}))
    await until(lambda: log)
    with StubServer(port=port, model="wrong") as wrong:
        await until(lambda: "serves wrong, not right" in log[-1])
        assert not wrong.request_count()
    with StubServer(port=port, model="right"):
        await asyncio.wait_for(waiting, 5)
    await teacher.close()


@pytest.mark.parametrize("status", ["429", "503"])
async def test_an_overloaded_server_is_waited_for_and_no_question_fails(status):
    log = []
    with StubServer(faults=["ok"] + [status] * 7) as server:
        teacher = reconnecting(server.url, log)
        await teacher.complete(ask(), {})
        assert (await teacher.complete(ask(seed=2), {})).completions
        await teacher.close()
    assert "has no capacity" in log[0] and "goes on" in log[-1]


async def test_a_gateway_before_a_server_that_is_away_is_no_crash_of_it():
    away, asked, looked = False, 0, 0

    def models():
        nonlocal looked
        looked += away
        return (502, {}) if away else None

    def answer(body, nth):
        nonlocal asked
        asked += 1
        return (502, {"error": {"message": "Bad Gateway"}}) if away else reply(body, "a b")

    with AnswerServer(answer) as server:
        server.models = models
        log = []
        teacher = reconnecting(server.url, log)
        await teacher.complete(ask(), {})
        away, before = True, asked
        waiting = asyncio.create_task(teacher.complete(ask(seed=2), {}))
        await until(lambda: log and looked > 3 * STRIKES)
        assert not waiting.done()
        assert asked == before + 2, (
            "an attempt and its retry; then it is asked for its models alone"
        )
        away = False
        assert (await asyncio.wait_for(waiting, 5)).completions
        await teacher.close()


async def test_a_key_that_an_outage_shows_again_is_masked():
    refused = (401, {"error": {"message": "Incorrect API key provided: sk-hidden-1234"}})
    failing = False

    def answer(body, nth):
        return (500, {"error": {"message": "down"}}) if failing else reply(body, "a b")

    with AnswerServer(answer) as server:
        server.models = lambda: refused if failing else None
        teacher = reconnecting(server.url, [], api_key="sk-hidden-1234")
        await teacher.complete(ask(), {})
        failing = True
        with pytest.raises(TeacherUnavailable, match="refuses the API key") as told:
            await teacher.complete(ask(seed=2), {})
        assert "sk-hidden-1234" not in str(told.value) and "***" in str(told.value)
        await teacher.close()


async def test_a_key_that_is_refused_later_ends_the_run():
    with StubServer(faults=["ok", "401"]) as server:
        teacher = reconnecting(server.url, [])
        await teacher.complete(ask(), {})
        with pytest.raises(TeacherUnavailable, match="refuses the API key"):
            await teacher.complete(ask(seed=2), {})
        await teacher.close()


class Fragile:
    """A server that every request about poison crashes, and that comes back."""

    identity = "m"

    def __init__(self):
        self.ledger = Ledger()
        self.texts = []
        self.dead = False
        self.lives = 0

    async def open(self):
        pass

    async def complete(self, request, images):
        text = request.messages[0].text
        if self.dead:
            self.dead = False  # the supervisor starts it again
            raise TeacherUnavailable("gone")
        self.texts.append(text)
        life = self.lives
        await asyncio.sleep(0.01)
        if text == "poison":
            self.dead, self.lives = True, self.lives + 1
        if life != self.lives:
            raise TeacherUnavailable("gone", in_flight=True)
        return Reply((), 1, None, 1, 0.01)

    async def close(self):
        pass


async def test_a_request_that_crashes_the_server_fails_and_its_siblings_do_not():
    server = Fragile()
    teacher = ReconnectingTeacher(server, retry_s=0.001)
    texts = ["a", "b", "poison", "c", "d"]
    waiting = [teacher.complete(ask(text), {}) for text in texts]
    results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    failed = [text for text, r in zip(texts, results, strict=True) if isinstance(r, Exception)]
    assert failed == ["poison"]
    assert isinstance(results[2], TeacherError) and results[2].kind == "server_error"
    assert server.texts.count("poison") == STRIKES + 1


@pytest.mark.parametrize("at", [0, 20])
async def test_of_many_suspects_more_are_asked_at_once_with_every_answer(at):
    class Counting(Fragile):
        """It notes how many requests it has at once since it was started again."""

        now = 0

        async def complete(self, request, images):
            later = self.lives > 0
            self.now += later
            if later:
                self.most.append(self.now)
            try:
                return await super().complete(request, images)
            finally:
                self.now -= later

    server = Counting()
    server.most = []
    teacher = ReconnectingTeacher(server, retry_s=0.001)
    texts = [f"{i}" for i in range(40)]
    texts[at] = "poison"
    waiting = [teacher.complete(ask(text), {}) for text in texts]
    results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    failed = [text for text, r in zip(texts, results, strict=True) if isinstance(r, Exception)]
    assert failed == ["poison"]
    assert server.texts.count("poison") == server.lives == STRIKES + 1
    assert max(server.most) >= 6, "they are not asked one by one"
    assert server.most[:2] == [1, 1], "the first is"
    innocent = [server.texts.count(text) for text in texts if text != "poison"]
    assert max(innocent) <= 3, "once before, once in a window, once alone"


async def test_the_time_of_a_failure_is_journaled_and_replayed(tmp_path):
    spans = []
    for _ in range(2):
        with StubServer(faults=["500"] * 3) as server, Journal(tmp_path) as journal:
            teacher = OpenAITeacher(server.url, retries=2, backoff_s=0.1)
            journaled = JournaledTeacher(teacher, journal)
            with suppress(TeacherError):
                await journaled.ask(Key("s", "0", "expand", 0), ask(), {})
            try:
                await journaled.ask(Key("s", "0", "expand", 0), ask(), {})
            except TeacherError as error:
                spans.append((error.started_at, error.seconds))
            await teacher.close()
    assert spans[0] == spans[1] and spans[0][1] >= 0.15 and spans[0][0] > 1e9
