"""HTTP connections to one model server, with the proxies and certificates of the environment.

    connections = Connections("https://gpu:8000", headers={"Authorization": "Bearer ..."})
    response = await connections.request("POST", "/v1/chat/completions", [b'{"model": ', b'"m"}'])
    response.status, response.body
    await connections.close()

A body is a list of pieces that are sent one after the other, so that a large image is encoded once
and never copied into each request. What can go wrong has two forms: `NotConnected`, the request
was never sent, and `ConnectionLost`, it may have been.

Proxies are those of `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` (http, https, socks4, socks5; names
in either case), except for the hosts in `NO_PROXY` and for this machine. Certificates are the
system's and certifi's, or those of `SSL_CERT_FILE`, `SSL_CERT_DIR` or `REQUESTS_CA_BUNDLE`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import select
import socket
import ssl
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

MAX_BODY_BYTES = 64 * 2**20
"""Most bytes of one answer, decompressed; a larger one is not read."""

IDLE_S = 4.0
"""An idle connection is kept this long: uvicorn, and vLLM with it, closes its own after 5 s."""

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


class NotConnected(Exception):
    """The server, or the proxy before it, was not reached: the request was never sent."""

    def __init__(self, sentence: str, *, permanent: bool = False) -> None:
        super().__init__(sentence)
        self.permanent = permanent
        """Whether another attempt can't help, as with a certificate that is not trusted."""


class ConnectionLost(Exception):
    """The connection ended, or the answer was no HTTP, after the request may have been sent."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer, read whole."""

    status: int
    headers: Mapping[str, str]
    """Names in any case find their values."""
    body: bytes
    """Decompressed."""
    proxy: str = ""
    """The proxy it came through, without credentials; empty if none."""


class _Pieces(aiohttp.payload.Payload):
    """A JSON body of several byte strings, sent without joining them."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__(pieces, content_type="application/json")
        self._size = sum(map(len, pieces))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for piece in self._value:
            await writer.write(piece)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        await self.write(writer)


class _OneAnswerEach:
    """For a connector: a connection on which something came unasked is not used again.

    Its next request would get the answer of the one before, and so would every later one. What
    came may also be the end, which the event loop did not see yet.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._used: weakref.WeakSet[Any] = weakref.WeakSet()

    async def connect(self, *arguments: Any, **named: Any) -> aiohttp.connector.Connection:
        """Return a connection that waits for a request, and for nothing else."""
        while True:
            connection = await super().connect(*arguments, **named)  # type: ignore[misc]
            protocol = connection.protocol
            if protocol not in self._used:
                self._used.add(protocol)
                return connection
            if not protocol.should_close and not _has_input(protocol.transport):
                return connection
            connection.close()


