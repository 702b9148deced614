"""What a server is told in confidence, and what is refused before it is told anything."""

from __future__ import annotations

from base64 import b64encode

import pytest

from mcts.teachers.credentials import (
    Access,
    CredentialProblem,
    check_header,
    expand,
    mask_url,
    read_key,
    split_url,
)

KEY = "sk-0123456789abcdef"


def test_the_key_is_the_named_variables_or_of_the_first_usual_one_that_is_set() -> None:
    environ = {"VIGORL_API_KEY": "  ", "OPENAI_API_KEY": f" {KEY}\n", "MINE": "own"}
    assert read_key(None, environ) == KEY
    assert read_key("MINE", environ) == "own"
    assert read_key(None, {"VIGORL_API_KEY": "a", "OPENAI_API_KEY": "b"}) == "a"
    assert read_key(None, {}) == ""
    for name in ("VIGORL_API_KEY", "GONE"):
        with pytest.raises(CredentialProblem, match=f"no variable {name}, or it is empty"):
            read_key(name, environ)


@pytest.mark.parametrize("key", ["sk-ключ", "sk-\x07"])
def test_a_key_of_other_characters_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(CredentialProblem, match=r"^MINE holds characters that no API key") as said:
        read_key("MINE", {"MINE": key})
    assert key not in str(said.value)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("x-team", "a header is NAME=VALUE"),
        ("x team=a", "a header is NAME=VALUE"),
        ("=a", "a header is NAME=VALUE"),
        ("Host=a", "Host is set by the client"),
        ("x-team= ", "x-team needs a value of printable ASCII"),
        ("x-team=é", "x-team needs a value of printable ASCII"),
        ("x-team=a\nb", "x-team needs a value of printable ASCII"),
        ("x-api-key=abc", r"x-api-key=\$THAT_VARIABLE$"),
        ("x-team=Bearer abc", r"x-team=\$THAT_VARIABLE$"),
        (f"x-team={'a1' * 10}", "looks like a secret"),
        ("Authorization=abc", r"=Bearer \$THAT_VARIABLE; for a key, --api-key-env is enough"),
    ],
)
def test_a_header_that_is_none_or_shows_a_secret_is_refused(header: str, sentence: str) -> None:
    with pytest.raises(CredentialProblem, match=sentence):
        check_header(header)


@pytest.mark.parametrize(
    "header", ["x-team=vision", " x-team = vision ", "x-key=$KEY", f"x-team={'ab' * 10}"]
)
def test_a_header_without_a_secret_is_taken(header: str) -> None:
    check_header(header)


def test_references_are_filled_and_a_dollar_is_written_twice() -> None:
    environ = {"A": " one ", "B": "two"}
    assert expand("$A-${B}-$$A", environ) == "one-two-$A"
    with pytest.raises(CredentialProblem, match="no variable C"):
        expand("$C", environ)


def test_a_password_takes_the_place_of_the_key_and_a_header_that_of_both() -> None:
    basic = b64encode(b"me:word").decode()
    assert Access(KEY).headers == {"Authorization": f"Bearer {KEY}"}
    assert Access(KEY, user_info="me:word").headers == {"Authorization": f"Basic {basic}"}
    own = Access(KEY, {"authorization": "Token $T", "x-team": "v"}, environ={"T": "tttt"})
    assert own.headers == {"authorization": "Token tttt", "x-team": "v"}
    assert Access().headers == {}


def test_secrets_are_masked_in_words_in_every_form_and_short_ones_stay() -> None:
    access = Access("a/b c+1", {"x-one": "$T"}, user_info="me:word", environ={"T": "tttt"})
    told = f"word, me:word, {b64encode(b'me:word').decode()}, tttt, a/b c+1, a%2Fb%20c%2B1"
    assert access.mask(told) == "***, ***, ***, ***, ***, ***"
    assert Access("abc").mask("abc") == "abc", "three letters are a word"
    assert Access("abcd").mask("abcd") == "***"
    assert Access(KEY, {"x-team": "vision"}).mask("vision") == "vision"


def test_only_long_secrets_are_masked_in_what_a_model_writes() -> None:
    answer = {"text": f"EMPTY is {KEY}", KEY: [KEY, 1, None]}
    assert Access(KEY).masked(answer) == {"text": "EMPTY is ***", "***": ["***", 1, None]}
    assert Access("EMPTY").masked(answer) is answer
    sixteen = "k" * 16
    assert Access(sixteen).masked(sixteen) == "***"
    assert Access(sixteen[1:]).masked(sixteen[1:]) == sixteen[1:]


def test_a_refusal_says_where_a_key_goes_only_where_none_was_sent() -> None:
    refusal = "it refuses the API key (HTTP 401)."
    assert "put it in VIGORL_API_KEY" in Access().explain(refusal)
    assert Access(KEY).explain(refusal) == refusal
    assert Access().explain("it is busy") == "it is busy"


def test_a_urls_password_is_split_off_or_masked() -> None:
    environ = {"W": "s3cret"}
    assert split_url("http://gpu:8000", environ) == ("http://gpu:8000", "")
    assert split_url("http://me:%40$W@gpu:8000/v1", environ) == (
        "http://gpu:8000/v1", "me:@s3cret",
    )  # fmt: skip
    with pytest.raises(CredentialProblem, match="is masked"):
        split_url("http://me:***@gpu")
    assert mask_url("http://me:word@gpu/?key=abc&n=1") == "http://me:***@gpu/?key=***&n=1"
    assert mask_url("http://token@gpu http://me:$W@b") == "http://***@gpu http://me:$W@b"
    assert mask_url("http://$W@gpu") == "http://$W@gpu"
    assert mask_url("me:word@gpu:8000") == "me:***@gpu:8000"
