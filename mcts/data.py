"""The values that every package uses: images, points, questions, steps, traces.

All of them are frozen; what can be derived from their fields is a property, never a field. One rule
holds everywhere: a `Point` or a `Box` is in *original pixels* of a named image, x to the right and
y down, never in a model's own frame. `mcts.coordinates` converts models' frames at the edge, so two
coordinate frames never meet in one variable.

    question = Question(task="sat2", text="Is the chair left of the lamp?", images=(image,),
                        answer_kind=AnswerKind.TEXT, choices=("yes", "no"), answers=("yes",))
    question.question_id        # a content hash: the same question always has the same id
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


def _as_floats(place: Point | Box, *names: str) -> None:
    """Make a place's coordinates floats, as they are stored.

    A whole number written as an int hashes to another id than the float it is read back as.
    """
    for name in names:
        value = getattr(place, name)
        if type(value) is not float:
            object.__setattr__(place, name, float(value))


def content_id(*parts: Any) -> str:
    """Hash JSON-serialisable `parts` to a 128-bit hex id, the same on every machine."""
    canonical = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Image:
    """A stored image, named by its content."""

    image_id: str
    """SHA-256 (hex) of the encoded bytes exactly as stored."""
    width: int
    """Pixels, after the EXIF orientation has been applied."""
    height: int
    """Pixels, after the EXIF orientation has been applied."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place in one of a question's images, in original pixels."""

    x: float
    """Pixels from the left edge; 0 <= x <= width is inside the image."""
    y: float
    """Pixels from the top edge; 0 <= y <= height is inside the image."""
    image: int = 0
    """Which of the question's images, counted from 0."""

    def __post_init__(self) -> None:
        _as_floats(self, "x", "y")


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in one of a question's images, in original pixels, edges included."""

    x1: float
    y1: float
    x2: float
    y2: float
    image: int = 0
    """Which of the question's images, counted from 0."""
    label: str = ""
    """What the box encloses, where that is known."""

    def __post_init__(self) -> None:
        _as_floats(self, "x1", "y1", "x2", "y2")

    @property
    def middle(self) -> Point:
        """The point in its middle, in the same image."""
        return Point((self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2, self.image)

    def contains(self, point: Point) -> bool:
        """Return whether `point` lies in the box, edges included."""
        same_image = point.image == self.image
        return same_image and self.x1 <= point.x <= self.x2 and self.y1 <= point.y <= self.y2


class AnswerKind(StrEnum):
    """How an answer is compared with the gold answer (`curation.grading.grade`)."""

    TEXT = "text"
    """A choice, a word or a number: `answers` holds the accepted texts."""
    BOX = "point_in_box"
    """A point that must fall in one of `boxes`."""
    POINT = "point"
    """A point within `tolerance` pixels of one of `points`."""
    ACTION = "web_action"
    """A browser action such as `click [12]`: `answers` holds the accepted actions."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one or several images, with its gold answer."""

    task: str
    """Its task: `sat2`, `vstar`, `web-grounding`, `web-action` or a user's own."""
    text: str
    """The question as its authors wrote it, without choices and without image markers."""
    images: tuple[Image, ...]
    """One or more images, in the order in which the question refers to them."""
    answer_kind: AnswerKind
    choices: tuple[str, ...] = ()
    """The options shown, in the order shown; empty when the answer is free."""
    answers: tuple[str, ...] = ()
    """Gold answers of kinds TEXT and ACTION; each of them is right."""
    boxes: tuple[Box, ...] = ()
    """Gold boxes of kind BOX; a point in any of them is right. Of other kinds, where what is asked
    about can be seen, in case the source says it: answers are not graded by it."""
    points: tuple[Point, ...] = ()
    """Gold points of kind POINT."""
    tolerance: float = 0.0
    """Kind POINT only: the largest accepted distance, in original pixels."""
    split: str = "train"
    """The split its source assigns; training never sees anything but `train`."""
    family: str = ""
    """The source's type of question, such as `left_right`; for balance and reports."""
    part_of: str = ""
    """The source's name of the problem it belongs to, where several questions score together."""
    source: str = ""
    """The dataset in which it was published."""
    licence: str = ""
    """The licence of the question and its images, as an SPDX id where there is one."""
    counted_as: str = ""
    """What its benchmark counts it under, such as a category, where the same question counts once
    for each; empty where it doesn't."""

    @property
    def question_id(self) -> str:
        """Content hash of the question, its images, its gold answers, and what it counts under."""
        gold_boxes = self.boxes if self.answer_kind is AnswerKind.BOX else ()
        boxes = [[b.x1, b.y1, b.x2, b.y2, b.image] for b in gold_boxes]
        points = [[p.x, p.y, p.image] for p in self.points]
        image_ids = [image.image_id for image in self.images]
        gold = [list(self.answers), boxes, points, float(self.tolerance)]
        counted = [self.counted_as] if self.counted_as else []  # all other questions keep their ids
        return content_id(
            self.task, self.split, self.text, image_ids, self.answer_kind, list(self.choices), gold,
            *counted,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ZoomCall:
    """A model's request for a closer look at a place (`mcts.zoom`)."""

    point: Point | None
    """The middle of what is asked for; None if the call can't be read, or names no image."""
    view: int = 0
    """The picture it was made in: the question's images from 0, then the crops as they were shown.
    """
    box: Box | None = None
    """The region asked for, where the tool takes boxes."""
    label: str = ""
    """What is looked for, as a tool that takes boxes is told."""
    text: str = ""
    """The call as it was written; only where `point` is None."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a zoom call shows a model: a crop of one image, or why there is none."""

    crop: Box | None
    """The region shown, in original pixels, inside the image; None if nothing was shown."""
    width: int
    """Pixels of the crop as shown to the model."""
    height: int
    """Pixels of the crop as shown to the model."""
    marked: bool = False
    """Whether the point of the call was drawn on it."""
    view: int | None = None
    """The number by which a later call names the crop (`ZoomCall.view`); None if there is none."""
    problem: str = ""
    """Why nothing was shown: a `mcts.zoom.observe.ZoomProblem`."""
    last: bool = False
    """Whether it asks for the answer, since no further call will be answered."""


@dataclass(frozen=True, slots=True)
class Step:
    """One reasoning step, which ends with the sentence that cites its point.

    Coordinates inside `thought` are in original pixels; `mcts.parsing` converts them from and to a
    model's frame.
    """

    thought: str
    """The text, with its coordinates, in original pixels."""
    points: tuple[Point, ...] = ()
    """Every point the thought cites, in reading order; usually one; none in closing remarks."""
    call: ZoomCall | None = None
    """The step's zoom call, if it made one."""
    observation: Observation | None = None
    """What the call showed; it ends the model's turn."""

    @property
    def point(self) -> Point | None:
        """The first point the step cites."""
        return self.points[0] if self.points else None


class TraceKind(StrEnum):
    """How a trace came to be; the value is what `traces.kind` holds."""

    DIRECT = "direct"
    """Cut from one path of its tree."""
    CORRECTED = "corrected"
    """A wrong attempt, a turn back, and a path that leads to the right answer."""
    ZOOM = "zoom"
    """A dialogue in which steps call for crops and see them, or might have."""
    UNGROUNDED = "ungrounded"
    """A chain without its points (`curation.traces.response_styles`); in dataset versions only."""
    ANSWER = "answer"
    """An answer without reasoning; in dataset versions only."""
    EVALUATED = "answered"
    """A model's output, kept by an evaluation."""


class ResponseStyle(StrEnum):
    """How a response is written: in prompts, dataset versions, recipes, rewards, evaluation."""

    GROUNDED = "grounded"
    """Reasoning steps that each cite a point, then the answer."""
    UNGROUNDED = "ungrounded"
    """Reasoning steps without points, then the answer."""
    ANSWER_ONLY = "answer_only"
    """Nothing but the answer."""
    ZOOM = "zoom"
    """A dialogue: a thought, a tool call, the crop it shows, and so on to the answer."""

    @classmethod
    def _missing_(cls, value: object) -> ResponseStyle | None:
        """Former names, in recipes and models written before 0.1.0."""
        return {"answers": cls.ANSWER_ONLY, "direct": cls.ANSWER_ONLY}.get(str(value))


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a trace's step."""

    node_id: int | None
    """The tree node that holds it, or from which its rollout started."""
    rollout_id: int | None = None
    """The rollout of that node in which it was sampled; None for the node's own step."""
    response_id: str | None = None
    """The journaled response with its text; None for text that the pipeline wrote."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A complete line of reasoning about one question, to be filtered and trained on."""

    question_id: str
    steps: tuple[Step, ...]
    answer: str | None
    """The final answer in original pixels where it is a point; None if none was given."""
    reward: float | None
    """The grader's score of `answer` in [0, 1]; None when it was not graded."""
    kind: str
    """How it was made: a `TraceKind`."""
    origin: str = "search"
    """`search` for training material, `evaluation` for outputs made to measure a model."""
    tree_id: str | None = None
    """Its search tree."""
    origins: tuple[Origin, ...] = ()
    """One per step, in order."""
    wrong_from: int | None = None
    """Kind `corrected`: index of the first step of the wrong attempt; earlier steps are shared."""
    turns_back_at: int | None = None
    """Kind `corrected`: index of the step in which the reasoning turns back."""
    problems: tuple[str, ...] = ()
    """Kinds of the parser's problems (`mcts.parsing.ParseProblem`) in its responses."""
    maker: str = ""
    """Name and version of the code that made it, such as `linearize/1`."""

    @property
    def trace_id(self) -> str:
        """Content hash: the same reasoning, made from one tree by one code, has the same id."""
        thoughts = [step.thought for step in self.steps]
        sources = [[o.node_id, o.rollout_id] for o in self.origins]
        made = [self.kind, self.maker]
        looks = [
            [call.view, [call.point.x, call.point.y] if call.point else call.text, *_corners(call)]
            for step in self.steps
            if step.observation is not None and (call := step.call) is not None
        ]
        looked = [looks] if looks else []  # all other traces keep their ids
        return content_id(
            self.question_id, self.tree_id, made, thoughts, self.answer, sources, *looked
        )

    @property
    def zooms(self) -> bool:
        """Whether its steps looked closer, or might have."""
        return self.kind == TraceKind.ZOOM or any(s.observation is not None for s in self.steps)

    @property
    def points(self) -> tuple[Point, ...]:
        """Every point cited, in reading order."""
        return tuple(point for step in self.steps for point in step.points)


def _corners(call: ZoomCall) -> list[list[float]]:
    """Return the corners of a call's box; none of a call for a point, whose ids have none."""
    return [[call.box.x1, call.box.y1, call.box.x2, call.box.y2]] if call.box else []


@dataclass(frozen=True, slots=True)
class Grade:
    """A grader's decision on an answer."""

    score: float | None
    """In [0, 1]; None means *not graded*, which is not the same as wrong."""
    reason: str
    """A short reason that a person can check."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A filter's decision on a trace. Rejected traces are stored with the reason."""

    filter: str
    keep: bool
    reason: str
    """Empty if there is nothing to remark."""
    score: float | None = None
    """The measured quantity of the decision, where there is one."""
