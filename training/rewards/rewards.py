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
  `min_thoughts` demands, where there is one. In a dialogue that zooms every turn begins with a
  thought, and all but the last end in one call, of a place in an image.
- `grounding`: the format is right and every step points into the image, at a place of its own; a
  step that says it checks may return to a place once.
- `verified`: the same, and the steps point at what they name, by the boxes in the image
  (`curation.filters.grounding`). Half of the steps is worth nothing, so that pointing at random
  earns nothing; all of them is 1. A step that names nothing known counts as a miss: being vague
  does not pay. Where an image has no boxes, it is `grounding`.
- `corrected`: the same, but a step that missed counts as right where a later step, which says that
  it looks again, points at what it named; one such step for each miss. So a second look is paid
  where it corrects something, with what the first one cost; one that corrects nothing earns
  nothing, and no error that is made up to be corrected earns more than having been right at once.
  A step on what was hit before does not count: in `verified` it makes misses a smaller share.
- `evidence`: what the places that the steps cite are worth to the answer, where no boxes are known:
  how much less probable the policy in training finds its own answer with those regions covered than
  with others covered (`training.batches.evidence`); only of a right, grounded answer.
- `looks`: a dialogue's bonus for crops of different places, from none for one place to 1 for
  `MOST_PLACES`; only of a right answer in the right format. With the weights of the preset `zoom`,
  each further place is worth a fifth of the format, as in the paper (section 3.3), whose own sum
  has no bound that holds and pays a wrong answer with four crops more than many a right one. What
  is asked in vain, twice, or in the region of another crop is no further place.

Weights sum to 1 and correctness weighs more than the rest together. So a wrong answer, whatever is
written around it, earns less than a right one in the worst format. `training.rewards.lint` tries to
prove the opposite of this and of any other reward.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from curation.filters import grounding
from curation.filters.naming import Objects, labels_in
from curation.filters.rules import REPEAT_RADIUS
from curation.grading.grade import grade
from mcts.coordinates import CoordinateSpace
from mcts.data import Box, Point, ResponseStyle, Step, Trace, TraceKind
from mcts.parsing import points_in, revisits
from training.rewards.completions import (
    MOST_STEPS,
    ParsedCompletion,
    parse_completion,
    parse_dialogue,
    turns_of,
)
from training.rewards.question_column import read_question, read_zoom

MOST_CHARACTERS = 1_000
"""In one thought: several sentences, and far from a page."""
MOST_POINTS = 2
"""In one thought: it looks at one place, or compares two."""
LEAST_WORDS = 2
"""In one thought, coordinates not counted."""
MOST_PLACES = 4
"""Crops of different places that earn all of `looks`."""
SHARED = 0.5
"""Share of the smaller of two crops that the other may show, at most, to be of another place."""

_NUMBERS = re.compile(r"\([^()]{0,40}\)|\d+")

Reward = Callable[..., list[float | None]]
"""`f(prompts, completions, **columns)`: a score for each completion; None is not scored."""


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """Which parts a reward has, and what each weighs."""

    weights: Mapping[str, float]
    """By part; they sum to 1, and correctness is more than half of it."""
    response_style: ResponseStyle = ResponseStyle.GROUNDED
    """What `format` checks."""

    def __post_init__(self) -> None:
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
        for name, style in _NEEDED_STYLES.items():
            if self.weights.get(name) and self.response_style is not style:
                raise ValueError(
                    f"weights: {name} needs response style {style}, not {self.response_style}"
                )


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
        and _all_differ(parsed.turns or thoughts)
    )
    if parsed.response_style is ResponseStyle.UNGROUNDED:
        right = right and not any(points_in(thought) for thought in thoughts)
    return float(right)


def _all_differ(texts: Sequence[str]) -> bool:
    """Return whether none says what another does; of a dialogue, whose looks may show alike
    ("Nothing here."), no turn may."""
    return len({" ".join(text.casefold().split()) for text in texts}) == len(texts)


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
    return _share_of_hits(parsed, _on_their_objects)


def corrected(parsed: ParsedCompletion) -> float:
    """Return the same, where a miss that a second look corrects is none."""
    return _share_of_hits(parsed, _on_their_objects_at_last)


def _share_of_hits(parsed: ParsedCompletion, check: Callable[..., list[bool]]) -> float:
    if not grounded(parsed):
        return 0.0
    objects = parsed.graded.objects
    if any(boxes is None for boxes in objects):
        return 1.0
    hits = check(parsed.steps, objects)
    return max(0.0, 2 * sum(hits) / len(hits) - 1)


def _on_their_objects(steps: Sequence[Step], objects: Objects) -> list[bool]:
    return _hits(steps, objects)[0]


def _hits(steps: Sequence[Step], objects: Objects) -> tuple[list[bool], list[set[str]]]:
    """Return whether each step's points lie on objects that it names, and which it names.

    On any of them: so more names than one beyond its points are no hit.
    """
    trace = Trace("", tuple(steps), None, None, TraceKind.DIRECT)
    labels = sorted({box.label for boxes in objects for box in boxes or () if box.label.strip()})
    named = [set(labels_in(step.thought, labels)) for step in steps]
    hits = [
        found.grounded is True and len(names) <= len(step.points) + 1
        for step, names, found in zip(steps, named, grounding.check(trace, objects), strict=True)
    ]
    return hits, named


