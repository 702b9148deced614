"""A trace as turns of a conversation: one answer, or several where it was shown crops.

    renderer = ConversationRenderer(warehouse, space, prompt=None, min_thoughts=3)
    turns = conversation(row, renderer)   # [Turn("system", …), Turn("user", …, (image_id,)), …]
    check_turns(turns, "llama-factory", "trace 3f…")    # no text holds a mark
    flat(turns, marked=True)              # texts, `<image>` standing for each image
    blocks(turns)                         # lists of {"type": "image"} and {"type": "text", …}

An observation is a user's turn that holds the crop called for. Images stand in front of the words
of their turn. A format whose images all stand in the first turn can't hold a dialogue that zooms:
then its contents are blocks, in which each image has its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from curation.grading.exported_gold import write_gold
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Question, Step
from mcts.parsing import render
from mcts.prompts import build_messages, load_prompt
from mcts.zoom.config import ZoomConfig
from mcts.zoom.observe import observation_text
from warehouse.exports.files import BundleImages
from warehouse.exports.marks import check_marks
from warehouse.sources import task_of
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.rows import step_from
from warehouse.tables.schema import Row
from warehouse.versions.bundle import question_of

MARK = "<image>"
"""What stands for an image in a text, for trainers that put images where the text says."""
BLOCKS = [{"role": "text", "content": [{"type": "text", "text": "text"}]}]
"""The columns of a conversation in blocks; the text of an image's block is null."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: str
    text: str
    image_ids: tuple[str, ...] = ()
    """Its images, which stand in front of its text."""


@dataclass(frozen=True, slots=True)
class ConversationRenderer:
    """Writes questions and traces as one model reads and writes them."""

    warehouse: Warehouse
    space: CoordinateSpace
    prompt_file: str | None
    """The prompt file (`mcts.prompts`); None for each task's own."""
    min_thoughts: int
    used: dict[str, str] = field(default_factory=dict)
    """The hash of each prompt that was rendered so far."""
    images: BundleImages | None = None
    """Where crops are cut from; None where nothing zooms."""
    zooms: bool = False
    """Whether a row may hold several turns with images of their own."""
    rates: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    """Pass rate and band by question, where searches have measured one."""

    def prompt(
        self, question: Question, most_steps: int | None = None, zoom: ZoomConfig | None = None
    ) -> list[dict[str, str]]:
        """Render the messages that pose the question, as plain texts.

        Args:
            most_steps: of the trace that follows. What the prompt demands the answer must show, or
                the student learns to ignore it.
            zoom: the tool offered, where the prompt offers one.
        """
        demanded = self.min_thoughts if most_steps is None else min(self.min_thoughts, most_steps)
        prompt = load_prompt(self.prompt_file or task_of(question.task).prompt)
        self.used[prompt.name] = prompt.digest
        messages = build_messages(prompt, question, self.space, demanded, zoom=zoom)
        return [{"role": message.role, "content": message.text} for message in messages]

    def completion(
        self,
        steps: Sequence[Step],
        answer: str | None,
        question: Question,
        before: Sequence[Step] = (),
    ) -> str:
        """Render reasoning steps, behind those `before`, and an answer as the model would."""
        return render(steps, answer, Frame.of(self.space, question), before=before)

    def gold_answer(self, question: Question, *, alone: bool = False) -> str:
        """Render all that is right as one text (`curation.grading.exported_gold`).

        Numbers are in the model's own coordinates.

        Args:
            alone: whether a reward is handed nothing else, not the question's options either.
        """
        return write_gold(question, Frame.of(self.space, question), alone=alone)


def prompt_turns(
    question: Question, renderer: ConversationRenderer, most_steps: int | None = None
) -> list[Turn]:
    """Return the turns that pose a question; the user's has its images."""
    ids = tuple(image.image_id for image in question.images)
    return [
        Turn(message["role"], message["content"], ids if message["role"] == "user" else ())
        for message in renderer.prompt(question, most_steps)
    ]


def conversation(row: Row, renderer: ConversationRenderer) -> list[Turn]:
    """Return the whole conversation of a version's row.

    Raises:
        WarehouseError: it was shown a crop, and there are no images to cut that from.
    """
    question = question_of(row)
    steps = [step_from(step) for step in row["steps"] or ()]
    turns = prompt_turns(question, renderer, len(steps))
    written = 0
    for i, step in enumerate(steps, 1):
        if step.observation is None:
            continue
        if renderer.images is None:
            raise WarehouseError(f"trace {row['trace_id']} zooms, and no images are at hand")
        said = renderer.completion(steps[written:i], None, question, steps[:written])
        turns.append(Turn("assistant", said))
        crops: tuple[str, ...] = ()
        if step.observation.crop is not None:
            image_id = question.images[step.observation.crop.image].image_id
            crops = (renderer.images.crop(image_id, step.observation, step.call),)
        turns.append(Turn("user", observation_text(step.observation), crops))
        written = i
    answer = renderer.completion(steps[written:], row["answer"], question, steps[:written])
    turns.append(Turn("assistant", answer))
    return turns


def image_ids_in(turns: list[Turn]) -> list[str]:
    """Return the images of all turns, in order."""
    return [image_id for turn in turns for image_id in turn.image_ids]


def check_turns(turns: list[Turn], to: str, name: str) -> None:
    """WarehouseError if a text of the row `name` holds a mark of the format `to`."""
    for turn in turns:
        check_marks(turn.text, to, name)


def flat(turns: list[Turn], marked: bool) -> list[dict[str, str]]:
    """Return messages with plain texts; `marked`, each image leaves a mark in its turn."""
    return [
        {"role": turn.role, "content": MARK * len(turn.image_ids) * marked + turn.text}
        for turn in turns
    ]


def blocks(turns: list[Turn]) -> list[Row]:
    """Return messages whose contents are lists of blocks."""
    return [
        {
            "role": turn.role,
            "content": [
                *({"type": "image", "text": None} for _ in turn.image_ids),
                {"type": "text", "text": turn.text},
            ],
        }
        for turn in turns
    ]
