"""A trace as turns of a conversation: one answer, or several where it was shown crops.

    renderer = ConversationRenderer(warehouse, space, prompt=None, min_thoughts=3)
    turns = conversation(row, renderer)   # [Turn("system", …), Turn("user", …, (image_id,)), …]
    check_turns(turns, "llama-factory", "trace 3f…")    # no text holds a mark
    flat(turns, marked=True)              # texts, `<image>` standing for each image
    blocks(turns)                         # lists of {"type": "image"} and {"type": "text", …}

An observation is a turn of its own, a user's or a tool's, that holds the crop called for: the turns
are those of a search (`mcts.prompts.build_messages`), its pixels too. Images stand in front of the
words of their turn. A format whose images all stand in the first turn can't hold a dialogue that
zooms: then its contents are blocks, in which each image has its place.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curation.grading.exported_gold import write_gold
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Question, Step, Trace
from mcts.parsing import render
from mcts.prompts import build_messages, load_prompt
from mcts.teachers.base import ImagePart, Message
from mcts.tool_calls.calls import BOX_TOOL, POINT_TOOL, tool_schema
from mcts.zoom.config import ZoomConfig
from mcts.zoom.lenses import VISUAL_SEARCH_LENS
from mcts.zoom.tools import BoxesCalled, calls_boxes, for_tool
from warehouse.exports.files import BundleImages
from warehouse.exports.marks import check_marks
from warehouse.query.read_back import read_zoom_tools
from warehouse.query.run_query import UNREADABLE
from warehouse.sources import task_of
from warehouse.storage.home import Warehouse, WarehouseError
from warehouse.tables.schema import Row
from warehouse.versions.bundle import question_of, read_rows, trace_of

_PROMPT = "zoom"
"""The prompt file of dialogues."""
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
    """The prompt file (`mcts.prompts`); None for each task's own, and for the one of dialogues."""
    min_thoughts: int
    used: dict[str, str] = field(default_factory=dict)
    """The hash of each prompt that was rendered so far."""
    images: BundleImages | None = None
    """Where crops are cut from; None where nothing zooms."""
    zooms: bool = False
    """Whether a row may hold several turns with images of their own."""
    zoom_tool: str | None = None
    """The tool that dialogues call; None for the one that was called in the search."""
    box_trees: set[str] = field(default_factory=set)
    """Trees of which every dialogue calls for boxes, also one that never looks."""
    observation_role: str = "user"
    """The turn in which a crop comes: `user` or `tool`."""
    rates: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    """Pass rate and band by question, where searches have measured one."""
    left_out: Counter[str] = field(default_factory=Counter)
    """How many rows a format left out, by reason."""

    def prompt(
        self, question: Question, most_steps: int | None = None, zoom: ZoomConfig | None = None
    ) -> list[dict[str, str]]:
        """Render the messages that pose the question, as plain texts.

        Args:
            most_steps: of the trace that follows. What the prompt demands the answer must show, or
                the student learns to ignore it.
            zoom: the tool offered, where the prompt offers one.
        """
        messages = self.messages(question, (), most_steps, zoom)
        return [{"role": message.role, "content": message.text} for message in messages]

    def messages(
        self,
        question: Question,
        steps: Sequence[Step],
        most_steps: int | None,
        zoom: ZoomConfig | None,
    ) -> tuple[Message, ...]:
        """Build the messages that pose a question, and the turns of `steps` behind it."""
        demanded = self.min_thoughts if most_steps is None else min(self.min_thoughts, most_steps)
        own = _PROMPT if zoom else task_of(question.task).prompt
        prompt = load_prompt(self.prompt_file or own)
        self.used[prompt.name] = prompt.digest
        return build_messages(prompt, question, self.space, demanded, steps, zoom=zoom)

    def zoom_of(self, trace: Trace) -> ZoomConfig | None:
        """Return with which tool, and in which turns, a trace zooms; None where it doesn't."""
        if not trace.zooms:
            return None
        boxes = trace.tree_id in self.box_trees or calls_boxes(trace.steps)
        tool = self.zoom_tool or (BOX_TOOL if boxes else POINT_TOOL)
        # What the calls show is in the trace: no lens is needed.
        return ZoomConfig(VISUAL_SEARCH_LENS, tool=tool, role=self.observation_role)

    def tools(self, trace: Trace) -> str | None:
        """Return the schemas of a dialogue's tools, as trainers read them: JSON; else None."""
        zoom = self.zoom_of(trace)
        return json.dumps([tool_schema(zoom.tool, self.space)]) if zoom else None

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


