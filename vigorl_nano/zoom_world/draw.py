"""Draws a scene, or a region of one, at any size.

    picture = draw(scene, side=2048)                            # a Pillow image
    crop = draw(scene, side=196, region=(0.4, 0.5, 0.125))      # left, top and side of the region

A region is drawn as it is, without the picture around it: thousands of crops a minute.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vigorl_nano.rooms.objects import COLOURS
from vigorl_nano.zoom_world.scene import Scene, Sign

WHOLE = (0.0, 0.0, 1.0)
INK = (28, 28, 34)
PLATE = (246, 245, 240)
PLATE_SIZE = (0.054, 0.026)
GLYPH = 0.0185
"""Height and width of the field that a mark or a number fills."""
BESIDE = 0.0125
"""From the plate's middle to the middle of the mark, and of the number."""

Pen = ImageDraw.ImageDraw
Region = tuple[float, float, float]
Place = Callable[[float, float], tuple[float, float]]
"""From shares of the whole picture's sides to pixels of what is drawn."""


def mark_at(sign: Sign) -> tuple[float, float]:
    """Return the middle of a sign's mark."""
    return sign.x - BESIDE, sign.y


def number_at(sign: Sign) -> tuple[float, float]:
    """Return the middle of a sign's number."""
    return sign.x + BESIDE, sign.y


def draw(scene: Scene, side: int, region: Region = WHOLE, over: int = 2) -> Image.Image:
    """Draw a square region, `side` pixels a side, averaged from `over` times as many."""
    left, top, share = region
    scale = side * over / share
    picture = Image.new("RGB", (side * over, side * over))
    pen = ImageDraw.Draw(picture)

    def place(x: float, y: float) -> tuple[float, float]:
        return (x - left) * scale, (y - top) * scale

    (launcher if scene.screen else background)(pen, scene.seed, place)
    for sign in scene.signs:
        x1, y1, x2, y2 = sign.box
        if x2 > left and x1 < left + share and y2 > top and y1 < top + share:
            draw_sign(pen, sign, place, scale)
    return picture.reduce(over) if over > 1 else picture


def background(pen: Pen, seed: int, place: Place) -> None:
    """Draw a wall with panels of muted colour."""
    rng = np.random.default_rng(seed)
    hue, light = rng.uniform(), rng.uniform(0.62, 0.86)

    def muted(value: float) -> tuple[int, ...]:
        return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.07, value))

    pen.rectangle((*place(-1, -1), *place(2, 2)), fill=muted(light))
    for _ in range(int(rng.integers(4, 10))):
        x, y = rng.uniform(-0.1, 1, 2)
        width, height = rng.uniform(0.05, 0.5, 2)
        box = (*place(x, y), *place(x + width, y + height))
        pen.rectangle(box, fill=muted(light + rng.uniform(-0.14, 0.12)))


def launcher(pen: Pen, seed: int, place: Place) -> None:
    """Draw a launcher's window: a bar on top, a menu on the left, a light page with cards."""
    rng = np.random.default_rng(seed)
    hue, light = rng.uniform(), rng.uniform(0.84, 0.93)

    def muted(value: float, depth: float = 0.05) -> tuple[int, ...]:
        return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue, depth, value))

    pen.rectangle((*place(-1, -1), *place(2, 2)), fill=muted(light))
    bar, menu = rng.uniform(0.08, 0.12), rng.uniform(0.13, 0.17)
    for _ in range(int(rng.integers(2, 6))):
        x, y = rng.uniform(0.2, 0.8, 2)
        width, height = rng.uniform(0.15, 0.4, 2)
        box = (*place(x, y), *place(x + width, y + height))
        pen.rectangle(box, fill=muted(light + rng.uniform(-0.06, 0.06)))
    pen.rectangle((*place(0, 0), *place(1, bar)), fill=muted(light - 0.22, 0.12))
    pen.rectangle((*place(0, bar), *place(menu, 1)), fill=muted(light - 0.1, 0.08))
    for i in range(int(rng.integers(5, 9))):
        y, long = bar + 0.05 + 0.075 * i, rng.uniform(0.05, menu - 0.05)
        box = (*place(0.025, y), *place(0.025 + long, y + 0.014))
        pen.rectangle(box, fill=muted(light - 0.35, 0.1))
    box = (*place(0.3, bar / 3), *place(0.62, 2 * bar / 3))
    pen.rectangle(box, fill=muted(light - 0.05))


