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
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcts.coordinates import CoordinateSpace
from mcts.teachers.base import Ledger, Reply, Request, TeacherError, TeacherUnavailable
from mcts.teachers.capabilities import FEATURES, VLLM_TAKES, Attempt, Capabilities, advice
from mcts.teachers.connections import ConnectionLost, Connections, NotConnected
from mcts.teachers.credentials import Access
from mcts.teachers.image_tokens import SizeCheck, image_tokens
from mcts.teachers.request_bodies import (
    WIRE_SEED,
    EncodedImage,
    EncodedImages,
    chat_body,
    encode_body,
)
from mcts.teachers.responses import (
    NoSuchPlace,
    Refused,
    RetryableError,
    is_counted,
    join_replies,
    prompt_text_tokens,
    read_json,
    read_models,
    read_reply,
)
from mcts.teachers.served_models import identify, listed, not_served, unreachable
from mcts.teachers.shared_refusal import UnreadAnswers
from mcts.teachers.turn_watch import TurnWatch
from mcts.teachers.turns import going_on

MAX_WAIT_S = 60.0
"""Upper limit of one wait between two attempts, whatever the server asks for."""

REPORTED_WAIT_S = 5.0
"""A wait that a server asks for is reported from here on ..."""
REPORT_EVERY_S = 300.0
"""... but not more often than this."""

SILENT_S = 5.0
"""A server that takes so long to list its models is reported."""

CONNECT_S = 10.0
"""A server that cannot be reached within this time is unavailable."""