def _has_input(transport: asyncio.BaseTransport | None) -> bool:
    """Return whether there is something to read, be it the end."""
    socket = transport.get_extra_info("socket") if transport is not None else None
    if socket is None:
        return transport is None
    waiting = select.poll()
    waiting.register(socket.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


class _Connector(_OneAnswerEach, aiohttp.TCPConnector):
    pass


class Connections:
    """Keep-alive connections to the server at `url`, as many as there are requests at once.

    Args:
        headers: sent with every request.
        connect_s: seconds within which a connection must be made.

    Raises:
        NotConnected: `url` is no address, or a setting of the environment can't be used.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, connect_s: float = 10.0
    ) -> None:
        self._url = parse_url(url)
        self._proxy = proxy_for(self._url)
        self._through = f"{self._proxy.host}:{self._proxy.port}" if self._proxy else ""
        self.via = f" through the proxy {self._through}" if self._proxy else ""
        """For messages: which proxy is between, empty if none."""
        self._connect_s = connect_s
        tls = _certificates() if self._url.scheme == "https" else True
        socks = self._proxy is not None and self._proxy.scheme.startswith("socks")
        if socks:
            connector = _socks_connector(self._proxy, tls)
        else:
            connector = _Connector(limit=0, ssl=tls, keepalive_timeout=IDLE_S)
        self._http_proxy = None if socks else self._proxy
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=dict(headers or {}),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=2**16,
            max_field_size=2**16,
        )

    async def request(
        self, method: str, path: str, pieces: Sequence[bytes] | None = None
    ) -> HttpResponse:
        """Send a request and read its answer; redirects are not followed.

        Raises:
            NotConnected: it was never sent.
            ConnectionLost: it may have been sent, and there is no whole answer.
        """
        url = self._url.with_path(self._url.path.rstrip("/") + path, encoded=True)
        url = url.with_query(self._url.query)
        body = _Pieces(pieces) if pieces is not None else None
        try:
            async with self._session.request(
                method, url, data=body, allow_redirects=False, proxy=self._http_proxy
            ) as response:
                parts, size = [], 0
                async for part in response.content.iter_any():
                    size += len(part)
                    if size > MAX_BODY_BYTES:
                        response.close()
                        raise ConnectionLost(
                            f"the answer is larger than {MAX_BODY_BYTES >> 20} MiB"
                        )
                    parts.append(part)
                return HttpResponse(
                    response.status, response.headers, b"".join(parts), self._through
                )
        except (NotConnected, ConnectionLost):
            raise
        except Exception as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> Exception:
        """Return what an error of the library means; errors that are not its own as they are."""
        name, words = type(error).__name__, _words(error)
        if isinstance(error, aiohttp.ClientHttpProxyError):
            refuses = error.status in (401, 403, 407)
            hint = ": give it in the variable, http://user:password@host:port"
            return NotConnected(
                f"the proxy {self._through} "
                + ("wants a user and a password" if error.status == 407 else "does not connect")
                + f" (HTTP {error.status}{f', {words}' if words else ''})"
                + (hint if error.status == 407 else ""),
                permanent=refuses,
            )
        untrusted = (
            aiohttp.ClientConnectorCertificateError,
            aiohttp.ClientConnectorSSLError,
            ssl.SSLError,
        )
        at_the_proxy = isinstance(error, aiohttp.ClientConnectorError) and self._proxy is not None
        if name.startswith(("Proxy", "Socks")) or (
            at_the_proxy and not isinstance(error, untrusted)
        ):
            return NotConnected(
                f"the proxy {self._through} of the environment does not connect ({words}); "
                "name the server in NO_PROXY if it needs none"
            )
        if isinstance(error, untrusted):
            variable = next(filter(os.environ.get, _CERTIFICATES), "SSL_CERT_FILE")
            return NotConnected(
                f"no trusted connection to {self._url.host}: {words}; {variable} names the "
                "certificates to trust",
                permanent=True,
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            return NotConnected(str(error.os_error or error))
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return NotConnected(f"no connection{self.via} within {self._connect_s:g} s")
        if isinstance(error, aiohttp.InvalidURL):
            return NotConnected(f"{words} is no valid URL", permanent=True)
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return ConnectionLost(f"the connection{self.via} was closed without an answer")
        if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
            return ConnectionLost(f"the answer{self.via} is broken: {words}")
        if isinstance(error, aiohttp.ClientError | OSError | ValueError | EOFError):
            return ConnectionLost(f"the connection{self.via} was lost: {words or name}")
        return error

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    def __del__(self) -> None:
        """Drop connections whose event loop has ended; aiohttp would print that they are open."""
        session = getattr(self, "_session", None)  # none where the address was refused
        if session is None or session.closed:
            return
        connector = session.connector
        session.detach()
        assert connector is not None  # a session without one is closed
        connector._close()  # `close` waits, and there may be no event loop left to wait in


def _words(error: BaseException) -> str:
    """Return the first line of what an error says, without what a server can write into it."""
    if isinstance(error, aiohttp.ClientPayloadError) and error.__cause__ is not None:
        error = error.__cause__
    text = str(getattr(error, "message", "") or error).strip().partition("\n")[0]
    text = text.partition(" when reading: ")[0].rstrip(": ")
    return "".join(char if char.isprintable() else "?" for char in text)[:200]


def parse_url(url: str) -> URL:
    """Return `url` as a value.

    Raises:
        NotConnected: it is no http(s) address.
    """
    try:
        parsed = URL(url)
        if parsed.scheme in ("http", "https") and parsed.host and parsed.port is not None:
            if re.fullmatch(r"[0-9][0-9a-fx.]*", parsed.host):
                with suppress(OSError):  # short forms of an address: 127.1 is 127.0.0.1
                    parsed = parsed.with_host(socket.inet_ntoa(socket.inet_aton(parsed.host)))
            return parsed
        reason = "it needs http:// or https:// and a host"
    except ValueError as error:
        reason = str(error)
    raise NotConnected(f"{url} is not a valid URL: {reason}", permanent=True)


def is_this_machine(host: str) -> bool:
    """Return whether `host` is a name or an address of the loopback interface."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def proxy_for(url: URL, environ: Mapping[str, str] = os.environ) -> URL | None:
    """Return the proxy of the environment for `url`; None if it is to be reached directly.

    Raises:
        NotConnected: the variable holds no address of a proxy.
    """
    host = url.host or ""
    if is_this_machine(host) or _bypassed(host, url.port or 0, environ):
        return None
    for name in (f"{url.scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if value := environ.get(variable, "").strip():
                return _parse_proxy(variable, value)
    return None


def _parse_proxy(variable: str, value: str) -> URL:
    try:
        proxy = URL(value if "://" in value else f"http://{value}")
        known = proxy.scheme in ("http", "https", "socks4", "socks4a", "socks5", "socks5h", "socks")
        if known and proxy.host:
            port = proxy.port or (1080 if proxy.scheme.startswith("socks") else 80)
            return proxy.with_port(port)
    except ValueError:
        pass
    raise NotConnected(
        f"{variable} holds no address of a proxy, such as http://proxy:3128 or socks5://proxy:1080",
        permanent=True,
    )


def _bypassed(host: str, port: int, environ: Mapping[str, str]) -> bool:
    """Return whether NO_PROXY names `host`: by name, suffix, address, network or with a port."""
    listed = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    host = host.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in re.split(r"[,\s]+", listed.lower()):
        entry = re.sub(r"^https?://", "", entry).rstrip("/.") if "://" in entry else entry
        if entry == "*":
            return True
        name, entry_port = _split_port(entry)
        if not name or (entry_port and entry_port != port):
            continue
        if address is not None:
            try:
                if address in ipaddress.ip_network(name, strict=False):
                    return True
            except (ValueError, TypeError):
                pass
        name = name.removeprefix("*").strip(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _split_port(entry: str) -> tuple[str, int]:
    """Split `host:port`; 0 without a port. An IPv6 address has its port behind brackets."""
    if match := re.fullmatch(r"\[([^\]]*)\](?::(\d+))?", entry):
        return match[1], int(match[2] or 0)
    name, colon, port = entry.rpartition(":")
    if colon and ":" not in name and port.isdigit():
        return name, int(port)
    return entry, 0


def _socks_connector(proxy: URL | None, tls: Any) -> aiohttp.BaseConnector:
    from aiohttp_socks import ProxyConnector, ProxyType

    class SocksConnector(_OneAnswerEach, ProxyConnector):
        pass

    assert proxy is not None
    four = proxy.scheme.startswith("socks4")
    return SocksConnector(
        host=proxy.host or "",
        port=proxy.port or 1080,
        proxy_type=ProxyType.SOCKS4 if four else ProxyType.SOCKS5,
        username=proxy.user,
        password=proxy.password,
        # socks5h and socks4a leave names to the proxy; many are reachable from there alone.
        rdns=proxy.scheme != "socks4",
        limit=0,
        ssl=tls,
        keepalive_timeout=IDLE_S,
    )


def _certificates(environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Return the certificates to trust.

    Raises:
        NotConnected: a variable names a file or folder that is missing or holds none.
    """
    context = ssl.create_default_context()
    named = [name for name in _CERTIFICATES if environ.get(name)]
    for name in named:
        path = environ[name]
        try:
            if os.path.isdir(path):
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise NotConnected(
                f"{name} names {path}, which can't be read as certificates ({error}): "
                "correct it, or unset it",
                permanent=True,
            ) from None
    if not named:
        import certifi

        context.load_verify_locations(cafile=certifi.where())
    return context
