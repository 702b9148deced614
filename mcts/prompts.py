"""Prompts are text files with named gaps; this module fills them and builds a teacher's messages.

    messages = build_messages(load_prompt("points"), question, space, min_thoughts=4, steps=path)

A prompt file has a `[user]` part and usually a `[system]` part. The gaps are `{question}`,
`{choices}`, `{min_thoughts}`, `{coordinates}`, `{several_images}` and `{answer_form}`; anything
else in braces is left alone, since questions may hold braces. What has been thought so far is a
partial assistant turn, so that along a branch prompts only ever grow and prefix caches hit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from mcts.coordinates import CoordinateSpace, Frame, SpaceKind
from mcts.data import AnswerKind, Question, Step, content_id
from mcts.parsing import render
from mcts.teachers.base import Message, Picture, Text

_COORDINATES = {
    SpaceKind.NORMALIZED_1000: "in thousandths of the image's width and height, "
    "from (0, 0) at the top left to (1000, 1000) at the bottom right",
    SpaceKind.ABSOLUTE_RESIZED: "in pixels of the image as you see it, from (0, 0) at the top left",
    SpaceKind.ABSOLUTE_ORIGINAL: "in pixels of the image, from (0, 0) at the top left",
}
_GAP = re.compile(r"\{(?:question|choices|min_thoughts|coordinates|several_images|answer_form)\}")
_ANSWER_FORMS = {
    AnswerKind.TEXT: "",
    AnswerKind.BOX: " as one location (x, y)",
    AnswerKind.POINT: " as one location (x, y)",
    AnswerKind.ACTION: ", as one action such as `click [12]` or `type [7] [hello]`",
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt file, cut into its parts."""

    name: str
    system: str
    """Empty when the file has no `[system]` part."""
    user: str

    @property
    def digest(self) -> str:
        """Content hash of the template; part of a search's identity."""
        return content_id(self.system, self.user)


@cache
def load_prompt(name: str) -> Prompt:
    """Read `mcts/prompts/<name>.txt`; `package:file` is a prompt that another package brings.

    Raises:
        ValueError: there is no such prompt, with the names there are.
    """
    if ":" in name:
        return _cut(name, _brought(name))
    folder = resources.files("mcts") / "prompts"
    names = sorted(p.name.removesuffix(".txt") for p in folder.iterdir() if p.name.endswith(".txt"))
    if name not in names:
        raise ValueError(f"no prompt named {name!r}; there are: {', '.join(names)}")
    return _cut(name, (folder / f"{name}.txt").read_text(encoding="utf-8"))


def _brought(name: str) -> str:
    package, _, file = name.partition(":")
    try:
        return resources.files(package).joinpath(file).read_text(encoding="utf-8")
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(f"the prompt {name!r} can't be read: {error}") from None


def _cut(name: str, text: str) -> Prompt:
    before, user_part, user = text.partition("[user]\n")
    if not user_part or "{question}" not in user:
        raise ValueError(f"the prompt {name!r} has no [user] part with a {{question}} in it")
    system = before.partition("[system]\n")[2]
    return Prompt(name, system.strip(), user.strip())


def choices_line(choices: Sequence[str]) -> str:
    """How choices are shown behind a question: ` Choices: a, b or c.`, or nothing."""
    if not choices:
        return ""
    *first, last = choices
    listed = f"{', '.join(first)} or {last}" if first else last
    return f" Choices: {listed}."


def build_messages(
    prompt: Prompt,
    question: Question,
    space: CoordinateSpace,
    min_thoughts: int,
    steps: Sequence[Step] = (),
    open_answer: bool = False,
) -> tuple[Message, ...]:
    """The conversation that asks for the next step, or the rest, of a line of reasoning.

    Args:
        min_thoughts: the least number of steps the prompt demands.
        steps: what has been thought so far, in original pixels.
        open_answer: end in an opened answer tag, so that nothing but the answer can follow.
    """
    several = len(question.images) > 1
    gaps = {
        "{question}": question.text,
        "{choices}": choices_line(question.choices),
        "{min_thoughts}": str(min_thoughts),
        "{coordinates}": _COORDINATES[space.kind],
        "{several_images}": (
            ' There are several images: write "(x, y) in image 2" for a place in the second.'
            if several
            else ""
        ),
        "{answer_form}": _ANSWER_FORMS[question.answer_kind],
    }
    messages: list[Message] = []
    if prompt.system:
        messages.append(Message("system", (Text(_fill(prompt.system, gaps)),)))
    pictures = [Picture(image.image_id) for image in question.images]
    messages.append(Message("user", (*pictures, Text(_fill(prompt.user, gaps)))))
    partial = render(steps, None, Frame.of(space, question))
    if open_answer:
        partial = f"{partial}\n<answer>" if partial else "<answer>"
    if partial:
        messages.append(Message("assistant", (Text(partial),)))
    return tuple(messages)


def _fill(template: str, gaps: dict[str, str]) -> str:
    # In one pass: what a question says in braces must not be filled in turn.
    return _GAP.sub(lambda match: gaps[match[0]], template)
