"""Broken and hostile answers of a server: each is its own request's failure, told in a sentence."""

import asyncio
import gzip
import json
import random
import time

import pytest

from mcts.teachers import connections, openai_client
from mcts.teachers.base import Message, Request, TeacherError, TeacherUnavailable, TextPart
from mcts.teachers.openai_client import OpenAITeacher
from mcts.teachers.responses import RetryableError, read_models
from tests.support.project import AnswerServer, reply, thinking
from tests.support.raw_server import listening

ASK = Request((Message("user", (TextPart("Where?"),)),), 1, 1.0, 1.0, 64, ("</think>",), 7)
GOOD = reply({"stop": ["</think>"]}, "<think>At (4, 5).</think>")
DEEP = b"[" * 100_000


async def complete(answer, **options):
    """What a teacher makes of the answer; failures are returned."""
    with AnswerServer(answer if callable(answer) else lambda body, nth: answer) as server:
        teacher = OpenAITeacher(server.url, retries=1, backoff_s=0.001, timeout_s=5, **options)
        try:
            return await teacher.complete(ASK, {})
        except (TeacherError, TeacherUnavailable) as failure:
            return failure
        finally:
            await teacher.close()


def data(**changes) -> dict:
    return {**GOOD, **changes}


def choice(**changes) -> dict:
    return data(choices=[{**GOOD["choices"][0], **changes}])


HOSTILE = {
    "n1_gzip_of_nothing": (200, b"{}", {"content-encoding": "gzip"}),
    "n1_brotli_of_nothing": (200, b"{}", {"content-encoding": "br"}),
    "n1_gzip_a_hundred_times": (200, b"{}", {"content-encoding": ", ".join(["gzip"] * 100)}),
    "n1_an_encoding_of_nobody": (200, b"\x00\x01", {"content-encoding": "rot13"}),
    "n2_deep_json": (200, DEEP),
    "n2_deep_json_in_an_error": (400, DEEP),
    "n2_deep_json_in_a_failure": (500, DEEP),
    "n2_deep_object": (400, b'{"error":' * 50_000),
    "n3_half_a_pair_in_an_error": (400, b'{"error": {"message": "no \\ud800 such"}}'),
    "n3_half_a_pair_in_a_plain_body": (500, b'"\\udfff"'),
    "n5_bomb": (200, gzip.compress(bytes(80 * 2**20)), {"content-encoding": "gzip"}),
    "a_login_page": (200, b"<!DOCTYPE html><title>Log in</title>", {"content-type": "text/html"}),
    "a_stream": (200, b'data: {"choices": []}\n\n', {"content-type": "text/event-stream"}),
    "moved": (308, b"", {"location": "https://other/v1"}),
    "no_content": (204, b""),
    "a_list": (200, []),
    "a_number": (200, b"3"),
    "null": (200, b"null"),
    "nan": (200, b"NaN"),
    "choices_are_no_list": data(choices={"0": 1}),
    "choices_are_null": data(choices=None),
    "a_choice_is_text": data(choices=["text"]),
    "no_message": choice(message=None),
    "content_is_a_number": choice(message={"content": 3}),
    "content_is_an_object": choice(message={"content": {"text": "x"}}),
    "an_error_is_a_list": (400, {"error": ["no", {"such": "thing"}]}),
    "an_error_is_null": (400, {"error": None}),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_answer_is_its_requests_failure(name):
    failure = await complete(HOSTILE[name])
    assert isinstance(failure, TeacherError), failure
    sentence = str(failure)
    sentence.encode()  # it can be stored and printed
    assert len(sentence) < 700 and "Traceback" not in sentence and " at 0x" not in sentence


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a_login_page", "web page, 'Log in'"),
        ("a_stream", "stream of events"),
        ("moved", "https://other/v1"),
        ("n5_bomb", "larger than 64 MiB"),
        ("n3_half_a_pair_in_an_error", "such"),
        ("n2_deep_json", "not JSON"),
    ],
)
async def test_the_failure_says_what_it_was(name, said):
    assert said in str(await complete(HOSTILE[name]))


@pytest.mark.parametrize("charset", ["rot13", "hex", "utf-16", "no such thing", ""])
async def test_n4_json_is_utf_8_whatever_the_header_says(charset):
    body = json.dumps(GOOD, ensure_ascii=False).replace("At", "В точке").encode("utf-8-sig")
    headers = {"content-type": f"application/json; charset={charset}"}
    answered = await complete((200, body, headers))
    assert answered.completions[0].text == "<think>В точке (4, 5).</think>"


