"""Training text from rooms: a question, then steps that each name an object and point at it.

    example = make_example(rng, take, question, "grounded")   # plain text, and where it points
    row = Encoder(tokenizer)(example)                          # ids, weights, where to look
    batch = collate([row, ...], pad, image)                    # padded arrays for one step

The prompt's last line asks for one of three response modes: grounded steps (each cites the point of
what it names), the same steps without their points, or the answer only. Three more modes practise
parts of the first alone (`PRACTICE`): pointing at named objects, reading an answer off given steps,
and thinking without points although the prompt does not ask for that. The text is exactly what the
chat template renders, so a model trained here is prompted correctly by any program that uses the
template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mcts.prompts import choices_line
from vigorl_nano.pretraining.config import TOKENS_PER_IMAGE
from vigorl_nano.pretraining.phrases import (
    DEPTH,
    LOOKED_FOR,
    LOOKED_FOR_FIRST,
    LOOKED_FOR_SECOND,
    OTHER,
    VERIFY,
)
from vigorl_nano.rooms.objects import COLOURS, KINDS

ResponseMode = Literal["grounded", "ungrounded", "answer_only", "pointing", "reading", "thinking"]
PRACTICE: tuple[ResponseMode, ...] = ("pointing", "reading", "thinking")
RESPONSE_MODES: tuple[ResponseMode, ...] = ("grounded", "ungrounded", "answer_only", *PRACTICE)
LINES = {
    "grounded": "Think in at least {k} steps.",
    "ungrounded": "Think in at least {k} steps, no points.",
    "answer_only": "Answer directly.",
}
STEP_WEIGHTS = {3: 0.7, 4: 0.2, 5: 0.1}  # how often k steps are asked for
OTHER_SHARE = 0.6  # of the steps beyond those needed: another object; else a second look
REWORDED_SHARE = 0.5  # of the steps to read from: they begin as any step may
TELLS_DEPTH = {"front_behind", "closer", "depth_order", "perspective"}
IMAGE = "<|vision_start|>" + "<|image_pad|>" * TOKENS_PER_IMAGE + "<|vision_end|>"
SWAPPED = {"left": "right", "right": "left"}
# Which number (or word) of the steps decides an answer.
EVIDENCE = {
    **dict.fromkeys(("left_right", "goal_aim", "camera_turn", "object_moved", "perspective"), "x"),
    "above_below": "y",
    **dict.fromkeys(TELLS_DEPTH - {"perspective"}, "depth"),
    "colour": "colour",
    "exists": "name",
}


@dataclass(frozen=True, slots=True)
class VisibleObject:
    """One object in an image; the box is its visible extent as shares of the side."""

    name: str
    x1: float
    y1: float
    x2: float
    y2: float
    clear: bool  # whole in the frame, mostly unhidden, not too small
    depth: float  # metres from the camera

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    def mirror(self) -> VisibleObject:
        return VisibleObject(
            self.name, 1 - self.x2, self.y1, 1 - self.x1, self.y2, self.clear, self.depth
        )


@dataclass(frozen=True, slots=True)
class Spot:
    """One point of a text: where it is (0-1 of the side) and in which of the question's images."""

    x: float
    y: float
    image: int


@dataclass(frozen=True, slots=True)
class Example:
    prompt: str
    reply: str
    spots: tuple[Spot, ...]
    frames: tuple[int, ...]  # places of the images among the take's
    blind: bool = False  # shown grey images: the steps are made up, the answer is a guess
    evidence: str = ""  # what of the first steps decides the answer; see `EVIDENCE`


def mirror_take(take: dict[str, Any]) -> dict[str, Any]:
    """Mirror a take: objects change sides, and so do the answers about sides."""

    def flip(word: str) -> str:
        return SWAPPED.get(word, word)

    return {
        **take,
        "frames": [{**f, "objects": [o.mirror() for o in f["objects"]]} for f in take["frames"]],
        "questions": [
            {**q, "answer": flip(q["answer"]), "options": [flip(o) for o in q["options"]]}
            for q in take["questions"]
        ],
    }


