"""Rewards for GRPO: what a completion earns, in parts that TRL takes as reward functions.

    rewards = make_rewards(PRESETS["grounded"], CoordinateSpace.qwen3_vl())
    GRPOTrainer(reward_funcs=rewards.functions, args=GRPOConfig(reward_weights=rewards.weights))
    rewards.total(prompts, completions, question=[...])          # the weighted sum, in [0, 1]

A row's `question` column (`training.rewards.question_column`) says what was asked; completions are
texts, or chat messages, in the student's own coordinates. The parts, each of them in [0, 1]:

- `correctness`: the grader's score (`curation.grading.grade`) of the one answer that ends the text.
  Two answers are none, and so is an answer that anything follows.
- `format`: one think block a step, then one answer, and nothing else: no other tag, no text
  outside, no thought that is empty, said twice or endless, and as many thoughts as the column
  `min_thoughts` asks for, where there is one.
- `grounding`: the form is right and every step points into the image, at a place of its own; a
  step that says it checks may go back to a place once.
- `verified`: the same, and the steps point at what they name, told from the boxes in the image
  (`curation.filters.grounding`). Half of the steps is worth nothing, so that pointing at random
  earns nothing; all of them is 1. A step that names nothing known counts as a miss: being vague
  does not pay. Where an image has no boxes, it is `grounding`.

Weights sum to 1 and correctness weighs more than the rest together. So a wrong answer, whatever is
done around it, earns less than a right one in the worst of forms. `training.rewards.lint` tries to
prove the opposite of this and of any other reward.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from curation.filters import grounding
from curation.filters.rules import SAME_PLACE
from curation.grading.grade import grade
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Point, Step, Trace
from mcts.parsing import parse, points_in, revisits
from training.rewards.question_column import AskedQuestion, read_question

FORMS = ("grounded", "ungrounded", "direct")
"""What an answer looks like: pointed steps, steps without points, or nothing but the answer."""
MOST_STEPS = 16
MOST_CHARACTERS = 1_000
"""In one thought: several sentences, and far from a page."""
MOST_POINTS = 2
"""In one thought: it looks at one place, or compares two."""
LEAST_WORDS = 2
"""In one thought, coordinates not counted."""
LONGEST = 64_000
"""Characters of a completion; a longer one isn't read and earns nothing."""

_OPEN, _CLOSE = "<answer>", "</answer>"
# What looks like a tag, or like a token that ends a turn; `a < b` does not.
_TAG = re.compile(r"<[/\w|!]")
_BLOCK = re.compile(r"\s*<think>((?:[^<]|<(?![/\w|!]))*)</think>")
_NUMBERS = re.compile(r"\([^()]{0,40}\)|\d+")

Reward = Callable[..., list[float | None]]
"""`f(prompts, completions, **columns)`: a score for each completion; None is not scored."""


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """Which parts a reward has, and what each weighs."""

    weights: Mapping[str, float]
    """Part by part; they sum to 1, and correctness is more than half of it."""
    form: str = "grounded"
    """One of `FORMS`."""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form: it is {', '.join(FORMS)}, not {self.form!r}")
        if unknown := [name for name in self.weights if name not in PARTS]:
            raise ValueError(f"weights: no part {unknown[0]!r}; there are {', '.join(PARTS)}")
        if any(not 0 <= weight <= 1 for weight in self.weights.values()):
            raise ValueError("weights: each is between 0 and 1")
        if abs(sum(self.weights.values()) - 1) > 1e-9:
            raise ValueError(f"weights: they sum to {sum(self.weights.values()):g}, not to 1")
        if self.weights.get("correctness", 0) <= 0.5:
            raise ValueError(
                "weights: correctness must be over 0.5, or form could beat a right answer"
            )
        pointing = [name for name in ("grounding", "verified") if self.weights.get(name)]
        if pointing and self.form != "grounded":
            raise ValueError(f"weights: {pointing[0]} needs form grounded, not {self.form}")


@dataclass(frozen=True, slots=True)
class Read:
    """A completion as the parts see it."""

    asked: AskedQuestion
    frame: Frame
    form: str
    min_thoughts: int
    answer: str | None
    """In original pixels; None where the text does not end in its one answer."""
    thoughts: tuple[str, ...]
    """One a think block, as written; empty unless the whole text is blocks and then an answer."""
    pixels: tuple[str, ...]
    """The same with their coordinates in original pixels."""
    whole: bool
    """Whether the text is think blocks, not too many, then one answer, and nothing else."""


def read(
    text: str, asked: AskedQuestion, space: CoordinateSpace, form: str, min_thoughts: int = 1
) -> Read:
    """Read one completion; nothing about it is an error."""
    frame = Frame.of(space, asked.question)
    answer: str | None = None
    thoughts: list[str] = []
    whole = False
    text = text.strip()
    before, opened, rest = text.partition(_OPEN)
    content = rest.removesuffix(_CLOSE)
    if opened and content != rest and len(text) <= LONGEST and not _TAG.search(content):
        answer = parse(f"{_OPEN}{content}{_CLOSE}", frame).answer
        at = 0
        while block := _BLOCK.match(before, at):
            thoughts.append(block[1].strip())
            at = block.end()
        whole = answer is not None and not before[at:].strip() and len(thoughts) <= MOST_STEPS
    written = tuple(thoughts) if whole else ()
    pixels = tuple(_in_pixels(thought, frame) for thought in written)
    return Read(asked, frame, form, min_thoughts, answer, written, pixels, whole)


