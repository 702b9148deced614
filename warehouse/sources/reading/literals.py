"""Reads values that a cell writes down as text.

read_literal("['red', 'blue']")    # as Python writes them; nothing is run
read_float("0.5")                  # NaN of what is no number that a float holds
"""

from __future__ import annotations

import ast
import math
from typing import Any


def read_literal(text: str) -> Any:
    """Read a Python literal.

    Raises:
        ValueError: it is none.
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(str(error)) from None


def read_float(value: Any) -> float:
    """Read a number; NaN where it is none or too large, and for True and False."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
