"""What a server can do is found out once, and only an answer proves that it lacks something."""

from dataclasses import replace

import pytest

from mcts.teachers.base import Message, Request, TextPart
from mcts.teachers.capabilities import Capabilities, advice, parse_capabilities

USER = Message("user", (TextPart("Is it?"),))
REQUEST = Request((USER,), 3, 1.0, 1.0, 9, ("</think>",), 1, max_thoughts=2)
ALL = {"n", "stop", "stop_strings", "seed", "count", "top_p", "max_tokens", "temperature"}


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("continue,stop,n,seed", dict.fromkeys(("continue", "stop", "n", "seed"), True)),
        ("n, seed", {"continue": False, "stop": False, "n": True, "seed": True}),
        ("none", dict.fromkeys(("continue", "stop", "n", "seed"), False)),
        ("no-continue,no-max-tokens", {"continue": False, "max_tokens": False}),
        ("", {}),
    ],
)
def test_capabilities_are_declared_by_what_is_there_or_by_what_is_not(text, declared) -> None:
    assert parse_capabilities(text) == declared


def test_a_refusal_of_the_request_itself_teaches_nothing() -> None:
    server = Capabilities()
    for tries in (4, 1):
        attempt, refusals = server.attempt(REQUEST), 1
        assert attempt.form == ALL
        while attempt.refused("the prompt has 9000 tokens"):
            refusals += 1
        assert refusals <= tries
    assert set(server.known.values()) == {None} and not server.doubtful
    attempt = server.attempt(replace(REQUEST, n=1))
    assert attempt.refused("max_tokens is too large: 9")
    while attempt.refused("max_completion_tokens is too large: 9"):
        pass
    assert server.known["max_tokens"] is None


def test_what_was_refused_without_a_name_is_tried_again_one_by_one() -> None:
    server, refused = Capabilities(), {"seed", "count"}
    refusals = 0
    for _ in range(12):
        attempt = server.attempt(REQUEST)
        while attempt.form & refused:
            refusals += 1
            assert attempt.refused("bad request")
        attempt.answered()
    assert {name for name, known in server.known.items() if known is False} == refused
    assert server.attempt(REQUEST).form == ALL - refused
    assert refusals <= 4  # the plain form keeps the seed


def test_a_server_that_takes_few_samples_is_asked_for_few() -> None:
    server = Capabilities()
    attempt = server.attempt(REQUEST)
    attempt.answered()
    many = replace(REQUEST, n=9)
    attempt = server.attempt(many)
    assert attempt.refused("n must be at most 4")
    attempt.answered()
    assert "n" not in server.attempt(many).form and "n" in server.attempt(REQUEST).form


def test_what_is_presumed_of_a_kind_of_server_is_not_waited_for_and_can_be_refused() -> None:
    server = Capabilities()
    server.presume(ALL - {"count"})
    assert server.unknown(REQUEST) and not server.unknown(replace(REQUEST, max_thoughts=0))
    attempt = server.attempt(REQUEST)
    assert attempt.refused("seed: extra fields not permitted")
    attempt.answered()
    assert server.known["seed"] is False and not server.presumed & attempt.form


def test_a_server_without_stop_strings_leaves_nothing_to_be_found_out_of_them() -> None:
    request = replace(REQUEST, stop=("</think>",))
    server = Capabilities()
    attempt = server.attempt(request)
    assert attempt.refused("Unsupported parameter: 'stop'")
    attempt.answered()
    assert server.known["stop_strings"] is False
    assert "stop" not in server.form(request) and not server.unknown(request)


def test_a_value_that_was_asked_for_is_never_left_out() -> None:
    server, cold = Capabilities(), replace(REQUEST, temperature=0.0, top_p=0.5)
    message = "Only the default (1) value is supported: 'temperature'"
    assert not server.attempt(cold).refused(message)
    assert advice(message, cold) == "; give --temperature 1"
    assert advice("top_p is fixed", cold) == "; give --top-p 1"
    assert advice(message, REQUEST) == ""
    declared = Capabilities({"temperature": False})
    assert "temperature" in declared.form(cold) and "temperature" not in declared.form(REQUEST)
