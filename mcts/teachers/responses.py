"""Parse the responses of an OpenAI-compatible server, and classify the broken ones.

    reply = read_reply(read_json(response, url), n, request, strict=False)

`read_json` tells HTTP responses that are good from those worth a retry (`RetryableError`) and final
ones (`TeacherError`). `read_reply` reads the JSON of `/v1/chat/completions`, and restores what the
server or its chat template kept for itself: a stop string, the `<think>` that the prompt opened.
`fold_partial_turn` is for servers that cannot continue a turn, `starts_anew` finds those that only
say they can. Whatever a server sends is its request's own failure, never more.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from typing import Any

from mcts.teachers.base import (
    Completion,
    Message,
    Reply,
    Request,
    TeacherError,
    TeacherUnavailable,
    TextPart,
)
from mcts.teachers.connections import HttpResponse

SHOWN_CHARS = 300
"""Most characters of a server's own words in a message."""

_NUMBERS = re.compile(r"[\d.,%$\s]+")
_THINK = re.compile(r"<think>(.*?)(?:</think>|$)", re.DOTALL)
_EMPTY_THINK = re.compile(r"\s*<think>\s*</think>\s*(?=\S)")


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


def estimate_tokens(text: str) -> int:
    """Estimate a text's tokens: one a character beyond ASCII, one per four characters of ASCII."""
    ascii_chars = sum(map(str.isascii, text))
    return math.ceil(ascii_chars / 4) + len(text) - ascii_chars


def read_reply(data: Any, n: int, request: Request, strict: bool) -> Reply:
    """Return the `n` completions in `data`, in order of their index; `seconds` is 0.

    With `strict` false, too few choices mean that the server does not support n > 1. Tokens that
    the server does not count are estimated from the texts.

    Raises:
        RetryableError: not the documented structure, too few choices, or all of them empty.
        TeacherError: another attempt will not help.
    """
    try:
        choices = sorted(data["choices"], key=_index)
        texts = [_text(choice, request) for choice in choices]
        reasons = [choice.get("finish_reason") for choice in choices]
        usage = data.get("usage")
        usage = usage if isinstance(usage, Mapping) else {}
        details = usage.get("prompt_tokens_details")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RetryableError(
            "malformed", f"unexpected answer ({error!r}): {plain(str(data)[:200])}"
        ) from None
    if len(texts) < n:
        message = f"{len(texts)} choices where n={n} were requested"
        if texts and not strict:
            raise TeacherError("bad_request", message)
        raise RetryableError("malformed", message)
    if not any(texts):
        # A seeded model that ends its turn at once will do so again: one retry is enough.
        raise RetryableError("empty", "every completion is empty", retries=1)
    completion_tokens = _count(usage.get("completion_tokens"))
    lengths = [len(text) for text in texts]
    if completion_tokens:
        shares = _shares(completion_tokens, lengths)
    else:
        shares = [estimate_tokens(text) for text in texts]
        completion_tokens = sum(shares)
    prompt_tokens = _count(usage.get("prompt_tokens"))
    if not prompt_tokens:
        prompt_tokens = sum(estimate_tokens(message.text) for message in request.messages)
    completions = tuple(
        Completion(text, _finish(reason), tokens, _top_logprobs(choice))
        for text, reason, tokens, choice in zip(texts, reasons, shares, choices, strict=True)
    )
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
    return Reply(completions[:n], prompt_tokens, cached, completion_tokens, 0.0)


def is_counted(data: Any) -> bool:
    """Return whether a response says how many tokens were read and written."""
    usage = data.get("usage") if isinstance(data, Mapping) else None
    if not isinstance(usage, Mapping):
        return False
    return bool(_count(usage.get("prompt_tokens")) and _count(usage.get("completion_tokens")))


def _index(choice: Any) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0  # a stable sort keeps the order of the others


