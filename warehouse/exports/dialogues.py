"""A trace as turns of a conversation: one answer, or several where it was shown something.

    turns = dialogue(row, telling)        # [Turn("system", …), Turn("user", …, (image_id,)), …]
    flat(turns, marked=True)              # texts, `<image>` standing for each picture
    blocks(turns)                         # lists of {"type": "image"} and {"type": "text", …}

An observation is a user's turn that holds the region called for, enlarged. Pictures stand in front
of the words of their turn. A form whose pictures all stand in the first turn can't hold a dialogue
that zooms: then its contents are blocks, in which each picture has its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcts import zoom
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import AnswerKind, Point, Question, Step
from mcts.parsing import render
from mcts.prompts import build_messages, load_prompt
from warehouse.exports.files import Pictures
from warehouse.sources import task_of
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.rows import step_from
from warehouse.versions.bundle import question_of

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


@dataclass(frozen=True, slots=True)
class Telling:
    """How questions and traces are put into words for one model."""

    warehouse: Warehouse
    space: CoordinateSpace
    prompt: str | None
    """Which one asks; None for each task's own."""
    min_thoughts: int
    used: dict[str, str] = field(default_factory=dict)
    """The hash of each prompt that has asked something so far."""
    pictures: Pictures | None = None
    """Where crops are cut from; None where nothing zooms."""
    zooms: bool = False
    """Whether a row may hold more turns than one, each with pictures of its own."""
    rates: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    """Pass rate and band by question, where searches have told."""

    def asked(self, question: Question, most_steps: int | None = None) -> list[dict[str, str]]:
        """The conversation that asks it, as plain texts.

        Args:
            most_steps: of the trace that follows. What the prompt demands the answer must show, or
                the student learns to ignore it.
        """
        demanded = self.min_thoughts if most_steps is None else min(self.min_thoughts, most_steps)
        prompt = load_prompt(self.prompt or task_of(question.task).prompt)
        self.used[prompt.name] = prompt.digest
        messages = build_messages(prompt, question, self.space, demanded)
        return [{"role": message.role, "content": message.text} for message in messages]

    def told(self, steps: Sequence[Step], answer: str | None, question: Question) -> str:
        """A line of reasoning as the model would write it."""
        return render(steps, answer, Frame.of(self.space, question))

    def gold(self, question: Question) -> str:
        """The gold answer: the first text, `(x1, y1, x2, y2)` of a box, `(x, y)` of a point."""
        if question.answer_kind is AnswerKind.BOX:
            box = question.boxes[0]
            corners = (Point(box.x1, box.y1, box.image), Point(box.x2, box.y2, box.image))
            return self._numbers(question, *corners)
        if question.answer_kind is AnswerKind.POINT:
            return self._numbers(question, question.points[0])
        return question.answers[0]

    def _numbers(self, question: Question, *points: Point) -> str:
        frame = Frame.of(self.space, question)
        numbers = [f"{value:g}" for point in points for value in frame.to_model(point)]
        return f"({', '.join(numbers)})"


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
