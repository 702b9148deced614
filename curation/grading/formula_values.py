r"""The exact value of a formula, so that `\frac{5\pi}{3}` and `\frac{5}{3}\pi` are one answer.

    same_value(r"\sqrt8", r"2\sqrt{2}")     # True
    same_value("2+7", "9")                  # False: what can be worked out must be

Rational numbers are exact, others have 80 digits, so that nothing rounded is taken for π.
"""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction
from math import isqrt

import regex

from curation.grading.exact_numbers import is_date, number_in
from curation.grading.formulas import spelling, unwrap, without_brackets
from curation.grading.normalize import fold

Value = Fraction | Decimal
"""Exact where it is rational, else to `_DIGITS` digits."""

_DIGITS = 80
_NEAR = Decimal(10) ** -50
_PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803"
)
_TOKEN = regex.compile(r"\d+(?:\.\d+)?|\.\d+|[π√()+\-*/^]")
_N = r"\d+(?:\.\d+)?"
_RANGE = regex.compile(rf"{_N}\s*-\s*{_N}")
"""A score or a range, `2-1`, which says more than its difference."""
_SIZE = regex.compile(rf"{_N}(?:\s*(?:×|\\times)\s*{_N})+")
"""Two or three sides, `10×20`, which say more than their product."""
_LONGEST_FORMULA, _MOST_BITS, _DEEPEST = 160, 40_000, 30


def same_value(answer: str, gold: str) -> bool:
    """Return whether an answer is the value of the gold answer.

    An irrational number may be written in any way, `√8` as `2√2`. A rational one must be worked
    out: 9 is the answer where the gold answer reads `2+7`, and not the other way round.
    """
    number = number_in(answer)
    if number is not None:
        return not _is_several(gold) and value_in(gold) == number
    said = value_in(answer)
    if not isinstance(said, Decimal):
        return False
    wanted = value_in(gold)
    return isinstance(wanted, Decimal) and abs(said - wanted) <= _NEAR * max(
        Decimal(1), abs(wanted)
    )


def _is_several(text: str) -> bool:
    """Return whether a text is a date, a range or a size: several numbers, and no arithmetic."""
    text = without_brackets(fold(unwrap(text)))
    return is_date(text) or any(kind.fullmatch(text) for kind in (_RANGE, _SIZE))


def value_in(text: str) -> Value | None:
    """Compute the value of a formula of numbers, π, roots and powers; None where it is none."""
    text = spelling(text)
    tokens = _TOKEN.findall(text)
    if len(text) > _LONGEST_FORMULA or not tokens or "".join(tokens) != text:
        return None
    try:
        with decimal.localcontext() as context:
            context.prec = _DIGITS
            return _Formula(tokens).whole()
    except (ArithmeticError, ValueError):
        return None


class _Formula:
    """A formula's tokens, read from left to right; a ValueError says that it is none."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def whole(self) -> Value:
        value = self.sum()
        if self.at < len(self.tokens):
            raise ValueError
        return value

    def take(self, *wanted: str) -> str:
        """Return the next token if it is one of these, and go on; else nothing."""
        if self.at < len(self.tokens) and self.tokens[self.at] in wanted:
            self.at += 1
            return self.tokens[self.at - 1]
        return ""

    def sum(self) -> Value:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ValueError
        value = self.product()
        while sign := self.take("+", "-"):
            value = _add(value, self.product(), 1 if sign == "+" else -1)
        self.depth -= 1
        return value

    def product(self) -> Value:
        value = self.power()
        divided = False
        while self.at < len(self.tokens) and self.tokens[self.at] not in "+-)^":
            sign = self.take("*", "/")
            if not sign and (divided or self.tokens[self.at][0] in ".0123456789"):
                raise ValueError  # `1/2π` is read in two ways, `π2` in none
            divided = sign == "/"
            value = _multiply(value, self.power(), divided)
        return value

    def power(self) -> Value:
        sign = self.take("+", "-")
        value = self.atom()
        if self.take("^"):
            value = _raise(value, self.power())
        return _multiply(value, Fraction(-1)) if sign == "-" else value

    def atom(self) -> Value:
        if self.take("π"):
            return _PI
        if self.take("√"):
            return _root(self.atom())
        if self.take("("):
            value = self.sum()
            if not self.take(")"):
                raise ValueError
            return value
        number, self.at = self.tokens[self.at] if self.at < len(self.tokens) else "", self.at + 1
        return Fraction(number)


def _add(a: Value, b: Value, sign: int) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a + sign * b)
    return _decimal(a) + sign * _decimal(b)


def _multiply(a: Value, b: Value, divide: bool = False) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a / b if divide else a * b)
    return _decimal(a) / _decimal(b) if divide else _decimal(a) * _decimal(b)


def _raise(base: Value, power: Value) -> Value:
    if not isinstance(power, Fraction) or power.denominator not in (1, 2):
        raise ValueError
    if power.denominator == 2:
        base = _root(base)
    exponent = power.numerator
    if isinstance(base, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(exponent) * bits > _MOST_BITS:
            raise ValueError
        return base**exponent
    return base**exponent


def _root(value: Value) -> Value:
    if value < 0:
        raise ValueError
    if isinstance(value, Fraction):
        over, under = isqrt(value.numerator), isqrt(value.denominator)
        if over * over == value.numerator and under * under == value.denominator:
            return Fraction(over, under)
    return _decimal(value).sqrt()


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MOST_BITS:
        raise ValueError
    return value


def _decimal(value: Value) -> Decimal:
    if isinstance(value, Decimal):
        return value
    return Decimal(value.numerator) / Decimal(value.denominator)