def format_point(place: Spot, two: bool) -> str:
    """Write a point as the model does: in thousandths of the side."""
    x, y = (min(round(v * 1000), 999) for v in (place.x, place.y))
    return f"({x}, {y})" + (f" in image {place.image + 1}" if two else "")


def plan_steps(
    rng: np.random.Generator, take: dict[str, Any], question: dict[str, Any], wanted: int
) -> list[tuple[str, int, str]]:
    """(name, image, role) of each step: first what the question is about, then other objects."""
    frames = [take["frames"][i] for i in question["frames"]]
    centres = [{o.name: o.centre for o in f["objects"]} for f in frames]
    about = [(name, i) for name, i in question["about"]]
    # In the order in which the question mentions them: an order chosen by what is true would have
    # the first step give the answer away.
    text = question["text"] + choices_line(question["options"])
    about.sort(key=lambda n: text.find(n[0]))
    if question["family"] == "count":
        # From left to right, as people count, so that what is still to come is known.
        about.sort(key=lambda n: centres[0][n[0]][0])
    steps = [(n, i, "subject") for n, i in about]
    rest = [
        (o.name, i)
        for i, f in enumerate(frames)
        for o in f["objects"]
        if o.clear and (o.name, i) not in about
    ]
    rng.shuffle(rest)
    again: list[tuple[str, int]] = []
    while len(steps) < wanted:
        if rest and (rng.random() < OTHER_SHARE or not steps):
            steps.append((*rest.pop(), "other"))
            continue
        if not again:
            again = [(n, i) for n, i, _ in steps]
            rng.shuffle(again)
        steps.append((*again.pop(), "verify"))
    return steps


