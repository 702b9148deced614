"""What a picture shows: signs that can be told apart from afar, with details that can't be.

    scene = make_scene(rng)
    question = ask(rng, scene, "search")        # "Which number is on the red sign with a tree?"

A sign has a colour and a shape, which show in the whole picture, and no two are alike in both. A
number and a mark are on its plate; they show only in a crop. Places and sizes are shares of the
picture's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vigorl_nano.rooms.objects import COLOURS

SHAPES = ("round", "square", "tall", "wide")
MARKS = ("tree", "house", "cup", "bottle", "clock", "table", "car", "lamp")
NUMBERS = "0123456789"
KINDS = ("direct_attributes", "relative_position", "search", "compare")
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

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape} sign"

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


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its answer, and which signs decide it."""

    kind: str
    text: str
    answer: str
    candidates: tuple[Sign, ...]
    """Those that the words fit as far as the whole picture shows."""
    meant: tuple[Sign, ...]
    """Those whose numbers are the answer; of `search`, the one with the mark."""
    anchor: Sign | None = None
    """`relative_position`: the sign that the question names."""
    mark: str = ""
    """`search`: the mark that the question names."""


def make_scene(rng: np.random.Generator) -> Scene:
    """Make a scene with signs in no more than four colours, so that colours repeat."""
    colours = [str(c) for c in rng.choice(list(COLOURS), int(rng.integers(3, 5)), replace=False)]
    names = [(c, s) for c in colours for s in SHAPES]
    count = int(rng.integers(LEAST, min(MOST, len(names)) + 1))
    names = [names[i] for i in rng.permutation(len(names))[:count]]
    few = rng.choice(MARKS, 4, replace=False)  # so that a mark is on signs of several colours
    places = rng.permutation(PLACES * PLACES)[:count]
    signs, numbers = [], {}
    lowest = tuple(c for c in colours if rng.random() < 0.5)
    for colour in colours:
        numbers[colour] = draw_numbers(rng, [c for c, _ in names].count(colour), colour in lowest)
    for (colour, shape), place in zip(names, places.tolist(), strict=True):
        row, column = divmod(place, PLACES)
        x, y = ((at + 0.5) / PLACES + rng.uniform(-OFF_PLACE, OFF_PLACE) for at in (column, row))
        mark, number = str(rng.choice(few)), numbers[colour].pop()
        size = float(rng.uniform(*SIZES))
        signs.append(Sign(colour, shape, mark, number, float(x), float(y), size, column, row))
    return Scene(tuple(signs), int(rng.integers(1 << 31)), lowest)


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
    if kind == "direct_attributes":
        return Question(
            kind,
            f"Which number is on the {signs[0].name}?",
            signs[0].number,
            (signs[0],),
            (signs[0],),
        )
    if kind == "relative_position":
        for anchor in signs:
            for side in rng.permutation(list(SIDES)).tolist():
                if meant := neighbour(scene, anchor, side):
                    text = f"Which number is on the sign {side} the {anchor.name}?"
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
                text = f"Which number is on the {sign.colour} sign with a {sign.mark}?"
                return Question(kind, text, sign.number, tuple(group), (sign,), mark=sign.mark)
    return None
