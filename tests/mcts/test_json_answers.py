"""The JSON of answers: whatever the bytes are, what comes of them can be stored and printed."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts.teachers.connections import HttpResponse
from mcts.teachers.json_answers import DEEPEST, one_line, parse_json, plain, retry_after_s


def parsed(body: bytes, kind: str = "application/json"):
    return parse_json(HttpResponse(200, {"content-type": kind}, body))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_is_read_in_every_form_of_unicode(encoding):
    data = {"a": ["Чашка 😀", 1.5, None]}
    assert parsed(json.dumps(data, ensure_ascii=False).encode(encoding), "a; charset=x") == (
        data,
        "",
    )


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"", "", "the answer is empty"),
        (b" \n", "", "the answer is empty"),
        (b"<!DOCTYPE html><title>Log\n in</title>", "", "the answer is a web page, 'Log in', not"),
        (b"Please log in", "text/html", "the answer is a web page, not JSON"),
        (b"data: {}", "", "the answer is a stream of events"),
        (b": ping\n\ndata: {}", "", "the answer is a stream of events"),
        (b"{}", "text/event-stream", "the answer is a stream of events"),
        (b"{} {}", "", "the answer is not JSON: {} {}"),
        (b"\xff\xfe\xfd", "", "the answer is not JSON: "),
        (b"9" * 5000, "", "the answer is not JSON: 999"),
        (b"[" * 100_000, "", "the answer is not JSON: [[["),
        (b"[" * 500 + b"]" * 500, "", "the answer is nested deeper than 100 levels"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "", "the answer is nested deeper than 100 levels"),
        (b"\x1b[2Jno", "", "the answer is not JSON: \\x1b[2Jno"),
    ],
)
def test_what_is_no_json_is_said(body, kind, reason):
    data, why = parsed(body, kind)
    assert data is None and why.startswith(reason)
    assert why.isprintable() and len(why) < 400


def test_what_is_as_deep_as_may_be_is_read_and_wide_is_not_deep():
    deep = b"[" * (DEEPEST - 1) + b"]" * (DEEPEST - 1)
    assert parsed(deep)[1] == ""
    wide = [[[i]] for i in range(1000)]
    assert parsed(json.dumps(wide).encode()) == (wide, "")


@given(st.recursive(st.text(st.characters(), max_size=5) | st.none() | st.integers(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_whole_characters_stay_and_halves_are_replaced_everywhere(data):
    half = json.dumps({"\ud83d": data, "x": ["\udc00a", {"y": "\ud800"}]}).encode()
    found, reason = parsed(half)
    assert reason == "" and found == {"\ufffd": data, "x": ["\ufffda", {"y": "\ufffd"}]}
    assert parsed(json.dumps(data).encode()) == (data, "")


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_a_sentence(body):
    data, reason = parsed(body)
    assert reason.isprintable()
    json.dumps(data, ensure_ascii=False).encode()


@given(st.text(st.characters(codec=None)))
def test_a_server_s_words_are_one_line_that_can_be_printed(text):
    line = one_line(text, 50)
    line.encode()
    assert line.isprintable() and len(line) <= 50


def test_half_a_pair_is_replaced_and_a_pair_is_a_character():
    assert plain("a\ud800b") == "a\ufffdb"
    assert plain("\ud83d\ude00") == "😀"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("1.5", 1.5), ("-5", 0), ("nan", 0), ("soon", 0), ("", 0), ("5, 6", 0),
     ("Wed, 21 Oct 1999 07:28:00 GMT", 0), ("Wed, 99 Oct 99999 99:99:99 GMT", 0)],
)  # fmt: skip
def test_a_wait_is_read_in_seconds(value, seconds):
    assert retry_after_s(value) == seconds


def test_a_wait_may_be_given_as_a_date():
    from email.utils import formatdate

    assert 50 < retry_after_s(formatdate(time.time() + 60, usegmt=True)) < 61