class OpenAITeacher:
    """A client with a fixed concurrency, retries, and a timeout that cancels the request.

    At most `concurrency` requests are in flight; `timeout_s` seconds is the limit of one attempt;
    an attempt is repeated up to `retries` times, after `backoff_s` * 2**i seconds with jitter, on
    connection errors, timeouts, 404, 408, 429 (its Retry-After is honoured), 5xx and broken
    answers. What still fails then is the request's failure only if the server is there and has
    capacity: a server that is gone, or answered only 404, 429 or 503, is a `TeacherUnavailable`.
    `connect_retries` limits attempts at a server that is not reached or does not answer in time:
    fewer, where there is another one.

    Args:
        api_key: sent as a bearer token, where there is no `access`; never part of a message.
        access: headers that open the server; no secret in them is ever part of a message.
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
        access: Access | None = None,
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
        self._access = access or Access(api_key)
        self._fields = dict(fields or {})
        self._concurrency, self._timeout_s = concurrency, timeout_s
        self._retries, self._backoff_s = retries, backoff_s
        self._connect_retries = retries if connect_retries is None else connect_retries
        self._revision, self._space, self._report = revision, space, report
        self._reported: set[str] = set()
        self._wait_reported = -math.inf
        self._unread = UnreadAnswers(retries)
        self._sizes = SizeCheck(space, self.url, report)
        self._kept: dict[tuple[Request, int], Reply] = {}
        """Single samples of requests that failed as a whole: they are not asked again."""
        watched = self.capabilities.known["continue"] is None
        self._turns = TurnWatch(self._send_probe, watched=watched)
        self._blind = False
        """Whether the last request that was to find out what the server takes found nothing."""
        self._base = "/v1"
        self._identity: str | None = None
        self._lost = False  # it went away, and its model was not checked since
        self._client: Connections | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = self._probing = asyncio.Lock()
        self._slots = asyncio.Semaphore(concurrency)
        self._images = EncodedImages(image_cache_bytes)

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
                self._client = Connections(
                    self.url, headers=self._access.headers, connect_s=connect_s
                )
            except NotConnected as error:
                raise self._unreachable(error) from None
            self._loop, self._opening, self._probing = loop, asyncio.Lock(), asyncio.Lock()
            self._slots = asyncio.Semaphore(self._concurrency)
        async with self._opening:
            if self._identity is None:
                self._identity = await self._find_model()

    def _report_silence(self) -> None:
        if self.ledger.in_flight:  # a server that took the request
            self._report_once(f"it has not listed its models for {SILENT_S:g} s, and is waited for")

    async def _find_model(self) -> str:
        silent = asyncio.get_running_loop().call_later(SILENT_S, self._report_silence)
        try:
            cards = await self._list_models()
        finally:
            silent.cancel()
        if self.model is None and len(cards) != 1:
            raise TeacherUnavailable(f"{self.url} serves {listed(cards)}: name the model to use.")
        self.model = self.model or next(iter(cards))
        identity = self._identify(cards)
        if cards.get(self.model, {}).get("owned_by") == "vllm":
            self.capabilities.presume(VLLM_TAKES)
            self._turns.watched = False  # it refuses what it can't continue
        return identity

    async def _list_models(self) -> dict[str, dict[str, Any]]:
        """Return the served models; only the one that we name, where the server lists none."""
        # Some providers' addresses are whole: `.../v1beta/openai` is followed by `/models`.
        for base in ("/v1", "") if self.url.count("/") > 2 else ("/v1",):
            try:
                cards: dict[str, dict[str, Any]] = await self._send(
                    "GET", f"{base}/models", None, read_models
                )
                self._base = base
                return cards
            except TeacherError as error:
                refusal = error
                if "HTTP 404" not in error.message:
                    break
        if self.model is None or "HTTP 404" not in refusal.message:
            raise TeacherUnavailable(
                f"{self.url} does not answer as an OpenAI-compatible server ({refusal})."
            ) from None
        return {self.model: {}}  # a wrong name shows in the first request

    def _identify(self, cards: Mapping[str, Mapping[str, Any]]) -> str:
        """Return the identity of our model, weights included, among the served models."""
        assert self.model is not None
        try:
            return identify(self.model, cards, self._revision, self._fields)
        except LookupError as missing:
            raise TeacherUnavailable(f"{self.url} serves {missing}") from None

    async def served_identity(self, limit_s: float) -> str:
        """Ask the server, once and ahead of any queue, for its model's current identity.

        Raises:
            TeacherUnavailable: no answer within `limit_s` seconds, or the model is gone.
        """
        try:
            async with asyncio.timeout(limit_s):
                await self.open()
                assert self._client is not None
                response = await self._client.request("GET", f"{self._base}/models")
            return self._identify(read_models(read_json(response, self.url)))
        except NotConnected as error:
            raise self._unreachable(error) from None
        except (TimeoutError, ConnectionLost, TeacherError, RetryableError) as error:
            if isinstance(error, TeacherError) and "HTTP 404" in error.message and self._identity:
                return self._identity  # it answers, and lists no models
            detail = self._access.mask(str(error) or type(error).__name__)
            raise TeacherUnavailable(f"{self.url} does not answer ({detail}).") from None
        except TeacherUnavailable as refusal:
            raise self._explained(refusal) from None

    def _explained(self, refusal: TeacherUnavailable) -> TeacherUnavailable:
        sentence = self._access.explain(self._access.mask(str(refusal)))
        return TeacherUnavailable(sentence, permanent=refusal.permanent)

    def _unreachable(self, error: NotConnected) -> TeacherUnavailable:
        return unreachable(self.url, self._access.mask(str(error)), error.permanent)

    def _report_once(self, sentence: str) -> None:
        if sentence not in self._reported:
            self._reported.add(sentence)
            self._report(f"{self.url}: {sentence}.")

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request`; see `mcts.teachers.base.Teacher.complete`."""
        await self.open()
        self.ledger.requests += 1
        started = time.perf_counter()
        try:
            if self._lost:
                await self._check_model()
            reply = None
            if self._finds_out(request):
                async with self._probing:
                    if self._finds_out(request):  # not found out while it waited
                        started = time.perf_counter()
                        reply = await self._answer(request, images)
                        self._blind = False
            if reply is None:
                started = time.perf_counter()
                reply = await self._answer(request, images)
        except TeacherUnavailable:
            self._lost = True
            raise
        except TeacherError as refusal:
            self.ledger.failures += 1
            refusal.seconds = time.perf_counter() - started
            if refusal.kind in ("server_error", "timeout", "malformed"):
                self._blind = True
                try:
                    await self._check_model()
                except TeacherUnavailable as gone:
                    self._lost = True
                    raise TeacherUnavailable(
                        str(gone), in_flight=True, permanent=gone.permanent
                    ) from refusal
            raise
        reply = replace(reply, seconds=time.perf_counter() - started)
        self.ledger.add(reply)
        return reply

    def _finds_out(self, request: Request) -> bool:
        """Return whether this request finds out for all others what the server takes.

        One does at a time, unless such a one was answered with nothing but failures: then waiting
        for each other would make a server that is in trouble slower still.
        """
        return self.capabilities.unknown(request) and not self._blind

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
        shown = await self._images.of(request, images)
        attempt = self.capabilities.attempt(request)
        refusal: TeacherError | None = None
        while True:
            before = dict(self.capabilities.known)
            try:
                answers = await self._send_as(request, shown, attempt)
            except Refused as error:
                refusal = refusal or error
                if attempt.refused(error.message):
                    continue
                sentence = f"{refusal.message}{advice(error.message, request)}"
                raise TeacherError(refusal.kind, sentence) from None
            reply = join_replies(answers)
            if request.continues and "continue" not in attempt.form:
                reply = going_on(request, reply)
            elif request.continues and await self._turns.begins_anew(
                request, reply, self.capabilities.known["continue"]
            ):
                self.capabilities.known["continue"] = False
                attempt.form -= {"continue"}
                self._report_found(before, "it begins a partial turn again, so ")
                continue
            attempt.answered()
            self._report_found(before)
            return reply

    async def _send_probe(self, probe: Request) -> Reply:
        """Send a partial turn that is to be continued, for `TurnWatch`."""
        form = self.capabilities.form(probe) | {"continue"}
        reply = await self._send_chat(probe, {}, form, 1)
        self.ledger.add(reply)
        return reply

    def _report_found(self, before: Mapping[str, bool | None], why: str = "") -> None:
        for name, known in self.capabilities.known.items():
            if known is False and before[name] is not False:
                feature = FEATURES[name]
                reason = why or f"it does not take {feature.parameters[0]}, so "
                self._report_once(f"{reason}{feature.instead}")

    async def _send_as(
        self, request: Request, shown: Mapping[str, EncodedImage], attempt: Attempt
    ) -> list[Reply]:
        """Send a request in its form; samples that one answer does not give are asked for singly.

        Raises:
            Refused, TeacherError, TeacherUnavailable: there is no sample at all, or no server.
        """
        answers: list[Reply] = []
        done = 0
        if "n" in attempt.form:
            answers.append(await self._send_chat(request, shown, attempt.form, request.n))
            done = len(answers[0].completions)
            if done < request.n:
                attempt.gives_too_few()

        async def single(i: int) -> Reply:
            if (request, i) not in self._kept:
                reply = await self._send_chat(request, shown, attempt.form - {"n"}, 1, i)
                self._kept[request, i] = reply
            return self._kept[request, i]

        missing = range(done, request.n)
        if missing and self.capabilities.unknown(request):  # one refusal is enough
            answers.append(await single(missing[0]))
            missing = missing[1:]
        singles = await asyncio.gather(*map(single, missing), return_exceptions=True)
        answers += [found for found in singles if isinstance(found, Reply)]
        failures = [found for found in singles if isinstance(found, BaseException)]
        for failure in failures:
            if not answers or not isinstance(failure, TeacherError):
                raise failure
        for i in range(request.n):
            self._kept.pop((request, i), None)
        return answers

    async def _send_chat(
        self,
        request: Request,
        shown: Mapping[str, EncodedImage],
        form: frozenset[str],
        n: int,
        first: int = 0,
    ) -> Reply:
        """Request the samples from number `first` on."""
        body = chat_body(request, form, self.model, self._fields) | {"n": n}
        if "seed" in form:
            body["seed"] = request.sample_seed(first) & WIRE_SEED
        counted = True
        sizes = [shown[image_id].size for image_id in request.image_ids]

        def read(data: Any) -> Reply:
            nonlocal counted
            counted = is_counted(data)
            return read_reply(
                data, n, request, keeps_stops="stop" in form,
                image_tokens=image_tokens(self._space, sizes),
            )  # fmt: skip

        path = f"{self._base}/chat/completions"
        reply: Reply = await self._send("POST", path, encode_body(body, shown), read)
        if request.logprobs and all(c.mean_logprob is None for c in reply.completions):
            raise TeacherUnavailable(
                f"{self.url} reports no log-probabilities, which policy_prior needs: leave it out.",
                permanent=True,
            )
        if counted and self._sizes.is_due:
            self._sizes.compare(reply, sizes, prompt_text_tokens(request))
        if not counted:
            self.ledger.estimated += 1
            self._report_once("it does not count its tokens, so they are estimated here")
        return reply

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
        failure: Exception
        assert self._client is not None
        dropped, errors = False, Counter[str]()
        for attempt in range(self._retries + 1):
            wait, asked_s = self._backoff_s * 2**attempt * random.uniform(0.5, 1.0), 0.0
            try:
                async with self._slots:
                    self.ledger.in_flight += 1
                    try:
                        async with asyncio.timeout(self._timeout_s):
                            response = await self._client.request(method, path, pieces)
                    finally:
                        self.ledger.in_flight -= 1
                data = self._access.masked(read_json(response, self.url))
                return self._unread.noted(method, read(data))
            except NotConnected as error:
                failure = self._unreachable(error)
                failure.in_flight = dropped
                if error.permanent or attempt >= self._connect_retries:
                    break
            except TimeoutError:
                late = f"no answer{self._client.via} within {self._timeout_s:g} s"
                failure = TeacherError("timeout", late)
                if attempt >= self._connect_retries:
                    break
            except ConnectionLost as error:
                failure = TeacherError("server_error", self._access.mask(str(error)))
                dropped = True
            except RetryableError as error:
                words = self._access.mask(str(error))
                failure = TeacherError(error.kind, words)
                if error.busy:
                    failure = TeacherUnavailable(f"{self.url} has no capacity ({words}).")
                errors[error.kind] += 1  # each kind has its own number of retries
                if errors[error.kind] > error.retries or self._unread.always(error.kind):
                    break
                asked_s = error.wait_s
            except TeacherError as error:
                refusal = type(error)(error.kind, self._access.mask(error.message))
                if method == "GET" or not isinstance(error, NoSuchPlace):
                    raise refusal from None
                await self._check_model()
                failure = not_served(self.url, self.model, refusal.message)
            except TeacherUnavailable as error:
                raise self._explained(error) from None
            if attempt < self._retries:
                self.ledger.retries += 1
                await self._wait(wait, asked_s)
        raise failure

    async def _wait(self, least_s: float, asked_s: float) -> None:
        """Wait for the next attempt; say so now and then where the server asks for long waits."""
        wait_s = min(max(least_s, asked_s), MAX_WAIT_S)
        if asked_s >= REPORTED_WAIT_S and time.monotonic() >= self._wait_reported + REPORT_EVERY_S:
            self._wait_reported = time.monotonic()
            self._report(f"{self.url}: it asks to wait; the next attempt is in {wait_s:.0f} s.")
        await asyncio.sleep(wait_s)

    async def close(self) -> None:
        """Close the connections."""
        client, self._client, self._loop = self._client, None, None
        if client is not None:
            await client.close()
