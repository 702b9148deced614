"""The reference implementation's JSON Lines: images by name below an image root.

    {"id": "1", "image": "a/b.png", "conversations": [{"from": "human", "value": "<image>Is it …?"},
                                                      {"from": "gpt", "value": "left"}]}
    {"problem": "<image>Is it …?", "answer": "left", "images": ["a/b.png"]}

The first form (github.com/Gabesarch/grounded-rl; gsarch/vigorl_datasets) is what its search reads:
the first turn of a person is the question, the model's behind it the gold answer; a system turn is
passed over. Later questions of a conversation may need what was said before: they are counted and
left out. The second is what its reinforcement learning reads (EasyR1). A gold answer is an option's
text or letter (`B`, `(B)`, `B. right`), a box in original pixels (`(x1, y1, x2, y2)`, `[x1, y1, x2,
y2]`, or a list of such), or, for a task whose answers are actions, an action such as `click [12]`.
A task whose answers are boxes takes no other. Of a response with `<answer>` tags it is what stands
in them. `image` may also be a list. Choices written into the question are taken out where they can
be read surely: lettered at its end, or `Choose between the following options: left or right`. Names
that lead out of the image root (`..`, absolute, through a link) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curation.grading.actions import parse_action
from curation.grading.normalize import normalize
from mcts.data import AnswerKind, Box
from warehouse.sources.published import Row, published
from warehouse.sources.reading.drafts import (
    Draft,
    ImportProblem,
    LeftOut,
    ReadContext,
    Reject,
    Unusable,
)
from warehouse.sources.reading.gold_texts import gold_text
from warehouse.sources.reading.image_marks import MARK
from warehouse.sources.reading.options import NO_OPTIONS, Options, cut_options, read_options

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_FOUR = r"[(\[]\s*" + r"\s*,\s*".join([_NUMBER] * 4) + r"\s*[)\]]"
_BOX = re.compile(_FOUR)
_BOXES = re.compile(rf"\s*(?:{_FOUR}|[(\[]\s*{_FOUR}(?:\s*,\s*{_FOUR})*\s*[)\]])\s*")
_OWN_LINE = re.compile(rf"^[ \t]*(?:{MARK}[ \t]*)+$", re.MULTILINE)
_AT_THE_ENDS = re.compile(rf"^(?:\s*{MARK})+|(?:{MARK}\s*)+$")
_SPEAKERS = ("", "human", "user"), ("", "gpt", "assistant")  # a turn may say of nobody
_TEXTS = ("value", "content")
_EXPORTED = {"question_id", "pass_rate", "band"}  # columns of an export to EasyR1
_LISTED = re.compile(
    r"\s*(?:Choose between the following options|Options|Choices)\s*:\s*(?P<choices>[^:]+?)\.?\s*$",
    re.IGNORECASE,
)


def read(file: Path, context: ReadContext) -> Iterator[Draft | Reject]:
    """Lines of one file.

    Raises:
        ImportProblem: the file can't be read, or the image root is missing.
    """
    from warehouse.sources import task_of  # which offers this reader too

    kind = task_of(context.task).kind
    drafts = {AnswerKind.ACTION: _action_draft, AnswerKind.BOX: _box_draft}

    def draft(row: Row) -> Iterator[Draft | Unusable]:
        if context.image_root is None:
            raise ImportProblem(f"{file} names its images: say with --image-root where they are")
        yield drafts.get(kind, _question_draft)(row)
        for _ in range(2, len(_turns(row)), 2):
            yield LeftOut("conversations", "it is a later question of a conversation")

    needs = ("conversations|problem", "image|images")
    yield from published("", draft, needs)[".jsonl"](file, context)


def question_and_gold(row: Row) -> tuple[str, str]:
    """The question and the gold answer."""
    if row.get("problem") is not None:
        if row.values.keys() >= _EXPORTED:
            reason = "this is an export's whole prompt; import what the dataset was made from"
            raise Unusable("problem", reason)
        text, gold = row.text("problem"), row.optional("answer")
    else:
        turns = _turns(row)
        if len(turns) < 2:
            raise Unusable("conversations", "there are no question and answer turns")
        for (speaker, _), wanted, part in zip(
            turns, _SPEAKERS, ("question", "answer"), strict=False
        ):
            if speaker not in wanted:
                reason = f"the {part} should be from {' or '.join(wanted[1:])}, not from {speaker}"
                raise Unusable("conversations", reason)
        (_, text), (_, gold) = turns[:2]
    gold = gold_text(gold).strip()
    if not gold:
        raise Unusable("conversations", "there is no answer")
    # What is left of the marks is words, which the check of every draft looks at.
    return _AT_THE_ENDS.sub("", _OWN_LINE.sub("", text)).strip(), gold


def gold_fields(text: str, gold: str) -> dict[str, Any]:
    """Fields of a draft from a question and its gold answer, which is a text or boxes.

    Raises:
        Unusable: a box is in shares of the sides, or the answer names an option that is empty.
    """
    if _BOXES.fullmatch(gold):
        edges = [map(float, box.groups()) for box in _BOX.finditer(gold)]
        boxes = tuple(Box(x1, y1, x2, y2) for x1, y1, x2, y2 in edges)
        for box in boxes:
            if all(0 <= edge <= 1 for edge in (box.x1, box.y1, box.x2, box.y2)):
                reason = f"the box {gold} should be pixels: are they shares from 0 to 1?"
                raise Unusable("answer", reason)
        return {"text": text, "answer_kind": AnswerKind.BOX, "boxes": boxes}
    text, options = _split_choices(text, gold)
    return {"text": text, "choices": options.choices, "answers": (options.resolve(gold),)}


def _box_draft(row: Row) -> Draft:
    text, gold = question_and_gold(row)
    fields = gold_fields(text, gold)
    if "boxes" not in fields:
        reason = f"the answers of this task are boxes (x1, y1, x2, y2) in pixels, not {gold[:60]!r}"
        raise Unusable("answer", reason)
    return row.draft(images=row.images("image", "images"), **fields)


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


def _turns(row: Row) -> list[tuple[str, str]]:
    """The turns up to one without a text, but for the system's: who speaks, and the text."""
    turns = row.get("conversations")
    if row.get("problem") is not None or not isinstance(turns, list):
        return []
    found = []
    for turn in turns:
        speaker, text = (_first_text(turn, *names) for names in (("from", "role"), _TEXTS))
        if text is None:
            break
        if (speaker or "") != "system":
            found.append((speaker or "", text))
    return found


def _first_text(turn: Any, *names: str) -> str | None:
    values = (turn.get(name) for name in names) if isinstance(turn, dict) else ()
    return next((value for value in values if isinstance(value, str)), None)


def _split_choices(text: str, gold: str) -> tuple[str, Options]:
    """The question without its choices, and the choices; all of it and none if in doubt."""
    cut, lettered = cut_options(text)
    if lettered.places:
        return cut, lettered
    if listed := _LISTED.search(text):
        parts = re.split(r",\s*or\s+|\s+or\s+|,\s*", listed["choices"])
        options = read_options([part.strip() for part in parts if part.strip()])
        choices = options.choices
        if len(choices) > 1 and normalize(gold) in {normalize(choice) for choice in choices}:
            return text[: listed.start()].strip(), options
    return text, NO_OPTIONS
