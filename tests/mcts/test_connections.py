"""Connections: the environment's proxies and certificates, and what can go wrong on the way."""

import asyncio
import functools
import gc
import re
import socket
import ssl
import threading
import time
from types import SimpleNamespace

import aiohttp
import certifi
import pytest
from yarl import URL

from mcts.teachers import connections as module
from mcts.teachers.connections import ConnectionLost, Connections, NotConnected, proxy_for

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("listed", "url"),
    [
        ("*", "http://gpu"),
        ("gpu.example", "http://gpu.example:8000"),
        ("example", "http://gpu.example"),
        (".example", "http://gpu.example"),
        ("*.example", "https://gpu.example"),
        ("other , GPU.Example.", "http://gpu.example"),
        ("other gpu.example", "http://gpu.example"),
        ("gpu.example:8000", "http://gpu.example:8000"),
        ("http://gpu.example/", "http://gpu.example"),
        ("10.0.0.0/8", "http://10.1.2.3:8000"),
        ("10.1.2.3:8000", "http://10.1.2.3:8000"),
        ("fd00::/8", "http://[fd00::1]:8000"),
        ("[fd00::1]:8000", "http://[fd00::1]:8000"),
        ("", "http://localhost:8000"),
        ("", "http://127.0.0.2:8000"),
        ("", "http://0.0.0.0:8000"),
        ("", "http://[::1]:8000"),
        ("", "http://[::ffff:127.0.0.1]:8000"),
    ],
)
def test_a_server_that_needs_no_proxy_is_reached_without_one(listed, url):
    assert proxy_for(URL(url), {"ALL_PROXY": PROXY, "NO_PROXY": listed}) is None


@pytest.mark.parametrize(
    ("listed", "url"),
    [
        ("", "http://gpu.example"),
        ("gpu.example:81", "http://gpu.example:80"),
        ("pu.example", "http://gpu.example"),
        ("10.0.0.0/8", "http://11.1.2.3"),
        ("10.0.0.0/8", "http://gpu.example"),
        (", ,", "http://gpu.example"),
    ],
)
def test_another_server_is_reached_through_the_proxy(listed, url):
    assert proxy_for(URL(url), {"HTTP_PROXY": PROXY, "no_proxy": listed}) == URL(PROXY)


