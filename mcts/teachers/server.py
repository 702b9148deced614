"""The teacher behind an OpenAI-compatible server; made for vLLM, content with less.

    teacher = OpenAITeacher("http://localhost:8000", concurrency=64)
    await teacher.open()          # finds the model; TeacherUnavailable if nobody is there
    reply = await teacher.complete(request, images)
    await teacher.close()

What a server cannot do is found out the first time it matters, and made up for:

    it refuses or ignores n > 1         n requests of one sample each, with seeds seed + i
    it refuses to continue a turn       the partial turn goes into the last user message, under
                                        "Previous thoughts:"
    it drops the stop string            the stop string is put back where it is unambiguous
    it refuses to count thoughts        it is not told to; whoever asked cuts what is too long

A server that accepts an assistant turn but silently starts a new one cannot be told from one that
continues it: pass `can_continue=False` for it.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from mcts.image_io import upright
from mcts.teachers.base import (
    Ledger,
    Message,
    Reply,
    Request,
    TeacherError,
    TeacherUnavailable,
    Text,
    picture_bytes,
)
from mcts.teachers.connections import Connections
from mcts.teachers.responses import (
    Answer,
    Trouble,
    fold_partial_turn,
    read_answer,
    read_json,
    read_models,
    thoughts_at_most,
)

MAX_WAIT_S = 60.0
"""No single wait between two tries is longer, whatever the server asks for."""

CONNECT_S = 10.0
"""A server that cannot be reached within this is not there."""


class OpenAITeacher:
    """A client with a fixed concurrency, retries and a timeout that really cancels.

    `concurrency` requests are in flight at most; `timeout_s` seconds is the limit of one try;
    a try is repeated up to `retries` times, after `backoff_s` * 2**i seconds with jitter, on
    connection errors, timeouts, 408, 429 (its Retry-After is honoured), 5xx and broken answers.
    What then still fails is the request's failure only if the server is there and has time: one
    that is gone, or has answered nothing but 429 or 503, is a `TeacherUnavailable`.
    `connect_retries` is for servers that nobody reaches: fewer, where another can be asked.
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
        """Whether the server answers n > 1; None until it has been found out."""
        self.can_continue = can_continue
        """Whether it continues a partial assistant turn; None until it has been found out."""
        self.can_count = can_count
        """Whether it takes a grammar that bounds the thoughts; None until it has been found out."""
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._concurrency, self._timeout_s = concurrency, timeout_s
        self._retries, self._backoff_s = retries, backoff_s
        self._connect_retries = retries if connect_retries is None else connect_retries
        self._revision = revision
        self._identity: str | None = None
        self._lost = False  # it went away, and has not said since what it serves
        self._client: Connections | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._slots = asyncio.Semaphore(concurrency)
        self._urls: OrderedDict[str, str] = OrderedDict()
        self._urls_room = image_cache_bytes

    @property
    def identity(self) -> str:
        """The served model's name, its root path where that differs, and the caller's revision."""
        if self._identity is None:
            raise RuntimeError("the teacher's identity is known only after open()")
        return self._identity

    async def open(self) -> None:
        """Find the model the server serves.

        Raises:
            TeacherUnavailable: nobody answers, the key is refused, or the model is not served.
        """
        import httpx

        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # connections and locks belong to the loop they were made in
            self._loop, self._opening = loop, asyncio.Lock()
            self._slots = asyncio.Semaphore(self._concurrency)
            try:
                host = httpx.URL(self.url).host
            except httpx.InvalidURL as error:
                raise TeacherUnavailable(f"{self.url} is no address: {error}") from None
            outside = host not in ("localhost", "127.0.0.1", "::1")  # no proxy to ourselves
            trusted = httpx.create_ssl_context(trust_env=outside)  # read once for all connections
            self._client = Connections(
                lambda: httpx.AsyncClient(
                    headers=self._headers,
                    # An answer may take minutes, a connection may not: else nobody is there.
                    timeout=httpx.Timeout(self._timeout_s, connect=min(self._timeout_s, CONNECT_S)),
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                    trust_env=outside,
                    verify=trusted,
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
            raise TeacherUnavailable(f"{self.url} serves {served}: say which model to ask.")
        self.model = self.model or next(iter(cards))
        return self._identify(cards)

    def _identify(self, cards: Mapping[str, Mapping[str, Any]]) -> str:
        """What the asked model is called, weights included, among what a server serves."""
        assert self.model is not None
        if self.model not in cards:
            served = ", ".join(cards) or "nothing"
            raise TeacherUnavailable(f"{self.url} serves {served}, not {self.model}.")
        # `created` and `permission` change at each start of the server; `root` does not. A name
        # that holds a hash of the weights says more than the folder they were loaded from.
        root = cards[self.model].get("root") if "@" not in self.model else None
        names = [self.model, root if root != self.model else None, self._revision]
        return "@".join(str(name) for name in names if name)

    async def served(self, limit_s: float) -> str:
        """The identity of what the server serves at this moment: asked once, past any queue.

        Raises:
            TeacherUnavailable: it does not say so within `limit_s` seconds, or has it no more.
        """
        import httpx

        await self.open()
        assert self._client is not None
        try:
            async with asyncio.timeout(limit_s):
                response = await self._client.request("GET", f"{self.url}/v1/models")
            return self._identify(read_models(read_json(response, self.url)))
        except httpx.ConnectError as error:
            raise self._nobody(error) from None
        except (TimeoutError, httpx.HTTPError, TeacherError, Trouble) as error:
            told = str(error) or type(error).__name__
            raise TeacherUnavailable(f"{self.url} does not answer ({told}).") from None

    def _nobody(self, error: Exception) -> TeacherUnavailable:
        return TeacherUnavailable(
            f"No model server answers at {self.url} ({error or type(error).__name__}): "
            "start it, or name another teacher; answers already given are kept."
        )

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request`; see `mcts.teachers.base.Teacher.complete`."""
        await self.open()
        try:
            if self._lost:
                await self._must_be_there()
            return await self._complete(request, images)
        except TeacherUnavailable:
            self._lost = True
            raise

    async def _must_be_there(self) -> None:
        """Raise TeacherUnavailable unless the server answers and has the model it had."""
        identity = await self.served(CONNECT_S)
        if identity != self._identity:
            raise TeacherUnavailable(f"{self.url} serves {identity} now, not {self._identity}.")
        self._lost = False

    async def _complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        started = time.perf_counter()
        self.ledger.requests += 1
        refusal: TeacherError | None = None  # the first way's: the others only try around it
        for many, continuing, counting in self._ways(request):
            try:
                answers = await self._ask(request, images, many, continuing, counting)
            except TeacherError as error:
                refusal = refusal or error
                # What the server does not know it calls a bad request; other failures are final.
                if error.kind != "bad_request":
                    break
                continue
            if request.n > 1:
                self.can_sample_many = many
            if request.continues:
                self.can_continue = continuing
            if request.most_thoughts:
                self.can_count = counting
            completions = tuple(c for answer in answers for c in answer.completions)
            known = [a.cached_tokens for a in answers if a.cached_tokens is not None]
            reply = Reply(
                completions=completions,
                prompt_tokens=answers[0].prompt_tokens,
                cached_tokens=known[0] if known else None,
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
                await self._must_be_there()
            except TeacherUnavailable as gone:
                raise TeacherUnavailable(str(gone), answering=True) from refusal
        raise refusal

    def _ways(self, request: Request) -> Iterator[tuple[bool, bool, bool]]:
        """Ways to put the request, best first; one only, once the server is known."""

        def options(known: bool | None, matters: bool) -> tuple[bool, ...]:
            if not matters:
                return (True,)
            return (True, False) if known is None else (known,)

        for continuing in options(self.can_continue, request.continues):
            for many in options(self.can_sample_many, request.n > 1):
                for counting in options(self.can_count, request.most_thoughts > 0):
                    yield many, continuing, counting

    async def _ask(
        self,
        request: Request,
        images: Mapping[str, bytes],
        many: bool,
        continuing: bool,
        counting: bool,
    ) -> list[Answer]:
        # With many known to work, too few choices are the server's slip and worth a retry.
        strict = self.can_sample_many is True
        body = self._body(request, images, continuing)
        if request.most_thoughts and counting:
            body["structured_outputs"] = {"regex": thoughts_at_most(request.most_thoughts)}

        def read(data: Any) -> Answer:
            return read_answer(data, body["n"], request, strict)

        if many:
            body["n"] = request.n
            return [await self._send("POST", "/v1/chat/completions", body, read)]
        try:
            async with asyncio.TaskGroup() as group:  # the first failure withdraws the others
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
        if request.alternatives:
            body |= {"logprobs": True, "top_logprobs": request.alternatives}
        if request.continues and continuing:
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        return body

    def _message(self, message: Message, images: Mapping[str, bytes]) -> dict[str, Any]:
        if all(isinstance(part, Text) for part in message.parts):
            return {"role": message.role, "content": message.text}
        content: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, Text):
                content.append({"type": "text", "text": part.text})
            else:
                url = self._image_url(part.image_id, images)
                content.append({"type": "image_url", "image_url": {"url": url}})
        return {"role": message.role, "content": content}

    def _image_url(self, image_id: str, images: Mapping[str, bytes]) -> str:
        if image_id in self._urls:
            self._urls.move_to_end(image_id)
            return self._urls[image_id]
        data = upright(picture_bytes(images, image_id))
        kind = "jpeg" if data[:2] == b"\xff\xd8" else "webp" if data[:4] == b"RIFF" else "png"
        url = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
        self._urls[image_id] = url
        self._urls_room -= len(url)
        while self._urls_room < 0 and len(self._urls) > 1:
            self._urls_room += len(self._urls.popitem(last=False)[1])
        return url

    async def _send(self, method: str, path: str, body: Any, read: Any) -> Any:
        """Send until `read` accepts the answer; what it returns.

        Raises TeacherError (final for this request) or TeacherUnavailable (nobody is there).
        """
        import httpx

        assert self._client is not None
        failure: Exception
        dropped, troubles = False, Counter[str]()
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
                failure = self._nobody(error)
                failure.answering = dropped
                if attempt >= self._connect_retries:
                    break
            except (TimeoutError, httpx.TimeoutException):
                failure = TeacherError("timeout", f"no answer within {self._timeout_s:g} s")
            except httpx.TransportError as error:
                failure = TeacherError("server_error", f"{type(error).__name__}: {error}")
                dropped = True
            except Trouble as trouble:
                failure = TeacherError(trouble.kind, str(trouble))
                if trouble.busy:
                    failure = TeacherUnavailable(f"{self.url} has no time for us ({trouble}).")
                troubles[trouble.kind] += 1  # other faults in between do not use up its tries
                if troubles[trouble.kind] > trouble.tries:
                    break
                wait = max(wait, trouble.wait_s)
            if attempt < self._retries:
                self.ledger.retries += 1
                await asyncio.sleep(min(wait, MAX_WAIT_S))
        raise failure

    async def close(self) -> None:
        """Close the connections."""
        client, self._client, self._loop = self._client, None, None
        if client is not None:
            await client.close()
