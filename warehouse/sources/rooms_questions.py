"""Questions about drawn rooms: their answers are facts of the scene, and no text gives them away.

A take is one scene drawn once, or twice with a change in between; `ask` makes a question about it:

    take = sample_take(rng, low=2, high=5, change="turned")
    question = ask(rng, take, "camera_turn", Balance())

Two things keep text from giving answers away. Scenes are built around their counting question (see
`rooms_scene.sample_names`), and `Balance` turns down a question whose wording (its family and the
kinds it names) has lately had the same outcome, so that no habit of the sampler shows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .rooms_draw import Box, draw, look
from .rooms_scene import (
    PLURALS,
    SIDE,
    Count,
    Scene,
    Thing,
    distance,
    furnish,
    moved,
    sample_names,
    turned,
)

FAMILIES = ("left_right", "above_below", "closer", "count", "object_moved", "camera_turn")
CHANGE = {"object_moved": "moved", "camera_turn": "turned"}  # families that need a second frame

WORDING = {
    "left_right": (
        "Is the {a} to the left or to the right of the {b}?",
        "On which side of the {b} is the {a}, as seen from the camera?",
        "Looking at the picture, does the {a} stand left or right of the {b}?",
    ),
    "above_below": (
        "In the picture, is the {a} above or below the {b}?",
        "Does the {a} appear above or below the {b} in the image?",
        "Where in the image is the {a} compared with the {b}?",
    ),
    "closer": (
        "Which object is closer to the camera, the {a} or the {b}?",
        "Which is nearer to the camera taking this photo, the {a} or the {b}?",
        "Of the {a} and the {b}, which one is closer to you?",
    ),
    "count": (
        "How many {what} are there in the room?",
        "How many {what} can you see in the picture?",
        "Count the {what}. How many are there?",
    ),
    "object_moved": (
        "The first image was taken before the second. Which object was moved in between?",
        "One object changed its place between the two images. Which one was it?",
        "Comparing the first image with the second, which object has moved?",
    ),
    "camera_turn": (
        "The first image was taken before the second. Did the camera turn left or right?",
        "Which way did the camera rotate between the first image and the second?",
        "Nothing in the room moved, but the camera turned. Did it turn left or right?",
    ),
}


@dataclass(frozen=True, slots=True)
class Frame:
    scene: Scene
    image: Image.Image
    boxes: dict[str, Box]
    clear: tuple[str, ...]

    def centre(self, name: str) -> tuple[float, float]:
        x1, y1, x2, y2 = self.boxes[name]
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True, slots=True)
class Take:
    frames: tuple[Frame, ...]
    count: Count
    change: str | None  # None, "moved" or "turned"
    outcome: str  # the moved object's name, or "left"/"right"; "" without a change


@dataclass(frozen=True, slots=True)
class RoomQuestion:
    family: str
    text: str
    options: tuple[str, str]
    answer: str
    frames: tuple[int, ...]  # which of the take's frames it shows, in order
    about: tuple[tuple[str, int], ...]  # (object name, place in `frames`): what one must look at


@dataclass(slots=True)
class Balance:
    """Running outcome counts by cue; `slack` is how lopsided any of them may become."""

    slack: int = 1
    tally: Counter = field(default_factory=Counter)

    def allows(self, cue: tuple, outcome: int) -> bool:
        return abs(self.tally[cue] + outcome) <= self.slack

    def side(self, rng: np.random.Generator, cue: tuple) -> int:
        """+1 or -1: whichever has been rarer so far, by a coin when neither has."""
        lead = self.tally[cue]
        return int(rng.choice([-1, 1])) if lead == 0 else (-1 if lead > 0 else 1)


def sample_take(
    rng: np.random.Generator, low: int = 2, high: int = 5, change: str | None = None
) -> Take:
    """Draws until every object is clearly visible (after a turn, at least one must still be).

    The names and the count are drawn once and only positions are tried again, so that scenes that
    are hard to lay out do not become rarer.
    """
    names, count = sample_names(rng, max(low, 2) if change == "moved" else low, high)
    if change == "moved" and len(names) < 2:
        raise ValueError("a moved object needs another one that stayed")
    while True:
        scene = furnish(rng, names)
        if scene is None or len(look(scene)[2]) < len(names):
            continue
        scenes, outcome = [scene], ""
        if change == "moved":
            index = int(rng.integers(len(names)))
            after, outcome = moved(rng, scene, index), scene.things[index].name
            if after is None or len(look(after)[2]) < len(names):
                continue
            if not shifted(scene, after, outcome):
                continue
            scenes.append(after)
        elif change == "turned":
            angle = float(rng.choice([-1, 1]) * rng.uniform(0.13, 0.34))
            after, outcome = turned(scene, angle), "right" if angle > 0 else "left"
            if not look(after)[2]:
                continue
            scenes.append(after)
        frames = []
        for each in scenes:
            picture = draw(each)
            frames.append(Frame(each, picture.image, picture.boxes, tuple(sorted(picture.clear))))
        return Take(tuple(frames), count, change, outcome)


def shifted(before: Scene, after: Scene, name: str) -> bool:
    """Did the object's visible middle move by at least a tenth of the side?"""
    (a, b) = (look(scene)[1][name] for scene in (before, after))
    return np.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2 >= 0.1 * SIDE


