"""Parse the responses of an OpenAI-compatible server, and classify the broken ones.

    reply = read_reply(read_json(response, url), n, request)

`read_json` tells HTTP responses that are good from those worth a retry (`RetryableError`) and final
ones (`TeacherError`). `read_reply` reads the JSON of `/v1/chat/completions`, whatever shape a
server gives it. `fold_partial_turn` is for servers that cannot continue a turn. Whatever a server
sends is its request's own failure, never more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcts.teachers.base import (
    Completion,
    Message,
    Reply,
    Request,
    TeacherError,
    TeacherUnavailable,
    TextPart,
    mean_logprob,
)
from mcts.teachers.connections import HttpResponse
from mcts.teachers.credentials import mask_url
from mcts.teachers.json_answers import one_line, parse_json, retry_after_s
from mcts.teachers.turns import AssistantTurn

_BUSY = (429, 503, 529)
"""Statuses of a server that is overloaded; the last is Anthropic's."""

_CONTENT = re.compile(
    r"content[ _-]?(?:filter|policy|management|moderation)|contentpolicy|moderat|flagged|"
    r"responsible ?ai|safety|prohibited[ _]content|guardrail|(?:prompt|input)[ _](?:was )?blocked",
    re.IGNORECASE,
)
"""In a refusal: it is about what the request shows or says ..."""
_ACCESS = re.compile(
    r"\bkey\b|api[ _-]?key|token|credential|permission|authenti|authori[sz]|account|subscription|"
    r"quota|billing",
    re.IGNORECASE,
)
"""... unless it has one of these words: then it is about who asks."""

_EMPTY_THINK = re.compile(r"\s*<think>\s*(?:</think>\s*)?")


class Refused(TeacherError):
    """The server does not take the request as it is; another form of it may do."""


class NoSuchPlace(TeacherError):
    """The server does not know the address or the model, whatever the request is."""


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


def prompt_text_tokens(request: Request) -> int:
    """Estimate the tokens of a request's texts."""
    return sum(estimate_tokens(message.text) for message in request.messages)


def read_reply(
    data: Any,
    n: int,
    request: Request,
    *,
    keeps_stops: bool = True,
    image_tokens: int = 0,
) -> Reply:
    """Return the completions in `data`, in order of their index; `seconds` is 0.

    There may be fewer than `n`: not every server can give several. Tokens that the server does not
    count are estimated from the texts and `image_tokens`.

    Args:
        keeps_stops: whether the server was asked to leave stop strings in the text.
        image_tokens: tokens of the prompt's images, which no server tells.

    Raises:
        RetryableError: not the documented structure, no choices, or all of them empty.
        TeacherError: another attempt will not help.
    """
    try:
        choices = sorted(data["choices"], key=_index)[:n]
        read = _read_choices(choices, request, keeps_stops)
        usage = data.get("usage")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RetryableError(
            "malformed", f"unexpected answer ({error!r}): {one_line(str(data), 200)}"
        ) from None
    if not choices:
        raise RetryableError("malformed", f"0 choices where n={n} were requested")
    texts = [text for text, _ in read]
    if not any(texts):
        if all(_EMPTY_THINK.fullmatch(_content(choice, request)) for choice in choices):
            raise TeacherError(
                "bad_request",
                "the chat template begins with an empty think block, where the text stops: switch "
                "thinking off (vLLM, SGLang: --server-body "
                "'chat_template_kwargs={\"enable_thinking\": false}')",
            )
        # A seeded model that ends its turn at once will do so again: one retry is enough.
        raise RetryableError("empty", "every completion is empty", retries=1)
    tokens = _read_usage(usage, texts, lambda: prompt_text_tokens(request) + image_tokens)
    shares = _shares(tokens.completion, [len(text) for text in texts])
    completions = tuple(
        Completion(
            text,
            "stop" if finished else "length",
            share,
            _top_logprobs(choice),
            _mean_logprob(choice) if request.logprobs else None,
        )
        for (text, finished), share, choice in zip(read, shares, choices, strict=True)
    )
    return Reply(completions, tokens.prompt, tokens.cached, tokens.completion, 0.0, image_tokens)


@dataclass(frozen=True, slots=True)
class _Tokens:
    prompt: int
    cached: int | None
    completion: int


def _read_usage(usage: Any, texts: list[str], prompt_estimate: Callable[[], int]) -> _Tokens:
    """Read what a response says about its tokens; estimate what it leaves out."""
    usage = usage if isinstance(usage, Mapping) else {}
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if total := _count(usage.get("total_tokens")):
        if prompt and not completion:
            completion = total - prompt
        elif completion and not prompt:
            prompt = total - completion
    if not completion or completion < 0:
        completion = sum(estimate_tokens(text) for text in texts)
    if not prompt or prompt < 0:
        prompt = max(prompt_estimate(), (total or 0) - completion)
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
    return _Tokens(prompt, cached, completion)


