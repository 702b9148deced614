"""The reference implementation's JSON Lines: images by name below an image root.

    {"id": "1", "image": "a/b.png", "conversations": [{"from": "human", "value": "<image>Is it …?"},
                                                      {"from": "gpt", "value": "left"}]}
    {"problem": "<image>Is it …?", "answer": "left", "images": ["a/b.png"]}

The first form (github.com/Gabesarch/grounded-rl; gsarch/vigorl_datasets) is what its search reads:
the first turn is the question, the second the gold answer. The second is what its reinforcement
learning reads (EasyR1). A gold answer is an option's text, a box `(x1, y1, x2, y2)` in original
pixels, or, for a task whose answers are actions, an action such as `click [12]`. `image` may also
be a list. Choices written into the question are taken out where they can be read surely: lettered
lines at its end, or `Choose between the following options: left or right`. Names that lead out of
the image root (`..`, absolute, through a link) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curation.grading.actions import parse_action
from curation.grading.grade import normalize
from mcts.data import AnswerKind, Box
from warehouse.sources.published import Row, published
from warehouse.sources.reading.drafts import Draft, ImportProblem, ReadContext, Reject, Unusable
from warehouse.sources.reading.options import cut_options

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_BOX = re.compile(rf"^\s*\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)\s*$")
_LISTED = re.compile(
    r"\s*(?:Choose between the following options|Options|Choices)\s*:\s*(?P<choices>[^:]+?)\.?\s*$",
    re.IGNORECASE,
)


def read(file: Path, context: ReadContext) -> Iterator[Draft | Reject]:
    """Lines of one file.

    Raises:
        ImportProblem: the file can't be read, or the image root is missing.
    """
    if context.image_root is None:
        raise ImportProblem(f"{file} names its images: say with --image-root where they are")
    from warehouse.sources import task_of  # which offers this reader too

    acts = task_of(context.task).kind is AnswerKind.ACTION
    formats = published(
        "", _action_draft if acts else _question_draft, ("conversations|problem", "image|images")
    )
    yield from formats[".jsonl"](file, context)


def question_and_gold(row: Row) -> tuple[str, str]:
    """The question and the gold answer."""
    if row.get("problem") is not None:
        text, gold = row.text("problem"), row.optional("answer")
    else:
        turns = row.get("conversations")
        if not isinstance(turns, list) or len(turns) < 2 or not all(map(_is_turn, turns[:2])):
            raise Unusable("conversations", "there are no question and answer turns")
        text, gold = turns[0]["value"], turns[1]["value"].strip()
    if not gold:
        raise Unusable("conversations", "there is no answer")
    return text.replace("<image>", "").strip(), gold


def gold_fields(text: str, gold: str) -> dict[str, Any]:
    """Fields of a draft from a question and its gold answer, which is a text or a box."""
    if box := _BOX.match(gold):
        x1, y1, x2, y2 = (float(number) for number in box.groups())
        return {"text": text, "answer_kind": AnswerKind.BOX, "boxes": (Box(x1, y1, x2, y2),)}
    text, choices = _split_choices(text, gold)
    return {"text": text, "choices": choices, "answers": (gold,)}


def _question_draft(row: Row) -> Draft:
    text, gold = question_and_gold(row)
    return row.draft(images=row.images("image", "images"), **gold_fields(text, gold))


def _action_draft(row: Row) -> Draft:
    text, gold = question_and_gold(row)
    parsed = parse_action(gold)
    return row.draft(
        text,
        row.images("image", "images"),
        answer_kind=AnswerKind.ACTION,
        answers=(gold,),
        family=parsed.name if parsed else "",
    )


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("value"), str)


def _split_choices(text: str, gold: str) -> tuple[str, tuple[str, ...]]:
    """The question without its choices, and the choices; all of it and none if in doubt."""
    cut, lettered = cut_options(text)
    if lettered:
        return cut, lettered
    if listed := _LISTED.search(text):
        choices = tuple(
            c.strip() for c in re.split(r",\s*or\s+|\s+or\s+|,\s*", listed["choices"]) if c.strip()
        )
        if len(choices) > 1 and normalize(gold) in {normalize(choice) for choice in choices}:
            return text[: listed.start()].strip(), choices
    return text, ()
