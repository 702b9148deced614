"""What can stand in a room: colours, kinds with their sizes and materials, and which a room gets.

    names, count = sample_names(rng, 2, 5)      # [("red", "ball"), ...] and the counting question

Walls and floors are here too, since their muted colours must stay apart from those of objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 45, 42),
    "orange": (242, 133, 28),
    "yellow": (247, 214, 54),
    "green": (52, 158, 72),
    "blue": (44, 98, 214),
    "purple": (138, 62, 178),
}
KINDS = ("ball", "box", "chair", "lamp", "shelf", "sofa", "table", "vase")
PLURALS = {"box": "boxes", "shelf": "shelves"}
SIZES = {  # metres wide, high and deep at scale 1
    "ball": (0.5, 0.5, 0.5),
    "box": (0.48, 0.46, 0.48),
    "chair": (0.5, 0.95, 0.5),
    "lamp": (0.52, 1.5, 0.52),
    "shelf": (0.9, 1.5, 0.36),
    "sofa": (1.6, 0.8, 0.8),
    "table": (1.2, 0.75, 0.75),
    "vase": (0.34, 0.5, 0.34),
}
SCALES = {  # least and greatest scale; 0.92 to 1.08 for the kinds not named here
    "ball": (0.6, 1.3),
    "box": (0.74, 1.25),
    "vase": (0.74, 1.2),
}
MATERIALS = {  # what the coloured surface of a kind may be made of
    "ball": ("plastic", "metal", "wood", "fabric", "ceramic"),
    "box": ("plastic", "wood", "metal", "fabric"),
    "chair": ("wood", "plastic", "fabric", "metal"),
    "lamp": ("fabric",),
    "shelf": ("wood", "metal", "plastic"),
    "sofa": ("fabric",),
    "table": ("wood", "plastic", "metal"),
    "vase": ("ceramic", "metal", "plastic"),
}
ON_STAND = ("ball", "box", "vase")
STAND = 0.44  # metres a side

# Walls and floors stay pale or greyish: the named colours belong to the objects alone.
WALLS = (
    (226, 218, 204),
    (196, 206, 200),
    (192, 204, 216),
    (222, 214, 218),
    (214, 206, 186),
    (208, 204, 200),
    (184, 194, 194),
    (232, 226, 214),
)
FLOORS = (
    (186, 154, 122),
    (158, 130, 104),
    (204, 182, 150),
    (154, 146, 138),
    (178, 172, 164),
    (136, 114, 94),
)


@dataclass(frozen=True, slots=True)
class Count:
    """The one counting question a scene is built around, so that its answer is balanced."""

    attribute: str  # "kind" or "colour"
    value: str
    low: int
    high: int
    answer: int  # low or high


def sample_names(
    rng: np.random.Generator, low: int, high: int
) -> tuple[list[tuple[str, str]], Count]:
    """Draw (colour, kind) pairs, with a counting question whose two options are equally likely.

    The pair of options is drawn first and then which of them is true, so the options alone tell
    nothing about the answer.
    """
    pairs = [(a, a + 1, p) for a, p in ((1, 0.4), (2, 0.4), (3, 0.2)) if a + 1 <= high]
    weights = np.array([p for *_, p in pairs])
    first, second, _ = pairs[rng.choice(len(pairs), p=weights / weights.sum())]
    answer = int(rng.choice([first, second]))
    attribute = ("kind", "colour")[rng.integers(2)]
    values, others = (KINDS, tuple(COLOURS)) if attribute == "kind" else (tuple(COLOURS), KINDS)
    value = values[rng.integers(len(values))]
    total = int(rng.integers(max(low, answer), high + 1))
    chosen = [(value, others[i]) for i in rng.choice(len(others), answer, replace=False)]
    rest = [(v, o) for v in values if v != value for o in others]
    chosen += [rest[i] for i in rng.choice(len(rest), total - answer, replace=False)]
    rng.shuffle(chosen)
    names = [(o, v) if attribute == "kind" else (v, o) for v, o in chosen]
    return names, Count(attribute, value, first, second, answer)
