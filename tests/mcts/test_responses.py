"""Reading a server's answers: what is counted, what is estimated, and which text is the model's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

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
from mcts.teachers.responses import (
    Refused,
    RetryableError,
    estimate_tokens,
    is_counted,
    join_replies,
    read_json,
    read_reply,
)

ASK = Request(
    (Message("user", (TextPart("x" * 40),)), Message("assistant", (TextPart("<think>"),))),
    2, 1.0, 1.0, 64, ("</think>",), 7,
)  # fmt: skip


def choice(text: Any = "At 1</think>", **fields: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": "stop", "message": {"content": text}, **fields}


def read(*choices: dict[str, Any], usage: Any = None, **options: Any) -> Reply:
    return read_reply({"choices": list(choices), "usage": usage}, 2, ASK, **options)


BLANK = choice("", finish_reason="length")
OWN = estimate_tokens("x" * 40) + estimate_tokens("<think>")
TEXT = estimate_tokens("At 1</think>")


@pytest.mark.parametrize(
    ("usage", "prompt", "completion"),
    [
        ({"prompt_tokens": 90, "completion_tokens": 9, "total_tokens": 500}, 90, 9),
        ({"prompt_tokens": 90, "total_tokens": 99}, 90, 9),
        ({"completion_tokens": 9, "total_tokens": 99}, 90, 9),
        ({"total_tokens": 99}, 99 - TEXT, TEXT),
        ({"total_tokens": 1}, OWN + 5, TEXT),
        ({"prompt_tokens": 90, "total_tokens": 80}, 90, TEXT),
        ({"completion_tokens": 90, "total_tokens": 80}, OWN + 5, 90),
        ({"prompt_tokens": 90}, 90, TEXT),
        ({"completion_tokens": 9}, OWN + 5, 9),
        ({"prompt_tokens": "90", "completion_tokens": 9.0}, 90, 9),
        ({"prompt_tokens": True, "completion_tokens": 2**40}, OWN + 5, TEXT),
        ({"prompt_tokens": "nan", "completion_tokens": "1e999"}, OWN + 5, TEXT),
        ([], OWN + 5, TEXT),
    ],
)
def test_a_count_that_is_left_out_follows_from_the_others_or_is_estimated(
    usage: Any, prompt: int, completion: int
) -> None:
    answered = read(choice(), usage=usage, image_tokens=5)
    assert (answered.prompt_tokens, answered.completion_tokens) == (prompt, completion)
    assert answered.image_tokens == 5 and answered.cached_tokens is None


def test_cached_tokens_are_those_that_the_server_names() -> None:
    for details, cached in (({"cached_tokens": 7}, 7), ({"cached_tokens": 0}, 0), ({}, None)):
        assert read(choice(), usage={"prompt_tokens_details": details}).cached_tokens == cached
    assert read(choice(), usage={"prompt_tokens_details": 7}).cached_tokens is None


def test_counted_is_what_names_both_counts() -> None:
    both = {"prompt_tokens": 3, "completion_tokens": 1}
    assert is_counted({"usage": both})
    for name in both:
        assert not is_counted({"usage": {**both, name: 0}})
        assert not is_counted({"usage": {k: v for k, v in both.items() if k != name}})
    assert not is_counted({"usage": None}) and not is_counted([])


def test_letters_beyond_ascii_are_a_token_each_and_others_a_quarter() -> None:
    found = [estimate_tokens(text) for text in ("", "a", "abcd", "abcde", "点点", "点abcd")]
    assert found == [0, 1, 1, 2, 2, 2]


def test_tokens_are_shared_by_the_length_of_the_texts() -> None:
    answered = read(choice("a" * 30 + "</think>"), choice("</think>"), usage={
        "prompt_tokens": 9, "completion_tokens": 46})  # fmt: skip
    long, short = (completion.tokens for completion in answered.completions)
    assert long + short == 46 and long > 3 * short > 0


def test_choices_come_in_the_order_of_their_index_and_never_more_than_were_asked() -> None:
    given = [choice(f"{i}</think>", index=i) for i in (2, 1, 0)]
    assert [c.text[:1] for c in read(*given).completions] == ["0", "1"]


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", "model_length", "content_filter"])
def test_a_text_that_was_cut_says_so(reason: str) -> None:
    (cut,) = read(choice("At", finish_reason=reason)).completions
    assert (cut.text, cut.finish_reason) == ("At", "length")
    (whole,) = read(choice()).completions
    assert (whole.text, whole.finish_reason) == ("At 1</think>", "stop")


def test_first_tokens_and_their_alternatives_are_read_where_all_are_numbers() -> None:
    def of(*tokens: Any) -> Any:
        (found,) = read(choice(logprobs={"content": [{"top_logprobs": tokens}]})).completions
        return found.top_logprobs

    good, other = {"token": "a", "logprob": -0.5}, {"token": "b", "logprob": "-2"}
    assert of(good, other) == (("a", -0.5), ("b", -2.0))
    assert of(good, {"token": "b", "logprob": "-inf"}) == ()
    assert of(good, {"token": "b"}) == ()


def test_the_mean_log_probability_is_of_all_tokens_where_each_has_one() -> None:
    def of(*tokens: Any, wanted: bool = True) -> float | None:
        request = replace(ASK, logprobs=wanted)
        told = choice(logprobs={"content": [{"token": "a", "logprob": p} for p in tokens]})
        (found,) = read_reply({"choices": [told]}, 1, request).completions
        return found.mean_logprob

    assert of(-0.5, "-2", -0.01234) == -0.8374
    assert of(-0.5, -2, wanted=False) is None
    assert of() is of(-0.5, None) is of(-0.5, "-inf") is None
    (untold,) = read_reply({"choices": [choice()]}, 1, replace(ASK, logprobs=True)).completions
    assert untold.mean_logprob is None


def test_text_that_comes_in_parts_is_joined_without_what_is_hidden() -> None:
    parts = [{"type": "text", "text": "At "}, {"text": None}, "1</think>"]
    (found,) = read(choice(parts)).completions
    assert found.text == "At 1</think>"
    with pytest.raises(TeacherError, match="removes the thoughts"):
        read(choice([{"type": "thinking", "thinking": "hm"}, *parts]))
    assert read(choice(message={"content": "At 1</think>", "reasoning": "  "})).completions


@pytest.mark.parametrize(
    ("fields", "kind", "sentence"),
    [
        ({"message": {"content": None, "refusal": "no\nway"}}, "empty", "refuses: no way"),
        ({"message": {}, "finish_reason": "SAFETY"}, "empty", "content filter withheld"),
        ({"message": {"content": "a", "tool_calls": [1]}}, "bad_request", "as tool calls"),
    ],
)
def test_what_no_other_attempt_would_help_is_final(
    fields: dict[str, Any], kind: str, sentence: str
) -> None:
    with pytest.raises(TeacherError, match=sentence) as told:
        read(choice(**fields))
    assert told.value.kind == kind


@pytest.mark.parametrize(
    "fields",
    [
        {"message": {"content": None, "refusal": "no"}},
        {"message": {}, "finish_reason": "content_filter"},
        {"finish_reason": "abort"},
    ],
)
def test_a_sample_that_was_withheld_or_broken_off_leaves_the_others(fields: dict[str, Any]) -> None:
    """They are paid, and would be asked for again, or lost."""
    reply = read(choice(**fields), choice())
    found = [(completion.text, completion.finish_reason) for completion in reply.completions]
    assert found == [("", "length"), ("At 1</think>", "stop")]


def test_a_template_that_writes_an_empty_think_block_is_named() -> None:
    """The text of the turn stops where that block ends, so no attempt gives more."""
    asked = replace(ASK, messages=ASK.messages[:1])
    for text in ("<think></think>", "<think>\n\n</think>\n"):
        with pytest.raises(TeacherError, match="begins with an empty think block") as told:
            read_reply({"choices": [choice(text)] * 2}, 2, asked)
        assert told.value.kind == "bad_request"
    with pytest.raises(RetryableError):
        read_reply({"choices": [choice("<think></think>"), BLANK]}, 2, asked)


@pytest.mark.parametrize(
    ("choices", "kind", "retries", "sentence"),
    [
        ((), "malformed", 99, "0 choices where n=2 were requested"),
        ((BLANK, {**BLANK, "message": {"content": None}}), "empty", 1, "every completion is empty"),
        ((choice(7),), "malformed", 99, "content is not text"),
        ((choice(finish_reason="abort"),), "server_error", 99, "finish_reason abort"),
        ((choice(finish_reason="error", error="no\nroom"),), "server_error", 99, "off: no room"),
    ],
)
def test_what_another_attempt_may_mend_says_how_often(
    choices: tuple[dict[str, Any], ...], kind: str, retries: int, sentence: str
) -> None:
    with pytest.raises(RetryableError, match=sentence) as told:
        read(*choices)
    assert (told.value.kind, told.value.retries, told.value.busy) == (kind, retries, False)


@pytest.mark.parametrize("code", [429, "503", 529])
def test_an_overload_is_told_in_any_place(code: int | str) -> None:
    error = {"message": "Overloaded", "code": code}
    http = HttpResponse(200, {}, json.dumps({"error": error}).encode())
    for told in (
        lambda: read_json(http, "http://x"),
        lambda: read_json(HttpResponse(int(code), {}, b"{}"), "http://x"),
        lambda: read({"message": {"content": "a"}, "finish_reason": "error", "error": error}),
    ):
        with pytest.raises(RetryableError) as found:
            told()
        assert found.value.busy


def test_a_refusal_that_is_answered_with_200_is_one() -> None:
    def answered(error: dict[str, Any]) -> Any:
        return read_json(HttpResponse(200, {}, json.dumps({"error": error}).encode()), "http://x")

    with pytest.raises(TeacherUnavailable, match="no credit left"):
        answered({"code": 402, "message": "pay"})
    with pytest.raises(Refused, match="HTTP 400: no n"):
        answered({"code": 400, "message": "no n"})
    assert answered({"code": "odd"}) == {"error": {"code": "odd"}}


def test_replies_to_one_prompt_are_joined() -> None:
    def reply(text: str, cached: int | None, tokens: int) -> Reply:
        return Reply((Completion(text, "stop", tokens, ()),), 9, cached, tokens, 3.0, 4)

    joined = join_replies([reply("a", None, 2), reply("b", 8, 3), reply("c", 9, 4)])
    assert [completion.text for completion in joined.completions] == ["a", "b", "c"]
    # Each was a request of its own, which the server read, and counts, with all its images.
    assert (joined.prompt_tokens, joined.completion_tokens, joined.image_tokens) == (27, 9, 12)
    assert (joined.cached_tokens, joined.seconds) == (17, 0.0)
    assert join_replies([reply("a", None, 2)]).cached_tokens is None


FLAGGED = [
    {"error": {"code": 403, "message": "Your chosen model requires moderation and your input was "
               "flagged", "metadata": {"reasons": ["violence"], "flagged_input": "the token"}}},
    {"error": {"code": "content_filter", "message": "The prompt triggered our policy."}},
    {"error": {"type": "content_policy_violation", "message": "refused"}},
    {"message": "Prompt blocked due to security configurations"},
]  # fmt: skip
CLOSED = [
    None,
    {"error": {"message": "Your API key has no access to the content filter"}},
    {"error": {"message": "This account was flagged", "code": "account_deactivated"}},
    {"error": {"code": "permission_denied", "message": "no safety review yet"}},
]


@pytest.mark.parametrize("said", FLAGGED)
def test_a_403_about_what_is_shown_fails_that_request_alone(said: Any) -> None:
    body = json.dumps(said).encode()
    with pytest.raises(TeacherError, match="bad_request: HTTP 403") as told:
        read_json(HttpResponse(403, {}, body), "http://x")
    assert not isinstance(told.value, Refused), "another form of it will not do"
    with pytest.raises(TeacherUnavailable, match="refuses the API key"):
        read_json(HttpResponse(401, {}, body), "http://x")


@pytest.mark.parametrize("said", CLOSED)
def test_a_403_about_who_asks_ends_the_run(said: Any) -> None:
    body = json.dumps(said).encode() if said else b""
    with pytest.raises(TeacherUnavailable, match="refuses the API key") as told:
        read_json(HttpResponse(403, {}, body), "http://x")
    assert told.value.permanent
