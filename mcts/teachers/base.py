"""The interface to every model: requests, replies, failures, and the `Teacher` protocol.

A `Request` is a conversation of texts and images with sampling parameters; a `Teacher` answers it
with a `Reply` of n completions. Teachers: `mcts.teachers.openai_client.OpenAITeacher` (a server
such as vLLM), `mcts.teachers.replicas.Replicas` (several servers of one model),
`mcts.teachers.ensemble.Ensemble` (several models),
`mcts.teachers.local.teacher.LocalTeacher` (a checkpoint in this process) and
`mcts.teachers.reconnect.ReconnectingTeacher` (any of them, waiting while its server is away). A
search uses any of them through the journal (`mcts.journal.journal`).

    request = Request(
        messages=(
            Message("user", (ImagePart(image.image_id), TextPart("Where is the red box?"))),
            Message("assistant", (TextPart("<think>I look at the table first."),)),  # continued
        ),
        n=3, temperature=1.0, top_p=1.0, max_tokens=256, stop=("</think>", "</answer>"), seed=7,
    )
    reply = await teacher.complete(request, {image.image_id: encoded_bytes})
    reply.completions[0].text                      # " The red box is at (412, 630).</think>"

There are two failures. `TeacherError` is final for one request and becomes data: the branch ends
with its kind. `TeacherUnavailable` means that there is no server: it says nothing about the
question, so the run stops, and continues from its journal later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any, Literal, Protocol

from mcts.data import content_id

Role = Literal["system", "user", "assistant", "tool"]

MAX_SEED = 2**63 - 1
"""Servers read a seed into a signed 64-bit integer; vLLM refuses a larger one."""


def seed_of(*parts: object) -> int:
    """Hash a request's key into its seed; neighbouring seeds would overlap between requests."""
    return int(content_id(*parts)[:15], 16)


def sample_seed(seed: int, i: int) -> int:
    """Return the seed of sample i of a request (wraps at 2**63, so it fits a server's type)."""
    return (seed + i) & MAX_SEED


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text in a message."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image in a message, by id; its bytes are passed beside the request."""

    image_id: str
    """A hash that determines the pixels: of the encoded bytes, or of what makes a crop."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[TextPart | ImagePart, ...]

    @property
    def text(self) -> str:
        """The texts of the turn, joined, without images."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation with sampling parameters.

    If the last message is the assistant's it is a partial turn, which completions continue.
    """

    messages: tuple[Message, ...]
    n: int
    """Number of completions; they share one prefill where the teacher can."""
    temperature: float
    """0 is greedy: always the likeliest token, whatever the seed."""
    top_p: float
    """Nucleus: only the likeliest tokens that together have this probability; 1 is all."""
    max_tokens: int
    """Token limit of a completion."""
    stop: tuple[str, ...]
    """A completion ends with the first of these it generates, which stays in its text."""
    seed: int
    """0 <= seed < 2**63. Sample i of n draws from seed + i, so hash seeds well apart."""
    top_logprobs: int = 0
    """Number of likeliest first tokens to report with log probabilities, where a teacher can."""
    logprobs: bool = False
    """Whether to report the mean log-probability of each completion; a teacher that can't is
    unavailable."""
    max_thoughts: int = 0
    """A completion ends after this many thoughts (`</think>`), where a teacher can count them;
    elsewhere the caller must cut it. 0: no limit."""

    def __post_init__(self) -> None:
        if not self.messages or self.n < 1 or self.max_tokens < 1:
            raise ValueError("a request has a message, and n and max_tokens of at least 1")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed {self.seed} is outside 0..2**63-1")

    @property
    def continues(self) -> bool:
        """Whether the last message is a partial assistant turn to be continued."""
        return self.messages[-1].role == "assistant"

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Every image of the conversation, in order, repeats included."""
        parts = (part for message in self.messages for part in message.parts)
        return tuple(part.image_id for part in parts if isinstance(part, ImagePart))

    def sample_seed(self, i: int) -> int:
        """Return the seed of sample i."""
        return sample_seed(self.seed, i)

    def fingerprint(self, model_identity: str) -> str:
        """Return a hex hash of all that determines the answer: this request and the model."""
        turns = [
            [
                message.role,
                [
                    ["text", part.text] if isinstance(part, TextPart) else ["image", part.image_id]
                    for part in message.parts
                ],
            ]
            for message in self.messages
        ]
        sampling = [self.n, float(self.temperature), float(self.top_p), self.max_tokens]
        # Hashed only where they are set, so that all other requests keep their hashes.
        more: list[Any] = [self.top_logprobs] if self.top_logprobs else []
        more += ["logprobs"] if self.logprobs else []
        more += ["most_thoughts", self.max_thoughts] if self.max_thoughts else []
        return content_id(model_identity, turns, sampling, list(self.stop), self.seed, *more)


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled continuation."""

    text: str
    """The generated text, with the stop string that ended it, if one did."""
    finish_reason: str
    """`stop`: a stop string or the end of the turn; `length`: `max_tokens` or the context ran out.
    """
    tokens: int
    """Tokens generated. Where a server reports only the sum over n completions, this completion's
    share of it by length of text."""
    top_logprobs: tuple[tuple[str, float], ...] = ()
    """The likeliest first tokens with their log probabilities, likeliest first; empty where they
    were not requested or the teacher does not report them."""
    mean_logprob: float | None = None
    """Mean log-probability of its tokens, in nats, to the model itself: before temperature and
    top_p. None where it was not requested or the teacher does not report it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request."""

    completions: tuple[Completion, ...]
    """`n` of them, in order of their seeds."""
    prompt_tokens: int
    cached_tokens: int | None
    """Prompt tokens served from a prefix cache; None where unknown."""
    completion_tokens: int
    """Over all completions."""
    seconds: float
    """Wall time from request to answer, waiting and retries included."""
    image_tokens: int = 0
    """Prompt tokens that are images, crops included; estimated where a server reads them."""


def mean_logprob(logprobs: Sequence[float]) -> float | None:
    """Return the mean log-probability of tokens; None of no tokens, or where one is not finite.

    It is rounded to 4 decimals: what another batch rounds otherwise makes no other tree.
    """
    if not logprobs or not all(map(math.isfinite, logprobs)):
        return None
    return round(fmean(logprobs), 4)


class TeacherError(Exception):
    """One request failed for good. Nothing is known about any other request."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        """`bad_request`, `timeout`, `empty`, `malformed` or `server_error`."""
        self.message = message
        self.started_at = self.seconds = 0.0
        """When it was sent (Unix time) and how long it took, in seconds; 0 where unknown."""


class TeacherUnavailable(Exception):
    """There is no model server. The text is one sentence that says where, and what to do."""

    def __init__(self, sentence: str, *, in_flight: bool = False, permanent: bool = False) -> None:
        super().__init__(sentence)
        self.in_flight = in_flight
        """Whether the server went away while it had this request."""
        self.permanent = permanent
        """Whether waiting can't help, as when the API key is refused."""


