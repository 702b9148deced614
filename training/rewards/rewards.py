"""Rewards for GRPO: scores a completion in parts, which TRL takes as reward functions.

    rewards = make_rewards(PRESETS["grounded"], CoordinateSpace.qwen3_vl())
    GRPOTrainer(reward_funcs=rewards.functions, args=GRPOConfig(reward_weights=rewards.weights))
    rewards.total(prompts, completions, question=[...])          # the weighted sum, in [0, 1]

A row's `question` column (`training.rewards.question_column`) holds the question; completions are
texts, or chat messages, in the student's own coordinates. The parts, each of them in [0, 1]:

- `correctness`: the grader's score (`curation.grading.grade`) of the one answer that ends the text.
  Two answers are none, and so is an answer that anything follows.
- `format`: one think block a step, then one answer, and nothing else: no other tag, no text
  outside, no thought that is empty, repeated or endless, and as many thoughts as the column
  `min_thoughts` demands, where there is one.
- `grounding`: the format is right and every step points into the image, at a place of its own; a
  step that says it checks may return to a place once.
- `verified`: the same, and the steps point at what they name, by the boxes in the image
  (`curation.filters.grounding`). Half of the steps is worth nothing, so that pointing at random
  earns nothing; all of them is 1. A step that names nothing known counts as a miss: being vague
  does not pay. Where an image has no boxes, it is `grounding`.

Weights sum to 1 and correctness weighs more than the rest together. So a wrong answer, whatever is
written around it, earns less than a right one in the worst format. `training.rewards.lint` tries to
prove the opposite of this and of any other reward.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from curation.filters import grounding
from curation.filters.rules import REPEAT_RADIUS
from curation.grading.grade import grade
from mcts.coordinates import CoordinateSpace, Frame
from mcts.data import Point, ResponseStyle, Step, Trace, TraceKind
from mcts.parsing import parse, points_in, revisits
from training.rewards.question_column import GradedQuestion, read_question

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
    """By part; they sum to 1, and correctness is more than half of it."""
    response_style: ResponseStyle = ResponseStyle.GROUNDED
    """What `format` checks; zoom dialogues have no reward yet."""

    def __post_init__(self) -> None:
        if self.response_style is ResponseStyle.ZOOM:
            raise ValueError("response_style: there is no reward for zoom dialogues")
        if unknown := [name for name in self.weights if name not in PARTS]:
            raise ValueError(f"weights: no part {unknown[0]!r}; there are {', '.join(PARTS)}")
        if any(not 0 <= weight <= 1 for weight in self.weights.values()):
            raise ValueError("weights: each is between 0 and 1")
        if abs(sum(self.weights.values()) - 1) > 1e-9:
            raise ValueError(f"weights: they sum to {sum(self.weights.values()):g}, not to 1")
        if self.weights.get("correctness", 0) <= 0.5:
            raise ValueError(
                "weights: correctness must be over 0.5, or format could beat a right answer"
            )
        pointing = [name for name in ("grounding", "verified") if self.weights.get(name)]
        if pointing and self.response_style is not ResponseStyle.GROUNDED:
            raise ValueError(
                f"weights: {pointing[0]} needs response style grounded, not {self.response_style}"
            )


@dataclass(frozen=True, slots=True)
class ParsedCompletion:
    """A completion as the parts see it."""

    graded: GradedQuestion
    frame: Frame
    response_style: ResponseStyle
    min_thoughts: int
    answer: str | None
    """In original pixels; None where the text does not end in its one answer."""
    thoughts: tuple[str, ...]
    """One a think block, as written; empty unless the whole text is blocks and then an answer."""
    steps: tuple[Step, ...]
    """The same in original pixels, each block as one step."""
    cited: tuple[int, ...]
    """How many places each block tells, those in no image included."""
    whole: bool
    """Whether the text is think blocks, not too many, then one answer, and nothing else."""


def parse_completion(
    text: str, graded: GradedQuestion, space: CoordinateSpace, response_style: ResponseStyle,
    min_thoughts: int = 1,
) -> ParsedCompletion:  # fmt: skip
    """Parse one completion; any text is valid input."""
    frame = Frame.of(space, graded.question)
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
    read = [_read(thought, frame) for thought in written]
    return ParsedCompletion(
        graded, frame, response_style, min_thoughts, answer, written,
        tuple(step for step, _ in read), tuple(cited for _, cited in read), whole,
    )  # fmt: skip


def _read(thought: str, frame: Frame) -> tuple[Step, int]:
    """Return a thought as one step, and how many places it tells; one in no image is no point."""
    parsed = parse(f"<think>{thought}</think>", frame)
    points = tuple(point for step in parsed.steps for point in step.points)
    missing = sum(problem.kind == "no_such_image" for problem in parsed.problems)
    words = "\n".join(step.thought for step in parsed.steps)
    return Step(words, points), len(points) + missing


def correctness(parsed: ParsedCompletion) -> float | None:
    """Return the grader's score of the answer."""
    return grade(parsed.graded.question, parsed.answer).score


