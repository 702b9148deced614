"""Worked dialogues about a scene: true in what is seen, noisy in where to look and when to stop.

    example = demonstrate(rng, scene, question)      # its text, and what each part of it looks at

What a step says of a place is true. Which sign is looked at next, and whether it is time to answer,
is often chosen badly: a sign of another colour, an answer before the sign that is meant was found.
A model that learns from these sees well and decides badly, which search and reinforcement can mend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from curation.traces.linearize import TURNING_BACK
from vigorl_nano.rooms.objects import COLOURS
from vigorl_nano.zoom_world.draw import mark_at, number_at
from vigorl_nano.zoom_world.scene import NUMBERS, SHAPES, Question, Scene, Sign

CROP_SHARE = 1 / 8
"""Of the picture's side, what a call shows."""
MOST_LOOKS = 4
AGAIN = 0.07
"""How often a look that found something is asked for again, which shows nothing new."""
NEXT_IS_RIGHT = {
    "direct_attributes": 0.62,
    "relative_position": 0.62,
    "search": 0.72,
    "compare": 0.76,
    "click_tile": 0.7,
    "click_icon": 0.72,
}
"""How often the next look is at a sign that may be meant and was not looked at yet."""
CLICKS_AT_ONCE = 0.5
"""How often a tile that shows from afar is clicked without a look at it."""
STOPS_KNOWING = 0.95
"""How often an answer follows when it is known."""
NAMES_ANCHOR = 0.9
"""How often the sign that a question names is pointed at before its neighbour."""
OFF_POINT, MISSES = 0.009, 0.03
"""How far a crop lies from its sign's middle (standard deviation), and how often it shows none."""

IMAGE = "<|vision_start|>" + "<|image_pad|>" * 49 + "<|vision_end|>"
ASK = "\nZoom in where needed."
STEPS = "\nThink in at least {k} steps."
DIRECTLY = "\nAnswer directly."
END = "<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"
SHOWN = "<observation>Image {number}: the region around that place, enlarged.{last}</observation>"
SHOWN_ALREADY = "<observation>That region was shown already.</observation>"
LAST = " Now give your answer."


@dataclass(frozen=True, slots=True)
class Policy:
    """How whoever works a dialogue out decides to go on."""

    stops_guessing: float = 0.36
    """How often an answer follows when it is not known."""
    compares: bool = False
    """Whether heads are shown which sign or mark is the one that the question names."""
    weight: float = 1.0
    """How much the choice to go on or to answer counts in the loss."""
    next_is_right: Mapping[str, float] = field(default_factory=lambda: NEXT_IS_RIGHT)
    """How often the next look is at a sign that may be meant, by kind of question."""
    remembers: bool = False
    """Whether heads are shown, before `compare` goes on, a sign of the colour not looked at yet."""
    turns_back: float = 0.0
    """How often a look that follows one in vain begins as corrected dialogues do."""
    steps_aside: float = 0.0
    """Share of questions about a neighbour whose dialogues look at the places beside what is named
    (`neighbours`), instead of at a sign that they see there."""
    asked_side: float = 0.6
    """How often the next of these looks is to the side that the question asks about."""
    thorough: float = 0.0
    """Share of dialogues that stop when they know and not before, whose choices are not learned:
    what is learned of them is to read and to answer from what was seen."""


NOISY = Policy()
"""Of the stages before `policy`, see `zoom.yaml`."""

Place = tuple[float, float]
Seen = tuple[Sign, tuple[int, int]]
"""A sign that was read, and where in the text its number stands."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A region that was shown; `sign` is the sign in its middle, if any."""

    middle: Place
    sign: Sign | None


@dataclass(slots=True)
class Example:
    """A dialogue. Spans are characters of the text; an image is 0, the whole picture, or a crop."""

    text: str = ""
    crops: list[Crop] = field(default_factory=list)
    learned: list[tuple[int, int]] = field(default_factory=list)
    """What the model writes."""
    looks: list[tuple[int, int, int, Place]] = field(default_factory=list)
    """A span whose tokens should look at a place in an image."""
    names: list[tuple[int, int, int, Place]] = field(default_factory=list)
    """A name, and the place in an image of what it names."""
    marks: list[tuple[int, int]] = field(default_factory=list)
    """A mark that was read, and the position of the token that it should look at."""
    evidence: list[tuple[int, int, int]] = field(default_factory=list)
    """A position of which the token should look at a span."""
    weights: list[tuple[int, int, float]] = field(default_factory=list)
    """Spans that count more or less than words do; later ones win."""
    blind: bool = False

    def add(self, text: str) -> tuple[int, int]:
        start = len(self.text)
        self.text += text
        return start, len(self.text)


