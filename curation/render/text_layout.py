"""The words on a trace's card: fonts, line breaks, and the column of steps and answer.

    end = words_beside(card, (x, y), width, trace, question, marks)    # where the column ends

Pillow carries one scalable face, so nothing has to be installed; it covers little beyond ASCII, so
other letters are spelt without their accents, or as a question mark. Weight is made by a thin
stroke of the letter's own colour.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from PIL import Image, ImageDraw, ImageFont

from curation.render.marks import Mark, in_whole_pixels, role_of, shown_answer, told_of
from mcts.data import Question, Trace

INK, MUTED, LINE, PAPER = "#14191d", "#56616a", "#d3d9dd", "#f4f6f7"
BLUE, ORANGE = "#1259c3", "#c2410c"
_NOTES = {"wrong": "Wrong attempt", "turn": "Turns back"}
_WORD = re.compile(r"\(\S{1,12} \S{1,12}\)\S*|\S+")  # a coordinate stays on one line
_SPELT = {"–": "-", "—": "-", "−": "-", "×": "x", "•": "·", "→": "->", "ß": "ss", "\t": " "}
_CROP = 210  # pixels of a crop's height beside its step
_LONGEST = 1500  # characters of one text; a runaway thought must not make a card of a mile


def colour_of(role: str) -> str:
    """Return the colour of a step by its role."""
    return ORANGE if role == "wrong" else BLUE


@lru_cache(maxsize=64)
def _face(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own face at `size` pixels."""
    return _face(max(6, round(size)))


@lru_cache(maxsize=4096)
def _letter(char: str) -> str:
    """`char` as the face can draw it: itself, a spelling without accents, or a question mark."""
    face = _face(20)
    if char.isspace() or bytes(face.getmask(char)) != bytes(face.getmask("\uffff")):
        return " " if char.isspace() else char if char.isprintable() else "?"
    plain = unicodedata.normalize("NFKD", _SPELT.get(char, char))
    return "".join(c for c in plain if c.isascii() and c.isprintable()) or "?"


def drawable(text: str) -> str:
    """Replace everything that the face would draw as an empty box."""
    return " ".join("".join(map(_letter, text)).split())


def wrap(text: str, size: float, width: float) -> list[str]:
    """Break `text` into lines no wider than `width` pixels; a word too long for one is cut."""
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "…"
    face, lines, line = font(size), [], ""
    for word in _WORD.findall(drawable(text)):
        while face.getlength(word) > width:
            fit = max(1, bisect(range(1, len(word)), width, key=lambda n: face.getlength(word[:n])))
            lines += [*([line] if line else []), word[:fit]]
            word, line = word[fit:], ""
        longer = f"{line} {word}" if line else word
        if face.getlength(longer) <= width:
            line = longer
        else:
            lines.append(line)
            line = word
    return [*lines, line] if line else lines


def words_beside(
    card: Image.Image,
    at: tuple[float, float],
    width: float,
    trace: Trace,
    question: Question,
    marks: Sequence[Mark],
    crops: Mapping[int, Image.Image] = MappingProxyType({}),
) -> float:
    """Write question, steps, answer and whether it is right; returns the y where they end.

    Args:
        crops: what steps were shown, by the step's index.
    """
    column = _Column(card, *at, width)
    about = (question.task, question.family, trace.kind)
    column.write(" · ".join(filter(None, about)), 21, MUTED)
    column.y += 8
    column.write(question.text, 40, INK, weight=0.7)
    if question.choices:
        column.y += 4
        column.write(" / ".join(question.choices), 25, MUTED)
    column.y += 26
    for i, step in enumerate(trace.steps):
        outside = [m.outside for m in marks if m.label == str(i + 1) and m.outside]
        role = role_of(trace, i)
        note = _NOTES.get(role, "") if i == 0 or role != role_of(trace, i - 1) else ""
        column.step(str(i + 1), in_whole_pixels(step.thought, step.points), role, outside, note)
        if step.observation is not None:
            column.look(crops.get(i), told_of(step.observation), role)
    column.y += 10
    column.answer(trace, question)
    for mark in marks:
        if mark.label == "A" and mark.outside:
            column.write(f"The answer {mark.outside}.", 21, ORANGE)
    return column.y