def box_trees(warehouse: Warehouse, file: Path) -> set[str]:
    """Return which trees of a version are of the tool that takes boxes: it was offered, or a
    dialogue calls it.

    Args:
        file: the version's rows.
    """
    offered: dict[str, bool] = {}
    for row in read_rows(file):
        if row["tree_id"]:
            boxes = any((step["call"] or {}).get("box") for step in row["steps"] or ())
            offered[row["tree_id"]] = boxes or offered.get(row["tree_id"], False)
    unsure = [tree_id for tree_id, boxes in offered.items() if not boxes]
    found = {tree_id for tree_id, boxes in offered.items() if boxes}
    try:
        tools_of = read_zoom_tools(warehouse, unsure)
    except UNREADABLE:
        tools_of = {}  # of a copied bundle only its dialogues are known
    return found | {tree_id for tree_id, tool in tools_of.items() if tool == BOX_TOOL}


def prompt_turns(
    question: Question, renderer: ConversationRenderer, zoom: ZoomConfig | None = None
) -> list[Turn]:
    """Return the turns that pose a question; the user's has its images."""
    return _turns(renderer.messages(question, (), None, zoom))


def conversation(row: Row, renderer: ConversationRenderer) -> list[Turn]:
    """Return the whole conversation of a version's row.

    Raises:
        WarehouseError: it was shown a crop, and there are no images to cut that from, or a call
            can't be written with the tool asked for.
    """
    trace, question = trace_of(row), question_of(row)
    name = f"trace {row['trace_id']}"
    steps = called_with(trace.steps, renderer.zoom_of(trace), name)
    begun, turns = dialogue(steps, question, renderer, renderer.zoom_of(trace), len(steps), name)
    answer = renderer.completion(steps[begun:], trace.answer, question, steps[:begun])
    return [*turns, Turn("assistant", answer)]


def dialogue(
    steps: Sequence[Step],
    question: Question,
    renderer: ConversationRenderer,
    zoom: ZoomConfig | None,
    most_steps: int,
    name: str,
) -> tuple[int, list[Turn]]:
    """Return the turns up to the last observation, and the number of their steps.

    Args:
        name: the row's, for errors.

    Raises:
        WarehouseError: a crop was shown, and there are no images to cut it from.
    """
    begun = max((i for i, step in enumerate(steps, 1) if step.observation is not None), default=0)
    crops_of(steps[:begun], question, renderer, name)
    return begun, _turns(renderer.messages(question, steps[:begun], most_steps, zoom))


def crops_of(
    steps: Sequence[Step], question: Question, renderer: ConversationRenderer, name: str
) -> list[str]:
    """Make the crops that steps were shown known to the renderer's images; return their ids.

    Raises:
        WarehouseError: there are no images to cut them from.
    """
    found = []
    for step in steps:
        if step.observation is not None and step.observation.crop is not None:
            if renderer.images is None:
                raise WarehouseError(f"{name} zooms, and no images are at hand")
            image_id = question.images[step.observation.crop.image].image_id
            found.append(renderer.images.crop(image_id, step.observation, step.call))
    return found


def called_with(steps: Sequence[Step], zoom: ZoomConfig | None, name: str) -> tuple[Step, ...]:
    """Write calls for the tool of `zoom` (`mcts.zoom.tools.for_tool`).

    Raises:
        WarehouseError: the tool takes points, and a call was for a box.
    """
    try:
        return for_tool(steps, zoom.tool) if zoom else tuple(steps)
    except BoxesCalled as error:
        raise WarehouseError(f"{name} {error}: leave out --zoom-tool") from None


def _turns(messages: Sequence[Message]) -> list[Turn]:
    return [
        Turn(m.role, m.text, tuple(p.image_id for p in m.parts if isinstance(p, ImagePart)))
        for m in messages
    ]


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
