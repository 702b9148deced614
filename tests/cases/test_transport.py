"""The way to a server: proxies, certificates, kept connections; each failure names what failed."""

import asyncio
import json
import os

import pytest

from mcts.teachers import openai_client
from mcts.teachers.base import Message, Request, TeacherError, TeacherUnavailable, TextPart
from mcts.teachers.openai_client import OpenAITeacher
from tests.support.project import AnswerServer, reply, thinking
from tests.support.raw_server import Serve, listening

ASK = Request((Message("user", (TextPart("Where?"),)),), 1, 1.0, 1.0, 64, ("</think>",), 7)
GOOD = reply({"stop": ["</think>"]}, "<think>At (4, 5).</think>")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies_of_the_environment(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def relay(reader, writer, port: int) -> None:
    """Carry bytes between a client and a local port until both have ended."""
    inside, outside = await asyncio.open_connection("127.0.0.1", port)

    async def copy(source, target):
        while data := await source.read(2**16):
            target.write(data)
            await target.drain()
        target.close()

    await asyncio.gather(copy(reader, outside), copy(inside, writer))


def socks5(port: int, asked: list[bytes]) -> Serve:
    """A SOCKS5 proxy that leads everything to a local port."""

    async def serve(reader, writer):
        await reader.read(300)
        writer.write(b"\x05\x00")
        asked.append(await reader.read(300))
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await relay(reader, writer, port)

    return serve


def http_proxy(answer: bytes) -> Serve:
    """A proxy that says the same to everybody."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return serve


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def ask(url: str, **options):
    """What a teacher makes of the server; failures are returned."""
    teacher = OpenAITeacher(url, retries=0, timeout_s=5, **options)
    try:
        return (await teacher.complete(ASK, {})).completions[0].text
    except (TeacherError, TeacherUnavailable) as failure:
        return failure
    finally:
        await teacher.close()


@pytest.mark.parametrize(
    ("variable", "scheme", "host", "kind"),
    [
        ("ALL_PROXY", "socks5", "gpu.example", b"\x03\x0bgpu.example"),
        ("all_proxy", "socks5h", "gpu.example", b"\x03\x0bgpu.example"),
        ("HTTP_PROXY", "socks5h", "10.1.2.3", b"\x01\x0a\x01\x02\x03"),
    ],
)
async def test_s41_a_served_teacher_is_reached_through_socks(
    variable, scheme, host, kind, monkeypatch
):
    asked: list[bytes] = []
    with (
        AnswerServer(lambda body, nth: GOOD) as server,
        listening(socks5(port_of(server.url), asked)) as port,
    ):
        monkeypatch.setenv(variable, f"{scheme}://127.0.0.1:{port}")
        answered = await ask(f"http://{host}:{port_of(server.url)}")
    assert answered == "<think>At (4, 5).</think>"
    assert asked[0][3:].startswith(kind)


def test_s41_a_server_on_this_machine_needs_no_proxy(project):
    project.add([{}])
    with AnswerServer(thinking("<think>The cup is at {p}.</think>"), host="127.0.0.2") as server:
        ran = project.run(
            "build", "mine", "--teacher", server.url, "--space", "qwen3-vl", "--simulations", 1,
            ALL_PROXY="socks5://127.0.0.1:9",
        )  # fmt: skip
    assert ran.status == 0, ran.text
    assert project.sql("SELECT count(*) AS n FROM traces")[0]["n"] > 0


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_s45_a_proxy_that_is_down_is_named(project, scheme, monkeypatch):
    monkeypatch.setattr(openai_client.random, "uniform", lambda *_: 0.0)  # no time between attempts
    project.add([{}])
    ran = project.run(
        "build", "mine", "--teacher", "http://gpu.example:8000", "--space", "qwen3-vl",
        HTTP_PROXY=f"{scheme}://me:s3cret@127.0.0.1:9",
    )  # fmt: skip
    assert ran.status != 0 and "Traceback" not in ran.text
    assert "the proxy 127.0.0.1:9" in ran.text and "NO_PROXY" in ran.text
    assert "start it" not in ran.text and "s3cret" not in ran.text


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("answer", "said", "permanent"),
    [
        (b"HTTP/1.1 407 Authenticate\r\ncontent-length: 0\r\n\r\n", "wants a", True),
        (b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno", "", True),
        (b"HTTP/1.1 502 Gone\r\ncontent-length: 0\r\n\r\n", "HTTP 502", False),
        (b"\x00\x01 no http\r\n\r\n", "broken", False),
        (b"", "closed without an answer", False),
    ],
    ids=["407", "403", "502", "garbage", "closed"],
)
async def test_s45_a_proxy_that_refuses_is_named(scheme, answer, said, permanent, monkeypatch):
    with listening(http_proxy(answer)) as port:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{port}")
        failure = await ask(f"{scheme}://gpu.example:8443")
    assert isinstance(failure, TeacherUnavailable)
    sentence = str(failure)
    assert f"127.0.0.1:{port}" in sentence and "proxy" in sentence and said in sentence
    assert "API key" not in sentence and failure.permanent is permanent


async def test_s45_a_proxy_whose_name_is_unknown_is_named(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://nowhere.invalid:3128")
    failure = await ask("http://gpu.example:8000")
    assert "the proxy nowhere.invalid:3128 of the environment" in str(failure)


async def test_s45_the_unspecified_address_is_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with AnswerServer(lambda body, nth: GOOD) as server:
        assert await ask(server.url.replace("127.0.0.1", "0.0.0.0")) == "<think>At (4, 5).</think>"


async def test_s45_short_forms_of_a_loopback_address_are_this_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with AnswerServer(lambda body, nth: GOOD) as server:
        assert await ask(server.url.replace("127.0.0.1", "127.1")) == "<think>At (4, 5).</think>"


async def test_a_server_that_lists_no_models_is_not_waited_for_in_silence(monkeypatch):
    monkeypatch.setattr(openai_client, "SILENT_S", 0.1)
    told: list[str] = []
    silent = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    teacher = OpenAITeacher(url, timeout_s=0.3, retries=0, report=told.append)
    with pytest.raises(TeacherUnavailable, match="no answer within"):
        await teacher.open()
    await teacher.close()
    silent.close()
    assert told == [f"{url}: it has not listed its models for 0.1 s, and is waited for."]


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_certificates_that_are_not_there_are_named_by_their_variable(project, variable):
    project.add([{}])
    ran = project.run(
        "build", "mine", "--teacher", "https://127.0.0.1:9", "--space", "qwen3-vl",
        **{variable: str(project.folder / "none.pem")},
    )  # fmt: skip
    assert ran.status != 0 and "Traceback" not in ran.text
    assert variable in ran.text and "none.pem" in ran.text


async def test_a_server_that_closes_kept_connections_loses_and_doubles_nothing():
    """It answers once a connection and closes it without a word, as proxies do after a while."""
    served: list[str] = []

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-len")]
        body: object = {"data": [{"id": "m"}]}
        if length:
            asked = json.loads(await reader.readexactly(int(length[0].split(b":")[1])))
            served.append(asked["messages"][0]["content"])
            body = GOOD
        data = json.dumps(body).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
        await writer.drain()

    with listening(serve) as port:
        teacher = OpenAITeacher(f"http://127.0.0.1:{port}", backoff_s=0.001)
        for i in range(20):
            turn = Message("user", (TextPart(f"number {i}"),))
            await teacher.complete(Request((turn,), 1, 1.0, 1.0, 64, ("</think>",), 7), {})
        await teacher.close()
    assert served == [f"number {i}" for i in range(20)]


def test_proxies_are_read_when_a_server_is_opened_not_when_a_module_is_loaded(monkeypatch):
    from yarl import URL

    from mcts.teachers.connections import proxy_for

    monkeypatch.setitem(os.environ, "HTTP_PROXY", "http://proxy:3128")
    assert proxy_for(URL("http://gpu.example")) == URL("http://proxy:3128")
    monkeypatch.delitem(os.environ, "HTTP_PROXY")
    assert proxy_for(URL("http://gpu.example")) is None