async def test_n3_half_a_pair_in_a_completion_is_replaced_and_a_whole_one_kept():
    body = json.dumps(GOOD).replace("At", "\\\\ud83d\\\\ude00 \\\\ud800 at").replace("\\\\", "\\")
    answered = await complete((200, body.encode()))
    assert answered.completions[0].text == "<think>😀 � at (4, 5).</think>"


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": "many", "completion_tokens": -4},
        {"prompt_tokens": 1e300, "completion_tokens": True},
        {"prompt_tokens": 9, "completion_tokens": 0},
    ],
)
async def test_s31_tokens_that_a_server_does_not_count_are_counted_here(usage):
    answered = await complete(data(usage=usage))
    assert 3 <= answered.completion_tokens <= 12
    assert 1 <= answered.prompt_tokens <= 12
    assert answered.completions[0].tokens == answered.completion_tokens


async def test_indices_that_are_missing_or_doubled_lose_no_choice():
    many = Request(ASK.messages, 3, 1.0, 1.0, 64, ASK.stop, 7)
    choices = reply({"stop": ["</think>"]}, *(f"<think>{i}</think>" for i in "abc"))["choices"]
    for kept in ({}, {"index": 0}, {"index": None}, {"index": "1"}):
        answer = data(
            choices=[{**{k: v for k, v in c.items() if k != "index"}, **kept} for c in choices]
        )
        with AnswerServer(lambda body, nth, answer=answer: answer) as server:
            teacher = OpenAITeacher(server.url)
            got = await teacher.complete(many, {})
            await teacher.close()
        assert [c.text[7] for c in got.completions] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "asked", ["1e9", "inf", "nan", "-5", "soon", "Wed, 21 Oct 2099 07:28:00 GMT"]
)
async def test_n6_a_wait_has_an_end_and_is_reported(asked, monkeypatch):
    monkeypatch.setattr(openai_client, "MAX_WAIT_S", 0.05)
    monkeypatch.setattr(openai_client, "REPORTED_WAIT_S", 0.05)
    told: list[str] = []
    start = time.monotonic()
    failure = await complete((500, {"error": "busy"}, {"retry-after": asked}), report=told.append)
    assert isinstance(failure, TeacherError) and time.monotonic() - start < 3
    long = asked not in ("nan", "-5", "soon")
    assert bool(told) is long, told


def mutated(rng: random.Random, nth: int) -> tuple:
    """A good answer with a few bytes, headers or its status changed."""
    body = bytearray(json.dumps(GOOD).encode())
    for _ in range(rng.choice([0, 1, 3, 30])):
        at = rng.randrange(len(body))
        body[at : at + rng.choice([0, 1, 5])] = rng.randbytes(rng.choice([0, 1, 5]))
    body = bytes(body[: rng.choice([len(body), rng.randrange(len(body))])])
    status = rng.choice([200] * 6 + [201, 204, 206, 302, 400, 404, 418, 429, 500, 503])
    headers = dict(
        rng.sample(
            [
                (
                    "content-type",
                    rng.choice(["text/html", "application/json; charset=x", "", "a/b"]),
                ),
                ("content-encoding", rng.choice(["gzip", "br", "deflate", "zstd", "identity", ""])),
                ("retry-after", rng.choice(["0", "-1", "inf", "x" * 50])),
                ("location", "http://[bad"),
                ("x-" + "y" * rng.choice([1, 9000]), "z"),
            ],
            rng.choice([0, 0, 1, 2]),
        )
    )
    return status, body, headers


async def fuzz(seed: int, answers: int) -> None:
    rng = random.Random(seed)
    with AnswerServer(lambda body, nth: mutated(rng, nth)) as server:
        teacher = OpenAITeacher(
            server.url, retries=1, backoff_s=0.0001, timeout_s=3, can={"continue": True}
        )
        for _ in range(answers):
            try:
                answered = await teacher.complete(ASK, {})
            except (TeacherError, TeacherUnavailable) as failure:
                str(failure).encode()
            else:
                for completion in answered.completions:
                    completion.text.encode()
        await teacher.close()


async def test_mutated_answers_are_answers_or_failures(monkeypatch):
    monkeypatch.setattr(openai_client, "MAX_WAIT_S", 0.001)
    await fuzz(1, 150)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
async def test_many_mutated_answers_are_answers_or_failures(seed, monkeypatch):
    monkeypatch.setattr(openai_client, "MAX_WAIT_S", 0.001)
    await fuzz(seed, 1000)


