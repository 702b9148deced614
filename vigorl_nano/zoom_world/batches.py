"""The batches that training learns from, drawn at the model's size as they are needed.

frames, spots = make_pictures(rng, scenes=8, crops=3)           # for the vision tower
frames, spots, groups = make_batch(rng, encoder, plan, scenes=4)    # dialogues, with pictures
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from vigorl_nano.pretraining.batches import GREY
from vigorl_nano.pretraining.config import SIDE
from vigorl_nano.pretraining.encode import Encoded
from vigorl_nano.zoom_world.demonstrations import (
    CROP_SHARE,
    NOISY,
    OFF_POINT,
    Example,
    Place,
    Policy,
    beside,
    demonstrate,
    direct,
    grounded,
    reading,
)
from vigorl_nano.zoom_world.draw import draw, mark_at, number_at
from vigorl_nano.zoom_world.encode import DialogueEncoder
from vigorl_nano.zoom_world.neighbours import demonstrate_neighbour, places_beside
from vigorl_nano.zoom_world.scene import Scene, Sign, ask, make_scene
from vigorl_nano.zoom_world.sight import Spot

GROUP = 4
"""Sequences that are padded to one length."""
NATIVE = (128, 256)
"""Pixels a side of a crop before it is enlarged: an eighth of the smallest and largest picture."""


def whole(scene: Scene) -> np.ndarray:
    """Draw the whole picture as the model sees it."""
    large = draw(scene, 4 * SIDE, over=1)
    return np.asarray(large.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def crop(rng: np.random.Generator, scene: Scene, middle: Place) -> np.ndarray:
    """Draw a crop as the model sees it, of a picture of some size."""
    x, y = middle
    region = (x - CROP_SHARE / 2, y - CROP_SHARE / 2, CROP_SHARE)
    drawn = draw(scene, int(rng.integers(NATIVE[0], NATIVE[1] + 1)), region)
    return np.asarray(drawn.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def sign_spots(picture: int, scene: Scene) -> list[Spot]:
    return [Spot(picture, s.x, s.y, {"colour": s.colour, "shape": s.shape}) for s in scene.signs]


def detail_spots(picture: int, sign: Sign, middle: Place) -> list[Spot]:
    spots = []
    for what, word, at in (
        ("mark", sign.mark, mark_at(sign)),
        ("number", sign.number, number_at(sign)),
    ):
        x, y = (0.5 + (v - m) / CROP_SHARE for v, m in zip(at, middle, strict=True))
        if 0.04 < x < 0.96 and 0.04 < y < 0.96:
            spots.append(Spot(picture, x, y, {what: word}))
    return spots


def light(rng: np.random.Generator, frames: list[np.ndarray]) -> torch.Tensor:
    """Join frames, each a little lighter or darker."""
    made = []
    for frame in frames:
        made.append(np.minimum(frame * np.float32(rng.uniform(0.92, 1.06)), 255).astype(np.uint8))
    return torch.from_numpy(np.stack(made))


def make_pictures(
    rng: np.random.Generator, scenes: int, crops: int
) -> tuple[torch.Tensor, list[Spot]]:
    """Draw whole pictures, and some crops of each."""
    frames: list[np.ndarray] = []
    spots: list[Spot] = []
    for _ in range(scenes):
        scene = make_scene(rng)
        spots += sign_spots(len(frames), scene)
        frames.append(whole(scene))
        for i in rng.permutation(len(scene.signs))[:crops]:
            sign = scene.signs[i]
            middle = beside(sign, rng.normal(0, OFF_POINT, 2))
            spots += detail_spots(len(frames), sign, middle)
            frames.append(crop(rng, scene, middle))
    return light(rng, frames), spots


def make_batch(
    rng: np.random.Generator, encoder: DialogueEncoder, plan: dict[str, Any], scenes: int
) -> tuple[torch.Tensor, list[Spot], list[list[tuple[Encoded, list[int]]]]]:
    """Make dialogues and exercises, as `plan["shares"]` says, about some scenes."""
    frames: list[np.ndarray] = [np.full((SIDE, SIDE, 3), GREY, np.uint8)]
    spots: list[Spot] = []
    rows: list[tuple[Encoded, list[int]]] = []
    names, shares = zip(*plan["shares"].items(), strict=True)
    policy = Policy(**plan.get("policy", {}))
    screens = plan.get("screens", 0.0)
    for _ in range(scenes):
        scene = make_scene(rng, screen=bool(screens) and rng.random() < screens)
        spots += sign_spots(len(frames), scene)
        overview = len(frames)
        frames.append(whole(scene))
        for _ in range(plan["questions"]):
            part = str(rng.choice(names, p=shares))
            example = exercise(rng, scene, part, plan.get("kinds"), policy)
            if example is None:
                continue
            row = encoder(example, part != "reading")
            shown = [] if part == "reading" else [overview]
            for each in example.crops:
                shown.append(len(frames))
                if each.sign:
                    spots += detail_spots(len(frames), each.sign, each.middle)
                frames.append(crop(rng, scene, each.middle))
            rows.append((row, [0] * len(shown) if example.blind else shown))
    rows.sort(key=lambda pair: len(pair[0].ids))
    groups = [rows[i : i + GROUP] for i in range(0, len(rows), GROUP)]
    return light(rng, frames), spots, groups


def exercise(
    rng: np.random.Generator,
    scene: Scene,
    part: str,
    kinds: dict[str, float] | None = None,
    policy: Policy = NOISY,
) -> Example | None:
    """Make a dialogue or an exercise about a scene; None if it has nothing to ask.

    Args:
        kinds: how often each kind of question is asked, against others of its scene; None for
            alike.
        policy: how dialogues decide to go on.
    """
    if part == "reading":
        sign = scene.signs[rng.integers(len(scene.signs))]
        return reading(sign, beside(sign, rng.normal(0, OFF_POINT, 2)))
    if part == "beside":
        question = None if scene.screen else ask(rng, scene, "relative_position")
        return places_beside(rng, scene, question) if question else None
    weights = np.array([kinds[each] if kinds else 1.0 for each in scene.kinds])
    kind = rng.choice(scene.kinds, p=weights / weights.sum())
    question = ask(rng, scene, str(kind))
    if question is None:
        return None
    if part == "grounded" and not question.clicks:
        return grounded(rng, question)
    if part == "direct" and not question.clicks:
        return direct(question)
    if question.anchor and part != "point" and rng.random() < policy.steps_aside:
        return demonstrate_neighbour(rng, scene, question, part == "blind", policy)
    ends = "point" if part == "point" else ""
    return demonstrate(rng, scene, question, part == "blind", ends, policy)
