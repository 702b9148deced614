"""A teacher behind an OpenAI-compatible server; made for vLLM, with fallbacks for others.

    teacher = OpenAITeacher("http://localhost:8000", concurrency=64)
    await teacher.open()          # finds the model; TeacherUnavailable if there is no server
    reply = await teacher.complete(request, images)
    await teacher.close()

What a server cannot do is declared (`can`), or found out once, when it refuses it, and replaced
(`mcts.teachers.capabilities`). A server that accepts a partial assistant turn but begins the turn
again is found by its own words, and then treated as one that cannot continue a turn. The
differences between servers, and what is done for each, are listed in docs/servers.md.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcts.coordinates import CoordinateSpace, SpaceKind
from mcts.data import content_id
from mcts.teachers.base import (
    Ledger,
    Reply,
    Request,
    TeacherError,
    TeacherUnavailable,
)
from mcts.teachers.capabilities import FEATURES, Capabilities
from mcts.teachers.connections import ConnectionLost, Connections, NotConnected
from mcts.teachers.request_bodies import WIRE_SEED, EncodedImages, chat_body, encode_body
from mcts.teachers.responses import (
    RetryableError,
    estimate_tokens,
    is_counted,
    read_json,
    read_models,
    read_reply,
    starts_anew,
)

MAX_WAIT_S = 60.0
"""Upper limit of one wait between two attempts, whatever the server asks for."""

REPORTED_WAIT_S = 5.0
"""A wait that a server asks for is reported from here on."""

CONNECT_S = 10.0
"""A server that cannot be reached within this time is unavailable."""


class OpenAITeacher:
    """A client with a fixed concurrency, retries, and a timeout that cancels the request.

    At most `concurrency` requests are in flight; `timeout_s` seconds is the limit of one attempt;
    an attempt is repeated up to `retries` times, after `backoff_s` * 2**i seconds with jitter, on
    connection errors, timeouts, 408, 429 (its Retry-After is honoured), 5xx and broken answers.
    What still fails then is the request's failure only if the server is there and has capacity: a
    server that is gone, or answered only 429 or 503, is a `TeacherUnavailable`. `connect_retries`
    limits attempts at an unreachable server: fewer, where there is another one.

    Args:
        api_key: sent as a bearer token; never part of a message.
        headers: sent with every request; their values are never part of a message.
        fields: added to the body of every chat request, and part of the identity.
        can: capabilities that are known (`mcts.teachers.capabilities.FEATURES`).
        space: the model's coordinates, by which a server that resizes images itself is found.
        report: receives a sentence when something about the server is found out.
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
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, Any] | None = None,
        can: Mapping[str, bool] | None = None,
        space: CoordinateSpace | None = None,
        image_cache_bytes: int = 256 * 2**20,
        report: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.model = model
        self.ledger = Ledger()
        self.capabilities = Capabilities(can)
        self._api_key = api_key
        self._headers = dict(headers or {})
        if api_key:
            self._headers.setdefault("Authorization", f"Bearer {api_key}")
        self._fields = dict(fields or {})
        self._concurrency, self._timeout_s = concurrency, timeout_s
        self._retries, self._backoff_s = retries, backoff_s
        self._connect_retries = retries if connect_retries is None else connect_retries
        self._revision, self._space, self._report = revision, space, report
        self._reported: set[str] = set()
        self._base = "/v1"
        self._identity: str | None = None
        self._lost = False  # it went away, and its model was not checked since
        self._client: Connections | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = self._probing = asyncio.Lock()
        self._slots = asyncio.Semaphore(concurrency)
        self._images = EncodedImages(image_cache_bytes)

        self._sizes_compared = False

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
            # An answer may take minutes; a server that takes long to connect is down.
            connect_s = min(self._timeout_s, CONNECT_S)
            try:
                self._client = Connections(self.url, headers=self._headers, connect_s=connect_s)
            except NotConnected as error:
                raise self._unreachable(error) from None
            self._loop, self._opening, self._probing = loop, asyncio.Lock(), asyncio.Lock()
            self._slots = asyncio.Semaphore(self._concurrency)
        async with self._opening:
            if self._identity is None:
                self._identity = await self._find_model()

    async def _find_model(self) -> str:
        cards: dict[str, dict[str, Any]] | None = None
        # Some providers' addresses are whole: `.../v1beta/openai` is followed by `/models`.
        for base in ("/v1", "") if self.url.count("/") > 2 else ("/v1",):
            try:
                cards = await self._send("GET", f"{base}/models", None, read_models)
                self._base = base
                break
            except TeacherError as error:
                refusal = error
                if "HTTP 404" not in error.message:
                    break
        if cards is None:
            if self.model is None or "HTTP 404" not in refusal.message:
                raise TeacherUnavailable(
                    f"{self.url} does not answer as an OpenAI-compatible server ({refusal})."
                ) from None
            cards = {self.model: {}}  # it lists no models; a wrong name shows in the first request
        if self.model is None and len(cards) != 1:
            served = ", ".join(cards) or "nothing"
            raise TeacherUnavailable(f"{self.url} serves {served}: name the model to use.")
        self.model = self.model or next(iter(cards))
        identity = self._identify(cards)
        if cards[self.model].get("owned_by") == "vllm":
            presumed = ("n", "stop", "seed", "top_p", "max_tokens", "temperature", "logprobs")
            self.capabilities.presume(presumed)
        return identity

    def _identify(self, cards: Mapping[str, Mapping[str, Any]]) -> str:
        """Return the identity of our model, weights included, among the served models."""
        assert self.model is not None
        if self.model not in cards:
            served = ", ".join(cards) or "nothing"
            raise TeacherUnavailable(f"{self.url} serves {served}, not {self.model}.")
        # `created` and `permission` change at each start of the server; `root` does not. A name
        # with a hash of the weights is more precise than the folder they were loaded from.
        root = cards[self.model].get("root") if "@" not in self.model else None
        fields = f"fields-{content_id(self._fields)[:12]}" if self._fields else None
        names = [self.model, root if root != self.model else None, self._revision, fields]
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
                response = await self._client.request("GET", f"{self._base}/models")
            return self._identify(read_models(read_json(response, self.url)))
        except NotConnected as error:
            raise self._unreachable(error) from None
        except (TimeoutError, ConnectionLost, TeacherError, RetryableError) as error:
            if isinstance(error, TeacherError) and "HTTP 404" in error.message and self._identity:
                return self._identity  # it answers, and lists no models
            detail = self._masked(str(error) or type(error).__name__)
            raise TeacherUnavailable(f"{self.url} does not answer ({detail}).") from None

    def _unreachable(self, error: NotConnected) -> TeacherUnavailable:
        reason = self._masked(str(error))
        if error.permanent or "proxy" in reason:
            sentence = f"{self.url} can't be reached: {reason}."
        else:
            sentence = (
                f"No model server answers at {self.url} ({reason}): "
                "start it, or name another teacher; answers already given are kept."
            )
        return TeacherUnavailable(sentence, permanent=error.permanent)

    def _masked(self, text: str) -> str:
        """Replace the key and the values of headers, which a server may repeat in its errors."""
        values = [self._api_key or "", *self._headers.values()]
        for value in sorted(values, key=len, reverse=True):
            if len(value) >= 4:
                text = text.replace(value, "***")
        return text

    def _report_once(self, sentence: str) -> None:
        if sentence not in self._reported:
            self._reported.add(sentence)
            self._report(f"{self.url}: {sentence}.")

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request`; see `mcts.teachers.base.Teacher.complete`."""
        await self.open()
        started = time.perf_counter()
        try:
            if self._lost:
                await self._check_model()
            self.ledger.requests += 1
            if self.capabilities.unknown(request):  # one request at a time finds out, for all
                async with self._probing:
                    reply = await self._answer(request, images)
            else:
                reply = await self._answer(request, images)
        except TeacherUnavailable:
            self._lost = True
            raise
        except TeacherError as refusal:
            self.ledger.failures += 1
            refusal.seconds = time.perf_counter() - started
            if refusal.kind in ("server_error", "timeout", "malformed"):
                try:
                    await self._check_model()
                except TeacherUnavailable as gone:
                    raise TeacherUnavailable(str(gone), in_flight=True) from refusal
            raise
        reply = replace(reply, seconds=time.perf_counter() - started)
        self._compare_sizes(request, images, reply)
        self.ledger.add(reply)
        return reply

    async def _check_model(self) -> None:
        """Raise TeacherUnavailable unless the server answers and still serves the same model."""
        identity = await self.served_identity(CONNECT_S)
        if identity != self._identity:
            raise TeacherUnavailable(f"{self.url} serves {identity} now, not {self._identity}.")
        self._lost = False

    async def _answer(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Send the request in the best form that the server takes.

        Raises:
            TeacherError: it was refused in every form; the sentence is that of the first refusal.
        """
        known = self.capabilities.known
        form: frozenset[str] | None = self.capabilities.form(request)
        refusal: TeacherError | None = None
        while form is not None:
            before = dict(known)
            try:
                answers = await self._send_as(request, images, form)
            except TeacherError as error:
                refusal = refusal or error
                # An unknown feature is answered as a bad request; other failures are final.
                if error.kind != "bad_request":
                    break
                form = self.capabilities.without_refused(form, error.message)
            else:
                texts = [c.text for answer in answers for c in answer.completions]
                if "continue" in form and known["continue"] is None and starts_anew(
                    texts, request.messages[-1].text
                ):  # fmt: skip
                    self.capabilities.switch_off(["continue"])
                    form -= {"continue"}
                    self._report_found(before, "it begins a partial turn again, so ")
                    continue
                self.capabilities.confirm(form)
                self._report_found(before)
                return _joined(answers)
            self._report_found(before)
        assert refusal is not None
        raise refusal

    def _report_found(self, before: Mapping[str, bool | None], why: str = "") -> None:
        for name, known in self.capabilities.known.items():
            if known is False and before[name] is not False:
                feature = FEATURES[name]
                reason = why or f"it does not take {feature.parameters[0]}, so "
                self._report_once(f"{reason}{feature.instead}")

    async def _send_as(
        self, request: Request, images: Mapping[str, bytes], form: frozenset[str]
    ) -> list[Reply]:
        # Where n > 1 is known to work, too few choices are an error worth a retry.
        strict = self.capabilities.is_certain("n")
        shown = {i: self._images.encode(i, images) for i in request.image_ids}
        body = chat_body(request, form, self.model, self._fields)
        n = body["n"]

        def read(data: Any) -> Reply:
            if not is_counted(data):
                self._report_once("it does not count its tokens, so they are estimated here")
            return read_reply(data, n, request, strict)

        path = f"{self._base}/chat/completions"
        if n == request.n:
            return [await self._send("POST", path, encode_body(body, shown), read)]
        try:
            async with asyncio.TaskGroup() as group:  # the first failure cancels the others
                tasks = []
                for i in range(request.n):
                    if "seed" in form:
                        body["seed"] = request.sample_seed(i) & WIRE_SEED
                    sending = self._send("POST", path, encode_body(body, shown), read)
                    tasks.append(group.create_task(sending))
        except* (TeacherError, TeacherUnavailable) as failures:
            failure = failures.exceptions[0]
        else:
            return [task.result() for task in tasks]
        raise failure

    def _compare_sizes(self, request: Request, images: Mapping[str, bytes], reply: Reply) -> None:
        """Compare the tokens of the first prompt with those of its images, where sizes matter.

        Raises:
            TeacherUnavailable: the server must have resized the images, so that its coordinates
                are not those of `space`.
        """
        space = self._space
        if self._sizes_compared or space is None or space.kind is not SpaceKind.ABSOLUTE_RESIZED:
            return
        self._sizes_compared = True
        shown = [self._images.encode(i, images) for i in request.image_ids]
        expected = sum(image.tokens(space) for image in shown)
        text = sum(estimate_tokens(message.text) for message in request.messages)
        seen = reply.prompt_tokens - text
        # A count that hardly covers the text is no count of images. Texts are estimated: a third.
        if reply.prompt_tokens < expected and seen > text / 3 + 64:
            factor = space.factor or 1
            raise TeacherUnavailable(
                f"{self.url} read {reply.prompt_tokens} tokens where the images alone have "
                f"{expected}: it resizes them to fewer pixels, and its points would be misread. "
                f"Give --max-pixels as its processor has it; about {seen * factor**2} fits.",
                permanent=True,
            )

    async def _send(
        self,
        method: str,
        path: str,
        pieces: Sequence[bytes] | None,
        read: Callable[[Any], Any],
    ) -> Any:
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
                            response = await self._client.request(method, path, pieces)
                    finally:
                        self.ledger.in_flight -= 1
                return read(read_json(response, self.url))
            except NotConnected as error:
                failure = self._unreachable(error)
                failure.in_flight = dropped
                if error.permanent or attempt >= self._connect_retries:
                    break
            except TimeoutError:
                failure = TeacherError("timeout", f"no answer within {self._timeout_s:g} s")
            except ConnectionLost as error:
                failure = TeacherError("server_error", self._masked(str(error)))
                dropped = True
            except RetryableError as error:
                failure = TeacherError(error.kind, self._masked(str(error)))
                if error.busy:
                    busy = self._masked(str(error))
                    failure = TeacherUnavailable(f"{self.url} has no capacity ({busy}).")
                errors[error.kind] += 1  # each kind has its own number of retries
                if errors[error.kind] > error.retries:
                    break
                wait = max(wait, error.wait_s)
            except TeacherError as error:
                raise TeacherError(error.kind, self._masked(error.message)) from None
            except TeacherUnavailable as error:
                sentence = self._masked(str(error))
                raise TeacherUnavailable(sentence, permanent=error.permanent) from None
            if attempt < self._retries:
                self.ledger.retries += 1
                wait = min(wait, MAX_WAIT_S)
                if wait >= REPORTED_WAIT_S:
                    self._report_once(f"it asks for patience; the next attempt is in {wait:.0f} s")
                await asyncio.sleep(wait)
        raise failure

    async def close(self) -> None:
        """Close the connections."""
        client, self._client, self._loop = self._client, None, None
        if client is not None:
            await client.close()


def _joined(answers: Sequence[Reply]) -> Reply:
    """Return one reply of several to the same prompt."""
    cached = [a.cached_tokens for a in answers if a.cached_tokens is not None]
    return Reply(
        completions=tuple(c for answer in answers for c in answer.completions),
        prompt_tokens=answers[0].prompt_tokens,
        cached_tokens=cached[0] if cached else None,
        completion_tokens=sum(answer.completion_tokens for answer in answers),
        seconds=0.0,
    )
