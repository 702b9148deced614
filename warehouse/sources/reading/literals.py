"""Reads values that a cell writes down as text.

read_literal("['red', 'blue']")    # as Python writes them; nothing is run
read_literal("['red' 'blue']")     # the same: as pandas writes an array of NumPy's
read_float("0.5")                  # NaN of what is no number that a float holds
"""

from __future__ import annotations

import ast
import io
import math
import tokenize
from itertools import pairwise
from typing import Any


def read_literal(text: str) -> Any:
    """Read a Python literal, in which texts side by side are several and never one.

    Raises:
        ValueError: it is none, or only some of its texts have commas between them.
    """
    try:
        return ast.literal_eval(_parted(text))
    except (
        ValueError,
        TypeError,
        SyntaxError,
        MemoryError,
        RecursionError,
        tokenize.TokenError,
    ) as error:
        raise ValueError(str(error)) from None


def _parted(text: str) -> str:
    """Put the commas between texts that stand side by side."""
    if text.count("'") + text.count('"') <= 2:  # nearly all
        return text
    tokens = list(tokenize.generate_tokens(io.StringIO(f"({text.strip()})").readline))
    tokens = [token for token in tokens if token.type not in (tokenize.NL, tokenize.NEWLINE)]
    beside = [a.end for a, b in pairwise(tokens) if a.type == b.type == tokenize.STRING]
    if not beside:
        return text
    if any(token.string == "," for token in tokens):
        raise ValueError("texts stand side by side, and others have a comma between them")
    lines = f"({text.strip()})".splitlines(keepends=True)
    for row, column in reversed(beside):
        lines[row - 1] = f"{lines[row - 1][:column]},{lines[row - 1][column:]}"
    return "".join(lines)


def read_float(value: Any) -> float:
    """Read a number; NaN where it is none or too large, and for True and False."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
