"""One line of the journal and its encoding: a key, the request's hash, the outcome.

    record = Record.of_reply(key, request.fingerprint(teacher.identity), reply, time.time())
    assert decode(encode(record)) == record

A record holds no prompt: the search can build it again, and the fingerprint proves it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mcts.data import content_id
from mcts.teachers.base import Completion, Reply, TeacherError, seed_of


@dataclass(frozen=True, slots=True)
class Key:
    """The place of a request in a search."""

    search_id: str
    """Hash of question, config, seed and model; no spaces."""
    node: str
    """Path of the node from the root, child indices joined by dots, such as `0.2.1`; root is ``."""
    purpose: str
    """What is requested (`mcts.policy.Policy.sample`), or `judge`."""
    sample: int
    """Index of the request's first sample among those of this purpose at this node."""

    @property
    def seed(self) -> int:
        """The seed of the request's first sample; sample i of n has the i-th after it."""
        return seed_of(self.search_id, self.node, self.purpose, self.sample)

    @property
    def order(self) -> tuple[list[tuple[int, str]], str, int]:
        """A sort key within a search: a parent before its children, child 2 before child 10."""
        path = [(len(step), step) for step in self.node.split(".") if step]
        return path, self.purpose, self.sample


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request failed for good."""

    kind: str
    """The kind of the `TeacherError`."""
    message: str


@dataclass(frozen=True, slots=True)
class Record:
    """One response: either completions, or a failure."""

    key: Key
    fingerprint: str
    """Hash of the request and the model's identity."""
    completions: tuple[Completion, ...]
    """Empty after a failure."""
    failure: Failure | None
    prompt_tokens: int
    cached_tokens: int | None
    """Prompt tokens from the prefix cache; None where unknown."""
    completion_tokens: int
    seconds: float
    """Wall time from request to answer."""
    started_at: float
    """Unix time in seconds."""
    image_tokens: int = 0
    """Prompt tokens that are images; 0 in journals of older code."""

    @property
    def response_id(self) -> str:
        """Content hash of key, request and outcome, without times."""
        key = [self.key.search_id, self.key.node, self.key.purpose, self.key.sample]
        answers = [[c.text, c.finish_reason, c.tokens] for c in self.completions]
        failure = self.failure and [self.failure.kind, self.failure.message]
        return content_id(key, self.fingerprint, answers, failure)

    @classmethod
    def of_reply(cls, key: Key, fingerprint: str, reply: Reply, started_at: float) -> Record:
        """Make the record of an answer."""
        return cls(
            key, fingerprint, reply.completions, None, reply.prompt_tokens, reply.cached_tokens,
            reply.completion_tokens, reply.seconds, started_at, reply.image_tokens,
        )  # fmt: skip

    @classmethod
    def of_failure(
        cls, key: Key, fingerprint: str, error: TeacherError, seconds: float, started_at: float
    ) -> Record:
        """Make the record of a final failure."""
        failure = Failure(error.kind, error.message)
        return cls(key, fingerprint, (), failure, 0, None, 0, seconds, started_at)


def encode(record: Record, teacher: str | None = None) -> bytes:
    """Encode a record as a line: `checksum search_id json`, with its line break.

    The search id comes first so that indexing need not parse the rest. The first line of a segment
    also names the `teacher` that answers, whose identity a replay needs.
    """
    key = record.key
    if not key.search_id.isascii() or len(key.search_id.split()) != 1:
        raise ValueError(f"a search id is one ASCII word, not {key.search_id!r}")
    fields = {
        "key": [key.node, key.purpose, key.sample],
        "request": record.fingerprint,
        "completions": [_fields(completion) for completion in record.completions],
        "failure": record.failure and [record.failure.kind, record.failure.message],
        "tokens": [record.prompt_tokens, record.cached_tokens, record.completion_tokens],
        "seconds": round(record.seconds, 6),
        "started_at": round(record.started_at, 6),
    }
    if record.image_tokens:
        fields["image_tokens"] = record.image_tokens
    if teacher is not None:
        fields["teacher"] = teacher
    # ASCII JSON: half a surrogate pair, which a model can emit, has no UTF-8 form.
    body = f"{key.search_id} {json.dumps(fields, separators=(',', ':'))}".encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(body), body)


def is_intact(line: bytes) -> bool:
    """Return whether a line is complete and its checksum holds."""
    try:
        whole = line[8:9] == b" " and line.endswith(b"\n") and b" " in line[9:]
        return whole and int(line[:8], 16) == zlib.crc32(line[9:-1])
    except ValueError:
        return False


def search_of(line: bytes) -> str:
    """Return the search id of an intact line."""
    return line[9 : line.index(b" ", 9)].decode("ascii")


def teacher_of(line: bytes) -> str | None:
    """Return the teacher's identity from an intact line, or None if the line has none."""
    identity = json.loads(line[line.index(b" ", 9) :]).get("teacher")
    return None if identity is None else str(identity)


def decode(line: bytes) -> Record:
    """Decode the record of an intact line; its times are rounded to microseconds."""
    fields = json.loads(line[line.index(b" ", 9) :])
    node, purpose, sample = fields["key"]
    prompt_tokens, cached_tokens, completion_tokens = fields["tokens"]
    failure = fields["failure"]
    return Record(
        key=Key(search_of(line), node, purpose, sample),
        fingerprint=fields["request"],
        completions=tuple(_completion(*completion) for completion in fields["completions"]),
        failure=Failure(*failure) if failure else None,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        seconds=fields["seconds"],
        started_at=fields["started_at"],
        image_tokens=fields.get("image_tokens", 0),
    )


def _fields(completion: Completion) -> list[Any]:
    """Return a completion's fields, without those at the end that are empty."""
    fields = [completion.text, completion.finish_reason, completion.tokens]
    if completion.top_logprobs or completion.mean_logprob is not None:
        fields.append(completion.top_logprobs)
    if completion.mean_logprob is not None:
        fields.append(completion.mean_logprob)
    return fields


def _completion(
    text: str,
    finish_reason: str,
    tokens: int,
    top_logprobs: Iterable[tuple[str, float]] = (),
    mean_logprob: float | None = None,
) -> Completion:
    # JSON has no tuples.
    alternatives = tuple((token, logprob) for token, logprob in top_logprobs)
    return Completion(text, finish_reason, tokens, alternatives, mean_logprob)