def pair_outcome(family: str, frame: Frame, a: str, b: str) -> int | None:
    """+1 if `a` is the left, upper or nearer one, -1 if `b` is, None if it is too close to call."""
    if family == "closer":
        things: dict[str, Thing] = {t.name: t for t in frame.scene.things}
        da, db = distance(frame.scene, things[a]), distance(frame.scene, things[b])
        return None if max(da, db) / min(da, db) < 1.15 else (1 if da < db else -1)
    axis = 0 if family == "left_right" else 1
    gap = frame.centre(b)[axis] - frame.centre(a)[axis]
    return None if abs(gap) < 0.07 * SIDE else (1 if gap > 0 else -1)


def cue_of(family: str, a: str, b: str) -> tuple[tuple, bool]:
    """What the words alone could hint at for two names, and whether `a` comes first in it."""
    (colour_a, kind_a), (colour_b, kind_b) = a.split(), b.split()
    if kind_a == kind_b:
        return (family, "same"), colour_a < colour_b
    return (family, *sorted((kind_a, kind_b))), kind_a < kind_b


def ask(
    rng: np.random.Generator, take: Take, family: str, balance: Balance, frame: int = 0
) -> RoomQuestion | None:
    """One question of the family about the take, or None if it has none that keeps balance."""
    if CHANGE.get(family) not in (None, take.change):
        return None
    seen = take.frames[frame]
    notes: list[tuple[tuple, int]] = []  # cues to count once the question is sure
    words: dict[str, str] = {}
    frames: tuple[int, ...] = (frame,)
    if family == "count":
        count = take.count
        if len(seen.clear) < len(seen.scene.things):
            return None
        high = count.answer == count.high
        cue = (family, count.attribute, count.low)
        if not balance.allows(cue, 1 if high else -1):
            return None
        notes.append((cue, 1 if high else -1))
        answer, other = str(count.answer), str(count.low if high else count.high)
        words["what"] = f"{count.value} objects"
        if count.attribute == "kind":
            words["what"] = PLURALS.get(count.value, count.value + "s")
        about = tuple((n, 0) for n in seen.clear if count.value in n.split())
    elif family == "camera_turn":
        side = 1 if take.outcome == "right" else -1
        shared = [n for n in take.frames[0].clear if n in take.frames[1].clear]
        if not shared or not balance.allows((family, "text"), side):
            return None
        notes.append(((family, "text"), side))
        answer, other = take.outcome, "left" if side > 0 else "right"
        frames = (0, 1)
        about = tuple((n, i) for n in shared[: 1 + int(rng.integers(2))] for i in frames)
    else:
        names = [str(n) for n in rng.permutation(np.array(seen.clear, dtype=object))]
        if len(names) < 2:
            return None
        if family == "object_moved":
            frames = (0, 1)
            a, b = take.outcome, next(n for n in names if n != take.outcome)
            outcome: int | None = 1
        else:
            a, b = names[:2]
            outcome = pair_outcome(family, seen, a, b)
        if outcome is None:
            return None
        cue, first = cue_of(family, a, b)
        if not balance.allows(cue, outcome if first else -outcome):
            return None
        notes.append((cue, outcome if first else -outcome))
        if family in ("left_right", "above_below"):
            # Swapping the two names flips the answer, so the order is free to balance the words.
            wanted = balance.side(rng, (family, "text"))
            if outcome != wanted:
                a, b = b, a
            notes.append(((family, "text"), wanted))
            pair = ("left", "right") if family == "left_right" else ("above", "below")
            answer, other = pair if wanted > 0 else pair[::-1]
        else:
            answer, other = (a, b) if outcome > 0 else (b, a)
        words.update(a=a, b=b)
        about = tuple((n, i) for n in (a, b) for i in range(len(frames)))
    place = balance.side(rng, (family, "place"))
    notes.append(((family, "place"), place))
    options = (answer, other) if place > 0 else (other, answer)
    if family == "closer":  # the question names the two in the order of the options
        words.update(a=options[0], b=options[1])
    for cue, outcome in notes:
        balance.tally[cue] += outcome
    template = WORDING[family][rng.integers(len(WORDING[family]))]
    return RoomQuestion(family, template.format(**words), options, answer, frames, about)
