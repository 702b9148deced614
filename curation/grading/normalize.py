r"""Texts as people write them, brought to one spelling, so that equal answers are equal texts.

    normalize("  “Left。” ")               # "left": width, case, quotes, end marks of every script
    normalize_spaces("ＵＳ  Open.")          # "US Open.": width and spaces alone

Two spellings: `normalize_spaces` keeps capitals and signs, `normalize` is for words. A third, for
formulas, tuples and signs, is `curation.grading.formulas.spelling`. None of them makes one of two
numbers: a superscript stays one, `1 2` is not `12`, and `3!` is not `3`.
"""

from __future__ import annotations

import unicodedata
from fractions import Fraction

import regex

LONGEST = 400
"""Characters; a longer text is compared by its words alone."""

_SCRIPT = {
    **{char: ("^", str(digit)) for digit, char in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{char: ("_", str(digit)) for digit, char in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    "⁺": ("^", "+"), "⁻": ("^", "-"), "ⁿ": ("^", "n"), "₊": ("_", "+"), "₋": ("_", "-"),
}  # fmt: skip
_SCRIPTS = regex.compile(f"[{''.join(_SCRIPT)}]+")
_VULGAR = regex.compile(r"(?<=\d)(?=[¼-¾⅐-⅞↉])")
_SIGNS = str.maketrans({
    **dict.fromkeys("‐‑‒–—―−⁻", "-"),
    **dict.fromkeys("‘’‚‛ʼ′", "'"),
    **dict.fromkeys("“”„‟«»〝〞〟", '"'),
    **dict.fromkeys("⁄∕", "/"),
    "٫": ".", "٬": ",", "،": ",", "؛": ";", "٪": "%", "∶": ":",
})  # fmt: skip
_HIDDEN = regex.compile(r"\p{Default_Ignorable_Code_Point}+")
# U+00BA is an o to NFKC; behind a number it is meant as a degree sign.
_ORDINAL = regex.compile(r"(?<=\d\s?)º")

_MOST_LAYERS = 12  # of marks and quotes around one another
_END_MARKS = " " + "".join(
    regex.findall(
        r"[\p{Sentence_Terminal}\p{Terminal_Punctuation}]", "".join(map(chr, range(0x20, 0xD800)))
    )
)
_SHORT_WORDS = {"no", "up", "on", "in", "at", "ok", "it", "he", "me", "we", "us", "my", "by", "to"}
_QUOTES = "\"'`´‹›「」『』﹁﹂﹃﹄｢｣《》〈〉"
_PAIRS = "\"\" '' `` ´´ ‹› 「」 『』 ﹁﹂ ﹃﹄ ｢｣ 《》 〈〉 ** __"
_CLOSING = {pair[0]: pair[1] for pair in _PAIRS.split()}

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_HAN = "零一二三四五六七八九"


def _number_words() -> dict[str, str]:
    """Return the words for the numbers up to a hundred, in English and Chinese."""
    found = dict(zip([*_ONES, *_HAN], [*range(20), *range(10)], strict=True))
    found |= {"〇": 0, "两": 2, "兩": 2, "hundred": 100, "a hundred": 100, "one hundred": 100}
    found |= {"百": 100, "一百": 100}
    for tens, word in enumerate(_TENS, 2):
        found[word] = 10 * tens
        for one in range(1, 10):
            for between in "- ":
                found[f"{word}{between}{_ONES[one]}"] = 10 * tens + one
    for number in range(10, 100):
        tens, one = divmod(number, 10)
        found[f"{_HAN[tens] if tens > 1 else ''}十{_HAN[one] if one else ''}"] = number
    return {word: str(number) for word, number in found.items()}


_NUMBER_WORDS = _number_words()

# Commas, spaces and apostrophes only where thousands are: `1,2` is two numbers, not twelve. The
# second form is the Indian one, `12,34,567`.
PLAIN_NUMBER = regex.compile(
    r"[+-]?\s*(?=[\d.])(?:\d{1,3}(?:[,' ]\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d*)(?:\.\d+|(?<=\d)\.)?"
)


def fold(text: str) -> str:
    """Rewrite characters by the one that means the same: NFKC, digits and signs of every script.

    What is above or below the line says so: `10²` becomes `10^2`, and `1½` becomes `1 1/2`.
    """
    if text.isascii():
        return text
    text = _ORDINAL.sub("°", _VULGAR.sub(" ", text))
    text = _SCRIPTS.sub(_on_the_line, text)
    text = _HIDDEN.sub("", unicodedata.normalize("NFKC", text)).translate(_SIGNS)
    return text.translate(_DIGITS)


def _on_the_line(match: regex.Match[str]) -> str:
    marks = [_SCRIPT[char] for char in match[0]]
    digits = "".join(digit for _, digit in marks)
    return f"{marks[0][0]}{digits}" if len(digits) == 1 else f"{marks[0][0]}{{{digits}}}"


class _Digits(dict[int, str]):
    """Characters by their code points, digits of every script as those of ASCII."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        value = None if char.isascii() else unicodedata.decimal(char, None)
        return self.setdefault(code, char if value is None else str(value))


_DIGITS = _Digits()


def normalize_spaces(text: str) -> str:
    """Normalize a text but keep capitals and marks: one width of characters, single spaces."""
    return " ".join(fold(text).split())


def normalize(text: str) -> str:
    """Normalize a text: case folded, single spaces, no quotes or end marks, plain numbers."""
    folded = bare(" ".join(fold(fold(text).casefold()).split()))
    if folded in _NUMBER_WORDS:
        return _NUMBER_WORDS[folded]
    number = plain_number(folded)
    return folded if number is None else decimal_text(number)


def bare(text: str) -> str:
    """Strip the quotes around a text, and the marks that end it."""
    before = ""
    for _ in range(_MOST_LAYERS):
        if text == before:
            break
        before = text
        text = _without_end_marks(text.strip().lstrip("¿¡"))
        if len(text) > 2 and _CLOSING.get(text[0]) == text[-1]:
            text = text[1:-1].strip()
            continue
        text = text.lstrip(_QUOTES) or text
        opened = text.rstrip(_QUOTES)
        # `5'` are feet, and `A'` and `AB'` are other points than `A` and `AB`.
        points = len(opened) == 2 and opened not in _SHORT_WORDS and text[2:].strip("'") == ""
        if len(opened) > 1 and opened[-2:].isalpha() and not points:
            text = opened
    return text


def _without_end_marks(text: str) -> str:
    found = text.rstrip(_END_MARKS)
    if text[len(found) :].startswith("!") and found.endswith((*"0123456789)}",)):
        return f"{found}!"  # `3!` is a factorial
    return found or text


def plain_number(text: str) -> Fraction | None:
    """Parse a text that is a number in digits, as `normalize` leaves them."""
    if len(text) > 60 or not any(char.isdigit() for char in text):
        return None
    if not text.isascii() or not PLAIN_NUMBER.fullmatch(text):
        return None
    return Fraction(regex.sub(r"[,' ]", "", text).removesuffix("."))


def decimal_text(number: Fraction) -> str:
    """Write a number with a finite decimal expansion, without needless zeros."""
    scale = next(n for n in range(70) if (number * 10**n).denominator == 1)
    digits = str(abs(number.numerator) * 10**scale // number.denominator).rjust(scale + 1, "0")
    sign = "-" if number < 0 else ""
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else f"{sign}{digits}"