WORD, PHRASE, NAME, READ, ANSWER, COPY = 0.15, 0.6, 1.0, 3.0, 4.0, 0.5
DIGITS = (2.0, 1.0, 0.25)


def demonstrate(
    rng: np.random.Generator,
    scene: Scene,
    question: Question,
    blind: bool = False,
    part: str = "",
    policy: Policy = NOISY,
) -> Example:
    """Write a dialogue.

    Args:
        blind: its pictures are grey, so what it says of them is made up and it finds nothing.
        part: `point` ends it with the first call.
        policy: how it decides to go on.
    """
    made, start = ask_with_zoom(question, blind)
    looked: list[Sign] = []
    seen: list[Seen] = []
    found, in_vain = (0, 1), False
    policy = draw_thorough(rng, policy)
    while True:
        sign = next_look(rng, scene, question, looked, blind, policy)
        looked.append(sign)
        begun = len(made.text)
        pointed = begin_turn(rng, made, question, looked, policy.turns_back if in_vain else 0.0)
        if question.kind == "click_tile" and rng.random() < CLICKS_AT_ONCE:
            made.add("\n")
            return click(made, sign, start)
        write_call(made, sign, *pointed)
        end_turn(made, start)
        if part == "point":
            return made
        last = len(looked) == MOST_LOOKS
        start, at, span = look_closer(made, scene, beside(sign, crop_offset(rng)), last)
        in_vain = at is None or at not in question.meant
        if policy.compares:
            found = match(made, question, sign, at, begun) or found
        if at is not None and span:
            seen.append((at, span))
        made.add("\n")
        if at is sign and not last and rng.random() < AGAIN:
            start = look_again(made, sign, start)
        known = all(meant in [sign for sign, _ in seen] for meant in question.meant)
        stop = last or rng.random() < (STOPS_KNOWING if known else policy.stops_guessing)
        note_choice(made, question, policy, found, looked)
        if stop and question.clicks:
            return click(made, next((s for s, _ in seen if s in question.meant), sign), start)
        if stop:
            answer(rng, made, question, seen)
            end_turn(made, start)
            return made


def ask_with_zoom(question: Question, blind: bool = False) -> tuple[Example, int]:
    """Begin a dialogue with its question; return it, and where the model's first turn starts."""
    made = Example(blind=blind)
    made.add(f"<|im_start|>user\n{IMAGE}{question.text}{ASK}{END}{ASSISTANT}")
    return made, len(made.text)


def draw_thorough(rng: np.random.Generator, policy: Policy) -> Policy:
    """Draw whether a dialogue is one that stops when it knows; return how it decides."""
    if policy.thorough and rng.random() < policy.thorough:
        return replace(policy, stops_guessing=0.0, weight=0.0)
    return policy


def begin_turn(
    rng: np.random.Generator,
    made: Example,
    question: Question,
    looked: list[Sign],
    turns_back: float,
) -> tuple[str, str]:
    """Point at the sign that was looked at last; return its coordinates in thousandths.

    Args:
        turns_back: how often the step begins as the corrected part of a dialogue does.
    """
    if question.anchor and len(looked) == 1 and rng.random() < NAMES_ANCHOR:
        point_at(made, question.anchor)
        made.add("\n")
    turns = turns_back and rng.random() < turns_back
    return point_at(made, looked[-1], f"{draw_turning_back(rng)} " if turns else "")


def draw_turning_back(rng: np.random.Generator) -> str:
    """Draw one of the sentences by which corrected dialogues turn back."""
    return str(rng.choice(TURNING_BACK))


def match(
    made: Example, question: Question, sign: Sign, at: Sign | None, begun: int
) -> tuple[int, int] | None:
    """Note what a mark that was read should look at; return where what is asked for stands, if it
    was seen in this turn.

    Args:
        sign: what was pointed at.
        at: what the crop shows.
        begun: where the turn begins.
    """
    if not question.mark and at is sign and sign in question.meant:
        return last_of(made, f" {sign.shape} {sign.noun}", begun)
    if not question.mark or at is None:
        return None
    mark = last_of(made, f" {at.mark} ", begun)
    asked = made.text.index(question.text) + question.text.rfind(question.mark)
    same = at.mark == question.mark
    made.marks.append((mark[0], asked if same else 0))
    return mark if same else None


def note_choice(
    made: Example,
    question: Question,
    policy: Policy,
    found: tuple[int, int],
    looked: list[Sign],
) -> None:
    """Note what the choice to go on or to answer, made here, counts and should look at.

    Args:
        found: where what is asked for stands, if it was seen.
    """
    choice = weigh_choice(made, policy)
    if policy.compares and question.kind not in ("relative_position", "compare"):
        made.evidence.append((choice - 1, *found))
    if policy.remembers and question.kind == "compare":
        recall(made, choice - 1, [sign for sign in question.meant if sign not in looked])


