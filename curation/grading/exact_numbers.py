r"""Numbers as texts, exactly: `1/2`, `0.50` and `$\frac{1}{2}$` are one number, and so is `٠٫٥`.

    number_in("1,200")                   # Fraction(1200)
    number_in("12 apples")               # None: a text that is more than a number is none
    same_quantity("$16.99", "16.99")     # True: the sign of money is on the page
    same_quantity("12", "12%")           # False: a per cent sign says another number
    same_quantity("12 units", "12")      # True: a unit without a name says nothing

Thousands are told by `,`, a space or `'`. A comma is never a decimal mark: `1,5` is two numbers, as
it is in a tuple, so the answer `1,5` is not 1.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

import regex

from curation.grading.formulas import spelling, unwrap, without_brackets
from curation.grading.normalize import PLAIN_NUMBER, fold, plain_number

_NUMBER = PLAIN_NUMBER.pattern
_FRACTION = regex.compile(rf"([+-]?)\(\(({_NUMBER})\)/\(({_NUMBER})\)\)")
_SLASH = regex.compile(rf"({_NUMBER})/({_NUMBER})")
_MIXED = regex.compile(r"([+-]?)(\d+)(?: (\d+)/(\d+)|\(\((\d+)\)/\((\d+)\)\))")
_SCIENTIFIC = regex.compile(
    rf"(?:({_NUMBER})\*)?10\^\(([+-]?\d{{1,2}})\)|({_NUMBER})e([+-]?\d{{1,2}})"
)
_RATIO = regex.compile(r"(\d+):(\d+)")
_DATE = regex.compile(r"\d{1,4}\s*([-/.])\s*\d{1,2}\s*\1\s*\d{1,4}|0\d/\d+|\d+/0\d+")
"""A date, by its day and month as well: no quotient, no difference."""

MONEY = frozenset("$€£¥₹₩₽฿₫₺₴₦₱₪₡₲₵₸¢")
DEGREES = "°"
_UNNAMED = {
    "units": "units", "unit": "units", "square units": "units²", "sq. units": "units²",
    "sq units": "units²", "units^(2)": "units²", "cubic units": "units³", "units^(3)": "units³",
}  # fmt: skip
_MONEY_NAMES = {
    "us$": "$", "usd": "$", "dollars": "$", "dollar": "$", "$usd": "$", "美元": "$",
    "eur": "€", "euros": "€", "euro": "€", "欧元": "€", "gbp": "£", "jpy": "¥", "yen": "¥",
    "cny": "¥", "rmb": "¥", "yuan": "¥", "元": "¥", "円": "¥", "inr": "₹", "rs.": "₹", "rs": "₹",
    "rupees": "₹", "krw": "₩", "won": "₩", "원": "₩", "rub": "₽", "thb": "฿", "baht": "฿",
    "cents": "¢", "cent": "¢",
}  # fmt: skip
_UNITS = _MONEY_NAMES | {
    "%": "%", "percent": "%", "per cent": "%", "pct": "%", "degrees": DEGREES, "degree": DEGREES,
    "deg": DEGREES, DEGREES: DEGREES, "度": DEGREES, **{sign: sign for sign in MONEY}, **_UNNAMED,
}  # fmt: skip
UNSAID_UNITS = frozenset({DEGREES, *_UNNAMED.values()})
"""Units that may be said or left out."""
_LEFT_TO_THE_QUESTION = MONEY | UNSAID_UNITS


def _any_of(words: Iterable[str]) -> str:
    return "|".join(map(regex.escape, sorted(words, key=len, reverse=True)))


_BEHIND = regex.compile(rf"(.*?)({_any_of(_UNITS)})")
_BEFORE = regex.compile(rf"([+-]?)({_any_of({*_MONEY_NAMES, *MONEY})})(.*)")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and its unit."""

    number: Fraction
    unit: str
    """A sign of money, `%`, `°`, `units` of some power, or empty."""


def number_in(text: str) -> Fraction | None:
    """Parse the number that a text is, or None where it is not exactly one."""
    return _number(without_brackets(spelling(text)))