def draw_sign(pen: Pen, sign: Sign, place: Place, scale: float) -> None:
    """Draw a sign with its plate, mark and number."""
    x1, y1, x2, y2 = sign.box
    fill = COLOURS[sign.colour]
    rim = tuple(int(0.62 * c) for c in fill)
    width = max(1, round(0.004 * scale))
    box = (*place(x1, y1), *place(x2, y2))
    if sign.shape == "round":
        pen.ellipse(box, fill=fill, outline=rim, width=width)
    else:
        pen.rounded_rectangle(box, 0.008 * scale, fill=fill, outline=rim, width=width)
    wide, high = (share / 2 for share in PLATE_SIZE)
    plate = (*place(sign.x - wide, sign.y - high), *place(sign.x + wide, sign.y + high))
    pen.rounded_rectangle(plate, 0.004 * scale, fill=PLATE)
    draw_mark(pen, sign.mark, place(*mark_at(sign)), GLYPH * scale)
    x, y = place(*number_at(sign))
    pen.text(
        (x, y),
        sign.number,
        fill=INK,
        font=font(round(1.3 * GLYPH * scale)),
        anchor="mm",
        stroke_width=GLYPH * scale * 0.03,
    )


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(size, 1))


def draw_mark(pen: Pen, mark: str, middle: tuple[float, float], size: float) -> None:
    """Draw a mark in a field of `size` pixels a side."""

    def at(*values: float) -> list[float]:
        """Turn shares of the field, from its top left, into pixels."""
        return [
            m + (v - 0.5) * size for v, m in zip(values, middle * (len(values) // 2), strict=True)
        ]

    thick = max(1, round(0.13 * size))
    if mark == "tree":
        pen.polygon(at(0.5, 0, 0.95, 0.72, 0.05, 0.72), fill=INK)
        pen.rectangle(at(0.4, 0.72, 0.6, 1), fill=INK)
    elif mark == "house":
        pen.polygon(at(0.5, 0.02, 1, 0.45, 0, 0.45), fill=INK)
        pen.rectangle(at(0.15, 0.45, 0.85, 1), fill=INK)
        pen.rectangle(at(0.4, 0.62, 0.6, 1), fill=PLATE)
    elif mark == "cup":
        pen.ellipse(at(0.5, 0.2, 1, 0.7), outline=INK, width=thick)
        pen.rectangle(at(0.05, 0.12, 0.72, 0.9), fill=INK)
    elif mark == "bottle":
        pen.rectangle(at(0.4, 0, 0.6, 0.4), fill=INK)
        pen.rounded_rectangle(at(0.28, 0.35, 0.72, 1), 0.08 * size, fill=INK)
    elif mark == "clock":
        pen.ellipse(at(0, 0, 1, 1), outline=INK, width=thick)
        pen.line(at(0.5, 0.22, 0.5, 0.52, 0.72, 0.52), fill=INK, width=thick)
    elif mark == "table":
        pen.rectangle(at(0, 0.25, 1, 0.42), fill=INK)
        pen.rectangle(at(0.1, 0.42, 0.24, 0.95), fill=INK)
        pen.rectangle(at(0.76, 0.42, 0.9, 0.95), fill=INK)
    elif mark == "car":
        pen.polygon(at(0.2, 0.5, 0.32, 0.24, 0.7, 0.24, 0.82, 0.5), fill=INK)
        pen.rectangle(at(0, 0.48, 1, 0.72), fill=INK)
        pen.ellipse(at(0.1, 0.6, 0.38, 0.9), fill=INK)
        pen.ellipse(at(0.62, 0.6, 0.9, 0.9), fill=INK)
    else:
        pen.polygon(at(0.3, 0, 0.7, 0, 0.95, 0.45, 0.05, 0.45), fill=INK)
        pen.rectangle(at(0.44, 0.45, 0.56, 0.9), fill=INK)
        pen.rectangle(at(0.22, 0.88, 0.78, 1), fill=INK)
