"""Parses the options of a multiple-choice question, however a benchmark writes them.

options(["(A) left", "(B) right"])             # ("left", "right")
chosen_option("(B)", ("left", "right"))        # "right"
text, choices = cut_options("Where is it?\n(A) left\n(B) right\nAnswer with the letter.")
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from warehouse.sources.reading.drafts import Unusable

_LETTERED = re.compile(r"^\s*(?:\(([A-Z])\)|([A-Z])[.):])\s*(\S.*?)\s*$", re.DOTALL)
_LETTER = re.compile(r"^\(?([A-Z])\)?[.:]?$")
_INSTRUCTION = re.compile(
    r"^\s*(?:please\s+)?(?:answer|select|choose|respond|reply)\b.*(?:letter|option|choice|word|"
    r"number|phrase)s?\b.*$",
    re.IGNORECASE,
)


def lettered(line: str) -> tuple[str, str] | None:
    """Parse the letter and the text of `(A) text`, `A. text`, `A) text` or `A: text`; else None."""
    match = _LETTERED.match(line)
    return (match[1] or match[2], match[3]) if match else None


def options(values: Sequence[object], field: str = "choices") -> tuple[str, ...]:
    """Options as texts, without their letters where each has its own."""
    texts = [str(value).strip() for value in values]
    if any(not text for text in texts):
        raise Unusable(field, "an option is empty")
    parsed = [lettered(text) for text in texts]
    if all(one and one[0] == letter for one, letter in zip(parsed, ascii_uppercase, strict=False)):
        return tuple(one[1] for one in parsed if one)
    return tuple(texts)


def chosen_option(letter: str, choices: Sequence[str], field: str = "answer") -> str:
    """The option that a letter names, such as `B`, `(B)` or `B.`."""
    match = _LETTER.match(letter.strip())
    index = ascii_uppercase.index(match[1]) if match else -1
    if not 0 <= index < len(choices):
        raise Unusable(field, f"the answer {letter!r} is not a letter of {len(choices)} options")
    return choices[index]


def numbered_option(number: object, choices: Sequence[str], field: str = "answer") -> str:
    """The option that a number counted from 0 names, as text or as a number."""
    text = str(number).strip()
    if not text.isdigit() or int(text) >= len(choices):
        raise Unusable(field, f"the answer {text!r} is not a number of {len(choices)} options")
    return choices[int(text)]


def cut_options(text: str) -> tuple[str, tuple[str, ...]]:
    """Split a question into its text and its lettered last lines; no options if in doubt.

    A last line that only says how to answer is removed with them.
    """
    lines = text.strip().splitlines()
    if len(lines) > 1 and _INSTRUCTION.match(lines[-1]) and not lettered(lines[-1]):
        lines.pop()
    whole = "\n".join(lines).strip()
    found: list[tuple[str, str]] = []
    while lines and (one := lettered(lines[-1])):
        found.insert(0, one)
        lines.pop()
    letters = "".join(letter for letter, _ in found)
    if (
        len(found) > 1
        and any(line.strip() for line in lines)
        and ascii_uppercase.startswith(letters)
    ):
        return "\n".join(lines).strip(), tuple(option for _, option in found)
    return whole, ()
