"""What a search asks of a model, and what it gets back; the one door to any model.

A `Request` is a conversation of texts and pictures and how to sample from it; a `Teacher` answers
it with a `Reply` of n completions. There are three teachers: `OpenAITeacher` speaks to a server
such as vLLM (`mcts.teachers.server`), `Replicas` to several of one model
(`mcts.teachers.replicas`), `LocalTeacher` runs a checkpoint in this process
(`mcts.teachers.local.teacher`). The search does not know which one it has, and asks through the
journal (`mcts.journal.journal`).

    request = Request(
        messages=(
            Message("user", (Picture(image.image_id), Text("Where is the red box?"))),
            Message("assistant", (Text("<think>I look at the table first."),)),  # continued
        ),
        n=3, temperature=1.0, top_p=1.0, max_tokens=256, stop=("</think>", "</answer>"), seed=7,
    )
    reply = await teacher.complete(request, {image.image_id: encoded_picture})
    reply.completions[0].text                      # " The red box is at (412, 630).</think>"

A failure is one of two things. `TeacherError` is final for this one request and becomes data: the
branch ends with its kind. `TeacherUnavailable` means that there is no server to ask: it says
nothing about the question, so the run stops, and goes on from its journal later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mcts.data import content_id

if TYPE_CHECKING:
    from mcts.teachers.server import OpenAITeacher as OpenAITeacher

Role = Literal["system", "user", "assistant"]

MAX_SEED = 2**63 - 1
"""Servers read a seed into a signed 64-bit integer; vLLM refuses a larger one."""


def seed_of(*parts: object) -> int:
    """A request's seed by what it is asked for: a hash, since neighbouring seeds would overlap."""
    return int(content_id(*parts)[:15], 16)


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text in a message."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in a message, by name; its bytes travel beside the request."""

    image_id: str
    """SHA-256 (hex) of the encoded bytes, so the name determines the pixels."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Text | Picture, ...]

    @property
    def text(self) -> str:
        """The texts of the turn, joined; pictures are left out."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation and how to sample from it.

    If the last message is the assistant's it is a partial turn, and completions continue it.
    """

    messages: tuple[Message, ...]
    n: int
    """How many completions; they share one prefill where the teacher can."""
    temperature: float
    """0 is greedy: always the likeliest token, the seed has no effect."""
    top_p: float
    """Nucleus: only the likeliest tokens that together hold this much probability; 1 is all."""
    max_tokens: int
    """The most tokens a completion may have."""
    stop: tuple[str, ...]
    """A completion ends with the first of these it produces, which is kept in its text."""
    seed: int
    """0 <= seed < 2**63. Sample i of n draws from seed + i, so hash seeds well apart."""
    alternatives: int = 0
    """How many of the likeliest first tokens to tell the log probability of, where a teacher can.
    """
    most_thoughts: int = 0
    """A completion ends with this many thoughts of its own at the latest, where a teacher can
    count them (`</think>`); others go on, and who asks must cut. 0: as many as it likes."""

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
        """Every picture spoken of, in order, repeats included."""
        parts = (part for message in self.messages for part in message.parts)
        return tuple(part.image_id for part in parts if isinstance(part, Picture))

    def sample_seed(self, i: int) -> int:
        """The seed of sample i (wraps at 2**63, so it always fits the server's type)."""
        return (self.seed + i) & MAX_SEED

    def fingerprint(self, model_identity: str) -> str:
        """Hex hash of everything that determines the answer: this request and the model."""
        turns = [
            [
                message.role,
                [
                    ["text", part.text] if isinstance(part, Text) else ["image", part.image_id]
                    for part in message.parts
                ],
            ]
            for message in self.messages
        ]
        sampling = [self.n, float(self.temperature), float(self.top_p), self.max_tokens]
        # Set only by those who ask for them, so that all other requests keep their hashes.
        more: list[Any] = [self.alternatives] if self.alternatives else []
        more += ["most_thoughts", self.most_thoughts] if self.most_thoughts else []
        return content_id(model_identity, turns, sampling, list(self.stop), self.seed, *more)


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled continuation."""

    text: str
    """What the model wrote, with the stop string that ended it, if one did."""
    finish_reason: str
    """`stop`: a stop string or the end of the turn; `length`: `max_tokens` or the context ran out.
    """
    tokens: int
    """Tokens generated. Where a server reports only the sum over n completions, this completion's
    share of it by length of text."""
    first: tuple[tuple[str, float], ...] = ()
    """The likeliest first tokens with their log probabilities, likeliest first; empty where they
    were not asked for or the teacher does not tell."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request."""

    completions: tuple[Completion, ...]
    """`n` of them, in order of their seeds."""
    prompt_tokens: int
    cached_tokens: int | None
    """Prompt tokens served from a prefix cache; None when the teacher does not say."""
    completion_tokens: int
    """Over all completions."""
    seconds: float
    """Wall clock from asking to having it, waiting and retries included."""


class TeacherError(Exception):
    """One request failed for good. Nothing is known about any other request."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        """`bad_request`, `timeout`, `empty`, `malformed` or `server_error`."""
        self.message = message
        self.began = self.seconds = 0.0
        """When it was asked (Unix time) and how long that took, in seconds; 0 where unknown."""


class TeacherUnavailable(Exception):
    """There is no teacher to ask. The text is one sentence that says where and what to do."""

    def __init__(self, sentence: str, *, answering: bool = False, lasting: bool = False) -> None:
        super().__init__(sentence)
        self.answering = answering
        """Whether it went away while it had this request."""
        self.lasting = lasting
        """Whether waiting can't help, such as with a key that is refused."""


@dataclass(slots=True)
class Ledger:
    """What a teacher has done since it was made; running counts."""

    requests: int = 0
    """Asked of the model, retries not counted."""
    retries: int = 0
    failures: int = 0
    """Requests that ended in a `TeacherError`."""
    in_flight: int = 0
    """Being answered now."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def add(self, reply: Reply) -> None:
        """Count a reply's tokens."""
        self.prompt_tokens += reply.prompt_tokens
        self.cached_tokens += reply.cached_tokens or 0
        self.completion_tokens += reply.completion_tokens


class Teacher(Protocol):
    """A model that answers requests, many at a time."""

    @property
    def identity(self) -> str:
        """Name and version of the weights; part of every search id. Known after `open`."""

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
        """Let go of connections, threads and memory."""


def picture_bytes(images: Mapping[str, bytes], image_id: str) -> bytes:
    """The encoded picture; a missing one is a `TeacherError`, since only this request needs it."""
    try:
        return images[image_id]
    except KeyError:
        raise TeacherError("bad_request", f"no bytes were given for image {image_id}") from None


def __getattr__(name: str) -> Any:
    # The server client pulls in httpx, which a replay or a local teacher never needs.
    if name == "OpenAITeacher":
        from mcts.teachers.server import OpenAITeacher

        return OpenAITeacher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