def _count(value: Any) -> int | None:
    """Read a number of tokens; None where there is none that can be one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if 0 <= number < 2**40 else None


def _finish(reason: Any) -> str:
    """Return `length` where the text was cut, else `stop`."""
    cut = str(reason).lower() in ("length", "max_tokens", "max_length", "content_filter")
    return "length" if cut else "stop"


def _top_logprobs(choice: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    """Read the alternatives of the first token; empty where the server reports none."""
    try:
        tokens = choice["logprobs"]["content"][0]["top_logprobs"]
        return tuple((plain(str(token["token"])), float(token["logprob"])) for token in tokens)
    except (KeyError, IndexError, TypeError, ValueError):
        return ()


def _text(choice: dict[str, Any], request: Request) -> str:
    """Read the choice's text, with what the server or its template kept for itself."""
    text = _content(choice, request)
    partial = request.messages[-1].text if request.continues else ""
    text = _without_echo(text, partial)
    opened = _last_tag(partial)
    if opened and text.lstrip().startswith(opened):
        # A server that could not continue the turn opens the tag again; the prompt has it already.
        text = text.lstrip()[len(opened) :]
    if not _is_open("think", partial):
        if match := _EMPTY_THINK.match(text):
            text = text[match.end() :]
        if _think_was_opened(text):
            text = f"<think>{text}"
    if choice.get("finish_reason") == "stop" and not text.endswith(request.stop):
        text += _dropped_stop(choice, request, partial + text)
    return text


def _content(choice: dict[str, Any], request: Request) -> str:
    """Read the text of a choice's message, given as text or as parts.

    Raises:
        TeacherError: a parser of the server took the text apart, or the model refuses.
        TypeError: it is none of the documented forms.
    """
    message = choice["message"]
    content = message.get("content")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(content, list):
        parts = [part if isinstance(part, Mapping) else {"text": part} for part in content]
        reasoning = reasoning or any("thinking" in part for part in parts)
        content = "".join(str(part.get("text") or "") for part in parts)
    content = content or ""
    if not isinstance(content, str):
        raise TypeError("content is not text")
    content = plain(content)
    if not content and message.get("tool_calls"):
        raise TeacherError(
            "bad_request",
            "the server reads the text as tool calls: start it without a tool-call parser "
            "(vLLM: without --enable-auto-tool-choice and --tool-call-parser)",
        )
    wants_thoughts = any("<think>" in message.text for message in request.messages)
    if reasoning and "<think>" not in content and (wants_thoughts or not content):
        raise TeacherError(
            "bad_request",
            "the server removes the thoughts from the text: start it without a reasoning parser "
            "(vLLM: without --reasoning-parser)",
        )
    refusal = message.get("refusal")
    if not content and isinstance(refusal, str) and refusal:
        raise TeacherError("bad_request", f"the model refuses: {plain(refusal)[:SHOWN_CHARS]}")
    if not content and str(choice.get("finish_reason")) == "content_filter":
        raise TeacherError("bad_request", "the server's content filter withheld the answer")
    return content


def _without_echo(text: str, partial: str) -> str:
    """Drop the partial turn from the start of `text`, where the server repeats it, once."""
    begun = partial.strip()
    if begun and "</think>" in begun and text.lstrip().startswith(begun):
        return text.lstrip()[len(begun) :]
    return text


def _is_open(tag: str, turn: str) -> bool:
    return turn.count(f"<{tag}>") > turn.count(f"</{tag}>")


def _think_was_opened(text: str) -> bool:
    """Return whether a text goes on in a `<think>` that the chat template opened in the prompt."""
    closed = text.find("</think>")
    return closed >= 0 and not re.search(r"<(think|answer|tool_call)>", text[:closed])


def starts_anew(texts: list[str], partial: str) -> bool:
    """Return whether completions of a partial turn begin the turn again instead of going on.

    They do where each of them repeats the turn's first thought, numbers aside, or opens a thought
    inside the answer that the partial turn had opened.
    """
    if _is_open("answer", partial):
        return all(text.lstrip().startswith("<think>") for text in texts)
    first = _THINK.search(partial)
    if first is None or "</think>" not in partial:
        return False
    begun = _NUMBERS.sub(" ", first[1]).strip()
    firsts = [_THINK.match(text.lstrip()) for text in texts]
    return bool(begun) and all(
        match is not None and _NUMBERS.sub(" ", match[1]).strip() == begun for match in firsts
    )


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
        return {plain(str(card["id"])): dict(card) for card in data["data"]}
    except (KeyError, TypeError, ValueError, AttributeError):
        shown = plain(str(data)[:200])
        raise RetryableError("malformed", f"not a list of models: {shown}") from None