class _Column:
    """A pen that moves down a column."""

    def __init__(self, card: Image.Image, x: float, y: float, width: float) -> None:
        self.card, self.draw = card, ImageDraw.Draw(card)
        self.x, self.y, self.width = x, y, width

    def write(
        self, text: str, size: float, fill: str, *, weight: float = 0, indent: float = 0
    ) -> None:
        for line in wrap(text, size, self.width - indent):
            self.draw.text((self.x + indent, self.y), line, fill, font(size), stroke_width=weight)
            self.y += round(size * 1.36)

    def step(
        self, number: str, thought: str, role: str, outside: Sequence[str], note: str = ""
    ) -> None:
        """A numbered thought; those of a wrong attempt stand on a rail of their own colour."""
        colour, indent = colour_of(role), 62
        if note:
            self.write(note, 20, colour, weight=0.3, indent=indent)
        top = self.y
        self.write(thought, 27, INK, indent=indent)
        for reason in outside:
            self.write(reason, 20, ORANGE, indent=indent)
        if role == "wrong":
            rail = (self.x + 50, top + (2 if note else -20), self.x + 53, self.y - 2)
            self.draw.rectangle(rail, fill=ORANGE)
        self._badge(number, role, (self.x, top - 3))
        self.y += 18

    def look(self, crop: Image.Image | None, told: str, role: str) -> None:
        """The crop that a step was shown, with what it was told; or why there is none."""
        indent, above = 62, self.y - 20
        if crop is None:
            self.y -= 8
            self.write(told, 20, ORANGE, indent=indent)
        else:
            scale = min(_CROP / crop.height, _CROP * 1.4 / crop.width)
            size = (max(1, round(crop.width * scale)), max(1, round(crop.height * scale)))
            x, top = round(self.x + indent), round(self.y - 4)
            self.card.paste(crop.resize(size, Image.Resampling.LANCZOS), (x, top))
            edge = (x - 2, top - 2, x + size[0] + 1, top + size[1] + 1)
            self.draw.rectangle(edge, outline=colour_of(role), width=2)
            self.y = top + 2
            self.write(told, 20, MUTED, indent=indent + size[0] + 18)
            self.y = max(self.y, top + size[1] + 4)
        if role == "wrong":
            self.draw.rectangle((self.x + 50, above, self.x + 53, self.y - 2), fill=ORANGE)
        self.y += 18

    def _badge(self, number: str, role: str, at: tuple[float, float]) -> None:
        """The step's number as on the image; drawn large and averaged down, for smooth edges."""
        shape = Image.new("L", (160, 160))
        pen = ImageDraw.Draw(shape)
        if role == "wrong":
            pen.rounded_rectangle((4, 4, 155, 155), 28, fill=255)
        else:
            pen.ellipse((2, 2, 157, 157), fill=255)
        shape = shape.resize((40, 40), Image.Resampling.LANCZOS)
        x, y = round(at[0]), round(at[1])
        self.card.paste(colour_of(role), (x, y, x + 40, y + 40), shape)
        face = font(23 if len(number) < 3 else 18)
        self.draw.text((x + 20, y + 20), number, "white", face, anchor="mm", stroke_width=0.5)

    def answer(self, trace: Trace, question: Question) -> None:
        self.draw.line((self.x, self.y, self.x + self.width, self.y), fill=LINE, width=2)
        self.y += 26
        right = trace.reward is not None and trace.reward >= 1.0
        colour = MUTED if trace.reward is None else BLUE if right else ORANGE
        word = "not graded" if trace.reward is None else "correct" if right else "wrong"
        if trace.reward is not None and 0 < trace.reward < 1:
            word = f"partly correct ({trace.reward:g})"
        self.write("Answer", 21, MUTED)
        top = self.y
        text = shown_answer(trace.answer, question) or "no answer was given"
        room = font(24).getlength(word) + 74
        self.width -= room
        self.write(text, 38, INK if trace.answer is not None else MUTED, weight=0.7)
        self.width += room
        self._grade(colour, word, top + 24)

    def _grade(self, colour: str, word: str, y: float) -> None:
        """Draw a tick, a cross or a dash, and the word for it, at the column's right edge."""
        face = font(24)
        x = self.x + self.width - face.getlength(word)
        self.draw.text((x, y), word, colour, face, anchor="lm", stroke_width=0.5)
        x -= 26
        strokes = {
            "correct": [[(-10, 0), (-3, 8), (10, -9)]],
            "wrong": [[(-8, -8), (8, 8)], [(-8, 8), (8, -8)]],
        }.get(word, [[(-9, 0), (9, 0)]])
        for stroke in strokes:
            self.draw.line(
                [(x + dx, y + dy) for dx, dy in stroke], fill=colour, width=4, joint="curve"
            )