class UnusableModel(TeacherUnavailable):
    """A model folder can't be run here: it is missing, incomplete, damaged or of another kind."""


@dataclass(slots=True)
class Ledger:
    """Running counts of a teacher since it was created."""

    requests: int = 0
    """Requests, without retries."""
    retries: int = 0
    failures: int = 0
    """Requests that ended in a `TeacherError`."""
    in_flight: int = 0
    """Requests being answered now."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    image_tokens: int = 0
    """Prompt tokens that are images."""
    estimated: int = 0
    """Responses whose tokens the server did not count, so that they were estimated."""

    @classmethod
    def total(cls, ledgers: Iterable[Ledger]) -> Ledger:
        """Return the sum of several."""
        known = list(ledgers)
        return cls(**{f.name: sum(getattr(one, f.name) for one in known) for f in fields(cls)})

    def add(self, reply: Reply) -> None:
        """Add a reply's tokens."""
        self.prompt_tokens += reply.prompt_tokens
        self.cached_tokens += reply.cached_tokens or 0
        self.completion_tokens += reply.completion_tokens
        self.image_tokens += reply.image_tokens


class Teacher(Protocol):
    """A model that answers requests, many at once."""

    @property
    def identity(self) -> str:
        """Name and version of the weights; part of every search id. Available after `open`."""

    @property
    def ledger(self) -> Ledger:
        """Running counts."""

    async def open(self) -> None:
        """Reach the server or load the weights. May be called again; `complete` calls it.

        Raises:
            TeacherUnavailable: there is no server, or no checkpoint.
        """

    async def complete(self, request: Request, images: Mapping[str, bytes]) -> Reply:
        """Answer `request`; `images` maps each of its image ids to encoded bytes (PNG, JPEG).

        Cancelling the call withdraws the request.

        Raises:
            TeacherError: this request failed for good.
            TeacherUnavailable: there is no server to ask.
        """

    async def close(self) -> None:
        """Release connections, threads and memory."""


def image_bytes(images: Mapping[str, bytes], image_id: str) -> bytes:
    """Look up an encoded image; a missing one is a `TeacherError`: only this request needs it."""
    try:
        return images[image_id]
    except KeyError:
        raise TeacherError("bad_request", f"no bytes were given for image {image_id}") from None
