"""Words of a text in any script, and runs of them, as near copies and the leak check count them.

    words_of("The red chair (left).")       # ["the", "red", "chair", "left"]
    words_of("红色椅子在左边。")              # ["红", "色", "椅", "子", "在", "左", "边"]
    runs_of(words, 3)                       # every run of three words, of fewer or more signs there

Chinese, Japanese, Thai, Lao, Khmer and Burmese put no spaces between words. There each sign is a
word of its own here, and counts for a part of one: `amount` says how much text it is, so that
twelve words are as much text in every script. A run is shorter than that, so that one changed word
changes about as many runs as in English: two Chinese signs, three English words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import regex

_JOINTS = "'.,:-"
_WORD = re.compile(r"[@\w]+(?:['.,:-][@\w]+)*")
_WORD_OF_SIGNS = regex.compile(r"[@\w\p{N}]+(?:['.,:-][@\w\p{N}]+)*")
_HAN, _KANA = r"\p{Script=Han}\p{Script=Yi}", r"\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}"
_COMPLEX = r"\p{Line_Break=SA}"  # Thai, Lao, Khmer, Burmese and their like
_SIGN = rf"(?:(?!\p{{M}})[{_HAN}{_KANA}{_COMPLEX}]\p{{M}}*)"
_PART = regex.compile(rf"{_SIGN}|(?:(?!{_SIGN}).)+", regex.DOTALL)
# `re` knows no combining marks as parts of words, which Hindi is full of.
_NEEDS_SIGNS = regex.compile(rf"[{_HAN}{_KANA}{_COMPLEX}\p{{M}}]")
_ANY_SIGN = regex.compile(rf"[{_HAN}{_KANA}{_COMPLEX}]")

_AMOUNTS = (  # by the first character: share of a word, and of a word in a run
    (regex.compile(rf"[{_HAN}]"), 0.6, 2.0),
    (regex.compile(rf"[{_KANA}]"), 0.4, 0.75),
    (regex.compile(_COMPLEX), 0.33, 0.5),
)


def words_of(text: str) -> list[str]:
    """Split a text into its words, without case and punctuation."""
    text = text.casefold()
    if text.isascii() or not _NEEDS_SIGNS.search(text):
        return _WORD.findall(text)
    found = _WORD_OF_SIGNS.findall(unicodedata.normalize("NFKC", text))
    parts = (part.strip(_JOINTS) for word in found for part in _PART.findall(word))
    return [part for part in parts if part]


def is_sign(char: str) -> bool:
    """Return whether words in a character's script follow one another without spaces."""
    return _ANY_SIGN.match(char) is not None


def amount(words: Sequence[str]) -> float:
    """Return how many words as long as English ones these are."""
    return sum(_share(word)[0] for word in words)


def runs_of(words: Sequence[str], width: int, *, full: bool = False) -> list[tuple[str, ...]]:
    """Return the runs of `width` words, from every word on; a shorter text is one run.

    Args:
        full: runs hold as much text as `width` words, and not as few signs as one change asks for.
    """
    weights = [_share(word)[0 if full else 1] for word in words]
    runs: list[tuple[str, ...]] = []
    end, held = 0, 0.0
    for start, weight in enumerate(weights):
        while end < len(words) and held < width - _ROUNDING:
            held += weights[end]
            end += 1
        if held < width - _ROUNDING:
            break
        runs.append(tuple(words[start:end]))
        held -= weight
    return runs or [tuple(words)]


_ROUNDING = 1e-6


@lru_cache(maxsize=1 << 14)
def _share(word: str) -> tuple[float, float]:
    if not word.isascii():
        for signs, of_word, of_run in _AMOUNTS:
            if signs.match(word):
                return of_word, of_run
    return 1.0, 1.0