def quantity_in(text: str) -> Quantity | None:
    """Parse a number with or without a unit that is written in many ways; None where it is none."""
    text = without_brackets(spelling(text))
    if (number := _number(text)) is not None:
        return Quantity(number, "")
    if (match := _BEHIND.fullmatch(text)) and (number := _number(match[1])) is not None:
        return Quantity(number, _UNITS[match[2]])
    if (match := _BEFORE.fullmatch(text)) and (number := _number(match[1] + match[3])) is not None:
        return Quantity(number, _UNITS[match[2]])
    return None


def same_quantity(answer: str, gold: str) -> bool:
    """Return whether an answer is the number of the gold answer.

    A gold number without a unit leaves money, degrees and units without a name to the question, so
    the answer may say them; the last two may also be left out. Any other unit must be the same.
    """
    said, wanted = quantity_in(answer), quantity_in(gold)
    if said is None or wanted is None:
        return _same_ratio(answer, gold)
    if said.number != wanted.number:
        return False
    if said.unit == wanted.unit:
        return True
    if wanted.unit == "":
        return said.unit in _LEFT_TO_THE_QUESTION
    return said.unit == "" and wanted.unit in UNSAID_UNITS


def same_items(answer: str, gold: str) -> bool:
    """Return whether two tuples or lists have the same items, numbers compared as numbers."""
    said, wanted = _items(spelling(answer)), _items(spelling(gold))
    if said is None or wanted is None or len(said[1]) != len(wanted[1]) or said[0] != wanted[0]:
        return False
    pairs = [(a, b, _number(a)) for a, b in zip(said[1], wanted[1], strict=True)]
    return all(a == b or (number is not None and number == _number(b)) for a, b, number in pairs)


def _items(text: str) -> tuple[str, list[str]] | None:
    """The brackets and the items of a list with commas; None where a text is none."""
    brackets, inner = "", text
    if len(text) > 2 and text[0] in "([⦃<" and text[-1] in ")]⦄>":
        brackets, inner = text[0] + text[-1], text[1:-1]
    if "," not in inner or _number(inner) is not None:
        return None
    items, depth = [""], 0
    for char in inner:
        depth += (char in "([⦃") - (char in ")]⦄")
        if char == "," and not depth:
            items.append("")
        else:
            items[-1] += char
    return (brackets, items) if not depth and all(items) else None


def _same_ratio(answer: str, gold: str) -> bool:
    """`1:2` is also written as the fraction 1/2, and the other way round; 10:20 is another text,
    and 10:30 is a time."""
    texts = [without_brackets(spelling(text)) for text in (answer, gold)]
    ratios = [match for text in texts if (match := _RATIO.fullmatch(text))]
    parts = [number for text in texts if "/" in text and (number := _number(text)) is not None]
    if len(ratios) != 1 or len(parts) != 1 or _is_time(*ratios[0].groups()):
        return False
    first, second = map(int, ratios[0].groups())
    return second != 0 and Fraction(first, second) == parts[0]


def _is_time(hours: str, minutes: str) -> bool:
    """Return whether a ratio is a time of day: it has minutes, and is not in lowest terms."""
    if len(minutes) != 2 or int(minutes) > 59 or int(hours) > 24:
        return False
    return minutes[0] == "0" or gcd(int(hours), int(minutes)) > 1


def is_date(text: str) -> bool:
    """Return whether a text is a date in numbers, `2024-01-05`, which no arithmetic is."""
    return _DATE.fullmatch(fold(unwrap(text))) is not None


def _number(text: str) -> Fraction | None:
    if (number := plain_number(text)) is not None:
        return number
    if len(text) > 60 or not text.isascii():
        return None
    if match := _FRACTION.fullmatch(text):
        return _divided(match[2], match[3], match[1])
    if (match := _SLASH.fullmatch(text)) and not _DATE.fullmatch(text):
        return _divided(match[1], match[2])
    if match := _MIXED.fullmatch(text):
        whole, (over, under) = int(match[2]), [part for part in match.groups()[2:] if part]
        part = _divided(over, under)
        if part is None or part >= 1:
            return None
        return -(whole + part) if match[1] == "-" else whole + part
    if match := _SCIENTIFIC.fullmatch(text):
        times, power = match[1] or match[3] or "1", match[2] or match[4]
        number = plain_number(times)
        return None if number is None else number * Fraction(10) ** int(power)
    return None


def _divided(over: str, under: str, sign: str = "") -> Fraction | None:
    a, b = plain_number(over), plain_number(under)
    if a is None or not b:
        return None
    return -a / b if sign == "-" else a / b
