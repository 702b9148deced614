"""Reading what an OpenAI-compatible server answered, and telling a broken answer from a good one.

`read_json` sorts HTTP answers into good, worth repeating and final. `read_answer` turns the JSON of
`/v1/chat/completions` into an `Answer`, or raises `Trouble` when asking again may help. It also
puts back a stop string that the server left out, and tells a partial turn to one that cannot
continue it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcts.teachers.base import Completion, Message, Request, TeacherError, TeacherUnavailable, Text

if TYPE_CHECKING:
    import httpx


class Trouble(Exception):
    """A broken answer that may be better the next time."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        wait_s: float = 0.0,
        tries: int = 99,
        busy: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        """The kind of `TeacherError` it becomes when no try is left."""
        self.wait_s = wait_s
        """Seconds the server wants us to wait."""
        self.tries = tries
        """How many repetitions it is worth at most."""
        self.busy = busy
        """Whether the server has no time for anybody, which says nothing about the request."""


def thoughts_at_most(n: int) -> str:
    """A regular expression for any text that ends with its `n`-th `</think>`, if it has so many.

    For servers that keep to one while they write (vLLM's structured outputs). It holds no other
    tag back: only "<<" is never written, and "</th" is begun for nothing else. At every character
    one way through it is open, or vLLM takes milliseconds a token: `other` is unrolled for that.
    """
    other = r"[^<]*(?:<(?:[^/<]|/[^t<]|/t[^h<])[^<]*)*"
    return rf"(?:{other}</think>){{0,{n - 1}}}{other}(?:</think>)?"


@dataclass(frozen=True, slots=True)
class Answer:
    """The choices of one HTTP request."""

    completions: tuple[Completion, ...]
    prompt_tokens: int
    cached_tokens: int | None
    completion_tokens: int


def read_answer(data: Any, n: int, request: Request, strict: bool) -> Answer:
    """The `n` completions in `data`, in order of their index.

    With `strict` false, too few choices mean that the server cannot sample many.

    Raises:
        Trouble: worth asking again: not the documented shape, too few choices, all empty.
        TeacherError: asking again will not help.
    """
    try:
        choices = sorted(data["choices"], key=lambda choice: int(choice.get("index", 0)))
        texts = [_text(choice, request) for choice in choices]
        reasons = [str(choice.get("finish_reason") or "stop") for choice in choices]
        usage = data.get("usage") or {}
        prompt_tokens = int(usage.get("prompt_tokens", 0))
        completion_tokens = int(usage.get("completion_tokens", 0))
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Trouble("malformed", f"unexpected answer ({error!r}): {str(data)[:200]}") from None
    if len(texts) < n:
        message = f"{len(texts)} choices where {n} were asked for"
        if texts and not strict:
            raise TeacherError("bad_request", message)
        raise Trouble("malformed", message)
    if not any(texts):
        # A seeded model that ends its turn at once will do so again: one more try is enough.
        raise Trouble("empty", "every completion is empty", tries=1)
    shares = _shares(completion_tokens, [len(text) for text in texts])
    completions = tuple(
        Completion(text, "length" if reason == "length" else "stop", tokens, _first(choice))
        for text, reason, tokens, choice in zip(texts, reasons, shares, choices, strict=True)
    )
    return Answer(
        completions[:n], prompt_tokens, None if cached is None else int(cached), completion_tokens
    )


def _first(choice: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    """The alternatives of the first token; empty where the server, or its dialect, tells none."""
    try:
        told = choice["logprobs"]["content"][0]["top_logprobs"]
        return tuple((str(one["token"]), float(one["logprob"])) for one in told)
    except (KeyError, IndexError, TypeError, ValueError):
        return ()


def _text(choice: dict[str, Any], request: Request) -> str:
    """The choice's text with its stop string, whatever the server did with it."""
    message = choice["message"]
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise TypeError("content is not text")
    if not text and (message.get("reasoning_content") or message.get("reasoning")):
        raise TeacherError(
            "bad_request",
            "the server takes the thoughts out of the text: start it without a reasoning parser",
        )
    partial = request.messages[-1].text if request.continues else ""
    opened = _last_tag(partial)
    if opened and text.lstrip().startswith(opened):
        # A server that could not continue the turn opens the tag anew; the caller has it already.
        text = text.lstrip()[len(opened) :]
    if choice.get("finish_reason") == "stop" and not text.endswith(request.stop):
        text += _dropped_stop(choice, request, partial + text)
    return text


def _last_tag(partial: str) -> str:
    """The opening tag `partial` ends with, such as `<answer>`; empty if it ends with none."""
    partial = partial.rstrip()
    start = partial.rfind("<")
    is_tag = start >= 0 and partial.endswith(">") and not partial.startswith("</", start)
    return partial[start:] if is_tag else ""


def _dropped_stop(choice: dict[str, Any], request: Request, turn: str) -> str:
    """The stop string that ended the turn but is missing from it; empty if the model just ended.

    vLLM says which one in `stop_reason` (a string; null or a token id at the end of the turn).
    Other servers do not: then a closing tag counts if its element is open in the turn so far, and
    only if it is the only one.
    """
    if "stop_reason" in choice:
        reason = choice["stop_reason"]
        return reason if isinstance(reason, str) and reason in request.stop else ""

    def still_open(stop: str) -> bool:
        return turn.count(stop.replace("</", "<", 1)) > turn.count(stop)

    tags = [stop for stop in request.stop if stop.startswith("</")]
    open_tags = [stop for stop in tags if still_open(stop)]
    if len(open_tags) == 1:
        return open_tags[0]
    return request.stop[0] if len(request.stop) == 1 and not tags else ""


def _shares(total: int, lengths: list[int]) -> list[int]:
    """`total` split in proportion to `lengths`, in whole numbers that add up to it."""
    whole = sum(lengths)
    ends = [total * sum(lengths[: i + 1]) // whole for i in range(len(lengths))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def read_models(data: Any) -> dict[str, dict[str, Any]]:
    """The served models' cards by name, from the JSON of `/v1/models`."""
    try:
        return {str(card["id"]): dict(card) for card in data["data"]}
    except (KeyError, TypeError, ValueError):
        raise Trouble("malformed", f"not a list of models: {str(data)[:200]}") from None


def read_json(response: httpx.Response, url: str) -> Any:
    """The JSON of a good response; the right exception for any other."""
    status = response.status_code
    if status == 200:
        try:
            return response.json()
        except ValueError:
            raise Trouble("malformed", "the answer is not JSON") from None
    try:
        told = response.json()
        told = told.get("error", told)
        message = str(told.get("message", told))
    except (ValueError, AttributeError):
        message = response.text[:300]
    message = f"HTTP {status}: {message}"
    if status in (401, 403):
        raise TeacherUnavailable(f"{url} refuses the API key ({message}).", lasting=True)
    if status in (408, 429) or status >= 500:
        try:
            wait_s = float(response.headers.get("retry-after", 0))
        except ValueError:  # a date; the usual backoff will do
            wait_s = 0.0
        raise Trouble("server_error", message, wait_s=wait_s, busy=status in (429, 503))
    raise TeacherError("bad_request", message)


def fold_partial_turn(messages: list[Message]) -> list[Message]:
    """The conversation with its partial turn told in the last user message instead."""
    *before, last_user, partial = messages
    told = Text(f"\nPrevious thoughts:\n{partial.text}\nContinue right after them.")
    return [*before, Message("user", (*last_user.parts, told))]