def test_the_proxy_is_that_of_the_scheme_and_names_count_in_either_case():
    environ = {"https_proxy": "socks5h://s", "ALL_PROXY": "bare:99", "HTTP_PROXY": ""}
    assert str(proxy_for(URL("https://gpu"), environ)) == "socks5h://s:1080"
    assert str(proxy_for(URL("http://gpu"), environ)) == "http://bare:99"
    with pytest.raises(NotConnected, match="ALL_PROXY holds no address of a proxy"):
        proxy_for(URL("http://gpu"), {"ALL_PROXY": "gopher://x"})


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h", "socks4"])
@pytest.mark.parametrize("url", ["http://gpu.example:8000", "https://gpu.example"])
async def test_a_proxy_that_is_down_is_named_and_not_the_server(scheme, url, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://user:secret@127.0.0.1:9")
    connections = Connections(url, connect_s=5)
    with pytest.raises(NotConnected, match=r"proxy 127\.0\.0\.1:9 .* NO_PROXY") as failure:
        await connections.request("GET", "/v1/models")
    assert "secret" not in str(failure.value)
    await connections.close()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
async def test_certificates_that_are_not_there_are_named(variable, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, str(tmp_path / "none.pem"))
    with pytest.raises(NotConnected, match=f"{variable} names .*none.pem") as failure:
        Connections("https://gpu.example")
    assert failure.value.permanent
    Connections("http://gpu.example")  # it needs none


@pytest.mark.parametrize(
    "url", ["ftp://gpu", "gpu:8000", "http://", "http://a:port", "http://[::1"]
)
async def test_what_is_no_address_is_said(url):
    with pytest.raises(NotConnected, match="is not a valid URL"):
        Connections(url)


@pytest.mark.parametrize(
    ("error", "kind", "sentence", "permanent"),
    [
        (aiohttp.ConnectionTimeoutError("late"), NotConnected, "no connection within 3 s", False),
        (aiohttp.InvalidURL("http://x y"), NotConnected, "is no valid URL", True),
        (aiohttp.ServerDisconnectedError(), ConnectionLost, "was closed without an answer", None),
        (aiohttp.ClientPayloadError("cut"), ConnectionLost, "the answer is broken: .*cut", None),
        (EOFError(), ConnectionLost, "the connection was lost: EOFError", None),
        (OSError("reset"), ConnectionLost, "the connection was lost: reset", None),
    ],
)
async def test_what_failed_on_the_way_is_told_and_whether_it_was_sent(
    error, kind, sentence, permanent
):
    connections = Connections("http://gpu.example", connect_s=3.0)
    failure = connections._failure(error)
    assert type(failure) is kind and re.search(sentence, str(failure))
    assert getattr(failure, "permanent", None) is permanent
    ours = KeyError("a defect")
    assert connections._failure(ours) is ours, "it is not the connection's"
    await connections.close()


@pytest.mark.parametrize(
    ("status", "sentence", "permanent"),
    [
        (407, "wants a user and a password .HTTP 407, why.: give it in the variable", True),
        (403, "does not connect .HTTP 403, why.$", True),
        (401, "does not connect .HTTP 401, why.$", True),
        (502, "does not connect .HTTP 502, why.$", False),
    ],
)
async def test_a_proxy_that_refuses_is_named_with_its_status(
    status, sentence, permanent, monkeypatch
):
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    connections = Connections("http://gpu.example")
    assert connections.via == " through the proxy proxy:3128"
    error = aiohttp.ClientHttpProxyError(None, (), status=status, message="why")
    failure = connections._failure(error)
    assert isinstance(failure, NotConnected) and failure.permanent is permanent
    assert re.search(f"^the proxy proxy:3128 {sentence}", str(failure))
    await connections.close()


def test_without_a_variable_the_usual_certificates_are_trusted(monkeypatch, tmp_path):
    """Also where the system has none."""
    bare = functools.partial(ssl.SSLContext, ssl.PROTOCOL_TLS_CLIENT)
    monkeypatch.setattr(ssl, "create_default_context", bare)

    def trusted(**environ):
        return module._certificates(environ).cert_store_stats()["x509_ca"]

    assert trusted() == trusted(SSL_CERT_FILE=certifi.where()) > 50
    assert trusted(SSL_CERT_DIR=str(tmp_path)) == 0


def test_a_body_in_pieces_is_read_as_one_text():
    body = module._Pieces([b'{"a": ', "\u00e9}".encode()])
    assert body.decode() == '{"a": \u00e9}' and body.size == 9
    with pytest.raises(UnicodeDecodeError):
        body.decode("ascii")
    assert body.decode("ascii", "ignore") == '{"a": }'


def test_a_connection_without_a_socket_is_only_used_if_there_is_one():
    assert module._has_input(None)
    assert not module._has_input(SimpleNamespace(get_extra_info=lambda name: None))


class Raw:
    """A server that answers every connection with the same bytes."""

    def __init__(self, answer: bytes, *, wrap=None, hold_s: float = 0.0) -> None:
        self.answer, self.hold_s, self.wrap = answer, hold_s, wrap
        self.received: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                self.received.append(connection.recv(2**20))
                connection.sendall(self.answer)
                time.sleep(self.hold_s)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


async def fetch(answer: bytes, **how):
    with Raw(answer, **how) as server:
        connections = Connections(server.url)
        try:
            return await connections.request("POST", "/v1/x", [b'{"a":', b"1}"])
        finally:
            await connections.close()


def http(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_an_answer_is_read_whole_and_a_query_stays_behind_the_path():
    with Raw(http(b"{}", "x-a: b")) as server:
        connections = Connections(f"{server.url}/base?api-version=2")
        response = await connections.request("POST", "/v1/x", [b'{"a":', b"1}"])
        await connections.close()
    assert (response.status, response.body, response.headers["X-A"]) == (200, b"{}", "b")
    assert server.received[0].startswith(b"POST /base/v1/x?api-version=2 HTTP/1.1")
    assert server.received[0].endswith(b'{"a":1}') or b"content-length: 7" in (
        server.received[0].lower()
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\ncut",
        b"HTTP/1.1 200 OK\r\ncontent-length: minus\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10**6 + b"\r\n\r\n",
        http(b"no gzip", "content-encoding: gzip"),
        http(b"no brotli", "content-encoding: br"),
        http(b"no deflate", "content-encoding: deflate"),
    ],
    ids=range(9),
)
async def test_broken_bytes_are_a_connection_that_was_lost(answer):
    with pytest.raises(ConnectionLost):
        await fetch(answer)


async def test_an_answer_that_unpacks_to_too_much_is_not_held(monkeypatch):
    import gzip

    monkeypatch.setattr(module, "MAX_BODY_BYTES", 2**20)
    bomb = gzip.compress(bytes(64 * 2**20))
    with pytest.raises(ConnectionLost, match="larger than 1 MiB"):
        await fetch(http(bomb, "content-encoding: gzip"))


async def test_an_untrusted_certificate_is_permanent_and_names_the_variable():
    import trustme

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def serve(reader, writer):
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    connections = Connections(f"https://localhost:{port}")
    with pytest.raises(NotConnected, match="SSL_CERT_FILE") as failure:
        await connections.request("GET", "/")
    assert failure.value.permanent
    await connections.close()
    server.close()


async def test_an_answer_that_comes_unasked_is_not_the_next_request_s():
    """A server that answers twice would shift every later answer of its connection by one."""
    answers = 0

    async def serve(reader, writer):
        nonlocal answers
        while await reader.readuntil(b"\r\n\r\n"):
            answers += 1
            writer.write(http(b"%d" % answers))
            await asyncio.sleep(0.02)
            writer.write(http(b"unasked"))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    connections = Connections(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    for number in (b"1", b"2", b"3"):
        assert (await connections.request("GET", "/x")).body == number
        await asyncio.sleep(0.05)
    await connections.close()
    server.close()


async def test_a_kept_connection_that_the_server_has_closed_is_not_used_again():
    with Raw(http(b"{}")) as server:  # closes behind every answer
        connections = Connections(server.url)
        for _ in range(5):
            await connections.request("POST", "/x", [b"{}"])
            time.sleep(0.05)  # the event loop sees nothing of it
        await connections.close()
    assert len(server.received) == 5


def test_connections_of_an_event_loop_that_ended_are_dropped_in_silence(capfd, caplog):
    with Raw(http(b"{}"), hold_s=1) as server:
        for _ in range(2):
            connections = Connections.__new__(Connections)

            async def ask(connections=connections):
                connections.__init__(server.url)
                return await connections.request("GET", "/x")

            assert asyncio.run(ask()).body == b"{}"
        del connections, ask
        gc.collect()
    assert capfd.readouterr().err == "" and caplog.text == ""
