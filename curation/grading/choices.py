r"""Which of a question's choices an answer names, by its text, its letter, or both.

    choice_index(("red", "dark blue"), "dark blue")      # 1
    choice_index(("red", "dark blue"), "（B）")           # 1, as `B.`, `**B**`, `选B`, `\boxed{B}`
    choice_index(("red", "dark blue"), "B. red")         # None: letter and text disagree

Text comes first, from strict to lax, so that where the choices are themselves letters the text
decides, and `1.0` is not `1` where both are choices. A letter counts by its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import regex

from curation.grading.equality import the_same
from curation.grading.formulas import without_latex
from curation.grading.lead_ins import readings
from curation.grading.normalize import LONGEST, bare, fold, normalize

_OPEN = r"""\s"'`*_‘“«‹(\[{<【〔〖〈《「『（［｛"""
_CLOSE = r"""\s"'`*_’”»›)\]}>】〕〗〉》」』）］｝"""
_MARKS = r"\p{Sentence_Terminal}\p{Terminal_Punctuation}、，"
_LETTERED = regex.compile(
    rf"[{_OPEN}]*+(?P<letter>[A-Za-z])(?:[{_CLOSE}]*+|[{_CLOSE}{_MARKS}=|→-]++(?P<text>.*))",
    regex.DOTALL,
)
_LETTER_BEHIND = regex.compile(
    r"(?P<text>.*\S)\s*[(\[【〔]\s*(?P<letter>[A-Za-z])\s*[)\]】〕]", regex.DOTALL
)
# A dash right before a number, and apart from the letter.
_SIGNED = regex.compile(r"(?:[^\w\s-]\s*|\s)-$")
_EMPHASIS = regex.compile(r"(?:\*{1,3}|_{1,3}|`)$")
_BRACKETS = {pair[0]: pair[1] for pair in ["()", "[]", "{}", "<>", "【】", "〔〕"]}


def choice_index(choices: Sequence[str], answer: str) -> int | None:
    """Find the index of the choice that `answer` names; None where it names none or several."""
    for text in readings(answer):
        if (index := _by_text(choices, text)) is not None:
            return index
        if len(text) <= LONGEST and (index := _by_letter(choices, text)) is not None:
            return index
    return None


def _by_text(choices: Sequence[str], text: str) -> int | None:
    index = the_same(text, choices)
    if index is not None:
        return index
    inner = bare(fold(text))
    if len(inner) > 2 and _BRACKETS.get(inner[0]) == inner[-1]:
        index = the_same(inner[1:-1], choices)
    if index is not None:
        return index
    unlabelled = _without_labels(choices)
    return the_same(text, unlabelled) if unlabelled else None


def _by_letter(choices: Sequence[str], text: str) -> int | None:
    plain = bare(without_latex(fold(text)))
    match = _LETTERED.fullmatch(plain) or _LETTER_BEHIND.fullmatch(plain)
    if match is None:
        return None
    letter = match["letter"].upper()
    index, rest = ord(letter) - ord("A"), (match["text"] or "").strip()
    if rest and normalize(rest) != letter.lower():
        named = index < len(choices) and any(
            _by_text(choices, one) == index or normalize(one) == normalize(choices[index])
            for one in _said_behind(plain, rest)
        )
        return index if named else None
    letters = [fold(choice).strip().upper() for choice in choices]
    if all(len(one) == 1 and one.isalpha() for one in letters) and letter in letters:
        return letters.index(letter) if letters.count(letter) == 1 else None
    return index if index < len(choices) else None


def _said_behind(plain: str, rest: str) -> list[str]:
    """Return what may be said behind a letter: `rest`, with the sign or emphasis before it."""
    if not plain.endswith(rest):
        return [rest]
    before = plain[: -len(rest)]
    if rest[0].isdecimal() and _SIGNED.search(before):
        return [f"-{rest}"]
    # `A-2` and `A - 2` say either.
    said = [rest, f"-{rest}"] if before.rstrip().endswith("-") else [rest]
    emphasis = _EMPHASIS.search(before)
    if emphasis and rest.endswith(emphasis[0]):
        said.append(rest.removesuffix(emphasis[0]).strip())
    return said


def _without_labels(choices: Sequence[str]) -> list[str]:
    """The choices without their letters, where every one begins with its own: `A. left`."""
    found = []
    for index, choice in enumerate(choices):
        match = _LETTERED.fullmatch(fold(choice))
        if not match or not match["text"] or match["letter"].upper() != chr(ord("A") + index):
            return []
        found.append(match["text"])
    return found