def weigh_choice(made: Example, policy: Policy) -> int:
    """Note what the choice to go on or to answer counts; return where it stands."""
    choice = len(made.text)
    made.weights.append((choice, choice + 1, policy.weight))
    return choice


def recall(made: Example, at: int, left: list[Sign]) -> None:
    """Note what the token at `at` should look at: a sign that is `left` to look at, if any."""
    if left:
        made.looks.append((at, at + 1, 0, (left[0].x, left[0].y)))
    else:
        made.evidence.append((at, 0, 1))


def last_of(made: Example, words: str, begun: int) -> tuple[int, int]:
    """Return where the first of some words stands, where they stand last since `begun`."""
    at = made.text.rindex(words, begun) + 1
    return at, made.text.index(" ", at)


def look_closer(
    made: Example, scene: Scene, middle: Place, last: bool
) -> tuple[int, Sign | None, tuple[int, int] | None]:
    """Show a crop and read it; return where the turn begins that reads it, the sign that it shows
    and where that one's number stands.

    Args:
        middle: the crop's.
        last: whether the answer is asked for.
    """
    at = None if made.blind else shown_at(scene, middle)
    made.crops.append(Crop(middle, at))
    observation = SHOWN.format(number=len(made.crops) + 1, last=LAST if last else "")
    start = observe(made, IMAGE + observation)
    return start, at, read(made, at)


def look_again(made: Example, sign: Sign, start: int) -> int:
    """Ask for what was shown, in the turn that began at `start`; return where the next starts."""
    write_call(made, sign, *point_at(made, sign))
    end_turn(made, start)
    return observe(made, SHOWN_ALREADY)


def end_turn(made: Example, start: int) -> None:
    """End the model's turn that began at `start`."""
    made.add("<|im_end|>")
    made.learned.append((start, len(made.text)))


def observe(made: Example, observation: str) -> int:
    """Write an observation's turn; return where the model's next one starts."""
    made.add(
        f"\n<|im_start|>user\n<tool_response>\n{observation}\n</tool_response>{END}{ASSISTANT}"
    )
    return len(made.text)


def crop_offset(rng: np.random.Generator) -> np.ndarray:
    """Draw how far a crop lies from its sign's middle: mostly little, sometimes too far."""
    if rng.random() < MISSES:
        return rng.uniform(0.09, 0.2, 2) * rng.choice([-1, 1], 2)
    return rng.normal(0, OFF_POINT, 2)


def beside(sign: Sign, offset: np.ndarray) -> Place:
    """Return the middle of a crop that was asked for near a sign's, moved into the picture."""
    return inside(np.array([sign.x, sign.y]) + offset)


def inside(middle: np.ndarray) -> Place:
    """Return the middle of a crop, moved so that the crop lies in the picture."""
    x, y = np.clip(middle, CROP_SHARE / 2, 1 - CROP_SHARE / 2)
    return float(x), float(y)


def shown_at(scene: Scene, middle: Place) -> Sign | None:
    """Return the sign whose mark and number a crop shows whole, if any."""
    inside = 0.46 * CROP_SHARE - 0.01
    for sign in scene.signs:
        places = (mark_at(sign), number_at(sign))
        if all(abs(x - middle[0]) < inside and abs(y - middle[1]) < inside for x, y in places):
            return sign
    return None


def next_look(
    rng: np.random.Generator,
    scene: Scene,
    question: Question,
    looked: list[Sign],
    blind: bool,
    policy: Policy,
) -> Sign:
    if blind:
        return stand_in(rng, scene, question)
    right = [s for s in question.candidates if s not in looked]
    others = [s for s in scene.signs if s not in looked and s not in right]
    if right and (not others or rng.random() < policy.next_is_right[question.kind]):
        return right[rng.integers(len(right))]
    return others[rng.integers(len(others))]


def stand_in(rng: np.random.Generator, scene: Scene, question: Question) -> Sign:
    """Make up the sign that is pointed at where nothing is seen."""
    colours = [c for c in COLOURS if c in question.text] or list(COLOURS)
    name = (str(rng.choice(colours)), str(rng.choice(SHAPES)))
    x, y = rng.uniform(0.08, 0.92, 2)
    return Sign(*name, "", "", float(x), float(y), 0.12, 0, 0, scene.signs[0].noun)


