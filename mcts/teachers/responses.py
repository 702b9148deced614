"""Parse the responses of an OpenAI-compatible server, and classify the broken ones.

    reply = read_reply(read_json(response, url), n, request, strict=False)

`read_json` tells HTTP responses that are good from those worth a retry (`RetryableError`) and final
ones (`TeacherError`). `read_reply` reads the JSON of `/v1/chat/completions`, and restores a stop
string that the server left out. `fold_partial_turn` is for servers that cannot continue a turn.
"""

from __future__ import annotations

from typing import Any

import httpx

from mcts.teachers.base import (
    Completion,
    Message,
    Reply,
    Request,
    TeacherError,
    TeacherUnavailable,
    TextPart,
)


class RetryableError(Exception):
    """A broken response; another attempt may succeed."""

    def __init__(
        self, kind: str, message: str, wait_s: float = 0.0, retries: int = 99, busy: bool = False
    ) -> None:
        super().__init__(message)
        self.kind = kind
        """The kind of `TeacherError` it becomes when no attempt is left."""
        self.wait_s = wait_s
        """Seconds the server asks to wait."""
        self.retries = retries
        """Retries it is worth at most."""
        self.busy = busy
        """Whether the server is overloaded, which says nothing about the request."""


def thought_limit_pattern(n: int) -> str:
    """Return a regular expression for texts that end with their `n`-th `</think>` at the latest.

    For servers that generate within a grammar (vLLM's structured outputs). It allows every other
    tag; only "<<" and another use of "</th" are excluded. It is deterministic at every character
    (`other` is unrolled for that), since otherwise vLLM takes milliseconds per token.
    """
    other = r"[^<]*(?:<(?:[^/<]|/[^t<]|/t[^h<])[^<]*)*"
    return rf"(?:{other}</think>){{0,{n - 1}}}{other}(?:</think>)?"


def read_reply(data: Any, n: int, request: Request, strict: bool) -> Reply:
    """Return the `n` completions in `data`, in order of their index; `seconds` is 0.

    With `strict` false, too few choices mean that the server does not support n > 1.

    Raises:
        RetryableError: not the documented structure, too few choices, or all of them empty.
        TeacherError: another attempt will not help.
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
        raise RetryableError(
            "malformed", f"unexpected answer ({error!r}): {str(data)[:200]}"
        ) from None
    if len(texts) < n:
        message = f"{len(texts)} choices where {n} were requested"
        if texts and not strict:
            raise TeacherError("bad_request", message)
        raise RetryableError("malformed", message)
    if not any(texts):
        # A seeded model that ends its turn at once will do so again: one retry is enough.
        raise RetryableError("empty", "every completion is empty", retries=1)
    shares = _shares(completion_tokens, [len(text) for text in texts])
    completions = tuple(
        Completion(text, "length" if reason == "length" else "stop", tokens, _top_logprobs(choice))
        for text, reason, tokens, choice in zip(texts, reasons, shares, choices, strict=True)
    )
    cached_tokens = None if cached is None else int(cached)
    return Reply(completions[:n], prompt_tokens, cached_tokens, completion_tokens, 0.0)


def _top_logprobs(choice: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    """Read the alternatives of the first token; empty where the server reports none."""
    try:
        tokens = choice["logprobs"]["content"][0]["top_logprobs"]
        return tuple((str(token["token"]), float(token["logprob"])) for token in tokens)
    except (KeyError, IndexError, TypeError, ValueError):
        return ()


def _text(choice: dict[str, Any], request: Request) -> str:
    """Read the choice's text, with its stop string even if the server dropped it."""
    message = choice["message"]
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise TypeError("content is not text")
    if not text and (message.get("reasoning_content") or message.get("reasoning")):
        raise TeacherError(
            "bad_request",
            "the server removes the thoughts from the text: start it without a reasoning parser",
        )
    partial = request.messages[-1].text if request.continues else ""
    opened = _last_tag(partial)
    if opened and text.lstrip().startswith(opened):
        # A server that could not continue the turn opens the tag again; the prompt has it already.
        text = text.lstrip()[len(opened) :]
    if choice.get("finish_reason") == "stop" and not text.endswith(request.stop):
        text += _dropped_stop(choice, request, partial + text)
    return text


def _last_tag(partial: str) -> str:
    """Return the opening tag at the end of `partial`, such as `<answer>`, or an empty string."""
    partial = partial.rstrip()
    start = partial.rfind("<")
    is_tag = start >= 0 and partial.endswith(">") and not partial.startswith("</", start)
    return partial[start:] if is_tag else ""


def _dropped_stop(choice: dict[str, Any], request: Request, turn: str) -> str:
    """Return the stop string that ended the turn but is missing from it; empty if none did.

    vLLM names it in `stop_reason` (a string; null or a token id at the end of the turn). Other
    servers do not: then it is the closing tag whose element is open in the turn so far, if there
    is exactly one.
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
    """Split `total` in proportion to `lengths`, into whole numbers that add up to it."""
    whole = sum(lengths)
    ends = [total * sum(lengths[: i + 1]) // whole for i in range(len(lengths))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def read_models(data: Any) -> dict[str, dict[str, Any]]:
    """Return the served models' cards by name, from the JSON of `/v1/models`."""
    try:
        return {str(card["id"]): dict(card) for card in data["data"]}
    except (KeyError, TypeError, ValueError):
        raise RetryableError("malformed", f"not a list of models: {str(data)[:200]}") from None


def read_json(response: httpx.Response, url: str) -> Any:
    """Return the JSON of a good response.

    Raises:
        TeacherUnavailable: the API key is refused.
        RetryableError: a timeout, an overloaded or failing server, or no JSON.
        TeacherError: any other status.
    """
    status = response.status_code
    if status == 200:
        try:
            return response.json()
        except ValueError:
            raise RetryableError("malformed", "the answer is not JSON") from None
    try:
        error = response.json()
        error = error.get("error", error)
        message = str(error.get("message", error))
    except (ValueError, AttributeError):
        message = response.text[:300]
    message = f"HTTP {status}: {message}"
    if status in (401, 403):
        raise TeacherUnavailable(f"{url} refuses the API key ({message}).", permanent=True)
    if status in (408, 429) or status >= 500:
        try:
            wait_s = float(response.headers.get("retry-after", 0))
        except ValueError:  # a date; the usual backoff will do
            wait_s = 0.0
        raise RetryableError("server_error", message, wait_s=wait_s, busy=status in (429, 503))
    raise TeacherError("bad_request", message)


def fold_partial_turn(messages: list[Message]) -> list[Message]:
    """Move the partial turn of a conversation into its last user message."""
    *before, last_user, partial = messages
    thoughts = TextPart(f"\nPrevious thoughts:\n{partial.text}\nContinue right after them.")
    return [*before, Message("user", (*last_user.parts, thoughts))]
