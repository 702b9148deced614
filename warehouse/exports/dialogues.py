"""A trace as turns of a conversation: one answer, or several where it was shown something.

    turns = dialogue(row, telling)        # [Turn("system", …), Turn("user", …, (image_id,)), …]
    flat(turns, marked=True)              # texts, `<image>` standing for each picture
    blocks(turns)                         # lists of {"type": "image"} and {"type": "text", …}

An observation is a user's turn that holds the region called for, enlarged. Pictures stand in front
of the words of their turn. A form whose pictures all stand in the first turn can't hold a dialogue
that zooms: then its contents are blocks, in which each picture has its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcts import zoom
from mcts.data import Question
from warehouse.storage.home import WarehouseError
from warehouse.tables.rows import step_from
from warehouse.versions.bundle import question_of

if TYPE_CHECKING:
    from warehouse.exports.formats import Telling

Row = dict[str, Any]

MARK = "<image>"
"""What stands for a picture in a text, for trainers that put them where the text says."""
BLOCKS = [{"role": "text", "content": [{"type": "text", "text": "text"}]}]
"""The columns of a conversation in blocks; the text of an image's block is null."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: str
    text: str
    pictures: tuple[str, ...] = ()
    """Ids of its pictures, which stand in front of its text."""


def asking(question: Question, telling: Telling, most_steps: int | None = None) -> list[Turn]:
    """The turns that ask a question; the user's has its pictures."""
    ids = tuple(image.image_id for image in question.images)
    return [
        Turn(message["role"], message["content"], ids if message["role"] == "user" else ())
        for message in telling.asked(question, most_steps)
    ]


def dialogue(row: Row, telling: Telling) -> list[Turn]:
    """The whole conversation of a version's row.

    Raises:
        WarehouseError: it was shown something, and there are no pictures to cut that from.
    """
    question = question_of(row)
    steps = [step_from(step) for step in row["steps"] or ()]
    turns = asking(question, telling, len(steps))
    said = 0
    for i, step in enumerate(steps, 1):
        if step.observation is None:
            continue
        if telling.pictures is None:
            raise WarehouseError(f"trace {row['trace_id']} zooms, and no pictures are at hand")
        turns.append(Turn("assistant", telling.told(steps[said:i], None, question)))
        image_id = question.images[step.observation.crop.image].image_id
        crop = telling.pictures.region(image_id, step.observation, step.call)
        turns.append(Turn("user", zoom.told(step.observation), (crop,)))
        said = i
    turns.append(Turn("assistant", telling.told(steps[said:], row["answer"], question)))
    return turns


def pictures_in(turns: list[Turn]) -> list[str]:
    """The pictures of all turns, in order."""
    return [image_id for turn in turns for image_id in turn.pictures]


def flat(turns: list[Turn], marked: bool, name: str = "") -> list[dict[str, str]]:
    """Messages with plain texts; `marked`, each picture leaves a mark in its turn.

    Raises:
        WarehouseError: a text of the row `name` holds the mark already.
    """
    if marked and any(MARK in turn.text for turn in turns):
        raise WarehouseError(
            f"the text of trace {name} holds {MARK}, which stands for a picture in this form"
        )
    return [
        {"role": turn.role, "content": MARK * len(turn.pictures) * marked + turn.text}
        for turn in turns
    ]


def blocks(turns: list[Turn]) -> list[Row]:
    """Messages whose contents are lists of blocks."""
    return [
        {
            "role": turn.role,
            "content": [
                *({"type": "image", "text": None} for _ in turn.pictures),
                {"type": "text", "text": turn.text},
            ],
        }
        for turn in turns
    ]