def point_at(made: Example, sign: Sign, opening: str = "") -> tuple[str, str]:
    """Write where a sign is, behind an `opening`; return its coordinates in thousandths."""
    at = (sign.x, sign.y)
    made.add("<think>")
    if opening:
        made.weights.append((*made.add(opening), PHRASE))
    _, begun = made.add("The")
    colour = made.add(f" {sign.colour}")
    shape = made.add(f" {sign.shape}")
    made.weights += [(*colour, NAME), (*shape, NAME)]
    made.looks += [(begun - len("The"), begun, 0, at), (*colour, 0, at)]
    made.names.append((*shape, 0, at))
    made.add(f" {sign.noun} is at")
    x, y = (str(round(1000 * v)) for v in at)
    coordinates(made, " (", x, y, at, DIGITS)
    made.add(").</think>")
    return x, y


def coordinates(
    made: Example, opening: str, x: str, y: str, at: Place | None, weights: tuple[float, ...]
) -> None:
    start, _ = made.add(opening)
    for axis, digits in enumerate((x, y)):
        if axis:
            made.add(", ")
        for place, digit in enumerate(digits):
            made.weights.append((*made.add(digit), weights[min(place, 2)]))
    if at is not None:
        made.looks.append((start, len(made.text), 0, at))


def write_call(made: Example, sign: Sign | None, x: str, y: str) -> None:
    """Write a call with coordinates in thousandths, which look at a sign, if it is of one."""
    made.add('\n<tool_call>{"name": "search_coordinate", "arguments": {"coordinate":')
    at = (sign.x, sign.y) if sign else None
    coordinates(made, " [", x, y, at, (COPY, COPY, COPY))
    made.add("]}}</tool_call>")


def read(made: Example, sign: Sign | None) -> tuple[int, int] | None:
    """Write what the latest crop shows; return where its number stands."""
    made.add("<think>It shows")
    if sign is None:
        made.weights.append((*made.add(" nothing"), NAME))
        made.add(".</think>")
        return None
    crop = len(made.crops)
    made.looks.append((*made.add(" a"), crop, mark_at(sign)))
    made.weights.append((*made.add(f" {sign.mark}"), READ))
    made.add(" and")
    made.looks.append((*made.add(" "), crop, number_at(sign)))
    span = made.add(sign.number)
    made.weights.append((*span, READ))
    made.add(".</think>")
    return span


def answer(
    rng: np.random.Generator,
    made: Example,
    question: Question,
    seen: list[Seen],
) -> None:
    """Answer with what was seen: the sign that is meant, else the last one."""
    about = [pair for pair in seen if pair[0] in question.meant]
    if question.kind == "compare":
        about.sort(key=lambda pair: pair[0].number, reverse="smallest" in question.text)
    used = about[-1:] or seen[-1:]
    at, _ = made.add("<answer>")
    said = used[0][0].number if used else str(rng.choice(list(NUMBERS)))
    made.weights.append((*made.add(said), ANSWER))
    made.add("</answer>")
    if used:
        made.evidence.append((at, *used[0][1]))


def click(made: Example, sign: Sign, start: int) -> Example:
    """Answer with the middle of a tile; end the turn that began at `start`, and the dialogue."""
    made.add("<answer>")
    x, y = (str(round(1000 * v)) for v in (sign.x, sign.y))
    coordinates(made, "(", x, y, (sign.x, sign.y), DIGITS)
    made.add(")</answer>")
    end_turn(made, start)
    return made


def reading(sign: Sign, middle: Place) -> Example:
    """Make an exercise of one crop: what it shows, without the dialogue around it."""
    made = Example()
    made.crops.append(Crop(middle, sign))
    made.add(f"<|im_start|>user\n<tool_response>\n{IMAGE}{SHOWN.format(number=2, last='')}")
    made.add(f"\n</tool_response>{END}{ASSISTANT}")
    start = len(made.text)
    read(made, sign)
    made.learned.append((start, len(made.text)))
    return made


def grounded(rng: np.random.Generator, question: Question) -> Example:
    """Make an answer from the whole picture alone: it points at what it can see, and guesses."""
    made = Example()
    steps = int(rng.integers(1, 5))
    made.add(f"<|im_start|>user\n{IMAGE}{question.text}{STEPS.format(k=steps)}{END}{ASSISTANT}")
    start = len(made.text)
    for sign in (question.anchor, *question.candidates):
        if sign is not None:
            point_at(made, sign)
            made.add("\n")
    made.add("<answer>")
    made.weights.append((*made.add(question.answer), ANSWER))
    made.add("</answer>")
    end_turn(made, start)
    return made


def direct(question: Question) -> Example:
    """Make an answer without a look, which is a guess."""
    made = Example()
    made.add(f"<|im_start|>user\n{IMAGE}{question.text}{DIRECTLY}{END}{ASSISTANT}")
    start, _ = made.add("<answer>")
    made.weights.append((*made.add(question.answer), ANSWER))
    made.add("</answer>")
    end_turn(made, start)
    return made
