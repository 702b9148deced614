"""The reference implementation's JSONL: one object a line, pictures by name below an image root.

    {"id": "1", "image": "a/b.png", "conversations": [{"from": "human", "value": "<image>Is it …?"},
                                                      {"from": "gpt", "value": "left"}]}

The first turn is the question, the second the gold answer: an option's text, a box
`(x1, y1, x2, y2)` in original pixels, or, for web-action, an action such as `click [12]`. `image`
may also be a list. Choices written into the question are taken out where they can be read surely:
lettered lines at its end, or `Choose between the following options: left or right`. Names that
lead out of the image root (`..`, absolute, through a link) are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from curation.grading import normalize
from mcts.data import AnswerKind, Box
from warehouse.sources.below import picture_below
from warehouse.sources.drafts import Draft, ImportProblem, Picture, ReadContext, Reject

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_BOX = re.compile(rf"^\s*\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)\s*$")
_LETTERED = re.compile(r"^\s*\(?([A-Z])[.):]\s*(\S.*?)\s*$")
_LISTED = re.compile(
    r"\s*(?:Choose between the following options|Options|Choices)\s*:\s*(?P<choices>[^:]+?)\.?\s*$",
    re.IGNORECASE,
)
_LONGEST_LINE = 16 << 20  # bytes; a longer line is not a question


def read(file: Path, context: ReadContext) -> Iterator[Draft | Reject]:
    """Lines of one JSONL file.

    Raises:
        ImportProblem: the file can't be read, or the image root is missing.
    """
    if context.image_root is None:
        raise ImportProblem(f"{file} names its images: say with --image-root where they are")
    if not context.image_root.is_dir():
        raise ImportProblem(f"the image root {context.image_root} is not a folder")
    root = context.image_root.resolve()
    try:
        with file.open("rb") as lines:
            number = 0
            while line := lines.readline(_LONGEST_LINE):
                number += 1
                if len(line) == _LONGEST_LINE:
                    raise ImportProblem(f"{file}: line {number} is too long for JSONL")
                if line.strip():
                    yield _draft(file.name, number, line, context.task, root)
    except OSError as error:
        raise ImportProblem(f"{file} can't be read: {error.strerror or error}") from None


def _draft(file: str, row: int, line: bytes, task: str, root: Path) -> Draft | Reject:
    try:
        record = json.loads(line)
    except ValueError as error:
        return Reject(file, row, "line", f"this is not JSON: {error}")
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(turns, list) or len(turns) < 2 or not all(_is_turn(t) for t in turns[:2]):
        return Reject(file, row, "conversations", "there are no question and answer turns")
    names = record.get("image")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        return Reject(file, row, "image", "there is no image name")
    pictures = []
    for name in names:
        data = picture_below(root, name)
        if isinstance(data, str):
            return Reject(file, row, "image", f"{name}: {data}")
        pictures.append(Picture(data))
    text, gold = turns[0]["value"].replace("<image>", "").strip(), turns[1]["value"].strip()
    if not gold:
        return Reject(file, row, "conversations", "there is no answer")
    if task == "web-action":
        return Draft(file, row, text, tuple(pictures), AnswerKind.ACTION, answers=(gold,))
    if box := _BOX.match(gold):
        x1, y1, x2, y2 = (float(number) for number in box.groups())
        return Draft(file, row, text, tuple(pictures), AnswerKind.BOX, boxes=(Box(x1, y1, x2, y2),))
    text, choices = _split_choices(text, gold)
    return Draft(
        file, row, text, tuple(pictures), AnswerKind.TEXT, choices=choices, answers=(gold,)
    )


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("value"), str)


def _split_choices(text: str, gold: str) -> tuple[str, tuple[str, ...]]:
    """The question without its choices, and the choices; all of it and none if in doubt."""
    lines = text.splitlines()
    lettered: list[re.Match[str]] = []
    while lines and (match := _LETTERED.match(lines[-1])):
        lettered.insert(0, match)
        lines.pop()
    letters = "".join(match[1] for match in lettered)
    if len(lettered) > 1 and lines and letters == ascii_uppercase[: len(letters)]:
        return "\n".join(lines).strip(), tuple(match[2] for match in lettered)
    if listed := _LISTED.search(text):
        choices = tuple(
            c.strip() for c in re.split(r",\s*or\s+|\s+or\s+|,\s*", listed["choices"]) if c.strip()
        )
        if len(choices) > 1 and normalize(gold) in {normalize(choice) for choice in choices}:
            return text[: listed.start()].strip(), choices
    return text, ()