def _on_their_objects_at_last(steps: Sequence[Step], objects: Objects) -> list[bool]:
    """Return the same, where each second look that hits makes good one miss before it, without the
    steps that only hit what was hit before."""
    hits, named = _hits(steps, objects)
    for again, step in enumerate(steps):
        if hits[again] and revisits(step.thought):
            missed = [i for i in range(again) if not hits[i] and named[i] & named[again]]
            for last in missed[-1:]:
                hits[last] = True
    counted, seen = [], set[str]()
    for hit, names in zip(hits, named, strict=True):
        if hit and names <= seen:
            continue  # or what is said again would make up for a miss
        counted.append(hit)
        seen |= names if hit else set()
    return counted


def evidence(parsed: ParsedCompletion) -> float:
    """Return what covering the cited regions takes from a right, grounded answer's probability."""
    gain = parsed.evidence
    if gain is None or math.isnan(gain) or not worth_covering(parsed):
        return 0.0
    return min(1.0, max(0.0, gain))


def worth_covering(parsed: ParsedCompletion) -> bool:
    """Return whether an answer's evidence counts: it is right, and grounded."""
    return correctness(parsed) == 1 and grounded(parsed) == 1


def looks(parsed: ParsedCompletion) -> float:
    """Return the bonus for crops of different places, of a right answer in the right format."""
    if correctness(parsed) != 1 or not well_formed(parsed):
        return 0.0
    further = len(distinct_places(parsed.steps)) - 1
    return min(1.0, max(0, further) / (MOST_PLACES - 1))


def distinct_places(steps: Sequence[Step]) -> list[Box]:
    """Return the crops that were shown, without those of a place that another one shows."""
    places: list[Box] = []
    for step in steps:
        crop = step.observation.crop if step.observation else None
        if crop is not None and all(_shared(crop, place) <= SHARED for place in places):
            places.append(crop)
    return places


def _shared(a: Box, b: Box) -> float:
    """Return how much of the smaller of two regions lies in the other."""
    if a.image != b.image:
        return 0.0
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    smaller = min((box.x2 - box.x1) * (box.y2 - box.y1) for box in (a, b))
    return max(0.0, width) * max(0.0, height) / smaller if smaller else 1.0


PARTS: dict[str, Callable[[ParsedCompletion], float | None]] = {
    "correctness": correctness,
    "format": well_formed,
    "grounding": grounded,
    "verified": verified,
    "corrected": corrected,
    "evidence": evidence,
    "looks": looks,
}
"""Every part by its name."""
_NEEDED_STYLES = {
    "grounding": ResponseStyle.GROUNDED,
    "verified": ResponseStyle.GROUNDED,
    "corrected": ResponseStyle.GROUNDED,
    "evidence": ResponseStyle.GROUNDED,
    "looks": ResponseStyle.ZOOM,
}

PRESETS = {
    "grounded": RewardSpec({"correctness": 0.7, "format": 0.15, "grounding": 0.15}),
    "verified": RewardSpec({"correctness": 0.7, "format": 0.1, "verified": 0.2}),
    "corrected": RewardSpec({"correctness": 0.7, "format": 0.1, "corrected": 0.2}),
    "evidence": RewardSpec({"correctness": 0.7, "grounding": 0.15, "evidence": 0.15}),
    "ungrounded": RewardSpec({"correctness": 0.7, "format": 0.3}, ResponseStyle.UNGROUNDED),
    "answer_only": RewardSpec({"correctness": 0.7, "format": 0.3}, ResponseStyle.ANSWER_ONLY),
    "zoom": RewardSpec({"correctness": 0.6, "format": 0.25, "looks": 0.15}, ResponseStyle.ZOOM),
    "zoom_no_bonus": RewardSpec({"correctness": 0.6, "format": 0.4}, ResponseStyle.ZOOM),
}
"""Rewards by the name in a recipe. All but correctness weighs 0.3, and in dialogues that zoom 0.4,
as in the paper, so that runs compare."""


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
    names: list[str]
    space: CoordinateSpace
    """That the student writes in."""

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
    return Rewards(functions, [spec.weights[name] for name in names], names, space)


def _reward(name: str, spec: RewardSpec, space: CoordinateSpace) -> Reward:
    part = PARTS[name]

    def reward(
        prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        if "question" not in columns:
            raise ValueError("rewards need a column `question` (training.rewards.question_column)")
        if spec.response_style is ResponseStyle.ZOOM and "zoom" not in columns:
            raise ValueError("rewards of dialogues need a column `zoom`, too")
        if name == "evidence" and "evidence" not in columns:
            raise ValueError("evidence needs a column `evidence`, which a training measures")
        count = len(columns["question"])
        demanded = columns.get("min_thoughts") or [1] * count
        zooms = columns.get("zoom") or [""] * count
        gains = columns.get("evidence") or [None] * count
        return [
            part(
                _parsed(turns_of(said), of, space, spec.response_style, int(least or 1), zoom, gain)
            )
            for said, of, least, zoom, gain in zip(
                completions, columns["question"], demanded, zooms, gains, strict=True
            )
        ]

    reward.__name__ = reward.__qualname__ = name
    return reward


@lru_cache(maxsize=1024)  # each part reads the same completions
def _parsed(
    turns: tuple[str, ...], column: str, space: CoordinateSpace, style: ResponseStyle, least: int,
    zoom: str, evidence: float | None,
) -> ParsedCompletion:  # fmt: skip
    graded = read_question(column)
    if style is ResponseStyle.ZOOM:
        return parse_dialogue(turns, graded, space, read_zoom(zoom), least)
    parsed = parse_completion("\n".join(turns), graded, space, style, least)
    return replace(parsed, evidence=evidence)