def well_formed(parsed: ParsedCompletion) -> float:
    """Return 1 for a completion in the demanded response style, else 0."""
    thoughts = parsed.thoughts
    if parsed.response_style is ResponseStyle.ANSWER_ONLY:
        return float(parsed.whole and not thoughts)
    right = (
        parsed.whole
        and max(1, parsed.min_thoughts) <= len(thoughts) <= MOST_STEPS
        and all(len(thought) <= MOST_CHARACTERS for thought in thoughts)
        and all(_words(thought) >= LEAST_WORDS for thought in thoughts)
        and len({" ".join(thought.casefold().split()) for thought in thoughts}) == len(thoughts)
    )
    if parsed.response_style is ResponseStyle.UNGROUNDED:
        right = right and not any(points_in(thought) for thought in thoughts)
    return float(right)


def _words(thought: str) -> int:
    return len(re.findall(r"[^\W\d_]{2,}|\b[aI]\b", _NUMBERS.sub(" ", thought)))


def grounded(parsed: ParsedCompletion) -> float:
    """Return 1 when every step points, inside the image and at a place of its own, else 0."""
    if not well_formed(parsed):
        return 0.0
    same_place = parsed.frame.same_place
    places: list[tuple[Point, int]] = []  # a place, and how often it was visited
    for step, cited in zip(parsed.steps, parsed.cited, strict=True):
        points = step.points
        # What was written as a point and is none any more is in no image.
        if not 1 <= len(points) <= MOST_POINTS or len(points) < cited:
            return 0.0
        for point in points:
            if not parsed.frame.inside(point):
                return 0.0
            near = [i for i, (p, _) in enumerate(places) if same_place(p, point, REPEAT_RADIUS)]
            if not near:
                places.append((point, 1))
                continue
            place, visits = places[near[0]]
            if visits > 1 or not revisits(step.thought):
                return 0.0
            places[near[0]] = (place, visits + 1)
    return 1.0


def verified(parsed: ParsedCompletion) -> float:
    """Return the share of steps that point at what they name: half is 0, all is 1."""
    if not grounded(parsed):
        return 0.0
    graded = parsed.graded
    if any(boxes is None for boxes in graded.objects):
        return 1.0
    trace = Trace(graded.question.question_id, parsed.steps, parsed.answer, None, TraceKind.DIRECT)
    found = grounding.check(trace, graded.objects)
    share = sum(step.grounded is True for step in found) / len(found)
    return max(0.0, 2 * share - 1)


PARTS: dict[str, Callable[[ParsedCompletion], float | None]] = {
    "correctness": correctness,
    "format": well_formed,
    "grounding": grounded,
    "verified": verified,
}
"""Every part by its name."""

PRESETS = {
    "grounded": RewardSpec({"correctness": 0.7, "format": 0.15, "grounding": 0.15}),
    "verified": RewardSpec({"correctness": 0.7, "format": 0.1, "verified": 0.2}),
    "ungrounded": RewardSpec({"correctness": 0.7, "format": 0.3}, ResponseStyle.UNGROUNDED),
    "answer_only": RewardSpec({"correctness": 0.7, "format": 0.3}, ResponseStyle.ANSWER_ONLY),
}
"""Rewards by the name in a recipe; all but correctness weighs 0.3 always, so that runs compare."""


def preset(name: str) -> RewardSpec:
    """Return the preset of that name; a former name gets a sentence on stderr.

    Raises:
        ValueError: there is none.
    """
    if name == "direct":  # its former name
        print("reward direct is called answer_only now", file=sys.stderr)
        name = "answer_only"
    if name not in PRESETS:
        raise ValueError(f"reward: there is no {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


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
        """Return the weighted sum of the parts, in [0, 1]; None where the answer is not graded."""
        parts = [function(prompts, completions, **columns) for function in self.functions]
        return [
            None if None in scores
            else min(1.0, sum(w * s for w, s in zip(self.weights, scores, strict=True)))
            for scores in zip(*parts, strict=True)
        ]  # fmt: skip


def make_rewards(spec: RewardSpec, space: CoordinateSpace) -> Rewards:
    """Build the reward functions of `spec` for a student that writes in `space`."""
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
            part(_parsed(text_of(completion), of, space, spec.response_style, int(least or 1)))
            for completion, of, least in zip(
                completions, columns["question"], demanded, strict=True
            )
        ]

    reward.__name__ = reward.__qualname__ = name
    return reward


@lru_cache(maxsize=1024)  # each part reads the same completions
def _parsed(
    text: str, column: str, space: CoordinateSpace, style: ResponseStyle, least: int
) -> ParsedCompletion:
    return parse_completion(text, read_question(column), space, style, least)


def text_of(completion: Any) -> str:
    """Return what the model wrote, from a text or a list of chat messages."""
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
