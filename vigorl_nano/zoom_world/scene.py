"""What a picture shows: signs that can be told apart from afar, with details that can't be.

    scene = make_scene(rng)
    question = ask(rng, scene, "search")        # "Which number is on the red sign with a tree?"
    screen = make_scene(rng, screen=True)
    question = ask(rng, screen, "click_icon")   # "Click the red tile with a tree."

On a screen the signs are tiles of a launcher, and the answer is where to click. A sign has a colour
and a shape, which show in the whole picture, and no two are alike in both. A number and a mark are
on its plate; they show only in a crop. Places and sizes are shares of the picture's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vigorl_nano.rooms.objects import COLOURS

SHAPES = ("round", "square", "tall", "wide")
MARKS = ("tree", "house", "cup", "bottle", "clock", "table", "car", "lamp")
NUMBERS = "0123456789"
KINDS = ("direct_attributes", "relative_position", "search", "compare")
CLICK_KINDS = ("click_tile", "click_icon")
"""Of questions about screens: the tile shows from afar, or its icon only in a crop."""
LEAST, MOST = 6, 12
PLACES = 5
"""Signs stand in rows and columns, this many a side, each a little off its place."""
OFF_PLACE = 0.025
SIZES = (0.112, 0.124)
"""Of a sign's longer side."""
SHARES = {"round": (1.0, 1.0), "square": (0.88, 0.88), "tall": (0.66, 1.0), "wide": (1.0, 0.62)}
"""Width and height of each shape, as shares of its longer side."""
SIDES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
CANDIDATES = 3
"""The signs that `search` and `compare` are about, at most."""


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign; `x` and `y` are its middle."""

    colour: str
    shape: str
    mark: str
    number: str
    x: float
    y: float
    size: float
    column: int
    row: int
    noun: str = "sign"
    """What it is called: `sign`, or `tile` on a screen."""

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape} {self.noun}"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Its left, top, right and bottom edge."""
        width, height = (share * self.size / 2 for share in SHARES[self.shape])
        return self.x - width, self.y - height, self.x + width, self.y + height


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture to draw; everything in it that is not a sign follows from `seed`."""

    signs: tuple[Sign, ...]
    seed: int
    lowest: tuple[str, ...] = ()
    """The colours of which `compare` asks for the smallest number; of others for the largest."""
    screen: bool = False
    """Whether it is a launcher's screen, with tiles to click, instead of a wall with signs."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of questions that are asked about it."""
        return CLICK_KINDS if self.screen else KINDS


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its answer, and which signs decide it."""

    kind: str
    text: str
    answer: str
    """A number; empty where the answer is a place to click."""
    candidates: tuple[Sign, ...]
    """Those that the words fit as far as the whole picture shows."""
    meant: tuple[Sign, ...]
    """Those whose numbers are the answer, or the one to click; of `search`, the one with the mark.
    """
    anchor: Sign | None = None
    """`relative_position`: the sign that the question names."""
    mark: str = ""
    """`search` and `click_icon`: the mark that the question names."""

    @property
    def clicks(self) -> bool:
        """Whether the answer is a place to click."""
        return self.kind in CLICK_KINDS


def make_scene(rng: np.random.Generator, screen: bool = False) -> Scene:
    """Make a scene with signs in no more than four colours, so that colours repeat.

    Args:
        screen: a launcher's screen, whose first column and row hold its menu and its bar.
    """
    colours = [str(c) for c in rng.choice(list(COLOURS), int(rng.integers(3, 5)), replace=False)]
    names = [(c, s) for c in colours for s in SHAPES]
    count = int(rng.integers(LEAST, min(MOST, len(names)) + 1))
    names = [names[i] for i in rng.permutation(len(names))[:count]]
    few = rng.choice(MARKS, 4, replace=False)  # so that a mark is on signs of several colours
    free = [p for p in range(PLACES * PLACES) if not screen or (p % PLACES and p >= PLACES)]
    places = np.array(free)[rng.permutation(len(free))[:count]]
    signs, numbers = [], {}
    lowest = tuple(c for c in colours if rng.random() < 0.5)
    for colour in colours:
        numbers[colour] = draw_numbers(rng, [c for c, _ in names].count(colour), colour in lowest)
    for (colour, shape), place in zip(names, places.tolist(), strict=True):
        row, column = divmod(place, PLACES)
        x, y = ((at + 0.5) / PLACES + rng.uniform(-OFF_PLACE, OFF_PLACE) for at in (column, row))
        mark, number = str(rng.choice(few)), numbers[colour].pop()
        size = float(rng.uniform(*SIZES))
        noun = "tile" if screen else "sign"
        at = (float(x), float(y), size, column, row)
        signs.append(Sign(colour, shape, mark, number, *at, noun))
    return Scene(tuple(signs), int(rng.integers(1 << 31)), lowest, screen)


def draw_numbers(rng: np.random.Generator, count: int, lowest: bool) -> list[str]:
    """Draw the numbers of one colour's signs: each largest number is as likely, or smallest."""
    if not 2 <= count <= CANDIDATES:
        return [str(n) for n in rng.integers(len(NUMBERS), size=count)]
    largest = int(rng.integers(2, len(NUMBERS)))
    drawn = rng.permutation([largest, *rng.choice(largest, count - 1, replace=False)])
    return [str(9 - n if lowest else n) for n in drawn]


def neighbour(scene: Scene, anchor: Sign, side: str) -> Sign | None:
    """Return the next sign on one side, in the same row or column; None if it is far or none."""
    across, down = SIDES[side]
    found = []
    for sign in scene.signs:
        dx, dy = sign.column - anchor.column, sign.row - anchor.row
        ahead, aside = (dx * across, dy) if across else (dy * down, dx)
        if ahead > 0 and not aside:
            found.append((ahead, sign))
    ahead, nearest = min(found, key=lambda pair: pair[0], default=(0, None))
    return nearest if ahead in (1, 2) else None


def ask(rng: np.random.Generator, scene: Scene, kind: str) -> Question | None:
    """Ask a question of one kind; None if the scene has nothing for it."""
    signs = [scene.signs[i] for i in rng.permutation(len(scene.signs))]
    first = signs[0]
    if kind == "direct_attributes":
        text = f"Which number is on the {first.name}?"
        return Question(kind, text, first.number, (first,), (first,))
    if kind == "click_tile":
        return Question(kind, f"Click the {first.name}.", "", (first,), (first,))
    if kind == "relative_position":
        for anchor in signs:
            for side in rng.permutation(list(SIDES)).tolist():
                if meant := neighbour(scene, anchor, side):
                    text = f"Which number is on the {anchor.noun} {side} the {anchor.name}?"
                    return Question(kind, text, meant.number, (meant,), (meant,), anchor)
        return None
    groups = [
        group
        for colour in {sign.colour: None for sign in signs}
        if 2 <= len(group := [s for s in signs if s.colour == colour]) <= CANDIDATES
    ]
    for group in groups:
        if kind == "compare":
            colour, numbers = group[0].colour, [sign.number for sign in group]
            word, answer = (
                ("smallest", min(numbers)) if colour in scene.lowest else ("largest", max(numbers))
            )
            text = f"What is the {word} number on the {colour} signs?"
            return Question(kind, text, answer, tuple(group), tuple(group))
        for sign in group:
            if [other.mark for other in group].count(sign.mark) == 1:
                named = f"the {sign.colour} {sign.noun} with a {sign.mark}"
                text, answer = f"Which number is on {named}?", sign.number
                if kind == "click_icon":
                    text, answer = f"Click {named}.", ""
                return Question(kind, text, answer, tuple(group), (sign,), mark=sign.mark)
    return None
