"""One scene taken once, or twice with a change in between.

take = sample_take(rng, low=2, high=8, change="moved")
take.frames[0].image, take.outcome

plan = sample_take(rng, change="turned", images=False)    # the truth alone, without drawing
take = render_take(plan, side=196)                            # the images, when they are wanted
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from vigorl_nano.rooms.draw import Box, Sight, draw, look
from vigorl_nano.rooms.objects import Count, sample_names
from vigorl_nano.rooms.scene import SIDE, Scene, furnish, move_thing, turn_camera

LAYOUTS = 8  # tries to show every object clearly before the best layout is taken
MOVES = 12  # tries to find the moved object another place
UNDRAWN = Image.new("RGB", (1, 1))  # stands for the image of a frame that was only looked at


@dataclass(frozen=True, slots=True)
class Frame:
    """What one image shows; boxes are pixels of the stored side, x2 and y2 exclusive."""

    scene: Scene
    image: Image.Image  # RGB; one pixel where no image was wanted
    boxes: dict[str, Box]
    clear: tuple[str, ...]  # names in alphabetical order
    depths: dict[str, float]  # metres from the camera to the object's middle
    shown: dict[str, float]  # share of the object's own pixels that nothing hides, 0 to 1

    def centre(self, name: str) -> tuple[float, float]:
        x1, y1, x2, y2 = self.boxes[name]
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True, slots=True)
class Take:
    frames: tuple[Frame, ...]
    count: Count
    change: str | None  # None, "moved" or "turned"
    outcome: str  # the moved object's name, or "left"/"right"; "" without a change


def frame_of(scene: Scene, sight: Sight, image: Image.Image = UNDRAWN) -> Frame:
    clear = tuple(sorted(sight.clear))
    return Frame(scene, image, sight.boxes, clear, sight.depths, sight.shown)


def render_take(take: Take, side: int = SIDE, over: int = 2) -> Take:
    """Draw the images of a take, `side` pixels a side."""
    frames = []
    for frame in take.frames:
        rendering = draw(frame.scene, side, over)
        frames.append(frame_of(frame.scene, rendering, rendering.image))
    return replace(take, frames=tuple(frames))


def lay_out(rng: np.random.Generator, names: list[tuple[str, str]]) -> Frame | None:
    """Lay out a room: all objects clear, or as many as in the best of a few layouts."""
    best: Frame | None = None
    for _ in range(LAYOUTS):
        scene = furnish(rng, names)
        if scene is None:
            continue
        frame = frame_of(scene, look(scene))
        if best is None or len(frame.clear) > len(best.clear):
            best = frame
        if len(best.clear) == len(names):
            break
    return best


def sample_take(
    rng: np.random.Generator,
    low: int = 2,
    high: int = 8,
    change: str | None = None,
    images: bool = True,
    side: int = SIDE,
    over: int = 2,
) -> Take:
    """Sample a take with `low` to `high` objects; `change` is None, "moved" or "turned".

    The names are drawn once and positions several times, so that rooms that are hard to lay out
    do not become rare; after that, some objects may be partly hidden. At least one object is clear
    in every frame; a moved object is, before and after, and so is another one that stayed.
    """
    if change == "moved" and high < 2:
        raise ValueError("a moved object needs another one that stayed")
    while True:
        names, count = sample_names(rng, max(low, 2) if change == "moved" else low, high)
        first = lay_out(rng, names)
        if first is None or not first.clear:
            continue
        frames, outcome = [first], ""
        if change == "moved":
            # Drawn once as well: objects that are hard to move must not move less often.
            index = int(
                rng.choice([i for i, t in enumerate(first.scene.things) if t.name in first.clear])
            )
            outcome = first.scene.things[index].name
            after = move_in_view(rng, first, index)
            if after is None:
                continue
            frames.append(after)
        elif change == "turned":
            angle = float(rng.choice([-1, 1]) * rng.uniform(0.13, 0.34))
            scene, outcome = turn_camera(first.scene, angle), "right" if angle > 0 else "left"
            after = frame_of(scene, look(scene))
            if not set(first.clear) & set(after.clear):
                continue
            frames.append(after)
        take = Take(tuple(frames), count, change, outcome)
        return render_take(take, side, over) if images else take


def move_in_view(rng: np.random.Generator, first: Frame, index: int) -> Frame | None:
    """Move one object by at least a tenth of the image's side; None if no try succeeds."""
    name = first.scene.things[index].name
    for _ in range(MOVES):
        scene = move_thing(rng, first.scene, index)
        if scene is None:
            continue
        after = frame_of(scene, look(scene))
        if name not in after.clear or len(set(first.clear) & set(after.clear)) < 2:
            continue
        (a, b), (c, d) = first.centre(name), after.centre(name)
        if np.hypot(a - c, b - d) >= 0.1 * SIDE:
            return after
    return None