def imagine(
    rng: np.random.Generator, take: dict[str, Any], question: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make up what a model that sees nothing might say about what the question names.

    What is made up decides as little as it can: a number or a colour is one of the options, drawn
    by lot, and is then the answer.
    """
    text = question["text"] + choices_line(question["options"])
    real = list(dict.fromkeys(name for name, _ in question["about"]))
    words = [word for name in real for word in name.split() if word in question["text"]]
    answer = question["answer"]
    if question["family"] in ("count", "colour"):
        answer = str(rng.choice(question["options"]))

    def made_up(*given: str) -> str:
        pair = [str(rng.choice(list(COLOURS))), str(rng.choice(KINDS))]
        for word in given:
            pair[0 if word in COLOURS else 1] = word
        return " ".join(pair)

    if question["family"] == "count":
        # All of one colour, or of one kind: enough draws to find so many of the other.
        drawn = (made_up(*words[:1]) for _ in range(99))
        names = list(dict.fromkeys(drawn))[: int(answer)]
    elif question["family"] == "colour":
        names = [made_up(*words[:1], answer)]
    else:
        names = [name for name in real if name in text]
    others = [name for name in (made_up() for _ in range(4)) if name not in text]
    if not names:
        names = others[:1]
    about = [(name, i) for name in names for i in range(len(question["frames"]))]
    frames = list(take["frames"])
    for i in question["frames"]:
        corners = rng.uniform(0.1, 0.8, (len(names) + len(others), 2))
        objects = [
            VisibleObject(name, x, y, x + 0.1, y + 0.1, True, float(rng.uniform(2, 6)))
            for name, (x, y) in zip([*names, *others], corners.tolist(), strict=True)
        ]
        frames[i] = {**frames[i], "objects": objects}
    return {**take, "frames": frames}, {**question, "about": about, "answer": answer}


def make_example(
    rng: np.random.Generator,
    take: dict[str, Any],
    question: dict[str, Any],
    mode: ResponseMode,
    blind: bool = False,
) -> Example:
    """Make a worked answer to one question of a take (as `pool.load_shard` gives them).

    Args:
        blind: the images will be grey, and the steps are made up (`imagine`).
    """
    if mode == "pointing":
        return make_pointing(rng, take, question)
    if blind:
        take, question = imagine(rng, take, question)
    frames = [take["frames"][i] for i in question["frames"]]
    objects = [{o.name: o for o in f["objects"]} for f in frames]
    two = len(frames) == 2
    k = int(rng.choice(list(STEP_WEIGHTS), p=list(STEP_WEIGHTS.values())))
    line = LINES.get(mode, LINES["grounded"])  # reading and thinking ask for grounded steps too
    prompt = (
        f"<|im_start|>user\n{IMAGE * len(frames)}{question['text']}"
        f"{choices_line(question['options'])}\n{line.format(k=k)}"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    final = f"<answer>{question['answer']}</answer><|im_end|>"
    places = tuple(question["frames"])
    if mode == "answer_only":
        return Example(prompt, final, (), places, blind)
    lines, spots = [], []
    for name, i, role in plan_steps(rng, take, question, k + int(rng.random() < 0.1)):
        thing = objects[i][name]
        x, y = thing.centre
        if role == "verify":  # a second look lands close by, not on the same digits
            x, y = (float(np.clip(v + rng.uniform(-0.004, 0.004), 0, 1)) for v in (x, y))
        if mode == "reading" and role != "verify" and rng.random() < REWORDED_SHARE:
            # What the question is about must be known by its name, not by how the step begins.
            role = str(rng.choice(["subject", "other"]))
        subject = (LOOKED_FOR_FIRST, LOOKED_FOR_SECOND)[i] if two else LOOKED_FOR
        phrase = str(rng.choice({"subject": subject, "other": OTHER, "verify": VERIFY}[role]))
        if two and role != "subject":  # say which image is meant before pointing into it
            first = phrase[0] if phrase.startswith("I ") else phrase[0].lower()
            phrase = f"In the {('first', 'second')[i]} picture, {first}{phrase[1:]}"
        spot = Spot(x, y, i)
        if mode in ("ungrounded", "thinking"):
            phrase = phrase.replace(" at {point}", "")
        lines.append(
            format_step(phrase, thing, format_point(spot, two), question["family"] in TELLS_DEPTH)
        )
        spots.append(spot)
    evidence = "" if mode == "thinking" else EVIDENCE.get(question["family"], "")
    steps = "".join(f"<think>{text}</think>\n" for text in lines)
    if mode == "reading":  # the steps are given, and only the answer is learned
        return Example(prompt + steps, final, (), places, evidence=evidence)
    pointed = tuple(spots) if mode == "grounded" else ()
    return Example(prompt, steps + final, pointed, places, blind, evidence)


def format_step(phrase: str, thing: VisibleObject, point: str, how_far: bool) -> str:
    """Word one step: an object, where it is, and perhaps how far away."""
    far = DEPTH.format(metres=thing.depth) if how_far else ""
    article = "an" if thing.name[0] in "aeiou" else "a"
    return phrase.format(name=thing.name, a=article, point=point, depth=far)


def make_pointing(
    rng: np.random.Generator, take: dict[str, Any], question: dict[str, Any]
) -> Example:
    """Make an exercise: point at some objects of the question's images, in the order named."""
    frames = [take["frames"][i] for i in question["frames"]]
    two = len(frames) == 2
    clear = [(o, i) for i, f in enumerate(frames) for o in f["objects"] if o.clear]
    rng.shuffle(clear)
    how_far = bool(rng.random() < 0.5)
    lines, names, spots = [], [], []
    for thing, i in clear[: int(rng.integers(1, 5))]:
        names.append(f"the {thing.name}" + (f" in image {i + 1}" if two else ""))
        x, y = thing.centre
        spots.append(Spot(x, y, i))
        phrase = str(rng.choice(LOOKED_FOR))
        lines.append(format_step(phrase, thing, format_point(spots[-1], two), how_far) + "\n")
    far = " Say how far away each is." if how_far else ""
    prompt = (
        f"<|im_start|>user\n{IMAGE * len(frames)}Point at {', '.join(names)}.{far}"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    reply = "".join(lines) + "<|im_end|>"
    return Example(prompt, reply, tuple(spots), tuple(question["frames"]))
