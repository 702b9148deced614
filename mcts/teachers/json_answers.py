"""The JSON of an HTTP answer, whatever its bytes are, and a server's own words as one plain line.

    data, reason = parse_json(response)    # None, "the answer is a web page, 'Log in', not JSON"
    one_line(words)                        # at most 300 characters, escape sequences shown as such

What `parse_json` returns can be stored, printed and walked through: no text in it holds half of a
surrogate pair, and it is nested no deeper than `DEEPEST`.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from typing import Any

from mcts.teachers.connections import HttpResponse

SHOWN_CHARS = 300
"""Most characters of a server's own words in a message."""

DEEPEST = 100
"""Levels of lists and objects; answers of chat servers have about ten."""

_HALVES = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]|\0")  # also where it is UTF-16
_EVENTS = (b"data:", b"event:", b":", b"id:", b"retry:")
_TITLE = re.compile(rb"<title[^>]{0,100}>(.{0,200}?)</title>", re.DOTALL | re.IGNORECASE)


def parse_json(response: HttpResponse) -> tuple[Any, str]:
    """Return a body's JSON, or None with the reason why it holds none."""
    body = response.body
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    start = body[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if kind == "text/event-stream" or start.startswith(_EVENTS):
        return None, "the answer is a stream of events, which was not asked for"
    if start.startswith((b"<!doctype", b"<html")) or (kind == "text/html" and start[:1] != b"{"):
        title = _TITLE.search(body[:10_000])
        named = f", {one_line(title[1].decode('utf-8', 'replace'), 100)!r}" if title else ""
        return None, f"the answer is a web page{named}, not JSON"
    if not start:
        return None, "the answer is empty"
    try:
        data = json.loads(body)  # UTF-8, or UTF-16 by its first bytes, whatever the header names
        if _HALVES.search(body):
            data = json.loads(plain(json.dumps(data, ensure_ascii=False)))
    except (ValueError, RecursionError):
        return None, f"the answer is not JSON: {one_line(body[:80].decode('utf-8', 'replace'))}"
    if body.count(b"[") + body.count(b"{") > DEEPEST and _is_too_deep(data):
        return None, f"the answer is nested deeper than {DEEPEST} levels"
    return data, ""


def _is_too_deep(data: Any) -> bool:
    level = [data]
    for _ in range(DEEPEST):
        nested = [item for item in level if isinstance(item, dict | list)]
        level = [x for item in nested for x in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True


def plain(text: str) -> str:
    """Return `text` in a form that can be stored and printed: halves of pairs are replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def one_line(text: str, limit: int = SHOWN_CHARS) -> str:
    """Return the beginning of `text` on one line, with escapes for what would not be seen."""
    line = " ".join(plain(text[: 4 * limit]).split())
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in line[: limit + 1]
    )
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


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
