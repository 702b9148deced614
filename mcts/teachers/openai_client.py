"""A teacher behind an OpenAI-compatible server; made for vLLM, with fallbacks for others.

    teacher = OpenAITeacher("http://localhost:8000", concurrency=64)
    await teacher.open()          # finds the model; TeacherUnavailable if there is no server
    reply = await teacher.complete(request, images)
    await teacher.close()

A missing feature is detected the first time it matters, and replaced:

    it refuses or ignores n > 1         n requests of one sample each, with seeds seed + i
    it refuses to continue a turn       the partial turn goes into the last user message, under
                                        "Previous thoughts:"
    it drops the stop string            the stop string is added where it is unambiguous
    it refuses to count thoughts        it is not asked to; the caller cuts what is too long

A server that accepts an assistant turn but silently starts a new one looks like one that continues
it: pass `can_continue=False` for it.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from mcts.image_io import upright
from mcts.teachers.base import (
    Ledger,
    Message,
    Reply,
    Request,
    TeacherError,
    TeacherUnavailable,
    TextPart,
    image_bytes,
)
from mcts.teachers.responses import (
    RetryableError,
    fold_partial_turn,
    read_json,
    read_models,
    read_reply,
    thought_limit_pattern,
)

MAX_WAIT_S = 60.0
"""Upper limit of one wait between two attempts, whatever the server asks for."""

CONNECT_S = 10.0
"""A server that cannot be reached within this time is unavailable."""

POOL_SIZE = 4
"""Concurrent requests of one httpx connection pool."""


class OpenAITeacher:
    """A client with a fixed concurrency, retries, and a timeout that cancels the request.

    At most `concurrency` requests are in flight; `timeout_s` seconds is the limit of one attempt;
    an attempt is repeated up to `retries` times, after `backoff_s` * 2**i seconds with jitter, on
    connection errors, timeouts, 408, 429 (its Retry-After is honoured), 5xx and broken answers.
    What still fails then is the request's failure only if the server is there and has capacity: a
    server that is gone, or answered only 429 or 503, is a `TeacherUnavailable`. `connect_retries`
    limits attempts at an unreachable server: fewer, where there is another one.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        api_key: str | None = None,
        *,
        concurrency: int = 32,
        timeout_s: float = 120.0,
        retries: int = 5,
        connect_retries: int | None = None,
        backoff_s: float = 0.5,
        revision: str = "",
        can_sample_many: bool | None = None,
        can_continue: bool | None = None,
        can_count: bool | None = None,
        image_cache_bytes: int = 256 * 2**20,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.model = model
        self.ledger = Ledger()
        self.can_sample_many = can_sample_many
        """Whether the server answers n > 1; None until known."""
        self.can_continue = can_continue
        """Whether it continues a partial assistant turn; None until known."""
        self.can_count = can_count
        """Whether it accepts a grammar that limits the thoughts; None until known."""
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._concurrency, self._timeout_s = concurrency, timeout_s
        self._retries, self._backoff_s = retries, backoff_s
        self._connect_retries = retries if connect_retries is None else connect_retries
        self._revision = revision
        self._identity: str | None = None
        self._lost = False  # it went away, and its model was not checked since
        self._client: Connections | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(concurrency)
        self._urls: OrderedDict[str, str] = OrderedDict()
        self._url_bytes_left = image_cache_bytes

    @property
    def identity(self) -> str:
        """The served model's name, its root path where that differs, and the caller's revision."""
        if self._identity is None:
            raise RuntimeError("the teacher's identity is available only after open()")
        return self._identity

    async def open(self) -> None:
        """Find the model the server serves.

        Raises:
            TeacherUnavailable: no answer, the API key is refused, or the model is not served.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # connections and locks belong to the loop they were made in
            self._loop, self._opening = loop, asyncio.Lock()
            self._slots = asyncio.Semaphore(self._concurrency)
            try:
                host = httpx.URL(self.url).host
            except httpx.InvalidURL as error:
                raise TeacherUnavailable(f"{self.url} is not a valid URL: {error}") from None
            remote = host not in ("localhost", "127.0.0.1", "::1")  # no proxy to this machine
            tls = httpx.create_ssl_context(trust_env=remote)  # read once for all connections
            self._client = Connections(
                lambda: httpx.AsyncClient(
                    headers=self._headers,
                    # An answer may take minutes; a server that takes long to connect is down.
                    timeout=httpx.Timeout(self._timeout_s, connect=min(self._timeout_s, CONNECT_S)),
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                    trust_env=remote,
                    verify=tls,
                )
            )
        async with self._opening:
            if self._identity is None:
                self._identity = await self._find_model()

    async def _find_model(self) -> str:
        try:
            cards = await self._send("GET", "/v1/models", None, read_models)
        except TeacherError as error:
            raise TeacherUnavailable(
                f"{self.url} does not answer as an OpenAI-compatible server ({error})."
            ) from None
        if self.model is None and len(cards) != 1:
            served = ", ".join(cards) or "nothing"
            raise TeacherUnavailable(f"{self.url} serves {served}: name the model to use.")
        self.model = self.model or next(iter(cards))
        return self._identify(cards)

    def _identify(self, cards: Mapping[str, Mapping[str, Any]]) -> str:
        """Return the identity of our model, weights included, among the served models."""
        assert self.model is not None
        if self.model not in cards:
            served = ", ".join(cards) or "nothing"
            raise TeacherUnavailable(f"{self.url} serves {served}, not {self.model}.")
        # `created` and `permission` change at each start of the server; `root` does not. A name
        # with a hash of the weights is more precise than the folder they were loaded from.
        root = cards[self.model].get("root") if "@" not in self.model else None
        names = [self.model, root if root != self.model else None, self._revision]
        return "@".join(str(name) for name in names if name)

    async def served_identity(self, limit_s: float) -> str:
        """Ask the server, once and ahead of any queue, for its model's current identity.

        Raises:
            TeacherUnavailable: no answer within `limit_s` seconds, or the model is gone.
        """
        await self.open()
        assert self._client is not None
        try:
            async with asyncio.timeout(limit_s):
                response = await self._client.request("GET", f"{self.url}/v1/models")
            return self._identify(read_models(read_json(response, self.url)))
        except httpx.ConnectError as error:
            raise self._unreachable(error) from None
        except (TimeoutError, httpx.HTTPError, TeacherError, RetryableError) as error:
            detail = str(error) or type(error).__name__
            raise TeacherUnavailable(f"{self.url} does not answer ({detail}).") from None

    def _unreachable(self, error: Exception) -> TeacherUnavailable:
        return TeacherUnavailable(
            f"No model server answers at {self.url} ({error or type(error).__name__}): "
            "start it, or name another teacher; answers already given are kept."
        )

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request`; see `mcts.teachers.base.Teacher.complete`."""
        await self.open()
        try:
            if self._lost:
                await self._check_model()
            return await self._complete(request, images)
        except TeacherUnavailable:
            self._lost = True
            raise

    async def _check_model(self) -> None:
        """Raise TeacherUnavailable unless the server answers and still serves the same model."""
        identity = await self.served_identity(CONNECT_S)
        if identity != self._identity:
            raise TeacherUnavailable(f"{self.url} serves {identity} now, not {self._identity}.")
        self._lost = False

    async def _complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        started = time.perf_counter()
        self.ledger.requests += 1
        refusal: TeacherError | None = None  # of the first form; the others are fallbacks
        for many, continuing, counting in self._request_forms(request):
            try:
                answers = await self._send_as(request, images, many, continuing, counting)
            except TeacherError as error:
                refusal = refusal or error
                # An unknown feature is answered as a bad request; other failures are final.
                if error.kind != "bad_request":
                    break
                continue
            if request.n > 1:
                self.can_sample_many = many
            if request.continues:
                self.can_continue = continuing
            if request.max_thoughts:
                self.can_count = counting
            completions = tuple(c for answer in answers for c in answer.completions)
            cached = [a.cached_tokens for a in answers if a.cached_tokens is not None]
            reply = Reply(
                completions=completions,
                prompt_tokens=answers[0].prompt_tokens,
                cached_tokens=cached[0] if cached else None,
                completion_tokens=sum(answer.completion_tokens for answer in answers),
                seconds=time.perf_counter() - started,
            )
            self.ledger.add(reply)
            return reply
        self.ledger.failures += 1
        assert refusal is not None
        refusal.seconds = time.perf_counter() - started
        if refusal.kind in ("server_error", "timeout", "malformed"):
            try:
                await self._check_model()
            except TeacherUnavailable as gone:
                raise TeacherUnavailable(str(gone), in_flight=True) from refusal
        raise refusal

    def _request_forms(self, request: Request) -> Iterator[tuple[bool, bool, bool]]:
        """Yield the forms of the request, best first; only one, once the features are known."""

        def options(known: bool | None, matters: bool) -> tuple[bool, ...]:
            if not matters:
                return (True,)
            return (True, False) if known is None else (known,)

        for continuing in options(self.can_continue, request.continues):
            for many in options(self.can_sample_many, request.n > 1):
                for counting in options(self.can_count, request.max_thoughts > 0):
                    yield many, continuing, counting

    async def _send_as(
        self,
        request: Request,
        images: Mapping[str, bytes],
        many: bool,
        continuing: bool,
        counting: bool,
    ) -> list[Reply]:
        # Where n > 1 is known to work, too few choices are an error worth a retry.
        strict = self.can_sample_many is True
        body = self._body(request, images, continuing)
        if request.max_thoughts and counting:
            body["structured_outputs"] = {"regex": thought_limit_pattern(request.max_thoughts)}

        def read(data: Any) -> Reply:
            return read_reply(data, body["n"], request, strict)

        if many:
            body["n"] = request.n
            return [await self._send("POST", "/v1/chat/completions", body, read)]
        try:
            async with asyncio.TaskGroup() as group:  # the first failure cancels the others
                tasks = []
                for i in range(request.n):
                    single = body | {"seed": request.sample_seed(i)}
                    sending = self._send("POST", "/v1/chat/completions", single, read)
                    tasks.append(group.create_task(sending))
        except* (TeacherError, TeacherUnavailable) as failures:
            failure = failures.exceptions[0]
        else:
            return [task.result() for task in tasks]
        raise failure

    def _body(
        self, request: Request, images: Mapping[str, bytes], continuing: bool
    ) -> dict[str, Any]:
        messages = list(request.messages)
        if request.continues and not continuing:
            messages = fold_partial_turn(messages)
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [self._message(message, images) for message in messages],
            "n": 1,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_tokens": request.max_tokens,
            "seed": request.seed,
        }
        if request.stop:
            body |= {"stop": list(request.stop), "include_stop_str_in_output": True}
        if request.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.continues and continuing:
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        return body

    def _message(self, message: Message, images: Mapping[str, bytes]) -> dict[str, Any]:
        if all(isinstance(part, TextPart) for part in message.parts):
            return {"role": message.role, "content": message.text}
        content: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, TextPart):
                content.append({"type": "text", "text": part.text})
            else:
                url = self._image_url(part.image_id, images)
                content.append({"type": "image_url", "image_url": {"url": url}})
        return {"role": message.role, "content": content}

    def _image_url(self, image_id: str, images: Mapping[str, bytes]) -> str:
        if image_id in self._urls:
            self._urls.move_to_end(image_id)
            return self._urls[image_id]
        data = upright(image_bytes(images, image_id))
        kind = "jpeg" if data[:2] == b"\xff\xd8" else "webp" if data[:4] == b"RIFF" else "png"
        url = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
        self._urls[image_id] = url
        self._url_bytes_left -= len(url)
        while self._url_bytes_left < 0 and len(self._urls) > 1:
            self._url_bytes_left += len(self._urls.popitem(last=False)[1])
        return url

    async def _send(self, method: str, path: str, body: Any, read: Any) -> Any:
        """Send until `read` accepts the answer; return what it returns.

        Raises TeacherError (final for this request) or TeacherUnavailable (there is no server).
        """
        assert self._client is not None
        failure: Exception
        dropped, errors = False, Counter[str]()
        for attempt in range(self._retries + 1):
            wait = self._backoff_s * 2**attempt * random.uniform(0.5, 1.0)
            try:
                async with self._slots:
                    self.ledger.in_flight += 1
                    try:
                        async with asyncio.timeout(self._timeout_s):
                            response = await self._client.request(
                                method, self.url + path, json=body
                            )
                    finally:
                        self.ledger.in_flight -= 1
                return read(read_json(response, self.url))
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
                failure = self._unreachable(error)
                failure.in_flight = dropped
                if attempt >= self._connect_retries:
                    break
            except (TimeoutError, httpx.TimeoutException):
                failure = TeacherError("timeout", f"no answer within {self._timeout_s:g} s")
            except httpx.TransportError as error:
                failure = TeacherError("server_error", f"{type(error).__name__}: {error}")
                dropped = True
            except RetryableError as error:
                failure = TeacherError(error.kind, str(error))
                if error.busy:
                    failure = TeacherUnavailable(f"{self.url} has no capacity ({error}).")
                errors[error.kind] += 1  # each kind has its own number of retries
                if errors[error.kind] > error.retries:
                    break
                wait = max(wait, error.wait_s)
            if attempt < self._retries:
                self.ledger.retries += 1
                await asyncio.sleep(min(wait, MAX_WAIT_S))
        raise failure

    async def close(self) -> None:
        """Close the connections."""
        client, self._client, self._loop = self._client, None, None
        if client is not None:
            await client.close()


class Connections:
    """Several small connection pools as one HTTP client; `make` opens a pool.

    An httpx pool checks each of its connections, down to the socket, whenever a request begins or
    ends: with hundreds of them that costs more than all else. So each pool carries at most
    `POOL_SIZE` requests at a time, and another one is opened when all are full.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self._make = make
        self._pools: list[httpx.AsyncClient] = []
        self._in_flight: list[int] = []

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """As `httpx.AsyncClient.request`, through the first pool with a free connection."""
        at = next((i for i, n in enumerate(self._in_flight) if n < POOL_SIZE), len(self._pools))
        if at == len(self._pools):
            self._pools.append(self._make())
            self._in_flight.append(0)
        self._in_flight[at] += 1
        try:
            return await self._pools[at].request(method, url, **options)
        finally:
            self._in_flight[at] -= 1

    async def close(self) -> None:
        """Close every connection."""
        pools, self._pools, self._in_flight = self._pools, [], []
        for pool in pools:
            await pool.aclose()
