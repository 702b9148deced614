"""Texts of data and servers, so that a terminal shows them and does not obey them.

escape_controls("\x1b[31mred")     # "\\u001b[31mred"
"""

from __future__ import annotations

import re

_CONTROL = re.compile(r"(?!\n|\t|\r\n)[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escape_controls(text: str) -> str:
    """Show control characters, and half characters, as JSON's `\\u001b`: so JSON stays JSON."""
    shown = _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")
