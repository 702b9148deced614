"""Reads a gold answer out of what a model wrote, and says what can be no gold answer.

    gold_text("<think>It is red.</think><answer>no</answer>")     # "no"
    gold_problem("<think>It is red.</think>")                     # a clause; empty where it can be

Datasets of traces hold whole responses where others hold gold answers: only what stands in the
answer's tags is one. A box as a model writes it is in units that nothing tells, and what an export
holds as its gold answer is in those of the model that it was made for.
"""

from __future__ import annotations

import json
import re

from warehouse.sources.reading.drafts import Unusable
from warehouse.sources.reading.image_marks import MARK

_ANSWER = re.compile(r"<\s*answer\s*>(.*?)<\s*/\s*answer\s*>", re.DOTALL | re.IGNORECASE)
_REASONING = re.compile(r"<\s*/?\s*(?:think|thinking|answer|tool_call)\s*>", re.IGNORECASE)
_THINKING = re.compile(r"<\s*/\s*(?:think|thinking)\s*>", re.IGNORECASE)
_BOX_OF_MODEL = re.compile(r"<\|box_start\|>|[\"']bbox(?:_2d)?[\"']\s*:|<box>.*?</box>", re.DOTALL)


def gold_text(written: str, field: str = "answer") -> str:
    """Return the answer in a response that says it in tags; any other text as it is.

    Raises:
        Unusable: it has several answers.
    """
    said = _ANSWER.findall(_THINKING.split(written)[-1])
    if not said:
        return written
    if len({answer.strip() for answer in said}) > 1:
        raise Unusable(field, f"this response has {len(said)} answers, and no one gold answer")
    return str(said[0]).strip()


def gold_problem(text: str) -> str:
    """Return a clause that says why a text can't be a gold answer; empty where it can."""
    if MARK in text:
        return f"it holds {MARK}, as a question does: {text[:60]!r}"
    if _REASONING.search(text):
        return f"this is a chain of reasoning, not a gold answer: {text[:60]!r}"
    if _BOX_OF_MODEL.search(text):
        return (
            f"this is a box as a model writes it, and nothing says in which units: {text[:60]!r}; "
            "give (x1, y1, x2, y2) in pixels, or read the column with --columns box=… and --boxes"
        )
    if _is_exported(text):
        return (
            "this is the gold answer of an export, in its model's own terms; import what the "
            "dataset was made from"
        )
    return ""


def _is_exported(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and {"gold", "choices"} <= value.keys()