def join_replies(answers: Sequence[Reply]) -> Reply:
    """Return one reply of several to the same prompt, which each of them was asked, and paid."""
    cached = [a.cached_tokens for a in answers if a.cached_tokens is not None]
    return Reply(
        completions=tuple(c for answer in answers for c in answer.completions),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        cached_tokens=sum(cached) if cached else None,
        completion_tokens=sum(answer.completion_tokens for answer in answers),
        seconds=0.0,
        image_tokens=sum(answer.image_tokens for answer in answers),
    )


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
    except (ValueError, OverflowError):
        return None
    return int(number) if 0 <= number < 2**40 else None


def _was_cut(reason: Any) -> bool:
    """Return whether a text ended before the model did."""
    words = ("length", "max_tokens", "max_output_tokens", "max_length", "model_length",
             "content_filter", "safety", "recitation", "incomplete")  # fmt: skip
    return str(reason).lower() in words


def _top_logprobs(choice: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    """Read the alternatives of the first token; empty where the server reports none."""
    try:
        tokens = choice["logprobs"]["content"][0]["top_logprobs"]
        found = tuple((str(token["token"]), float(token["logprob"])) for token in tokens)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return ()
    return found if all(math.isfinite(logprob) for _, logprob in found) else ()


def _mean_logprob(choice: dict[str, Any]) -> float | None:
    """Read the mean log-probability of a choice's tokens; None where the server reports none."""
    try:
        logprobs = [float(token["logprob"]) for token in choice["logprobs"]["content"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return mean_logprob(logprobs)


def _read_choices(
    choices: Sequence[dict[str, Any]], request: Request, keeps_stops: bool
) -> list[tuple[str, bool]]:
    """Read the text of each choice, and whether it is whole.

    One that was refused, withheld or broken off is empty where others have a text: those are paid.

    Raises:
        TeacherError: a choice can't be used, whatever the others are; or there is no text at all.
        RetryableError: there is no text at all, and another attempt may help.
    """
    read, failures = [], list[TeacherError | RetryableError]()
    for choice in choices:
        try:
            read.append(_read_choice(choice, request, keeps_stops))
        except (TeacherError, RetryableError) as error:
            if error.kind not in ("empty", "server_error"):
                raise
            failures.append(error)
            read.append(("", False))
    if failures and not any(text for text, _ in read):
        raise failures[0]
    return read


def _read_choice(choice: dict[str, Any], request: Request, keeps_stops: bool) -> tuple[str, bool]:
    """Read a choice's text, as the model wrote it, and whether it is whole."""
    text, reason = _content(choice, request), choice.get("finish_reason")
    if str(reason).lower() in ("error", "abort", "aborted"):
        error = one_line(str(choice.get("error") or f"finish_reason {reason}"))
        raise RetryableError(
            "server_error", f"the server broke the text off: {error}",
            busy=_told_status(choice) in _BUSY,
        )  # fmt: skip
    partial = request.messages[-1].text if request.continues else ""
    turn = AssistantTurn(partial, request.stop, keeps_stops)
    told = choice.get("stop_reason", choice.get("matched_stop", ""))
    return turn.read(text, finished=not _was_cut(reason), stop_reason=told)


def _content(choice: dict[str, Any], request: Request) -> str:
    """Read the text of a choice's message, given as text or as parts.

    Raises:
        TeacherError: a parser of the server took the text apart, or the model refuses.
        TypeError: it is none of the documented forms.
    """
    message = choice["message"]
    content = message.get("content")
    hidden = [message.get(name) for name in ("reasoning_content", "reasoning", "thinking")]
    if isinstance(content, list):
        parts = [part if isinstance(part, Mapping) else {"text": part} for part in content]
        hidden += [part for part in parts if part.get("type") in ("thinking", "reasoning")]
        content = "".join(str(part.get("text") or "") for part in parts if part not in hidden)
    content = "" if content is None else content
    if not isinstance(content, str):
        raise TypeError("content is not text")
    if message.get("tool_calls"):
        raise TeacherError(
            "bad_request",
            "the server reads the text as tool calls: start it without a tool parser "
            "(vLLM: without --enable-auto-tool-choice and --tool-call-parser)",
        )
    wants_thoughts = any("<think>" in message.text for message in request.messages)
    thought = any(part.strip() if isinstance(part, str) else part for part in hidden)
    if thought and (wants_thoughts or not content):
        raise TeacherError(
            "bad_request",
            "the server removes the thoughts from the text: start it without a reasoning parser "
            "(vLLM: without --reasoning-parser), or have them left where they are "
            "(--server-body; docs/servers.md)",
        )
    refusal = message.get("refusal")
    if not content and isinstance(refusal, str) and refusal:
        raise TeacherError("empty", f"the model refuses: {one_line(refusal)}")
    if not content and str(choice.get("finish_reason")).lower() in ("content_filter", "safety"):
        raise TeacherError("empty", "the server's content filter withheld the answer")
    return content


def _shares(total: int, lengths: list[int]) -> list[int]:
    """Split `total` in proportion to `lengths`, into whole numbers that add up to it."""
    whole = sum(lengths)
    ends = [total * sum(lengths[: i + 1]) // whole for i in range(len(lengths))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def read_models(data: Any) -> dict[str, dict[str, Any]]:
    """Return the served models' cards by name, from the JSON of `/v1/models`."""
    try:
        cards = data if isinstance(data, list) else data["data"]  # Together's list is bare
        return {_model_name(card["id"]): dict(card) for card in cards}
    except (KeyError, TypeError, ValueError, AttributeError):
        shown = one_line(str(data), 200)
        raise RetryableError("malformed", f"not a list of models: {shown}") from None


def _model_name(name: Any) -> str:
    """Return what a server calls a model; it is stored and printed as it is.

    Raises:
        ValueError: it is no name.
    """
    if isinstance(name, str) and name.strip() and name.isprintable() and len(name) <= 1000:
        return name
    raise ValueError("no name of a model")


def read_json(response: HttpResponse, url: str) -> Any:
    """Return the JSON of a good response.

    Raises:
        TeacherUnavailable: the API key is refused, or there is no credit left.
        RetryableError: a timeout, an overloaded or failing server, or no JSON.
        Refused: the request is not taken as it is.
        NoSuchPlace: the address or the model is not there.
        TeacherError: any other status, or what the request shows is refused.
    """
    status = response.status
    data, reason = parse_json(response)
    via = f" (through the proxy {response.proxy})" if response.proxy else ""
    if 200 <= status < 300:
        if reason:
            raise RetryableError("malformed", f"{reason}{via}")
        told = None if isinstance(data, Mapping) and "choices" in data else _told_status(data)
        if told is None:
            return data
        status = told
    message = f"HTTP {status}: {_error_words(data) or reason or 'no reason given'}{via}"
    if 300 <= status < 400:
        target = one_line(mask_url(response.headers.get("location", ""))) or "another address"
        moved = f"HTTP {status}: it has moved; name {target} instead{via}"
        raise TeacherError("bad_request", moved)
    if status == 403 and via and reason:  # in a page of its own, not in the server's JSON
        raise TeacherUnavailable(f"The proxy before {url} refuses ({message}): "
                                 "name the server in NO_PROXY if it needs none.",
                                 permanent=True)  # fmt: skip
    if status == 403 and _is_about_content(data):
        raise TeacherError("bad_request", message)
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
        raise RetryableError("server_error", message, wait_s=wait_s, busy=status in _BUSY)
    if status in (404, 405, 410):
        raise NoSuchPlace("bad_request", message)
    if status == 413:
        raise TeacherError("bad_request", message)
    raise Refused("bad_request", message)


def _told_status(data: Any) -> int | None:
    """Return the HTTP status that an error names in its text: routers answer 200 and tell it so."""
    error = data.get("error") if isinstance(data, Mapping) else None
    code = _count(error.get("code")) if isinstance(error, Mapping) else None
    return code if code is not None and 400 <= code < 600 else None


def _is_about_content(data: Any) -> bool:
    """Return whether a refusal says that it is about what the request shows or says."""
    error = data.get("error", data) if isinstance(data, Mapping) else data
    told = error if isinstance(error, Mapping) else {}
    words = one_line(" ".join([_error_words(data), *(str(told.get(n)) for n in ("code", "type"))]))
    shown = f"{words} {told.get('metadata')}"  # with OpenRouter's `flagged_input`
    return _CONTENT.search(shown) is not None and _ACCESS.search(words) is None


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
    return one_line(str(words))


def fold_partial_turn(messages: list[Message]) -> list[Message]:
    """Move the partial turn of a conversation into the message before it."""
    *before, last, partial = messages
    thoughts = TextPart(f"\nPrevious thoughts:\n{partial.text}\nContinue right after them.")
    return [*before, Message(last.role, (*last.parts, thoughts))]