def read_json(response: HttpResponse, url: str) -> Any:
    """Return the JSON of a good response.

    Raises:
        TeacherUnavailable: the API key is refused, or there is no credit left.
        RetryableError: a timeout, an overloaded or failing server, or no JSON.
        TeacherError: any other status.
    """
    status = response.status
    data, reason = _parse(response)
    if 200 <= status < 300:
        if reason:
            raise RetryableError("malformed", reason)
        return data
    message = f"HTTP {status}: {_error_words(data) or reason or 'no reason given'}"
    if response.proxy and status in (407, 502, 503, 504):
        message += f" (through the proxy {response.proxy})"
    if 300 <= status < 400:
        target = plain(response.headers.get("location", "")) or "another address"
        raise TeacherError("bad_request", f"HTTP {status}: it has moved; name {target} instead")
    if status in (401, 403):
        raise TeacherUnavailable(f"{url} refuses the API key ({message}).", permanent=True)
    if status == 407:
        raise TeacherUnavailable(f"The proxy before {url} wants a password ({message}): "
                                 "give it in HTTP_PROXY, http://user:password@host:port.",
                                 permanent=True)  # fmt: skip
    if status == 402 or (status == 429 and "insufficient_quota" in str(data)[:2000]):
        raise TeacherUnavailable(f"{url} has no credit left ({message}).", permanent=True)
    if status in (408, 425, 429) or status >= 500:
        wait_s = retry_after_s(response.headers.get("retry-after", ""))
        raise RetryableError("server_error", message, wait_s=wait_s, busy=status in (429, 503))
    raise TeacherError("bad_request", message)


def retry_after_s(value: str) -> float:
    """Return the seconds that a Retry-After header asks for; 0 where it says nothing usable."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return seconds if seconds > 0 else 0.0  # also of NaN


def _parse(response: HttpResponse) -> tuple[Any, str]:
    """Return a body's JSON, or None with the reason why it holds none."""
    body, kind = response.body, response.headers.get("content-type", "").partition(";")[0]
    start = body[:200].lstrip().lower()
    if kind.strip().lower() == "text/html" or start.startswith((b"<!doctype", b"<html")):
        title = re.search(rb"<title>(.{0,100}?)</title>", body[:4000], re.DOTALL | re.IGNORECASE)
        named = f", {title[1].decode('utf-8', 'replace').strip()!r}" if title else ""
        return None, f"the answer is a web page{named}, not JSON"
    if start.startswith((b"data:", b"event:")):
        return None, "the answer is a stream of events, which was not asked for"
    if not body.strip():
        return None, "the answer is empty"
    try:  # JSON is UTF-8, whatever charset the header names
        return json.loads(body.decode("utf-8-sig")), ""
    except (ValueError, RecursionError):
        return None, f"the answer is not JSON: {plain(body[:80].decode('utf-8', 'replace'))}"


def _error_words(data: Any) -> str:
    """Return the sentence of an error's JSON, in any of its usual places."""
    if data is None:
        return ""
    error = data.get("error", data) if isinstance(data, Mapping) else data
    if isinstance(error, Mapping):
        named = error.get("param")
        words = error.get("message") or error.get("detail") or error.get("msg") or error
        if isinstance(named, str) and named and named not in str(words):
            words = f"{words} ({named})"
    else:
        words = error
    try:
        return plain(str(words))[:SHOWN_CHARS]
    except RecursionError:
        return "an error nested too deeply to be read"


def plain(text: str) -> str:
    """Return `text` in a form that can be stored and printed: halves of pairs are replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def fold_partial_turn(messages: list[Message]) -> list[Message]:
    """Move the partial turn of a conversation into its last user message."""
    *before, last_user, partial = messages
    thoughts = TextPart(f"\nPrevious thoughts:\n{partial.text}\nContinue right after them.")
    return [*before, Message("user", (*last_user.parts, thoughts))]