def _in_pixels(thought: str, frame: Frame) -> str:
    """A thought with its coordinates in original pixels; one in no image is no point any more."""
    return "\n".join(step.thought for step in parse(f"<think>{thought}</think>", frame).steps)


def correctness(said: Read) -> float | None:
    """The grader's score of the answer."""
    return grade(said.asked.question, said.answer).score


def well_formed(said: Read) -> float:
    """1 for the form that was asked for, else 0."""
    thoughts = said.thoughts
    if said.form == "direct":
        return float(said.whole and not thoughts)
    right = (
        said.whole
        and max(1, said.min_thoughts) <= len(thoughts) <= MOST_STEPS
        and all(len(thought) <= MOST_CHARACTERS for thought in thoughts)
        and all(_words(thought) >= LEAST_WORDS for thought in thoughts)
        and len({" ".join(thought.casefold().split()) for thought in thoughts}) == len(thoughts)
    )
    if said.form == "ungrounded":
        right = right and not any(points_in(thought) for thought in thoughts)
    return float(right)


def _words(thought: str) -> int:
    return len(re.findall(r"[^\W\d_]{2,}|\b[aI]\b", _NUMBERS.sub(" ", thought)))


def grounded(said: Read) -> float:
    """1 when every step points, inside the image and at a place of its own, else 0."""
    if not well_formed(said):
        return 0.0
    places: list[tuple[Point, int]] = []  # a place, and how often it was looked at
    for written, thought in zip(said.thoughts, said.pixels, strict=True):
        points = points_in(thought)
        # What was written as a point and is none any more is in no image.
        if not 1 <= len(points) <= MOST_POINTS or len(points) < len(points_in(written)):
            return 0.0
        for point in points:
            if not said.frame.inside(point):
                return 0.0
            again = [
                i for i, (p, _) in enumerate(places) if said.frame.same_place(p, point, SAME_PLACE)
            ]
            if not again:
                places.append((point, 1))
                continue
            place, looks = places[again[0]]
            if looks > 1 or not revisits(thought):
                return 0.0
            places[again[0]] = (place, looks + 1)
    return 1.0


def verified(said: Read) -> float:
    """How many of the steps point at what they name, counted from a half up; see the top."""
    if not grounded(said):
        return 0.0
    if any(seen is None for seen in said.asked.objects):
        return 1.0
    steps = tuple(Step(thought, points_in(thought)) for thought in said.pixels)
    trace = Trace(said.asked.question.question_id, steps, said.answer, None, "direct")
    found = grounding.check(trace, said.asked.objects)
    share = sum(step.grounded is True for step in found) / len(found)
    return max(0.0, 2 * share - 1)


PARTS: dict[str, Callable[[Read], float | None]] = {
    "correctness": correctness,
    "format": well_formed,
    "grounding": grounded,
    "verified": verified,
}
"""Every part by its name."""

PRESETS = {
    "grounded": RewardSpec({"correctness": 0.7, "format": 0.15, "grounding": 0.15}),
    "verified": RewardSpec({"correctness": 0.7, "format": 0.1, "verified": 0.2}),
    "ungrounded": RewardSpec({"correctness": 0.7, "format": 0.3}, form="ungrounded"),
    "direct": RewardSpec({"correctness": 0.7, "format": 0.3}, form="direct"),
}
"""Rewards by the name a recipe gives; form always weighs the same, so that runs compare."""


@dataclass(frozen=True, slots=True)
class Rewards:
    """The parts as TRL takes them, in one order."""

    functions: list[Reward]
    """One a part; its `__name__` is the part's name, under which TRL logs it."""
    weights: list[float]
    names: list[str] = field(default_factory=list)

    def total(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """The weighted sum of the parts, in [0, 1]; None where the answer could not be graded."""
        parts = [function(prompts, completions, **columns) for function in self.functions]
        return [
            None if None in scores
            else min(1.0, sum(w * s for w, s in zip(self.weights, scores, strict=True)))
            for scores in zip(*parts, strict=True)
        ]  # fmt: skip


def make_rewards(spec: RewardSpec, space: CoordinateSpace) -> Rewards:
    """The parts of `spec` for a student that speaks `space`, but for those that weigh nothing."""
    names = [name for name, weight in spec.weights.items() if weight]
    functions = [_reward(name, spec, space) for name in names]
    return Rewards(functions, [spec.weights[name] for name in names], names)


def _reward(name: str, spec: RewardSpec, space: CoordinateSpace) -> Reward:
    part = PARTS[name]

    def reward(
        prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        if "question" not in columns:
            raise ValueError("rewards need a column `question` (training.rewards.question_column)")
        demanded = columns.get("min_thoughts") or [1] * len(columns["question"])
        return [
            part(_read_once(text_of(completion), of, space, spec.form, int(least or 1)))
            for completion, of, least in zip(
                completions, columns["question"], demanded, strict=True
            )
        ]

    reward.__name__ = reward.__qualname__ = name
    return reward


@lru_cache(maxsize=1024)  # each part reads the same completions
def _read_once(text: str, column: str, space: CoordinateSpace, form: str, least: int) -> Read:
    return read(text, read_question(column), space, form, least)


def text_of(completion: Any) -> str:
    """What the model wrote: a text, or the assistant's turns of a list of chat messages."""
    if isinstance(completion, str):
        return completion
    turns = []
    for message in completion or ():
        if message.get("role") == "assistant":
            content = message.get("content") or ""
            if not isinstance(content, str):
                content = "".join(part.get("text") or "" for part in content)
            turns.append(content)
    return "\n".join(turns)