def test_n1_n6_one_hostile_answer_does_not_end_a_build(project, monkeypatch):
    monkeypatch.setattr(connections, "MAX_BODY_BYTES", 2**20)
    kinds = list(HOSTILE.values())
    good = thinking("<think>The cup is at {p}.</think>")

    def answer(body, nth):
        asked = json.dumps(body["messages"])
        for i, hostile in enumerate(kinds):
            if f"number {i}?" in asked:
                return hostile
        return good(body, nth)

    added = project.add([{"q": f"Is it number {i}?"} for i in range(len(kinds) + 4)])
    assert added.status == 0, added.text
    monkeypatch.setattr(openai_client.random, "uniform", lambda *_: 0.0)  # no time between attempts
    ran, _ = project.build(answer)
    assert "Traceback" not in ran.text and ran.status == 0, ran.text
    trees = project.sql("SELECT status, count(*) AS n FROM trees GROUP BY 1 ORDER BY 1")
    assert {row["status"]: row["n"] for row in trees}["failed"] == len(kinds), trees
    assert sum(row["n"] for row in trees) == len(kinds) + 4


async def test_n6_only_waits_that_the_server_asks_for_are_reported_and_not_each(monkeypatch):
    monkeypatch.setattr(openai_client, "MAX_WAIT_S", 0.01)
    told: list[str] = []
    with AnswerServer(lambda body, nth: (500, {}, {"retry-after": str(nth * 100)})) as server:
        teacher = OpenAITeacher(server.url, retries=4, report=told.append)
        for _ in range(3):
            with pytest.raises(TeacherError):
                await teacher.complete(ASK, {})
        await teacher.close()
    assert told == [f"{server.url}: it asks to wait; the next attempt is in 0 s."]
    told.clear()
    monkeypatch.setattr(openai_client, "REPORTED_WAIT_S", 0.001)
    assert isinstance(await complete((500, {}), report=told.append), TeacherError)
    assert told == []


def mutated_bytes(rng: random.Random) -> bytes:
    """A good answer as it goes over the wire, changed anywhere: head, chunks, compressed bytes."""
    body = json.dumps(GOOD).encode()
    head = [b"HTTP/1.1 200 OK", b"content-type: application/json", b"x-request-id: 1"]
    form = rng.randrange(4)
    if form == 0:
        cuts = sorted(rng.randrange(len(body)) for _ in range(rng.randrange(4)))
        parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a < b]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        head.append(b"transfer-encoding: chunked")
    else:
        body = gzip.compress(body) if form == 1 else body
        head += [b"content-encoding: gzip"] * (form == 1)
        head.append(b"content-length: %d" % len(body))
    raw = bytearray(b"\r\n".join(head) + b"\r\n\r\n" + body)
    for _ in range(rng.choice([0, 1, 1, 2, 5, 40])):
        at = rng.randrange(len(raw))
        new = rng.choice(
            [b"", b"\r\n", b"\0", b"\xff", b":", b"9", rng.randbytes(3), bytes(raw[:at])]
        )
        raw[at : at + rng.randrange(4)] = new
    return bytes(raw[: rng.choice([len(raw), len(raw), rng.randrange(len(raw) + 1)])])


async def fuzz_bytes(seed: int, answers: int) -> int:
    """Ask a server that answers with mutated bytes; return how many it answered."""
    rng, good = random.Random(seed), 0
    told: list[str] = []
    models = b'{"data": [{"id": "m"}]}'

    async def serve(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"GET"):
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(models) + models
                )
            else:
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                writer.write(mutated_bytes(rng))
                if rng.random() < 0.5:
                    return
            await writer.drain()

    with listening(serve) as port:
        teacher = OpenAITeacher(
            f"http://127.0.0.1:{port}", retries=0, timeout_s=0.3, can={"continue": True}
        )
        await teacher.open()
        for _ in range(answers):
            try:
                async with asyncio.timeout(30):
                    answered = await teacher.complete(ASK, {})
            except (TeacherError, TeacherUnavailable) as failure:
                told.append(str(failure))
            else:
                good += 1
                assert len(answered.completions) == 1
                answered.completions[0].text.encode()
        await teacher.close()
    assert all(sentence.isprintable() and len(sentence) < 800 for sentence in told)
    return good


async def test_mutated_bytes_are_answers_or_failures_and_never_hang():
    assert await fuzz_bytes(2, 60) > 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
async def test_many_mutated_bytes_are_answers_or_failures(seed):
    assert await fuzz_bytes(seed, 1000) > 30


@pytest.mark.parametrize("name", [None, "", " ", 3, {"a": 1}, "a\x1b[31m", "a\nb", "x" * 5000])
def test_what_can_be_no_name_of_a_model_is_none(name):
    with pytest.raises(RetryableError, match="not a list of models") as told:
        read_models({"data": [{"id": "m"}, {"id": name}]})
    assert str(told.value).isprintable()
