"""What may be a name that a user gives: of a task, a dataset, a model, a recipe.

    check_name("task", "web-grounding")      # ValueError with a sentence for any other kind of text

Names become parts of paths, keys and addresses, and are printed: so none leads out of a folder,
hides a control character, or is too long for a file system.
"""

from __future__ import annotations

import re

LONGEST = 100
"""Bytes; a file name holds 255, and suffixes are added."""
_NAME = re.compile(r"\w[\w.-]*")


def check_name(kind: str, name: str) -> str:
    """Return the name.

    Args:
        kind: what it names, for the message.

    Raises:
        ValueError: it is no name; one sentence says what one is.
    """
    if not name or wrong_name(kind, name):
        raise ValueError(wrong_name(kind, name) or f"a {kind} has a name")
    return name


def wrong_name(kind: str, name: str | None) -> str:
    """Say in one sentence why a name is none; empty where it is one, or there is none."""
    if not name:
        return ""
    long = len(name.encode("utf-8", "replace")) > LONGEST
    if not long and _NAME.fullmatch(name) and ".." not in name:
        return ""
    shown = ascii(name if len(name) <= 40 else f"{name[:37]}...")
    return (
        f"{shown} can't name a {kind}: a {kind}'s name is letters, digits, - and _ "
        f"(also . within it), at most {LONGEST} of them"
    )
