r"""Numbers as texts, exactly: `1/2`, `0.50` and `$\frac{1}{2}$` are one number.

number_in("1,200")            # Fraction(1200)
number_in("12 apples")        # None: a text that is more than a number is none
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_LONGEST = 60  # characters
_WRAPPED = (
    re.compile(r"^\$+(.*?)\$+$", re.DOTALL),
    re.compile(r"^\\\((.*)\\\)$", re.DOTALL),
    re.compile(r"^\\boxed\{(.*)\}$", re.DOTALL),
    re.compile(r"^\*\*(.*)\*\*$", re.DOTALL),
)
_FRACTION = re.compile(r"^([+-]?)\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}$")
# Commas only where thousands are: `1,2` is two numbers, not twelve.
_PLAIN = re.compile(r"^[+-]?(?:\d+|\d{1,3}(?:,\d{3})+)?(?:\.\d+)?$")


def unwrap(text: str) -> str:
    r"""Strip what only sets a text apart: `$…$`, `\(…\)`, `\boxed{…}`, `**…**`."""
    text = text.strip()
    found = True
    while found:
        found = False
        for wrapped in _WRAPPED:
            if (match := wrapped.match(text)) and match[1].strip():
                text, found = match[1].strip(), True
    return text


def number_in(text: str) -> Fraction | None:
    """Parse the number that a text is, or None where it is not exactly one."""
    text = unicodedata.normalize("NFKC", unwrap(text)).replace("−", "-").strip().rstrip(".")
    if not text or len(text) > _LONGEST:
        return None
    if match := _FRACTION.match(text):
        over, under = _decimal(match[2]), _decimal(match[3])
        sign = -1 if match[1] == "-" else 1
        return sign * over / under if over is not None and under else None
    over_text, slash, under_text = text.partition("/")
    over = _decimal(over_text)
    if not slash or over is None:
        return over
    under = _decimal(under_text)
    return over / under if under else None


def _decimal(text: str) -> Fraction | None:
    text = text.strip()
    if not _PLAIN.match(text) or not any(c.isdigit() for c in text):
        return None
    return Fraction(text.replace(",", "")) if text.isascii() else None
