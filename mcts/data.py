"""The nouns every room speaks: images, points, questions, steps, traces.

All of them are frozen values; what can be derived from their fields is a property, never a field.
One rule holds everywhere: a `Point` or a `Box` is in *original pixels* of a named image, x to the
right and y down, never in a model's own frame. Models' frames live in `mcts.coordinates` and are
converted at the edge, so two coordinate frames can never meet in one variable.

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


def content_id(*parts: Any) -> str:
    """A 128-bit hex id of JSON-serialisable `parts`: equal content, equal id, on every machine."""
    canonical = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Image:
    """A stored picture, named by what is in it."""

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
    """What the box is around, where that is known."""

    def contains(self, point: Point) -> bool:
        """Whether `point` lies in the box; its edges belong to it."""
        same_image = point.image == self.image
        return same_image and self.x1 <= point.x <= self.x2 and self.y1 <= point.y <= self.y2


class AnswerKind(StrEnum):
    """How an answer is compared with the gold one; one grader a kind (`curation.grading.grade`)."""

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
    """One thing to be answered from one or several images, with its gold answer."""

    task: str
    """The task it belongs to: `sat2`, `vstar`, `web-grounding`, `web-action` or a user's own."""
    text: str
    """The question as its authors wrote it, without choices and without image markers."""
    images: tuple[Image, ...]
    """One or more images, in the order the question speaks of them."""
    answer_kind: AnswerKind
    choices: tuple[str, ...] = ()
    """The options shown, in the order shown; empty when the answer is free."""
    answers: tuple[str, ...] = ()
    """Gold answers of kinds TEXT and ACTION; each of them alone is right."""
    boxes: tuple[Box, ...] = ()
    """Gold boxes of kind BOX; a point in any of them is right."""
    points: tuple[Point, ...] = ()
    """Gold points of kind POINT."""
    tolerance: float = 0.0
    """Kind POINT only: the largest accepted distance, in original pixels."""
    split: str = "train"
    """The split its source assigns; training never sees anything but `train`."""
    family: str = ""
    """The source's own type of question, such as `left_right`; for balance and reports."""
    part_of: str = ""
    """The source's name of the problem it is a part of, where several are scored together."""
    source: str = ""
    """The data set it was published in."""
    licence: str = ""
    """The licence of the question and its images, as an SPDX id where there is one."""

    @property
    def question_id(self) -> str:
        """Content hash of what is asked, about which pixels, and what counts as right."""
        boxes = [[b.x1, b.y1, b.x2, b.y2, b.image] for b in self.boxes]
        points = [[p.x, p.y, p.image] for p in self.points]
        image_ids = [image.image_id for image in self.images]
        gold = [list(self.answers), boxes, points, self.tolerance]
        return content_id(
            self.task, self.split, self.text, image_ids, self.answer_kind, list(self.choices), gold
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """What the environment showed a model after a zoom call: a crop of one image."""

    crop: Box
    """The region shown, in original pixels; clipped to the image."""
    width: int
    """Pixels of the picture the model was given."""
    height: int
    """Pixels of the picture the model was given."""
    marked: bool = False
    """Whether the called point was drawn on it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thought. It ends with the sentence that cites its point.

    Coordinates inside `thought` are written in original pixels; `mcts.parsing` rewrites them when a
    text enters from, or leaves for, a model's frame.
    """

    thought: str
    """The text, with its coordinates, in original pixels."""
    points: tuple[Point, ...] = ()
    """Every point the thought cites, in reading order; usually one, none in closing remarks."""
    call: Point | None = None
    """The point this step asked to see enlarged, if it called the zoom tool."""
    observation: Observation | None = None
    """What that call showed."""

    @property
    def point(self) -> Point | None:
        """The point the step is about: the first it cites."""
        return self.points[0] if self.points else None


class TraceKind(StrEnum):
    """How a trace came to be; the value is what `traces.kind` holds."""

    DIRECT = "direct"
    """Cut from one path of its tree."""
    CORRECTED = "corrected"
    """A wrong attempt, a turn back, and a path that leads to the right answer."""
    ZOOM = "zoom"
    """A dialogue in which steps call for crops and see them."""
    UNGROUNDED = "ungrounded"
    """A chain without its points (`curation.traces.response_styles`); in dataset versions only."""
    ANSWER = "answer"
    """An answer without reasoning; in dataset versions only."""
    EVALUATED = "answered"
    """A model's output, kept by an evaluation."""


class ResponseStyle(StrEnum):
    """How a response is written down: in prompts, dataset versions, recipes, rewards, evaluation."""

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
        """Former names, in recipes and models written before 0.2."""
        return {"answers": cls.ANSWER_ONLY, "direct": cls.ANSWER_ONLY}.get(str(value))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a step of a trace came from."""

    node_id: int | None
    """The tree node whose thought it is, or from which the rollout started."""
    rollout_id: int | None = None
    """The rollout of that node it was sampled in; None for the node's own step."""
    response_id: str | None = None
    """The journaled model response that holds its text; None for text the pipeline wrote."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A finished line of reasoning about one question, ready to be filtered and trained on."""

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
    """The search tree it was cut from."""
    origins: tuple[Origin, ...] = ()
    """One a step, in order."""
    wrong_from: int | None = None
    """Kind `corrected`: index of the first step of the wrong attempt; what is before is shared."""
    turns_back_at: int | None = None
    """Kind `corrected`: index of the step with which the reasoning turns back."""
    problems: tuple[str, ...] = ()
    """What the parser found wrong in the responses it was cut from, as `kind` words."""
    maker: str = ""
    """Name and version of the code that cut it from its tree, such as `linearize/1`."""

    @property
    def trace_id(self) -> str:
        """Content hash: the same reasoning, cut from one tree by one code, has the same id."""
        thoughts = [step.thought for step in self.steps]
        sources = [[o.node_id, o.rollout_id] for o in self.origins]
        made = [self.kind, self.maker]
        return content_id(self.question_id, self.tree_id, made, thoughts, self.answer, sources)

    @property
    def points(self) -> tuple[Point, ...]:
        """Every point cited, in reading order."""
        return tuple(point for step in self.steps for point in step.points)


@dataclass(frozen=True, slots=True)
class Grade:
    """A grader's word on an answer."""

    score: float | None
    """In [0, 1]; None means *not graded*, which is never the same as wrong."""
    reason: str
    """Why, in a few words a person can check."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A filter's word on a trace. Rejects are kept, with the reason."""

    filter: str
    keep: bool
    reason: str
    """Empty when kept without remark."""
    score: float | None = None
    """The measured quantity behind the decision, where there is one."""
